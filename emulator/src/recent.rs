//! The last events of the hub, telemetry and notifications alike, as the page in the
//! browser shows them to who comes later.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::broadcast;

/// How many events are kept.
const KEPT: usize = 100;

/// The largest event that is kept as it is, in bytes of JSON: all of them together
/// take no more than some megabytes.
const LARGEST: usize = 32 * 1024;

/// How many events a slow reader may be behind before it misses some.
const BACKLOG: usize = 256;

/// The last events, each as one line of JSON.
pub struct Recent {
    kept: Mutex<VecDeque<Arc<str>>>,
    told: broadcast::Sender<Arc<str>>,
}

impl Default for Recent {
    fn default() -> Self {
        Recent { kept: Mutex::default(), told: broadcast::channel(BACKLOG).0 }
    }
}

impl Recent {
    /// Keeps an event, in the form of telemetry, and tells it to whoever looks on.
    pub fn keep(&self, event: &Value) {
        let mut text = event.to_string();
        if text.len() > LARGEST {
            text = without_body(event, text.len()).to_string();
        }
        let text: Arc<str> = text.into();
        let mut kept = self.lock();
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(text.clone());
        // Under the lock, so that nobody gets an event twice or never. An error only
        // means that nobody looks on.
        let _ = self.told.send(text);
    }

    /// The events that are kept, the oldest first, and those from now on.
    pub fn listen(&self) -> (Vec<Arc<str>>, broadcast::Receiver<Arc<str>>) {
        let kept = self.lock();
        (kept.iter().cloned().collect(), self.told.subscribe())
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<str>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An event of `length` bytes, with a remark in the place of what makes it large.
fn without_body(event: &Value, length: usize) -> Value {
    let mut short = json!({ "body": format!("({length} bytes, too many to show here)") });
    for name in ["deviceId", "moduleId", "enqueuedTime"] {
        if let Some(value) = event.get(name) {
            crate::device::extend(&mut short, json!({ name: value }));
        }
    }
    // What kind of event it is, which tells a change of a twin from telemetry.
    for (place, name) in [("systemProperties", "iothub-message-source"), ("properties", "opType")] {
        if let Some(value) = event.get(place).and_then(|values| values.get(name)) {
            crate::device::extend(&mut short, json!({ place: { name: value } }));
        }
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_ones_are_kept_and_none_is_told_twice() {
        let recent = Recent::default();
        for number in 0..=KEPT {
            recent.keep(&json!({ "body": number }));
        }
        let (kept, mut told) = recent.listen();
        assert_eq!((kept.len(), &*kept[0]), (KEPT, r#"{"body":1}"#));
        recent.keep(&json!({ "deviceId": "gw1", "body": "x".repeat(LARGEST) }));
        let large = told.recv().await.unwrap();
        assert!(large.contains("gw1") && large.contains("bytes") && large.len() < 100, "{large}");
        assert!(told.try_recv().is_err());
    }

    #[test]
    fn a_large_change_of_a_twin_is_still_told_as_one() {
        let event = json!({
            "body": "x".repeat(LARGEST),
            "systemProperties": { "iothub-message-source": "twinChangeEvents", "correlation-id": "c" },
            "properties": { "opType": "updateTwin", "more": "m" },
        });
        let short = without_body(&event, LARGEST);
        assert_eq!(short["systemProperties"], json!({ "iothub-message-source": "twinChangeEvents" }));
        assert_eq!(short["properties"], json!({ "opType": "updateTwin" }));
    }
}
