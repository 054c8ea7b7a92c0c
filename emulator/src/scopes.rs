//! Which IoT Edge device a device stands behind: `deviceScope` and
//! `parentScopes` of an identity.
//!
//! An IoT Edge device has a scope of its own, which the hub makes; it stands
//! behind its parents. Any other device has the scope of the one that it stands
//! behind. That is all there is to it here: nothing is routed.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::device::Device;
use crate::error::{Code, HubError};
use crate::identity::Identity;

const SCHEME: &str = "ms-azure-iot-edge://";

/// The scopes of the devices that a device stands behind.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Scopes(Vec<String>);

impl Scopes {
    /// Reads them from an identity; `None` when it names none.
    pub fn parse(body: &serde_json::Map<String, Value>) -> Result<Option<Self>, HubError> {
        let parents = body.get("parentScopes").and_then(Value::as_array).filter(|all| !all.is_empty());
        let scope = body.get("deviceScope").filter(|scope| !matches!(scope.as_str(), None | Some("")));
        let read = |value: &Value| match value.as_str().filter(|scope| scope.starts_with(SCHEME)) {
            Some(scope) => Ok(scope.to_owned()),
            None => Err(Code::ArgumentInvalid.because(format!("a scope begins with {SCHEME}"))),
        };
        let scope = scope.map(read).transpose()?;
        Ok(match parents {
            Some(parents) => Some(Scopes(parents.iter().map(read).collect::<Result<_, _>>()?)),
            None => scope.map(|scope| Scopes(vec![scope])),
        })
    }

    /// As an identity or twin shows them.
    pub fn json(&self, id: &Identity, device: &Device) -> Value {
        let own = format!("{SCHEME}{}-{}", id.device, device.generation_id);
        // A device that was read and is written back names its own scope.
        let parents: Vec<&String> = self.0.iter().filter(|scope| **scope != own).collect();
        match (device.iot_edge, parents.first()) {
            (true, _) => json!({ "deviceScope": own, "parentScopes": parents }),
            (false, Some(scope)) => json!({ "deviceScope": scope, "parentScopes": parents }),
            (false, None) => json!({}),
        }
    }
}
