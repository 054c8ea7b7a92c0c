//! The arguments of `twin …`.

use clap::{ArgGroup, Args, Subcommand};
use iotdm_proto::DeviceId;
use serde_json::Value;

use super::only_device::DeviceArgs;
use crate::{device_ids, values};

/// `twin …`
#[derive(Debug, Subcommand)]
pub enum TwinCommand {
    /// Print a device's twin
    #[command(after_help = "Example:\n  iotdm-ctl twin show gw1 | jq .properties.reported.rebootTime")]
    Show(DeviceArgs),
    /// Merge changes into a device's twin; null removes a key
    Update(TwinUpdateArgs),
    /// Replace a device's tags, desired properties or both as a whole
    Replace(TwinReplaceArgs),
}

const TWIN_UPDATE_HELP: &str = "\
Examples:
  iotdm-ctl twin update gw1 --tags '{\"site\":\"north\",\"floor\":null}'
  iotdm-ctl twin update gw1 --desired @desired.json --etag AAAAAAAAAAM=

With -o json it prints the new twin.";

const TWIN_REPLACE_HELP: &str = "\
Examples:
  iotdm-ctl twin replace gw1 --tags '{\"site\":\"north\"}'
  iotdm-ctl twin replace gw1 --desired @desired.json --etag AAAAAAAAAAM=

What is not given stays as it is. With -o json it prints the new twin.";

/// `twin replace`
#[derive(Debug, Args)]
#[command(after_help = TWIN_REPLACE_HELP)]
#[command(group(ArgGroup::new("whole").args(["desired", "tags"]).required(true).multiple(true)))]
pub struct TwinReplaceArgs {
    /// The device
    #[arg(value_name = "DEVICE", value_parser = values::device_id, add = device_ids::completer())]
    pub device: DeviceId,
    /// The desired properties: a JSON object, @FILE, or - for stdin
    #[arg(long, value_name = "JSON", value_parser = values::json_object)]
    pub desired: Option<Value>,
    /// The tags: a JSON object, @FILE, or - for stdin
    #[arg(long, value_name = "JSON", value_parser = values::json_object)]
    pub tags: Option<Value>,
    /// Only if the twin's etag is still this one
    #[arg(long, value_parser = values::etag)]
    pub etag: Option<String>,
}

/// `twin update`
#[derive(Debug, Args)]
#[command(after_help = TWIN_UPDATE_HELP)]
#[command(group(ArgGroup::new("change").args(["desired", "tags"]).required(true).multiple(true)))]
pub struct TwinUpdateArgs {
    /// The device
    #[arg(value_name = "DEVICE", value_parser = values::device_id, add = device_ids::completer())]
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
