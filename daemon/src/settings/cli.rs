//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// Reboots this machine on behalf of Azure IoT Hub, and reports what became of it.
#[derive(Debug, Parser)]
#[command(version, after_help = AFTER_HELP)]
pub struct Arguments {
    /// The configuration file; FILE.d/*.toml is read after it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The state directory [default: $STATE_DIRECTORY, else /var/lib/iotdm]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Say what would be used, secrets masked, and what is missing; then exit
    #[arg(long)]
    pub check_config: bool,
    /// Try the way to the hub step by step, and what a reboot takes; say what is in
    /// the way and what helps; then exit. A running daemon keeps its connection, if it has
    /// this state directory or says in /run/iotdm that it is this device
    #[arg(long, conflicts_with = "check_config")]
    pub test: bool,
    /// With --test: print one JSON object
    #[arg(long, requires = "test")]
    pub json: bool,
    /// Print the model that the device follows (DTDL, as JSON); then exit
    #[arg(long, exclusive = true)]
    pub print_model: bool,
    /// Show the people on this machine which reboot is to come; for
    /// iotdm-notice.service
    #[arg(long, hide = true, exclusive = true)]
    pub show_notice: bool,
    /// Run the preflight checks that the daemon asks for; for
    /// iotdm-preflight.service
    #[arg(long, hide = true, exclusive = true)]
    pub preflight: bool,
    /// Wait until the hub has acknowledged something in this run of the daemon; for
    /// iotdm-agentd-connected.service
    #[arg(long, hide = true, exclusive = true)]
    pub wait_connected: bool,
    /// Say whether an initrd is whole; for the preflight check boot-image
    #[arg(long, hide = true, exclusive = true, value_name = "FILE")]
    pub check_initrd: Option<PathBuf>,
}

const AFTER_HELP: &str = "\
The connection string is read from the systemd credential \"connection-string\", \
or from the file that hub.connection_string_file names; never from an argument.

Exit codes:
  0 stopped, 1 failure, 2 usage, 78 configuration
  With --test: 0 nothing is in the way (warnings may be), 1 a step has failed,
  78 the settings or the secret have to be mended first

Example:
As an ordinary user, without rebooting anything, with reboot.backend = \"simulate\" \
in agentd.toml:
  iotdm-agentd --config ./agentd.toml --state-dir ./state";
