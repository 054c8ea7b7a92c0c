//! `/twins/{device}[/modules/{module}]`: twins, as services see them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::Value;

use super::request::{Body, Target};
use crate::api_version::ApiVersion;
use crate::device::Device;
use crate::etag::IfMatch;
use crate::hub::Hub;
use crate::refusal::HubRefusal;
use crate::twin::TwinChange;

pub(super) async fn read(
    State(hub): State<Arc<Hub>>,
    Target(id): Target,
    api: ApiVersion,
) -> Result<Json<Value>, HubRefusal> {
    let json = |device: &Device| device.twin_json(&id, &hub.presence(&id), &api);
    hub.registry.read(&id, json).map(Json)
}

pub(super) async fn patch(
    State(hub): State<Arc<Hub>>,
    Target(id): Target,
    if_match: IfMatch,
    api: ApiVersion,
    Body(body): Body,
) -> Result<Json<Value>, HubRefusal> {
    let device = hub.change_twin(&id, &TwinChange::parse(&body)?, false, &if_match).await?;
    Ok(Json(device.twin_json(&id, &hub.presence(&id), &api)))
}

pub(super) async fn replace(
    State(hub): State<Arc<Hub>>,
    Target(id): Target,
    if_match: IfMatch,
    api: ApiVersion,
    Body(body): Body,
) -> Result<Json<Value>, HubRefusal> {
    let device = hub.change_twin(&id, &TwinChange::parse(&body)?, true, &if_match).await?;
    Ok(Json(device.twin_json(&id, &hub.presence(&id), &api)))
}
