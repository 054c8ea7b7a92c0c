//! Which devices a run is for, and the question before it begins.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use anyhow::Context as _;
use iotdm_proto::DeviceId;
use serde_json::Value;

use crate::cli::WhichArgs;
use crate::error::Usage;
use crate::hub::{HubClient, HubError, check_length};
use crate::values;

/// How many devices a question names, so that it stays one to read.
const NAMED: usize = 5;

/// The devices that the command line means, in the order that it gives, each
/// once.
pub(super) async fn devices(hub: &HubClient, args: &WhichArgs) -> anyhow::Result<Vec<DeviceId>> {
    let devices = match (&args.condition, &args.devices_from) {
        (Some(condition), _) => selected(hub, condition).await?,
        (None, Some(path)) => listed(path)?,
        (None, None) => args.devices.clone(),
    };
    let mut known = BTreeSet::new();
    Ok(devices.into_iter().filter(|device| known.insert(device.clone())).collect())
}

/// The devices that a condition selects.
pub(super) async fn selected(hub: &HubClient, condition: &str) -> anyhow::Result<Vec<DeviceId>> {
    let sql = format!("SELECT deviceId FROM devices WHERE {condition}");
    check_length(&sql)?;
    let rows = hub.query(&sql, None).all().await;
    let rows = rows.with_context(|| format!("--where: the query \"{sql}\" failed"))?;
    let id = |row: &Value| values::device_id(row.get("deviceId").and_then(Value::as_str).unwrap_or_default());
    let devices = rows.iter().map(id).collect::<Result<_, _>>();
    Ok(devices.map_err(|cause| HubError::NotAHub { host: hub.endpoint().to_string(), cause })?)
}

/// The devices named in a file, one on each line. Empty lines and lines that begin
/// with `#` do not count.
fn listed(path: &Path) -> Result<Vec<DeviceId>, Usage> {
    let refuse = |what: String| Usage(format!("--devices-from {}: {what}", path.display()));
    let text = if path == Path::new("-") {
        let mut text = String::new();
        io::stdin().lock().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(path)
    };
    let text = text.map_err(|error| refuse(error.to_string()))?;
    let lines = text.lines().map(str::trim).enumerate();
    let named = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    named
        .map(|(index, line)| {
            values::device_id(line).map_err(|error| refuse(format!("line {}: {error}", index + 1)))
        })
        .collect()
}

/// The question before `devices` are rebooted.
pub(super) fn question(hub: &HubClient, devices: &[DeviceId]) -> String {
    let mut named = devices.iter().take(NAMED).map(DeviceId::as_str).collect::<Vec<_>>().join(", ");
    if devices.len() > NAMED {
        named.push_str(", …");
    }
    format!("Reboot {} devices of hub {} ({named})?", devices.len(), hub.endpoint())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_devices() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        fs::write(&path, "gw1\n\n# the north\r\n  gw2  \ngw1").unwrap();
        let devices: Vec<String> = listed(&path).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(devices, ["gw1", "gw2", "gw1"]);
        fs::write(&path, "gw1\ngw 2\n").unwrap();
        let error = listed(&path).unwrap_err().to_string();
        assert!(error.contains("list: line 2: \"gw 2\" is not a device id"), "{error}");
        assert!(listed(&folder.path().join("gone")).unwrap_err().to_string().contains("No such file"));
    }
}
