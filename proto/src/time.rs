//! One spelling for instants on every wire: RFC 3339, UTC, milliseconds.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An instant with millisecond resolution, written `2026-11-22T18:36:07.412Z`.
///
/// Anything finer than a millisecond is cut off when an instant is made, so that
/// the instant equals itself after a round trip through JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(Timestamp);

/// A text that is not an RFC 3339 instant with a zone.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not an RFC 3339 time such as 2026-11-22T18:36:07Z")]
pub struct TimeError(String);

impl Time {
    /// The instant `millis` milliseconds after the Unix epoch; instants
    /// outside the years −9999 to 9999 are clamped.
    pub fn from_unix_millis(millis: i64) -> Self {
        // Of the last second jiff takes the beginning only.
        let (first, last) = (Timestamp::MIN.as_second() * 1000, Timestamp::MAX.as_second() * 1000);
        let clamped = millis.clamp(first, last);
        Time(Timestamp::from_millisecond(clamped).unwrap_or(Timestamp::UNIX_EPOCH))
    }

    /// Milliseconds since the Unix epoch.
    pub fn unix_millis(self) -> i64 {
        self.0.as_millisecond()
    }

    /// Whole seconds since the Unix epoch, 0 for instants before it.
    pub fn unix_seconds(self) -> u64 {
        u64::try_from(self.0.as_second()).unwrap_or(0)
    }

    /// The instant that lies `duration` before this one, clamped as in
    /// [`Time::from_unix_millis`].
    pub fn before(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Time::from_unix_millis(self.unix_millis().saturating_sub(millis))
    }

    /// The instant that lies `duration` after this one, clamped likewise.
    pub fn after(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Time::from_unix_millis(self.unix_millis().saturating_add(millis))
    }

    /// How long it is from `earlier` to this instant; zero if `earlier` is the
    /// later one.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_millis(u64::try_from(self.unix_millis() - earlier.unix_millis()).unwrap_or(0))
    }

    /// How many seconds it is from `earlier` to this instant, to the millisecond;
    /// negative if `earlier` is the later one.
    pub fn seconds_since(self, earlier: Time) -> f64 {
        (self.unix_millis() - earlier.unix_millis()) as f64 / 1000.0
    }
}

impl From<SystemTime> for Time {
    fn from(time: SystemTime) -> Self {
        let millis = match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
        };
        Time::from_unix_millis(millis)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.0)
    }
}

impl FromStr for Time {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        let exact: Timestamp = text.parse().map_err(|_| TimeError(text.to_owned()))?;
        Ok(Time::from_unix_millis(exact.as_millisecond()))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn always_written_with_milliseconds_in_utc() {
        for (text, written) in [
            ("2026-11-22T18:36:07Z", "2026-11-22T18:36:07.000Z"),
            ("2026-11-22T19:36:07.4129+01:00", "2026-11-22T18:36:07.412Z"),
        ] {
            let time: Time = text.parse().unwrap();
            assert_eq!(time.to_string(), written);
            assert_eq!(written.parse::<Time>().unwrap(), time);
        }
    }

    #[test]
    fn a_date_alone_is_refused_by_name() {
        let error = "2026-11-22".parse::<Time>().unwrap_err();
        assert!(error.to_string().contains("2026-11-22"), "{error}");
    }

    #[test]
    fn system_time_on_both_sides_of_the_epoch() {
        let second = Duration::from_secs(1);
        assert_eq!(Time::from(SystemTime::UNIX_EPOCH + second).unix_millis(), 1000);
        assert_eq!(Time::from(SystemTime::UNIX_EPOCH - second).unix_millis(), -1000);
        assert_eq!(Time::from(SystemTime::UNIX_EPOCH - second).unix_seconds(), 0);
    }

    #[test]
    fn instants_beyond_the_calendar_are_clamped() {
        let (first, last) = (Time::from_unix_millis(i64::MIN), Time::from_unix_millis(i64::MAX));
        assert!(last.to_string().starts_with("9999-12-30T"), "{last}");
        assert!(first.to_string().starts_with("-009999-01-02T"), "{first}");
        assert_eq!(last.after(Duration::MAX), last);
        assert_eq!(first.before(Duration::MAX), first);
        assert_eq!(Time::from_unix_millis(0).after(Duration::MAX), last);
        assert_eq!(Time::from_unix_millis(0).before(Duration::MAX), first);
        assert_eq!(Time::from_unix_millis(1_500).unix_seconds(), 1);
    }

    #[test]
    fn before_and_since_are_inverse() {
        let now: Time = "2026-11-22T18:36:07.412Z".parse().unwrap();
        let earlier = now.before(Duration::from_millis(21_300));
        assert_eq!(now.seconds_since(earlier), 21.3);
        assert_eq!(earlier.seconds_since(now), -21.3);
        assert_eq!(earlier.after(Duration::from_millis(21_300)), now);
        assert_eq!(now.since(earlier), Duration::from_millis(21_300));
        assert_eq!(earlier.since(now), Duration::ZERO);
    }
}
