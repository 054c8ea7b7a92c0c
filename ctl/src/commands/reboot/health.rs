//! Whether a device is well after its reboot, by what it reports of its health.

use iotdm_proto::health::{Health, HealthState};

use crate::reported::Reported;

/// How many units a sentence names at most, so that it stays one to read.
const NAMED: usize = 10;

/// By what a device is judged: only the health of the running boot counts, beside
/// what had failed before.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Judge {
    boot_id: Option<String>,
    /// The units that had failed when the request was accepted, the first
    /// [`Health::MAX_NAMED`] of them.
    failed_before: Vec<String>,
    /// Whether those count as well.
    is_strict: bool,
}

/// What the health comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// That cannot be said yet, and how far the device is.
    NotYet(String),
    /// Nothing is wrong that counts; what is wrong all the same, in a clause.
    Well(Option<String>),
    /// These units are wrong, in a clause.
    Unwell(String),
}

impl Judge {
    /// A judge of a device that reports this and has booted for its newest request. If
    /// it has booted again since, the boot that runs now counts: of the one before
    /// nothing will be told any more.
    pub(super) fn of(reported: &Reported, is_strict: bool) -> Self {
        let later =
            reported.running_boot_id().filter(|running| Some(*running) != reported.previous_boot_id());
        Judge::of_boot(later.or(reported.new_boot_id()), reported, is_strict)
    }

    /// A judge of the boot that runs now, whatever became of the newest request.
    pub(super) fn now(reported: &Reported, is_strict: bool) -> Self {
        Judge::of_boot(reported.running_boot_id(), reported, is_strict)
    }

    fn of_boot(boot_id: Option<&str>, reported: &Reported, is_strict: bool) -> Self {
        let (boot_id, failed_before) = (boot_id.map(str::to_owned), reported.failed_before());
        Judge { boot_id, failed_before, is_strict }
    }

    /// Judges what a device reports.
    ///
    /// The daemon names first the units that have to be active and are not, then
    /// those that have failed since the request was accepted, and last those that
    /// had failed before (`failedUnits` in docs/device-interface.md). So if each
    /// named unit had failed before, so had those that are counted and not named,
    /// unless the count says otherwise, or none is named.
    pub(super) fn look(&self, reported: &Reported) -> Verdict {
        let not_yet = |words: &str| Verdict::NotYet(words.to_owned());
        let boot = reported.health_boot_id();
        if boot.is_none() || boot != self.boot_id.as_deref() {
            return not_yet("up, and its health is not known yet");
        }
        let is_degraded = match reported.health_state() {
            Some(HealthState::Running) => false,
            Some(HealthState::Degraded) => true,
            Some(HealthState::Starting) => return not_yet("up, and still starting"),
            Some(HealthState::Stopping) => return not_yet("up, and stopping"),
            Some(HealthState::Maintenance) | None => return not_yet("up, and not running normally"),
        };
        let (named, count) = (reported.failed_units(), reported.failed_count());
        let unnamed = count.saturating_sub(named.len());
        let (old, new): (Vec<&String>, Vec<&String>) =
            named.iter().partition(|unit| self.failed_before.contains(unit));
        let knows_all_old = self.failed_before.len() < Health::MAX_NAMED;
        let more_than_before = knows_all_old && count > self.failed_before.len();
        let as_before = (!old.is_empty()).then(|| format!("degraded as before: {}", list(&old, 0)));
        match count {
            0 if is_degraded && named.is_empty() => not_yet("up, and its boot takes long"),
            _ if !new.is_empty() => {
                let mut clause = list(&new, unnamed);
                if let Some(as_before) = as_before {
                    clause.push_str(&format!("; {as_before}"));
                }
                Verdict::Unwell(clause)
            }
            0 => Verdict::Well(None),
            _ if named.is_empty() => Verdict::Unwell(format!("{count} units, which it does not name")),
            _ if self.is_strict => Verdict::Unwell(list(&old, unnamed)),
            _ if more_than_before => Verdict::Unwell(format!("{} failed before, now {count}", old.len())),
            _ => Verdict::Well(Some(format!("degraded as before: {}", list(&old, unnamed)))),
        }
    }
}

/// Names of units, the first of them, and how many there are besides.
pub(super) fn list(units: &[impl AsRef<str>], unnamed: usize) -> String {
    let names: Vec<&str> = units.iter().take(NAMED).map(AsRef::as_ref).collect();
    let more = units.len() - names.len() + unnamed;
    let mut list = names.join(", ");
    if more > 0 {
        list.push_str(&format!(" and {more} more"));
    }
    list
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn units(range: std::ops::Range<u32>) -> Value {
        range.map(|number| format!("u{number:02}.service")).collect()
    }

    fn judged_as(health: Value, before: Value, is_strict: bool) -> Verdict {
        let reboot = json!({"id": "r-1", "status": "completed", "bootId": "b", "failedBefore": before});
        let reported = Reported::from(&json!({"reboot": reboot, "health": health}));
        Judge::of(&reported, is_strict).look(&reported)
    }

    fn judged(health: Value, before: Value) -> Verdict {
        judged_as(health, before, false)
    }

    fn degraded(units: Value, count: u32) -> Value {
        json!({"bootId": "b", "state": "degraded", "failedUnits": units, "failedCount": count})
    }

    fn well(note: &str) -> Verdict {
        Verdict::Well((!note.is_empty()).then(|| note.to_owned()))
    }

    fn unwell(units: &str) -> Verdict {
        Verdict::Unwell(units.to_owned())
    }

    #[test]
    fn what_had_not_failed_before_counts() {
        let running = json!({"bootId": "b", "state": "running", "failedCount": 0});
        assert_eq!(judged(running.clone(), json!(["x"])), well(""));
        assert_eq!(judged(degraded(json!(["app.service"]), 1), json!([])), unwell("app.service"));
        assert_eq!(judged(degraded(json!(["x"]), 1), json!(["x", "y"])), well("degraded as before: x"));
        let both = judged(degraded(json!(["app.service", "x"]), 2), json!(["x"]));
        assert_eq!(both, unwell("app.service; degraded as before: x"));
        assert_eq!(judged_as(degraded(json!(["x"]), 1), json!(["x"]), true), unwell("x"));
        assert_eq!(judged_as(running, json!(["x"]), true), well(""));
    }

    #[test]
    fn only_a_boot_that_has_finished_and_is_that_of_the_request_counts() {
        let words = |health: Value| match judged(health, json!([])) {
            Verdict::NotYet(words) => words,
            other => panic!("{other:?}"),
        };
        for health in [json!(null), json!({"state": "running"}), json!({"bootId": "a", "state": "running"})] {
            assert_eq!(words(health), "up, and its health is not known yet");
        }
        let starting = json!({"bootId": "b", "state": "starting", "failedUnits": ["x"], "failedCount": 1});
        assert_eq!(words(starting), "up, and still starting");
        assert_eq!(words(json!({"bootId": "b", "state": "stopping"})), "up, and stopping");
        assert_eq!(words(json!({"bootId": "b", "state": "newWord"})), "up, and not running normally");
        // No unit is wrong: the boot takes longer than the device's health.wait.
        assert_eq!(words(degraded(json!(null), 0)), "up, and its boot takes long");
        let unknown = Reported::from(&json!({"health": {"bootId": "b", "state": "running"}}));
        assert!(matches!(Judge::of(&unknown, false).look(&unknown), Verdict::NotYet(_)), "of no reboot");
    }

    #[test]
    fn units_that_are_not_named_are_not_taken_for_well() {
        // The daemon names those first that have to be active.
        let required = [vec![json!("app.service")], units(0..9).as_array().unwrap().clone()].concat();
        let found = judged(degraded(json!(required), 14), units(0..10));
        assert!(matches!(&found, Verdict::Unwell(units) if units.starts_with("app.service and 4 more")));
        // More had failed before than are told.
        let old = judged(degraded(units(0..10), 14), units(0..10));
        assert!(matches!(&old, Verdict::Well(Some(note)) if note.ends_with("u09.service and 4 more")));
        // Two that were not there before, whatever their names are.
        assert_eq!(judged(degraded(units(0..3), 5), units(0..3)), unwell("3 failed before, now 5"));
        // A report that was too large has no names.
        assert_eq!(judged(degraded(json!(null), 2), units(0..3)), unwell("2 units, which it does not name"));
        assert_eq!(list(&["a"; 12], 3).matches('a').count(), 11, "ten names, and 'and'");
    }
}
