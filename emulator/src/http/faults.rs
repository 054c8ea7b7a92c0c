//! `/emulator/faults`: what tests have the hub do wrong; no part of IoT Hub.
//!
//! `POST {"deviceId","fault","count"?,…}`, where the fault is one of
//! [`FaultKind`]; `throttleService` can do without a device. The device may be a
//! module, `device/module`. `GET` lists the faults that are still to happen,
//! `DELETE` (`?deviceId=`) forgets them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::request::Body;
use crate::faults::{Fault, FaultKind};
use crate::hub::Hub;
use crate::link::Closed;
use crate::refusal::{ErrorCode, HubRefusal};
use iotdm_proto::Identity;

/// A fault as `GET` lists it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listed {
    #[serde(skip_serializing_if = "Option::is_none")]
    device_id: Option<String>,
    #[serde(flatten)]
    fault: Fault,
}

/// The query of `DELETE`: whose faults to forget.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FaultsQuery {
    device_id: Option<String>,
}

pub(super) async fn list(State(hub): State<Arc<Hub>>) -> Json<Vec<Listed>> {
    let listed =
        |(id, fault): (Option<Identity>, Fault)| Listed { device_id: id.map(|id| id.to_string()), fault };
    Json(hub.faults.list().into_iter().map(listed).collect())
}

pub(super) async fn add(State(hub): State<Arc<Hub>>, Body(body): Body) -> Result<StatusCode, HubRefusal> {
    let id = body.get("deviceId").and_then(Value::as_str).map(parse_id).transpose()?;
    if let Some(id) = &id {
        hub.registry.read(id, |_| ())?;
    }
    let fault = Fault::parse(&body)?;
    let device = || id.as_ref().ok_or_else(|| ErrorCode::ArgumentInvalid.because("deviceId is missing"));
    match fault.kind {
        FaultKind::DropLink => {
            let id = device()?;
            if !hub.links.close(id, Closed::Fault) {
                return Err(ErrorCode::DeviceNotOnline.because(format!("{id} is not connected")));
            }
        }
        FaultKind::ExpireToken => hub.expire_token(device()?)?,
        FaultKind::ThrottleService => hub.faults.add(id, fault),
        FaultKind::WithholdPuback
        | FaultKind::WithholdTwinReply
        | FaultKind::RefuseConnect
        | FaultKind::DelayMethod
        | FaultKind::DuplicateMethod
        | FaultKind::ThrottleDevice => {
            device()?;
            hub.faults.add(id, fault);
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn clear(
    State(hub): State<Arc<Hub>>,
    Query(FaultsQuery { device_id }): Query<FaultsQuery>,
) -> Result<StatusCode, HubRefusal> {
    let id = device_id.as_deref().map(parse_id).transpose()?;
    hub.faults.clear(id.as_ref());
    Ok(StatusCode::NO_CONTENT)
}

fn parse_id(text: &str) -> Result<Identity, HubRefusal> {
    text.parse().map_err(|error| ErrorCode::ArgumentInvalid.because(format!("{error}")))
}
