//! `invoke`.

use std::time::Duration;

use clap::Args;
use iotdm_proto::DeviceId;

use crate::completion;
use crate::values::{self, JsonArg};

const INVOKE_HELP: &str = "\
Examples:
  iotdm-ctl invoke gw1 rebootDevice --payload '{\"check\":true}' -o json
  iotdm-ctl invoke gw1 configure --payload @settings.json --response-timeout 120

With -o json it prints {\"status\", \"payload\"}, also when the device refused.";

/// `invoke`
#[derive(Debug, Args)]
#[command(after_help = INVOKE_HELP)]
pub struct InvokeArgs {
    /// The device
    #[arg(value_name = "DEVICE", value_parser = values::device_id, add = completion::device())]
    pub device: DeviceId,
    /// The method
    pub method: String,
    /// Its argument: JSON, @FILE, or - for stdin
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    pub payload: Option<JsonArg>,
    /// How long the device may take to reply, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = values::response_timeout)]
    pub response_timeout: Duration,
    /// How long to wait for an offline device to connect, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = values::connect_timeout)]
    pub connect_timeout: Duration,
}
