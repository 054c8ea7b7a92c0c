//! The arguments of `check`, `sas-token` and `completions`.

use std::time::Duration;

use clap::Args;
use clap_complete::Shell;
use iotdm_proto::DeviceId;

use crate::{device_ids, values};

const CHECK_HELP: &str = "\
Example:
  iotdm-ctl check --hub prod

Lines: name (resolution), tcp, proxy (where HTTPS_PROXY names one, which NO_PROXY does
not except; it takes the place of the hub in the lines before), tls (with the CA of the hub's certificate), clock
(against the hub's); service, registry-read and registry-write (the rights of the
connection string's policy); methods and jobs (which a basic tier does not have),
devices (how many there are) and throttling (of these very requests). Nothing is
changed: what is deleted and called is a device that does not exist.

It exits by the worst: 1 when the hub is not reached, the clock is wrong or the tier
lacks something, 8 when a right is missing, 9 when the hub throttles. With -o json it
prints an array of {\"check\", \"result\", \"detail\"}; result is ok, failed or skipped.

Rights: reboot, cancel, invoke, twin, query, status, job and device list need to connect
as a service (the policy \"service\"); device show, configuration list and configuration
show need to read the registry (\"registryRead\"); every other device and configuration
command and sas-token --device need to write it (\"registryReadWrite\"), for who may only
read it sees no keys; reboot --as-configuration needs all three. With Microsoft Entra ID
the role \"IoT Hub Data Contributor\" has all of them.";

/// `check`
#[derive(Debug, Args)]
#[command(after_help = CHECK_HELP)]
pub struct CheckArgs {}

const SAS_TOKEN_HELP: &str = "\
Examples:
  iotdm-ctl sas-token --ttl 10m
  iotdm-ctl sas-token --device gw1

Without --device the token has the rights of the connection string's policy; with it,
it is the device's own, signed with its primary key, or with --module NAME that of the
module.";

/// `sas-token`
#[derive(Debug, Args)]
#[command(after_help = SAS_TOKEN_HELP)]
pub struct SasTokenArgs {
    /// For how long
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = values::interval)]
    pub ttl: Duration,
    /// The token of this device
    #[arg(long, value_name = "DEVICE", value_parser = values::device_id, add = device_ids::completer())]
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
    #[arg(value_name = "SHELL", value_parser = values::shell())]
    pub shell: Shell,
}
