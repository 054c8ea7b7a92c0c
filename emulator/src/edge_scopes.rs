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
use crate::identity::Identity;
use crate::refusal::{ErrorCode, HubRefusal};

/// How every scope begins.
const SCHEME: &str = "ms-azure-iot-edge://";

/// The scopes of the devices that a device stands behind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EdgeScopes(Vec<String>);

impl EdgeScopes {
    /// Reads the scopes in a service's JSON of an identity; `None` when it names
    /// none.
    pub fn parse(body: &serde_json::Map<String, Value>) -> Result<Option<Self>, HubRefusal> {
        let parents = field(body, "parentScopes").and_then(Value::as_array).filter(|all| !all.is_empty());
        let scope = field(body, "deviceScope").filter(|scope| !matches!(scope.as_str(), None | Some("")));
        let read = |value: &Value| match value.as_str().filter(|scope| scope.starts_with(SCHEME)) {
            Some(scope) => Ok(scope.to_owned()),
            None => Err(ErrorCode::ArgumentInvalid.because(format!("a scope begins with {SCHEME}"))),
        };
        let scope = scope.map(read).transpose()?;
        Ok(match parents {
            Some(parents) => Some(EdgeScopes(parents.iter().map(read).collect::<Result<_, _>>()?)),
            None => scope.map(|scope| EdgeScopes(vec![scope])),
        })
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
