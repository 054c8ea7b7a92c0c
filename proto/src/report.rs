//! The reboot report: what the daemon writes into its twin's reported
//! properties and `iotdm-ctl` reads from there.

use serde::{Deserialize, Serialize};

use crate::device_information::DeviceInformation;
use crate::health::Health;
use crate::need::RebootRequired;
use crate::time::Time;
use crate::vocabulary::vocabulary;

/// The daemon's reported properties: its part of `properties.reported`, where
/// other programs of the device may have theirs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// `rebootTime`: when the running kernel booted. Absent until the daemon has
    /// seen a boot follow another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reboot_time: Option<Time>,
    /// `reboot`: the newest request, pending or ended. Absent until there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reboot: Option<Reboot>,
    /// `boot`: the running boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<Boot>,
    /// `health`: how the machine is. Absent where nobody can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// `rebootRequired`: whether the machine needs a reboot. Absent where nobody can
    /// tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reboot_required: Option<RebootRequired>,
    /// `agent`: the daemon itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Agent>,
    /// `deviceInformation`: what the machine says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_information: Option<DeviceInformation>,
}

impl Report {
    /// The keys of the daemon's part. The daemon leaves other keys of the same
    /// twin alone.
    pub const KEYS: [&str; 7] =
        ["rebootTime", "reboot", "boot", "health", "rebootRequired", "agent", "deviceInformation"];
}

/// The keys, at whatever depth, whose values are instants ([`Time`]). A hub may
/// hand an instant back in another spelling than the daemon's; under these keys
/// the instants are compared, not the texts.
pub const INSTANTS: [&str; 7] =
    ["rebootTime", "requestedAt", "notBefore", "startedAt", "completedAt", "bootTime", "since"];

/// A request and what became of it. Keys that do not apply are absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reboot {
    /// `id`: the request's id, the operator's or one that the daemon made up.
    pub id: String,
    /// `status`: how far the request is.
    pub status: RebootStatus,
    /// `reason`: why the reboot is asked for, in the operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `operator`: who asked for it, by their own word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// `requestedBy`: which way the request came.
    pub requested_by: RequestedBy,
    /// `requestedAt`: when the daemon granted the request or, of a wish that it
    /// did not grant, saw it.
    pub requested_at: Time,
    /// `notBefore`: before which instant the machine is not rebooted: the time
    /// that was asked for, or a later one that the device's configuration
    /// allows. Absent for a reboot as soon as possible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// `startedAt`: when the reboot began, shortly before logind was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// `completedAt`: when the request's outcome was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
    /// `previousBootId`: the kernel's id of the boot that the request is to end.
    pub previous_boot_id: String,
    /// `bootId`: the kernel's id of the boot that followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// `downSeconds`: from `startedAt` to the start of the next kernel, in
    /// seconds to three decimals, by the machine's clock. Absent where the clock
    /// cannot tell, since it was set in between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down_seconds: Option<f64>,
    /// `waitingFor`: while the machine is going down, the units that systemd
    /// still stops, the first 5 by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_for: Vec<String>,
    /// `waitingForCount`: how many units systemd still stops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for_count: Option<u32>,
    /// `failedBefore`: the units that had failed already when the request was
    /// accepted, the first [`Health::MAX_NAMED`] by name. Units that have to be
    /// active (`health.units`) are not among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed_before: Vec<String>,
    /// `error`: why the request failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RebootError>,
}

impl Reboot {
    /// The keys that are absent where they do not apply.
    pub const OPTIONAL_KEYS: [&str; 11] = [
        "reason",
        "operator",
        "notBefore",
        "startedAt",
        "completedAt",
        "bootId",
        "downSeconds",
        "waitingFor",
        "waitingForCount",
        "failedBefore",
        "error",
    ];

    /// What people who are logged in are told about it: the reason and who asks,
    /// as far as they are known.
    pub fn words(&self) -> Option<String> {
        match (&self.reason, &self.operator) {
            (Some(reason), Some(operator)) => Some(format!("{reason} (asked for by {operator})")),
            (Some(reason), None) => Some(reason.clone()),
            (None, Some(operator)) => Some(format!("asked for by {operator}")),
            (None, None) => None,
        }
    }
}

vocabulary! {
    /// How far a request is.
    pub enum RebootStatus {
        /// Granted for later.
        Scheduled = "scheduled",
        /// Its time has come, but an inhibitor or the device's windows and
        /// limits hold the reboot up.
        Waiting = "waiting",
        /// logind is being asked, or the machine is going down.
        Rebooting = "rebooting",
        /// The machine has booted since: the kernel's boot id is another.
        Completed = "completed",
        /// There was no reboot, or not an orderly one; `error` says why.
        Failed = "failed",
        /// Called off before the reboot began.
        Cancelled = "cancelled",
        /// The request was for a machine that needs a reboot, and this one does not.
        NotNeeded = "notNeeded",
    }
}

impl RebootStatus {
    /// Whether the status is an outcome: nothing more becomes of the request.
    pub fn is_final(self) -> bool {
        match self {
            RebootStatus::Scheduled | RebootStatus::Waiting | RebootStatus::Rebooting => false,
            RebootStatus::Completed
            | RebootStatus::Failed
            | RebootStatus::Cancelled
            | RebootStatus::NotNeeded => true,
        }
    }
}

vocabulary! {
    /// Which way a request came.
    pub enum RequestedBy {
        /// The direct method.
        Method = "method",
        /// The twin's desired properties.
        Twin = "twin",
        /// The device itself, since the machine needs a reboot.
        Device = "device",
    }
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RebootError {
    /// `code`: the kind of failure, for programs.
    pub code: RebootErrorCode,
    /// `message`: the failure in a sentence for people, at most 250 characters.
    pub message: String,
}

vocabulary! {
    /// Why a request failed, for programs.
    pub enum RebootErrorCode {
        /// logind was asked and the machine stayed up, or the device's disk did
        /// not take the note that logind is about to be asked.
        NeverWentDown = "neverWentDown",
        /// logind said no or could not be asked, or polkit did not let the
        /// daemon.
        LogindRefused = "logindRefused",
        /// A block inhibitor for shutdown was held, or not released in time.
        BlockedByInhibitor = "blockedByInhibitor",
        /// A preflight check objected, or still did when the wait was over.
        PreflightFailed = "preflightFailed",
        /// The wish's deadline passed first.
        Expired = "expired",
        /// The machine booted anew, but without an orderly shutdown.
        UncleanBoot = "uncleanBoot",
        /// The wish in the twin cannot be understood.
        InvalidPayload = "invalidPayload",
        /// The device's own configuration does not allow what the wish asks for.
        Forbidden = "forbidden",
        /// The daemon's record of a request for later did not survive, so that it
        /// was not carried out.
        RecordLost = "recordLost",
    }
}

/// The running boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Boot {
    /// `bootId`: the kernel's random id of this boot.
    pub boot_id: String,
    /// `bootTime`: when the kernel started, by the clock as it was last set.
    pub boot_time: Time,
    /// `cause`: what ended the boot before.
    pub cause: BootCause,
    /// `clock`: whether the clock could be trusted when `bootTime` was taken.
    pub clock: Clock,
    /// `detail`: what else the machine itself tells of the end of the boot
    /// before. Absent where it tells nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<BootDetail>,
    /// `count`: how many boots the daemon has seen, this one included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// `uncleanCount`: how many of them had the cause [`BootCause::Unclean`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unclean_count: Option<u64>,
}

impl Boot {
    /// The keys that are absent where they are not known.
    pub const OPTIONAL_KEYS: [&str; 3] = ["detail", "count", "uncleanCount"];
}

vocabulary! {
    /// What the machine tells of the end of the boot before.
    pub enum BootDetail {
        /// The kernel panicked: it has left a record in the persistent store.
        KernelPanic = "kernelPanic",
        /// The hardware watchdog reset the machine.
        Watchdog = "watchdog",
    }
}

vocabulary! {
    /// What ended the boot before this one.
    pub enum BootCause {
        /// A reboot that was asked of the daemon.
        Requested = "requested",
        /// An orderly shutdown that was not asked of the daemon.
        Local = "local",
        /// No orderly shutdown: power loss, crash or watchdog.
        Unclean = "unclean",
        /// The daemon has seen no boot before this one.
        Unknown = "unknown",
    }
}

vocabulary! {
    /// Whether the machine's clock can be trusted. Source:
    /// org.freedesktop.timedate1(5), `NTPSynchronized`.
    pub enum Clock {
        /// The clock is synchronised with a time source.
        Synchronized = "synchronized",
        /// The clock is not synchronised, or nobody can tell.
        Unsynchronized = "unsynchronized",
    }
}

/// The daemon itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    /// `version`: the daemon's version.
    pub version: String,
    /// `methods`: the direct methods that the daemon answers. They are texts,
    /// since another version of the daemon may have others than
    /// [`crate::MethodName`].
    pub methods: Vec<String>,
    /// `features`: what the daemon has beyond that. They are texts, since another
    /// version of the daemon may have others than [`Feature`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// `damagedRecord`: the file that a damaged record of the daemon's was set
    /// aside as in this boot. What the daemon knew of earlier requests is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged_record: Option<String>,
    /// `wishError`: what is wrong with a wish whose id cannot be read, so that
    /// the wish cannot be reported as a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wish_error: Option<String>,
    /// `lastWish`: the id of the wish that was last taken up, whatever became of
    /// it. It is never taken back, so that a daemon whose record is lost does not
    /// carry a wish out again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_wish: Option<String>,
}

vocabulary! {
    /// What a daemon may have, which callers look for before they rely on it.
    pub enum Feature {
        /// The machine's health is reported.
        Health = "health",
        /// `onlyIfRequired` is understood, and `rebootRequired` reported where it is
        /// known.
        OnlyIfRequired = "onlyIfRequired",
        /// `onPreflight` is understood, and preflight checks are run.
        Preflight = "preflight",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;
    use crate::full;

    #[test]
    fn the_contracts_spelling() {
        let value = json!({
            "rebootTime": "2026-11-22T18:36:07.412Z",
            "reboot": {
                "id": "r-1", "status": "completed", "reason": "kernel update", "operator": "alice@ops", "requestedBy": "method",
                "requestedAt": "2026-11-22T18:35:00.000Z", "notBefore": "2026-11-22T18:35:40.000Z", "startedAt": "2026-11-22T18:35:46.112Z",
                "completedAt": "2026-11-22T18:36:20.000Z", "previousBootId": "a", "bootId": "b",
                "downSeconds": 21.3, "waitingFor": ["docker.service"], "waitingForCount": 1, "failedBefore": ["old.service"], "error": {"code": "neverWentDown", "message": "m"},
            },
            "boot": {
                "bootId": "b", "bootTime": "2026-11-22T18:36:07.412Z", "cause": "requested",
                "clock": "synchronized", "detail": "kernelPanic", "count": 41, "uncleanCount": 3,
            },
            "health": {
                "bootId": "b", "state": "degraded", "failedUnits": ["gateway-app.service"], "failedCount": 1,
                "since": "2026-11-22T18:36:25.000Z", "hubReachedAfterSeconds": 12.1,
            },
            "rebootRequired": {
                "required": true, "since": "2026-11-24T06:25:00.000Z", "reasons": ["linux-image-6.1.0-49-amd64"],
                "reasonCount": 1, "runningKernel": "6.1.0-44-amd64", "installedKernel": "6.1.0-49-amd64",
                "askedFor": "6f1ed002ab5595859014ebf0951522d9",
            },
            "agent": {
                "version": "1.0.0", "methods": ["rebootDevice"], "features": ["health"], "damagedRecord": "/var/lib/iotdm/damaged", "lastWish": "w-1",
                "wishError": "id: must be given",
            },
            "deviceInformation": {
                "__t": "c", "manufacturer": "raspberrypi", "model": "Raspberry Pi 4 Model B Rev 1.4",
                "swVersion": "6.12.25+rpt-rpi-v8", "osName": "Debian GNU/Linux 12 (bookworm)",
                "processorArchitecture": "aarch64", "processorManufacturer": "brcm", "totalStorage": 30_334_636,
                "totalMemory": 3_885_396,
            },
        });
        assert_eq!(serde_json::to_value(full::report()).unwrap(), value);
        assert_eq!(serde_json::from_value::<Report>(value).unwrap(), full::report());
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
        let full = serde_json::to_value(full::report()).unwrap();
        let keys: BTreeSet<&str> = full.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, Report::KEYS.into());
        let mut found = BTreeSet::new();
        instants(&full, &mut found);
        assert_eq!(found, INSTANTS.map(str::to_owned).into());
        let optional = |part: &str, reads: fn(Value) -> bool| -> BTreeSet<String> {
            let part = full[part].as_object().unwrap();
            let without = |key: &String| {
                let mut less = part.clone();
                less.remove(key);
                reads(Value::Object(less))
            };
            part.keys().filter(|key| without(key)).cloned().collect()
        };
        let reboot = optional("reboot", |value| serde_json::from_value::<Reboot>(value).is_ok());
        assert_eq!(reboot, Reboot::OPTIONAL_KEYS.map(str::to_owned).into());
        let boot = optional("boot", |value| serde_json::from_value::<Boot>(value).is_ok());
        assert_eq!(boot, Boot::OPTIONAL_KEYS.map(str::to_owned).into());
        let health = optional("health", |value| serde_json::from_value::<Health>(value).is_ok());
        assert_eq!(health, Health::OPTIONAL_KEYS.map(str::to_owned).into());
    }

    #[test]
    fn what_people_are_told() {
        let reboot = |reason: Option<&str>, operator: Option<&str>| {
            let owned = |text: Option<&str>| text.map(str::to_owned);
            let full = full::report().reboot.unwrap();
            Reboot { reason: owned(reason), operator: owned(operator), ..full }.words()
        };
        let told = |words: &str| Some(words.to_owned());
        assert_eq!(reboot(Some("why"), Some("alice@ops")), told("why (asked for by alice@ops)"));
        assert_eq!(reboot(Some("why"), None), told("why"));
        assert_eq!(reboot(None, Some("alice@ops")), told("asked for by alice@ops"));
        assert_eq!(reboot(None, None), None);
    }

    #[test]
    fn what_does_not_apply_is_absent() {
        let report = Report::default();
        assert_eq!(serde_json::to_value(&report).unwrap(), json!({}));
    }

    #[test]
    fn only_outcomes_are_final() {
        use RebootStatus::*;
        assert!([Completed, Failed, Cancelled, NotNeeded].into_iter().all(RebootStatus::is_final));
        assert!(![Scheduled, Waiting, Rebooting].into_iter().any(RebootStatus::is_final));
    }
}
