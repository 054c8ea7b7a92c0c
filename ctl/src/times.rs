//! Instants as people read them.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// Units of time in seconds, the largest first.
const UNITS: [(i64, &str); 4] = [(86400, "d"), (3600, "h"), (60, "min"), (1, "s")];

/// How the hub's instant begins where nothing has happened yet.
const NEVER: &str = "0001-01-01T00:00:00";

/// A function that shows an instant of RFC 3339 in the local time, and how long
/// ago it is. Text that is no instant stays as it is.
pub fn local() -> impl Fn(&str) -> String {
    let (now, zone) = (Timestamp::now(), TimeZone::system());
    move |text| for_people(text, now, &zone)
}

/// A function that shows how long ago an instant of RFC 3339 is, or how far ahead.
/// Text that is no instant stays as it is.
pub fn ago() -> impl Fn(&str) -> String {
    let now = Timestamp::now();
    move |text| match text.parse::<Timestamp>() {
        _ if text.starts_with(NEVER) => "never".to_owned(),
        Ok(at) => distance(now.duration_since(at)),
        Err(_) => text.to_owned(),
    }
}

/// `text` as [`local`] shows it, at the instant `now` and in the time zone
/// `zone`.
fn for_people(text: &str, now: Timestamp, zone: &TimeZone) -> String {
    if text.starts_with(NEVER) {
        return "never".to_owned();
    }
    let Ok(at) = text.parse::<Timestamp>() else { return text.to_owned() };
    let local = at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string();
    format!("{local} ({})", distance(now.duration_since(at)))
}

/// How long ago something was, in the largest unit of which that is at least
/// one; negative lies in the future.
fn distance(past: SignedDuration) -> String {
    let seconds = past.as_secs();
    let (size, unit) = UNITS.into_iter().find(|(size, _)| seconds.abs() >= *size).unwrap_or((1, "s"));
    let count = seconds.abs() / size;
    if seconds < 0 { format!("in {count} {unit}") } else { format!("{count} {unit} ago") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_the_zone_and_from_now() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let now = "2026-11-22T12:00:00Z".parse().unwrap();
        for (text, shown) in [
            ("2026-11-22T11:59:59.139Z", "2026-11-22 12:59:59 CET (0 s ago)"),
            ("2026-11-22T11:58:01Z", "2026-11-22 12:58:01 CET (1 min ago)"),
            ("2026-11-22T08:00:00+01:00", "2026-11-22 08:00:00 CET (5 h ago)"),
            ("2026-07-01T00:00:00.000Z", "2026-07-01 02:00:00 CEST (144 d ago)"),
            ("2026-11-22T12:02:30Z", "2026-11-22 13:02:30 CET (in 2 min)"),
            ("0001-01-01T00:00:00Z", "never"),
            ("-", "-"),
            ("2026", "2026"),
        ] {
            assert_eq!(for_people(text, now, &zone), shown);
        }
    }
}
