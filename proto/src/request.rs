//! What operators ask of the daemon: the payloads of its direct methods and the
//! wish in the twin. `iotdm-ctl` builds them from these types and the daemon
//! reads them into these types, strictly: a mistake is answered by the name of
//! its key.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::text::is_deceptive;
use crate::time::Time;
use crate::vocabulary::vocabulary;

/// The longest id of a request, in bytes; each of the characters that an id may
/// have is one byte.
pub const MAX_ID: usize = 128;
/// The longest reason, in characters: on a terminal of 80 columns a wall message
/// shows so many on three lines.
pub const MAX_REASON: usize = 200;
/// The longest name of an operator, in characters: longer than any user@host.
pub const MAX_OPERATOR: usize = 100;
/// How far ahead a call may ask for a reboot, by `delaySeconds` or `at`: 7 days,
/// so that a mistyped date is refused and not waited for.
pub const MAX_AHEAD: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How far ahead the times of a wish may lie: 365 days. A wish waits for a device
/// that is away, but not for ever.
pub const MAX_WISH_AHEAD: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// What `delaySeconds` may be, in seconds; 0 is the same as none.
pub const DELAY_SECONDS: RangeInclusive<u64> = 0..=MAX_AHEAD.as_secs();
/// What `waitSeconds` may be, in seconds: up to a day, so that a forgotten
/// request does not reboot the machine days later.
pub const WAIT_SECONDS: RangeInclusive<u64> = 1..=24 * 60 * 60;
/// How long [`OnInhibitor::Wait`] waits where `waitSeconds` is not given: an hour,
/// which is enough for an upgrade of the system's packages.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(60 * 60);

/// How many unknown keys a reply repeats: a payload may have thousands, and a
/// reply with them all would help nobody.
pub(crate) const MAX_IGNORED: usize = 32;
/// How many characters of each unknown key a reply repeats.
pub(crate) const MAX_IGNORED_CHARS: usize = 64;
/// How many characters of a text that is wrong an error repeats: enough to
/// recognise the text, which may be as long as the payload.
const MAX_FOUND_CHARS: usize = 64;

/// The operator's id of a request: 1 to 128 characters of `A-Za-z0-9._:-`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RequestId(String);

/// Why a reboot is asked for, in the operator's words: at most 200 characters,
/// none of which is a control character, a line end or a bidirectional override.
/// The words are shown on terminals and written to the journal by programs that
/// take them as they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reason(String);

/// Who asks for a reboot, by their own word: at most 100 characters, as harmless as
/// those of a [`Reason`]. Nobody has proved that it is so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Operator(String);

vocabulary! {
    /// What to do while somebody holds a block inhibitor for shutdown.
    pub enum OnInhibitor {
        /// Refuse a reboot for now; let one whose time has come later fail.
        Fail = "fail",
        /// Reboot once the inhibitor is released; fail after `waitSeconds`.
        Wait = "wait",
        /// Reboot all the same, if the device's own configuration allows that.
        Override = "override",
    }
}

vocabulary! {
    /// What to do while a preflight check objects: a check of whether the machine
    /// would come back.
    pub enum OnPreflight {
        /// Refuse a reboot for now; let one whose time has come later fail.
        Fail = "fail",
        /// Reboot once no check objects any more; fail after `waitSeconds`.
        Wait = "wait",
        /// Reboot all the same, if the device's own configuration allows that.
        Override = "override",
    }
}

/// The payload of `rebootDevice`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RebootRequest {
    /// `id`: the operator's name for the request; without one the daemon makes
    /// up a UUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<RequestId>,
    /// `delaySeconds`: reboot so many seconds later, within [`DELAY_SECONDS`].
    /// Not together with `at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_seconds: Option<u64>,
    /// `at`: reboot at this instant, which is not over and at most [`MAX_AHEAD`]
    /// ahead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// `check`: a dry run, which only says what would happen.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub check: bool,
    /// What a call and a wish can ask for alike.
    #[serde(flatten)]
    pub terms: Terms,
}

/// The wish for a reboot, `properties.desired.reboot`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wish {
    /// `id`: the request's id; each id is carried out once.
    pub id: RequestId,
    /// `notBefore`: do not reboot before this instant; without it, reboot as
    /// soon as the device sees the wish.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// `deadline`: do not reboot from this instant on. It lies after `notBefore`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
    /// What a call and a wish can ask for alike.
    #[serde(flatten)]
    pub terms: Terms,
}

/// What calls and wishes can ask for alike.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Terms {
    /// `reason`: why the reboot is asked for; for the journal, the people who
    /// are logged in, and the twin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// `operator`: who asks, by their own word; goes where the reason goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<Operator>,
    /// `onInhibitor`: what to do about block inhibitors; [`OnInhibitor::Fail`]
    /// where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_inhibitor: Option<OnInhibitor>,
    /// `onPreflight`: what to do about preflight checks that object;
    /// [`OnPreflight::Fail`] where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_preflight: Option<OnPreflight>,
    /// `waitSeconds`: how many seconds [`OnInhibitor::Wait`] and
    /// [`OnPreflight::Wait`] wait once the reboot's time has come, within
    /// [`WAIT_SECONDS`]; [`DEFAULT_WAIT`] where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_seconds: Option<u64>,
    /// `onlyIfRequired`: do nothing unless the machine needs a reboot.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_if_required: bool,
}

/// The payload of `cancelReboot`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CancelRequest {
    /// `id`: call the reboot off only if this request is the pending one;
    /// without it, whichever is pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<RequestId>,
}

/// A payload of `rebootDevice` as the daemon understands it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Received {
    /// What is asked for.
    pub request: RebootRequest,
    /// Keys that the daemon does not know, as far as its reply repeats them.
    pub ignored: Vec<String>,
}

/// The payload or the wish cannot be taken as it is. The message names the key
/// and what may stand there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidPayload(String);

impl RebootRequest {
    /// The keys of the payload.
    pub const KEYS: [&str; 10] = [
        "id",
        "delaySeconds",
        "at",
        "check",
        "reason",
        "operator",
        "onInhibitor",
        "onPreflight",
        "waitSeconds",
        "onlyIfRequired",
    ];

    /// Reads a payload: absent, `null`, `""` or an object. Anything else is an
    /// error, and so is a known key with a value that may not stand there. A key
    /// that is not known is no error, since the callers of Microsoft's tutorial
    /// send one; unless it restrains the reboot, by beginning with `only` or `on`:
    /// a daemon that does not know what would hold the reboot back must not go
    /// ahead. Whether `at` lies within its bounds depends on when the request
    /// is new: see [`RebootRequest::check_time`].
    pub fn parse(payload: &[u8]) -> Result<Received, InvalidPayload> {
        let mut received = Received::default();
        for (key, value) in object(payload)? {
            let request = &mut received.request;
            match key.as_str() {
                "id" => request.id = Some(text(&key, &value)?),
                "check" => request.check = boolean(&key, &value)?,
                "delaySeconds" => request.delay_seconds = Some(seconds(&key, &value, DELAY_SECONDS)?),
                "at" => request.at = Some(instant(&key, &value)?),
                _ if request.terms.take(&key, &value)? => {}
                _ if is_restraint(&key) => return Err(unknown_restraint(&key)),
                _ if received.ignored.len() < MAX_IGNORED => {
                    received.ignored.push(key.chars().take(MAX_IGNORED_CHARS).collect());
                }
                _ => {}
            }
        }
        if received.request.at.is_some() && received.request.delay_seconds.is_some() {
            return Err(InvalidPayload("at: cannot be given with delaySeconds".to_owned()));
        }
        Ok(received)
    }

    /// Whether `at` lies from `now`, when the request is new, to [`MAX_AHEAD`]
    /// later. The same request that is delivered again is not judged by it: its
    /// time may have passed.
    pub fn check_time(&self, now: Time) -> Result<(), InvalidPayload> {
        match self.at.filter(|at| *at < now || *at > now.after(MAX_AHEAD)) {
            None => Ok(()),
            Some(_) => {
                let message =
                    format!("at: must be an RFC 3339 time within the next 7 days; here it is {now}");
                Err(InvalidPayload(message))
            }
        }
    }

    /// The instant before which the machine is not to be rebooted, for a
    /// request that came `now`; `None` for a request to reboot now.
    pub fn not_before(&self, now: Time) -> Option<Time> {
        let delay = self.delay_seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs);
        delay.map(|delay| now.after(delay)).or(self.at)
    }
}

impl Wish {
    /// The keys of the wish.
    pub const KEYS: [&str; 9] = [
        "id",
        "notBefore",
        "deadline",
        "reason",
        "operator",
        "onInhibitor",
        "onPreflight",
        "waitSeconds",
        "onlyIfRequired",
    ];

    /// Reads `properties.desired.reboot`. It is an error if it is no object, has
    /// no `id`, a known key with a value that may not stand there, or a
    /// `deadline` that is not after `notBefore`. Keys that are not known are left
    /// to others, who may share the object, unless they restrain the reboot.
    pub fn parse(value: &Value) -> Result<Self, InvalidPayload> {
        let object = value.as_object().ok_or_else(|| wrong("reboot", "an object", value))?;
        let (mut id, mut not_before, mut deadline) = (None, None, None);
        let mut terms = Terms::default();
        for (key, value) in object {
            match key.as_str() {
                "id" => id = Some(text(key, value)?),
                "notBefore" => not_before = Some(instant(key, value)?),
                "deadline" => deadline = Some(instant(key, value)?),
                _ if terms.take(key, value)? => {}
                _ if is_restraint(key) => return Err(unknown_restraint(key)),
                _ => {}
            }
        }
        let id = id.ok_or_else(|| InvalidPayload("id: must be given".to_owned()))?;
        if deadline.is_some() && deadline <= not_before {
            return Err(InvalidPayload("deadline: must be after notBefore".to_owned()));
        }
        Ok(Wish { id, not_before, deadline, terms })
    }

    /// Whether `notBefore` and `deadline` lie no more than [`MAX_WISH_AHEAD`] after
    /// `now`, when the wish is seen by a clock that can be trusted.
    pub fn check_time(&self, now: Time) -> Result<(), InvalidPayload> {
        let latest = now.after(MAX_WISH_AHEAD);
        for (key, time) in [("notBefore", self.not_before), ("deadline", self.deadline)] {
            if time.is_some_and(|time| time > latest) {
                let message = format!("{key}: must lie within the next 365 days; here it is {now}");
                return Err(InvalidPayload(message));
            }
        }
        Ok(())
    }

    /// The id of `properties.desired.reboot`, also if the wish is wrong in other
    /// respects; `None` if even the id is missing or wrong.
    pub fn id_of(value: &Value) -> Option<RequestId> {
        value.get("id").and_then(|value| text("id", value).ok())
    }

    /// The wish as a patch of the twin has to write it: a key that the wish does
    /// not have is `null`, since the hub merges patches and would keep what an
    /// earlier wish had there.
    pub fn patch(&self) -> Value {
        let mut patch: Map<String, Value> =
            Self::KEYS.map(|key| (key.to_owned(), Value::Null)).into_iter().collect();
        if let Ok(Value::Object(given)) = serde_json::to_value(self) {
            patch.extend(given);
        }
        Value::Object(patch)
    }
}

impl Terms {
    /// Takes `value` if `key` is one of the terms, and tells whether it is.
    fn take(&mut self, key: &str, value: &Value) -> Result<bool, InvalidPayload> {
        match key {
            "reason" => self.reason = Some(text(key, value)?),
            "operator" => self.operator = Some(text(key, value)?),
            "waitSeconds" => self.wait_seconds = Some(seconds(key, value, WAIT_SECONDS)?),
            "onInhibitor" => self.on_inhibitor = Some(word(key, value, OnInhibitor::ALL)?),
            "onlyIfRequired" => self.only_if_required = boolean(key, value)?,
            "onPreflight" => self.on_preflight = Some(word(key, value, OnPreflight::ALL)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// What to do about block inhibitors, with the default.
    pub fn on_inhibitor(&self) -> OnInhibitor {
        self.on_inhibitor.unwrap_or(OnInhibitor::Fail)
    }

    /// What to do about preflight checks that object, with the default.
    pub fn on_preflight(&self) -> OnPreflight {
        self.on_preflight.unwrap_or(OnPreflight::Fail)
    }

    /// How long [`OnInhibitor::Wait`] and [`OnPreflight::Wait`] wait, with the
    /// default.
    pub fn wait(&self) -> Duration {
        self.wait_seconds.map_or(DEFAULT_WAIT, Duration::from_secs)
    }
}

impl CancelRequest {
    /// The keys of the payload.
    pub const KEYS: [&str; 1] = ["id"];

    /// Reads a payload: absent, `null`, `""` or an object whose `id`, if given, is
    /// one. Keys that are not known are no error.
    pub fn parse(payload: &[u8]) -> Result<Self, InvalidPayload> {
        let id = object(payload)?.get("id").map(|value| text("id", value)).transpose()?;
        Ok(CancelRequest { id })
    }
}

impl RequestId {
    /// The id as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Reason {
    /// The words as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Operator {
    /// The name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RequestId {
    type Err = InvalidPayload;

    fn from_str(text: &str) -> Result<Self, InvalidPayload> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
        if text.is_empty() || text.len() > MAX_ID || !text.bytes().all(allowed) {
            let message = format!("must have 1 to {MAX_ID} characters of A-Z a-z 0-9 . _ : -");
            return Err(InvalidPayload(message));
        }
        Ok(RequestId(text.to_owned()))
    }
}

impl FromStr for Reason {
    type Err = InvalidPayload;

    fn from_str(text: &str) -> Result<Self, InvalidPayload> {
        harmless_line(text, MAX_REASON).map(Reason)
    }
}

impl FromStr for Operator {
    type Err = InvalidPayload;

    fn from_str(text: &str) -> Result<Self, InvalidPayload> {
        harmless_line(text, MAX_OPERATOR).map(Operator)
    }
}

/// Text that may be shown as it is: one line of so many characters at most.
fn harmless_line(text: &str, longest: usize) -> Result<String, InvalidPayload> {
    if text.chars().count() > longest {
        return Err(InvalidPayload(format!("must have at most {longest} characters")));
    }
    match text.chars().find(|char| is_deceptive(*char)) {
        None => Ok(text.to_owned()),
        Some(char) => Err(InvalidPayload(format!(
            "must be one line without control characters and bidirectional overrides, but has U+{:04X}",
            u32::from(char)
        ))),
    }
}

/// What a validated text needs besides `FromStr` to stand in JSON as a string.
macro_rules! text {
    ($($name:ident),+) => {
        $(
            impl TryFrom<String> for $name {
                type Error = InvalidPayload;

                fn try_from(text: String) -> Result<Self, InvalidPayload> {
                    text.parse()
                }
            }

            impl From<$name> for String {
                fn from(text: $name) -> String {
                    text.0
                }
            }

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str(&self.0)
                }
            }
        )+
    };
}

text!(RequestId, Reason, Operator);

/// Whether a key is one of those that a reboot depends on: they begin with `only` or
/// `on`.
fn is_restraint(key: &str) -> bool {
    key.starts_with("on")
}

fn unknown_restraint(key: &str) -> InvalidPayload {
    let key: String = key.chars().take(MAX_IGNORED_CHARS).collect();
    InvalidPayload(format!("{key}: this device does not know what the reboot is to depend on"))
}

/// The payload as an object; an absent payload, `null` and `""` are an empty
/// one, since tools send each of them where no payload was given.
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

fn text<T: FromStr<Err = InvalidPayload>>(key: &str, value: &Value) -> Result<T, InvalidPayload> {
    let Value::String(text) = value else { return Err(wrong(key, "a string", value)) };
    text.parse().map_err(|InvalidPayload(why)| InvalidPayload(format!("{key}: {why}")))
}

fn boolean(key: &str, value: &Value) -> Result<bool, InvalidPayload> {
    value.as_bool().ok_or_else(|| wrong(key, "true or false", value))
}

fn seconds(key: &str, value: &Value, range: RangeInclusive<u64>) -> Result<u64, InvalidPayload> {
    value.as_u64().filter(|seconds| range.contains(seconds)).ok_or_else(|| {
        wrong(key, &format!("a whole number from {} to {}", range.start(), range.end()), value)
    })
}

fn word<T: Copy + fmt::Display>(key: &str, value: &Value, known: &[T]) -> Result<T, InvalidPayload> {
    let found = |word: &&T| value.as_str() == Some(word.to_string().as_str());
    known.iter().find(found).copied().ok_or_else(|| {
        let mut words: Vec<String> = known.iter().map(|word| format!("\"{word}\"")).collect();
        let last = words.pop().unwrap_or_default();
        wrong(key, &format!("{} or {last}", words.join(", ")), value)
    })
}

fn instant(key: &str, value: &Value) -> Result<Time, InvalidPayload> {
    let time = value.as_str().and_then(|text| text.parse().ok());
    time.ok_or_else(|| wrong(key, "an RFC 3339 time", value))
}

fn wrong(what: &str, expected: &str, found: &Value) -> InvalidPayload {
    let found = match found {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("{:?}", text.chars().take(MAX_FOUND_CHARS).collect::<String>()),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    };
    InvalidPayload(format!("{what}: must be {expected}, not {found}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::full;

    fn now() -> Time {
        "2026-11-22T18:00:00Z".parse().unwrap()
    }

    fn parse(payload: &[u8]) -> Result<Received, InvalidPayload> {
        let received = RebootRequest::parse(payload)?;
        received.request.check_time(now())?;
        Ok(received)
    }

    fn id(text: &str) -> RequestId {
        text.parse().unwrap()
    }

    fn keys(value: &impl Serialize) -> Vec<String> {
        let mut keys: Vec<String> =
            serde_json::to_value(value).unwrap().as_object().unwrap().keys().cloned().collect();
        keys.sort_unstable();
        keys
    }

    fn sorted<const N: usize>(mut keys: [&str; N]) -> [&str; N] {
        keys.sort_unstable();
        keys
    }

    #[test]
    fn nothing_is_a_plain_request() {
        for payload in ["", " ", "null", "\"\"", "{}"] {
            assert_eq!(parse(payload.as_bytes()), Ok(Received::default()), "{payload}");
            assert_eq!(CancelRequest::parse(payload.as_bytes()), Ok(CancelRequest::default()), "{payload}");
        }
        assert_eq!(Terms::default().on_inhibitor(), OnInhibitor::Fail);
        assert_eq!(Terms::default().on_preflight(), OnPreflight::Fail);
        assert_eq!(Terms::default().wait().as_secs(), 3600);
    }

    #[test]
    fn what_is_built_is_read_with_every_key() {
        let full = full::reboot_request();
        assert_eq!(keys(&full), sorted(RebootRequest::KEYS));
        // One of the two times each, since they cannot be given together.
        let delayed = RebootRequest { at: None, ..full.clone() };
        let timed = RebootRequest { delay_seconds: None, ..full.clone() };
        for request in [&delayed, &timed] {
            let payload = serde_json::to_vec(request).unwrap();
            assert_eq!(parse(&payload), Ok(Received { request: request.clone(), ignored: Vec::new() }));
        }
        assert_eq!(delayed.not_before(now()), Some("2026-11-29T18:00:00Z".parse().unwrap()));
        assert_eq!(timed.not_before(now()), full.at);

        let wish = full::wish();
        assert_eq!(Wish::parse(&serde_json::to_value(&wish).unwrap()), Ok(wish.clone()));
        assert_eq!(keys(&wish), sorted(Wish::KEYS));

        let cancel = full::cancel_request();
        assert_eq!(CancelRequest::parse(&serde_json::to_vec(&cancel).unwrap()), Ok(cancel.clone()));
        assert_eq!(keys(&cancel), CancelRequest::KEYS);
    }

    #[test]
    fn keys_that_are_not_known_are_no_error() {
        let received = parse(br#"{"method_number":"42","at":"2026-11-22T20:30:00+02:00"}"#).unwrap();
        assert_eq!(received.ignored, ["method_number"]);
        assert_eq!(received.request.at, Some("2026-11-22T18:30:00Z".parse().unwrap()));
        assert_eq!(CancelRequest::parse(br#"{"id":"a","why":"x"}"#).unwrap().id, Some(id("a")));
        let wish = json!({"id": "w", "ticket": 7});
        assert_eq!(Wish::parse(&wish).unwrap().id, id("w"));
    }

    #[test]
    fn a_patch_takes_back_what_an_earlier_wish_asked_for() {
        let wish = Wish { id: id("w"), not_before: None, deadline: None, terms: Terms::default() };
        let expected = json!({
            "id": "w", "notBefore": null, "deadline": null, "reason": null, "operator": null, "onInhibitor": null,
            "onPreflight": null, "waitSeconds": null, "onlyIfRequired": null,
        });
        assert_eq!(wish.patch(), expected);
    }

    #[test]
    fn the_edges_of_each_limit() {
        let delay = |seconds: u64| parse(json!({"delaySeconds": seconds}).to_string().as_bytes());
        assert_eq!(delay(0).unwrap().request.not_before(now()), None);
        assert_eq!(delay(1).unwrap().request.not_before(now()), Some(now().after(Duration::from_secs(1))));
        assert!(delay(604_800).is_ok() && delay(604_801).is_err());
        let wait = |seconds: u64| parse(json!({"waitSeconds": seconds}).to_string().as_bytes());
        assert!(wait(0).is_err() && wait(1).is_ok() && wait(86_400).is_ok() && wait(86_401).is_err());
        assert!(
            "x".repeat(128).parse::<RequestId>().is_ok() && "x".repeat(129).parse::<RequestId>().is_err()
        );
        assert!("a/b".parse::<RequestId>().is_err());
        // Characters count, not bytes.
        assert!("ü".repeat(200).parse::<Reason>().is_ok() && "ü".repeat(201).parse::<Reason>().is_err());
    }

    #[test]
    fn each_mistake_names_its_key() {
        let long_id = format!(r#"{{"id":"{}"}}"#, "x".repeat(129));
        let long_operator = format!(r#"{{"operator":"{}"}}"#, "ü".repeat(101));
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
            (r#"{"reason":"a\u0000b"}"#, "reason: must be one line without control characters"),
            (r#"{"reason":"\u001b]0;x\u0007"}"#, "but has U+001B"),
            (r#"{"reason":"\u007f"}"#, "but has U+007F"),
            (r#"{"reason":"\u009b2J"}"#, "but has U+009B"),
            (r#"{"reason":"x)\nMESSAGE=Accepted publickey for root"}"#, "but has U+000A"),
            (r#"{"reason":"\u2028"}"#, "but has U+2028"),
            (r#"{"reason":"\u202ekcits"}"#, "but has U+202E"),
            (r#"{"reason":"\u2066"}"#, "but has U+2066"),
            (r#"{"operator":7}"#, "operator: must be a string, not 7"),
            (r#"{"operator":"a\u001b[2Jb"}"#, "operator: must be one line without control characters"),
            (long_operator.as_str(), "operator: must have at most 100"),
            (r#"{"check":"yes"}"#, "check: must be true or false, not \"yes\""),
            (r#"{"delaySeconds":-1}"#, "delaySeconds: must be a whole number from 0 to 604800, not -1"),
            (r#"{"delaySeconds":604801}"#, "delaySeconds: must be a whole number from 0 to 604800"),
            (r#"{"delaySeconds":1.5}"#, "delaySeconds: must be a whole number"),
            (r#"{"delaySeconds":"5"}"#, "delaySeconds: must be a whole number"),
            (r#"{"waitSeconds":0}"#, "waitSeconds: must be a whole number from 1 to 86400, not 0"),
            (r#"{"at":"tomorrow"}"#, "at: must be an RFC 3339 time, not \"tomorrow\""),
            (r#"{"at":"2026-11-22T17:59:59Z"}"#, "here it is 2026-11-22T18:00:00.000Z"),
            (r#"{"at":"2026-11-29T18:00:01Z"}"#, "at: must be an RFC 3339 time within the next 7 days"),
            (r#"{"at":"2026-11-22T18:00:01Z","delaySeconds":5}"#, "at: cannot be given with delaySeconds"),
            (
                r#"{"onInhibitor":"ask"}"#,
                "onInhibitor: must be \"fail\", \"wait\" or \"override\", not \"ask\"",
            ),
            (r#"{"onInhibitor":7}"#, "onInhibitor: must be"),
            (r#"{"onlyIfRequired":"yes"}"#, "onlyIfRequired: must be true or false, not \"yes\""),
            (r#"{"onlyOnSundays":true}"#, "onlyOnSundays: this device does not know"),
            (r#"{"onBattery":"wait"}"#, "onBattery: this device does not know"),
        ] {
            let error = parse(payload.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(named), "{payload}: {error}");
        }
        assert!(parse(&[0xff, 0xfe]).is_err());
        let error = CancelRequest::parse(br#"{"id":5}"#).unwrap_err().to_string();
        assert!(error.contains("id: must be a string"), "{error}");
    }

    #[test]
    fn each_mistake_in_a_wish_names_its_key_and_leaves_its_id() {
        for (wish, named, expected) in [
            ("5", "reboot: must be an object, not 5", None),
            ("{}", "id: must be given", None),
            (r#"{"id":"a b"}"#, "id: must have 1 to 128", None),
            (
                r#"{"id":"a","notBefore":"soon"}"#,
                "notBefore: must be an RFC 3339 time, not \"soon\"",
                Some("a"),
            ),
            (r#"{"id":"a","reason":"\u001b[2J"}"#, "reason: must be one line", Some("a")),
            (r#"{"id":"a","onlyOnSundays":true}"#, "onlyOnSundays: this device does not know", Some("a")),
            (r#"{"id":"a","deadline":7}"#, "deadline: must be an RFC 3339 time, not 7", Some("a")),
            (
                r#"{"id":"a","notBefore":"2026-11-22T18:00:00Z","deadline":"2026-11-22T18:00:00Z"}"#,
                "deadline: must be after notBefore",
                Some("a"),
            ),
        ] {
            let value = serde_json::from_str(wish).unwrap();
            let error = Wish::parse(&value).unwrap_err().to_string();
            assert!(error.contains(named), "{wish}: {error}");
            assert_eq!(Wish::id_of(&value), expected.map(id), "{wish}");
        }
    }

    #[test]
    fn a_wish_lies_within_a_year() {
        let wished = |key: &str, time: &str| {
            Wish::parse(&json!({"id": "w", key: time}))
                .unwrap()
                .check_time(now())
                .map_err(|error| error.to_string())
        };
        for key in ["notBefore", "deadline"] {
            assert_eq!(wished(key, "2027-11-22T18:00:00Z"), Ok(()));
            let error = wished(key, "2027-11-22T18:00:00.001Z").unwrap_err();
            assert!(error.starts_with(&format!("{key}: must lie within the next 365 days")), "{error}");
            assert!(wished(key, "9999-12-01T00:00:00Z").is_err());
        }
    }

    #[test]
    fn a_flood_of_unknown_keys_is_repeated_in_part() {
        let keys: Vec<String> = (0..5000).map(|n| format!("\"k{n}\":1")).collect();
        let received = parse(format!("{{{}}}", keys.join(",")).as_bytes()).unwrap();
        assert_eq!(received.ignored.len(), 32);
    }
}
