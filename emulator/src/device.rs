//! A device or module as the registry keeps it, and the JSON of its identity
//! and twin.

use iotdm_proto::Time;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use crate::api_version::ApiVersion;
use crate::authentication::{Authentication, AuthenticationChange};
use crate::clock::NEVER;
use crate::configured::{self, Configured};
use crate::edge_scopes::{EdgeScopes, ScopesChange};
use crate::etag;
use crate::fields::{field, field_of};
use crate::link::Presence;
use crate::refusal::{ErrorCode, HubRefusal};
use crate::subscriptions::Subscriptions;
use crate::twin::{Twin, TwinChange, TwinPatch};
use iotdm_proto::{Identity, ModuleId};

/// How the answer to the creation of an identity spells it, and no other: there
/// the service has not yet read it from its store, and knows no time zone.
const NEVER_YET: &str = "0001-01-01T00:00:00";

/// .NET counts time in ticks of 100 ns since the year 1; the ticks from then to
/// 1970. A generation id is the tick of the creation.
const TICKS_BEFORE_1970: i64 = 621_355_968_000_000_000;

/// All that is kept of one device or module.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Tells the device from earlier ones with the same id.
    pub generation_id: String,
    /// Changes with the identity; the twin has an etag of its own.
    pub etag: String,
    /// Whether the device may connect. What a module has here means nothing:
    /// the status of its device counts.
    pub status: DeviceStatus,
    /// An operator's remark on the status.
    pub status_reason: Option<String>,
    /// When the status last changed.
    pub status_updated: Option<Time>,
    /// What a client has to prove to be let in as this device.
    // Stores of earlier versions have it as "credentials".
    #[serde(alias = "credentials")]
    pub authentication: Authentication,
    /// Who looks after a module, in whatever terms its creator chose.
    pub managed_by: Option<String>,
    /// Whether the device is an IoT Edge device; operators can query for that.
    pub iot_edge: bool,
    /// The scopes of the IoT Edge devices that the device stands behind.
    #[serde(default)]
    pub scopes: EdgeScopes,
    /// What configurations have come to on the device.
    #[serde(default)]
    pub configured: Configured,
    /// The twin.
    pub twin: Twin,
    /// The subscriptions of the device's persistent MQTT session, if it has one.
    pub session: Option<Subscriptions>,
}

/// Whether a device may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DeviceStatus {
    /// The device may connect.
    Enabled,
    /// The device may not connect.
    Disabled,
}

/// A small change of a device, which is written down in the place of the whole device.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DevicePatch {
    /// The model that the device named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_id: Option<String>,
    /// The persistent session, or that there is none any more.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "named")]
    pub session: Option<Option<Subscriptions>>,
    /// The change of the twin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub twin: Option<TwinPatch>,
}

/// Reads a value that is there, if only as `null`.
fn named<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Reads a stored device: as it was last written whole, and its changes since.
pub fn read(json: &[u8], patches: &[impl AsRef<[u8]>]) -> serde_json::Result<Device> {
    let mut device: Device = serde_json::from_slice(json)?;
    for patch in patches {
        device.apply(serde_json::from_slice(patch.as_ref())?);
    }
    Ok(device)
}

/// What a service wants an identity to be; absent parts stay as they are, or
/// are for the hub to choose when the identity is new.
#[derive(Debug, Default)]
pub struct IdentityChange {
    status: Option<DeviceStatus>,
    status_reason: Option<Option<String>>,
    authentication: AuthenticationChange,
    managed_by: Option<String>,
    iot_edge: Option<bool>,
    scopes: ScopesChange,
    /// Whether keys that are not named are made anew, rather than kept.
    replaces: bool,
}

impl Device {
    /// A new device with what `change` and `twin` name.
    pub fn new(mut change: IdentityChange, twin: &TwinChange, now: Time) -> Result<Self, HubRefusal> {
        let mut device = Device {
            generation_id: (TICKS_BEFORE_1970 + now.unix_millis() * 10_000).to_string(),
            etag: String::new(),
            status: DeviceStatus::Enabled,
            status_reason: None,
            status_updated: None,
            authentication: Authentication::new(std::mem::take(&mut change.authentication))?,
            managed_by: None,
            iot_edge: false,
            scopes: EdgeScopes::default(),
            configured: Configured::default(),
            twin: Twin::new(twin, now)?,
            session: None,
        };
        device.update(change, now)?;
        device.etag = etag::first()?;
        Ok(device)
    }

    /// Changes what `change` names, at the time `now`.
    pub fn update(&mut self, change: IdentityChange, now: Time) -> Result<(), HubRefusal> {
        self.authentication = if change.replaces {
            Authentication::new(change.authentication)?
        } else {
            self.authentication.changed(change.authentication)?
        };
        let status = change.status.unwrap_or(self.status);
        if status != self.status {
            self.status = status;
            self.status_updated = Some(now);
        }
        if let Some(reason) = change.status_reason {
            self.status_reason = reason;
        }
        self.managed_by = change.managed_by.or(self.managed_by.take());
        self.iot_edge = change.iot_edge.unwrap_or(self.iot_edge);
        self.scopes = self.scopes.changed(change.scopes, self.iot_edge);
        self.etag = etag::next(&self.etag)?;
        Ok(())
    }

    /// Makes a change that was written down.
    pub fn apply(&mut self, patch: DevicePatch) {
        self.twin.model_id = patch.model_id.unwrap_or(std::mem::take(&mut self.twin.model_id));
        self.session = patch.session.unwrap_or(self.session);
        if let Some(twin) = patch.twin {
            self.twin.apply(twin);
        }
    }

    /// Gives the device new keys, in place of those that are named.
    pub fn renew_keys(&mut self, primary: bool, secondary: bool) -> Result<(), HubRefusal> {
        self.authentication = self.authentication.with_new_keys(primary, secondary)?;
        self.etag = etag::next(&self.etag)?;
        Ok(())
    }

    /// The identity as `/devices/{id}` shows it, keys included.
    pub fn identity_json(&self, id: &Identity, presence: &Presence, api: &ApiVersion) -> Value {
        let mut json = match &id.module {
            Some(module) => json!({ "moduleId": module.as_str(), "managedBy": self.managed_by }),
            None => json!({}),
        };
        extend(
            &mut json,
            json!({
                "deviceId": id.device.as_str(),
                "generationId": self.generation_id,
                "etag": self.etag,
                "connectionState": presence.state(),
            }),
        );
        if id.module.is_none() {
            extend(&mut json, json!({ "status": self.status, "statusReason": self.status_reason }));
        }
        extend(&mut json, json!({ "connectionStateUpdatedTime": time_or_never(presence.changed) }));
        if id.module.is_none() {
            extend(&mut json, json!({ "statusUpdatedTime": time_or_never(self.status_updated) }));
        }
        extend(
            &mut json,
            json!({
                "lastActivityTime": time_or_never(presence.last_activity),
                "cloudToDeviceMessageCount": presence.messages,
                "authentication": self.authentication.json(),
            }),
        );
        if id.module.is_none() {
            extend(&mut json, json!({ "capabilities": { "iotEdge": self.iot_edge } }));
        }
        extend(&mut json, self.scopes.json(id, &self.generation_id, self.iot_edge, api));
        json
    }

    /// The identity as the answer to its creation shows it.
    pub fn created_json(&self, id: &Identity, presence: &Presence, api: &ApiVersion) -> Value {
        let mut json = self.identity_json(id, presence, api);
        for value in json.as_object_mut().into_iter().flat_map(|json| json.values_mut()) {
            if value == NEVER {
                *value = NEVER_YET.into();
            }
        }
        json
    }

    /// The twin as `/twins/{id}` shows it.
    pub fn twin_json(&self, id: &Identity, presence: &Presence, api: &ApiVersion) -> Value {
        let mut json = json!({ "deviceId": id.device.as_str() });
        if let Some(module) = &id.module {
            extend(&mut json, json!({ "moduleId": module.as_str() }));
        }
        extend(&mut json, json!({ "etag": self.twin.etag, "deviceEtag": self.etag, "status": self.status }));
        if let Some(reason) = &self.status_reason {
            extend(&mut json, json!({ "statusReason": reason }));
        }
        extend(
            &mut json,
            json!({
                "statusUpdateTime": time_or_never(self.status_updated),
                "connectionState": presence.state(),
                "lastActivityTime": time_or_never(presence.last_activity),
                "cloudToDeviceMessageCount": presence.messages,
                "authenticationType": self.authentication.type_name(),
                "x509Thumbprint": self.authentication.thumbprint_json(),
            }),
        );
        if api.has_models() {
            extend(&mut json, json!({ "modelId": self.twin.model_id }));
        }
        extend(&mut json, json!({ "version": self.twin.version }));
        if !self.twin.tags.is_empty() {
            extend(&mut json, json!({ "tags": self.twin.tags }));
        }
        extend(
            &mut json,
            json!({
                "properties": {
                    "desired": self.twin.desired.service_json(),
                    "reported": self.twin.reported.service_json(),
                },
            }),
        );
        if !self.configured.is_empty() {
            extend(&mut json, json!({ "configurations": configured::json(&self.configured) }));
        }
        if id.module.is_none() {
            extend(&mut json, json!({ "capabilities": { "iotEdge": self.iot_edge } }));
        }
        extend(&mut json, self.scopes.json(id, &self.generation_id, self.iot_edge, api));
        json
    }

    /// The twin as queries show it: that of a module has the capabilities of a
    /// device as well.
    pub fn row_json(&self, id: &Identity, presence: &Presence, api: &ApiVersion) -> Value {
        let mut json = self.twin_json(id, presence, api);
        if id.module.is_some() {
            extend(&mut json, json!({ "capabilities": { "iotEdge": self.iot_edge } }));
        }
        json
    }
}

impl IdentityChange {
    /// Reads a service's JSON for the device or module `id`.
    pub fn parse(id: &Identity, body: &Value) -> Result<Self, HubRefusal> {
        let invalid = |message: String| Err(ErrorCode::ArgumentInvalid.because(message));
        let Value::Object(body) = body else {
            return invalid("the body is not a JSON object".into());
        };
        let ids =
            [("deviceId", Some(id.device.as_str())), ("moduleId", id.module.as_ref().map(ModuleId::as_str))];
        for (key, name) in ids {
            if let Some(other) = field(body, key).filter(|other| !other.is_null())
                && name.is_none_or(|name| other != name)
            {
                return invalid(format!("the body has {key} {other}, the path is about {id}"));
            }
        }
        let status = match field(body, "status") {
            None | Some(Value::Null) => None,
            Some(status) => match DeviceStatus::deserialize(status) {
                Ok(status) => Some(status),
                Err(_) => return invalid("status is enabled or disabled".into()),
            },
        };
        let status_reason = match field(body, "statusReason") {
            None => None,
            Some(Value::Null) => Some(None),
            Some(Value::String(reason)) if reason.chars().count() <= 128 => Some(Some(reason.clone())),
            Some(_) => return invalid("statusReason is a string of at most 128 characters".into()),
        };
        let capabilities = field(body, "capabilities");
        let iot_edge = capabilities.and_then(|all| field_of(all, "iotEdge")).and_then(Value::as_bool);
        let managed_by = field(body, "managedBy").and_then(Value::as_str).map(str::to_owned);
        let authentication = match field(body, "authentication") {
            Some(Value::Object(authentication)) => {
                AuthenticationChange::parse(authentication)?.with_both_keys_or_none()?
            }
            _ => AuthenticationChange::default(),
        };
        let scopes = ScopesChange::parse(body)?;
        let replaces = false;
        Ok(IdentityChange { status, status_reason, authentication, managed_by, iot_edge, scopes, replaces })
    }

    /// The change as a PUT makes it, which replaces the authentication: an
    /// identity that is written back without keys gets new ones.
    pub fn replacing(self) -> Self {
        IdentityChange { replaces: true, ..self }
    }
}

fn time_or_never(time: Option<Time>) -> String {
    time.map_or_else(|| NEVER.to_owned(), |time| time.to_string())
}

/// Adds the fields of one JSON object to another.
pub fn extend(json: &mut Value, more: Value) {
    if let (Value::Object(json), Value::Object(more)) = (json, more) {
        json.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::now;

    const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

    fn id() -> Identity {
        "gw1".parse().unwrap()
    }

    #[test]
    fn an_update_keeps_what_it_does_not_name() {
        let change =
            IdentityChange::parse(&id(), &json!({"status": "disabled", "statusReason": "stolen"})).unwrap();
        let mut device = Device::new(change, &TwinChange::default(), now()).unwrap();
        let (authentication, etag) = (device.authentication.json(), device.etag.clone());
        device.update(IdentityChange::parse(&id(), &json!({"deviceId": "gw1"})).unwrap(), now()).unwrap();
        assert_eq!(device.status, DeviceStatus::Disabled);
        assert_eq!(device.status_reason.as_deref(), Some("stolen"));
        assert_eq!(device.authentication.json(), authentication);
        assert_eq!(device.etag, etag::next(&etag).unwrap());

        let put = IdentityChange::parse(&id(), &json!({"authentication": {"symmetricKey": {}}})).unwrap();
        device.update(put.replacing(), now()).unwrap();
        assert_ne!(device.authentication.json(), authentication, "new keys");
    }

    #[test]
    fn the_answer_to_a_creation_knows_no_time_zone() {
        let device = Device::new(IdentityChange::default(), &TwinChange::default(), now()).unwrap();
        let (presence, api) = (Presence::default(), ApiVersion::latest());
        let never = |json: Value| json["statusUpdatedTime"].as_str().unwrap().to_owned();
        assert_eq!(never(device.created_json(&id(), &presence, &api)), "0001-01-01T00:00:00");
        assert_eq!(never(device.identity_json(&id(), &presence, &api)), "0001-01-01T00:00:00Z");
        assert_eq!(device.generation_id.len(), "637612875240648717".len());
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
            json!({"authentication": {"symmetricKey": {"primaryKey": KEY}}}),
            json!({"authentication": {"symmetricKey": {"primaryKey": "", "secondaryKey": KEY}}}),
        ] {
            let error = IdentityChange::parse(&id(), &body).unwrap_err();
            assert_eq!(error.code, ErrorCode::ArgumentInvalid, "{body}");
        }
    }

    #[test]
    fn a_module_has_its_own_shape() {
        let id: Identity = "gw1/m".parse().unwrap();
        let change =
            IdentityChange::parse(&id, &json!({"deviceId": "gw1", "moduleId": "m", "managedBy": "x"}))
                .unwrap();
        let module = Device::new(change, &TwinChange::default(), now()).unwrap();
        let (presence, api) = (Presence::default(), ApiVersion::latest());
        let json = module.identity_json(&id, &presence, &api);
        assert_eq!((&json["moduleId"], &json["managedBy"]), (&json!("m"), &json!("x")));
        assert!(json.get("status").is_none() && json.get("capabilities").is_none());
        let twin = module.twin_json(&id, &presence, &api);
        assert_eq!((&twin["moduleId"], twin.get("capabilities")), (&json!("m"), None));
        assert_eq!(module.row_json(&id, &presence, &api)["capabilities"], json!({"iotEdge": false}));
        assert!(IdentityChange::parse(&id, &json!({"moduleId": "other"})).is_err());
    }

    #[test]
    fn a_device_survives_its_own_serialisation() {
        let device = Device::new(IdentityChange::default(), &TwinChange::default(), now()).unwrap();
        let text = serde_json::to_string(&device).unwrap();
        assert!(serde_json::from_str::<Device>(&text).unwrap() == device);
    }

    #[test]
    fn changes_that_were_written_down_make_the_same_device_again() {
        let mut device = Device::new(IdentityChange::default(), &TwinChange::default(), now()).unwrap();
        let json = serde_json::to_vec(&device).unwrap();
        let patch = |body: Value| {
            let change = TwinChange::parse(&body).unwrap();
            move |device: &Device| device.twin.patched(&change, now()).unwrap()
        };
        let report = |reported: Value| {
            move |device: &Device| {
                let Value::Object(reported) = reported else { panic!("{reported}") };
                device.twin.reported(reported, None, now()).unwrap().0
            }
        };
        type Make = Box<dyn FnOnce(&Device) -> TwinPatch>;
        let twins: [Make; 5] = [
            Box::new(report(json!({"a": {"b": 1, "c": [1, 2]}, "z": "ü"}))),
            Box::new(patch(json!({"tags": {"site": "x"}, "properties": {"desired": {"d": {"e": 1}}}}))),
            Box::new(report(json!({"a": {"b": null}, "y": 1}))),
            Box::new(patch(json!({"properties": {"desired": {"d": null}}}))),
            Box::new(patch(json!({"tags": {"site": null, "n": {"o": true}}}))),
        ];
        let mut changes: Vec<Vec<u8>> = Vec::new();
        let mut make = |device: &mut Device, patch: DevicePatch| {
            changes.push(serde_json::to_vec(&patch).unwrap());
            device.apply(patch);
        };
        for twin in twins {
            let twin = Some(twin(&device));
            make(&mut device, DevicePatch { twin, ..DevicePatch::default() });
        }
        let session = Some(Some(Subscriptions::default()));
        make(&mut device, DevicePatch { session, model_id: Some("m".into()), twin: None });
        assert!(device.session.is_some() && device.twin.model_id == "m");
        assert!(read(&json, &changes).unwrap() == device);
        changes.push(serde_json::to_vec(&DevicePatch { session: Some(None), ..Default::default() }).unwrap());
        let read = read(&json, &changes).unwrap();
        assert!(read.session.is_none() && read.twin == device.twin);
    }

    #[test]
    fn a_device_that_an_earlier_version_stored_is_read() {
        let device = Device::new(IdentityChange::default(), &TwinChange::default(), now()).unwrap();
        let mut stored = serde_json::to_value(&device).unwrap();
        let stored = stored.as_object_mut().unwrap();
        let authentication = stored.remove("authentication").unwrap();
        stored.insert("credentials".into(), authentication);
        assert!(Device::deserialize(Value::Object(stored.clone())).unwrap() == device);
    }
}
