//! The arguments of commands that take a device and nothing else.

use clap::Args;
use iotdm_proto::DeviceId;

use crate::{device_ids, values};

/// A command with a device and nothing else.
#[derive(Debug, Args)]
pub struct DeviceArgs {
    /// The device
    #[arg(value_name = "DEVICE", value_parser = values::device_id, add = device_ids::completer())]
    pub device: DeviceId,
}
