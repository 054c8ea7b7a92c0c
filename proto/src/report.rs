//! The reboot report: what the daemon writes into its twin's reported
//! properties and `iotdm-ctl` reads from there.

use serde::{Deserialize, Serialize};

use crate::time::Time;
use crate::vocabulary::vocabulary;

/// The daemon's reported properties: its part of `properties.reported`, which it
/// may share with others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// `rebootTime`: when the running kernel booted. Absent until a boot was seen to follow
    /// another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reboot_time: Option<Time>,
    /// `reboot`: the newest request, pending or ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reboot: Option<Reboot>,
    /// `boot`: the running boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<Boot>,
    /// `agent`: the daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Agent>,
}

impl Report {
    /// The reported properties that are the daemon's; others in the same twin are
    /// left alone.
    pub const KEYS: [&str; 4] = ["rebootTime", "reboot", "boot", "agent"];
}

/// The keys, at whatever depth, whose values are instants ([`Time`]). A hub may
/// spell an instant otherwise than it was sent, which is then no difference.
pub const INSTANTS: [&str; 6] =
    ["rebootTime", "requestedAt", "notBefore", "startedAt", "completedAt", "bootTime"];

/// A requested reboot and what became of it. Keys that do not apply are
/// absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reboot {
    /// `id`: the operator's id of the request.
    pub id: String,
    /// `status`: how far it is.
    pub status: RebootStatus,
    /// `reason`: why, in the operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `requestedBy`: which way it came.
    pub requested_by: RequestedBy,
    /// `requestedAt`: when it was accepted.
    pub requested_at: Time,
    /// `notBefore`: before which instant it is not carried out, if it was asked for later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// `startedAt`: when the machine was asked to go down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// `completedAt`: when its outcome was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
    /// `previousBootId`: the boot that it is to end.
    pub previous_boot_id: String,
    /// `bootId`: the boot that followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// `downSeconds`: from `started_at` to the kernel's start, in seconds, by the clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down_seconds: Option<f64>,
    /// `error`: why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RebootError>,
}

vocabulary! {
    /// How far a requested reboot is.
    pub enum RebootStatus {
        /// Accepted for later.
        Scheduled = "scheduled",
        /// Held back by an inhibitor or a window.
        Waiting = "waiting",
        /// About to go down, or going down.
        Rebooting = "rebooting",
        /// The machine has booted since.
        Completed = "completed",
        /// It did not come to that; see the error.
        Failed = "failed",
        /// Withdrawn before it began.
        Cancelled = "cancelled",
    }
}

impl RebootStatus {
    /// Whether nothing more will happen.
    pub fn is_final(self) -> bool {
        matches!(self, RebootStatus::Completed | RebootStatus::Failed | RebootStatus::Cancelled)
    }
}

vocabulary! {
    /// Which way a request came.
    pub enum RequestedBy {
        /// The direct method.
        Method = "method",
        /// The twin's desired properties.
        Twin = "twin",
    }
}

/// Why a requested reboot failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RebootError {
    /// `code`: the kind, for programs.
    pub code: RebootErrorCode,
    /// `message`: the sentence, for people.
    pub message: String,
}

vocabulary! {
    /// The kinds of failure.
    pub enum RebootErrorCode {
        /// Asked to go down, the machine stayed up.
        NeverWentDown = "neverWentDown",
        /// logind said no when it was asked.
        LogindRefused = "logindRefused",
        /// A block inhibitor was held.
        BlockedByInhibitor = "blockedByInhibitor",
        /// Its deadline passed first.
        Expired = "expired",
        /// The machine booted anew, but without an orderly shutdown.
        UncleanBoot = "uncleanBoot",
        /// The wish in the twin cannot be understood.
        InvalidPayload = "invalidPayload",
        /// The device's own configuration does not allow it.
        Forbidden = "forbidden",
    }
}

/// The running boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Boot {
    /// `bootId`: the kernel's random id of this boot.
    pub boot_id: String,
    /// `bootTime`: when the kernel started.
    pub boot_time: Time,
    /// `cause`: what ended the boot before.
    pub cause: BootCause,
    /// `clock`: whether the clock could be trusted when the times were taken.
    pub clock: Clock,
}

vocabulary! {
    /// What ended the boot before this one.
    pub enum BootCause {
        /// A reboot that was asked of the daemon.
        Requested = "requested",
        /// Another orderly shutdown.
        Local = "local",
        /// No orderly shutdown: power loss, crash or watchdog.
        Unclean = "unclean",
        /// The daemon has seen no boot before this one.
        Unknown = "unknown",
    }
}

vocabulary! {
    /// The state of the clock.
    pub enum Clock {
        /// Synchronised with a time source.
        Synchronized = "synchronized",
        /// Not, or not known.
        Unsynchronized = "unsynchronized",
    }
}

/// The daemon itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    /// `version`: its version.
    pub version: String,
    /// `methods`: the direct methods it answers.
    pub methods: Vec<String>,
    /// `damagedRecord`: where it set a damaged record of its own aside in this boot; what it
    /// knew of reboots before is then lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged_record: Option<String>,
    /// `wishError`: what is wrong with the reboot wished for in the twin's desired
    /// properties, if not even its id can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wish_error: Option<String>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;

    /// Every key, so that a test can hold lists of keys against it.
    fn full() -> Value {
        json!({
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
            "agent": {
                "version": "1.0.0", "methods": ["rebootDevice"], "damagedRecord": "/var/lib/iotdm/damaged",
                "wishError": "id: must be given",
            },
        })
    }

    /// The same from the types: a field more does not compile until it is here,
    /// and then its key has to be in `full`.
    fn full_report() -> Report {
        let at = |text: &str| -> Time { text.parse().unwrap() };
        Report {
            reboot_time: Some(at("2026-11-22T18:36:07.412Z")),
            reboot: Some(Reboot {
                id: "r-1".into(),
                status: RebootStatus::Completed,
                reason: Some("kernel update".into()),
                requested_by: RequestedBy::Method,
                requested_at: at("2026-11-22T18:35:00Z"),
                not_before: Some(at("2026-11-22T18:35:40Z")),
                started_at: Some(at("2026-11-22T18:35:46.112Z")),
                completed_at: Some(at("2026-11-22T18:36:20Z")),
                previous_boot_id: "a".into(),
                boot_id: Some("b".into()),
                down_seconds: Some(21.3),
                error: Some(RebootError { code: RebootErrorCode::NeverWentDown, message: "m".into() }),
            }),
            boot: Some(Boot {
                boot_id: "b".into(),
                boot_time: at("2026-11-22T18:36:07.412Z"),
                cause: BootCause::Requested,
                clock: Clock::Synchronized,
            }),
            agent: Some(Agent {
                version: "1.0.0".into(),
                methods: vec!["rebootDevice".into()],
                damaged_record: Some("/var/lib/iotdm/damaged".into()),
                wish_error: Some("id: must be given".into()),
            }),
        }
    }

    #[test]
    fn the_contracts_spelling() {
        assert_eq!(serde_json::to_value(full_report()).unwrap(), full());
        assert_eq!(serde_json::from_value::<Report>(full()).unwrap(), full_report());
    }

    /// The keys of all instants in `value`, without their repetitions.
    fn instants(value: &Value, found: &mut BTreeSet<String>) {
        for (key, inner) in value.as_object().unwrap() {
            match inner {
                Value::Object(_) => instants(inner, found),
                Value::String(text) if text.parse::<Time>().is_ok() => _ = found.insert(key.clone()),
                _ => {}
            }
        }
    }

    #[test]
    fn the_lists_of_keys_are_complete_and_nothing_more() {
        let full = serde_json::to_value(full_report()).unwrap();
        let keys: BTreeSet<&str> = full.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, Report::KEYS.into());
        let mut found = BTreeSet::new();
        instants(&full, &mut found);
        assert_eq!(found, INSTANTS.map(str::to_owned).into());
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
