//! Which devices a run is for, and the question before it begins.

use iotdm_proto::DeviceId;

use crate::cli::WhichArgs;
use crate::commands::selection::{each_once, in_a_question, selected};
use crate::device_file;
use crate::hub::HubClient;

/// The devices that the command line means, in the order that it gives, each
/// once.
pub(super) async fn devices(hub: &HubClient, args: &WhichArgs) -> anyhow::Result<Vec<DeviceId>> {
    Ok(each_once(match (&args.condition, &args.devices_from) {
        (Some(condition), _) => selected(hub, condition).await?,
        (None, Some(path)) => device_file::devices("--devices-from", path)?,
        (None, None) => args.devices.clone(),
    }))
}

/// The question before `devices` are rebooted.
pub(super) fn question(hub: &HubClient, devices: &[DeviceId]) -> String {
    format!("Reboot {}?", in_a_question(hub, devices))
}
