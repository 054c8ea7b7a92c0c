//! Maintenance windows: the weekly spans of local time in which the machine
//! may be rebooted, and this machine's turn in them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

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

/// How much of its windows a machine makes use of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// How long before a window's end nothing begins any more.
    pub reserve: Duration,
    /// Over how much of a window, from its opening, the machines begin that have
    /// waited for it.
    pub spread: Duration,
    /// Which of these machines this one is ([`super::spread::number`]).
    pub number: u64,
}

/// The text is not a window.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a window such as \"Mon..Fri 02:00-04:00\" or \"Sat,Sun 22:00-06:00\"")]
pub struct WindowError(String);

const MINUTES_A_DAY: i16 = 24 * 60;

/// A window that daylight saving time leaves out once comes again within this
/// time.
const DAYS_AHEAD: i64 = 15;
/// A window that is open now has opened within this time, or the one that it
/// follows without a gap has.
const DAYS_BACK: i64 = 8;

/// However long the reserve, a window can be used for so long from its opening, or
/// for its first half if it is shorter than twice that: else nothing could ever
/// begin in a window that is not longer than the reserve.
pub const LEAST_USE: Duration = Duration::from_secs(60);

/// How long it may take from a request's turn until logind is asked: no machine's
/// turn is later than so long before the last instant, or that machine would be too
/// late for it, each time.
const PREPARATION: Duration = Duration::from_secs(20);

/// A span of time in which the machine may be rebooted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    opens: Time,
    closes: Time,
}

/// The first instant, not before `from`, at which a reboot may begin that could have
/// begun at `since` but for the windows: `from` itself where there are no `windows`.
///
/// Windows that overlap or meet are one. A start or end that daylight saving time
/// skips is moved on by what is skipped; of two that it repeats, the earlier counts.
pub fn next(windows: &[Window], turn: Turn, since: Time, from: Time, zone: &TimeZone) -> Time {
    let usable = spans(windows, from, zone).into_iter().find(|span| span.last(turn) >= from);
    match usable {
        None => from,
        // It has not waited for the window to open.
        Some(span) if since.min(from) >= span.opens => from,
        Some(span) => span.opens.after(span.offset(turn)).max(from),
    }
}

/// The last instant at which a reboot may begin in the window that is open at `now`,
/// if one is.
pub fn last(windows: &[Window], turn: Turn, now: Time, zone: &TimeZone) -> Option<Time> {
    let open = spans(windows, now, zone).into_iter().find(|span| span.opens <= now && now < span.closes);
    open.map(|span| span.last(turn))
}

/// The spans around `from`, in their order, with gaps between them.
fn spans(windows: &[Window], from: Time, zone: &TimeZone) -> Vec<Span> {
    let today = timestamp(from).to_zoned(zone.clone()).date();
    let days = (-DAYS_BACK..DAYS_AHEAD).filter_map(|day| today.checked_add(day.days()).ok());
    let mut all: Vec<Span> =
        days.flat_map(|date| windows.iter().filter_map(move |window| window.on(date, zone))).collect();
    all.sort_unstable_by_key(|span| span.opens);
    let mut merged: Vec<Span> = Vec::new();
    for span in all {
        match merged.last_mut() {
            Some(before) if span.opens <= before.closes => before.closes = before.closes.max(span.closes),
            _ => merged.push(span),
        }
    }
    merged
}

impl Span {
    /// For how long it can be used.
    fn usable(self, turn: Turn) -> Duration {
        let length = self.closes.since(self.opens);
        length.saturating_sub(turn.reserve).max(LEAST_USE.min(length / 2))
    }

    /// The last instant at which a reboot may begin.
    fn last(self, turn: Turn) -> Time {
        let end = self.closes.before(Duration::from_millis(1));
        self.opens.after(self.usable(turn)).min(end)
    }

    /// How long after its opening it is this machine's turn.
    fn offset(self, turn: Turn) -> Duration {
        let places = turn.spread.min(self.usable(turn).saturating_sub(PREPARATION)).as_millis();
        let offset = u128::from(turn.number).checked_rem(places).unwrap_or(0);
        Duration::from_millis(u64::try_from(offset).unwrap_or(0))
    }
}

impl Window {
    /// How long it is open, but for daylight saving time.
    pub fn length(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.last() - self.from).unwrap_or(0) * 60)
    }

    /// The minute of its end, from the beginning of the day on which it opens.
    fn last(&self) -> i16 {
        if self.to <= self.from { self.to + MINUTES_A_DAY } else { self.to }
    }

    /// When it opens and closes on `date`, if it opens that day.
    fn on(&self, date: Date, zone: &TimeZone) -> Option<Span> {
        if !self.days.contains(&date.weekday()) {
            return None;
        }
        let span = Span { opens: instant(date, self.from, zone)?, closes: instant(date, self.last(), zone)? };
        (span.closes > span.opens).then_some(span)
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
        turn_in(windows, WHOLE, (from, from), zone)
    }

    /// The whole window is used, and all begin at once.
    const WHOLE: Turn = Turn { reserve: Duration::ZERO, spread: Duration::ZERO, number: 0 };
    /// 17 minutes after the opening, where there is room for the spread.
    const DEFAULT: Turn = Turn {
        reserve: Duration::from_secs(600),
        spread: Duration::from_secs(1800),
        number: (1800 * 1000) * 5 + 17 * 60_000,
    };

    fn turn_in(windows: &[&str], turn: Turn, (since, from): (&str, &str), zone: &TimeZone) -> String {
        let windows: Vec<Window> = windows.iter().map(|text| text.parse().unwrap()).collect();
        let next = next(&windows, turn, since.parse().unwrap(), from.parse().unwrap(), zone);
        next.to_string().replace(":00.000Z", "Z")
    }

    #[test]
    fn who_waited_for_a_window_has_a_turn_and_nothing_begins_in_its_reserve() {
        // 2026-11-22 is a Sunday.
        for (windows, since, from, expected) in [
            (&["Mon 02:00-04:00"][..], "2026-11-22T12:00:00Z", "2026-11-22T12:00:00Z", "2026-11-23T02:17Z"),
            // The daemon has started anew, or the clock was set, before its turn and after.
            (&["Mon 02:00-04:00"], "2026-11-22T12:00:00Z", "2026-11-23T02:05:00Z", "2026-11-23T02:17Z"),
            (&["Mon 02:00-04:00"], "2026-11-22T12:00:00Z", "2026-11-23T02:20:00Z", "2026-11-23T02:20Z"),
            // It was made for then, so it has not waited for the window to open.
            (&["Mon 02:00-04:00"], "2026-11-23T02:00:00Z", "2026-11-23T02:00:00Z", "2026-11-23T02:00Z"),
            (&["Mon 02:00-04:00"], "2026-11-23T03:50:00Z", "2026-11-23T03:50:00Z", "2026-11-23T03:50Z"),
            // Too late for this one.
            (&["Mon 02:00-04:00"], "2026-11-23T03:51:00Z", "2026-11-23T03:51:00Z", "2026-11-30T02:17Z"),
            (&["Mon 02:00-04:00"], "2026-11-23T02:00:00Z", "2026-11-23T03:51:00Z", "2026-11-30T02:17Z"),
            // Windows that meet or overlap are one, also at midnight.
            (
                &["22:00-24:00", "00:00-02:00"],
                "2026-11-22T12:00:00Z",
                "2026-11-22T23:55:00Z",
                "2026-11-22T23:55Z",
            ),
            (
                &["22:00-24:00", "00:00-02:00"],
                "2026-11-22T23:55:00Z",
                "2026-11-23T01:51:00Z",
                "2026-11-23T22:17Z",
            ),
            (
                &["22:00-01:00", "00:30-02:00"],
                "2026-11-22T12:00:00Z",
                "2026-11-23T00:55:00Z",
                "2026-11-23T00:55Z",
            ),
            (&["22:00-06:00"], "2026-11-22T21:00:00Z", "2026-11-22T21:00:00Z", "2026-11-22T22:17Z"),
            (&["22:00-06:00"], "2026-11-23T00:10:00Z", "2026-11-23T00:10:00Z", "2026-11-23T00:10Z"),
            // One without an end has neither turns nor a reserve.
            (&["00:00-24:00"], "2026-11-22T23:59:00Z", "2026-11-22T23:59:00Z", "2026-11-22T23:59Z"),
        ] {
            let found = turn_in(windows, DEFAULT, (since, from), &TimeZone::UTC);
            assert_eq!(found, expected, "{windows:?} since {since} from {from}");
        }
    }

    #[test]
    fn a_window_is_of_use_however_short_it_is() {
        let hour: Time = "2026-11-23T02:00:00Z".parse().unwrap();
        for (window, reserve, usable) in [
            ("02:00-04:00", 600, 110 * 60_000),
            ("02:00-02:12", 600, 120_000),
            ("02:00-02:10", 600, 60_000),
            ("02:00-02:05", 600, 60_000),
            ("02:00-02:01", 600, 30_000),
            // Its end is not in it.
            ("02:00-02:01", 0, 60_000 - 1),
        ] {
            let windows = [window.parse::<Window>().unwrap()];
            let turn = Turn { reserve: Duration::from_secs(reserve), number: u64::MAX, ..DEFAULT };
            let last = last(&windows, turn, hour, &TimeZone::UTC).unwrap();
            assert_eq!(last, hour.after(Duration::from_millis(usable)), "{window}");
            // Whose turn it is last has time to begin.
            for number in (0..1_800_000).step_by(9973) {
                let turn = Turn { number, ..turn };
                let next = next(&windows, turn, hour.before(Duration::from_secs(60)), hour, &TimeZone::UTC);
                let latest = last.before(PREPARATION.min(last.since(hour) / 2));
                assert!(next >= hour && next <= latest, "{window}: {next}");
            }
        }
        assert_eq!(
            last(
                &["02:00-04:00".parse().unwrap()],
                DEFAULT,
                hour.before(Duration::from_millis(1)),
                &TimeZone::UTC
            ),
            None
        );
    }

    #[test]
    fn a_window_has_closed_at_its_end() {
        let windows = ["02:00-04:00".parse().unwrap()];
        let open = |at: &str| last(&windows, WHOLE, at.parse().unwrap(), &TimeZone::UTC).is_some();
        assert!(open("2026-11-23T02:00:00Z") && open("2026-11-23T03:59:59.999Z"));
        assert!(!open("2026-11-23T01:59:59.999Z") && !open("2026-11-23T04:00:00Z"));
    }

    #[test]
    fn a_window_is_as_long_as_it_says_also_over_midnight() {
        for (window, minutes) in
            [("02:00-04:30", 150), ("Sun 22:00-06:00", 480), ("00:00-24:00", 1440), ("00:01-00:02", 1)]
        {
            let length = window.parse::<Window>().unwrap().length();
            assert_eq!(length, Duration::from_secs(minutes * 60), "{window}");
        }
    }

    #[test]
    fn turns_in_nights_in_which_the_clocks_change() {
        let before = ("2026-10-24T12:00:00Z", "2026-10-24T12:00:00Z");
        // 02:30 comes twice, so that the window is an hour longer.
        assert_eq!(turn_in(&["02:30-03:00"], DEFAULT, before, &berlin()), "2026-10-25T00:47Z");
        let spring = ("2026-03-28T12:00:00Z", "2026-03-28T12:00:00Z");
        assert_eq!(turn_in(&["01:30-03:10"], DEFAULT, spring, &berlin()), "2026-03-29T00:48:40.000Z");
        // 02:00 to 03:00 do not exist, and ten minutes are left.
        let turn = turn_in(&["02:00-03:10"], DEFAULT, spring, &berlin());
        assert!(turn.starts_with("2026-03-29T01:00:"), "{turn}");
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
