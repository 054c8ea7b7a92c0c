//! The arguments of `cancel`.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use iotdm_proto::{DeviceId, RequestId};

use super::call_timeouts::CallTimeouts;
use crate::{device_ids, journals, values};

const CANCEL_HELP: &str = "\
Examples:
  iotdm-ctl cancel gw1
  iotdm-ctl cancel gw1 --id 6aadb16a-6738-4b2a-91e9-5a16d41625b1
  iotdm-ctl cancel --where \"tags.site = 'north'\"
  iotdm-ctl cancel --journal ~/.local/state/iotdm/reboots/20261122T180000-123Z-1a2b3c.jsonl

A reboot that was wished for with --when-online is taken out of the twin; any other
is for the device to cancel. With --journal the request of that run is cancelled on
each device that it may have gone to and that is not known to be through with it.

It exits 3 when nothing is pending or the reboot has begun. Of several devices it says
how many were too late; those with nothing pending then count as done, unless none was
cancelled. With -o json it prints {\"status\", \"payload\"}, the device's reply or the same
for a wish that was taken back; for several devices an array of {\"device\", \"outcome\",
\"id\", \"reply\", \"error\"}, of which outcome is cancelled, tooLate, nothingPending,
refused, offline, noSuchDevice, timedOut, notAuthorized, throttled or error.";

/// `cancel`
#[derive(Debug, Args)]
#[command(after_help = CANCEL_HELP)]
#[command(group(ArgGroup::new("which").args(["devices", "condition", "where_module", "devices_from", "journal"]).required(true).multiple(true)))]
pub struct CancelArgs {
    /// The devices
    #[arg(value_name = "DEVICE", value_parser = values::device_id, add = device_ids::completer(), conflicts_with_all = ["condition", "where_module", "devices_from", "journal"])]
    pub devices: Vec<DeviceId>,
    /// The devices that this condition of the query language selects
    #[arg(long = "where", value_name = "CONDITION")]
    pub condition: Option<String>,
    /// With --module: the devices of whose module this condition holds; with --where,
    /// only those of which that holds as well
    #[arg(long, value_name = "CONDITION")]
    pub where_module: Option<String>,
    /// The devices named in this file, or on stdin (-)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["condition", "where_module", "journal"])]
    pub devices_from: Option<PathBuf>,
    /// The devices that the run which wrote this journal has asked
    #[arg(long, value_name = "FILE", add = journals::completer(), conflicts_with_all = ["id", "condition", "where_module"])]
    pub journal: Option<PathBuf>,
    /// Only if this request is the pending one
    #[arg(long)]
    pub id: Option<RequestId>,
    /// How long a call may take.
    #[command(flatten)]
    pub timeouts: CallTimeouts,
}
