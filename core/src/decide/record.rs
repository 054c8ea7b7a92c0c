//! The durable record: what the daemon must still know after the machine went
//! down at any instant.

use iotdm_proto::report::{Boot, Clock, Reboot};
use iotdm_proto::{OnInhibitor, Time, Wish};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::guard::Guards;

/// Everything that survives, written as one file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    /// The layout of this file, [`Record::VERSION`].
    pub version: u32,
    /// The boot that the daemon last ran in.
    pub boot: Boot,
    /// When that boot began, if it followed one that the daemon had seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reboot_time: Option<Time>,
    /// The newest request. While it is pending, `started_at` tells whether
    /// the machine was about to be asked to go down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reboot: Option<Reboot>,
    /// What to do about inhibitors when the pending request's time has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    /// Whether logind was asked to reboot for the pending request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Asked>,
    /// What the clock was like when `started_at` was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_clock: Option<Clock>,
    /// When reboots were begun of late, the latest last, for the guards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub starts: Vec<Time>,
    /// The wish in the twin that was last dealt with, as it stood there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wish: Option<Value>,
    /// An orderly shutdown of that boot has begun.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub going_down: bool,
    /// What was replied to the newest requests, the latest last, so that a
    /// request delivered again gets its reply again and nothing else.
    #[serde(default, rename = "answers", skip_serializing_if = "Vec::is_empty")]
    pub replies: Vec<KnownReply>,
    /// The id of the wish that was last taken up, whatever became of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_wish: Option<String>,
    /// This record was begun without an earlier one, and the twin, which may
    /// remember more, has not been read since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
    /// Where a damaged record was set aside, in this boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged: Option<String>,
}

/// How far the asking of logind is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Asked {
    /// It was about to be asked, and may have been.
    Asking,
    /// It has agreed.
    Agreed,
}

/// How a pending request treats block inhibitors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// What to do.
    pub on_inhibitor: OnInhibitor,
    /// How long to wait, in seconds.
    pub wait_seconds: u64,
    /// Until when, once the waiting has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_until: Option<Time>,
    /// The request is for some time from when it was made, not for an instant.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub delayed: bool,
    /// The time that was asked for, if the device's own limits do not allow
    /// that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_from: Option<Time>,
    /// After this instant it is not carried out any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
}

/// A request's id and the body of the reply to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KnownReply {
    /// The request's id.
    pub id: String,
    /// The reply's body; its status was 200.
    pub body: Value,
}

/// How many replies are kept: more than an operator retries after, and still,
/// at some 240 bytes each, a file of 30 kilobytes.
const MAX_REPLIES: usize = 128;

impl Record {
    /// The layout that this version writes. Version 1 lacks keys that have
    /// defaults, and the file's checksum.
    pub const VERSION: u32 = 2;

    /// The record of a daemon that has seen nothing before `boot`.
    pub fn new(boot: Boot) -> Self {
        Record {
            version: Self::VERSION,
            boot,
            reboot_time: None,
            reboot: None,
            plan: None,
            asked: None,
            started_clock: None,
            starts: Vec::new(),
            wish: None,
            going_down: false,
            replies: Vec::new(),
            last_wish: None,
            lost: false,
            damaged: None,
        }
    }

    /// The newest request, if it has not ended yet.
    pub fn pending(&self) -> Option<&Reboot> {
        self.reboot.as_ref().filter(|reboot| !reboot.status.is_final())
    }

    /// The reply once given to the request `id`.
    pub fn reply(&self, id: &str) -> Option<&Value> {
        self.replies.iter().find(|reply| reply.id == id).map(|reply| &reply.body)
    }

    /// Remembers a reply, forgetting the oldest beyond the limit.
    pub fn remember(&mut self, id: &str, body: Value) {
        self.replies.push(KnownReply { id: id.to_owned(), body });
        if self.replies.len() > MAX_REPLIES {
            // Not the wish's: that stands in the twin for as long as nobody
            // takes it back.
            let wish = self.wish.as_ref().and_then(Wish::id_of).map(String::from);
            let oldest = self.replies.iter().position(|reply| Some(&reply.id) != wish.as_ref());
            self.replies.remove(oldest.unwrap_or_default());
        }
    }

    /// Remembers that a reboot began, forgetting the oldest that no guard
    /// needs.
    pub fn started(&mut self, now: Time) {
        self.starts.push(now);
        let excess = self.starts.len().saturating_sub(Guards::MAX_PER_HOUR);
        self.starts.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    use iotdm_proto::report::{BootCause, Clock};
    use serde_json::json;

    use super::*;

    #[test]
    fn old_replies_make_room_except_for_the_wishs() {
        let mut record = Record::new(Boot {
            boot_id: "b".into(),
            boot_time: Time::from_unix_millis(0),
            cause: BootCause::Unknown,
            clock: Clock::Unsynchronized,
        });
        record.wish = Some(json!({ "id": "1" }));
        for n in 0..128 + 3 {
            record.remember(&n.to_string(), json!(n));
        }
        assert_eq!(record.replies.len(), 128);
        let known = |id: &str| record.reply(id).is_some();
        assert_eq!(["0", "1", "2", "3", "4"].map(known), [false, true, false, false, true]);
        assert!(known("130"));
    }
}
