//! `/jobs/v2`: scheduled jobs. The older `/jobs`, which export and import the
//! registry, cannot be created: that list is empty.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;

use super::pages::{Page, Wanted};
use super::request::Body;
use crate::clock::now;
use crate::hub::Hub;
use crate::jobs::job::Job;
use crate::refusal::{ErrorCode, HubRefusal};

/// The query of a list: which jobs to show.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Filter {
    job_type: Option<String>,
    job_status: Option<String>,
}

pub(super) async fn create(
    State(hub): State<Arc<Hub>>,
    Path(id): Path<String>,
    Body(body): Body,
) -> Result<Json<Value>, HubRefusal> {
    hub.jobs.create(Job::parse(&id, &body, now())?).map(Json)
}

pub(super) async fn read(State(hub): State<Arc<Hub>>, Path(id): Path<String>) -> Json<Value> {
    Json(hub.jobs.json(&id))
}

pub(super) async fn cancel(
    State(hub): State<Arc<Hub>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, HubRefusal> {
    hub.jobs.cancel(&id).map(Json)
}

/// Lists jobs in pages, each a bare array, as clients were captured to get it.
pub(super) async fn query(
    State(hub): State<Arc<Hub>>,
    Query(filter): Query<Filter>,
    headers: HeaderMap,
) -> Result<Response, HubRefusal> {
    let fits = |wanted: &Option<String>, found: &str| {
        wanted.as_deref().is_none_or(|wanted| wanted.is_empty() || wanted.eq_ignore_ascii_case(found))
    };
    let wanted = Wanted::parse(&headers, None)?;
    let mut page = Page::new(&wanted);
    hub.jobs.scan(wanted.after.as_deref(), |job, json| {
        if fits(&filter.job_type, job.work.job_type()) && fits(&filter.job_status, job.status.name()) {
            page.add(&job.id, || json)
        } else {
            ControlFlow::Continue(())
        }
    });
    page.respond("jobResponse")
}

/// The list of export and import jobs.
pub(super) async fn list_v1() -> Json<Value> {
    Json(Value::Array(Vec::new()))
}

/// An export or import job, of which there is none.
pub(super) async fn read_v1(Path(id): Path<String>) -> HubRefusal {
    ErrorCode::JobNotFound.because(format!("{id}: no such job"))
}
