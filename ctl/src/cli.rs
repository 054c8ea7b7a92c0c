//! The command line: parsed here into typed options, run elsewhere.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use iotdm_proto::{DeviceId, Time};
use serde::Serialize;
use serde_json::Value;

use crate::output::Format;
use crate::values::{self, JsonArg};

/// Above the options that every command has.
const GENERAL: &str = "Hub and output";

const HUB_HELP: &str = "\
Which hub:
  --connection-string-file FILE, else $IOTHUB_CONNECTION_STRING, else the profile
  --hub NAME, or the default one, of ~/.config/iotdm/ctl.toml:

    default = \"prod\"
    [hub.prod]
    connection_string_file = \"prod.connection-string\"    # relative to ctl.toml
    [hub.lab]
    connection_string_file = \"/etc/iotdm/lab.connection-string\"
    ca_file = \"/etc/iotdm/lab-ca.pem\"

Exit codes:
  0 done                      5 no such device
  1 network, hub or internal  6 timed out: no reply, or no outcome
  2 usage                     7 the reboot failed, or several devices ended mixed
  3 the device refused        8 not authorised
  4 the device is offline     9 throttled after retries       130 Ctrl-C

Example:
  iotdm-ctl --connection-string-file hub.txt reboot gw1 --reason 'kernel update'";

/// Reboots and manages the devices of an IoT hub.
#[derive(Debug, Parser)]
#[command(name = "iotdm-ctl", version, after_help = HUB_HELP)]
pub struct Cli {
    /// Which hub.
    #[command(flatten)]
    pub hub: HubArgs,
    /// Print results as text, json or jsonl (one value per line)
    #[arg(
        short,
        long,
        global = true,
        value_name = "FORM",
        default_value = "text",
        hide_possible_values = true,
        help_heading = GENERAL
    )]
    pub output: Format,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Which hub is meant and whom to trust.
#[derive(Debug, Default, Args)]
pub struct HubArgs {
    /// Read the hub's service connection string from this file
    #[arg(long, global = true, value_name = "FILE", help_heading = GENERAL)]
    pub connection_string_file: Option<PathBuf>,
    /// Use this profile of ~/.config/iotdm/ctl.toml
    #[arg(long, global = true, value_name = "NAME", help_heading = GENERAL)]
    pub hub: Option<String>,
    /// Trust the CAs in this PEM file, too [default: $IOTDM_CA_FILE]
    #[arg(long, global = true, value_name = "FILE", help_heading = GENERAL)]
    pub ca_file: Option<PathBuf>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Reboot devices and wait until they are back
    Reboot(RebootArgs),
    /// Cancel a reboot that has not begun
    Cancel(CancelArgs),
    /// Call a direct method of a device
    Invoke(InvokeArgs),
    /// Show or change a device's twin
    Twin {
        /// Which of the two.
        #[command(subcommand)]
        command: TwinCommand,
    },
    /// Query the hub's devices in its SQL
    Query(QueryArgs),
    /// Show how devices are and how their last reboot went
    Status(StatusArgs),
    /// Manage device identities
    Device {
        /// What to do with them.
        #[command(subcommand)]
        command: DeviceCommand,
    },
}

const REBOOT_HELP: &str = "\
The request carries an id, so that its outcome is told from every other reboot's,
even when the reply gets lost. Giving the --id of an earlier request again causes
no second reboot. A device whose rebootDevice does not know ids counts as rebooted
when its reported rebootTime changes.

Examples:
  iotdm-ctl reboot gw1 --reason 'kernel update'
  iotdm-ctl reboot gw1 --check
  iotdm-ctl reboot gw1 --at 2026-11-30T02:00:00Z --on-inhibitor wait --no-wait
  iotdm-ctl reboot gw1 gw2 gw3 --wait-timeout 30m -o jsonl

With -o json, one DEVICE gives an object and several an array; jsonl gives a line
for each. Keys: device, id, outcome (accepted, checked, completed, unclean, failed,
cancelled, refused, offline, noSuchDevice, timedOut, notAuthorized, throttled,
error), and where they apply: reply {status, payload}, rebootTime, reboot and boot
(as the device reports them), seconds (from the call to the outcome), error.";

/// `reboot`
#[derive(Debug, Args)]
#[command(after_help = REBOOT_HELP)]
pub struct RebootArgs {
    /// The devices
    #[arg(required = true, value_name = "DEVICE", value_parser = values::device_id)]
    pub devices: Vec<DeviceId>,
    /// Why; goes to the device's journal and twin
    #[arg(long, value_parser = values::reason)]
    pub reason: Option<String>,
    /// The id of the request [default: a new UUID]
    #[arg(long, value_parser = values::request_id)]
    pub id: Option<String>,
    /// Reboot so much later, at most 7 days
    #[arg(long, value_name = "DURATION", value_parser = values::delay)]
    pub delay: Option<Duration>,
    /// Reboot at this time (RFC 3339), within 7 days
    #[arg(long, value_name = "TIME", conflicts_with = "delay")]
    pub at: Option<Time>,
    /// What to do when a program on the device inhibits shutdown
    #[arg(long, value_name = "WHAT")]
    pub on_inhibitor: Option<OnInhibitor>,
    /// How long the device waits for the inhibitor, in seconds [default: 3600]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86400))]
    pub wait_seconds: Option<u64>,
    /// Ask what would happen, and change nothing
    #[arg(long)]
    pub check: bool,
    /// Do not wait for the outcome
    #[arg(long)]
    pub no_wait: bool,
    /// How long the device may take to reply, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = values::response_timeout)]
    pub response_timeout: Duration,
    /// How long to wait for an offline device to connect, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = values::connect_timeout)]
    pub connect_timeout: Duration,
    /// How long to wait for the outcome, from the time of the reboot on
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = values::duration)]
    pub wait_timeout: Duration,
    /// How often to look for the outcome
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = values::interval)]
    pub interval: Duration,
}

/// `--on-inhibitor`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OnInhibitor {
    /// Refuse, or fail when the time has come
    Fail,
    /// Reboot once it is released
    Wait,
    /// Reboot all the same; the device has to allow it
    Override,
}

const CANCEL_HELP: &str = "\
Examples:
  iotdm-ctl cancel gw1
  iotdm-ctl cancel gw1 --id 6aadb16a-6738-4b2a-91e9-5a16d41625b1

It exits 3 when nothing is pending or the reboot has begun. With -o json it prints
{\"status\", \"payload\"}, the device's reply.";

/// `cancel`
#[derive(Debug, Args)]
#[command(after_help = CANCEL_HELP)]
pub struct CancelArgs {
    /// The device
    #[arg(value_name = "DEVICE", value_parser = values::device_id)]
    pub device: DeviceId,
    /// Only if this request is the pending one
    #[arg(long, value_parser = values::request_id)]
    pub id: Option<String>,
    /// How long the device may take to reply, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = values::response_timeout)]
    pub response_timeout: Duration,
    /// How long to wait for an offline device to connect, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = values::connect_timeout)]
    pub connect_timeout: Duration,
}

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
    #[arg(value_name = "DEVICE", value_parser = values::device_id)]
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

/// `twin …`
#[derive(Debug, Subcommand)]
pub enum TwinCommand {
    /// Print a device's twin
    #[command(after_help = "Example:\n  iotdm-ctl twin show gw1 | jq .properties.reported.rebootTime")]
    Show(DeviceArgs),
    /// Merge changes into a device's twin; null removes a key
    Update(TwinUpdateArgs),
}

/// A command with a device and nothing else.
#[derive(Debug, Args)]
pub struct DeviceArgs {
    /// The device
    #[arg(value_name = "DEVICE", value_parser = values::device_id)]
    pub device: DeviceId,
}

const TWIN_UPDATE_HELP: &str = "\
Examples:
  iotdm-ctl twin update gw1 --tags '{\"site\":\"north\",\"floor\":null}'
  iotdm-ctl twin update gw1 --desired @desired.json --etag AAAAAAAAAAM=

With -o json it prints the new twin.";

/// `twin update`
#[derive(Debug, Args)]
#[command(after_help = TWIN_UPDATE_HELP)]
#[command(group(ArgGroup::new("change").args(["desired", "tags"]).required(true).multiple(true)))]
pub struct TwinUpdateArgs {
    /// The device
    #[arg(value_name = "DEVICE", value_parser = values::device_id)]
    pub device: DeviceId,
    /// Changes of the desired properties: a JSON object, @FILE, or - for stdin
    #[arg(long, value_name = "JSON", value_parser = values::json_object)]
    pub desired: Option<Value>,
    /// Changes of the tags: a JSON object, @FILE, or - for stdin
    #[arg(long, value_name = "JSON", value_parser = values::json_object)]
    pub tags: Option<Value>,
    /// Only if the twin's etag is still this one
    #[arg(long, value_parser = values::etag)]
    pub etag: Option<String>,
}

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

/// `device …`
#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    /// Create a device that signs with keys made by the hub
    #[command(after_help = "Example:\n  iotdm-ctl device create gw1")]
    Create(DeviceArgs),
    /// Show a device's identity, without its keys
    #[command(after_help = "Example:\n  iotdm-ctl device show gw1")]
    Show(DeviceArgs),
    /// List the hub's devices
    List(DeviceListArgs),
    /// Delete a device, with its keys and its twin
    Delete(DeviceDeleteArgs),
    /// Print the connection string that a device needs; it holds its key
    ConnectionString(ConnectionStringArgs),
}

/// `device list`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  iotdm-ctl device list --top 20")]
pub struct DeviceListArgs {
    /// At most so many devices
    #[arg(long, value_name = "N")]
    pub top: Option<usize>,
}

/// `device delete`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  iotdm-ctl device delete gw1 --yes")]
pub struct DeviceDeleteArgs {
    /// The device
    #[arg(value_name = "DEVICE", value_parser = values::device_id)]
    pub device: DeviceId,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

const CONNECTION_STRING_HELP: &str = "\
Examples:
  iotdm-ctl device connection-string gw1 --out gw1.connection-string
  iotdm-ctl device connection-string gw1 --gateway edge.example.com";

/// `device connection-string`
#[derive(Debug, Args)]
#[command(after_help = CONNECTION_STRING_HELP)]
pub struct ConnectionStringArgs {
    /// The device
    #[arg(value_name = "DEVICE", value_parser = values::device_id)]
    pub device: DeviceId,
    /// Write it to this file, which only you can read, in place of stdout
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Let the device connect here in place of the hub (GatewayHostName)
    #[arg(long, value_name = "HOST[:PORT]")]
    pub gateway: Option<iotdm_proto::Endpoint>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_holds() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        fn check(command: &clap::Command) {
            let help = command.clone().render_long_help().to_string();
            let children: Vec<_> = command.get_subcommands().filter(|c| c.get_name() != "help").collect();
            assert!(
                help.contains("Example") || !children.is_empty(),
                "{} has no example",
                command.get_name()
            );
            children.into_iter().for_each(check);
        }
        check(&Cli::command());
    }
}
