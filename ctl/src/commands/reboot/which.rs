//! Which devices a run is for, and the question before it begins.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use iotdm_proto::DeviceId;
use serde_json::Value;

use crate::cli::{FleetArgs, WhichArgs};
use crate::commands::selection::{each_once, in_a_question};
use crate::exit::Exit;
use crate::hub::{HubClient, HubError, check_length};
use crate::values::TwinPath;
use crate::{device_file, natural, values};

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
    let mut candidates = match (&args.condition, &args.devices_from) {
        (Some(condition), _) => selected(hub, condition, fleet).await?,
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
    if args.condition.is_some() {
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

/// The devices that a condition selects, page by page: of each only what is needed
/// is kept.
async fn selected(hub: &HubClient, condition: &str, fleet: &FleetArgs) -> anyhow::Result<Vec<Candidate>> {
    let mut keys = BTreeSet::from(["deviceId"]);
    if fleet.per.is_some() {
        keys.insert("connectionState");
    }
    keys.extend([&fleet.per, &fleet.order_by].into_iter().flatten().map(TwinPath::top));
    // The id first, as people write it.
    let others = keys.iter().filter(|key| **key != "deviceId").map(|key| format!(", {key}"));
    let sql = format!("SELECT deviceId{} FROM devices WHERE {condition}", others.collect::<String>());
    check_length(&sql)?;
    let mut pages = hub.query(&sql, None);
    let mut candidates = Vec::new();
    while let Some(rows) =
        pages.next().await.with_context(|| format!("--where: the query \"{sql}\" failed"))?
    {
        for row in rows {
            let id = row.get("deviceId").and_then(Value::as_str).unwrap_or_default();
            let device = values::device_id(id)
                .map_err(|cause| HubError::NotAHub { host: hub.endpoint().to_string(), cause })?;
            candidates.push(Candidate::described(device, &row, fleet));
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
        match hub.twin(&device).await {
            Ok(twin) => Ok(Candidate::described(device, twin.value(), fleet)),
            Err(error) if Exit::from(&error) == Exit::NoSuchDevice => Ok(Candidate::of(device)),
            Err(error) => Err(error).with_context(|| device.to_string()),
        }
    };
    stream::iter(devices).map(one).buffered(AT_ONCE).try_collect().await
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
