//! Tells from what a device reports what became of a request.

use iotdm_proto::RequestId;
use iotdm_proto::report::RebootStatus;
use serde_json::Value;

use super::outcome::Outcome;
use crate::reported::Reported;

/// By which sign the outcome of a request is recognised.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Watch {
    /// The request's id, as the daemon reports it.
    pub(super) id: RequestId,
    /// If a change of `rebootTime` counts as well: `rebootTime` before the
    /// request. Somebody else's `rebootDevice` reports nothing but this.
    pub(super) reboot_time: Option<RebootTimeBefore>,
}

/// `rebootTime` as the device reported it before the request. The value is
/// compared as it is, since other devices write it in forms of their own.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RebootTimeBefore(pub(super) Option<Value>);

/// An outcome, and the sentence about what went wrong, if anything did.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct OutcomeWithError {
    pub(super) outcome: Outcome,
    pub(super) error: Option<String>,
}

/// What a look at the reported properties tells.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Seen {
    /// No outcome yet. The status is the one that the device reports of the
    /// request, once it reports one.
    Pending(Option<String>),
    /// The outcome.
    Outcome(OutcomeWithError),
}

impl Watch {
    /// Looks at what a device reports. A status that we do not know is taken for
    /// no outcome, so that a request on a newer device does not look finished.
    pub(super) fn look(&self, reported: &Reported) -> Seen {
        if reported.request_id() == Some(self.id.as_str()) {
            return match reported.known_status() {
                Some(RebootStatus::Completed) if reported.came_back_unclean() => {
                    let error = "the device came back without an orderly shutdown";
                    Seen::with_error(Outcome::Unclean, error.to_owned())
                }
                Some(RebootStatus::Completed) => Seen::completed(),
                Some(RebootStatus::Failed) => Seen::with_error(Outcome::Failed, reported.failure()),
                Some(RebootStatus::Cancelled) => {
                    Seen::with_error(Outcome::Cancelled, "the reboot was cancelled".to_owned())
                }
                Some(RebootStatus::NotNeeded) => {
                    Seen::with_error(Outcome::Cancelled, "the machine needs no reboot".to_owned())
                }
                Some(RebootStatus::Scheduled | RebootStatus::Waiting | RebootStatus::Rebooting) | None => {
                    Seen::Pending(reported.status().and_then(Value::as_str).map(str::to_owned))
                }
            };
        }
        match &self.reboot_time {
            Some(RebootTimeBefore(before)) if reported.reboot_time != *before => Seen::completed(),
            _ => Seen::Pending(None),
        }
    }
}

impl Seen {
    fn completed() -> Self {
        Seen::Outcome(OutcomeWithError { outcome: Outcome::Completed, error: None })
    }

    fn with_error(outcome: Outcome, error: String) -> Self {
        Seen::Outcome(OutcomeWithError { outcome, error: Some(error) })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn by_id() -> Watch {
        Watch { id: "r-1".parse().unwrap(), reboot_time: None }
    }

    fn by_time(before: Value) -> Watch {
        let before = (!before.is_null()).then_some(before);
        Watch { reboot_time: Some(RebootTimeBefore(before)), ..by_id() }
    }

    #[test]
    fn by_our_id() {
        let pending = |status: &str| Seen::Pending(Some(status.to_owned()));
        let boots = |cause: &str, running: &str| {
            json!({
                "reboot": {"id": "r-1", "status": "completed", "bootId": "b"},
                "boot": {"bootId": running, "cause": cause},
            })
        };
        let unclean = "the device came back without an orderly shutdown";
        for (reported, seen) in [
            (json!({}), Seen::Pending(None)),
            (json!({"reboot": null}), Seen::Pending(None)),
            (json!({"reboot": {"id": "other", "status": "completed"}}), Seen::Pending(None)),
            (json!({"rebootTime": "new"}), Seen::Pending(None)),
            (json!({"reboot": {"id": "r-1", "status": "rebooting"}}), pending("rebooting")),
            (json!({"reboot": {"id": "r-1", "status": "fromTheFuture"}}), pending("fromTheFuture")),
            (json!({"reboot": {"id": "r-1"}}), Seen::Pending(None)),
            (boots("requested", "b"), Seen::completed()),
            (boots("unclean", "b"), Seen::with_error(Outcome::Unclean, unclean.into())),
            (boots("unclean", "later"), Seen::completed()),
            (
                json!({"reboot": {"id": "r-1", "status": "failed",
                    "error": {"code": "neverWentDown", "message": "it stayed up"}}}),
                Seen::with_error(Outcome::Failed, "the reboot failed: neverWentDown, it stayed up".into()),
            ),
            (
                json!({"reboot": {"id": "r-1", "status": "cancelled"}}),
                Seen::with_error(Outcome::Cancelled, "the reboot was cancelled".into()),
            ),
        ] {
            assert_eq!(by_id().look(&Reported::from(&reported)), seen, "{reported}");
        }
    }

    #[test]
    fn by_a_changed_reboot_time_of_any_form() {
        for (before, reported, seen) in [
            (json!(null), json!({}), Seen::Pending(None)),
            (json!(null), json!({"rebootTime": "2026"}), Seen::completed()),
            (json!("2025"), json!({"rebootTime": "2025"}), Seen::Pending(None)),
            (json!("2025"), json!({"rebootTime": "2026"}), Seen::completed()),
            (json!(1), json!({"rebootTime": 2}), Seen::completed()),
            (
                json!("2025"),
                json!({"rebootTime": "2026", "reboot": {"id": "r-1", "status": "rebooting"}}),
                Seen::Pending(Some("rebooting".into())),
            ),
        ] {
            assert_eq!(by_time(before).look(&Reported::from(&reported)), seen, "{reported}");
        }
    }
}
