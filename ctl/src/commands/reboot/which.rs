//! Which devices a run is for, and the question before it begins.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use iotdm_proto::DeviceId;
use serde_json::Value;

use crate::cli::{FleetArgs, WhichArgs};
use crate::commands::selection::{
    self, Conditions, each_once, each_row, in_a_question, modules, of_devices, say_left_out,
};
use crate::exit::Exit;
use crate::hub::HubClient;
use crate::values::TwinPath;
use crate::{device_file, natural};

/// How many twins are read at once.
const AT_ONCE: usize = 32;

/// The devices of a run.
#[derive(Debug, Clone, Default)]
pub(super) struct Selection {
    /// The devices, each once, in the order in which they are started.
    pub(super) devices: Vec<DeviceId>,
    /// What makes the group of each device (`--per`), if groups are asked for.
    pub(super) groups: Vec<Option<Value>>,
    /// The devices that were not connected then, if groups are asked for.
    pub(super) offline: BTreeSet<DeviceId>,
}

/// What is needed to know of a device before the run.
struct Candidate {
    device: DeviceId,
    group: Option<Value>,
    rank: Option<Value>,
    is_offline: bool,
}

/// The devices that the command line means. Those that a condition selects are in
/// the natural order of their ids, all others as they are given, unless
/// `--order-by` says otherwise.
pub(super) async fn devices(
    hub: &HubClient,
    args: &WhichArgs,
    fleet: &FleetArgs,
) -> anyhow::Result<Selection> {
    let needs_twins = fleet.per.is_some() || fleet.order_by.is_some();
    let conditions = Conditions::given(hub, args.condition.as_ref(), args.where_module.as_ref())?;
    let mut candidates = match (conditions, &args.devices_from) {
        (Some(conditions), _) => selected(hub, conditions, fleet).await?,
        (None, from) => {
            let named = each_once(match from {
                Some(path) => device_file::devices("--devices-from", path)?,
                None => args.devices.clone(),
            });
            match needs_twins {
                true => looked_up(hub, named, fleet).await?,
                false => named.into_iter().map(Candidate::of).collect(),
            }
        }
    };
    if conditions.is_some() {
        candidates.sort_by(|a, b| natural::compare(a.device.as_str(), b.device.as_str()));
        candidates.dedup_by(|a, b| a.device == b.device);
    }
    if fleet.order_by.is_some() {
        candidates.sort_by(|a, b| by_value(a.rank.as_ref(), b.rank.as_ref()));
    }
    let mut selection = Selection::default();
    for Candidate { device, group, is_offline, .. } in candidates {
        if fleet.per.is_some() {
            selection.groups.push(group);
            if is_offline {
                selection.offline.insert(device.clone());
            }
        }
        selection.devices.push(device);
    }
    Ok(selection)
}

/// The devices that conditions select, page by page: of each only what is needed is
/// kept. Of modules, the devices' twins say what makes a group and the order, and the
/// modules' whether they are connected.
async fn selected(
    hub: &HubClient,
    conditions: Conditions<'_>,
    fleet: &FleetArgs,
) -> anyhow::Result<Vec<Candidate>> {
    let needs_twins = fleet.per.is_some() || fleet.order_by.is_some();
    let mut candidates = Vec::new();
    if conditions.device.is_none() && hub.module().is_some() {
        let devices = selection::selected(hub, conditions).await?;
        return match needs_twins {
            true => looked_up(hub, devices, fleet).await,
            false => Ok(devices.into_iter().map(Candidate::of).collect()),
        };
    }
    let mut keys = BTreeSet::from(["deviceId"]);
    if fleet.per.is_some() {
        keys.insert("connectionState");
    }
    keys.extend([&fleet.per, &fleet.order_by].into_iter().flatten().map(TwinPath::top));
    // The id first, as people write it.
    let others = keys.iter().filter(|key| **key != "deviceId").map(|key| format!(", {key}"));
    let columns = format!("deviceId{}", others.collect::<String>());
    let note = |device, row: Value| candidates.push(Candidate::described(device, &row, fleet));
    each_row(hub, &of_devices(&columns, conditions.device)?, "--where", note).await?;
    if hub.module().is_some() {
        let devices: Vec<DeviceId> = candidates.iter().map(|candidate| candidate.device.clone()).collect();
        let modules = modules(hub, Some(&devices), conditions.module).await?;
        say_left_out(hub, conditions, devices.len(), modules.len());
        candidates.retain(|candidate| modules.contains_key(&candidate.device));
        for candidate in &mut candidates {
            candidate.is_offline = modules.get(&candidate.device) == Some(&false);
        }
    }
    Ok(candidates)
}

/// What the twins of named devices say. A device that the hub does not have is
/// left for the run to stumble over.
async fn looked_up(
    hub: &HubClient,
    devices: Vec<DeviceId>,
    fleet: &FleetArgs,
) -> anyhow::Result<Vec<Candidate>> {
    let one = |device: DeviceId| async move {
        match hub.device_twin(&device).await {
            Ok(twin) => Ok(Candidate::described(device, twin.value(), fleet)),
            Err(error) if Exit::from(&error) == Exit::NoSuchDevice => Ok(Candidate::of(device)),
            Err(error) => Err(error).with_context(|| device.to_string()),
        }
    };
    let named = devices.clone();
    let mut candidates: Vec<Candidate> =
        stream::iter(devices).map(one).buffered(AT_ONCE).try_collect().await?;
    if hub.module().is_some() {
        // A device without the module is left for the run to stumble over, too.
        let modules = modules(hub, Some(&named), None).await?;
        for candidate in &mut candidates {
            candidate.is_offline = modules.get(&candidate.device) == Some(&false);
        }
    }
    Ok(candidates)
}

impl Candidate {
    /// A device of which nothing more is to be known.
    fn of(device: DeviceId) -> Self {
        Candidate { device, group: None, rank: None, is_offline: false }
    }

    /// A device by its twin, or those keys of it that are needed.
    fn described(device: DeviceId, twin: &Value, fleet: &FleetArgs) -> Self {
        let at = |path: &Option<TwinPath>| path.as_ref().and_then(|path| path.of(twin)).cloned();
        let state = twin.get("connectionState").and_then(Value::as_str);
        Candidate {
            device,
            group: at(&fleet.per),
            rank: at(&fleet.order_by),
            is_offline: state.is_some_and(|state| state != "Connected"),
        }
    }
}

/// Numbers by their size, then texts in their natural order, then anything else;
/// at the end devices that have nothing there.
fn by_value(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    let kind = |value: Option<&Value>| match value {
        Some(Value::Number(_)) => 0,
        Some(Value::String(_)) => 1,
        Some(_) => 2,
        None => 3,
    };
    kind(a).cmp(&kind(b)).then_with(|| match (a, b) {
        (Some(Value::Number(a)), Some(Value::Number(b))) => {
            let of = |number: &serde_json::Number| number.as_f64().unwrap_or(f64::MAX);
            of(a).total_cmp(&of(b))
        }
        (Some(Value::String(a)), Some(Value::String(b))) => natural::compare(a, b),
        (Some(a), Some(b)) => a.to_string().cmp(&b.to_string()),
        _ => Ordering::Equal,
    })
}

/// The group of each device by its number, of as many devices as there are. Devices
/// with the same value are one group; one without a value is a group of its own.
pub(super) fn numbered(groups: &[Option<Value>]) -> Vec<usize> {
    let mut known = BTreeMap::new();
    let mut count = 0;
    let mut new = || {
        count += 1;
        count - 1
    };
    let number = |group: &Option<Value>| match group {
        None => new(),
        Some(value) => *known.entry(value.to_string()).or_insert_with(&mut new),
    };
    groups.iter().map(number).collect()
}

/// The question before `devices` are rebooted.
pub(super) fn question(hub: &HubClient, devices: &[DeviceId]) -> String {
    format!("Reboot {}?", in_a_question(hub, devices))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn devices_with_the_same_value_are_a_group() {
        let groups = [
            Some(json!("a")),
            None,
            Some(json!("b")),
            Some(json!("a")),
            None,
            Some(json!(1)),
            Some(json!("1")),
        ];
        assert_eq!(numbered(&groups), [0, 1, 2, 0, 3, 4, 5]);
    }

    #[test]
    fn the_order_of_values() {
        let order = [
            Some(json!(2)),
            Some(json!(10.5)),
            Some(json!("a2")),
            Some(json!("a10")),
            Some(json!(true)),
            None,
        ];
        let mut shuffled = order.clone();
        shuffled.reverse();
        shuffled.sort_by(|a, b| by_value(a.as_ref(), b.as_ref()));
        assert_eq!(shuffled, order);
    }
}
