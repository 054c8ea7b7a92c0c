//! `/statistics/devices` and `/statistics/service`: how many devices there are,
//! and how many are connected.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::request::Caller;
use crate::device::DeviceStatus;
use crate::hub::Hub;
use crate::policies::Right;
use crate::refusal::HubRefusal;

pub(super) async fn devices(State(hub): State<Arc<Hub>>, caller: Caller) -> Result<Json<Value>, HubRefusal> {
    caller.must(&hub, Right::RegistryRead)?;
    let (mut enabled, mut disabled) = (0, 0);
    hub.registry.devices(None, |_, device| {
        match device.status {
            DeviceStatus::Enabled => enabled += 1,
            DeviceStatus::Disabled => disabled += 1,
        }
        ControlFlow::Continue(())
    });
    Ok(Json(json!({
        "totalDeviceCount": enabled + disabled,
        "enabledDeviceCount": enabled,
        "disabledDeviceCount": disabled,
    })))
}

pub(super) async fn service(State(hub): State<Arc<Hub>>, caller: Caller) -> Result<Json<Value>, HubRefusal> {
    caller.must(&hub, Right::RegistryRead)?;
    Ok(Json(json!({ "connectedDeviceCount": hub.links.connected() })))
}
