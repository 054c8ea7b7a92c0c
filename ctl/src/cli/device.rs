//! `device …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use iotdm_proto::DeviceId;

use super::DeviceArgs;
use crate::values;

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
