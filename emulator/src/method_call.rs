//! A call of a direct method as a service asks for it.
//!
//! `connectTimeoutInSeconds` is how long to wait for the device to come and
//! listen, `responseTimeoutInSeconds` how long for its reply after that. Source
//! of the limits: "Understand and invoke direct methods from IoT Hub".

use std::time::Duration;

use serde_json::{Map, Value};

use crate::fields::field;
use crate::refusal::{ErrorCode, HubRefusal};

/// The largest payload: 128 KB, in bytes of JSON.
const MAX_PAYLOAD: usize = 128 * 1024;

/// A call as a service asks for it.
#[derive(Debug, PartialEq)]
pub struct MethodCall {
    /// The method's name: 1 to 128 printable ASCII characters.
    pub name: String,
    /// What the device is given, as JSON; `null` where the service left it out.
    pub payload: String,
    /// How long to wait for the reply: 5 to 300 s, else 30 s.
    pub response_timeout: Duration,
    /// How long to wait for the device to connect: 0 to 300 s, else 0.
    pub connect_timeout: Duration,
}

impl MethodCall {
    /// Reads a service's body: `{"methodName","payload",…}`.
    pub fn parse(body: Value) -> Result<Self, HubRefusal> {
        let Value::Object(body) = body else {
            return Err(ErrorCode::ArgumentInvalid.because("the body is not a JSON object"));
        };
        let name = match field(&body, "methodName") {
            Some(Value::String(name)) if is_method_name(name) => name.clone(),
            _ => return Err(ErrorCode::ArgumentInvalid.because("methodName is missing or not a method name")),
        };
        let old = seconds(&body, "timeoutInSeconds", 5..=300)?;
        let response = seconds(&body, "responseTimeoutInSeconds", 5..=300)?.or(old).unwrap_or(30);
        let connect = seconds(&body, "connectTimeoutInSeconds", 0..=300)?.unwrap_or(0);
        let payload = field(&body, "payload").unwrap_or(&Value::Null).to_string();
        if payload.len() > MAX_PAYLOAD {
            let message = format!("the payload has more than {MAX_PAYLOAD} bytes");
            return Err(ErrorCode::MessageTooLarge.because(message));
        }
        Ok(MethodCall {
            name,
            payload,
            response_timeout: Duration::from_secs(response),
            connect_timeout: Duration::from_secs(connect),
        })
    }
}

/// The number of seconds at `key`, which some clients send as a string; `None`
/// when it is absent.
fn seconds(
    body: &Map<String, Value>,
    key: &str,
    range: std::ops::RangeInclusive<u64>,
) -> Result<Option<u64>, HubRefusal> {
    let seconds = match field(body, key) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(text)) => text.parse().ok(),
        Some(_) => None,
    };
    match seconds.filter(|seconds| range.contains(seconds)) {
        Some(seconds) => Ok(Some(seconds)),
        None => {
            let message = format!("{key} ranges from {} to {}", range.start(), range.end());
            Err(ErrorCode::ArgumentInvalid.because(message))
        }
    }
}

/// Whether `name` may name a method: 1 to 128 characters, the documented limit
/// of names, of printable ASCII without those that mean something in HTTP
/// headers and topics.
fn is_method_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_graphic() && !b"$()<>@,;:\\\"/[]?={}+#".contains(&b);
    (1..=128).contains(&name.len()) && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_official_clients_send() {
        let method = |payload: Value, response, connect| MethodCall {
            name: "rebootDevice".into(),
            payload: payload.to_string(),
            response_timeout: Duration::from_secs(response),
            connect_timeout: Duration::from_secs(connect),
        };
        for (body, expected) in [
            (json!({"methodName": "rebootDevice", "payload": ""}), method(json!(""), 30, 0)),
            (
                json!({
                    "methodName": "rebootDevice", "payload": {"a": 1},
                    "responseTimeoutInSeconds": "60", "connectTimeoutInSeconds": "10",
                }),
                method(json!({"a": 1}), 60, 10),
            ),
            (json!({"methodName": "rebootDevice", "timeoutInSeconds": 5}), method(Value::Null, 5, 0)),
        ] {
            assert_eq!(MethodCall::parse(body).unwrap(), expected);
        }
    }

    #[test]
    fn each_bad_call_is_refused() {
        for (body, code) in [
            (json!([]), ErrorCode::ArgumentInvalid),
            (json!({}), ErrorCode::ArgumentInvalid),
            (json!({"methodName": "a b"}), ErrorCode::ArgumentInvalid),
            (json!({"methodName": "a/b"}), ErrorCode::ArgumentInvalid),
            (json!({"methodName": ""}), ErrorCode::ArgumentInvalid),
            (json!({"methodName": "m", "responseTimeoutInSeconds": 4}), ErrorCode::ArgumentInvalid),
            (json!({"methodName": "m", "responseTimeoutInSeconds": 301}), ErrorCode::ArgumentInvalid),
            (json!({"methodName": "m", "responseTimeoutInSeconds": 5.5}), ErrorCode::ArgumentInvalid),
            (json!({"methodName": "m", "connectTimeoutInSeconds": -1}), ErrorCode::ArgumentInvalid),
            (json!({"methodName": "m", "connectTimeoutInSeconds": "soon"}), ErrorCode::ArgumentInvalid),
            // 128 KiB and a byte, with the quotes.
            (json!({"methodName": "m", "payload": "x".repeat(131_071)}), ErrorCode::MessageTooLarge),
        ] {
            assert_eq!(MethodCall::parse(body).unwrap_err().code, code);
        }
        assert!(MethodCall::parse(json!({"methodName": "m", "payload": "x".repeat(131_070)})).is_ok());
    }

    /// The documented limits, both ends of each.
    #[test]
    fn what_is_just_within_the_limits_is_taken() {
        let call = |body: Value| MethodCall::parse(body).map(|call| call.response_timeout.as_secs());
        for (key, seconds, taken) in [
            ("responseTimeoutInSeconds", 5, Ok(5)),
            ("responseTimeoutInSeconds", 300, Ok(300)),
            ("timeoutInSeconds", 300, Ok(300)),
            ("connectTimeoutInSeconds", 0, Ok(30)),
            ("connectTimeoutInSeconds", 300, Ok(30)),
            ("connectTimeoutInSeconds", 301, Err("connectTimeoutInSeconds ranges from 0 to 300")),
            ("timeoutInSeconds", 4, Err("timeoutInSeconds ranges from 5 to 300")),
        ] {
            let found = call(json!({"methodName": "m", key: seconds}));
            assert_eq!(
                found.as_ref().map_err(|error| error.message.as_str()),
                taken.as_ref().map_err(|e| *e)
            );
        }
        // The newer key counts where both are given; null is as if it were absent.
        let both = json!({"methodName": "m", "responseTimeoutInSeconds": 7, "timeoutInSeconds": 9});
        assert_eq!(call(both).unwrap(), 7);
        assert_eq!(call(json!({"methodName": "m", "responseTimeoutInSeconds": null})).unwrap(), 30);
        for (length, taken) in [(1, true), (128, true), (129, false)] {
            assert_eq!(call(json!({"methodName": "m".repeat(length)})).is_ok(), taken, "{length}");
        }
    }
}
