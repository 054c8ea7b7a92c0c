//! A registration: which hub and which name a device was given, and the JSON
//! that tells the device and the operator so.

use iotdm_proto::{DeviceId, Time};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// After how many seconds the device is to ask how its operation went, as recorded of
/// the service. The operation is done by then.
pub const RETRY_AFTER: u32 = 3;

/// A registration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Registration {
    /// The registration id: the device's name for itself.
    pub id: DeviceId,
    /// The id of the operation, by which the device asks how it went.
    pub operation: String,
    /// The device's name in the hub; `None` when the enrolment is disabled.
    pub device_id: Option<DeviceId>,
    /// Where the device is to connect: the hub's host, with a port where that
    /// is not the standard one.
    pub assigned_hub: String,
    /// The enrolment group that let the device in, if it was one.
    pub group: Option<String>,
    /// Whether the device had registered before.
    pub again: bool,
    /// Changes with each registration of the device.
    pub etag: String,
    /// When the device first registered.
    pub created: Time,
    /// When the device last registered.
    pub updated: Time,
}

impl Registration {
    /// The answer to a device that has just registered, and that has to ask
    /// again with the operation's id.
    pub fn accepted_json(&self) -> Value {
        json!({ "operationId": self.operation, "status": "assigning" })
    }

    /// The answer to a device that asks how its operation went.
    pub fn result_json(&self) -> Value {
        json!({
            "operationId": self.operation,
            "status": self.status(),
            "registrationState": self.state_json(),
        })
    }

    /// The `registrationState`, which is also what operators read.
    pub fn state_json(&self) -> Value {
        let mut state = json!({
            "registrationId": self.id.as_str(),
            "createdDateTimeUtc": self.created,
        });
        let Value::Object(fields) = &mut state else { return state };
        if let Some(device_id) = &self.device_id {
            fields.insert("assignedHub".into(), self.assigned_hub.as_str().into());
            fields.insert("deviceId".into(), device_id.as_str().into());
        }
        fields.insert("status".into(), self.status().into());
        if self.device_id.is_some() {
            let substatus = if self.again { "reprovisionedToInitialAssignment" } else { "initialAssignment" };
            fields.insert("substatus".into(), substatus.into());
        }
        fields.insert("lastUpdatedDateTimeUtc".into(), self.updated.to_string().into());
        fields.insert("etag".into(), self.etag.as_str().into());
        if let Some(group) = &self.group {
            fields.insert("enrollmentGroupId".into(), group.as_str().into());
        }
        state
    }

    fn status(&self) -> &'static str {
        if self.device_id.is_some() { "assigned" } else { "disabled" }
    }
}
