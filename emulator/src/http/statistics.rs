//! `/statistics/devices` and `/statistics/service`: counts.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::request::Caller;
use crate::device::Status;
use crate::error::HubError;
use crate::hub::Hub;
use crate::policies::Right;

pub(super) async fn devices(State(hub): State<Arc<Hub>>, caller: Caller) -> Result<Json<Value>, HubError> {
    caller.must(&hub, Right::RegistryRead)?;
    let (mut enabled, mut disabled) = (0, 0);
    hub.registry.devices(None, |_, device| {
        match device.status {
            Status::Enabled => enabled += 1,
            Status::Disabled => disabled += 1,
        }
        ControlFlow::Continue(())
    });
    Ok(Json(json!({
        "totalDeviceCount": enabled + disabled,
        "enabledDeviceCount": enabled,
        "disabledDeviceCount": disabled,
    })))
}

pub(super) async fn service(State(hub): State<Arc<Hub>>, caller: Caller) -> Result<Json<Value>, HubError> {
    caller.must(&hub, Right::RegistryRead)?;
    Ok(Json(json!({ "connectedDeviceCount": hub.links.connected() })))
}
