//! `/twins/{device}[/modules/{module}]`: twins, as services see them.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use super::request::{Body, Target, with_etag};
use crate::etag::IfMatch;
use crate::hub::Hub;
use crate::refusal::HubRefusal;
use crate::twin::TwinChange;

pub(super) async fn read(State(hub): State<Arc<Hub>>, Target(id): Target) -> Result<Response, HubRefusal> {
    let twin = hub.registry.read(&id, |device| device.twin_json(&id, &hub.presence(&id)))?;
    Ok(with_etag(twin))
}

pub(super) async fn patch(
    State(hub): State<Arc<Hub>>,
    Target(id): Target,
    if_match: IfMatch,
    Body(body): Body,
) -> Result<Response, HubRefusal> {
    hub.change_twin(&id, &TwinChange::parse(&body)?, false, &if_match).await.map(with_etag)
}

pub(super) async fn replace(
    State(hub): State<Arc<Hub>>,
    Target(id): Target,
    if_match: IfMatch,
    Body(body): Body,
) -> Result<Response, HubRefusal> {
    hub.change_twin(&id, &TwinChange::parse(&body)?, true, &if_match).await.map(with_etag)
}
