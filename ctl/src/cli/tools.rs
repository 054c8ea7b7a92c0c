//! `check`, `sas-token` and `completions`.

use std::time::Duration;

use clap::Args;
use clap_complete::Shell;
use iotdm_proto::DeviceId;

use crate::{completion, values};

const CHECK_HELP: &str = "\
Example:
  iotdm-ctl check --hub prod

Lines: name (resolution), tcp, tls (with the hub's certificate), clock (against the
hub's), service, registry-read and registry-write (the rights of the connection
string's policy; a delete of a device that does not exist tells the last one).

It exits by the worst: 1 when the hub is not reached or the clock is wrong, 8 when a
right is missing. A policy needs the right to connect as a service for reboot, invoke,
twin, query, status, cancel and job, and those of the registry for device. With -o json
it prints an array of {\"check\", \"result\", \"detail\"}; result is ok, failed or skipped.";

/// `check`
#[derive(Debug, Args)]
#[command(after_help = CHECK_HELP)]
pub struct CheckArgs {}

const SAS_TOKEN_HELP: &str = "\
Examples:
  iotdm-ctl sas-token --ttl 10m
  iotdm-ctl sas-token --device gw1

Without --device the token has the rights of the connection string's policy; with it,
it is the device's own, signed with its primary key.";

/// `sas-token`
#[derive(Debug, Args)]
#[command(after_help = SAS_TOKEN_HELP)]
pub struct SasTokenArgs {
    /// For how long
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = values::interval)]
    pub ttl: Duration,
    /// The token of this device
    #[arg(long, value_name = "DEVICE", value_parser = values::device_id, add = completion::device())]
    pub device: Option<DeviceId>,
}

const COMPLETIONS_HELP: &str = "\
Examples:
  iotdm-ctl completions bash > ~/.local/share/bash-completion/completions/iotdm-ctl
  iotdm-ctl completions fish > ~/.config/fish/completions/iotdm-ctl.fish

The package installs them already. The ids of devices are completed from the hub that
the line names, or else the environment or ctl.toml.";

/// `completions`
#[derive(Debug, Args)]
#[command(after_help = COMPLETIONS_HELP)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}
