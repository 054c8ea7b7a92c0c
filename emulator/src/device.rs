//! A device or module as the registry keeps it, and its JSON.

use std::time::SystemTime;

use iotdm_proto::Time;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::credentials::{self, Credentials};
use crate::error::{Code, HubError};
use crate::identity::Identity;
use crate::link::Presence;
use crate::random;
use crate::scopes::Scopes;
use crate::twin::Twin;

/// What "never" looks like in the service's JSON.
pub const NEVER: &str = "0001-01-01T00:00:00Z";

/// All that is kept of one device or module.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Tells a device from an earlier one with the same id.
    pub generation_id: String,
    /// Changes with the identity, not with the twin.
    pub etag: String,
    /// Whether it may connect. A module has its device's.
    pub status: Status,
    /// An operator's remark on the status.
    pub status_reason: Option<String>,
    /// When the status last changed.
    pub status_updated: Option<Time>,
    /// What proves that a client is this.
    pub credentials: Credentials,
    /// Who looks after a module; only its creator knows what it means.
    pub managed_by: Option<String>,
    /// A flag that operators can query for.
    pub iot_edge: bool,
    /// The IoT Edge devices that it stands behind.
    #[serde(default)]
    pub scopes: Scopes,
    /// The twin.
    pub twin: Twin,
    /// The subscriptions of its persistent MQTT session, if it has one.
    pub session: Option<crate::subscriptions::Subscriptions>,
}

/// Whether a device may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Status {
    /// It may.
    Enabled,
    /// It may not.
    Disabled,
}

/// What a client wants an identity to be; absent parts are left to the hub.
#[derive(Debug, Default)]
pub struct Wish {
    status: Option<Status>,
    status_reason: Option<Option<String>>,
    credentials: credentials::Wish,
    managed_by: Option<String>,
    iot_edge: Option<bool>,
    scopes: Option<Scopes>,
}

impl Device {
    /// A new device as wished for.
    pub fn new(mut wish: Wish, now: Time) -> Result<Self, HubError> {
        let mut device = Device {
            generation_id: now.unix_millis().to_string(),
            etag: String::new(),
            status: Status::Enabled,
            status_reason: None,
            status_updated: None,
            credentials: Credentials::new(std::mem::take(&mut wish.credentials))?,
            managed_by: None,
            iot_edge: false,
            scopes: Scopes::default(),
            twin: Twin::new(now)?,
            session: None,
        };
        device.update(wish, now)?;
        Ok(device)
    }

    /// Changes what the wish names.
    pub fn update(&mut self, wish: Wish, now: Time) -> Result<(), HubError> {
        self.credentials = self.credentials.changed(wish.credentials)?;
        let status = wish.status.unwrap_or(self.status);
        if status != self.status {
            self.status = status;
            self.status_updated = Some(now);
        }
        if let Some(reason) = wish.status_reason {
            self.status_reason = reason;
        }
        self.managed_by = wish.managed_by.or(self.managed_by.take());
        self.iot_edge = wish.iot_edge.unwrap_or(self.iot_edge);
        if let Some(scopes) = wish.scopes {
            self.scopes = scopes;
        }
        self.etag = random::etag()?;
        Ok(())
    }

    /// The identity as `/devices/{id}` shows it, keys included.
    pub fn identity_json(&self, id: &Identity, presence: &Presence) -> Value {
        let mut json = json!({
            "deviceId": id.device.as_str(),
            "generationId": self.generation_id,
            "etag": self.etag,
            "connectionState": presence.state(),
            "connectionStateUpdatedTime": time_or_never(presence.changed),
            "lastActivityTime": time_or_never(presence.last_activity),
            "cloudToDeviceMessageCount": presence.messages,
            "authentication": self.credentials.json(),
        });
        let more = match &id.module {
            Some(module) => json!({ "moduleId": module.as_str(), "managedBy": self.managed_by }),
            None => json!({
                "status": self.status,
                "statusReason": self.status_reason,
                "statusUpdatedTime": time_or_never(self.status_updated),
                "capabilities": { "iotEdge": self.iot_edge },
            }),
        };
        extend(&mut json, more);
        extend(&mut json, self.scopes.json(id, self));
        json
    }

    /// The twin as `/twins/{id}` and queries show it.
    pub fn twin_json(&self, id: &Identity, presence: &Presence) -> Value {
        let mut json = json!({
            "deviceId": id.device.as_str(),
            "etag": self.twin.etag,
            "deviceEtag": self.etag,
            "status": self.status,
            "statusReason": self.status_reason,
            "statusUpdateTime": time_or_never(self.status_updated),
            "connectionState": presence.state(),
            "lastActivityTime": time_or_never(presence.last_activity),
            "cloudToDeviceMessageCount": presence.messages,
            "authenticationType": self.credentials.type_name(),
            "x509Thumbprint": self.credentials.thumbprint_json(),
            "modelId": self.twin.model_id,
            "version": self.twin.version,
            "tags": self.twin.tags,
            "properties": {
                "desired": self.twin.desired.service_json(),
                "reported": self.twin.reported.service_json(),
            },
        });
        extend(
            &mut json,
            match &id.module {
                Some(module) => json!({ "moduleId": module.as_str() }),
                None => json!({ "capabilities": { "iotEdge": self.iot_edge } }),
            },
        );
        extend(&mut json, self.scopes.json(id, self));
        json
    }
}

impl Wish {
    /// Reads a client's JSON for the device or module `id`.
    pub fn parse(id: &Identity, body: &Value) -> Result<Self, HubError> {
        let invalid = |message: String| Err(Code::ArgumentInvalid.because(message));
        let Value::Object(body) = body else {
            return invalid("the body is not a JSON object".into());
        };
        for (key, name) in [("deviceId", Some(&id.device)), ("moduleId", id.module.as_ref())] {
            if let Some(Value::String(other)) = body.get(key)
                && name.is_none_or(|name| name.as_str() != other)
            {
                return invalid(format!("the body has {key} {other:?}, the path is about {id}"));
            }
        }
        let status = match body.get("status") {
            None | Some(Value::Null) => None,
            Some(status) => match Status::deserialize(status) {
                Ok(status) => Some(status),
                Err(_) => return invalid("status is enabled or disabled".into()),
            },
        };
        let status_reason = match body.get("statusReason") {
            None => None,
            Some(Value::Null) => Some(None),
            Some(Value::String(reason)) if reason.chars().count() <= 128 => Some(Some(reason.clone())),
            Some(_) => return invalid("statusReason is a string of at most 128 characters".into()),
        };
        let iot_edge = body.get("capabilities").and_then(|all| all.get("iotEdge")).and_then(Value::as_bool);
        let managed_by = body.get("managedBy").and_then(Value::as_str).map(str::to_owned);
        let credentials = match body.get("authentication") {
            Some(Value::Object(authentication)) => credentials::Wish::parse(authentication)?,
            _ => credentials::Wish::default(),
        };
        let scopes = Scopes::parse(body)?;
        Ok(Wish { status, status_reason, credentials, managed_by, iot_edge, scopes })
    }
}

/// The current time.
pub fn now() -> Time {
    SystemTime::now().into()
}

fn time_or_never(time: Option<Time>) -> String {
    time.map_or_else(|| NEVER.to_owned(), |time| time.to_string())
}

fn extend(json: &mut Value, more: Value) {
    if let (Value::Object(json), Value::Object(more)) = (json, more) {
        json.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> Identity {
        "gw1".parse().unwrap()
    }

    #[test]
    fn an_update_keeps_what_it_does_not_name() {
        let wish = Wish::parse(&id(), &json!({"status": "disabled", "statusReason": "stolen"})).unwrap();
        let mut device = Device::new(wish, now()).unwrap();
        let (credentials, etag) = (device.credentials.json(), device.etag.clone());
        device.update(Wish::parse(&id(), &json!({"deviceId": "gw1"})).unwrap(), now()).unwrap();
        assert_eq!(device.status, Status::Disabled);
        assert_eq!(device.status_reason.as_deref(), Some("stolen"));
        assert_eq!(device.credentials.json(), credentials);
        assert_ne!(device.etag, etag);
    }

    #[test]
    fn each_bad_body_is_refused() {
        for body in [
            json!([]),
            json!({"deviceId": "other"}),
            json!({"status": "asleep"}),
            json!({"status": 1}),
            json!({"statusReason": 5}),
            json!({"moduleId": "m"}),
            json!({"authentication": {"type": "password"}}),
        ] {
            let error = Wish::parse(&id(), &body).unwrap_err();
            assert_eq!(error.code, Code::ArgumentInvalid, "{body}");
        }
    }

    #[test]
    fn a_module_has_its_own_shape() {
        let id: Identity = "gw1/m".parse().unwrap();
        let wish = Wish::parse(&id, &json!({"deviceId": "gw1", "moduleId": "m", "managedBy": "x"})).unwrap();
        let module = Device::new(wish, now()).unwrap();
        let json = module.identity_json(&id, &Presence::default());
        assert_eq!((&json["moduleId"], &json["managedBy"]), (&json!("m"), &json!("x")));
        assert!(json.get("status").is_none() && json.get("capabilities").is_none());
        assert_eq!(module.twin_json(&id, &Presence::default())["moduleId"], "m");
        assert!(Wish::parse(&id, &json!({"moduleId": "other"})).is_err());
    }

    #[test]
    fn a_device_survives_its_own_serialisation() {
        let device = Device::new(Wish::default(), now()).unwrap();
        let text = serde_json::to_string(&device).unwrap();
        let back: Device = serde_json::from_str(&text).unwrap();
        let presence = Presence::default();
        assert_eq!(back.identity_json(&id(), &presence), device.identity_json(&id(), &presence));
        assert_eq!(back.twin_json(&id(), &presence), device.twin_json(&id(), &presence));
    }
}
