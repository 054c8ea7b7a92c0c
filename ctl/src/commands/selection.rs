//! Which devices a command is for, where there may be many, and how a question
//! names them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use iotdm_proto::DeviceId;
use serde_json::Value;

use crate::error::Usage;
use crate::hub::{HubClient, HubError, check_length, literal};
use crate::output::say;
use crate::values;

/// How many devices a question names, so that it stays one to read.
const NAMED: usize = 5;

/// The conditions of a command line: of the devices, and of the modules that are meant.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Conditions<'a> {
    /// `--where`, of the device's twin, which has the tags.
    pub(crate) device: Option<&'a str>,
    /// `--where-module`, of the twin of the module that is meant.
    pub(crate) module: Option<&'a str>,
}

impl<'a> Conditions<'a> {
    /// The conditions of `--where` and `--where-module`; `None` where neither is given.
    pub(crate) fn given(
        hub: &HubClient,
        device: Option<&'a String>,
        module: Option<&'a String>,
    ) -> Result<Option<Self>, Usage> {
        if module.is_some() && hub.module().is_none() {
            return Err(Usage("--where-module: say which module with --module NAME".to_owned()));
        }
        let (device, module) = (device.map(String::as_str), module.map(String::as_str));
        Ok((device.is_some() || module.is_some()).then_some(Conditions { device, module }))
    }
}

/// The devices that the conditions select: of modules, the devices that have the module
/// that is meant.
pub(crate) async fn selected(hub: &HubClient, conditions: Conditions<'_>) -> anyhow::Result<Vec<DeviceId>> {
    let devices = match conditions.device {
        None if hub.module().is_some() => None,
        device => {
            let mut found = Vec::new();
            each_row(hub, &of_devices("deviceId", device)?, "--where", |id, _| found.push(id)).await?;
            Some(found)
        }
    };
    if hub.module().is_none() {
        return Ok(devices.unwrap_or_default());
    }
    let modules = modules(hub, devices.as_deref(), conditions.module).await?;
    Ok(match devices {
        Some(devices) => {
            say_left_out(hub, conditions, devices.len(), modules.len());
            devices.into_iter().filter(|device| modules.contains_key(device)).collect()
        }
        None => modules.into_keys().collect(),
    })
}

/// Which of `devices`, or of all devices, have the module that is meant, where `condition`
/// holds of its twin; and whether the module is connected.
pub(crate) async fn modules(
    hub: &HubClient,
    devices: Option<&[DeviceId]>,
    condition: Option<&str>,
) -> anyhow::Result<BTreeMap<DeviceId, bool>> {
    check_module_condition(hub, condition).await?;
    let mut found = BTreeMap::new();
    for sql in of_modules(hub, "deviceId, connectionState", devices, condition)? {
        let note = |id, row: Value| {
            let state = row.get("connectionState").and_then(Value::as_str);
            found.insert(id, state == Some("Connected"));
        };
        each_row(hub, &sql, "--where-module", note).await?;
    }
    Ok(found)
}

/// Has the hub look at a condition of `--where-module` by itself: what is put around it
/// afterwards must not make sense of half a condition.
pub(crate) async fn check_module_condition(hub: &HubClient, condition: Option<&str>) -> anyhow::Result<()> {
    let Some(condition) = condition else { return Ok(()) };
    let sql = format!("SELECT deviceId FROM devices.modules WHERE {condition}");
    check_length(&sql)?;
    let page = hub.query(&sql, Some(1)).next().await;
    page.with_context(|| format!("--where-module: the query \"{sql}\" failed")).map(drop)
}

/// Says how many of the devices that `--where` selects are left out, and why.
pub(crate) fn say_left_out(hub: &HubClient, conditions: Conditions<'_>, selected: usize, with_module: usize) {
    let (Some(module), true) = (hub.module(), with_module < selected) else { return };
    let which = if conditions.module.is_some() { " of which --where-module holds" } else { "" };
    say(format_args!(
        "iotdm-ctl: {} of {selected} devices are left out: they have no module {module}{which}",
        selected - with_module
    ));
}

/// The query for `columns` of the devices of which `condition` holds.
pub(crate) fn of_devices(columns: &str, condition: Option<&str>) -> Result<String, Usage> {
    let condition = condition.map_or_else(String::new, |condition| format!(" WHERE {condition}"));
    let sql = format!("SELECT {columns} FROM devices{condition}");
    check_length(&sql)?;
    Ok(sql)
}

/// The queries for `columns` of the modules that are meant, of which `condition` holds:
/// those of `devices`, as many of which go into a query as it may be long, or all.
pub(crate) fn of_modules(
    hub: &HubClient,
    columns: &str,
    devices: Option<&[DeviceId]>,
    condition: Option<&str>,
) -> Result<Vec<String>, Usage> {
    let module = literal(hub.module().map_or("", |module| module.as_str()));
    let condition = condition.map_or_else(String::new, |condition| format!(" AND ({condition})"));
    let all = format!("SELECT {columns} FROM devices.modules WHERE moduleId = {module}{condition}");
    check_length(&all)?;
    let Some(devices) = devices else { return Ok(vec![all]) };
    let (mut queries, mut ids) = (Vec::new(), String::new());
    let of = |ids: &str| format!("{all} AND deviceId IN [{ids}]");
    for id in devices.iter().map(|device| literal(device.as_str())) {
        if !ids.is_empty() && check_length(&of(&format!("{ids}, {id}"))).is_err() {
            queries.push(of(&std::mem::take(&mut ids)));
        }
        let comma = if ids.is_empty() { "" } else { ", " };
        ids.push_str(&format!("{comma}{id}"));
    }
    if !ids.is_empty() {
        check_length(&of(&ids))?;
        queries.push(of(&ids));
    }
    Ok(queries)
}

/// Hands each row of a query to `each`, with the row's device. `option` is the option
/// that the query was made of.
pub(crate) async fn each_row(
    hub: &HubClient,
    sql: &str,
    option: &str,
    mut each: impl FnMut(DeviceId, Value),
) -> anyhow::Result<()> {
    let mut pages = hub.query(sql, None);
    while let Some(rows) =
        pages.next().await.with_context(|| format!("{option}: the query \"{sql}\" failed"))?
    {
        for row in rows {
            let id = row.get("deviceId").and_then(Value::as_str).unwrap_or_default();
            let device = values::device_id(id)
                .map_err(|cause| HubError::NotAHub { host: hub.endpoint().to_string(), cause })?;
            each(device, row);
        }
    }
    Ok(())
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
    let module = hub.module().map_or_else(String::new, |module| format!("module {module} of "));
    format!("{module}{} {noun} of hub {} ({named})", devices.len(), hub.endpoint())
}
