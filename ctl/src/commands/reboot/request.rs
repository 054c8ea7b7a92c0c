//! What is asked of every device of a run: one request with one id.

use std::time::{Duration, SystemTime};

use iotdm_proto::Time;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
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

/// Which way a request goes to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Way {
    /// By the direct method, to a device that is online.
    Method,
    /// By the twin's desired properties, as a wish that waits for the device.
    Twin {
        /// When it lapses.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline: Option<Time>,
    },
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

    /// The twin patch that wishes for it. An earlier wish is replaced as a
    /// whole, so what does not apply is `null`.
    pub(super) fn wish(&self, deadline: Option<Time>) -> Value {
        let delayed = self
            .delay_seconds
            .map(|seconds| Time::from(SystemTime::now()).after(Duration::from_secs(seconds)));
        json!({"properties": {"desired": {"reboot": {
            "id": self.id,
            "notBefore": delayed.or(self.at),
            "deadline": deadline,
            "reason": self.reason,
            "onInhibitor": self.on_inhibitor,
            "waitSeconds": self.wait_seconds,
        }}}})
    }

    /// How long it is until the reboot may begin.
    pub(super) fn until_due(&self) -> Duration {
        let until = |at: Time| at.since(Time::from(SystemTime::now()));
        let delay = self.delay_seconds.map(Duration::from_secs);
        delay.or(self.at.map(until)).unwrap_or_default()
    }
}
