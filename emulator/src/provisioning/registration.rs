//! A registration: which hub and which name a device was given.

use std::sync::Arc;

use iotdm_proto::{DeviceId, Time};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::enrolment::{Enrolment, Scope};
use super::stamp;
use crate::authentication::Proof;
use crate::device::Wish;
use crate::error::{Code, HubError};
use crate::hub::{Hub, IfMatch};
use crate::identity::Identity;
use crate::random;
use crate::twin::Change;

/// A registration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Registration {
    /// The device's name for itself.
    pub id: DeviceId,
    /// What the device asks by how it goes.
    pub operation: String,
    /// Its name in the hub; `None` when the enrolment is disabled.
    device_id: Option<DeviceId>,
    assigned_hub: String,
    group: Option<String>,
    again: bool,
    etag: String,
    created: Time,
    updated: Time,
}

/// Registers the device that `enrolment` lets in as `id`: creates it in the
/// hub, or gives it its credentials again.
pub async fn register(
    hub: &Arc<Hub>,
    id: &DeviceId,
    enrolment: &Enrolment,
    proof: &Proof,
    over_websocket: bool,
) -> Result<Registration, HubError> {
    let device_id = enrolment.device_id.clone().unwrap_or_else(|| id.clone());
    let before = hub.provisioning.registration(id).ok();
    if enrolment.enabled {
        assign(hub, &device_id.clone().into(), enrolment, &enrolment.credentials(id, proof)).await?;
    }
    let (etag, now) = stamp()?;
    let registration = Registration {
        id: id.clone(),
        operation: format!("4.{}", random::hex_id()?),
        device_id: enrolment.enabled.then_some(device_id),
        assigned_hub: hub.device_endpoint(over_websocket),
        group: (enrolment.scope == Scope::Group).then(|| enrolment.id.clone()),
        again: before.is_some(),
        etag,
        created: before.map_or(now, |before| before.created),
        updated: now,
    };
    hub.provisioning.keep(registration.clone())?;
    Ok(registration)
}

async fn assign(
    hub: &Hub,
    device: &Identity,
    enrolment: &Enrolment,
    authentication: &Value,
) -> Result<(), HubError> {
    let wish = || Wish::parse(device, &json!({ "authentication": authentication }));
    let twin = match &enrolment.initial_twin {
        Value::Null => Change::default(),
        twin => Change::parse(twin)?,
    };
    match hub.create_device(device, wish()?, &twin).await {
        Ok(_) => Ok(()),
        Err(error) if error.code == Code::DeviceAlreadyExists => {
            let known = hub.registry.read(device, |known| known.credentials.json())?;
            let same = |place| {
                let text = |json: &Value| json.pointer(place).and_then(Value::as_str).map(str::to_owned);
                text(&known) == text(authentication)
            };
            let places = ["/type", "/symmetricKey/primaryKey", "/x509Thumbprint/primaryThumbprint"];
            if places.into_iter().all(same) {
                return Ok(());
            }
            hub.update_device(device, wish()?, &IfMatch::Any).await.map(drop)
        }
        Err(error) => Err(error),
    }
}

impl Registration {
    /// The answer to a device that has just registered: it has to ask again.
    pub fn accepted_json(&self) -> Value {
        json!({ "operationId": self.operation, "status": "assigning" })
    }

    /// The answer to a device that asks how it went.
    pub fn result_json(&self) -> Value {
        json!({
            "operationId": self.operation,
            "status": self.status(),
            "registrationState": self.state_json(),
        })
    }

    /// What became of it.
    pub fn state_json(&self) -> Value {
        let mut state = json!({
            "registrationId": self.id.as_str(),
            "status": self.status(),
            "createdDateTimeUtc": self.created,
            "lastUpdatedDateTimeUtc": self.updated,
            "etag": self.etag,
        });
        let Value::Object(fields) = &mut state else { return state };
        if let Some(device_id) = &self.device_id {
            fields.insert("assignedHub".into(), self.assigned_hub.as_str().into());
            fields.insert("deviceId".into(), device_id.as_str().into());
            let substatus = if self.again { "reprovisionedToInitialAssignment" } else { "initialAssignment" };
            fields.insert("substatus".into(), substatus.into());
        }
        if let Some(group) = &self.group {
            fields.insert("enrollmentGroupId".into(), group.as_str().into());
        }
        state
    }

    fn status(&self) -> &'static str {
        if self.device_id.is_some() { "assigned" } else { "disabled" }
    }
}
