//! `query` and `status`.

use clap::{ArgGroup, Args, ValueEnum};
use iotdm_proto::DeviceId;

use crate::{completion, values};

const QUERY_HELP: &str = "\
Examples:
  iotdm-ctl query \"SELECT deviceId, connectionState FROM devices\"
  iotdm-ctl query \"SELECT * FROM devices WHERE tags.site = 'north'\" -o jsonl
  iotdm-ctl query \"SELECT * FROM devices\" --top 10
  iotdm-ctl query --ready-made unclean -o csv

Text and -o csv are tables; of whole twins they have the main columns, -o json has
everything. -o jsonl and csv are written page by page as they come.

Ready-made:
  last-reboots    which device was last rebooted when, and why
  unclean         whose last boot followed no orderly shutdown
  never-reported  which devices have never reported an agent
  waiting         whose reboot waits for an inhibitor or a window
  agents          how many devices have which version of the agent";

/// `query`
#[derive(Debug, Args)]
#[command(after_help = QUERY_HELP)]
#[command(group(ArgGroup::new("what").args(["sql", "ready_made"]).required(true)))]
pub struct QueryArgs {
    /// The query, in IoT Hub's query language
    pub sql: Option<String>,
    /// A query for a common question
    #[arg(long, value_name = "NAME")]
    pub ready_made: Option<ReadyMade>,
    /// At most so many rows
    #[arg(long, value_name = "N", value_parser = values::count)]
    pub top: Option<usize>,
}

/// `--ready-made`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReadyMade {
    /// Which device was last rebooted when, and why
    LastReboots,
    /// Whose last boot followed no orderly shutdown
    Unclean,
    /// Which devices have never reported an agent
    NeverReported,
    /// Whose reboot waits for an inhibitor or a window
    Waiting,
    /// How many devices have which version of the agent
    Agents,
}

impl ReadyMade {
    /// The query.
    pub fn sql(self) -> &'static str {
        match self {
            ReadyMade::LastReboots => {
                "SELECT deviceId, properties.reported.rebootTime AS rebootTime, \
                 properties.reported.reboot.status AS outcome, properties.reported.reboot.reason AS reason \
                 FROM devices WHERE IS_DEFINED(properties.reported.rebootTime)"
            }
            ReadyMade::Unclean => {
                "SELECT deviceId, properties.reported.boot.bootTime AS bootTime, connectionState FROM devices \
                 WHERE properties.reported.boot.cause = 'unclean'"
            }
            ReadyMade::NeverReported => {
                "SELECT deviceId, status, connectionState, lastActivityTime FROM devices \
                 WHERE NOT IS_DEFINED(properties.reported.agent)"
            }
            ReadyMade::Waiting => {
                "SELECT deviceId, properties.reported.reboot.id AS id, \
                 properties.reported.reboot.requestedAt AS requestedAt, \
                 properties.reported.reboot.reason AS reason FROM devices \
                 WHERE properties.reported.reboot.status = 'waiting'"
            }
            ReadyMade::Agents => {
                "SELECT properties.reported.agent.version AS version, COUNT() AS devices FROM devices \
                 GROUP BY properties.reported.agent.version"
            }
        }
    }
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
    #[arg(value_name = "DEVICE", value_parser = values::device_id, add = completion::device(), conflicts_with = "condition")]
    pub devices: Vec<DeviceId>,
    /// The devices that this condition of the query language selects
    #[arg(long = "where", value_name = "CONDITION")]
    pub condition: Option<String>,
}
