//! Applies configurations to the devices and modules that they target, as soon as
//! something changes that the result depends on.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use serde_json::Value;
use tracing::{debug, error, warn};

use crate::api_version::ApiVersion;
use crate::clock::now;
use crate::configured::{Configuration, Leaves, settle};
use crate::device::Device;
use crate::hub::Hub;
use crate::refusal::HubRefusal;
use iotdm_proto::Identity;

/// Applies configurations for ever.
pub async fn run(hub: Arc<Hub>) {
    // Else looking at all of them would keep others waiting.
    if let Err(error) = hub.registry.parse_all().await {
        error!("{error:#}");
    }
    // What has changed while the emulator did not run is not known.
    hub.changes.note_all();
    let mut configurations = Vec::new();
    loop {
        let since = hub.changes.next().await;
        if since.all {
            configurations = read(&hub);
        }
        for id in concerned(&hub, &configurations, since.all, since.ids) {
            apply(&hub, &configurations, &id).await;
        }
        if since.all {
            // Without configurations nothing is left that a device's change changes.
            hub.changes.matter(!configurations.is_empty());
        }
    }
}

/// All configurations, those that win first.
fn read(hub: &Hub) -> Vec<Configuration> {
    let mut all = Vec::new();
    for json in hub.configurations.list(usize::MAX) {
        match Configuration::parse(&json) {
            Ok(configuration) => all.push(configuration),
            Err(error) => {
                let id = json.get("id").and_then(Value::as_str).unwrap_or_default();
                warn!(id, %error, "a configuration is not applied");
            }
        }
    }
    Configuration::rank(&mut all);
    all
}

/// The devices and modules on which configurations may come to something else.
fn concerned(
    hub: &Hub,
    configurations: &[Configuration],
    all: bool,
    mut ids: BTreeSet<Identity>,
) -> BTreeSet<Identity> {
    if all {
        let some = !configurations.is_empty();
        hub.registry.all(|id, device| {
            if some || !device.configured.is_empty() {
                ids.insert(id.clone());
            }
        });
    } else if configurations.iter().any(|one| !one.modules.is_empty()) {
        // What a device's modules get depends on the device.
        let devices: Vec<Identity> = ids.iter().filter(|id| id.module.is_none()).cloned().collect();
        ids.extend(devices.iter().flat_map(|device| hub.registry.with_modules(device)));
    }
    ids
}

/// Applies the configurations to one device or module.
async fn apply(hub: &Hub, configurations: &[Configuration], id: &Identity) {
    // A device that was deleted meanwhile needs nothing.
    let Ok(targeting) = targeting(hub, configurations, id) else { return };
    let outcome = |device: &Device| {
        let wanted = targeting.iter().map(|(one, leaves)| (one.id.as_str(), *leaves));
        settle(wanted, &device.configured, device.twin.desired.values())
    };
    let is_settled = |device: &Device| {
        let outcome = outcome(device);
        outcome.configured == device.configured && outcome.desired == *device.twin.desired.values()
    };
    if hub.registry.read(id, is_settled).unwrap_or(true) {
        return;
    }
    let change = |device: &mut Device| {
        let outcome = outcome(device);
        let notification = device.twin.configure(&outcome, |id| digest(configurations, id), now())?;
        device.configured = outcome.configured;
        Ok(notification)
    };
    let tell = |device: &Arc<Device>, notification| {
        hub.note_twin_change(id, device, "updateTwin", None, notification)
    };
    match hub.registry.update(id, change, tell).await {
        Ok(()) => debug!(%id, "configurations are applied"),
        Err(error) => warn!(%id, %error, "configurations cannot be applied"),
    }
}

/// The configurations that target a device or module, those that win first, each with
/// what it wants to set.
fn targeting<'a>(
    hub: &Hub,
    configurations: &'a [Configuration],
    id: &Identity,
) -> Result<Vec<(&'a Configuration, &'a Leaves)>, HubRefusal> {
    let twin = |id: &Identity| {
        hub.registry.read(id, |device| device.row_json(id, &hub.presence(id), &ApiVersion::latest()))
    };
    let own = twin(id)?;
    let of_device = match &id.module {
        Some(_) if configurations.iter().any(|one| !one.modules.is_empty()) => twin(&id.of_device())?,
        _ => Value::Null,
    };
    let wants = |one: &'a Configuration| match &id.module {
        None => (!one.target.modules && one.target.holds(&own)).then_some(&one.content),
        Some(_) if one.target.modules => one.target.holds(&own).then_some(&one.content),
        Some(module) => {
            let content = one.modules.get(module.as_str())?;
            one.target.holds(&of_device).then_some(content)
        }
    };
    Ok(configurations.iter().filter_map(|one| Some((one, wants(one)?))).collect())
}

fn digest(configurations: &[Configuration], id: &str) -> String {
    configurations.iter().find(|one| one.id == id).map(|one| one.digest.clone()).unwrap_or_default()
}

/// How many devices or modules a configuration targets, and to how many of them it
/// has been applied; `None` where its condition is not understood.
pub fn reach(hub: &Hub, json: &Value) -> Option<(u64, u64)> {
    let configuration = Configuration::parse(json).ok()?;
    let (mut targeted, mut applied) = (0, 0);
    let look = |id: &Identity, device: &Device| {
        if configuration.target.holds(&device.row_json(id, &hub.presence(id), &ApiVersion::latest())) {
            targeted += 1;
        }
        if device.configured.get(&configuration.id).is_some_and(|state| state.applied) {
            applied += 1;
        }
        ControlFlow::Continue(())
    };
    match configuration.target.modules {
        true => hub.registry.modules(None, look),
        false => hub.registry.devices(None, look),
    }
    Some((targeted, applied))
}
