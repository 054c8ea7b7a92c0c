//! `/devices`, `/devices/{id}` and `/devices/{id}/modules`: identities.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;

use super::request::{Body, Caller, Target, with_etag};
use crate::device::Wish;
use crate::error::{Code, HubError};
use crate::hub::{Hub, IfMatch};
use crate::policies::Right;
use crate::twin::Change;

/// The most devices that a list holds, and how many when nothing is asked.
const MAX_LIST: usize = 1000;

#[derive(Deserialize)]
pub(super) struct Top {
    top: Option<String>,
}

/// How many a client asks for, up to `most`, which is also what it gets when
/// it does not ask.
pub(super) fn parse_top(Top { top }: Top, most: usize) -> Result<usize, HubError> {
    let top = top.map_or(Ok(most), |top| top.parse()).ok().filter(|top| (1..=most).contains(top));
    top.ok_or_else(|| Code::ArgumentInvalid.because(format!("top ranges from 1 to {most}")))
}

pub(super) async fn list(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Query(top): Query<Top>,
) -> Result<Json<Vec<Value>>, HubError> {
    caller.must(&hub, Right::RegistryRead)?;
    let top = parse_top(top, MAX_LIST)?;
    let mut devices = Vec::new();
    hub.registry.devices(None, |id, device| {
        devices.push(device.identity_json(id, &hub.presence(id)));
        if devices.len() < top { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    Ok(Json(devices))
}

/// The modules of one device.
pub(super) async fn modules(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Target(device): Target,
) -> Result<Json<Vec<Value>>, HubError> {
    caller.must(&hub, Right::RegistryRead)?;
    hub.registry.read(&device, |_| ())?;
    let mut modules = Vec::new();
    hub.registry.modules(Some(&device), |id, module| {
        if id.device != device.device {
            return ControlFlow::Break(());
        }
        modules.push(module.identity_json(id, &hub.presence(id)));
        ControlFlow::Continue(())
    });
    Ok(Json(modules))
}

pub(super) async fn read(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Target(id): Target,
) -> Result<Response, HubError> {
    caller.must(&hub, Right::RegistryRead)?;
    let device = hub.registry.read(&id, |device| device.identity_json(&id, &hub.presence(&id)))?;
    Ok(with_etag(device))
}

/// Creates without `If-Match`, changes with it.
pub(super) async fn write(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Target(id): Target,
    if_match: IfMatch,
    Body(body): Body,
) -> Result<Response, HubError> {
    caller.must(&hub, Right::RegistryWrite)?;
    let wish = Wish::parse(&id, &body)?;
    let device = match if_match {
        IfMatch::Absent => hub.create_device(&id, wish, &Change::default()).await?,
        if_match => hub.update_device(&id, wish, &if_match).await?,
    };
    Ok(with_etag(device))
}

pub(super) async fn delete(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Target(id): Target,
    if_match: IfMatch,
) -> Result<StatusCode, HubError> {
    caller.must(&hub, Right::RegistryWrite)?;
    hub.delete_device(&id, &if_match).await?;
    Ok(StatusCode::NO_CONTENT)
}
