//! How the machine is: what systemd was seen to say of it, and what the daemon
//! remembers of that.

use iotdm_proto::health::{Health, HealthState};
use serde::{Deserialize, Serialize};

/// What was seen of the machine's units. The names are sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The state, with the device's own configuration heeded.
    pub state: HealthState,
    /// The units that have to be active and are not.
    pub down: Vec<String>,
    /// The other units that have failed.
    pub failed: Vec<String>,
}

/// What must survive of the health of a boot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KnownHealth {
    /// As it is reported.
    pub told: Health,
    /// The daemon has followed this boot from its own first start in it, so that
    /// it knows when the hub was first reached.
    pub whole_boot: bool,
}

impl Observed {
    /// The units to be named, where those in `before` had failed already when the
    /// newest request was accepted, and how many are wrong in all.
    ///
    /// Of the old ones only those are named that are told as such
    /// ([`told_before`]): another one would look like a new one.
    pub(super) fn named(&self, before: &[String]) -> (Vec<String>, u32) {
        let told = told_before(before);
        let new = self.failed.iter().filter(|unit| !before.contains(unit));
        let old = self.failed.iter().filter(|unit| told.contains(unit));
        let named = self.down.iter().chain(new).chain(old).take(Health::MAX_NAMED).cloned().collect();
        (named, u32::try_from(self.down.len() + self.failed.len()).unwrap_or(u32::MAX))
    }
}

/// How many of the units that had failed before are told.
pub(super) fn told_before(before: &[String]) -> &[String] {
    before.get(..Health::MAX_NAMED).unwrap_or(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(range: std::ops::Range<u32>) -> Vec<String> {
        range.map(|number| format!("u{number:02}.service")).collect()
    }

    #[test]
    fn what_is_new_is_named_first_and_what_is_old_is_never_taken_for_new() {
        let observed = |down, failed| Observed { state: HealthState::Degraded, down, failed };
        let required = vec!["z.service".to_owned()];
        let (named, count) = observed(required.clone(), units(0..4)).named(&units(1..3));
        assert_eq!(named, ["z.service", "u00.service", "u03.service", "u01.service", "u02.service"]);
        assert_eq!(count, 5);
        // More had failed before than can be told.
        let before = units(0..15);
        let (named, count) = observed(Vec::new(), units(3..16)).named(&before);
        assert_eq!(count, 13);
        assert_eq!(named, [vec!["u15.service".to_owned()], units(3..10)].concat());
        assert!(named[1..].iter().all(|unit| told_before(&before).contains(unit)));
        assert_eq!(observed(required, units(0..15)).named(&[]).0.len(), 10);
    }
}
