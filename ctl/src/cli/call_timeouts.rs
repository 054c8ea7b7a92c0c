//! The options of every command that calls a direct method.

use std::time::Duration;

use clap::Args;

use crate::values;

/// How long a direct method may take.
#[derive(Debug, Clone, Copy, Args)]
pub struct CallTimeouts {
    /// How long the device may take to reply, in seconds, 5 to 300; where it is not
    /// longer than --connect-timeout, so much longer is sent, for the hub counts both in it
    #[arg(long = "response-timeout", id = "response_timeout", value_name = "SECONDS", default_value = "60", value_parser = values::response_timeout)]
    pub response: Duration,
    /// How long the hub waits for an offline device to connect, in seconds, up to 300
    #[arg(long = "connect-timeout", id = "connect_timeout", value_name = "SECONDS", default_value = "0", value_parser = values::connect_timeout)]
    pub connect: Duration,
}
