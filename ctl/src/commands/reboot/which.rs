//! Which devices a run is for, and the question before it begins.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use iotdm_proto::DeviceId;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::before::Before;
use crate::cli::{FleetArgs, WhichArgs};
use crate::commands::selection::{
    self, Conditions, each_once, each_row, in_a_question, modules, of_devices, say_left_out,
};
use crate::exit::Exit;
use crate::hub::{HubClient, HubError};
use crate::reported::Reported;
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
    /// What the query that selected the devices told of them.
    pub(super) known: Known,
}

/// What a query told of the devices of a run before it. Most devices of a fleet have
/// the same daemon, and share what is known of that.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    kinds: Vec<Before>,
    /// What is known of each device, by its number.
    of: Vec<Option<Described>>,
}

/// What a row of a query tells of a device.
#[derive(Debug, Clone)]
struct Described {
    /// When the row came.
    at: Instant,
    /// The number of the device's kind.
    kind: u32,
    /// The id of the newest request.
    newest: Option<Box<str>>,
    /// `rebootTime`, as JSON.
    reboot_time: Option<Box<str>>,
}

/// For how long a row of a query tells how a device is. After that, its twin has to be
/// read before a call: what it reports may have changed.
const YOUNG: Duration = Duration::from_secs(60);

impl Known {
    /// What is known of the device of this number, if that is new enough to go by.
    pub(super) fn of(&self, index: usize) -> Option<Before> {
        let of = self.of.get(index)?.as_ref().filter(|of| of.at.elapsed() < YOUNG)?;
        let kind = self.kinds.get(usize::try_from(of.kind).ok()?)?;
        Some(Before {
            reboot_id: of.newest.as_deref().map(str::to_owned),
            reboot_time: of.reboot_time.as_deref().and_then(|time| serde_json::from_str(time).ok()),
            ..kind.clone()
        })
    }
}

/// The kinds of devices of which something is known, while they are being found.
#[derive(Default)]
struct Kinds {
    kinds: Vec<Before>,
    numbers: BTreeMap<String, u32>,
}

impl Kinds {
    /// What a row of a query for [`DESCRIBED`], which has just come, tells of a device.
    /// Enough is known only of one that reports the daemon; others are watched by their
    /// `rebootTime` alone, which has to be read right before the call.
    fn described(&mut self, row: &Value) -> Option<Described> {
        let is_there = |value: &&Value| !value.is_null();
        let reported = Reported {
            agent: row.get("agent").filter(|agent| agent.is_object()).cloned(),
            health: row.get("health").filter(is_there).cloned().map(Box::new),
            ..Reported::default()
        };
        let before = Before::from(reported);
        if !before.agent {
            return None;
        }
        let next = u32::try_from(self.kinds.len()).ok()?;
        let kind = *self.numbers.entry(json!(before).to_string()).or_insert(next);
        if kind == next {
            self.kinds.push(before);
        }
        let newest = row.get("newest").and_then(Value::as_str).map(Box::from);
        let reboot_time = row.get("rebootTime").filter(is_there).map(|time| time.to_string().into());
        Some(Described { at: Instant::now(), kind, newest, reboot_time })
    }
}

/// The columns that tell of a device what is to be known before a call.
const DESCRIBED: &str = ", properties.reported.agent AS agent, properties.reported.reboot.id AS newest, \
                         properties.reported.rebootTime AS rebootTime, \
                         properties.reported.health.state AS health";

/// What is needed to know of a device before the run.
struct Candidate {
    device: DeviceId,
    group: Option<Box<Value>>,
    rank: Option<Box<Value>>,
    is_offline: bool,
    /// What else the query told of it.
    told: Option<Described>,
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
    let mut kinds = Kinds::default();
    let mut candidates = match (conditions, &args.devices_from) {
        (Some(conditions), _) => selected(hub, conditions, fleet, &mut kinds).await?,
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
        candidates.sort_by(|a, b| by_value(a.rank.as_deref(), b.rank.as_deref()));
    }
    let mut selection = Selection::default();
    selection.known.kinds = kinds.kinds;
    for Candidate { device, group, is_offline, told, .. } in candidates {
        if !selection.known.kinds.is_empty() {
            selection.known.of.push(told);
        }
        if fleet.per.is_some() {
            selection.groups.push(group.map(|group| *group));
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
/// modules' whether they are connected. What the devices report is told by the query as
/// well, with which a hundred devices need no read of a twin each; modules report it in
/// twins of their own.
async fn selected(
    hub: &HubClient,
    conditions: Conditions<'_>,
    fleet: &FleetArgs,
    kinds: &mut Kinds,
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
    // A condition may be so long that a query has no place for more.
    let plain = of_devices(&columns, conditions.device)?;
    let described = of_devices(&format!("{columns}{DESCRIBED}"), conditions.device);
    let sql = described.ok().filter(|_| hub.module().is_none()).unwrap_or_else(|| plain.clone());
    let mut note = |device, row: Value| {
        let told = kinds.described(&row);
        candidates.push(Candidate { told, ..Candidate::described(device, &row, fleet) });
    };
    match each_row(hub, &sql, "--where", &mut note).await {
        // A hub that cannot tell more has to tell this much; the twins are read then.
        Err(error) if sql != plain && candidates.is_empty() && is_bad_request(&error) => {
            each_row(hub, &plain, "--where", |device, row| {
                candidates.push(Candidate::described(device, &row, fleet));
            })
            .await?;
        }
        result => result?,
    }
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

/// Whether the hub did not understand a query.
fn is_bad_request(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(HubError::Refused(refusal)) if refusal.status == 400)
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
        Candidate { device, group: None, rank: None, is_offline: false, told: None }
    }

    /// A device by its twin, or those keys of it that are needed.
    fn described(device: DeviceId, twin: &Value, fleet: &FleetArgs) -> Self {
        let at = |path: &Option<TwinPath>| path.as_ref()?.of(twin).cloned().map(Box::new);
        let state = twin.get("connectionState").and_then(Value::as_str);
        Candidate {
            device,
            group: at(&fleet.per),
            rank: at(&fleet.order_by),
            is_offline: state.is_some_and(|state| state != "Connected"),
            told: None,
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
    fn devices_with_the_same_daemon_share_what_is_known_of_them() {
        let mut kinds = Kinds::default();
        let agent = json!({"version": "1", "features": ["health"]});
        let rows = [
            json!({"deviceId": "a", "agent": agent, "newest": "r-0", "health": "running"}),
            json!({"deviceId": "b", "agent": agent, "newest": "r-1", "health": "degraded", "rebootTime": "T"}),
            // A hub may say of what a device does not report that it is null.
            json!({"deviceId": "c", "agent": agent, "newest": null, "health": null, "rebootTime": null}),
            json!({"deviceId": "d", "newest": "r-0"}),
            json!({"deviceId": "e", "agent": "a text"}),
        ];
        let of: Vec<_> = rows.iter().map(|row| kinds.described(row)).collect();
        let numbers: Vec<_> = of.iter().map(|told| told.as_ref().map(|told| told.kind)).collect();
        assert_eq!(numbers, [Some(0), Some(0), Some(1), None, None]);
        let known = Known { kinds: kinds.kinds, of };
        let second = known.of(1).unwrap();
        assert!(second.agent && second.health && second.may_tell_health());
        assert_eq!((second.reboot_id.as_deref(), second.reboot_time), (Some("r-1"), Some(json!("T"))));
        let third = Before { agent: true, features: vec!["health".into()], ..Before::default() };
        assert_eq!(known.of(2), Some(third));
        assert_eq!([known.of(3), known.of(4), known.of(5), Known::default().of(0)], [const { None }; 4]);
    }

    #[test]
    fn what_a_query_told_is_gone_by_for_a_minute() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let mut kinds = Kinds::default();
            let of = vec![kinds.described(&json!({"deviceId": "a", "agent": {"version": "1"}}))];
            let known = Known { kinds: kinds.kinds, of };
            tokio::time::advance(Duration::from_secs(59)).await;
            assert!(known.of(0).is_some());
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(known.of(0), None);
        });
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
