//! `query` and `status`.

use clap::Args;
use iotdm_proto::DeviceId;

use crate::values;

const QUERY_HELP: &str = "\
Examples:
  iotdm-ctl query \"SELECT deviceId, connectionState FROM devices\"
  iotdm-ctl query \"SELECT * FROM devices WHERE tags.site = 'north'\" -o jsonl
  iotdm-ctl query \"SELECT * FROM devices\" --top 10

Text is a table; of whole twins it has the main columns, -o json has everything.";

/// `query`
#[derive(Debug, Args)]
#[command(after_help = QUERY_HELP)]
pub struct QueryArgs {
    /// The query, in IoT Hub's query language
    pub sql: String,
    /// At most so many rows
    #[arg(long, value_name = "N")]
    pub top: Option<usize>,
}

const STATUS_HELP: &str = "\
Examples:
  iotdm-ctl status
  iotdm-ctl status gw1 -o json
  iotdm-ctl status --where \"tags.site = 'north' AND properties.reported.reboot.status = 'failed'\"

With -o json, one DEVICE gives an object, else an array. Keys: deviceId, connectionState,
and as the device reports them: rebootTime, reboot, boot, agent.";

/// `status`
#[derive(Debug, Args)]
#[command(after_help = STATUS_HELP)]
pub struct StatusArgs {
    /// The devices [default: all]
    #[arg(value_name = "DEVICE", value_parser = values::device_id, conflicts_with = "condition")]
    pub devices: Vec<DeviceId>,
    /// The devices that this condition of the query language selects
    #[arg(long = "where", value_name = "CONDITION")]
    pub condition: Option<String>,
}
