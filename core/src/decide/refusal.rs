//! Why a reboot is refused, and how a call is told so.

use std::time::Duration;

use iotdm_proto::reply::{GRANTED, Inhibitor};
use iotdm_proto::report::{RebootError, RebootErrorCode};
use iotdm_proto::{ErrorCode, Time};
use serde::Serialize;
use serde_json::{Value, json};

use super::effect::{Effect, Note};

/// Why the machine cannot be rebooted now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is no logind, or none that can reboot; the sentence about it.
    LogindUnavailable(String),
    /// polkit does not let the daemon; the sentence about it.
    NotAuthorized(String),
    /// Somebody holds block inhibitors for shutdown.
    Blocked(Vec<Inhibitor>),
    /// Inhibitors are not to be passed over on this device.
    Forbidden,
    /// A reboot now would be too often, or too soon after the last boot.
    RateLimited {
        /// When it would be accepted.
        until: Time,
        /// How long that is from now.
        wait: Duration,
    },
}

impl Refusal {
    /// How a request that nobody waits for is reported to have failed.
    pub(super) fn error(&self) -> RebootError {
        let code = match self {
            Refusal::LogindUnavailable(_) | Refusal::NotAuthorized(_) => RebootErrorCode::LogindRefused,
            Refusal::Blocked(_) => RebootErrorCode::BlockedByInhibitor,
            Refusal::Forbidden | Refusal::RateLimited { .. } => RebootErrorCode::Forbidden,
        };
        RebootError { code, message: self.message() }
    }

    /// The sentence for people.
    pub(super) fn message(&self) -> String {
        match self {
            Refusal::LogindUnavailable(why) | Refusal::NotAuthorized(why) => why.clone(),
            Refusal::Forbidden => "this device does not let operators override inhibitors \
                                   (reboot.allow_inhibitor_override)"
                .to_owned(),
            Refusal::RateLimited { until, .. } => {
                format!(
                    "this device's limits (reboot.max_per_hour, reboot.min_uptime) allow a reboot from {until} on"
                )
            }
            Refusal::Blocked(holders) => {
                let holder = |holder: &Inhibitor| format!("{} ({})", holder.who, holder.why);
                let holders: Vec<String> = holders.iter().map(holder).collect();
                format!("shutdown is inhibited by {}", holders.join(", "))
            }
        }
    }

    fn code(&self) -> ErrorCode {
        match self {
            Refusal::LogindUnavailable(_) => ErrorCode::LogindUnavailable,
            Refusal::NotAuthorized(_) => ErrorCode::NotAuthorized,
            Refusal::Forbidden => ErrorCode::Forbidden,
            Refusal::RateLimited { .. } => ErrorCode::RateLimited,
            Refusal::Blocked(_) => ErrorCode::BlockedByInhibitor,
        }
    }

    /// What stands in the error beside code and message.
    fn details(&self) -> Value {
        match self {
            Refusal::RateLimited { wait, .. } => {
                json!({ "retryAfterSeconds": wait.as_millis().div_ceil(1000) })
            }
            Refusal::Blocked(holders) => json!({ "inhibitors": holders }),
            Refusal::LogindUnavailable(_) | Refusal::NotAuthorized(_) | Refusal::Forbidden => json!({}),
        }
    }
}

/// The reply that grants the call `rid`.
pub(super) fn grant(rid: &str, body: &impl Serialize) -> Effect {
    Effect::Reply { rid: rid.to_owned(), status: GRANTED, body: json!(body) }
}

/// The reply that refuses the call `rid`, with the keys of `details` beside
/// code and message, and a note for the administrator.
pub(super) fn refuse(rid: &str, code: ErrorCode, message: &str, details: Value) -> Vec<Effect> {
    let mut error = json!({ "code": code, "message": message });
    if let (Some(error), Value::Object(details)) = (error.as_object_mut(), details) {
        error.extend(details);
    }
    vec![
        Effect::Note(Note::Refused { code, message: message.to_owned() }),
        Effect::Reply { rid: rid.to_owned(), status: code.status(), body: json!({ "error": error }) },
    ]
}

/// The same refusal for several calls.
pub(super) fn refuse_all(rids: &[String], refusal: &Refusal) -> Vec<Effect> {
    let refused = |rid: &String| refuse(rid, refusal.code(), &refusal.message(), refusal.details());
    rids.iter().flat_map(refused).collect()
}
