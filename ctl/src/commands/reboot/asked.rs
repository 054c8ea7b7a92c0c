//! Whom a run has asked, for `cancel --journal`.

use std::path::Path;

use iotdm_proto::{DeviceId, ModuleId, RequestId};

use super::journal::Journal;
use super::outcome::Outcome;
use crate::error::Usage;
use crate::hub::HubClient;

/// The devices that the request of the run may have gone to whose journal is at
/// `path`, with the request's id: all but those on which its outcome is known. The
/// run must be over.
pub(crate) fn asked(hub: &HubClient, path: &Path) -> anyhow::Result<Vec<(DeviceId, RequestId)>> {
    let (_, plan, past) = Journal::resume(path).map_err(as_of_cancel)?;
    let here = hub.endpoint().to_string();
    if plan.hub != here {
        let what = format!("it is about hub {}, but {here} is given", plan.hub);
        return Err(Usage(format!("--journal {}: {what}", path.display())).into());
    }
    let is_open = |device: &DeviceId| match past.outcomes.get(device) {
        None => past.sent.contains_key(device),
        Some(known) => known.outcome == Outcome::Accepted,
    };
    let id = |device: &DeviceId| past.ids.get(device).unwrap_or(plan.request.id()).clone();
    Ok(plan
        .devices
        .iter()
        .filter(|device| is_open(device))
        .map(|device| (device.clone(), id(device)))
        .collect())
}

/// The module that the run is for whose journal is at `path`, if for one. `option` names
/// the file.
pub(crate) fn module_of_journal(option: &str, path: &Path) -> Result<Option<ModuleId>, Usage> {
    Journal::plan(path)
        .map(|plan| plan.module)
        .map_err(|what| Usage(format!("{option} {}: {what}", path.display())))
}

/// The error of a file that is no journal, about the option that named it here.
fn as_of_cancel(error: anyhow::Error) -> anyhow::Error {
    match error.downcast() {
        Ok(Usage(what)) => Usage(what.replacen("--resume", "--journal", 1)).into(),
        Err(error) => error,
    }
}
