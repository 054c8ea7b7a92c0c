//! How the command ended for one device, as it is printed and journalled.

use iotdm_proto::DeviceId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::hub::MethodReply;
use crate::outcome::Outcome;

/// What became of the command for one device.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ending {
    /// The device.
    pub(super) device: String,
    /// The request's id.
    pub(super) id: String,
    /// The end.
    pub(super) outcome: Outcome,
    /// What was learnt on the way.
    #[serde(flatten)]
    pub(super) seen: Seen,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    /// Whether it is the hub or the way to it that failed, so that it would
    /// be the same with any other device.
    #[serde(skip)]
    pub(super) hubs_fault: bool,
}

/// What was learnt from the device.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Seen {
    /// Its reply to the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reply: Option<MethodReply>,
    /// `rebootTime` as it reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reboot_time: Option<Value>,
    /// `reboot` as it reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reboot: Option<Value>,
    /// `boot` as it reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) boot: Option<Value>,
    /// From the call to the outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) seconds: Option<f64>,
}

impl Seen {
    /// Whether the device reports another boot id than it had before, by
    /// which alone it is known that its kernel was started anew.
    pub(super) fn booted_anew(&self) -> bool {
        let of = |value: &Option<Value>, key: &str| Some(value.as_ref()?.get(key)?.as_str()?.to_owned());
        let replied = self.reply.as_ref().map(|reply| reply.payload.clone());
        let before = of(&self.reboot, "previousBootId").or_else(|| of(&replied, "bootId"));
        let after = of(&self.reboot, "bootId");
        before.is_some() && after.is_some() && before != after
    }
}

impl Ending {
    /// That of a device that it did not come to.
    pub(super) fn not_started(device: &DeviceId, id: &str) -> Self {
        Ending {
            device: device.to_string(),
            id: id.to_owned(),
            outcome: Outcome::NotStarted,
            seen: Seen::default(),
            error: None,
            hubs_fault: false,
        }
    }

    /// Whether there is anything left to do or to learn about the device.
    pub(super) fn can_be_resumed(&self) -> bool {
        matches!(
            self.outcome,
            Outcome::TimedOut
                | Outcome::NotAuthorized
                | Outcome::Throttled
                | Outcome::Error
                | Outcome::NotStarted
        )
    }

    /// Without what only JSON output shows, for keeping many of them.
    pub(super) fn brief(mut self) -> Self {
        self.seen =
            Seen { reboot_time: self.seen.reboot_time, seconds: self.seen.seconds, ..Seen::default() };
        self
    }
}
