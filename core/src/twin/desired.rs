//! The part of the twin's desired properties that is ours, put in order.
//!
//! Notifications are sent to connected subscribers only and are never queued,
//! so the whole is read after each connect and what is older is dropped.
//! Source: "Understand and use device twins in IoT Hub".

use iotdm_proto::twin::{Object, merge};
use serde_json::Value;

const REBOOT: &str = "reboot";

/// What is known of `properties.desired.reboot`.
#[derive(Debug, Default)]
pub(super) struct Desired {
    /// Just the one property, if it is there.
    values: Object,
    /// The version of the desired properties, once they were read.
    version: Option<u64>,
    /// The newest version that the hub has told of.
    newest: u64,
}

/// What came of a message.
#[derive(Debug, PartialEq)]
pub(super) enum Update {
    /// `properties.desired.reboot` as it is now, if it is there.
    Reboot(Option<Value>),
    /// Nothing that is newer.
    Nothing,
    /// Something was missed: the twin has to be read anew.
    Missed,
}

impl Desired {
    /// The connection is gone; what changes from here on is not told.
    pub(super) fn disconnected(&mut self) {
        *self = Desired::default();
    }

    /// Takes the whole section.
    pub(super) fn read(&mut self, mut desired: Object) -> Update {
        let version = desired.get("$version").and_then(Value::as_u64).unwrap_or(0);
        if version < self.newest {
            return Update::Missed;
        }
        self.version = Some(version);
        self.values = desired.remove_entry(REBOOT).into_iter().collect();
        Update::Reboot(self.values.get(REBOOT).cloned())
    }

    /// Takes a change that led to `version`.
    pub(super) fn patched(&mut self, version: u64, patch: &[u8]) -> Update {
        self.newest = self.newest.max(version);
        match self.version {
            // The change comes with the twin that was asked for.
            None => Update::Nothing,
            Some(known) if version <= known => Update::Nothing,
            Some(known) if version > known + 1 => Update::Missed,
            Some(_) => {
                let Ok(mut patch) = serde_json::from_slice::<Object>(patch) else { return Update::Missed };
                self.version = Some(version);
                let ours: Object = patch.remove_entry(REBOOT).into_iter().collect();
                if ours.is_empty() {
                    return Update::Nothing;
                }
                merge(&mut self.values, &ours);
                Update::Reboot(self.values.get(REBOOT).cloned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn section(version: u64, reboot: Value) -> Object {
        let mut section = Object::new();
        section.insert("led".to_owned(), json!(1));
        section.insert("$version".to_owned(), json!(version));
        if !reboot.is_null() {
            section.insert("reboot".to_owned(), reboot);
        }
        section
    }

    fn desired(reboot: Value) -> Update {
        Update::Reboot((!reboot.is_null()).then_some(reboot))
    }

    #[test]
    fn the_twin_and_then_each_change_in_order() {
        let mut ours = Desired::default();
        let expected = Update::Reboot(Some(json!({"id": "a"})));
        assert_eq!(ours.read(section(4, json!({"id": "a"}))), expected);
        assert_eq!(ours.patched(4, br#"{"reboot":null,"$version":4}"#), Update::Nothing, "is in the twin");
        assert_eq!(ours.patched(5, br#"{"led":2,"$version":5}"#), Update::Nothing);
        let changed = ours.patched(6, br#"{"reboot":{"reason":"r"},"$version":6}"#);
        assert_eq!(changed, desired(json!({"id": "a", "reason": "r"})));
        assert_eq!(ours.patched(7, br#"{"reboot":null,"$version":7}"#), desired(Value::Null));
        assert_eq!(ours.patched(8, br#"{"reboot":7,"$version":8}"#), desired(json!(7)));
    }

    #[test]
    fn what_was_missed_is_read_anew() {
        let mut ours = Desired::default();
        // Told before the twin that was asked for has come, and newer than it.
        assert_eq!(ours.patched(5, br#"{"reboot":null}"#), Update::Nothing);
        assert_eq!(ours.read(section(4, Value::Null)), Update::Missed);
        assert!(matches!(ours.read(section(5, Value::Null)), Update::Reboot(None)));
        assert_eq!(ours.patched(7, br#"{"reboot":{"id":"b"}}"#), Update::Missed);
        assert!(matches!(ours.read(section(7, Value::Null)), Update::Reboot(_)));
        assert_eq!(ours.patched(8, b"<html>"), Update::Missed);
    }

    #[test]
    fn after_a_disconnection_only_the_twin_that_is_read_next_counts() {
        let mut ours = Desired::default();
        assert_eq!(ours.read(section(7, json!({"id": "a"}))), desired(json!({"id": "a"})));
        ours.disconnected();
        // Whatever was missed meanwhile: the next change alone does not tell.
        assert_eq!(ours.patched(8, br#"{"reboot":{"reason":"r"}}"#), Update::Nothing);
        assert_eq!(ours.read(section(8, json!({"id": "b"}))), desired(json!({"id": "b"})));
        ours.disconnected();
        // A device that was deleted and made again counts from the beginning.
        assert_eq!(ours.read(section(1, Value::Null)), desired(Value::Null));
        assert_eq!(ours.patched(2, br#"{"reboot":{"id":"c"}}"#), desired(json!({"id": "c"})));
    }
}
