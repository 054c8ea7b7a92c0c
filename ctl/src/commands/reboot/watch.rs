//! Tells from what a device reports what became of a request.

use iotdm_proto::RequestId;
use iotdm_proto::report::RebootStatus;
use serde_json::Value;

use super::health::{Judge, Verdict, list};
use super::outcome::Outcome;
use crate::cli::Until;
use crate::reported::Reported;

/// By which sign the outcome of a request is recognised.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Watch {
    /// The request's id, as the daemon reports it.
    pub(super) id: RequestId,
    /// If a change of `rebootTime` counts as well: `rebootTime` before the
    /// request. Somebody else's `rebootDevice` reports nothing but this.
    pub(super) reboot_time: Option<RebootTimeBefore>,
    /// What makes a reboot complete; if nothing is said, a device that tells its
    /// health has to be well.
    pub(super) until: Option<Until>,
    /// Whether the device may tell its health, by what it reported before.
    pub(super) may_tell_health: bool,
}

/// `rebootTime` as the device reported it before the request. The value is
/// compared as it is, since other devices write it in forms of their own.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RebootTimeBefore(pub(super) Option<Value>);

/// An outcome, the sentence about what went wrong, if anything did, and what else
/// there is to know, in a clause.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct OutcomeWithError {
    pub(super) outcome: Outcome,
    pub(super) error: Option<String>,
    pub(super) note: Option<String>,
}

/// How far a request is that has no outcome yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stage {
    /// How far, in the device's own word or, once it has booted, in ours.
    pub(super) word: String,
    /// What holds its shutdown up, in a clause.
    pub(super) held_up_by: Option<String>,
    /// Whether the device has booted and says nothing at all of its health.
    pub(super) tells_no_health: bool,
}

/// What a look at the reported properties tells.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Seen {
    /// No outcome yet; how far the request is, once the device reports that.
    Pending(Option<Stage>),
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
                Some(RebootStatus::Completed) if self.minds_health(reported) => self.judge(reported),
                Some(RebootStatus::Completed) => Seen::completed(None),
                Some(RebootStatus::Failed) => Seen::with_error(Outcome::Failed, reported.failure()),
                Some(RebootStatus::Cancelled) => {
                    Seen::with_error(Outcome::Cancelled, "the reboot was cancelled".to_owned())
                }
                Some(RebootStatus::NotNeeded) => Seen::Outcome(OutcomeWithError::not_needed(None)),
                Some(RebootStatus::Scheduled | RebootStatus::Waiting | RebootStatus::Rebooting) | None => {
                    let word = reported.status().and_then(Value::as_str);
                    let (units, count) = reported.waiting_for();
                    let held_up_by = (!units.is_empty()).then(|| list(&units, count - units.len()));
                    Seen::Pending(word.map(|word| Stage { held_up_by, ..Stage::of(word.to_owned()) }))
                }
            };
        }
        match &self.reboot_time {
            Some(RebootTimeBefore(before)) if reported.reboot_time != *before => Seen::completed(None),
            _ => Seen::Pending(None),
        }
    }

    /// Whether a device that has booted has to be well as well.
    pub(super) fn minds_health(&self, reported: &Reported) -> bool {
        match self.until {
            Some(until) => until != Until::Booted,
            None => self.may_tell_health || reported.health.is_some(),
        }
    }

    /// By what the health of a device that has booted and reports this is judged.
    pub(super) fn health_judge(&self, reported: &Reported) -> Judge {
        Judge::of(reported, self.until == Some(Until::Strict))
    }

    /// What is seen of a device that has booted and has to be well.
    fn judge(&self, reported: &Reported) -> Seen {
        if !reported.is_of_the_running_boot() && reported.booted_unclean() {
            let error = "the device went down again without an orderly shutdown";
            return Seen::with_error(Outcome::Unclean, error.to_owned());
        }
        match self.health_judge(reported).look(reported) {
            Verdict::NotYet(word) => {
                let tells_no_health = reported.health.is_none();
                Seen::Pending(Some(Stage { tells_no_health, ..Stage::of(word) }))
            }
            Verdict::Well(note) if reported.is_of_the_running_boot() => Seen::completed(note),
            Verdict::Well(note) => {
                let again = "it has booted again since";
                Seen::completed(Some(note.map_or(again.to_owned(), |note| format!("{again}; {note}"))))
            }
            Verdict::Unwell(units) => Seen::Outcome(OutcomeWithError::unhealthy(&units)),
        }
    }
}

impl OutcomeWithError {
    /// An outcome without more to say.
    pub(super) fn bare(outcome: Outcome) -> Self {
        OutcomeWithError { outcome, error: None, note: None }
    }

    /// The device was left alone, as it says for this reason.
    pub(super) fn not_needed(reason: Option<&str>) -> Self {
        let note = reason.unwrap_or("the machine needs no reboot").to_owned();
        OutcomeWithError { note: Some(note), ..Self::bare(Outcome::NotNeeded) }
    }

    /// The device has come back with these units wrong.
    pub(super) fn unhealthy(units: &str) -> Self {
        let error = format!("the device came back unhealthy: {units}");
        OutcomeWithError { error: Some(error), ..Self::bare(Outcome::Unhealthy) }
    }
}

impl Stage {
    fn of(word: String) -> Self {
        Stage { word, held_up_by: None, tells_no_health: false }
    }
}

impl Seen {
    fn completed(note: Option<String>) -> Self {
        Seen::Outcome(OutcomeWithError { note, ..OutcomeWithError::bare(Outcome::Completed) })
    }

    fn with_error(outcome: Outcome, error: String) -> Self {
        Seen::Outcome(OutcomeWithError { error: Some(error), ..OutcomeWithError::bare(outcome) })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn by_id() -> Watch {
        Watch { id: "r-1".parse().unwrap(), reboot_time: None, until: None, may_tell_health: false }
    }

    fn by_time(before: Value) -> Watch {
        let before = (!before.is_null()).then_some(before);
        Watch { reboot_time: Some(RebootTimeBefore(before)), ..by_id() }
    }

    #[test]
    fn by_our_id() {
        let pending = |status: &str| Seen::Pending(Some(Stage::of(status.to_owned())));
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
            (boots("requested", "b"), Seen::completed(None)),
            (boots("unclean", "b"), Seen::with_error(Outcome::Unclean, unclean.into())),
            (boots("unclean", "later"), Seen::completed(None)),
            (
                json!({"reboot": {"id": "r-1", "status": "failed",
                    "error": {"code": "neverWentDown", "message": "it stayed up"}}}),
                Seen::with_error(Outcome::Failed, "the reboot failed: neverWentDown, it stayed up".into()),
            ),
            (
                json!({"reboot": {"id": "r-1", "status": "cancelled"}}),
                Seen::with_error(Outcome::Cancelled, "the reboot was cancelled".into()),
            ),
            (
                json!({"reboot": {"id": "r-1", "status": "notNeeded"}}),
                Seen::Outcome(OutcomeWithError::not_needed(Some("the machine needs no reboot"))),
            ),
        ] {
            assert_eq!(by_id().look(&Reported::from(&reported)), seen, "{reported}");
        }
    }

    #[test]
    fn until_it_is_healthy_where_it_tells_its_health() {
        let boot = |health: Value, running: &str, cause: &str| {
            let reboot =
                json!({"id": "r-1", "status": "completed", "bootId": "b", "failedBefore": ["old.service"]});
            let boot = json!({"bootId": running, "cause": cause});
            Reported::from(&json!({"reboot": reboot, "boot": boot, "health": health}))
        };
        let state = |state: &str| json!({"bootId": "b", "state": state});
        let failed =
            |unit: &str| json!({"bootId": "b", "state": "degraded", "failedUnits": [unit], "failedCount": 1});
        let until = |until: Until| Watch { until: Some(until), ..by_id() };
        let outcome = |seen: Seen| match seen {
            Seen::Outcome(outcome) => Some(outcome.outcome),
            Seen::Pending(_) => None,
        };
        for (health, booted, by_default, strict) in [
            (state("starting"), Outcome::Completed, None, None),
            (state("running"), Outcome::Completed, Some(Outcome::Completed), Some(Outcome::Completed)),
            (failed("app.service"), Outcome::Completed, Some(Outcome::Unhealthy), Some(Outcome::Unhealthy)),
            (failed("old.service"), Outcome::Completed, Some(Outcome::Completed), Some(Outcome::Unhealthy)),
        ] {
            let reported = boot(health.clone(), "b", "requested");
            assert_eq!(outcome(until(Until::Booted).look(&reported)), Some(booted), "{health}");
            assert_eq!(outcome(by_id().look(&reported)), by_default, "{health}");
            assert_eq!(outcome(until(Until::Healthy).look(&reported)), by_default, "{health}");
            assert_eq!(outcome(until(Until::Strict).look(&reported)), strict, "{health}");
        }
        let later = boot(json!({"bootId": "c", "state": "running"}), "c", "local");
        assert_eq!(outcome(by_id().look(&later)), Some(Outcome::Completed), "the boot that runs now counts");
        let still = boot(json!({"bootId": "b", "state": "running"}), "c", "local");
        assert_eq!(outcome(by_id().look(&still)), None, "the health of an earlier boot");
        let crashed = boot(json!({"bootId": "c", "state": "running"}), "c", "unclean");
        assert_eq!(outcome(by_id().look(&crashed)), Some(Outcome::Unclean));

        // A device that tells nothing is waited for if it said that it would.
        let silent = boot(Value::Null, "b", "requested");
        assert_eq!(outcome(by_id().look(&silent)), Some(Outcome::Completed));
        let expected = Watch { may_tell_health: true, ..by_id() };
        assert!(matches!(expected.look(&silent), Seen::Pending(Some(Stage { tells_no_health: true, .. }))));
        assert_eq!(
            outcome(expected.look(&boot(state("running"), "b", "requested"))),
            Some(Outcome::Completed)
        );
    }

    #[test]
    fn what_holds_a_shutdown_up_is_named() {
        let held = |waiting: Value| {
            let mut reboot = json!({"id": "r-1", "status": "rebooting"});
            reboot.as_object_mut().unwrap().extend(waiting.as_object().unwrap().clone());
            match by_id().look(&Reported::from(&json!({ "reboot": reboot }))) {
                Seen::Pending(Some(stage)) => stage.held_up_by,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(held(json!({})), None);
        assert_eq!(held(json!({"waitingFor": ["docker.service"]})).as_deref(), Some("docker.service"));
        let several = json!({"waitingFor": ["a.service", "b.mount"], "waitingForCount": 7});
        assert_eq!(held(several).as_deref(), Some("a.service, b.mount and 5 more"));
    }

    #[test]
    fn by_a_changed_reboot_time_of_any_form() {
        for (before, reported, seen) in [
            (json!(null), json!({}), Seen::Pending(None)),
            (json!(null), json!({"rebootTime": "2026"}), Seen::completed(None)),
            (json!("2025"), json!({"rebootTime": "2025"}), Seen::Pending(None)),
            (json!("2025"), json!({"rebootTime": "2026"}), Seen::completed(None)),
            (json!(1), json!({"rebootTime": 2}), Seen::completed(None)),
            (
                json!("2025"),
                json!({"rebootTime": "2026", "reboot": {"id": "r-1", "status": "rebooting"}}),
                Seen::Pending(Some(Stage::of("rebooting".into()))),
            ),
        ] {
            assert_eq!(by_time(before).look(&Reported::from(&reported)), seen, "{reported}");
        }
    }
}
