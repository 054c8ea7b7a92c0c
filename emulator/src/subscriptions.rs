//! The topic filters that a device may subscribe to.
//!
//! Any other filter makes the hub close the connection. Source: "Communicate
//! with an IoT hub using the MQTT protocol".

use iotdm_proto::topic::{DESIRED_PATCHES, METHOD_CALLS, TWIN_RESPONSES};
use serde::{Deserialize, Serialize};

use crate::identity::Identity;

/// What a session is subscribed to. Twin messages and method calls are delivered
/// at QoS 0, which the official clients accept whatever QoS they asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscriptions {
    /// Replies to twin requests.
    pub twin_responses: bool,
    /// Changes of desired properties.
    pub desired_patches: bool,
    /// Method calls.
    pub method_calls: bool,
    /// Cloud-to-device messages; of a module, its inputs, to which the emulator
    /// sends nothing.
    pub messages: bool,
}

impl Subscriptions {
    /// The switch that the topic filter `filter` turns on and off; `None` when
    /// `device`, which may be a module, may not subscribe to that filter.
    pub fn switch(&mut self, device: &Identity, filter: &str) -> Option<&mut bool> {
        match filter {
            TWIN_RESPONSES => Some(&mut self.twin_responses),
            DESIRED_PATCHES => Some(&mut self.desired_patches),
            METHOD_CALLS => Some(&mut self.method_calls),
            _ => {
                let rest = filter.strip_prefix(&device.path())?;
                let known: &[&str] = match device.module {
                    None => &["/messages/devicebound/#"],
                    // The C SDK subscribes to the second one.
                    Some(_) => &["/inputs/#", "/#"],
                };
                known.contains(&rest).then_some(&mut self.messages)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_documented_filters() {
        let device: Identity = "gw1".parse().unwrap();
        let mut subscriptions = Subscriptions::default();
        for filter in [
            "$iothub/twin/res/#",
            "$iothub/twin/PATCH/properties/desired/#",
            "$iothub/methods/POST/#",
            "devices/gw1/messages/devicebound/#",
        ] {
            *subscriptions.switch(&device, filter).unwrap() = true;
        }
        let all =
            Subscriptions { twin_responses: true, desired_patches: true, method_calls: true, messages: true };
        assert_eq!(subscriptions, all);
        let module: Identity = "gw1/m".parse().unwrap();
        assert!(subscriptions.switch(&module, "devices/gw1/modules/m/inputs/#").is_some());
        assert!(subscriptions.switch(&module, "devices/gw1/messages/devicebound/#").is_none());
        for filter in ["#", "$iothub/#", "+/x", "devices/gw2/messages/devicebound/#", "devices/gw1/#"] {
            assert!(subscriptions.switch(&device, filter).is_none(), "{filter}");
        }
    }
}
