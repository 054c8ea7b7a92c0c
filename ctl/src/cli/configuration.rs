//! The arguments of `configuration …`.

use clap::{Args, Subcommand};

use crate::values;

/// `configuration …`
#[derive(Debug, Subcommand)]
pub enum ConfigurationCommand {
    /// List the hub's configurations
    #[command(after_help = "Example:\n  iotdm-ctl configuration list")]
    List,
    /// Show a configuration and what its metrics count
    #[command(after_help = "Example:\n  iotdm-ctl configuration show kernel-2026-12\n\n\
        On Azure the hub counts every 5 minutes. With -o json it is the hub's own configuration.")]
    Show(ConfigurationArgs),
    /// Delete a configuration, and with it what it has set in twins
    #[command(after_help = "Example:\n  iotdm-ctl configuration delete kernel-2026-12\n\n\
        A reboot that it wishes for and that has not begun is called off where the device is\n\
        connected, and elsewhere never begins. What was done stays done.")]
    Delete(ConfigurationDeleteArgs),
}

/// A command with a configuration and nothing else.
#[derive(Debug, Args)]
pub struct ConfigurationArgs {
    /// The configuration
    #[arg(value_name = "NAME", value_parser = values::any_configuration)]
    pub name: String,
}

/// `configuration delete`
#[derive(Debug, Args)]
pub struct ConfigurationDeleteArgs {
    /// The configuration
    #[arg(value_name = "NAME", value_parser = values::any_configuration)]
    pub name: String,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}
