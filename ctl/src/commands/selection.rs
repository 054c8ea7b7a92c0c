//! Which devices a command is for, where there may be many, and how a question
//! names them.

use std::collections::BTreeSet;

use anyhow::Context as _;
use iotdm_proto::DeviceId;
use serde_json::Value;

use crate::hub::{HubClient, HubError, check_length};
use crate::values;

/// How many devices a question names, so that it stays one to read.
const NAMED: usize = 5;

/// The devices that a condition of the query language selects.
pub(crate) async fn selected(hub: &HubClient, condition: &str) -> anyhow::Result<Vec<DeviceId>> {
    let sql = format!("SELECT deviceId FROM devices WHERE {condition}");
    check_length(&sql)?;
    let rows = hub.query(&sql, None).all().await;
    let rows = rows.with_context(|| format!("--where: the query \"{sql}\" failed"))?;
    let id = |row: &Value| values::device_id(row.get("deviceId").and_then(Value::as_str).unwrap_or_default());
    let devices = rows.iter().map(id).collect::<Result<_, _>>();
    Ok(devices.map_err(|cause| HubError::NotAHub { host: hub.endpoint().to_string(), cause })?)
}

/// `devices` in their order, each once.
pub(crate) fn each_once(devices: impl IntoIterator<Item = DeviceId>) -> Vec<DeviceId> {
    let mut known = BTreeSet::new();
    devices.into_iter().filter(|device| known.insert(device.clone())).collect()
}

/// How many devices of which hub, and the first of them by name, as a question
/// has it: `3 devices of hub H (gw1, gw2, gw3)`.
pub(crate) fn in_a_question(hub: &HubClient, devices: &[DeviceId]) -> String {
    let mut named = devices.iter().take(NAMED).map(DeviceId::as_str).collect::<Vec<_>>().join(", ");
    if devices.len() > NAMED {
        named.push_str(", …");
    }
    let noun = if devices.len() == 1 { "device" } else { "devices" };
    format!("{} {noun} of hub {} ({named})", devices.len(), hub.endpoint())
}
