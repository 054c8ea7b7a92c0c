//! The part of the twin's desired properties that is ours, put in order.
//!
//! Notifications are sent to connected subscribers only and are never queued,
//! so the whole is read after each connect and what is older is dropped.
//! Source: "Understand and use device twins in IoT Hub".

use iotdm_proto::twin::{Object, merge};
use serde::Deserialize;
use serde_json::Value;

const REBOOT: &str = "reboot";

/// What is known of `properties.desired.reboot`.
#[derive(Debug, Default)]
pub struct Desired {
    /// Just the one property, if it is there.
    values: Object,
    /// The version of the desired properties, once they were read.
    version: Option<u64>,
    /// The newest version that was told of.
    newest: u64,
}

/// What came of a message.
#[derive(Debug, PartialEq)]
pub enum Update {
    /// This is what is desired now.
    Reboot {
        /// `properties.desired.reboot`.
        desired: Option<Value>,
        /// `properties.reported.reboot`, if the whole twin was read.
        reported: Option<Value>,
    },
    /// Nothing that is newer.
    Nothing,
    /// Something was missed: the twin has to be read anew.
    Missed,
}

/// A twin as the hub sends it to its device, as far as it matters here.
#[derive(Deserialize)]
struct Twin {
    desired: Object,
    #[serde(default)]
    reported: Object,
}

impl Desired {
    /// The connection is gone; what changes from here on is not told.
    pub fn disconnected(&mut self) {
        *self = Desired::default();
    }

    /// Takes the whole twin.
    pub fn read(&mut self, twin: &[u8]) -> Update {
        let Ok(mut twin) = serde_json::from_slice::<Twin>(twin) else { return Update::Nothing };
        let version = twin.desired.get("$version").and_then(Value::as_u64).unwrap_or(0);
        if version < self.newest {
            return Update::Missed;
        }
        self.version = Some(version);
        self.values = twin.desired.remove_entry(REBOOT).into_iter().collect();
        Update::Reboot { desired: self.values.get(REBOOT).cloned(), reported: twin.reported.remove(REBOOT) }
    }

    /// Takes a change that led to `version`.
    pub fn patched(&mut self, version: u64, patch: &[u8]) -> Update {
        self.newest = self.newest.max(version);
        match self.version {
            // It comes with the twin that was asked for.
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
                Update::Reboot { desired: self.values.get(REBOOT).cloned(), reported: None }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn twin(version: u64, reboot: &str) -> Vec<u8> {
        format!(r#"{{"desired":{{"led":1{reboot},"$version":{version}}},"reported":{{"reboot":{{"id":"r"}},"$version":9}}}}"#)
            .into_bytes()
    }

    fn desired(reboot: Value) -> Update {
        Update::Reboot { desired: (!reboot.is_null()).then_some(reboot), reported: None }
    }

    #[test]
    fn the_twin_and_then_each_change_in_order() {
        let mut ours = Desired::default();
        let reported = Some(json!({"id": "r"}));
        let expected = Update::Reboot { desired: Some(json!({"id": "a"})), reported };
        assert_eq!(ours.read(&twin(4, r#","reboot":{"id":"a"}"#)), expected);
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
        assert_eq!(ours.read(&twin(4, "")), Update::Missed);
        assert!(matches!(ours.read(&twin(5, "")), Update::Reboot { desired: None, .. }));
        assert_eq!(ours.patched(7, br#"{"reboot":{"id":"b"}}"#), Update::Missed);
        assert_eq!(ours.read(b"<html>"), Update::Nothing);
        assert!(matches!(ours.read(&twin(7, "")), Update::Reboot { .. }));
        assert_eq!(ours.patched(8, b"<html>"), Update::Missed);
        ours.disconnected();
        assert_eq!(ours.patched(1, br#"{"reboot":{"id":"c"}}"#), Update::Nothing);
    }
}
