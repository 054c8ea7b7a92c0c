//! The Will of a CONNECT: telemetry that the hub sends in the device's name
//! when its connection ends without DISCONNECT.
//!
//! Source: "Communicate with an IoT hub using the MQTT protocol": its topic is
//! that of telemetry, and the message gets `iothub-MessageType=Will`.

use bytes::Bytes;
use rumqttc::mqttbytes::v4::LastWill;

use super::publish::{telemetry_bag, with_retain};
use crate::events::{Events, with};
use crate::identity::Identity;

/// What is left to be said.
#[derive(Debug)]
pub struct Will {
    bag: String,
    payload: Bytes,
}

impl Will {
    /// The Will of a device; `None` when its topic is not that of the device's
    /// telemetry.
    pub fn new(device: &Identity, will: &LastWill) -> Option<Self> {
        let bag = with(telemetry_bag(device, &will.topic)?, "iothub-MessageType=Will");
        Some(Will { bag: with_retain(&bag, will.retain).into_owned(), payload: will.message.clone() })
    }

    /// Sends it.
    pub fn send(&self, device: &Identity, events: &Events) {
        events.note(device, &self.bag, &self.payload);
    }
}
