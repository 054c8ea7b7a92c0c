//! The payload of `rebootDevice`: read strictly, answered by name.

use serde_json::Value;

/// What an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RebootRequest {
    /// The operator's id; without one the daemon makes one up.
    pub id: Option<String>,
    /// Why, at most 200 characters.
    pub reason: Option<String>,
    /// Only say what would happen.
    pub check: bool,
    /// Keys that the daemon does not know, as far as they are repeated back.
    pub ignored: Vec<String>,
}

/// The payload cannot be taken as it is.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidPayload(String);

const MAX_ID: usize = 128;
const MAX_REASON: usize = 200;
/// A payload may have thousands of keys; a reply that repeats them all would
/// help nobody.
const MAX_IGNORED: usize = 32;

impl RebootRequest {
    /// Reads a payload: absent, `null`, `""` or an object.
    pub fn parse(payload: &[u8]) -> Result<Self, InvalidPayload> {
        if payload.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        let value = serde_json::from_slice(payload)
            .map_err(|error| InvalidPayload(format!("the payload is not JSON: {error}")))?;
        let object = match value {
            Value::Null => return Ok(Self::default()),
            Value::String(text) if text.is_empty() => return Ok(Self::default()),
            Value::Object(object) => object,
            other => return Err(wrong("the payload", "an object", &other)),
        };
        let mut request = Self::default();
        for (key, value) in object {
            match key.as_str() {
                "id" => request.id = Some(id(value)?),
                "reason" => request.reason = Some(reason(value)?),
                "check" => request.check = boolean(&key, value)?,
                "onInhibitor" if value == "fail" => {}
                // Taken for unknown, these would reboot now a machine that was
                // to be rebooted later or under a condition.
                "onInhibitor" | "waitSeconds" | "delaySeconds" | "at" => {
                    return Err(InvalidPayload(format!("{key}: not supported by this version of the agent")));
                }
                _ if request.ignored.len() < MAX_IGNORED => {
                    request.ignored.push(key.chars().take(64).collect());
                }
                _ => {}
            }
        }
        Ok(request)
    }
}

fn id(value: Value) -> Result<String, InvalidPayload> {
    let Value::String(id) = value else { return Err(wrong("id", "a string", &value)) };
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
    if id.is_empty() || id.len() > MAX_ID || !id.bytes().all(allowed) {
        return Err(InvalidPayload("id: must have 1 to 128 characters of A-Z a-z 0-9 . _ : -".to_owned()));
    }
    Ok(id)
}

fn reason(value: Value) -> Result<String, InvalidPayload> {
    let Value::String(reason) = value else { return Err(wrong("reason", "a string", &value)) };
    if reason.chars().count() > MAX_REASON {
        return Err(InvalidPayload(format!("reason: must have at most {MAX_REASON} characters")));
    }
    Ok(reason)
}

fn boolean(key: &str, value: Value) -> Result<bool, InvalidPayload> {
    value.as_bool().ok_or_else(|| wrong(key, "true or false", &value))
}

fn wrong(what: &str, expected: &str, found: &Value) -> InvalidPayload {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    InvalidPayload(format!("{what}: must be {expected}, not {found}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_a_plain_request() {
        for payload in ["", " ", "null", "\"\"", "{}"] {
            assert_eq!(RebootRequest::parse(payload.as_bytes()), Ok(RebootRequest::default()), "{payload}");
        }
    }

    #[test]
    fn every_known_key_and_the_tutorials_unknown_one() {
        let payload =
            br#"{"id":"a.B_c:1-2","reason":"kernel update","check":true,"onInhibitor":"fail","method_number":"42"}"#;
        let request = RebootRequest::parse(payload).unwrap();
        assert_eq!(request.id.as_deref(), Some("a.B_c:1-2"));
        assert_eq!(request.reason.as_deref(), Some("kernel update"));
        assert!(request.check);
        assert_eq!(request.ignored, ["method_number"]);
    }

    #[test]
    fn each_mistake_names_its_key() {
        let long_id = format!(r#"{{"id":"{}"}}"#, "x".repeat(129));
        let long_reason = format!(r#"{{"reason":"{}"}}"#, "ü".repeat(201));
        for (payload, named) in [
            ("{", "not JSON"),
            ("\u{1}", "not JSON"),
            ("[1]", "must be an object, not an array"),
            ("\"now\"", "must be an object, not a string"),
            ("5", "must be an object, not a number"),
            ("false", "must be an object, not a boolean"),
            (r#"{"id":5}"#, "id: must be a string, not a number"),
            (r#"{"id":""}"#, "id: must have 1 to 128"),
            (r#"{"id":"a b"}"#, "id: must have 1 to 128"),
            (long_id.as_str(), "id: must have 1 to 128"),
            (r#"{"reason":null}"#, "reason: must be a string, not null"),
            (long_reason.as_str(), "reason: must have at most 200"),
            (r#"{"check":"yes"}"#, "check: must be true or false, not a string"),
            (r#"{"delaySeconds":5}"#, "delaySeconds: not supported"),
            (r#"{"onInhibitor":"wait"}"#, "onInhibitor: not supported"),
        ] {
            let error = RebootRequest::parse(payload.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(named), "{payload}: {error}");
        }
        assert!(RebootRequest::parse(&[0xff, 0xfe]).is_err());
    }

    #[test]
    fn a_reason_counts_characters_not_bytes() {
        let payload = format!(r#"{{"reason":"{}"}}"#, "ü".repeat(200));
        assert!(RebootRequest::parse(payload.as_bytes()).is_ok());
    }

    #[test]
    fn a_flood_of_unknown_keys_is_repeated_in_part() {
        let keys: Vec<String> = (0..5000).map(|n| format!("\"k{n}\":1")).collect();
        let request = RebootRequest::parse(format!("{{{}}}", keys.join(",")).as_bytes()).unwrap();
        assert_eq!(request.ignored.len(), MAX_IGNORED);
    }
}
