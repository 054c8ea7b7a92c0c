//! `/configurations`: kept and listed, and their queries tested.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::devices::{Top, parse_top};
use super::request::{Body, with_etag};
use crate::etag::IfMatch;
use crate::fields::field_of;
use crate::hub::Hub;
use crate::query;
use crate::refusal::HubRefusal;

/// The most configurations that a list holds, which is also how many it holds
/// when a service does not ask for less. Source: REST reference "Get
/// Configurations".
const MAX_LIST: usize = 100;

pub(super) async fn write(
    State(hub): State<Arc<Hub>>,
    Path(id): Path<String>,
    if_match: IfMatch,
    Body(body): Body,
) -> Result<Response, HubRefusal> {
    hub.configurations.put(&id, &body, &if_match).map(with_etag)
}

pub(super) async fn read(
    State(hub): State<Arc<Hub>>,
    Path(id): Path<String>,
) -> Result<Response, HubRefusal> {
    hub.configurations.read(&id).map(with_etag)
}

pub(super) async fn list(
    State(hub): State<Arc<Hub>>,
    Query(top): Query<Top>,
) -> Result<Json<Vec<Value>>, HubRefusal> {
    Ok(Json(hub.configurations.list(parse_top(top, MAX_LIST)?)))
}

pub(super) async fn delete(
    State(hub): State<Arc<Hub>>,
    Path(id): Path<String>,
    if_match: IfMatch,
) -> Result<StatusCode, HubRefusal> {
    hub.configurations.remove(&id, &if_match)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Says which queries of a configuration would not be understood, and why.
pub(super) async fn test_queries(Body(body): Body) -> Json<Value> {
    let condition =
        field_of(&body, "targetCondition").and_then(Value::as_str).filter(|text| !text.is_empty());
    let target = condition.and_then(|text| text.parse::<query::Condition>().err());
    let none = Map::new();
    let metrics = field_of(&body, "customMetricQueries").and_then(Value::as_object).unwrap_or(&none);
    let errors: HashMap<&String, String> = metrics
        .iter()
        .filter_map(|(name, text)| {
            Some((name, text.as_str().unwrap_or_default().parse::<query::Query>().err()?.reason().to_owned()))
        })
        .collect();
    Json(json!({
        "targetConditionError": target.map(|error| error.reason().to_owned()),
        "customMetricQueryErrors": errors,
    }))
}
