//! Which IoT Edge device a device stands behind: `deviceScope` and
//! `parentScopes` of an identity.
//!
//! An IoT Edge device has a scope of its own, which the hub makes, and may stand
//! behind others, its parents. Any other device has the scope of the device that it stands
//! behind. The emulator keeps and shows scopes; it routes nothing by them.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api_version::ApiVersion;
use crate::fields::field;
use crate::refusal::{ErrorCode, HubRefusal};
use iotdm_proto::Identity;

/// How every scope begins.
const SCHEME: &str = "ms-azure-iot-edge://";

/// The scopes of the devices that a device stands behind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EdgeScopes(Vec<String>);

/// What a service's JSON of an identity says of scopes.
#[derive(Debug, Default)]
pub struct ScopesChange {
    /// `deviceScope`, if it is named: none where it is empty.
    scope: Option<Vec<String>>,
    /// `parentScopes`, if they are named.
    parents: Option<Vec<String>>,
}

impl ScopesChange {
    /// Reads the scopes in a service's JSON of an identity.
    pub fn parse(body: &serde_json::Map<String, Value>) -> Result<Self, HubRefusal> {
        let read = |value: &Value| match value.as_str().filter(|scope| scope.starts_with(SCHEME)) {
            Some(scope) => Ok(scope.to_owned()),
            None => Err(ErrorCode::ArgumentInvalid.because(format!("a scope begins with {SCHEME}"))),
        };
        let scope = match field(body, "deviceScope") {
            None => None,
            Some(Value::Null) => Some(Vec::new()),
            Some(Value::String(text)) if text.is_empty() => Some(Vec::new()),
            Some(scope) => Some(vec![read(scope)?]),
        };
        let parents = match field(body, "parentScopes") {
            None => None,
            Some(Value::Null) => Some(Vec::new()),
            Some(Value::Array(all)) => Some(all.iter().map(read).collect::<Result<_, _>>()?),
            Some(_) => return Err(ErrorCode::ArgumentInvalid.because("parentScopes is not an array")),
        };
        Ok(ScopesChange { scope, parents })
    }
}

impl EdgeScopes {
    /// The scopes after a change. An IoT Edge device's own `deviceScope` says nothing
    /// of parents. Any other device shows its parent twice, and services change one of
    /// the two in what they have read: so what differs counts.
    pub fn changed(&self, change: ScopesChange, iot_edge: bool) -> Self {
        let scope = change.scope.filter(|_| !iot_edge);
        let differs = |other: &Vec<String>| *other != self.0;
        let new = scope.filter(differs).or(change.parents.filter(differs));
        new.map_or_else(|| self.clone(), EdgeScopes)
    }

    /// The scopes as the identity and twin of the device `id` show them. An IoT
    /// Edge device's own scope is made of its id and `generation_id`.
    pub fn json(&self, id: &Identity, generation_id: &str, iot_edge: bool, api: &ApiVersion) -> Value {
        let own = format!("{SCHEME}{}-{generation_id}", id.device);
        // A service that writes an identity back as it read it names the
        // device's own scope, which is no parent.
        let parents: Vec<&String> = self.0.iter().filter(|scope| **scope != own).collect();
        let scope = match (iot_edge, parents.first()) {
            (true, _) => &own,
            (false, Some(scope)) => *scope,
            (false, None) => return json!({}),
        };
        if api.has_parent_scopes() {
            json!({ "deviceScope": scope, "parentScopes": parents })
        } else {
            json!({ "deviceScope": scope })
        }
    }
}
