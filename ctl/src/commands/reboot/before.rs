//! What a device reported before a request went out to it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::reported::Reported;

/// What a device reported before the request, as far as it helps to tell what
/// came after. The journal keeps this.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Before {
    /// Whether the device reports the daemon.
    pub(super) agent: bool,
    /// What the daemon has beyond its methods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) features: Vec<String>,
    /// `rebootTime`, in whatever form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reboot_time: Option<Value>,
    /// The id of the newest request that the device knew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reboot_id: Option<String>,
}

impl From<Reported> for Before {
    fn from(reported: Reported) -> Self {
        Before {
            agent: reported.agent.is_some(),
            features: reported.features(),
            reboot_id: reported.request_id().map(str::to_owned),
            reboot_time: reported.reboot_time,
        }
    }
}
