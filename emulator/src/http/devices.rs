//! `/devices`, `/devices/{device}` and `/devices/{device}/modules`: identities.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::Value;

use super::request::{Body, Target, with_etag};
use crate::api_version::ApiVersion;
use crate::device::{Device, IdentityChange};
use crate::etag::IfMatch;
use crate::hub::Hub;
use crate::refusal::{ErrorCode, HubRefusal};
use crate::twin::TwinChange;
use iotdm_proto::Identity;

/// The most devices that a list holds, which is also how many it holds when a
/// service does not ask for less. Source: REST reference "Get Devices".
const MAX_LIST: usize = 1000;

/// The query of a list.
#[derive(Deserialize)]
pub(super) struct Top {
    top: Option<String>,
}

/// How many items of a list a service asks for: 1 to `most`, and `most` when it
/// does not ask.
pub(super) fn parse_top(Top { top }: Top, most: usize) -> Result<usize, HubRefusal> {
    let top = top.map_or(Ok(most), |top| top.parse()).ok().filter(|top| (1..=most).contains(top));
    top.ok_or_else(|| ErrorCode::ArgumentInvalid.because(format!("top ranges from 1 to {most}")))
}

pub(super) async fn list(
    State(hub): State<Arc<Hub>>,
    Query(top): Query<Top>,
    api: ApiVersion,
) -> Result<Json<Vec<Value>>, HubRefusal> {
    let top = parse_top(top, MAX_LIST)?;
    let mut devices = Vec::new();
    hub.registry.devices(None, |id, device| {
        devices.push(device.identity_json(id, &hub.presence(id), &api));
        if devices.len() < top { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    Ok(Json(devices))
}

/// Lists the modules of one device.
pub(super) async fn modules(
    State(hub): State<Arc<Hub>>,
    Target(device): Target,
    api: ApiVersion,
) -> Result<Json<Vec<Value>>, HubRefusal> {
    hub.registry.read(&device, |_| ())?;
    let mut modules = Vec::new();
    hub.registry.modules(Some(&device), |id, module| {
        if id.device != device.device {
            return ControlFlow::Break(());
        }
        modules.push(module.identity_json(id, &hub.presence(id), &api));
        ControlFlow::Continue(())
    });
    Ok(Json(modules))
}

pub(super) async fn read(
    State(hub): State<Arc<Hub>>,
    Target(id): Target,
    api: ApiVersion,
) -> Result<Response, HubRefusal> {
    let json = |device: &Device| device.identity_json(&id, &hub.presence(&id), &api);
    Ok(shown(&id, hub.registry.read(&id, json)?))
}

/// Creates an identity without an etag in `If-Match`, changes it with one.
pub(super) async fn write(
    State(hub): State<Arc<Hub>>,
    Target(id): Target,
    if_match: IfMatch,
    api: ApiVersion,
    Body(body): Body,
) -> Result<Response, HubRefusal> {
    let identity = IdentityChange::parse(&id, &body)?;
    Ok(if if_match.creates() {
        let device = hub.create_device(&id, identity, &TwinChange::default()).await?;
        shown(&id, device.created_json(&id, &hub.presence(&id), &api))
    } else {
        let device = hub.update_device(&id, identity.replacing(), &if_match).await?;
        shown(&id, device.identity_json(&id, &hub.presence(&id), &api))
    })
}

/// An identity as an answer; only a device's etag is in the headers as well.
fn shown(id: &Identity, json: Value) -> Response {
    if id.module.is_none() { with_etag(json) } else { Json(json).into_response() }
}

pub(super) async fn delete(
    State(hub): State<Arc<Hub>>,
    Target(id): Target,
    if_match: IfMatch,
) -> Result<StatusCode, HubRefusal> {
    hub.delete_device(&id, &if_match).await?;
    Ok(StatusCode::NO_CONTENT)
}
