//! A device's identity as the registry keeps it, and its JSON.

use std::time::SystemTime;

use iotdm_proto::{DeviceId, SecretKey, Time};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::error::{Code, HubError};
use crate::links::Presence;
use crate::random;
use crate::twin::Twin;

/// What "never" looks like in the service's JSON.
pub const NEVER: &str = "0001-01-01T00:00:00Z";

/// All that is kept of one device.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Tells a device from an earlier one with the same id.
    pub generation_id: String,
    /// Changes with the identity, not with the twin.
    pub etag: String,
    /// Whether it may connect.
    pub status: Status,
    /// An operator's remark on the status.
    pub status_reason: Option<String>,
    /// When the status last changed.
    pub status_updated: Option<Time>,
    /// Either proves that it is this device.
    pub keys: Keys,
    /// A flag that operators can query for.
    pub iot_edge: bool,
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

/// A device's two keys. They are serialised: the store is where they live.
#[derive(Clone, Serialize, Deserialize)]
pub struct Keys {
    /// The one in the connection string.
    #[serde(serialize_with = "write_key", deserialize_with = "read_key")]
    pub primary: SecretKey,
    /// The one to move to while the first is renewed.
    #[serde(serialize_with = "write_key", deserialize_with = "read_key")]
    pub secondary: SecretKey,
}

/// What a client wants an identity to be; absent parts are left to the hub.
#[derive(Debug, Default)]
pub struct Wish {
    status: Option<Status>,
    status_reason: Option<Option<String>>,
    primary: Option<SecretKey>,
    secondary: Option<SecretKey>,
    iot_edge: Option<bool>,
}

impl Device {
    /// A new device as wished for.
    pub fn new(wish: Wish, now: Time) -> Result<Self, HubError> {
        let mut device = Device {
            generation_id: now.unix_millis().to_string(),
            etag: String::new(),
            status: Status::Enabled,
            status_reason: None,
            status_updated: None,
            keys: Keys { primary: random::key()?, secondary: random::key()? },
            iot_edge: false,
            twin: Twin::new(now)?,
            session: None,
        };
        device.update(wish, now)?;
        Ok(device)
    }

    /// Changes what the wish names.
    pub fn update(&mut self, wish: Wish, now: Time) -> Result<(), HubError> {
        let status = wish.status.unwrap_or(self.status);
        if status != self.status {
            self.status = status;
            self.status_updated = Some(now);
        }
        if let Some(reason) = wish.status_reason {
            self.status_reason = reason;
        }
        if let Some(key) = wish.primary {
            self.keys.primary = key;
        }
        if let Some(key) = wish.secondary {
            self.keys.secondary = key;
        }
        self.iot_edge = wish.iot_edge.unwrap_or(self.iot_edge);
        self.etag = random::etag()?;
        Ok(())
    }

    /// The identity as `/devices/{id}` shows it, keys included.
    pub fn identity_json(&self, id: &DeviceId, presence: &Presence) -> Value {
        json!({
            "deviceId": id.as_str(),
            "generationId": self.generation_id,
            "etag": self.etag,
            "connectionState": presence.state(),
            "status": self.status,
            "statusReason": self.status_reason,
            "connectionStateUpdatedTime": time_or_never(presence.changed),
            "statusUpdatedTime": time_or_never(self.status_updated),
            "lastActivityTime": time_or_never(presence.last_activity),
            "cloudToDeviceMessageCount": 0,
            "authentication": {
                "symmetricKey": {
                    "primaryKey": self.keys.primary.expose_base64().as_str(),
                    "secondaryKey": self.keys.secondary.expose_base64().as_str(),
                },
                "x509Thumbprint": { "primaryThumbprint": null, "secondaryThumbprint": null },
                "type": "sas",
            },
            "capabilities": { "iotEdge": self.iot_edge },
        })
    }

    /// The twin as `/twins/{id}` and queries show it.
    pub fn twin_json(&self, id: &DeviceId, presence: &Presence) -> Value {
        json!({
            "deviceId": id.as_str(),
            "etag": self.twin.etag,
            "deviceEtag": self.etag,
            "status": self.status,
            "statusReason": self.status_reason,
            "statusUpdateTime": time_or_never(self.status_updated),
            "connectionState": presence.state(),
            "lastActivityTime": time_or_never(presence.last_activity),
            "cloudToDeviceMessageCount": 0,
            "authenticationType": "sas",
            "x509Thumbprint": { "primaryThumbprint": null, "secondaryThumbprint": null },
            "modelId": self.twin.model_id,
            "version": self.twin.version,
            "tags": self.twin.tags,
            "properties": {
                "desired": self.twin.desired.service_json(),
                "reported": self.twin.reported.service_json(),
            },
            "capabilities": { "iotEdge": self.iot_edge },
        })
    }
}

impl Wish {
    /// Reads a client's device JSON for the device `id`.
    ///
    /// Clients leave keys out, or send `null`, `""` or `{}`, when the hub
    /// shall make them.
    pub fn parse(id: &DeviceId, body: &Value) -> Result<Self, HubError> {
        let invalid = |message: String| Err(Code::ArgumentInvalid.because(message));
        let Value::Object(body) = body else {
            return invalid("the body is not a JSON object".into());
        };
        if let Some(Value::String(other)) = body.get("deviceId")
            && other != id.as_str()
        {
            return invalid(format!("the body is about device {other:?}, the path about {id}"));
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
        let mut wish = Wish { status, status_reason, iot_edge, ..Wish::default() };
        if let Some(Value::Object(authentication)) = body.get("authentication") {
            wish.read_authentication(authentication)?;
        }
        Ok(wish)
    }

    fn read_authentication(&mut self, authentication: &Map<String, Value>) -> Result<(), HubError> {
        if let Some(kind) = authentication.get("type").and_then(Value::as_str)
            && kind != "sas"
        {
            let message = format!("authentication type {kind:?} is not emulated; use sas");
            return Err(Code::ArgumentInvalid.because(message));
        }
        let key = |name: &str| match authentication.get("symmetricKey").and_then(|keys| keys.get(name)) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) => match text.parse::<SecretKey>() {
                Ok(key) if (16..=64).contains(&key.expose().len()) => Ok(Some(key)),
                _ => Err(Code::ArgumentInvalid.because(format!("{name} is not base64 of 16 to 64 bytes"))),
            },
            Some(_) => Err(Code::ArgumentInvalid.because(format!("{name} is not a string"))),
        };
        self.primary = key("primaryKey")?;
        self.secondary = key("secondaryKey")?;
        Ok(())
    }
}

/// The current time.
pub fn now() -> Time {
    SystemTime::now().into()
}

fn time_or_never(time: Option<Time>) -> String {
    time.map_or_else(|| NEVER.to_owned(), |time| time.to_string())
}

fn write_key<S: Serializer>(key: &SecretKey, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&key.expose_base64())
}

fn read_key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SecretKey, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> DeviceId {
        "gw1".parse().unwrap()
    }

    #[test]
    fn keys_are_made_where_none_are_given() {
        for body in [
            json!({}),
            json!({"authentication": {}}),
            json!({"authentication": {"symmetricKey": {}}}),
            json!({"authentication": {"symmetricKey": {"primaryKey": "", "secondaryKey": null}}}),
        ] {
            let device = Device::new(Wish::parse(&id(), &body).unwrap(), now()).unwrap();
            assert_eq!(device.keys.primary.expose().len(), 32);
            assert_ne!(device.keys.primary.expose(), device.keys.secondary.expose());
            assert_eq!(device.status, Status::Enabled);
        }
    }

    #[test]
    fn an_update_keeps_what_it_does_not_name() {
        let wish = Wish::parse(&id(), &json!({"status": "disabled", "statusReason": "stolen"})).unwrap();
        let mut device = Device::new(wish, now()).unwrap();
        let (key, etag) = (device.keys.primary.clone(), device.etag.clone());
        device.update(Wish::parse(&id(), &json!({"deviceId": "gw1"})).unwrap(), now()).unwrap();
        assert_eq!(device.status, Status::Disabled);
        assert_eq!(device.status_reason.as_deref(), Some("stolen"));
        assert_eq!(device.keys.primary.expose(), key.expose());
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
            json!({"authentication": {"type": "selfSigned"}}),
            json!({"authentication": {"symmetricKey": {"primaryKey": "?"}}}),
            json!({"authentication": {"symmetricKey": {"primaryKey": "c2hvcnQ="}}}),
            json!({"authentication": {"symmetricKey": {"secondaryKey": 7}}}),
        ] {
            let error = Wish::parse(&id(), &body).unwrap_err();
            assert_eq!(error.code, Code::ArgumentInvalid, "{body}");
        }
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
