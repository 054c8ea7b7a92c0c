//! The command line: parsed here into typed options, run by
//! [`crate::commands`]. The help texts, of which the manual pages are made, are
//! here as well.

mod call_timeouts;
mod cancel;
mod configuration;
mod device;
mod history;
mod invoke;
mod job;
mod only_device;
mod query;
mod reboot;
mod tools;
mod twin;

use clap::{Parser, Subcommand};

pub use self::call_timeouts::*;
pub use self::cancel::*;
pub use self::configuration::*;
pub use self::device::*;
pub use self::history::*;
pub use self::invoke::*;
pub use self::job::*;
pub use self::only_device::*;
pub use self::query::*;
pub use self::reboot::*;
pub use self::tools::*;
pub use self::twin::*;
use crate::output::Format;
use crate::target::{GENERAL, HubArgs};

const HUB_HELP: &str = "\
Which hub:
  --connection-string-file FILE, else $IOTHUB_CONNECTION_STRING, else the profile
  --hub NAME, or the default one, of ~/.config/iotdm/ctl.toml. With
  $IOTHUB_HOST_NAME set and no connection string, a token is used: that in
  $IOTHUB_TOKEN (a SAS token, or one of Microsoft Entra ID), else one of the client in
  $AZURE_TENANT_ID, $AZURE_CLIENT_ID and $AZURE_CLIENT_SECRET, else one of whoever is
  logged in to the Azure CLI (az login). A profile can say so, too:

    default = \"prod\"    # not needed where there is one hub
    [hub.prod]
    connection_string_file = \"prod.connection-string\"    # relative to ctl.toml
    [hub.lab]
    connection_string_file = \"/etc/iotdm/lab.connection-string\"
    ca_file = \"/etc/iotdm/lab-ca.pem\"
    module = \"iotdm\"    # there the daemon is this module of each device
    [hub.entra]
    host_name = \"myhub.azure-devices.net\"
    azure_cli = true    # or token_file = \"FILE\", or managed_identity = true (with
                        # client_id of a user-assigned one), or client_secret_file =
                        # \"FILE\" with tenant_id and client_id

Exit codes:
  0 done                      5 no such device
  1 network, hub or internal  6 timed out: no reply, or no outcome
  2 usage                     7 the reboot failed, or the devices ended mixed
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
    /// Print results as text, json or jsonl (one value per line), tables also as csv, status also as prometheus
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

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Reboot devices and wait until they are back
    Reboot(Box<RebootArgs>),
    /// Print the report of a run over many devices, as HTML
    Report(ReportArgs),
    /// Cancel reboots that have not begun
    Cancel(CancelArgs),
    /// Call a direct method of a device
    Invoke(InvokeArgs),
    /// Show or change a device's twin
    Twin {
        /// What to do with the twin.
        #[command(subcommand)]
        command: TwinCommand,
    },
    /// Query the hub's devices in its SQL
    Query(QueryArgs),
    /// Show how devices are and how their last reboot went
    Status(StatusArgs),
    /// Show the last boots of a device: when, and why
    History(HistoryArgs),
    /// Manage device identities
    Device {
        /// What to do with the identities.
        #[command(subcommand)]
        command: DeviceCommand,
    },
    /// See and cancel the jobs of the hub's scheduler
    Job {
        /// What to do with the jobs.
        #[command(subcommand)]
        command: JobCommand,
    },
    /// See and delete automatic device configurations, such as reboot --as-configuration makes
    Configuration {
        /// What to do with the configurations.
        #[command(subcommand)]
        command: ConfigurationCommand,
    },
    /// Check that the hub is reached, and what it lets you do
    Check(CheckArgs),
    /// Print a token for other tools
    SasToken(SasTokenArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
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
