//! What the daemon replies to calls of its direct methods.

use serde::{Deserialize, Serialize};

use crate::health::Health;
use crate::method::ErrorCode;
use crate::need::RebootRequired;
use crate::report::{Boot, BootCause, BootDetail, Reboot};
use crate::text::harmless;
use crate::time::Time;
use crate::vocabulary::vocabulary;

/// The method status of a reply that grants what was asked; a refusal has the
/// status of its [`ErrorCode`].
pub const GRANTED: u16 = 200;

vocabulary! {
    /// `status` in the reply that grants a call.
    pub enum Granted {
        /// The reboot begins once the reply is delivered or, with
        /// [`crate::OnInhibitor::Wait`], once nobody inhibits it any more.
        Accepted = "accepted",
        /// The reboot begins at `notBefore`: the time that was asked for, or
        /// when the next window of the device's configuration opens.
        Scheduled = "scheduled",
        /// A dry run: the same call without `check` would be granted now.
        Checked = "checked",
        /// Nothing was done: the request was for a machine that needs a reboot, and
        /// this one does not, or nobody can tell.
        NotNeeded = "notNeeded",
        /// The pending reboot was called off.
        Cancelled = "cancelled",
    }
}

/// The reply to a `rebootDevice` that is granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RebootReply {
    /// `id`: the request's id, also where the daemon made one up.
    pub id: String,
    /// `status`.
    pub status: Granted,
    /// `message`: what will happen and when, in a sentence for people.
    pub message: String,
    /// `notBefore`: when the reboot begins; absent for a reboot now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// `bootId`: the kernel's id of the running boot, which the reboot will end.
    pub boot_id: String,
    /// `preflight`: what each preflight check says; only in the reply to a dry run,
    /// and absent where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub preflight: Vec<PreflightCheck>,
    /// `ifItHangs`: what would end the shutdown if it hung; only in the reply to a
    /// dry run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_it_hangs: Option<IfItHangs>,
    /// `ignored`: the payload's keys that the daemon does not know, at most 32,
    /// of each at most 64 characters.
    #[serde(default)]
    pub ignored: Vec<String>,
}

/// The reply to a `cancelReboot` that is granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CancelReply {
    /// `id`: the id of the request that was called off.
    pub id: String,
    /// `status`: always [`Granted::Cancelled`].
    pub status: Granted,
}

/// The reply to `getRebootStatus`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusReply {
    /// `reboot`: the newest request, as in the reported properties; absent if
    /// there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reboot: Option<Reboot>,
    /// `boot`: the running boot, as in the reported properties.
    pub boot: Boot,
    /// `uptimeSeconds`: whole seconds since the kernel started, those included
    /// in which the machine slept.
    pub uptime_seconds: u64,
    /// `inhibitors`: who holds block inhibitors for shutdown, at most 16.
    pub inhibitors: Vec<Inhibitor>,
    /// `canReboot`: whether logind would reboot the machine now.
    pub can_reboot: bool,
    /// `message`: why logind would not, in a sentence for people; absent if it
    /// would.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// `health`: how the machine is, as in the reported properties; absent where
    /// nobody can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// `rebootRequired`: whether the machine needs a reboot, as in the reported
    /// properties; absent where nobody can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reboot_required: Option<RebootRequired>,
    /// `ifItHangs`: what would end a shutdown that hung. Absent from an older daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_it_hangs: Option<IfItHangs>,
}

/// What would end a shutdown that hangs, so that the machine comes back by itself.
/// Both are whole seconds, rounded up, and `null` where there is no such end or
/// systemd does not say. Source: systemd-system.conf(5), systemd.unit(5).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IfItHangs {
    /// `watchdog`: after how long without a sign of life from systemd's last process
    /// a hardware watchdog resets the machine.
    pub watchdog: Option<u64>,
    /// `forcedAfterSeconds`: how long after it was asked for systemd forces the reboot,
    /// whatever still runs.
    pub forced_after_seconds: Option<u64>,
}

/// The reply to `getBootHistory`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BootHistoryReply {
    /// `boots`: the boots that the daemon has seen, the newest, which is the
    /// running one, first; at most 32.
    pub boots: Vec<PastBoot>,
}

/// A boot that the daemon has seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PastBoot {
    /// `bootId`: the kernel's random id of the boot.
    pub boot_id: String,
    /// `bootTime`: when the kernel started, by the clock as it was last set in
    /// that boot.
    pub boot_time: Time,
    /// `cause`: what ended the boot before.
    pub cause: BootCause,
    /// `detail`: what else the machine itself told of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<BootDetail>,
    /// `requestId`: the request that this boot ended, by whatever outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// `downSeconds`: of that request, as in the reported properties.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down_seconds: Option<f64>,
}

/// The holder of a block inhibitor lock for shutdown. Source:
/// org.freedesktop.login1(5), `ListInhibitors()`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inhibitor {
    /// `who`: the program as it names itself, at most 200 characters.
    pub who: String,
    /// `why`: the reason that the program gives, at most 200 characters.
    pub why: String,
    /// `uid`: the number of the user that the program runs as.
    pub uid: u32,
    /// `pid`: the number of the program's process.
    pub pid: u32,
}

/// What one preflight check says of whether the machine would come back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreflightCheck {
    /// `name`: the check's file name, at most 64 characters.
    pub name: String,
    /// `passed`: whether the check does not object.
    pub passed: bool,
    /// `reason`: why the check objects, in its own words, at most 250 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How many characters of a check's name are told.
const MAX_CHECK_NAME: usize = 64;
/// How many characters of a check's reason are told.
const MAX_CHECK_REASON: usize = 250;

impl PreflightCheck {
    /// A check that does not object.
    pub fn passing(name: &str) -> Self {
        let name = harmless(name).chars().take(MAX_CHECK_NAME).collect();
        PreflightCheck { name, passed: true, reason: None }
    }

    /// A check that objects. Both texts are made harmless and cut to their length.
    pub fn objecting(name: &str, reason: &str) -> Self {
        let reason = harmless(reason).chars().take(MAX_CHECK_REASON).collect();
        PreflightCheck { passed: false, reason: Some(reason), ..Self::passing(name) }
    }
}

/// The reply to a call that is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusalReply {
    /// `error`: why the call is refused.
    pub error: CallError,
}

/// Why a call is refused. The keys beside `code` and `message` come with the
/// codes whose documentation names them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallError {
    /// `code`: the kind of error, for programs.
    pub code: ErrorCode,
    /// `message`: what is wrong and with which key, in a sentence for people.
    pub message: String,
    /// `id`: the id of the request that is pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `methods`: the direct methods that the device has. They are texts, since
    /// another version of the daemon may have others than [`crate::MethodName`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub methods: Option<Vec<String>>,
    /// `inhibitors`: who holds block inhibitors for shutdown, at most 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inhibitors: Option<Vec<Inhibitor>>,
    /// `preflight`: the preflight checks that object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preflight: Option<Vec<PreflightCheck>>,
    /// `retryAfterSeconds`: in how many whole seconds, rounded up, the device's
    /// limits allow what was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
}

impl CallError {
    /// An error with nothing beside its code and message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        CallError {
            code,
            message: message.into(),
            id: None,
            methods: None,
            inhibitors: None,
            preflight: None,
            retry_after_seconds: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::full;

    #[test]
    fn the_contracts_spelling() {
        let mut reply = full::reboot_reply();
        let mut value = json!({
            "id": "r-1", "status": "scheduled", "message": "m", "notBefore": "2026-11-22T18:30:00.000Z",
            "bootId": "b", "ignored": ["method_number"],
            "preflight": [{"name": "fstab", "passed": false, "reason": "/data: no device"}],
            "ifItHangs": {"watchdog": 600, "forcedAfterSeconds": 1800},
        });
        assert_eq!(serde_json::to_value(&reply).unwrap(), value);
        reply.not_before = None;
        value.as_object_mut().unwrap().remove("notBefore");
        assert_eq!(serde_json::to_value(&reply).unwrap(), value);
        assert_eq!(serde_json::from_value::<RebootReply>(value).unwrap(), reply);

        let nothing = json!({"watchdog": null, "forcedAfterSeconds": null});
        assert_eq!(serde_json::to_value(IfItHangs::default()).unwrap(), nothing);

        let cancelled = serde_json::to_value(full::cancel_reply()).unwrap();
        assert_eq!(cancelled, json!({"id": "r-1", "status": "cancelled"}));

        let status = StatusReply { reboot: None, ..full::status_reply() };
        assert_eq!(
            serde_json::to_value(status).unwrap(),
            json!({
                "boot": {"bootId": "b", "bootTime": "2026-11-22T18:36:07.412Z", "cause": "requested",
                    "clock": "synchronized", "detail": "kernelPanic", "count": 41, "uncleanCount": 3},
                "uptimeSeconds": 5,
                "inhibitors": [{"who": "dpkg", "why": "upgrade", "uid": 0, "pid": 7}],
                "canReboot": false, "message": "shutdown is inhibited",
                "health": {"bootId": "b", "state": "degraded", "failedUnits": ["gateway-app.service"],
                    "failedCount": 1, "since": "2026-11-22T18:36:25.000Z", "hubReachedAfterSeconds": 12.1},
                "rebootRequired": {"required": true, "since": "2026-11-24T06:25:00.000Z",
                    "reasons": ["linux-image-6.1.0-49-amd64"], "reasonCount": 1,
                    "runningKernel": "6.1.0-44-amd64", "installedKernel": "6.1.0-49-amd64",
                    "askedFor": "6f1ed002ab5595859014ebf0951522d9"},
                "ifItHangs": {"watchdog": 600, "forcedAfterSeconds": 1800},
            })
        );

        let history = json!({"boots": [{
            "bootId": "b", "bootTime": "2026-11-22T18:36:07.412Z", "cause": "requested", "detail": "watchdog",
            "requestId": "r-1", "downSeconds": 21.3,
        }]});
        assert_eq!(serde_json::to_value(full::boot_history_reply()).unwrap(), history);

        let refusal = full::refusal_reply();
        let value = json!({"error": {
            "code": "rebootPending", "message": "m", "id": "r-1", "methods": ["rebootDevice"],
            "inhibitors": [{"who": "dpkg", "why": "upgrade", "uid": 0, "pid": 7}],
            "preflight": [{"name": "fstab", "passed": false, "reason": "/data: no device"}],
            "retryAfterSeconds": 3595,
        }});
        assert_eq!(serde_json::to_value(&refusal).unwrap(), value);
        assert_eq!(serde_json::from_value::<RefusalReply>(value).unwrap(), refusal);
        let short = json!({"error": {"code": "tooLate", "message": "m"}});
        let read: RefusalReply = serde_json::from_value(short.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), short);
    }
}
