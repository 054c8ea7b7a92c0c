//! What Azure IoT Hub's clients and the hub say to each other, as pure values:
//! connection strings, SAS tokens, MQTT topics, device twins and the reboot
//! report. Nothing here does I/O or reads a clock; time is an argument.

pub mod connection_string;
pub mod key;
pub mod names;
pub mod report;
pub mod sas;
pub mod time;
pub mod topic;
pub mod twin;

pub use connection_string::{
    ConnectionStringError, DeviceAuth, DeviceConnectionString, ServiceConnectionString,
};
pub use key::SecretKey;
pub use names::{DeviceId, Endpoint, HostName};
pub use time::Time;

/// The `api-version` that our clients send over MQTT and REST.
///
/// Source: the current Node and Python SDKs; arrays in twins need at least
/// `2019-10-01`.
pub const API_VERSION: &str = "2021-04-12";
