//! What a device reported before a request went out to it.

use iotdm_proto::report::Feature;
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
    /// Whether the device reports its health.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) health: bool,
    /// `rebootTime`, in whatever form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reboot_time: Option<Value>,
    /// The id of the newest request that the device knew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reboot_id: Option<String>,
}

impl Before {
    /// Whether the device may tell how it is after a reboot.
    pub(super) fn may_tell_health(&self) -> bool {
        self.health || self.features.iter().any(|feature| feature == Feature::Health.as_str())
    }
}

impl From<Reported> for Before {
    fn from(reported: Reported) -> Self {
        Before {
            agent: reported.agent.is_some(),
            features: reported.features(),
            health: reported.health.is_some(),
            reboot_id: reported.request_id().map(str::to_owned),
            reboot_time: reported.reboot_time,
        }
    }
}
