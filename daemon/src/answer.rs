//! The replies to direct method calls.

use serde_json::{Value, json};

use crate::effect::{Effect, Note};
use crate::event::Refusal;

/// A reply that grants what was asked.
pub fn reply(rid: &str, body: Value) -> Effect {
    Effect::Reply { rid: rid.to_owned(), status: 200, body }
}

/// `{"error":{"code","message",…}}` with the keys of `details`, and a note.
pub fn refuse(rid: &str, status: u16, code: &'static str, message: &str, details: Value) -> Vec<Effect> {
    let mut error = json!({ "code": code, "message": message });
    if let (Some(error), Value::Object(details)) = (error.as_object_mut(), details) {
        error.extend(details);
    }
    vec![
        Effect::Note(Note::Refused { status, code, message: message.to_owned() }),
        Effect::Reply { rid: rid.to_owned(), status, body: json!({ "error": error }) },
    ]
}

/// The same refusal for several calls.
pub fn refuse_all(rids: &[String], refusal: &Refusal) -> Vec<Effect> {
    let (status, code, details) = match refusal {
        Refusal::LogindUnavailable(_) => (503, "logindUnavailable", json!({})),
        Refusal::NotAuthorized(_) => (503, "notAuthorized", json!({})),
        Refusal::Forbidden => (403, "forbidden", json!({})),
        Refusal::RateLimited { wait, .. } => {
            let seconds = wait.as_millis().div_ceil(1000);
            (429, "rateLimited", json!({ "retryAfterSeconds": seconds }))
        }
        Refusal::Blocked(holders) => (423, "blockedByInhibitor", json!({ "inhibitors": holders })),
    };
    rids.iter().flat_map(|rid| refuse(rid, status, code, &refusal.message(), details.clone())).collect()
}
