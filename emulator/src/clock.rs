//! The time of day, for everything that the hub stamps and checks.

use std::time::SystemTime;

use iotdm_proto::Time;

/// The current time, by the machine's clock.
pub fn now() -> Time {
    SystemTime::now().into()
}
