//! The options by which a command line says which hub it means.

use std::path::PathBuf;

use clap::Args;

use super::profile;
use crate::values::ModuleArg;

/// The heading in help texts above the options that every command has.
pub const GENERAL: &str = "Hub and output";

/// Which hub is meant and whom to trust.
#[derive(Debug, Default, Args)]
pub struct HubArgs {
    /// Read the hub's service connection string from this file
    #[arg(long, global = true, value_name = "FILE", help_heading = GENERAL)]
    pub connection_string_file: Option<PathBuf>,
    /// Use this profile of ~/.config/iotdm/ctl.toml
    #[arg(long, global = true, value_name = "NAME", help_heading = GENERAL, add = profile::completer())]
    pub hub: Option<String>,
    /// Trust the CAs in this PEM file, too [default: $IOTDM_CA_FILE]
    #[arg(long, global = true, value_name = "FILE", help_heading = GENERAL)]
    pub ca_file: Option<PathBuf>,
    /// The daemon is this module of each device [default: the profile's module]. For device
    /// and sas-token, only as given here; '' is the device itself
    #[arg(long, global = true, value_name = "NAME", help_heading = GENERAL)]
    pub module: Option<ModuleArg>,
}
