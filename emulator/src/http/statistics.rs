//! `/statistics/devices` and `/statistics/service`: how many devices there are,
//! and how many are connected.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::device::DeviceStatus;
use crate::hub::Hub;

pub(super) async fn devices(State(hub): State<Arc<Hub>>) -> Json<Value> {
    let (mut enabled, mut disabled) = (0, 0);
    hub.registry.devices(None, |_, device| {
        match device.status {
            DeviceStatus::Enabled => enabled += 1,
            DeviceStatus::Disabled => disabled += 1,
        }
        ControlFlow::Continue(())
    });
    Json(json!({
        "totalDeviceCount": enabled + disabled,
        "enabledDeviceCount": enabled,
        "disabledDeviceCount": disabled,
    }))
}

pub(super) async fn service(State(hub): State<Arc<Hub>>) -> Json<Value> {
    Json(json!({ "connectedDeviceCount": hub.links.connected() }))
}
