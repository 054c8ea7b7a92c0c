//! How a machine is, as its reported properties tell it.

use serde::{Deserialize, Serialize};

use crate::time::Time;
use crate::vocabulary::vocabulary;

/// How the machine is: what its service manager says, and the device's own
/// configuration makes of that.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// `bootId`: the kernel's id of the boot that this is about.
    pub boot_id: String,
    /// `state`: the state in one word.
    pub state: HealthState,
    /// `failedUnits`: the units that are wrong, at most [`Health::MAX_NAMED`]:
    /// first those that have to be active and are not (`health.units` of the
    /// device's configuration), then those that have failed and had not when the
    /// newest request was accepted, then those of `reboot.failedBefore` that are
    /// failed still.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed_units: Vec<String>,
    /// `failedCount`: how many units are wrong.
    pub failed_count: u32,
    /// `since`: since when the state is that.
    pub since: Time,
    /// `hubReachedAfterSeconds`: how many seconds after the start of the kernel
    /// the hub first answered in this boot. Absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub_reached_after_seconds: Option<f64>,
}

impl Health {
    /// The keys that are absent where they do not apply or are not known.
    pub const OPTIONAL_KEYS: [&str; 2] = ["failedUnits", "hubReachedAfterSeconds"];

    /// How many units are named.
    pub const MAX_NAMED: usize = 10;
}

vocabulary! {
    /// The state of a machine. Source: org.freedesktop.systemd1(5),
    /// `SystemState`.
    pub enum HealthState {
        /// The boot has not finished yet.
        Starting = "starting",
        /// The boot has finished, and nothing is wrong.
        Running = "running",
        /// A unit has failed, one that has to be active is not, or the boot
        /// takes longer than `health.wait`.
        Degraded = "degraded",
        /// The rescue or emergency mode.
        Maintenance = "maintenance",
        /// The machine is going down.
        Stopping = "stopping",
    }
}
