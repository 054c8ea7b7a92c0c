//! What is asked of every device of a run: one request with one id.

use std::time::{Duration, SystemTime};

use iotdm_proto::Time;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::cli::{OnInhibitor, RequestArgs};

/// The argument of `rebootDevice`, as it is sent and as the journal keeps it.
///
/// Each device sees the id once, so that the same one serves all of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request {
    /// The id of the request.
    pub(super) id: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    /// How much later, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) delay_seconds: Option<u64>,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) at: Option<Time>,
    /// What to do about inhibitors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) on_inhibitor: Option<OnInhibitor>,
    /// How long the device waits for an inhibitor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) wait_seconds: Option<u64>,
    /// Whether only to say what would happen.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) check: bool,
}

impl Request {
    /// What the command line asks for.
    pub(super) fn new(args: RequestArgs) -> Self {
        Request {
            id: args.id.unwrap_or_else(|| Uuid::new_v4().to_string()),
            reason: args.reason,
            delay_seconds: args.delay.map(|delay| delay.as_secs()),
            at: args.at,
            on_inhibitor: args.on_inhibitor,
            wait_seconds: args.wait_seconds,
            check: args.check,
        }
    }

    /// How long it is until the reboot may begin.
    pub(super) fn until_due(&self) -> Duration {
        let until = |at: Time| at.since(Time::from(SystemTime::now()));
        let delay = self.delay_seconds.map(Duration::from_secs);
        delay.or(self.at.map(until)).unwrap_or_default()
    }
}
