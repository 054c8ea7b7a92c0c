//! The arguments of `invoke`.

use clap::Args;
use iotdm_proto::DeviceId;

use super::call_timeouts::CallTimeouts;
use crate::device_ids;
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
    #[arg(value_name = "DEVICE", value_parser = values::device_id, add = device_ids::completer())]
    pub device: DeviceId,
    /// The method
    pub method: String,
    /// Its argument: JSON, @FILE, or - for stdin
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    pub payload: Option<JsonArg>,
    /// How long the call may take.
    #[command(flatten)]
    pub timeouts: CallTimeouts,
}
