//! Direct methods: from the hub to the device and back.
//!
//! A call reaches its device at most once. `connectTimeoutInSeconds` is how
//! long to wait for the device to come and listen, `responseTimeoutInSeconds`
//! how long for its answer after that.

use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::{Instant, timeout, timeout_at};

use crate::error::{Code, HubError};
use crate::hub::Hub;
use crate::identity::Identity;
use crate::link::{Call, CallEnd};

/// The largest payload, in bytes of JSON.
const MAX_PAYLOAD: usize = 128 * 1024;

/// A call as a service asks for it.
#[derive(Debug, PartialEq)]
pub struct Method {
    name: String,
    payload: Value,
    response_timeout: Duration,
    connect_timeout: Duration,
}

/// Calls a method of `id`; the device's own status and payload.
pub async fn call(hub: &Hub, id: &Identity, method: &Method) -> Result<(i64, Value), HubError> {
    hub.registry.read(id, |_| ())?;
    let mut sent = deliver(hub, id, method).await?;
    match timeout(method.response_timeout, &mut sent.end).await {
        Ok(Ok(CallEnd::Reply(status, payload))) => Ok((status, payload)),
        Ok(Ok(CallEnd::Replaced)) => Err(Code::ConnectionForcefullyClosedOnNewConnection
            .because("the device opened a new connection before it answered")),
        Ok(Err(_)) => Err(Code::DeviceConnectionClosedRemotely
            .because("the device's connection ended before it answered; it may have carried the method out")),
        Err(_) => {
            hub.links.forget(id, &sent.rid);
            Err(Code::GatewayTimeout.because("timed out waiting for the response from the device"))
        }
    }
}

/// Sends the call as soon as the device is connected and listens.
async fn deliver(hub: &Hub, id: &Identity, method: &Method) -> Result<Call, HubError> {
    let deadline = Instant::now() + method.connect_timeout;
    let mut changes = hub.links.watch();
    loop {
        if let Some(call) = hub.links.call(id, &method.name, &method.payload, || hub.faults.delivery(id)) {
            return Ok(call);
        }
        if !matches!(timeout_at(deadline, changes.changed()).await, Ok(Ok(()))) {
            return Err(Code::DeviceNotOnline.because("timed out waiting for the device to connect"));
        }
    }
}

impl Method {
    /// Reads a service's body: `{"methodName","payload",…}`.
    pub fn parse(body: Value) -> Result<Self, HubError> {
        let Value::Object(mut body) = body else {
            return Err(Code::ArgumentInvalid.because("the body is not a JSON object"));
        };
        let name = match body.get("methodName") {
            Some(Value::String(name)) if is_method_name(name) => name.clone(),
            _ => return Err(Code::ArgumentInvalid.because("methodName is missing or not a method name")),
        };
        let old = seconds(&body, "timeoutInSeconds", 5..=300)?;
        let response = seconds(&body, "responseTimeoutInSeconds", 5..=300)?.or(old).unwrap_or(30);
        let connect = seconds(&body, "connectTimeoutInSeconds", 0..=300)?.unwrap_or(0);
        let payload = body.remove("payload").unwrap_or(Value::Null);
        if payload.to_string().len() > MAX_PAYLOAD {
            let message = format!("the payload has more than {MAX_PAYLOAD} bytes");
            return Err(Code::MessageTooLarge.because(message));
        }
        Ok(Method {
            name,
            payload,
            response_timeout: Duration::from_secs(response),
            connect_timeout: Duration::from_secs(connect),
        })
    }
}

/// A number of seconds, which some clients send as a string.
fn seconds(
    body: &Map<String, Value>,
    key: &str,
    range: std::ops::RangeInclusive<u64>,
) -> Result<Option<u64>, HubError> {
    let seconds = match body.get(key) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(text)) => text.parse().ok(),
        Some(_) => None,
    };
    match seconds.filter(|seconds| range.contains(seconds)) {
        Some(seconds) => Ok(Some(seconds)),
        None => {
            let message = format!("{key} ranges from {} to {}", range.start(), range.end());
            Err(Code::ArgumentInvalid.because(message))
        }
    }
}

/// Printable ASCII without the characters that mean something in HTTP headers
/// and topics. The limit of 128 is the documented one for names.
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
        let method = |payload, response, connect| Method {
            name: "rebootDevice".into(),
            payload,
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
            assert_eq!(Method::parse(body).unwrap(), expected);
        }
    }

    #[test]
    fn each_bad_call_is_refused() {
        for (body, code) in [
            (json!([]), Code::ArgumentInvalid),
            (json!({}), Code::ArgumentInvalid),
            (json!({"methodName": "a b"}), Code::ArgumentInvalid),
            (json!({"methodName": "a/b"}), Code::ArgumentInvalid),
            (json!({"methodName": ""}), Code::ArgumentInvalid),
            (json!({"methodName": "m", "responseTimeoutInSeconds": 4}), Code::ArgumentInvalid),
            (json!({"methodName": "m", "responseTimeoutInSeconds": 301}), Code::ArgumentInvalid),
            (json!({"methodName": "m", "responseTimeoutInSeconds": 5.5}), Code::ArgumentInvalid),
            (json!({"methodName": "m", "connectTimeoutInSeconds": -1}), Code::ArgumentInvalid),
            (json!({"methodName": "m", "connectTimeoutInSeconds": "soon"}), Code::ArgumentInvalid),
            (json!({"methodName": "m", "payload": "x".repeat(MAX_PAYLOAD)}), Code::MessageTooLarge),
        ] {
            assert_eq!(Method::parse(body).unwrap_err().code, code);
        }
    }
}
