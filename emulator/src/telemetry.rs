//! Telemetry: messages from devices, for whoever looks on at the time. Of what
//! nobody looks at, the last ones are kept for the page in the browser.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use iotdm_proto::Identity;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use tokio::sync::broadcast;

use crate::clock::now;
use crate::recent::Recent;

/// How many messages a slow reader may be behind before it misses some: all
/// of them are kept in memory.
const BACKLOG: usize = 1024;

/// The stream of messages that devices send.
pub struct Telemetry(broadcast::Sender<Value>, Arc<Recent>);

impl Telemetry {
    /// A stream whose last messages `recent` keeps.
    pub fn new(recent: Arc<Recent>) -> Self {
        Telemetry(broadcast::channel(BACKLOG).0, recent)
    }

    /// Passes a message of `sender` on; `bag` are its properties, as the topic has
    /// them.
    pub fn note(&self, sender: &Identity, bag: &str, payload: &[u8]) {
        let message = json(sender, bag, payload);
        self.1.keep(&message);
        // An error only means that nobody looks on.
        let _ = self.0.send(message);
    }

    /// The messages from now on.
    pub fn listen(&self) -> broadcast::Receiver<Value> {
        self.0.subscribe()
    }
}

/// The properties `bag` with `pair`, a `key=value`, added.
pub fn with(bag: &str, pair: &str) -> String {
    if bag.is_empty() { pair.to_owned() } else { format!("{bag}&{pair}") }
}

/// A message as readers see it. Properties whose names begin with `$.` or
/// `iothub-` are system properties and stand apart. The payload is shown as JSON
/// if it is JSON, else as text, else in base64.
fn json(sender: &Identity, bag: &str, payload: &[u8]) -> Value {
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let (mut properties, mut system) = (Map::new(), Map::new());
    for pair in bag.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (key, value) = (decode(key), Value::from(decode(value)));
        if key.starts_with("$.") || key.starts_with("iothub-") {
            system.insert(key, value);
        } else {
            properties.insert(key, value);
        }
    }
    let mut event = json!({
        "deviceId": sender.device.as_str(),
        "enqueuedTime": now(),
        "properties": properties,
        "systemProperties": system,
    });
    let Value::Object(fields) = &mut event else { return event };
    if let Some(module) = &sender.module {
        fields.insert("moduleId".into(), module.as_str().into());
    }
    match (serde_json::from_slice::<Value>(payload), std::str::from_utf8(payload)) {
        (Ok(value), _) => fields.insert("body".into(), value),
        (_, Ok(text)) => fields.insert("body".into(), text.into()),
        _ => fields.insert("bodyBase64".into(), STANDARD.encode(payload).into()),
    };
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_and_bodies_of_each_kind() {
        let event = |sender: &str, bag, payload: &[u8]| json(&sender.parse().unwrap(), bag, payload);
        let full = event("gw1/m", "%24.mid=1&a%20b=c%3Dd&bare", br#"{"t":1}"#);
        assert_eq!((&full["deviceId"], &full["moduleId"]), (&json!("gw1"), &json!("m")));
        assert_eq!(full["properties"], json!({"a b": "c=d", "bare": ""}));
        assert_eq!(full["systemProperties"], json!({"$.mid": "1"}));
        assert_eq!(full["body"], json!({"t": 1}));
        assert_eq!(event("gw1", "", b"hello")["body"], "hello");
        let binary = event("gw1", "", &[0xff, 0]);
        assert_eq!((binary.get("body"), &binary["bodyBase64"]), (None, &json!("/wA=")));
    }
}
