//! How much time has passed, by a count that no step of the clock moves: what is
//! remembered for days must not be forgotten since somebody set a date.
//!
//! Within a boot the machine's uptime is counted. What lies between two boots, and
//! between two runs of the daemon, is counted only where the clock was synchronised
//! at both ends. What cannot be counted is left out: something is remembered for
//! longer then, and never for less.

use std::time::Duration;

use iotdm_proto::Time;
use iotdm_proto::report::{Boot, Clock};
use serde::{Deserialize, Serialize};

/// The count, as the record keeps it. All numbers are milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Age {
    /// How much has passed since the daemon first counted.
    passed: u64,
    /// The machine's uptime when that was counted.
    uptime: u64,
    /// How much had passed when the daemon first counted in the running boot.
    boot_began: u64,
    /// The last instant that is known by a synchronised clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    known: Option<Known>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Known {
    at: Time,
    /// How much had passed by then.
    passed: u64,
    /// The clock of the running boot has not been synchronised since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    earlier_boot: bool,
}

impl Age {
    /// Begins anew where there is no record, with no less than `passed`.
    pub(super) fn begin(passed: u64, uptime: Duration) -> Self {
        Age { passed, uptime: millis(uptime), boot_began: passed, known: None }
    }

    /// How much has passed, in milliseconds.
    pub fn passed(&self) -> u64 {
        self.passed
    }

    /// How much had passed when the daemon first counted in the running boot.
    pub(super) fn boot_began(&self) -> u64 {
        self.boot_began
    }

    /// The uptime at the last count.
    pub(super) fn uptime(&self) -> Duration {
        Duration::from_millis(self.uptime)
    }

    /// Another boot is running, which has an uptime of its own. What it was up
    /// before the daemon started is not counted: in a container that is the
    /// uptime of the machine around it.
    pub(super) fn boots(&mut self, uptime: Duration) {
        (self.uptime, self.boot_began) = (millis(uptime), self.passed);
        if let Some(known) = &mut self.known {
            known.earlier_boot = true;
        }
    }

    /// Counts up to `uptime` of the running `boot`. Returns what is found to have
    /// passed, before the daemon first counted in this boot, that was not counted
    /// until now.
    pub(super) fn count(&mut self, uptime: Duration, boot: &Boot) -> u64 {
        let uptime = millis(uptime);
        self.passed = self.passed.saturating_add(uptime.saturating_sub(self.uptime));
        self.uptime = uptime;
        if boot.clock != Clock::Synchronized {
            return 0;
        }
        // Not the clock of now: that one may have been set by hand since it was
        // synchronised.
        let at = boot.boot_time.after(self.uptime());
        let known = self.known.as_ref().filter(|known| known.earlier_boot);
        let missed = known.map_or(0, |known| {
            known.passed.saturating_add(millis(at.since(known.at))).saturating_sub(self.passed)
        });
        self.passed = self.passed.saturating_add(missed);
        self.boot_began = self.boot_began.saturating_add(missed);
        self.known = Some(Known { at, passed: self.passed, earlier_boot: false });
        missed
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use iotdm_proto::report::BootCause;
    use proptest::prelude::*;

    use super::*;

    const HOUR: u64 = 3600;
    const DAY: u64 = 24 * HOUR;
    const YEARS: i64 = 10 * 365 * 86_400;
    /// 2026-11-22T00:00:00Z
    const START: i64 = 1_795_305_600;

    /// The running boot as the record has it: booted at `seconds` after [`START`].
    fn boot(seconds: i64, clock: Clock) -> Boot {
        let boot_time = Time::from_unix_millis((START + seconds) * 1000);
        Boot {
            boot_id: "b".into(),
            boot_time,
            cause: BootCause::Unknown,
            clock,
            detail: None,
            count: None,
            unclean_count: None,
        }
    }

    fn synchronized(seconds: i64) -> Boot {
        boot(seconds, Clock::Synchronized)
    }

    fn unsynchronized(seconds: i64) -> Boot {
        boot(seconds, Clock::Unsynchronized)
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A count that has gone on for an hour of uptime.
    fn after_an_hour(boot: &Boot) -> Age {
        let mut age = Age::begin(0, secs(10));
        age.count(secs(10 + HOUR), boot);
        age
    }

    fn passed(age: &Age) -> u64 {
        age.passed() / 1000
    }

    #[test]
    fn within_a_boot_the_uptime_counts_whatever_the_clock_does() {
        for clock in [synchronized, unsynchronized] {
            let mut age = after_an_hour(&clock(0));
            for step in [YEARS, -YEARS, 1, 0] {
                age.count(age.uptime(), &clock(step));
                age.count(age.uptime() + secs(HOUR), &clock(step));
            }
            assert_eq!(passed(&age), 5 * HOUR);
        }
    }

    #[test]
    fn a_time_without_power_counts_where_the_clock_was_right_before_and_after() {
        let day = 86_400;
        for (before, after, expected) in [
            // Up for 1 h and 10 s, then down until a day after the first boot.
            (synchronized(0), synchronized(day), DAY),
            (unsynchronized(0), synchronized(day), HOUR + 20),
            (synchronized(0), unsynchronized(day), HOUR + 20),
            (unsynchronized(0), unsynchronized(day), HOUR + 20),
            // A date from the past, or far in the future, by hand.
            (unsynchronized(YEARS), synchronized(day), HOUR + 20),
            (synchronized(0), unsynchronized(YEARS), HOUR + 20),
            (synchronized(0), unsynchronized(-YEARS), HOUR + 20),
            // The clock was right by two servers that do not agree.
            (synchronized(YEARS), synchronized(day), HOUR + 20),
        ] {
            let mut age = after_an_hour(&before);
            age.boots(secs(10));
            age.count(secs(30), &after);
            // From the first count, at 10 s; now it is 30 s after the second boot.
            let expected = if expected == DAY { DAY + 30 - 10 } else { expected };
            assert_eq!(passed(&age), expected, "{before:?} {after:?}");
        }
    }

    #[test]
    fn a_clock_that_becomes_right_later_tells_what_was_missed_once() {
        let day = 86_400;
        let mut age = after_an_hour(&synchronized(0));
        // A boot that never learns the time, of two hours after the daemon's start.
        age.boots(secs(10));
        age.count(secs(10 + 2 * HOUR), &unsynchronized(YEARS));
        age.boots(secs(10));
        age.count(secs(100), &unsynchronized(-YEARS));
        assert_eq!((passed(&age), age.boot_began() / 1000), (3 * HOUR + 90, 3 * HOUR));
        let missed = age.count(secs(100), &synchronized(2 * day)) / 1000;
        assert_eq!(passed(&age), 2 * DAY + 100 - 10);
        assert_eq!(missed, 2 * DAY - 3 * HOUR);
        assert_eq!(age.boot_began() / 1000, 3 * HOUR + missed);
        assert_eq!(age.count(secs(100), &synchronized(2 * day)), 0);
    }

    /// What a machine goes through: so many seconds pass, with or without power, and
    /// then the clock is off by so much, and may be known to be right.
    #[derive(Debug, Clone)]
    struct Spell {
        seconds: u64,
        powered: bool,
        off_by: Option<i64>,
    }

    fn spell() -> impl Strategy<Value = Spell> {
        let off_by = prop_oneof![Just(None), Just(None), (-YEARS..YEARS).prop_map(Some)];
        (0..40 * DAY, any::<bool>(), off_by).prop_map(|(seconds, powered, off_by)| Spell {
            seconds,
            powered,
            off_by,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn never_more_has_passed_than_has(spells in prop::collection::vec(spell(), 1..40)) {
            let (mut age, mut now, mut booted) = (Age::begin(0, secs(0)), 0, 0);
            let mut clock = synchronized(0);
            age.count(secs(0), &clock);
            let (mut always_right, mut uncounted) = (true, 0);
            for Spell { seconds, powered, off_by } in spells {
                now += seconds;
                if !powered {
                    booted = now;
                    age.boots(secs(0));
                    uncounted += seconds;
                }
                let boot_time = booted as i64;
                // Once right, a clock is not made wrong again in the record.
                clock = match off_by {
                    None => synchronized(boot_time),
                    Some(_) if powered && clock.clock == Clock::Synchronized => clock,
                    Some(off_by) => unsynchronized(boot_time + off_by),
                };
                always_right &= clock.clock == Clock::Synchronized;
                age.count(secs(now - booted), &clock);
                prop_assert!(passed(&age) <= now, "{} of {now}", passed(&age));
                prop_assert!(passed(&age) + uncounted >= now, "{} of {now}", passed(&age));
                prop_assert!(!always_right || passed(&age) == now);
            }
        }
    }

    #[test]
    fn the_uptime_of_a_machine_around_a_container_does_not_count() {
        let mut age = Age::begin(0, secs(40 * DAY));
        for _ in 0..10 {
            age.boots(secs(41 * DAY));
            age.count(secs(41 * DAY + 60), &unsynchronized(0));
        }
        assert_eq!(passed(&age), 600);
        // Nor is anything taken back by an uptime that is lower than before.
        age.count(secs(5), &unsynchronized(0));
        assert_eq!(passed(&age), 600);
    }
}
