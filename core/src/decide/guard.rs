//! The device's own limits on reboots: how often, how soon after the last
//! boot, and when.

use std::time::Duration;

use iotdm_proto::Time;
use jiff::tz::TimeZone;

use super::windows::{self, Turn, Window};

/// What the configuration allows.
#[derive(Debug, Clone)]
pub struct Guards {
    /// How many reboots may begin within an hour.
    pub max_per_hour: usize,
    /// How long the machine stays up at least.
    pub min_uptime: Duration,
    /// In which spans of local time it may be rebooted; none is always.
    pub windows: Vec<Window>,
    /// How much of them this machine makes use of.
    pub turn: Turn,
    /// The local time zone, as it is now.
    pub zone: fn() -> TimeZone,
}

const HOUR: Duration = Duration::from_secs(60 * 60);

impl Guards {
    /// The most that `max_per_hour` can be, and so the number of `starts` that
    /// have to be remembered.
    pub const MAX_PER_HOUR: usize = 60;

    /// From when on, `now` or later, `max_per_hour` and `min_uptime` allow a
    /// reboot of a machine that was `booted` then, with reboots that began at
    /// `starts`.
    ///
    /// A start that lies in the future tells of a clock that was wrong, and
    /// limits nothing: a machine must not be locked for years by a bad date.
    pub fn rested(&self, now: Time, booted: Time, starts: &[Time]) -> Time {
        let mut recent: Vec<Time> =
            starts.iter().copied().filter(|start| *start <= now && now.since(*start) < HOUR).collect();
        recent.sort_unstable();
        let nth_last = recent.len().checked_sub(self.max_per_hour).and_then(|index| recent.get(index));
        let rate = nth_last.map_or(now, |start| start.after(HOUR));
        rate.max(booted.min(now).after(self.min_uptime)).max(now)
    }

    /// The first instant, `from` or later, at which the windows let a reboot begin
    /// that could have begun at `since` but for these guards.
    pub fn open(&self, since: Time, from: Time) -> Time {
        windows::next(&self.windows, self.turn, since, from, &(self.zone)())
    }

    /// The last instant at which a reboot may begin in the window that is open `now`.
    pub fn last(&self, now: Time) -> Option<Time> {
        windows::last(&self.windows, self.turn, now, &(self.zone)())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Time {
        Time::from_unix_millis(seconds * 1000)
    }

    fn rested(max_per_hour: usize, min_uptime: u64, starts: &[i64], now: i64) -> Time {
        let min_uptime = Duration::from_secs(min_uptime);
        let turn = Turn { reserve: Duration::ZERO, spread: Duration::ZERO, number: 0 };
        let guards = Guards { max_per_hour, min_uptime, windows: Vec::new(), turn, zone: || TimeZone::UTC };
        let starts: Vec<Time> = starts.iter().copied().map(at).collect();
        guards.rested(at(now), at(10_000), &starts)
    }

    #[test]
    fn each_limit_by_itself_and_both() {
        for (max, min_uptime, starts, now, expected) in [
            (2, 0, &[][..], 10_100, 10_100),
            (2, 0, &[10_050], 10_100, 10_100),
            (2, 0, &[10_020, 10_050], 10_100, 13_620),
            (2, 0, &[10_000, 10_020, 10_050], 10_100, 13_620),
            // An hour ago is over.
            (2, 0, &[10_020, 10_050], 13_620, 13_620),
            (1, 0, &[6_501, 6_500], 10_100, 10_101),
            (1, 0, &[6_500], 10_100, 10_100),
            // From a clock that was wrong.
            (1, 0, &[99_999_999], 10_100, 10_100),
            (6, 600, &[], 10_100, 10_600),
            (6, 600, &[], 10_600, 10_600),
            (1, 600, &[10_050], 10_100, 13_650),
        ] {
            assert_eq!(
                rested(max, min_uptime, starts, now),
                at(expected),
                "{max} {min_uptime} {starts:?} {now}"
            );
        }
    }
}
