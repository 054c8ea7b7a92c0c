//! The payloads of the direct methods: read strictly, answered by name.

use std::time::Duration;

use iotdm_proto::Time;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What an operator asks for with `rebootDevice`, or wishes for in the twin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RebootRequest {
    /// The operator's id; without one the daemon makes one up.
    pub id: Option<String>,
    /// Why, at most 200 characters.
    pub reason: Option<String>,
    /// Not before this instant; without one, now. Of a call up to 7 days
    /// ahead.
    pub not_before: Option<Time>,
    /// That instant was given as a delay, so it moves along when the clock is
    /// set.
    pub delayed: bool,
    /// Not after this instant. Only a wish has one.
    pub deadline: Option<Time>,
    /// What to do about block inhibitors.
    pub on_inhibitor: OnInhibitor,
    /// How long [`OnInhibitor::Wait`] waits: 1 s to a day.
    pub wait: Duration,
    /// Only say what would happen.
    pub check: bool,
    /// Keys that the daemon does not know, as far as they are repeated back.
    pub ignored: Vec<String>,
}

/// What to do when somebody holds a block inhibitor for shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnInhibitor {
    /// Not reboot.
    Fail,
    /// Reboot when it is released.
    Wait,
    /// Reboot all the same, if the device's own configuration allows that.
    Override,
}

/// The payload cannot be taken as it is.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidPayload(String);

const MAX_ID: usize = 128;
const MAX_REASON: usize = 200;
/// 7 days, for `delaySeconds` and `at`.
const MAX_AHEAD: u64 = 7 * 24 * 60 * 60;
const MAX_WAIT: u64 = 24 * 60 * 60;
const DEFAULT_WAIT: Duration = Duration::from_secs(60 * 60);
/// A payload may have thousands of keys; a reply that repeats them all would
/// help nobody.
const MAX_IGNORED: usize = 32;

impl Default for RebootRequest {
    fn default() -> Self {
        RebootRequest {
            id: None,
            reason: None,
            not_before: None,
            delayed: false,
            deadline: None,
            on_inhibitor: OnInhibitor::Fail,
            wait: DEFAULT_WAIT,
            check: false,
            ignored: Vec::new(),
        }
    }
}

impl RebootRequest {
    /// Reads the payload of `rebootDevice` as it is meant at the instant
    /// `now`: absent, `null`, `""` or an object.
    pub fn parse(payload: &[u8], now: Time) -> Result<Self, InvalidPayload> {
        let mut request = Self::default();
        let (mut delay, mut at) = (None, None);
        for (key, value) in object(payload)? {
            match key.as_str() {
                "check" => {
                    request.check = value.as_bool().ok_or_else(|| wrong("check", "true or false", &value))?
                }
                "delaySeconds" => delay = Some(seconds(&key, &value, 0, MAX_AHEAD)?),
                "at" => at = Some(soon(&key, &value, now)?),
                _ if request.take(&key, &value)? => {}
                _ if request.ignored.len() < MAX_IGNORED => {
                    request.ignored.push(key.chars().take(64).collect());
                }
                _ => {}
            }
        }
        request.delayed = delay.is_some();
        request.not_before = match (delay, at) {
            (Some(_), Some(_)) => {
                return Err(InvalidPayload("at: cannot be given with delaySeconds".to_owned()));
            }
            (Some(delay), None) if delay.is_zero() => None,
            (Some(delay), None) => Some(now.after(delay)),
            (None, at) => at,
        };
        Ok(request)
    }

    /// Reads `properties.desired.reboot`. What it does not know it leaves to
    /// others.
    pub fn wished(value: &Value) -> Result<Self, InvalidPayload> {
        let object = value.as_object().ok_or_else(|| wrong("reboot", "an object", value))?;
        let mut request = Self::default();
        for (key, value) in object {
            match key.as_str() {
                "notBefore" => request.not_before = Some(instant(key, value)?),
                "deadline" => request.deadline = Some(instant(key, value)?),
                _ => _ = request.take(key, value)?,
            }
        }
        if request.id.is_none() {
            return Err(InvalidPayload("id: must be given".to_owned()));
        }
        if request.deadline.is_some() && request.deadline <= request.not_before {
            return Err(InvalidPayload("deadline: must be after notBefore".to_owned()));
        }
        Ok(request)
    }

    /// Takes what calls and wishes have in common; `false` for another key.
    fn take(&mut self, key: &str, value: &Value) -> Result<bool, InvalidPayload> {
        match key {
            "id" => self.id = Some(id(value)?),
            "reason" => self.reason = Some(reason(value)?),
            "waitSeconds" => self.wait = seconds(key, value, 1, MAX_WAIT)?,
            "onInhibitor" => {
                self.on_inhibitor = OnInhibitor::deserialize(value)
                    .map_err(|_| wrong("onInhibitor", "\"fail\", \"wait\" or \"override\"", value))?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// The id of a wish, also of one that is wrong in other respects.
pub fn id_of_wish(value: &Value) -> Option<String> {
    value.get("id").and_then(|value| id(value).ok())
}

/// Reads the payload of `cancelReboot`: which id is to be cancelled, or
/// whichever is pending.
pub fn parse_cancel(payload: &[u8]) -> Result<Option<String>, InvalidPayload> {
    object(payload)?.get("id").map(id).transpose()
}

/// The payload as an object; nothing at all is an empty one.
fn object(payload: &[u8]) -> Result<Map<String, Value>, InvalidPayload> {
    if payload.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_slice(payload) {
        Ok(Value::Null) => Ok(Map::new()),
        Ok(Value::String(text)) if text.is_empty() => Ok(Map::new()),
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(wrong("the payload", "an object", &other)),
        Err(error) => Err(InvalidPayload(format!("the payload is not JSON: {error}"))),
    }
}

fn seconds(key: &str, value: &Value, least: u64, most: u64) -> Result<Duration, InvalidPayload> {
    match value.as_u64() {
        Some(seconds) if (least..=most).contains(&seconds) => Ok(Duration::from_secs(seconds)),
        _ => Err(wrong(key, &format!("a whole number from {least} to {most}"), value)),
    }
}

fn instant(key: &str, value: &Value) -> Result<Time, InvalidPayload> {
    let time = value.as_str().and_then(|text| text.parse().ok());
    time.ok_or_else(|| wrong(key, "an RFC 3339 time", value))
}

fn soon(key: &str, value: &Value, now: Time) -> Result<Time, InvalidPayload> {
    let expected = "an RFC 3339 time within the next 7 days";
    let time = instant(key, value).map_err(|_| wrong(key, expected, value))?;
    if time < now || time > now.after(Duration::from_secs(MAX_AHEAD)) {
        return Err(InvalidPayload(format!("{key}: must be {expected}; here it is {now}")));
    }
    Ok(time)
}

fn id(value: &Value) -> Result<String, InvalidPayload> {
    let Value::String(id) = value else { return Err(wrong("id", "a string", value)) };
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
    if id.is_empty() || id.len() > MAX_ID || !id.bytes().all(allowed) {
        return Err(InvalidPayload("id: must have 1 to 128 characters of A-Z a-z 0-9 . _ : -".to_owned()));
    }
    Ok(id.clone())
}

fn reason(value: &Value) -> Result<String, InvalidPayload> {
    let Value::String(reason) = value else { return Err(wrong("reason", "a string", value)) };
    if reason.chars().count() > MAX_REASON {
        return Err(InvalidPayload(format!("reason: must have at most {MAX_REASON} characters")));
    }
    Ok(reason.clone())
}

fn wrong(what: &str, expected: &str, found: &Value) -> InvalidPayload {
    let found = match found {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("{:?}", text.chars().take(64).collect::<String>()),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    };
    InvalidPayload(format!("{what}: must be {expected}, not {found}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Time {
        "2026-11-22T18:00:00Z".parse().unwrap()
    }

    fn parse(payload: &[u8]) -> Result<RebootRequest, InvalidPayload> {
        RebootRequest::parse(payload, now())
    }

    #[test]
    fn nothing_is_a_plain_request() {
        for payload in ["", " ", "null", "\"\"", "{}"] {
            assert_eq!(parse(payload.as_bytes()), Ok(RebootRequest::default()), "{payload}");
            assert_eq!(parse_cancel(payload.as_bytes()), Ok(None), "{payload}");
        }
    }

    #[test]
    fn every_known_key_and_the_tutorials_unknown_one() {
        let payload = br#"{"id":"a.B_c:1-2","reason":"kernel update","check":true,"onInhibitor":"wait",
            "waitSeconds":86400,"delaySeconds":604800,"method_number":"42"}"#;
        let expected = RebootRequest {
            id: Some("a.B_c:1-2".into()),
            reason: Some("kernel update".into()),
            not_before: Some("2026-11-29T18:00:00Z".parse().unwrap()),
            delayed: true,
            deadline: None,
            on_inhibitor: OnInhibitor::Wait,
            wait: Duration::from_secs(86400),
            check: true,
            ignored: vec!["method_number".into()],
        };
        assert_eq!(parse(payload), Ok(expected));
        let at = parse(br#"{"at":"2026-11-22T20:30:00+02:00"}"#).unwrap().not_before;
        assert_eq!(at, Some("2026-11-22T18:30:00Z".parse().unwrap()));
        assert_eq!(parse_cancel(br#"{"id":"a","why":"x"}"#), Ok(Some("a".into())));
    }

    #[test]
    fn each_mistake_names_its_key() {
        let long_id = format!(r#"{{"id":"{}"}}"#, "x".repeat(129));
        let long_reason = format!(r#"{{"reason":"{}"}}"#, "ü".repeat(201));
        for (payload, named) in [
            ("{", "not JSON"),
            ("\u{1}", "not JSON"),
            ("[1]", "must be an object, not an array"),
            ("\"now\"", "must be an object, not \"now\""),
            ("5", "must be an object, not 5"),
            ("false", "must be an object, not false"),
            (r#"{"id":5}"#, "id: must be a string, not 5"),
            (r#"{"id":""}"#, "id: must have 1 to 128"),
            (r#"{"id":"a b"}"#, "id: must have 1 to 128"),
            (long_id.as_str(), "id: must have 1 to 128"),
            (r#"{"reason":null}"#, "reason: must be a string, not null"),
            (long_reason.as_str(), "reason: must have at most 200"),
            (r#"{"check":"yes"}"#, "check: must be true or false, not \"yes\""),
            (r#"{"delaySeconds":-1}"#, "delaySeconds: must be a whole number from 0 to 604800, not -1"),
            (r#"{"delaySeconds":604801}"#, "delaySeconds: must be a whole number from 0 to 604800"),
            (r#"{"delaySeconds":1.5}"#, "delaySeconds: must be a whole number"),
            (r#"{"delaySeconds":"5"}"#, "delaySeconds: must be a whole number"),
            (r#"{"waitSeconds":0}"#, "waitSeconds: must be a whole number from 1 to 86400, not 0"),
            (r#"{"at":"tomorrow"}"#, "at: must be an RFC 3339 time within the next 7 days, not \"tomorrow\""),
            (r#"{"at":"2026-11-22T17:59:59Z"}"#, "here it is 2026-11-22T18:00:00.000Z"),
            (r#"{"at":"2026-11-29T18:00:01Z"}"#, "at: must be an RFC 3339 time within the next 7 days"),
            (r#"{"at":"2026-11-22T18:00:01Z","delaySeconds":5}"#, "at: cannot be given with delaySeconds"),
            (
                r#"{"onInhibitor":"ask"}"#,
                "onInhibitor: must be \"fail\", \"wait\" or \"override\", not \"ask\"",
            ),
            (r#"{"onInhibitor":7}"#, "onInhibitor: must be"),
        ] {
            let error = parse(payload.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(named), "{payload}: {error}");
        }
        assert!(parse(&[0xff, 0xfe]).is_err());
        assert!(parse_cancel(br#"{"id":5}"#).unwrap_err().to_string().contains("id: must be a string"));
    }

    #[test]
    fn a_wish_and_each_mistake_in_one() {
        let wish = r#"{"id":"w","notBefore":"2027-11-22T18:00:00Z","deadline":"2027-11-22T19:00:00Z","reason":"r",
            "onInhibitor":"wait","waitSeconds":60,"ticket":"unknown to us"}"#;
        let expected = RebootRequest {
            id: Some("w".into()),
            reason: Some("r".into()),
            not_before: Some("2027-11-22T18:00:00Z".parse().unwrap()),
            deadline: Some("2027-11-22T19:00:00Z".parse().unwrap()),
            on_inhibitor: OnInhibitor::Wait,
            wait: Duration::from_secs(60),
            ..RebootRequest::default()
        };
        let wished = |text: &str| RebootRequest::wished(&serde_json::from_str(text).unwrap());
        assert_eq!(wished(wish), Ok(expected));
        for (wish, named, id) in [
            ("5", "reboot: must be an object, not 5", None),
            ("{}", "id: must be given", None),
            (r#"{"id":"a b"}"#, "id: must have 1 to 128", None),
            (
                r#"{"id":"a","notBefore":"soon"}"#,
                "notBefore: must be an RFC 3339 time, not \"soon\"",
                Some("a"),
            ),
            (r#"{"id":"a","deadline":7}"#, "deadline: must be an RFC 3339 time, not 7", Some("a")),
            (
                r#"{"id":"a","notBefore":"2026-11-22T18:00:00Z","deadline":"2026-11-22T18:00:00Z"}"#,
                "deadline: must be after notBefore",
                Some("a"),
            ),
        ] {
            let error = wished(wish).unwrap_err().to_string();
            assert!(error.contains(named), "{wish}: {error}");
            assert_eq!(id_of_wish(&serde_json::from_str(wish).unwrap()).as_deref(), id, "{wish}");
        }
    }

    #[test]
    fn a_reason_counts_characters_not_bytes() {
        let payload = format!(r#"{{"reason":"{}"}}"#, "ü".repeat(200));
        assert!(parse(payload.as_bytes()).is_ok());
    }

    #[test]
    fn a_flood_of_unknown_keys_is_repeated_in_part() {
        let keys: Vec<String> = (0..5000).map(|n| format!("\"k{n}\":1")).collect();
        let request = parse(format!("{{{}}}", keys.join(",")).as_bytes()).unwrap();
        assert_eq!(request.ignored.len(), MAX_IGNORED);
    }
}
