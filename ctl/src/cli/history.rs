//! The arguments of `history`.

use clap::Args;
use iotdm_proto::DeviceId;

use super::call_timeouts::CallTimeouts;
use crate::{device_ids, values};

const HISTORY_HELP: &str = "\
Examples:
  iotdm-ctl history gw1
  iotdm-ctl history gw1 -o csv

The last 32 boots at most that the device's agent has seen, the newest first: when it
booted, why (requested; local: an orderly shutdown that was not asked of the agent;
unclean: power loss, crash or watchdog; unknown), what else the machine tells of that
(kernelPanic, watchdog), by which request, and how long it was down. With -o json it prints
an array, with -o jsonl a line for each boot, both as the device tells them: bootId,
bootTime, cause, and where they apply detail, requestId, downSeconds.

It exits 3 when the device's agent is too old to know, or is somebody else's, and 4 when the
device is offline.";

/// `history`
#[derive(Debug, Args)]
#[command(after_help = HISTORY_HELP)]
pub struct HistoryArgs {
    /// The device
    #[arg(value_name = "DEVICE", value_parser = values::device_id, add = device_ids::completer())]
    pub device: DeviceId,
    /// How long the call may take.
    #[command(flatten)]
    pub timeouts: CallTimeouts,
}

#[cfg(test)]
mod tests {
    use iotdm_proto::report::{BootCause, BootDetail};

    use super::*;

    #[test]
    fn the_help_has_the_devices_words() {
        let causes = BootCause::ALL.iter().map(|cause| cause.as_str());
        for word in causes.chain(BootDetail::ALL.iter().map(|detail| detail.as_str())) {
            assert!(HISTORY_HELP.contains(word), "{word}");
        }
    }
}
