//! What the hub itself has to tell of devices, for whoever looks on at the time (the
//! last ones are kept for the page in the browser): changes of twins, and what becomes of identities and their connections.
//!
//! Source: "Create and read IoT Hub non-telemetry events"; the bodies of twin changes
//! hold what has changed.

use std::sync::Arc;

use iotdm_proto::Identity;
use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::clock::now;
use crate::recent::Recent;

/// How many a slow reader may be behind before it misses some.
const BACKLOG: usize = 1024;

/// What a notification is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// A twin.
    Twin,
    /// An identity that was created or deleted.
    Identity,
    /// A connection that began or ended.
    Connection,
}

/// The stream of notifications.
pub struct Notifications(broadcast::Sender<(About, Value)>, Arc<Recent>);

impl Notifications {
    /// A stream whose last notifications `recent` keeps.
    pub fn new(recent: Arc<Recent>) -> Self {
        Notifications(broadcast::channel(BACKLOG).0, recent)
    }

    /// Tells of an `operation` (`updateTwin`) on a device or module of the hub
    /// `hub`.
    pub fn note(&self, hub: &str, about: About, id: &Identity, operation: &str, body: Value) {
        let notification = json(hub, about, id, operation, body);
        self.1.keep(&notification);
        // An error only means that nobody looks on.
        let _ = self.0.send((about, notification));
    }

    /// The notifications from now on.
    pub fn listen(&self) -> broadcast::Receiver<(About, Value)> {
        self.0.subscribe()
    }
}

/// A notification as readers see it, in the form of telemetry.
fn json(hub: &str, about: About, id: &Identity, operation: &str, body: Value) -> Value {
    let now = now();
    let (source, schema) = match about {
        About::Twin => ("twinChangeEvents", "twinChangeNotification"),
        About::Identity => ("deviceLifecycleEvents", "deviceLifecycleNotification"),
        About::Connection => ("deviceConnectionStateEvents", "deviceConnectionStateNotification"),
    };
    let mut json = json!({
        "deviceId": id.device.as_str(),
        "enqueuedTime": now,
        "properties": {
            "hubName": hub,
            "deviceId": id.device.as_str(),
            "operationTimestamp": now,
            "opType": operation,
            "iothub-message-schema": schema,
        },
        "systemProperties": { "iothub-message-source": source },
        "body": body,
    });
    if let (Some(module), Some(fields)) = (&id.module, json.as_object_mut()) {
        fields.insert("moduleId".into(), module.as_str().into());
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_names_its_source() {
        let shown = json("h", About::Twin, &"gw1/m".parse().unwrap(), "updateTwin", json!({"version": 3}));
        assert_eq!(shown["systemProperties"]["iothub-message-source"], "twinChangeEvents");
        assert_eq!(shown["properties"]["opType"], "updateTwin");
        assert_eq!((&shown["moduleId"], &shown["body"]["version"]), (&json!("m"), &json!(3)));
    }

    #[test]
    fn what_nobody_listens_to_is_kept() {
        let recent = Arc::<Recent>::default();
        let none = Notifications::new(recent.clone());
        none.note("h", About::Identity, &"gw1".parse().unwrap(), "x", json!({}));
        assert!(recent.listen().0[0].contains("deviceLifecycleEvents"));
    }
}
