//! The time of day, for everything that the hub stamps and checks.

use std::time::SystemTime;

use iotdm_proto::Time;

/// How the service's JSON spells "never", as .NET's `DateTime.MinValue`.
pub const NEVER: &str = "0001-01-01T00:00:00Z";

/// The current time, by the machine's clock.
pub fn now() -> Time {
    SystemTime::now().into()
}
