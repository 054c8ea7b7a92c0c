//! A device's reply to a direct method, read leniently: the one place of this
//! program that knows where in a reply of the daemon what stands.
//!
//! The daemon's own replies are in [`iotdm_proto::reply`]. Somebody else's
//! program may answer the same methods otherwise.

use iotdm_proto::ErrorCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The least status of a reply by which a device refuses.
const REFUSALS_FROM: i64 = 400;

/// A device's reply to a call of a direct method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MethodReply {
    /// The device's status, which is like HTTP's: 200 for granted, 400 and more
    /// for a refusal.
    pub status: i64,
    /// What the device says, `null` if nothing.
    #[serde(default)]
    pub payload: Value,
}

impl MethodReply {
    /// Whether the device refused.
    pub fn is_refusal(&self) -> bool {
        self.status >= REFUSALS_FROM
    }

    /// That the device refused, and why, in one clause for people.
    pub fn refusal(&self) -> String {
        let text = |pointer: &str| self.payload.pointer(pointer).and_then(Value::as_str);
        match (text("/error/code"), text("/error/message")) {
            (Some(code), Some(message)) => {
                format!("the device refused with status {}: {code}, {message}", self.status)
            }
            _ => format!("the device refused with status {}: {}", self.status, self.payload),
        }
    }

    /// Whether the device refused since it is going down, for whatever other reason.
    pub fn says_that_it_goes_down(&self) -> bool {
        let code = self.payload.pointer("/error/code").and_then(Value::as_str);
        self.is_refusal() && code == Some(ErrorCode::ShuttingDown.as_str())
    }

    /// The id of the request that the reply is about.
    pub fn request_id(&self) -> Option<&str> {
        self.text("id")
    }

    /// What the device grants, such as `accepted` or `scheduled`.
    pub fn granted(&self) -> Option<&str> {
        self.text("status")
    }

    /// What the device grants, in a sentence for people.
    pub fn message(&self) -> Option<&str> {
        self.text("message")
    }

    /// The boot that ran when the device replied.
    pub fn boot_id(&self) -> Option<&str> {
        self.text("bootId")
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.payload.get(key)?.as_str()
    }
}

#[cfg(test)]
mod tests {
    use iotdm_proto::reply::{GRANTED, Granted, RebootReply};
    use serde_json::json;

    use super::*;

    #[test]
    fn every_key_that_is_read_is_one_that_the_daemon_writes() {
        let granted = RebootReply {
            id: "r-1".into(),
            status: Granted::Accepted,
            message: "m".into(),
            not_before: None,
            boot_id: "b".into(),
            preflight: Vec::new(),
            if_it_hangs: None,
            ignored: Vec::new(),
        };
        let reply = MethodReply { status: GRANTED.into(), payload: json!(granted) };
        assert!(!reply.is_refusal());
        assert_eq!(
            (reply.request_id(), reply.granted(), reply.message(), reply.boot_id()),
            (Some("r-1"), Some("accepted"), Some("m"), Some("b"))
        );
    }

    #[test]
    fn each_error_of_the_daemon_is_a_refusal() {
        for code in ErrorCode::ALL {
            let payload = json!({"error": {"code": code, "message": "m"}});
            let reply = MethodReply { status: code.status().into(), payload };
            assert!(reply.is_refusal(), "{code}");
            let expected = format!("the device refused with status {}: {code}, m", code.status());
            assert_eq!(reply.refusal(), expected);
        }
        // The least that is one, whatever the payload says.
        for (status, refuses) in [(200, false), (399, false), (400, true), (-1, false)] {
            assert_eq!(MethodReply { status, payload: json!(null) }.is_refusal(), refuses, "{status}");
        }
        let other = MethodReply { status: 500, payload: json!("no") };
        assert_eq!(other.refusal(), "the device refused with status 500: \"no\"");
    }
}
