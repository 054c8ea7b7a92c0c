//! The topic filters that a device may subscribe to.
//!
//! Any other filter makes the hub close the connection. Source: "Communicate
//! with an IoT hub using the MQTT protocol".

use iotdm_proto::topic::{DESIRED_PATCHES, METHOD_CALLS, TWIN_RESPONSES};
use serde::{Deserialize, Deserializer, Serialize};

use iotdm_proto::Identity;

/// What a session is subscribed to, and with which QoS: `None` for what it is not
/// subscribed to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscriptions {
    /// Replies to twin requests.
    #[serde(deserialize_with = "granted")]
    pub twin_responses: Option<Granted>,
    /// Changes of desired properties.
    #[serde(deserialize_with = "granted")]
    pub desired_patches: Option<Granted>,
    /// Method calls.
    #[serde(deserialize_with = "granted")]
    pub method_calls: Option<Granted>,
    /// Cloud-to-device messages; of a module, its inputs, to which the emulator
    /// sends nothing.
    #[serde(deserialize_with = "granted")]
    pub messages: Option<Granted>,
}

/// The QoS that the hub grants a subscription: what it sends goes out with that or
/// with the QoS that the hub publishes at, whichever is less. Twin messages and
/// method calls are published at 0, cloud-to-device messages at 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Granted {
    /// QoS 0.
    AtMostOnce,
    /// QoS 1.
    AtLeastOnce,
}

/// Reads a subscription; stores of earlier versions say only whether there is one.
fn granted<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Granted>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Stored {
        Earlier(bool),
        Granted(Option<Granted>),
    }
    Ok(match Stored::deserialize(deserializer)? {
        Stored::Earlier(subscribed) => subscribed.then_some(Granted::AtLeastOnce),
        Stored::Granted(granted) => granted,
    })
}

impl Subscriptions {
    /// What a subscription to the topic filter `filter` changes; `None` when
    /// `device`, which may be a module, may not subscribe to that filter.
    pub fn slot(&mut self, device: &Identity, filter: &str) -> Option<&mut Option<Granted>> {
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
            *subscriptions.slot(&device, filter).unwrap() = Some(Granted::AtMostOnce);
        }
        let each = Some(Granted::AtMostOnce);
        let all =
            Subscriptions { twin_responses: each, desired_patches: each, method_calls: each, messages: each };
        assert_eq!(subscriptions, all);
        let module: Identity = "gw1/m".parse().unwrap();
        assert!(subscriptions.slot(&module, "devices/gw1/modules/m/inputs/#").is_some());
        assert!(subscriptions.slot(&module, "devices/gw1/messages/devicebound/#").is_none());
        for filter in ["#", "$iothub/#", "+/x", "devices/gw2/messages/devicebound/#", "devices/gw1/#"] {
            assert!(subscriptions.slot(&device, filter).is_none(), "{filter}");
        }
    }
    #[test]
    fn what_an_earlier_version_stored_is_read() {
        let stored =
            r#"{"twin_responses":true,"desired_patches":false,"method_calls":true,"messages":false}"#;
        let read: Subscriptions = serde_json::from_str(stored).unwrap();
        let each = Some(Granted::AtLeastOnce);
        let expected = Subscriptions { twin_responses: each, method_calls: each, ..Subscriptions::default() };
        assert_eq!(read, expected);
        let now = Subscriptions { messages: Some(Granted::AtMostOnce), ..expected };
        let again: Subscriptions = serde_json::from_str(&serde_json::to_string(&now).unwrap()).unwrap();
        assert_eq!(again, now);
    }
}
