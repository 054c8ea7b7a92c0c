//! `/emulator/faults`: what tests switch on; no part of IoT Hub.
//!
//! `POST {"deviceId","fault","count"?,…}`, where the fault is one of
//! [`FaultKind`]'s or, at once, `dropLink` or `expireToken`; `throttleService` can
//! do without a device. The device may be a module, `device/module`. `GET`
//! lists what is left, `DELETE` (`?deviceId=`) forgets it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::request::{Body, Caller};
use crate::faults::{Fault, FaultKind};
use crate::hub::Hub;
use crate::identity::Identity;
use crate::link::Closed;
use crate::policies::Right;
use crate::refusal::{ErrorCode, HubRefusal};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listed {
    #[serde(skip_serializing_if = "Option::is_none")]
    device_id: Option<String>,
    #[serde(flatten)]
    fault: Fault,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Whose {
    device_id: Option<String>,
}

pub(super) async fn list(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
) -> Result<Json<Vec<Listed>>, HubRefusal> {
    caller.must(&hub, Right::ServiceConnect)?;
    let listed =
        |(id, fault): (Option<Identity>, Fault)| Listed { device_id: id.map(|id| id.to_string()), fault };
    Ok(Json(hub.faults.list().into_iter().map(listed).collect()))
}

pub(super) async fn add(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Body(body): Body,
) -> Result<StatusCode, HubRefusal> {
    caller.must(&hub, Right::ServiceConnect)?;
    let invalid = |why: String| ErrorCode::ArgumentInvalid.because(why);
    let id: Option<Identity> = match body.get("deviceId").and_then(Value::as_str) {
        Some(id) => Some(id.parse().map_err(|error| invalid(format!("{error}")))?),
        None => None,
    };
    if let Some(id) = &id {
        hub.registry.read(id, |_| ())?;
    }
    match (body.get("fault").and_then(Value::as_str), &id) {
        (Some("dropLink"), Some(id)) if hub.links.close(id, Closed::Fault) => Ok(StatusCode::NO_CONTENT),
        (Some("dropLink"), Some(id)) => {
            Err(ErrorCode::DeviceNotOnline.because(format!("{id} is not connected")))
        }
        (Some("expireToken"), Some(id)) => hub.expire_token(id).map(|()| StatusCode::NO_CONTENT),
        (Some("throttleService"), _) | (_, Some(_)) => add_pending(&hub, id, body),
        (_, None) => Err(invalid("deviceId is missing".into())),
    }
}

fn add_pending(hub: &Hub, id: Option<Identity>, body: Value) -> Result<StatusCode, HubRefusal> {
    let invalid = |why: String| ErrorCode::ArgumentInvalid.because(why);
    let fault: Fault = serde_json::from_value(body).map_err(|error| invalid(error.to_string()))?;
    match fault.kind {
        FaultKind::RefuseConnect { code } if !(1..=5).contains(&code) => {
            Err(invalid("code ranges from 1 to 5".into()))
        }
        _ if fault.count == 0 => Err(invalid("count is at least 1".into())),
        _ => {
            hub.faults.add(id, fault);
            Ok(StatusCode::NO_CONTENT)
        }
    }
}

pub(super) async fn clear(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Query(Whose { device_id }): Query<Whose>,
) -> Result<StatusCode, HubRefusal> {
    caller.must(&hub, Right::ServiceConnect)?;
    let id = device_id.map(|id| id.parse()).transpose();
    let id = id.map_err(|error| ErrorCode::ArgumentInvalid.because(format!("{error}")))?;
    hub.faults.clear(id.as_ref());
    Ok(StatusCode::NO_CONTENT)
}
