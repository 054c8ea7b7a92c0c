//! The requests that were granted, by their ids: so that one that is delivered
//! again gets its reply again and nothing else.

use std::time::Duration;

use iotdm_proto::reply::RebootReply;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long the id of a request is remembered for which a reboot was begun.
const KEEP_BEGUN: Duration = Duration::from_secs(30 * DAY.as_secs());
/// How long any other is: a day more than the seven that a request may lie ahead.
const KEEP: Duration = Duration::from_secs(8 * DAY.as_secs());
/// How many ids are remembered at most: some 300 kilobytes.
pub(super) const MAX_IDS: usize = 1024;
/// How many requests may be granted within [`PERIOD`], so that a caller who asks
/// and cancels without end does not use up the memory, or the disk.
pub(super) const MAX_GRANTED: usize = 30;
/// The span of time for [`MAX_GRANTED`].
pub(super) const PERIOD: Duration = Duration::from_secs(60 * 60);

/// A request that was granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrantedRequest {
    /// The request's id.
    pub id: String,
    /// The body of the reply to it, with status 200, but for `ignored`: that is
    /// about a call, not about the request.
    pub body: Value,
    /// A reboot was begun for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub begun: bool,
    /// When it was granted, began or ended, whichever was last, by
    /// [`super::age::Age::passed`]. Versions before this key have not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
}

impl GrantedRequest {
    /// A request that is granted by `reply` when so many milliseconds have
    /// `passed`.
    pub(super) fn new(reply: &RebootReply, begun: bool, passed: u64) -> Self {
        GrantedRequest { id: reply.id.clone(), body: without_ignored(json!(reply)), begun, at: Some(passed) }
    }

    /// Takes over what an older version has remembered: for the longest time from
    /// now on, since nothing is known of its age.
    pub(super) fn taken_over(self, passed: u64) -> Self {
        match self.at {
            Some(_) => self,
            None => {
                GrantedRequest { body: without_ignored(self.body), begun: true, at: Some(passed), ..self }
            }
        }
    }

    /// The reply's body for a call with these keys that the daemon does not know.
    pub(super) fn reply(&self, ignored: &[String]) -> Value {
        let mut body = self.body.clone();
        if let Some(body) = body.as_object_mut() {
            body.insert("ignored".to_owned(), json!(ignored));
        }
        body
    }

    /// When it may be forgotten, by [`super::age::Age::passed`].
    pub(super) fn end(&self) -> u64 {
        let keep = if self.begun { KEEP_BEGUN } else { KEEP };
        self.at.unwrap_or(0).saturating_add(keep.as_secs() * 1000)
    }
}

fn without_ignored(mut body: Value) -> Value {
    if let Some(body) = body.as_object_mut() {
        body.remove("ignored");
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_version_has_remembered_is_kept_for_thirty_days_from_now_without_its_call() {
        let body = json!({"id": "a", "status": "accepted", "ignored": ["method_number"]});
        let old = GrantedRequest { id: "a".to_owned(), body, begun: false, at: None };
        let taken = old.taken_over(5_000);
        assert_eq!(taken.body, json!({"id": "a", "status": "accepted"}));
        assert_eq!(taken.end(), 5_000 + 30 * 24 * 60 * 60 * 1000);
        // Once its age is known, it counts from then.
        assert_eq!(taken.clone().taken_over(9_000), taken);
    }
}
