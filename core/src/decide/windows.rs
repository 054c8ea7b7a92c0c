//! Maintenance windows: the weekly spans of local time in which the machine
//! may be rebooted.

use std::fmt;
use std::str::FromStr;

use iotdm_proto::Time;
use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

/// A weekly span, written `Mon..Fri 02:00-04:00`: days as in systemd.time(7),
/// every day without them; a span that ends at or before its start ends on the
/// next day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    text: String,
    days: Vec<Weekday>,
    /// Minutes of the day, the end up to 24:00.
    from: i16,
    to: i16,
}

/// The text is not a window.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a window such as \"Mon..Fri 02:00-04:00\" or \"Sat,Sun 22:00-06:00\"")]
pub struct WindowError(String);

const MINUTES_A_DAY: i16 = 24 * 60;

/// A window that daylight saving time leaves out once comes again within this
/// time.
const DAYS_AHEAD: i64 = 15;

/// The first instant, not before `from`, that lies in one of the `windows` by
/// the local time of `zone`: `from` itself where there are none.
///
/// A start or end that daylight saving time skips is moved on by what is
/// skipped; of two that it repeats, the earlier counts.
pub fn next(windows: &[Window], from: Time, zone: &TimeZone) -> Time {
    let today = timestamp(from).to_zoned(zone.clone()).date();
    let starts = windows.iter().filter_map(|window| {
        (-1..DAYS_AHEAD).find_map(|day| {
            let (start, end) = window.on(today.checked_add(day.days()).ok()?, zone)?;
            (end > from && end > start).then(|| start.max(from))
        })
    });
    starts.min().unwrap_or(from)
}

impl Window {
    /// When it opens and closes on `date`, if it opens that day.
    fn on(&self, date: Date, zone: &TimeZone) -> Option<(Time, Time)> {
        if !self.days.contains(&date.weekday()) {
            return None;
        }
        let last = if self.to <= self.from { self.to + MINUTES_A_DAY } else { self.to };
        Some((instant(date, self.from, zone)?, instant(date, last, zone)?))
    }
}

fn instant(date: Date, minutes: i16, zone: &TimeZone) -> Option<Time> {
    let date = date.checked_add(i64::from(minutes / MINUTES_A_DAY).days()).ok()?;
    let (hour, minute) = ((minutes % MINUTES_A_DAY) / 60, minutes % 60);
    let civil = date.at(i8::try_from(hour).ok()?, i8::try_from(minute).ok()?, 0, 0);
    let timestamp = zone.to_ambiguous_timestamp(civil).compatible().ok()?;
    Some(Time::from_unix_millis(timestamp.as_millisecond()))
}

fn timestamp(time: Time) -> Timestamp {
    Timestamp::from_millisecond(time.unix_millis()).unwrap_or(Timestamp::UNIX_EPOCH)
}

impl FromStr for Window {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Self, WindowError> {
        parse(text).ok_or_else(|| WindowError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Window> {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    let (from, to) = words.pop()?.split_once('-')?;
    let (from, to) = (minutes(from)?, minutes(to)?);
    let days = match words.pop() {
        Some(days) => days.split(',').map(day_range).collect::<Option<Vec<_>>>()?.concat(),
        None => Weekday::Monday.cycle_forward().take(7).collect(),
    };
    let valid = words.is_empty() && from != to && from < MINUTES_A_DAY;
    valid.then(|| Window { text: text.to_owned(), days, from, to })
}

fn day_range(text: &str) -> Option<Vec<Weekday>> {
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    let (first, last) = (weekday(first)?, weekday(last)?);
    let days = first.until(last);
    Some(first.cycle_forward().take(usize::try_from(days).ok()? + 1).collect())
}

fn weekday(text: &str) -> Option<Weekday> {
    let names = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    let given = text.to_ascii_lowercase();
    let index = names.iter().position(|name| *name == given || name.get(..3) == Some(&given))?;
    Weekday::Monday.cycle_forward().nth(index)
}

/// `HH:MM`, up to 24:00.
fn minutes(text: &str) -> Option<i16> {
    let (hours, minutes) = text.split_once(':')?;
    let digits = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(hours) || !digits(minutes) {
        return None;
    }
    let (hours, minutes): (i16, i16) = (hours.parse().ok()?, minutes.parse().ok()?);
    let total = hours * 60 + minutes;
    (minutes < 60 && total <= MINUTES_A_DAY).then_some(total)
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz;

    use super::*;

    /// Central European time, whose clocks change at 01:00 UTC on 2026-03-29
    /// and 2026-10-25.
    fn berlin() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    fn next_in(windows: &[&str], from: &str, zone: &TimeZone) -> String {
        let windows: Vec<Window> = windows.iter().map(|text| text.parse().unwrap()).collect();
        next(&windows, from.parse().unwrap(), zone).to_string().replace(":00.000Z", "Z")
    }

    #[test]
    fn the_next_opening_or_now() {
        let utc = TimeZone::UTC;
        // 2026-11-22 is a Sunday.
        for (windows, from, expected) in [
            (&[][..], "2026-11-22T12:00:00Z", "2026-11-22T12:00Z"),
            (&["Mon..Fri 02:00-04:00"], "2026-11-22T12:00:00Z", "2026-11-23T02:00Z"),
            (&["Mon..Fri 02:00-04:00"], "2026-11-23T02:00:00Z", "2026-11-23T02:00Z"),
            (&["Mon..Fri 02:00-04:00"], "2026-11-23T03:59:00Z", "2026-11-23T03:59Z"),
            (&["Mon..Fri 02:00-04:00"], "2026-11-23T04:00:00Z", "2026-11-24T02:00Z"),
            (&["Mon..Fri 02:00-04:00"], "2026-11-27T04:00:00Z", "2026-11-30T02:00Z"),
            (&["02:00-04:00"], "2026-11-22T12:00:00Z", "2026-11-23T02:00Z"),
            (&["Sun 22:00-06:00"], "2026-11-23T05:59:00Z", "2026-11-23T05:59Z"),
            (&["Sun 22:00-06:00"], "2026-11-23T06:00:00Z", "2026-11-29T22:00Z"),
            (&["Sat..Mon 00:00-24:00"], "2026-11-23T23:59:00Z", "2026-11-23T23:59Z"),
            (&["Sat..Mon 00:00-24:00"], "2026-11-24T00:00:00Z", "2026-11-28T00:00Z"),
            (&["Wed 01:00-02:00", "Tue,Thu 05:00-06:00"], "2026-11-22T12:00:00Z", "2026-11-24T05:00Z"),
            (&["monday 01:00-02:00"], "2026-11-22T12:00:00Z", "2026-11-23T01:00Z"),
        ] {
            assert_eq!(next_in(windows, from, &utc), expected, "{windows:?} from {from}");
        }
    }

    #[test]
    fn local_time_with_daylight_saving() {
        let berlin = berlin();
        for (windows, from, expected) in [
            // One hour ahead of UTC in winter, two in summer.
            (&["02:00-04:00"], "2026-11-22T12:00:00Z", "2026-11-23T01:00Z"),
            (&["02:00-04:00"], "2026-07-01T12:00:00Z", "2026-07-02T00:00Z"),
            // 02:00 does not exist on this night; it is 03:00 then.
            (&["02:00-04:00"], "2026-03-28T12:00:00Z", "2026-03-29T01:00Z"),
            // Nothing is left of this one, so it is the next night's.
            (&["02:00-03:00"], "2026-03-28T12:00:00Z", "2026-03-30T00:00Z"),
            // 02:30 comes twice: it opens at the first and lasts over both.
            (&["02:30-04:00"], "2026-10-24T12:00:00Z", "2026-10-25T00:30Z"),
            (&["02:30-04:00"], "2026-10-25T02:59:00Z", "2026-10-25T02:59Z"),
            (&["02:30-04:00"], "2026-10-25T03:00:00Z", "2026-10-26T01:30Z"),
            // The one of the next week is left out, so it is that of the week after.
            (&["Sun 02:00-03:00"], "2026-03-22T02:00:00Z", "2026-04-05T00:00Z"),
        ] {
            assert_eq!(next_in(windows, from, &berlin), expected, "{windows:?} from {from}");
        }
        let ahead = tz::TimeZone::fixed(tz::offset(14));
        assert_eq!(next_in(&["Mon 00:00-01:00"], "2026-11-22T09:00:00Z", &ahead), "2026-11-22T10:00Z");
    }

    #[test]
    fn what_is_no_window() {
        for text in [
            "",
            "Mon",
            "02:00",
            "2:00-4:00",
            "02:00-02:00",
            "24:00-01:00",
            "02:00-24:01",
            "02:60-04:00",
            "Mon..Fry 02:00-04:00",
            "Mon,,Tue 02:00-04:00",
            "Mon - Fri 02:00-04:00",
            "Mo 02:00-04:00",
            "02:00-04:00 Mon",
            "-1:00-04:00",
        ] {
            let error = text.parse::<Window>().unwrap_err();
            assert!(error.to_string().contains("Mon..Fri 02:00-04:00"), "{text}: {error}");
        }
        assert_eq!("Mon..Fri 02:00-04:00".parse::<Window>().unwrap().to_string(), "Mon..Fri 02:00-04:00");
    }
}
