//! What Azure IoT Hub's clients and the hub say to each other, as pure values:
//! connection strings, SAS tokens, MQTT topics and device twins; and the
//! daemon's interface, once for the daemon and its callers: the direct methods
//! and their payloads, the wish in the twin, replies, errors and the report.
//! For callers without these types `docs/device-interface.md` describes that
//! interface; a test holds the page against the types.
//! Nothing here does I/O or reads a clock; time is an argument.

pub mod connection_string;
pub mod device_information;
#[cfg(test)]
mod device_interface;
#[cfg(test)]
mod full;
pub mod health;
pub mod identity;
pub mod key;
pub mod method;
pub mod model;
pub mod names;
pub mod need;
pub mod reply;
pub mod report;
pub mod request;
pub mod sas;
pub mod text;
pub mod time;
pub mod topic;
pub mod twin;
pub mod vocabulary;

pub use connection_string::{
    ConnectionStringError, DeviceAuth, DeviceConnectionString, ServiceConnectionString,
};
pub use identity::Identity;
pub use key::SecretKey;
pub use method::{ErrorCode, MethodName};
pub use names::{DeviceId, Endpoint, HostName, ModuleId};
pub use request::{OnInhibitor, RebootRequest, RequestId, Wish};
pub use time::Time;

/// The `api-version` that the daemon sends in its MQTT user name and
/// `iotdm-ctl` with each REST request.
///
/// Source: the current Node and Python SDKs send the same; arrays in twins need
/// at least `2019-10-01`.
pub const API_VERSION: &str = "2021-04-12";
