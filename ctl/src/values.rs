//! Parsers of what is given to options: durations, ids, and JSON given directly,
//! in a file or on stdin. The limits that a device sets come from
//! [`iotdm_proto::request`].

use std::fs;
use std::io::{self, Read};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum as _;
use clap::builder::{PathBufValueParser, PossibleValue, PossibleValuesParser, TypedValueParser};
use clap_complete::Shell;
use iotdm_proto::names::NameError;
use iotdm_proto::request::MAX_AHEAD;
use iotdm_proto::request::OnPreflight;
use iotdm_proto::{DeviceId, ModuleId, OnInhibitor};
use serde_json::Value;

use crate::error::Usage;
use crate::text_file::surrounded_by;

/// JSON that is given as `JSON`, `@FILE` or `-` for stdin. It is parsed when the
/// command line is, so that nothing is sent before all of the command line is
/// known to be good.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonArg(pub Value);

impl FromStr for JsonArg {
    type Err = Usage;

    fn from_str(text: &str) -> Result<Self, Usage> {
        let (source, json) = if text == "-" {
            ("stdin".to_owned(), text_of(io::stdin().lock(), "stdin")?)
        } else if let Some(path) = text.strip_prefix('@') {
            let file = fs::File::open(path).map_err(|error| Usage(format!("{path}: {error}")))?;
            (path.to_owned(), text_of(file, path)?)
        } else {
            ("the value".to_owned(), text.to_owned())
        };
        serde_json::from_str(&json).map(JsonArg).map_err(|error| {
            if let Some(what) = surrounded_by(&json) {
                return Usage(format!("{source} is not JSON: {what}"));
            }
            Usage(format!(
                "{source} is not JSON ({error}); give JSON such as '{{\"key\":1}}', @FILE, or - for stdin"
            ))
        })
    }
}

/// `--module`: the name of a module; an empty one is the device itself, in place of the
/// module that the profile names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleArg(pub Option<ModuleId>);

impl FromStr for ModuleArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Ok(ModuleArg(None)),
            name => module_id(name).map(|name| ModuleArg(Some(name))),
        }
    }
}

/// All of a text in UTF-8; `source` is what it is read from.
fn text_of(mut from: impl Read, source: &str) -> Result<String, Usage> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).map_err(|error| Usage(format!("{source}: {error}")))?;
    String::from_utf8(bytes).map_err(|_| Usage(format!("{source} is not UTF-8; save it as UTF-8")))
}

/// A JSON object, given in the ways of [`JsonArg`].
pub fn json_object(text: &str) -> Result<Value, Usage> {
    match text.parse::<JsonArg>()?.0 {
        object @ Value::Object(_) => Ok(object),
        Value::String(text) if serde_json::from_str::<serde_json::Map<_, Value>>(&text).is_ok() => {
            Err(Usage("quotes stand around the JSON object: leave them out".into()))
        }
        _ => Err(Usage("expected a JSON object such as '{\"key\":1}'".into())),
    }
}

/// One hour, for durations in errors.
const HOUR: Duration = Duration::from_secs(3600);

/// The longest duration that is taken: a year. Nobody means to wait longer, and
/// an instant so far ahead can still be computed.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// The delay of a reboot: whole seconds, which is what devices are told, and as
/// far ahead as they take.
pub fn delay(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        delay if delay > MAX_AHEAD => {
            let hours = MAX_AHEAD.as_secs() / HOUR.as_secs();
            Err(format!("at most {hours}h, {} days, is allowed", hours / 24))
        }
        delay if delay.subsec_nanos() != 0 => Err("only whole seconds are allowed".into()),
        delay => Ok(delay),
    }
}

/// A duration up to a year, such as `5s`, `10m` or `1h30m`; a bare number is in
/// seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let parsed = match text.parse::<u64>() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => text.parse::<jiff::SignedDuration>().ok().and_then(|parsed| parsed.try_into().ok()),
    };
    match parsed {
        Some(duration) if duration <= LONGEST => Ok(duration),
        Some(_) => Err("at most 8760h, a year, is allowed".into()),
        None => Err("expected a duration such as 5s, 10m or 1h".into()),
    }
}

/// A duration that is not zero, such as the pause between two polls.
pub fn interval(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("it has to be longer than nothing, such as 5s".into()),
        pause => Ok(pause),
    }
}

/// How long the hub can wait for a device's reply, in seconds.
///
/// Source: IoT Hub developer guide, "Understand and invoke direct methods".
const RESPONSE_SECONDS: RangeInclusive<u64> = 5..=300;

/// How long the hub can wait for a device to connect, in seconds. Source: the
/// same guide.
const CONNECT_SECONDS: RangeInclusive<u64> = 0..=300;

/// How long the hub waits for a device's reply: whole seconds, 5 s to 300 s.
pub fn response_timeout(text: &str) -> Result<Duration, String> {
    whole_seconds(text, RESPONSE_SECONDS)
}

/// How long the hub waits for a device to connect: whole seconds, 0 s to 300 s.
pub fn connect_timeout(text: &str) -> Result<Duration, String> {
    whole_seconds(text, CONNECT_SECONDS)
}

fn whole_seconds(text: &str, limits: RangeInclusive<u64>) -> Result<Duration, String> {
    let whole = duration(text)?;
    if limits.contains(&whole.as_secs()) && whole.subsec_nanos() == 0 {
        Ok(whole)
    } else {
        Err(format!("IoT Hub takes whole seconds from {} to {}", limits.start(), limits.end()))
    }
}

/// The thumbprint of a certificate: SHA-256 or SHA-1 in hex, with or without
/// colons. The result is in upper case and without colons, as the portal shows
/// it.
pub fn thumbprint(text: &str) -> Result<String, String> {
    let bare: String = text.chars().filter(|c| *c != ':').collect();
    if matches!(bare.len(), 40 | 64) && bare.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(bare.to_ascii_uppercase())
    } else {
        Err("expected a thumbprint: 64 hex digits of SHA-256, or 40 of SHA-1".into())
    }
}

/// A registration id of DPS: 1 to 128 characters of letters, digits and `-._:`.
///
/// Source: DPS, "Registration ID". Upper case is kept: the service does not tell
/// it from lower case, but the key that is derived from the id differs.
pub fn registration_id(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._:".contains(&b);
    if (1..=128).contains(&text.len()) && text.bytes().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err("expected 1 to 128 characters of letters, digits and - . _ :".into())
    }
}

/// How many: a whole number from 0.
pub fn count(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "expected a whole number".to_owned())
}

/// How many: a whole number from 1.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected a whole number from 1".into()),
        Ok(count) => Ok(count),
    }
}

/// How many devices may fail before a run starts no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxFailures {
    /// So many.
    AtMost(usize),
    /// Any number.
    All,
}

impl FromStr for MaxFailures {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(MaxFailures::All),
            _ => text
                .parse()
                .map(MaxFailures::AtMost)
                .map_err(|_| "expected a whole number, or all".to_owned()),
        }
    }
}

/// A place in a device's twin, such as `tags.site`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwinPath(Vec<String>);

impl FromStr for TwinPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let steps: Vec<String> = text.split('.').map(str::to_owned).collect();
        let is_name = |step: &String| {
            !step.is_empty() && step.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'))
        };
        if steps.iter().all(is_name) {
            Ok(TwinPath(steps))
        } else {
            Err("expected a path in the twin, such as tags.site or properties.reported.boot.cause".into())
        }
    }
}

impl TwinPath {
    /// The key of the twin that the path begins with.
    pub fn top(&self) -> &str {
        self.0.first().map_or("", String::as_str)
    }

    /// What the twin has at this place; `None` for nothing and for `null`.
    pub fn of<'a>(&self, twin: &'a Value) -> Option<&'a Value> {
        let found = self.0.iter().try_fold(twin, |value, step| value.get(step))?;
        (!found.is_null()).then_some(found)
    }
}

/// How many in a second: a whole number from 1 to 100,000, which is more than
/// any hub takes.
pub fn rate(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(rate @ 1..=100_000) => Ok(rate),
        _ => Err("expected a whole number from 1 to 100000".into()),
    }
}

/// The id of one of the hub's jobs: 1 to 128 characters of `a-z`, `0-9`, `-` and
/// `'`. The hub refuses a job with any other, upper case included.
pub fn job_id(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-'".contains(&b);
    if (1..=128).contains(&text.len()) && text.bytes().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err("the id of a job has 1 to 128 characters of a-z, 0-9, - and '".into())
    }
}

/// The name of one of the hub's configurations: 1 to 128 characters of `a-z`, `0-9` and
/// `-+%_*!`, so that it can stand in `[[…]]` of a query. The portal asks for the same.
///
/// Source: "Automatic device and module management".
pub fn configuration(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-+%_*!".contains(&b);
    if (1..=128).contains(&text.len()) && text.bytes().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err("the name of a configuration has 1 to 128 characters of a-z, 0-9 and - + % _ * !".into())
    }
}

/// The name of a configuration that may be another tool's, and that can stand in a URL.
/// Whether there is one of that name is for the hub to say.
pub fn any_configuration(text: &str) -> Result<String, String> {
    if matches!(text, "" | "." | "..") || text.chars().any(char::is_control) {
        return Err("such a configuration cannot be named in a URL".into());
    }
    Ok(text.to_owned())
}

/// A device id that can stand in a URL.
pub fn device_id(text: &str) -> Result<DeviceId, String> {
    in_a_url(text, "device")
}

/// A module id that can stand in a URL.
pub fn module_id(text: &str) -> Result<ModuleId, String> {
    in_a_url(text, "module")
}

fn in_a_url<T: FromStr<Err = NameError>>(text: &str, what: &str) -> Result<T, String> {
    // As segments of a path these two mean this folder and the one above. HTTP
    // clients resolve them before anything is sent, percent-encoded or not.
    if matches!(text, "." | "..") {
        return Err(format!("such a {what} cannot be named in a URL"));
    }
    text.parse().map_err(|error: NameError| error.to_string())
}

/// The id of a device that is to be created. Ids with which no device could connect
/// are refused, though the hub takes them.
pub fn new_device_id(text: &str) -> Result<DeviceId, String> {
    let id = device_id(text)?;
    can_connect(text, "device").map(|()| id)
}

/// Refuses an id with which no `what`, a device or a module, could connect.
pub fn can_connect(text: &str, what: &str) -> Result<(), String> {
    let why = match text.chars().find(|c| ";#+".contains(*c)) {
        Some(';') => "a ; ends a part of a connection string",
        Some(_) => "# and + are wildcards in the topics of MQTT",
        None => return Ok(()),
    };
    Err(format!("a {what} called {text} could never connect: {why}"))
}

/// The shells that can be completed for: those with which it is tested.
pub const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// A shell that can be completed for.
pub fn shell() -> impl TypedValueParser<Value = Shell> {
    let words = SHELLS.into_iter().filter_map(|shell| shell.to_possible_value());
    PossibleValuesParser::new(words).try_map(|word| word.parse::<Shell>())
}

/// A file to write a secret to, which standard output is not.
pub fn out_file() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| match path.to_str() {
        Some("-") => {
            Err("it takes a file, which only you can read; device connection-string without --out prints to stdout")
        }
        _ => Ok(path),
    })
}

/// What a device is to do when a program inhibits shutdown. The help text shows
/// each word with its meaning.
pub fn on_inhibitor() -> impl TypedValueParser<Value = OnInhibitor> {
    let meaning = |word: &OnInhibitor| match word {
        OnInhibitor::Fail => "Refuse, or fail when the time has come",
        OnInhibitor::Wait => "Reboot once it is released",
        OnInhibitor::Override => "Reboot all the same; the device has to allow it",
    };
    let words =
        OnInhibitor::ALL.iter().map(move |word| PossibleValue::new(word.as_str()).help(meaning(word)));
    PossibleValuesParser::new(words).try_map(|word| word.parse())
}

/// What to do about preflight checks that object, each word with its meaning.
pub fn on_preflight() -> impl TypedValueParser<Value = OnPreflight> {
    let meaning = |word: &OnPreflight| match word {
        OnPreflight::Fail => "Refuse, or fail when the time has come",
        OnPreflight::Wait => "Reboot once none objects any more",
        OnPreflight::Override => "Reboot all the same; the device has to allow it",
    };
    let words =
        OnPreflight::ALL.iter().map(move |word| PossibleValue::new(word.as_str()).help(meaning(word)));
    PossibleValuesParser::new(words).try_map(|word| word.parse())
}

/// An etag as a twin shows it, with or without quotes around it. The result has
/// none.
pub fn etag(text: &str) -> Result<String, String> {
    let bare = text.trim_matches('"');
    if !bare.is_empty() && bare.bytes().all(|b| b.is_ascii_graphic() && b != b'"') {
        Ok(bare.to_owned())
    } else {
        Err("expected the etag of a twin, such as AAAAAAAAAAM=".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("5s", 5_000),
            ("10m", 600_000),
            ("1h", 3_600_000),
            ("1h30m", 5_400_000),
            ("60", 60_000),
            ("200ms", 200),
            ("0", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "-5s", "5 parsecs", "soon", "8761h", "99999999999999999999"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_hubs_limits_of_timeouts() {
        assert!(response_timeout("5").is_ok() && response_timeout("5m").is_ok());
        for text in ["4", "301", "5500ms"] {
            assert!(response_timeout(text).is_err(), "{text}");
        }
        assert!(connect_timeout("0").is_ok() && connect_timeout("301").is_err());
    }

    #[test]
    fn json_directly_or_from_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.json");
        fs::write(&path, "{\"a\": [1]}\n").unwrap();
        let argument = format!("@{}", path.display());
        assert_eq!(argument.parse::<JsonArg>().unwrap().0, serde_json::json!({"a": [1]}));
        assert_eq!("\"x\"".parse::<JsonArg>().unwrap().0, Value::from("x"));
        fs::write(&path, "{").unwrap();
        let error = argument.parse::<JsonArg>().unwrap_err().to_string();
        assert!(error.contains("x.json is not JSON"), "{error}");
        let error = "@/nonexistent".parse::<JsonArg>().unwrap_err().to_string();
        assert!(error.contains("/nonexistent: No such file"), "{error}");
        assert!(json_object("[1]").is_err() && json_object("{}").is_ok());
    }

    #[test]
    fn etags_fit_a_header() {
        assert_eq!(etag("\"AAA=\""), Ok("AAA=".into()));
        for bad in ["", "\"\"", "a\"b", "a\nb", "ä"] {
            assert!(etag(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_devices_limit_of_delays() {
        let longest = MAX_AHEAD.as_secs();
        assert_eq!(delay(&longest.to_string()), Ok(MAX_AHEAD));
        assert_eq!(delay(&(longest + 1).to_string()), Err("at most 168h, 7 days, is allowed".into()));
        assert!(delay("1500ms").is_err());
    }

    #[test]
    fn paths_in_a_twin() {
        let path = |text: &str| text.parse::<TwinPath>();
        let twin = serde_json::json!({"deviceId": "gw1", "tags": {"site": {"name": 5}, "none": null}});
        assert_eq!(path("tags.site.name").unwrap().of(&twin), Some(&Value::from(5)));
        assert_eq!(path("deviceId").unwrap().of(&twin), Some(&Value::from("gw1")));
        assert_eq!(path("tags.none").unwrap().of(&twin), None);
        assert_eq!(path("tags.site.name.x").unwrap().of(&twin), None);
        assert_eq!(path("tags.site").unwrap().top(), "tags");
        for bad in ["", ".", "tags.", "tags site", "tags'x", "tags.site FROM devices"] {
            assert!(path(bad).is_err(), "{bad}");
        }
        assert_eq!("all".parse(), Ok(MaxFailures::All));
        assert_eq!("0".parse(), Ok(MaxFailures::AtMost(0)));
        assert!("some".parse::<MaxFailures>().is_err() && "-1".parse::<MaxFailures>().is_err());
    }

    #[test]
    fn ids_and_thumbprints() {
        assert!(registration_id("sn-007-a1.b_c").is_ok() && registration_id("a b").is_err());
        assert_eq!(thumbprint(&"ab:".repeat(20)), Ok("AB".repeat(20)));
        assert!(thumbprint(&"AB".repeat(32)).is_ok() && thumbprint(&"ABC".repeat(16)).is_err());
        assert!(device_id("..").is_err() && device_id("a/b").is_err() && device_id("a.b").is_ok());
    }
}
