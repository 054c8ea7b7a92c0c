//! What the daemon replies to calls of its direct methods.

use serde::{Deserialize, Serialize};

use crate::report::{Boot, Reboot};
use crate::time::Time;
use crate::vocabulary::vocabulary;

/// The status of a reply that grants what was asked; a refusal has that of its
/// [`crate::ErrorCode`].
pub const GRANTED: u16 = 200;

vocabulary! {
    /// `status` in the reply that grants a call.
    pub enum Granted {
        /// The reboot begins once the reply is delivered, or once nobody
        /// inhibits it any more.
        Accepted = "accepted",
        /// The reboot begins at `notBefore`.
        Scheduled = "scheduled",
        /// A dry run: a reboot would be granted now.
        Checked = "checked",
        /// The pending reboot was called off.
        Cancelled = "cancelled",
    }
}

/// The reply to a `rebootDevice` that is granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RebootReply {
    /// `id`: of the request, also where the daemon made it up.
    pub id: String,
    /// `status`.
    pub status: Granted,
    /// `message`: the sentence for people.
    pub message: String,
    /// `notBefore`: when the reboot begins, if later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// `bootId`: the boot that runs now, which the reboot will end.
    pub boot_id: String,
    /// `ignored`: the payload's keys that the daemon does not know.
    #[serde(default)]
    pub ignored: Vec<String>,
}

/// The reply to a `cancelReboot` that is granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CancelReply {
    /// `id`: of the request that was called off.
    pub id: String,
    /// `status`: [`Granted::Cancelled`].
    pub status: Granted,
}

/// The reply to `getRebootStatus`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusReply {
    /// `reboot`: the newest request, as in the reported properties.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reboot: Option<Reboot>,
    /// `boot`: the running boot, as in the reported properties.
    pub boot: Boot,
    /// `uptimeSeconds`: since the kernel started, whole seconds.
    pub uptime_seconds: u64,
    /// `inhibitors`: who holds block inhibitors for shutdown.
    pub inhibitors: Vec<Inhibitor>,
    /// `canReboot`: whether logind would reboot the machine now.
    pub can_reboot: bool,
    /// `message`: why it would not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// The holder of a block inhibitor lock for shutdown. Source:
/// org.freedesktop.login1(5), `ListInhibitors()`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inhibitor {
    /// `who`: the program, in its own words.
    pub who: String,
    /// `why`: its reason, in its own words.
    pub why: String,
    /// `uid`: its user's number.
    pub uid: u32,
    /// `pid`: its process's number.
    pub pid: u32,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::report::{BootCause, Clock};

    #[test]
    fn the_contracts_spelling() {
        let mut reply = RebootReply {
            id: "r-1".into(),
            status: Granted::Scheduled,
            message: "m".into(),
            not_before: Some(Time::from_unix_millis(0)),
            boot_id: "b".into(),
            ignored: vec!["method_number".into()],
        };
        let mut value = json!({
            "id": "r-1", "status": "scheduled", "message": "m", "notBefore": "1970-01-01T00:00:00.000Z",
            "bootId": "b", "ignored": ["method_number"],
        });
        assert_eq!(serde_json::to_value(&reply).unwrap(), value);
        reply.not_before = None;
        value.as_object_mut().unwrap().remove("notBefore");
        assert_eq!(serde_json::to_value(&reply).unwrap(), value);
        assert_eq!(serde_json::from_value::<RebootReply>(value).unwrap(), reply);

        let cancelled = CancelReply { id: "r-1".into(), status: Granted::Cancelled };
        assert_eq!(serde_json::to_value(cancelled).unwrap(), json!({"id": "r-1", "status": "cancelled"}));

        let status = StatusReply {
            reboot: None,
            boot: Boot {
                boot_id: "b".into(),
                boot_time: Time::from_unix_millis(0),
                cause: BootCause::Unknown,
                clock: Clock::Synchronized,
            },
            uptime_seconds: 5,
            inhibitors: vec![Inhibitor { who: "dpkg".into(), why: "upgrade".into(), uid: 0, pid: 7 }],
            can_reboot: false,
            message: Some("shutdown is inhibited".into()),
        };
        assert_eq!(
            serde_json::to_value(status).unwrap(),
            json!({
                "boot": {"bootId": "b", "bootTime": "1970-01-01T00:00:00.000Z", "cause": "unknown",
                    "clock": "synchronized"},
                "uptimeSeconds": 5,
                "inhibitors": [{"who": "dpkg", "why": "upgrade", "uid": 0, "pid": 7}],
                "canReboot": false, "message": "shutdown is inhibited",
            })
        );
    }
}
