//! The Will of a CONNECT: telemetry that the hub sends in the device's name
//! when the device's connection ends without DISCONNECT.
//!
//! The Will's topic has to be that of the device's telemetry, and the message
//! gets the property `iothub-MessageType=Will`. Source: "Communicate with an
//! IoT hub using the MQTT protocol".

use bytes::Bytes;
use rumqttc::mqttbytes::v4::LastWill;

use super::publish::{telemetry_bag, with_retain};
use crate::telemetry::{Telemetry, with};
use iotdm_proto::Identity;

/// The message that is sent when the connection ends without DISCONNECT.
#[derive(Debug)]
pub struct Will {
    /// The message's properties, as they stand in topics.
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

    /// Sends the Will in the name of `device`.
    pub fn send(&self, device: &Identity, telemetry: &Telemetry) {
        telemetry.note(device, &self.bag, &self.payload);
    }
}
