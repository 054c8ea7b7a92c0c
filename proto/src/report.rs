//! The reboot report: what the daemon writes into its twin's reported
//! properties and `iotdm-ctl` reads from there.

use serde::{Deserialize, Serialize};

use crate::time::Time;

/// The daemon's reported properties.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// When the running kernel booted. Absent until a boot was seen to follow
    /// another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reboot_time: Option<Time>,
    /// The newest request, pending or ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reboot: Option<Reboot>,
    /// The running boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<Boot>,
    /// The daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Agent>,
}

/// A requested reboot and what became of it. Keys that do not apply are
/// absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reboot {
    /// The operator's id of the request.
    pub id: String,
    /// How far it is.
    pub status: RebootStatus,
    /// Why, in the operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Which way it came.
    pub requested_by: RequestedBy,
    /// When it was accepted.
    pub requested_at: Time,
    /// Before which instant it is not carried out, if it was asked for later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// When the machine was asked to go down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When its outcome was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
    /// The boot that it is to end.
    pub previous_boot_id: String,
    /// The boot that followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// From `started_at` to the kernel's start, in seconds, by the clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down_seconds: Option<f64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RebootError>,
}

/// How far a requested reboot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RebootStatus {
    /// Accepted for later.
    Scheduled,
    /// Held back by an inhibitor or a window.
    Waiting,
    /// About to go down, or going down.
    Rebooting,
    /// The machine has booted since.
    Completed,
    /// It did not come to that; see the error.
    Failed,
    /// Withdrawn before it began.
    Cancelled,
}

impl RebootStatus {
    /// Whether nothing more will happen.
    pub fn is_final(self) -> bool {
        matches!(self, RebootStatus::Completed | RebootStatus::Failed | RebootStatus::Cancelled)
    }
}

/// Which way a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RequestedBy {
    /// The direct method.
    Method,
    /// The twin's desired properties.
    Twin,
}

/// Why a requested reboot failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RebootError {
    /// The kind, for programs.
    pub code: RebootErrorCode,
    /// The sentence, for people.
    pub message: String,
}

/// The kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RebootErrorCode {
    /// Asked to go down, the machine stayed up.
    NeverWentDown,
    /// logind said no when it was asked.
    LogindRefused,
    /// A block inhibitor was held.
    BlockedByInhibitor,
    /// Its deadline passed first.
    Expired,
    /// The machine booted anew, but without an orderly shutdown.
    UncleanBoot,
    /// The wish in the twin cannot be understood.
    InvalidPayload,
    /// The device's own configuration does not allow it.
    Forbidden,
}

/// The running boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Boot {
    /// The kernel's random id of this boot.
    pub boot_id: String,
    /// When the kernel started.
    pub boot_time: Time,
    /// What ended the boot before.
    pub cause: BootCause,
    /// Whether the clock could be trusted when the times were taken.
    pub clock: Clock,
}

/// What ended the boot before this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BootCause {
    /// A reboot that was asked of the daemon.
    Requested,
    /// Another orderly shutdown.
    Local,
    /// No orderly shutdown: power loss, crash or watchdog.
    Unclean,
    /// The daemon has seen no boot before this one.
    Unknown,
}

/// The state of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Clock {
    /// Synchronised with a time source.
    Synchronized,
    /// Not, or not known.
    Unsynchronized,
}

/// The daemon itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    /// Its version.
    pub version: String,
    /// The direct methods it answers.
    pub methods: Vec<String>,
    /// Where it set a damaged record of its own aside in this boot; what it
    /// knew of reboots before is then lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged_record: Option<String>,
    /// What is wrong with the reboot wished for in the twin's desired
    /// properties, if not even its id can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wish_error: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_contracts_spelling() {
        let value = json!({
            "rebootTime": "2026-11-22T18:36:07.412Z",
            "reboot": {
                "id": "r-1", "status": "completed", "reason": "kernel update", "requestedBy": "method",
                "requestedAt": "2026-11-22T18:35:00.000Z", "notBefore": "2026-11-22T18:35:40.000Z", "startedAt": "2026-11-22T18:35:46.112Z",
                "completedAt": "2026-11-22T18:36:20.000Z", "previousBootId": "a", "bootId": "b",
                "downSeconds": 21.3, "error": {"code": "neverWentDown", "message": "m"},
            },
            "boot": {
                "bootId": "b", "bootTime": "2026-11-22T18:36:07.412Z", "cause": "requested",
                "clock": "synchronized",
            },
            "agent": {"version": "1.0.0", "methods": ["rebootDevice"]},
        });
        let report: Report = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(serde_json::to_value(&report).unwrap(), value);
        assert_eq!(report.reboot.unwrap().error.unwrap().code, RebootErrorCode::NeverWentDown);
    }

    #[test]
    fn what_does_not_apply_is_absent() {
        let report = Report { reboot_time: None, reboot: None, boot: None, agent: None };
        assert_eq!(serde_json::to_value(&report).unwrap(), json!({}));
    }

    #[test]
    fn only_outcomes_are_final() {
        use RebootStatus::*;
        assert!([Completed, Failed, Cancelled].into_iter().all(RebootStatus::is_final));
        assert!(![Scheduled, Waiting, Rebooting].into_iter().any(RebootStatus::is_final));
    }
}
