//! What the twin remembers of the daemon where the daemon's own record is gone.

use iotdm_proto::Time;
use iotdm_proto::health::Health;
use iotdm_proto::report::{Boot, Reboot};
use iotdm_proto::twin::Object;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The daemon's reported properties as they stood in the twin before this run
/// reported. What cannot be understood is absent, except for the id of the
/// request: that has to be known in any case.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    /// `rebootTime`.
    pub reboot_time: Option<Time>,
    /// `reboot`.
    pub reboot: Option<Reboot>,
    /// `reboot.id`, also where the rest of `reboot` cannot be understood.
    pub reboot_id: Option<String>,
    /// `boot`.
    pub boot: Option<Boot>,
    /// `health`.
    pub health: Option<Health>,
    /// `rebootRequired.askedFor`.
    pub asked_for: Option<String>,
    /// `agent.lastWish`.
    pub last_wish: Option<String>,
}

impl Memory {
    /// Reads `properties.reported`.
    pub fn read(reported: &Object) -> Self {
        let text = |object: &str, key: &str| {
            reported.get(object)?.get(key).and_then(Value::as_str).map(str::to_owned)
        };
        Memory {
            reboot_time: read(reported, "rebootTime"),
            reboot: read(reported, "reboot"),
            reboot_id: text("reboot", "id"),
            boot: read(reported, "boot"),
            health: read(reported, "health"),
            asked_for: text("rebootRequired", "askedFor"),
            last_wish: text("agent", "lastWish"),
        }
    }
}

fn read<T: DeserializeOwned>(reported: &Object, key: &str) -> Option<T> {
    serde_json::from_value(reported.get(key)?.clone()).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_cannot_be_understood_is_absent_but_for_the_id() {
        let reported = json!({
            "rebootTime": "2026-11-22T18:36:07.412Z",
            "reboot": {"id": "r", "status": "hibernating"},
            "boot": 7, "agent": {"lastWish": "w"}, "temperature": 21, "rebootRequired": {"askedFor": "d"},
        });
        let memory = Memory::read(reported.as_object().unwrap());
        assert_eq!(memory.reboot_time, Some("2026-11-22T18:36:07.412Z".parse().unwrap()));
        assert_eq!((memory.reboot, memory.reboot_id.as_deref()), (None, Some("r")));
        assert_eq!((memory.boot, memory.last_wish.as_deref()), (None, Some("w")));
        assert_eq!(memory.asked_for.as_deref(), Some("d"));
        assert_eq!(Memory::read(&Object::new()), Memory::default());
    }
}
