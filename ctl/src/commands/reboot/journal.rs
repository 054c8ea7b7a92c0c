//! What a run was to do and how far it is, in a file of one JSON object a line.
//!
//! The first line has the request with its id and all devices. Before the
//! request goes out to a device, a line is written and synced that says so, with
//! what the device reported until then; once the outcome on the device is known,
//! a line with the outcome, and one more if the request certainly has not reached
//! the device. So the file tells which devices may have got the request.
//!
//! Devices that wait for their lines at the same time share a sync: it takes with it
//! whatever was written while the sync before it ran.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, bail};
use iotdm_proto::{DeviceId, ModuleId, RequestId, Time};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use super::before::Before;
use super::device_outcome::{DeviceOutcome, device_id};
use super::outcome::Outcome;
use super::request::{RunRequest, Way};
use super::rules::Rules;
use super::which::Selection;
use crate::error::Usage;
use crate::journals;
use crate::output::arguments;
use crate::values;

/// A run's journal, open for writing and locked.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: RefCell<Arc<File>>,
    /// How long the file is up to its last whole line.
    length: Cell<u64>,
    /// How much of the file is on the disk. Whoever has it locked syncs the file.
    synced: Mutex<u64>,
    /// Whether a line could not be written.
    is_broken: Cell<bool>,
    /// Whether a sync has failed. Nothing is known of what was written before it, and a
    /// later sync that succeeds says nothing about that either.
    is_unsynced: Cell<bool>,
}

/// The journal could not be written, so nothing more may be sent.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the journal {path}: {cause}; nothing more was sent")]
pub(super) struct JournalError {
    path: PathBuf,
    cause: std::io::Error,
}

/// What a run is to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Plan {
    /// The version of the file's layout.
    version: u32,
    /// When the plan was made.
    pub(super) at: Time,
    /// The hub, with its port.
    pub(super) hub: String,
    /// The module of each device that the run is for, if not the device itself.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "module_id")]
    pub(super) module: Option<ModuleId>,
    /// What is asked of each device.
    pub(super) request: RunRequest,
    /// Which way the request goes to the devices.
    pub(super) way: Way,
    /// How to go through the devices.
    pub(super) rules: Rules,
    /// The devices, in the order in which they are started.
    #[serde(deserialize_with = "device_ids")]
    pub(super) devices: Vec<DeviceId>,
    /// What makes the group of each device, if there are groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) groups: Vec<Option<Value>>,
    /// The devices that were not connected at the start, if there are groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "device_ids")]
    pub(super) offline: Vec<DeviceId>,
}

/// What a journal tells of the devices.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// The devices that the request may have gone to.
    pub(super) sent: BTreeMap<DeviceId, Sent>,
    /// The devices that were offline when they were called last.
    pub(super) unreached: BTreeSet<DeviceId>,
    /// The outcomes on the devices about which nothing more is to be done.
    pub(super) outcomes: BTreeMap<DeviceId, DeviceOutcome>,
    /// The ids of the requests to devices that are asked anew, by other ids than the
    /// run's.
    pub(super) ids: BTreeMap<DeviceId, RequestId>,
    /// When the last request went out.
    pub(super) last_sent: Option<Time>,
}

/// What a journal tells of a run to those who only read it.
#[derive(Debug)]
pub(super) struct Story {
    pub(super) plan: Plan,
    /// When the request to each device went out last.
    pub(super) sent: BTreeMap<DeviceId, Time>,
    /// The last outcome on each device.
    pub(super) outcomes: BTreeMap<DeviceId, DeviceOutcome>,
}

/// A request that may have gone out to a device.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Sent {
    /// What the device reported before.
    pub(super) before: Before,
    /// When it went out, as far as the journal tells.
    pub(super) at: Option<Time>,
    /// Since when the device is watched as a canary, its reboot being complete.
    pub(super) soaks_since: Option<Time>,
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Line {
    /// The first line: what the run is to do.
    Run(Plan),
    /// The request is about to go out to a device.
    Sent {
        #[serde(deserialize_with = "device_id")]
        device: DeviceId,
        before: Before,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<Time>,
    },
    /// The request that was about to go out to a device has not reached it.
    Unsent {
        #[serde(deserialize_with = "device_id")]
        device: DeviceId,
    },
    /// These devices are to be asked anew, by this id.
    Retry {
        id: RequestId,
        #[serde(deserialize_with = "device_ids")]
        devices: Vec<DeviceId>,
    },
    /// The reboot of a canary is complete, and it is watched from then on.
    Soak {
        #[serde(deserialize_with = "device_id")]
        device: DeviceId,
        at: Time,
    },
    /// The outcome on a device. Its key is older than the name.
    #[serde(rename = "ended")]
    Outcome(DeviceOutcome),
}

/// The first line, as it is written: a plan of many devices is not copied for it.
#[derive(Serialize)]
struct PlanLine<'a> {
    run: &'a Plan,
}

/// The version of the file's layout that is written. The first one, which knew
/// nothing of groups, gates and requests that are asked anew, is read as well.
const VERSION: u32 = 2;
/// The version of a journal about modules, which a program that knows only devices has
/// to refuse.
const VERSION_OF_MODULES: u32 = 3;

/// Reads the ids of devices, as [`device_id`] does.
fn device_ids<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<DeviceId>, D::Error> {
    #[derive(Deserialize)]
    struct Item(#[serde(deserialize_with = "device_id")] DeviceId);
    Ok(Vec::<Item>::deserialize(deserializer)?.into_iter().map(|item| item.0).collect())
}

/// Reads the id of a module, as [`device_id`] does that of a device.
fn module_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ModuleId>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| values::module_id(&text).map_err(serde::de::Error::custom)).transpose()
}

impl Plan {
    /// A plan that is made now. The devices, which may be many, are taken out of the
    /// selection until [`Plan::give_back`].
    pub(super) fn new(
        (hub, module): (String, Option<ModuleId>),
        request: RunRequest,
        way: Way,
        rules: Rules,
        selection: &mut Selection,
    ) -> Self {
        let version = if module.is_some() { VERSION_OF_MODULES } else { VERSION };
        let Selection { devices, groups, offline, .. } = selection;
        let (devices, groups) = (std::mem::take(devices), std::mem::take(groups));
        let (at, offline) = (Time::from(SystemTime::now()), offline.iter().cloned().collect());
        Plan { version, at, hub, module, request, way, rules, devices, groups, offline }
    }

    /// Gives the devices back to the selection that they were taken out of.
    pub(super) fn give_back(self, selection: &mut Selection) {
        (selection.devices, selection.groups) = (self.devices, self.groups);
    }
}

impl Journal {
    /// Begins a journal in the folder `state_home`, which only its owner can read.
    pub(super) fn create(state_home: Option<&Path>, plan: &Plan) -> anyhow::Result<Self> {
        let Some(state_home) = state_home else {
            let message = "there is no place for the journal of this run; set HOME or XDG_STATE_HOME";
            return Err(Usage(message.to_owned()).into());
        };
        let folder = journals::folder(state_home);
        let failed = || format!("cannot begin a journal in {}", folder.display());
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).with_context(failed)?;
        // The files of a folder, sorted by name, are in the order of time.
        let prefix = plan.at.to_string().replace([':', '-'], "").replace(".", "-");
        let file =
            tempfile::Builder::new().prefix(&format!("{prefix}-")).suffix(".jsonl").tempfile_in(&folder);
        let (file, path) = file.with_context(failed)?.keep().with_context(failed)?;
        lock(&file, &path)?;
        let journal = Journal::of(path, file, 0);
        journal.write(&PlanLine { run: plan })?;
        journal.sync()?;
        File::open(&folder).and_then(|folder| folder.sync_all()).with_context(failed)?;
        Ok(journal)
    }

    /// Takes a journal up again, with what was to be done and what has been done.
    pub(super) fn resume(path: &Path) -> anyhow::Result<(Self, Plan, Past)> {
        let refuse = |what: String| Usage(format!("--resume {}: {what}", path.display()));
        is_regular(path).map_err(refuse)?;
        let open = OpenOptions::new().read(true).write(true).open(path);
        let mut file = open.map_err(|error| refuse(error.to_string()))?;
        lock(&file, path)?;
        let mut past = Past::default();
        let (plan, end) = read(&file, |line| match line {
            Line::Run(_) => {}
            Line::Sent { device, before, at } => {
                past.last_sent = at.or(past.last_sent);
                past.unreached.remove(&device);
                past.sent.insert(device, Sent { before, at, soaks_since: None });
            }
            Line::Soak { device, at } => {
                if let Some(sent) = past.sent.get_mut(&device) {
                    sent.soaks_since = Some(at);
                }
            }
            Line::Unsent { device } => drop(past.sent.remove(&device)),
            Line::Outcome(outcome) => past.note(outcome),
            Line::Retry { id, devices } => devices.into_iter().for_each(|device| past.ask_anew(device, &id)),
        })
        .map_err(refuse)?;
        let ready = file.set_len(end).and_then(|()| file.seek(SeekFrom::End(0)));
        ready.map_err(|error| refuse(error.to_string()))?;
        Ok((Journal::of(path.to_owned(), file, end), plan, past))
    }

    /// What the run is to do, which may be at work meanwhile.
    pub(super) fn plan(path: &Path) -> Result<Plan, String> {
        is_regular(path)?;
        read(&File::open(path).map_err(|error| error.to_string())?, |_| {}).map(|(plan, _)| plan)
    }

    /// What the journal tells, which may be at work meanwhile.
    pub(super) fn story(path: &Path) -> anyhow::Result<Story> {
        let refuse = |what: String| Usage(format!("{}: {what}", path.display()));
        is_regular(path).map_err(refuse)?;
        let file = File::open(path).map_err(|error| refuse(error.to_string()))?;
        let (mut sent, mut outcomes) = (BTreeMap::new(), BTreeMap::new());
        let (plan, _) = read(&file, |line| match line {
            Line::Sent { device, at: Some(at), .. } => drop(sent.insert(device, at)),
            Line::Outcome(outcome) => drop(outcomes.insert(outcome.device.clone(), outcome)),
            Line::Unsent { device } => drop(sent.remove(&device)),
            Line::Run(_) | Line::Sent { .. } | Line::Soak { .. } | Line::Retry { .. } => {}
        })
        .map_err(refuse)?;
        Ok(Story { plan, sent, outcomes })
    }

    fn of(path: PathBuf, file: File, length: u64) -> Self {
        let (file, length) = (RefCell::new(Arc::new(file)), Cell::new(length));
        let (is_broken, is_unsynced) = (Cell::default(), Cell::default());
        Journal { path, file, length, synced: Mutex::new(0), is_broken, is_unsynced }
    }

    /// Whether a line could not be written, so that nothing more may be sent.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken.get()
    }

    /// The journal's file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The command that takes the run up again, to be pasted into a shell.
    pub(super) fn how_to_resume(&self) -> String {
        format!("iotdm-ctl reboot --resume {}", arguments([&*self.path.to_string_lossy()]))
    }

    /// Writes that the request is about to go out to `device`, and returns once that is
    /// on the disk. Where it is not, nothing may be sent, and [`Journal::outcome`] takes the
    /// line back unless the request may have gone out before.
    pub(super) async fn sent(&self, device: &DeviceId, before: &Before) -> Result<(), JournalError> {
        let at = Some(Time::from(SystemTime::now()));
        self.write(&Line::Sent { device: device.clone(), before: before.clone(), at })?;
        self.on_disk().await
    }

    /// Writes that the reboot of a canary is complete, and that it is watched from now
    /// on.
    pub(super) async fn soaks(&self, device: &DeviceId) -> Result<(), JournalError> {
        self.write(&Line::Soak { device: device.clone(), at: Time::from(SystemTime::now()) })?;
        self.on_disk().await
    }

    /// Writes that these devices are to be asked anew, by the id `id`.
    pub(super) fn retry(&self, id: &RequestId, devices: &[DeviceId]) -> Result<(), JournalError> {
        self.write(&Line::Retry { id: id.clone(), devices: devices.to_vec() })?;
        self.sync()
    }

    /// Writes the outcome on a device, and whether the request certainly has not reached
    /// it. If a line gets lost, a later run looks for the outcome again, so they are not
    /// synced.
    pub(super) fn outcome(&self, outcome: &DeviceOutcome) -> Result<(), JournalError> {
        let written = self.write(&Line::Outcome(outcome.clone().brief()));
        let unsent = match outcome.unsent {
            true => self.write(&Line::Unsent { device: outcome.device.clone() }),
            false => Ok(()),
        };
        written.and(unsent)
    }

    /// Returns once all that was written so far is on the disk. Who comes while a sync
    /// runs shares the next one.
    async fn on_disk(&self) -> Result<(), JournalError> {
        let end = self.length.get();
        let mut synced = self.synced.lock().await;
        if *synced >= end {
            return Ok(());
        }
        if self.is_unsynced.get() {
            return Err(self.unsynced(std::io::Error::other("an earlier line did not reach the disk")));
        }
        let (file, length) = (self.file.borrow().clone(), self.length.get());
        match spawn_blocking(move || file.sync_data()).await.unwrap_or_else(|error| Err(error.into())) {
            Ok(()) => {
                *synced = length;
                Ok(())
            }
            Err(cause) => Err(self.unsynced(cause)),
        }
    }

    /// Syncs the file before the run begins.
    fn sync(&self) -> Result<(), JournalError> {
        self.file.borrow().sync_data().map_err(|cause| self.unsynced(cause))
    }

    fn unsynced(&self, cause: std::io::Error) -> JournalError {
        self.is_broken.set(true);
        self.is_unsynced.set(true);
        JournalError { path: self.path.clone(), cause }
    }

    fn write(&self, line: &impl Serialize) -> Result<(), JournalError> {
        let file = self.file.borrow();
        let written = serde_json::to_string(line).map_err(Into::into).and_then(|mut text: String| {
            text.push('\n');
            (&**file).write_all(text.as_bytes())?;
            Ok(self.length.get() + u64::try_from(text.len()).unwrap_or(0))
        });
        match written {
            Ok(length) => {
                self.length.set(length);
                Ok(())
            }
            Err(cause) => {
                self.is_broken.set(true);
                // What a full disk took of the line would spoil the next one.
                drop(file);
                self.cut_back();
                Err(JournalError { path: self.path.clone(), cause })
            }
        }
    }

    /// Cuts the file back to its whole lines.
    fn cut_back(&self) {
        let file = self.file.borrow();
        let _ = file.set_len(self.length.get()).and_then(|()| (&**file).seek(SeekFrom::End(0)));
    }
}

impl Past {
    /// Takes note of an outcome, if it is the last word: a device of which nothing
    /// is known, or that the hub kept us from, is to be taken up again.
    fn note(&mut self, outcome: DeviceOutcome) {
        if outcome.outcome == Outcome::Offline {
            self.unreached.insert(outcome.device.clone());
        }
        if outcome.can_be_resumed() {
            self.outcomes.remove(&outcome.device);
        } else {
            self.outcomes.insert(outcome.device.clone(), outcome);
        }
    }

    /// Takes note that a device is to be asked anew, by another id.
    pub(super) fn ask_anew(&mut self, device: DeviceId, id: &RequestId) {
        // One that was going down may be away until its turn comes.
        if self.outcomes.remove(&device).is_some_and(|outcome| outcome.may_be_away(false)) {
            self.unreached.insert(device.clone());
        }
        self.sent.remove(&device);
        self.ids.insert(device, id.clone());
    }
}

/// Whether a path leads to a regular file. A device or a FIFO would be written to,
/// and may have no end.
fn is_regular(path: &Path) -> Result<(), String> {
    match fs::metadata(path).map_err(|error| error.to_string())?.is_file() {
        true => Ok(()),
        false => Err("this is no regular file; give the journal of a run".to_owned()),
    }
}

/// Reads a journal line by line. Returns its plan, and how long it is up to its last
/// whole line: one that was cut short while it was written tells of something that
/// had not been done yet.
fn read(file: &File, mut each: impl FnMut(Line)) -> Result<(Plan, u64), String> {
    let (mut plan, mut length): (Option<Plan>, u64) = (None, 0);
    let (mut reader, mut number, mut text) = (BufReader::new(file), 0, String::new());
    loop {
        text.clear();
        let read = reader.read_line(&mut text).map_err(|error| error.to_string())?;
        if !text.ends_with('\n') {
            break;
        }
        number += 1;
        let not_ours =
            |error: String| format!("line {number} is none of a journal of iotdm-ctl reboot ({error})");
        match serde_json::from_str(&text).map_err(|error| not_ours(error.to_string()))? {
            Line::Run(run) if plan.is_none() && (1..=VERSION_OF_MODULES).contains(&run.version) => {
                if !run.groups.is_empty() && run.groups.len() != run.devices.len() {
                    return Err(not_ours("not one group for each device".into()));
                }
                plan = Some(run);
            }
            Line::Run(_) => return Err(not_ours("another version".into())),
            line => each(line),
        }
        length += u64::try_from(read).unwrap_or(0);
    }
    plan.map(|plan| (plan, length)).ok_or_else(|| "the journal is empty".to_owned())
}

/// Locks a journal for this process, or says that another one is at work on it.
fn lock(file: &File, path: &Path) -> anyhow::Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => bail!("another iotdm-ctl is at work on {}", path.display()),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use serde_json::json;

    use super::*;
    use crate::cli::Until;
    use crate::commands::reboot::device_outcome::Told;
    use crate::commands::reboot::outcome::Outcome;
    use crate::reply::MethodReply;

    fn plan() -> Plan {
        let request = serde_json::from_value(json!({"id": "r-1", "reason": "why"})).unwrap();
        let devices = ["gw1", "gw2", "gw3"].map(|id| id.parse().unwrap());
        let mut selection = Selection { devices: devices.into(), ..Selection::default() };
        Plan::new(("hub:8443".into(), None), request, Way::Method, Rules::default(), &mut selection)
    }

    fn device(id: &str) -> DeviceId {
        id.parse().unwrap()
    }

    fn on_device(id: &str, outcome: Outcome) -> DeviceOutcome {
        let not_started = DeviceOutcome::not_started(&device(id), &"r-1".parse().unwrap());
        DeviceOutcome { outcome, unsent: false, ..not_started }
    }

    fn wait<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn tells_what_was_sent_and_what_became_of_it() {
        let home = tempfile::tempdir().unwrap();
        let journal = Journal::create(Some(home.path()), &plan()).unwrap();
        let path = journal.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        let before = Before { agent: true, reboot_id: Some("r-0".into()), ..Before::default() };
        for id in ["gw1", "gw2"] {
            wait(journal.sent(&device(id), &before)).unwrap();
        }
        journal.outcome(&on_device("gw1", Outcome::Completed)).unwrap();
        wait(journal.soaks(&device("gw2"))).unwrap();
        journal.outcome(&on_device("gw2", Outcome::TimedOut)).unwrap();
        let busy = Journal::resume(&path).unwrap_err().to_string();
        assert!(busy.contains("another iotdm-ctl is at work"), "{busy}");
        drop(journal);

        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"sent\":{\"dev").unwrap();
        let (journal, again, past) = Journal::resume(&path).unwrap();
        assert_eq!((again.request.id().as_str(), again.devices.len()), ("r-1", 3));
        let sent = past.sent.get(&device("gw2")).unwrap();
        assert!(sent.before == before && sent.at.is_some() && past.last_sent >= sent.at, "{sent:?}");
        assert!(sent.soaks_since >= sent.at, "{sent:?}");
        assert!(past.outcomes.keys().eq([&device("gw1")]), "timed out is not the last word");
        journal.outcome(&on_device("gw2", Outcome::Completed)).unwrap();
        drop(journal);
        let (_, _, past) = Journal::resume(&path).unwrap();
        assert_eq!(past.outcomes.len(), 2, "written after the torn line was cut off");
    }

    /// Written by an earlier version of the program, which is read for as long as
    /// the version of the layout stays.
    const EARLIER: &str = r#"{"run":{"version":1,"at":"2026-11-22T18:00:00.000Z","hub":"hub:8443","request":{"id":"r-1","reason":"why","delaySeconds":60,"onInhibitor":"wait"},"way":"method","rules":{"maxInFlight":10,"canary":0,"maxFailures":null,"maxPerSecond":40},"devices":["gw1","gw2"]}}
{"sent":{"device":"gw1","before":{"agent":true,"rebootTime":"T","rebootId":"r-0"}}}
{"ended":{"device":"gw1","id":"r-1","outcome":"completed","rebootTime":"U","seconds":5.1}}
"#;

    #[test]
    fn the_layout_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, EARLIER).unwrap();
        let (_, plan, past) = Journal::resume(&path).unwrap();
        let payload = json!({"id": "r-1", "reason": "why", "delaySeconds": 60, "onInhibitor": "wait"});
        assert_eq!((plan.request.payload(), plan.way), (payload, Way::Method));
        assert_eq!((plan.devices, plan.rules), (vec![device("gw1"), device("gw2")], Rules::default()));
        let Sent { before, at, .. } = past.sent.get(&device("gw1")).unwrap();
        assert_eq!((before.agent, before.reboot_id.as_deref(), *at), (true, Some("r-0"), None));
        let outcome = past.outcomes.get(&device("gw1")).unwrap();
        assert_eq!((outcome.outcome, outcome.told.seconds), (Outcome::Completed, Some(5.1)));
        assert_eq!(outcome.told.reported.reboot_time, Some(json!("U")));
        let line = json!(Line::Outcome(outcome.clone()));
        assert_eq!(line, EARLIER.lines().last().unwrap().parse::<serde_json::Value>().unwrap());
    }

    #[test]
    fn nothing_of_a_plan_is_lost() {
        let home = tempfile::tempdir().unwrap();
        let rules = Rules {
            max_in_flight: 3,
            canary: 2,
            max_failures: Some(4),
            max_per_second: 7,
            until: Some(Until::Strict),
            soak: Some(60_000),
            at_most: Some(1),
            gate: Some("true".into()),
            gate_timeout: Some(90),
            spread: Some(1500),
        };
        let groups = vec![Some(json!("north")), None, Some(json!(7))];
        let full = Plan { rules, groups, offline: vec![device("gw2")], ..plan() };
        let full = Plan { way: Way::Twin { deadline: Some(full.at) }, ..full };
        let full = Plan { version: VERSION_OF_MODULES, module: Some("iotdm".parse().unwrap()), ..full };
        let journal = Journal::create(Some(home.path()), &full).unwrap();
        let path = journal.path().to_owned();
        drop(journal);
        assert_eq!(Journal::resume(&path).unwrap().1, full);
        let later = fs::read_to_string(&path).unwrap().replacen("\"version\":3", "\"version\":4", 1);
        fs::write(&path, later).unwrap();
        let error = Journal::resume(&path).unwrap_err().to_string();
        assert!(error.contains("another version"), "{error}");
    }

    #[test]
    fn who_was_not_reached_or_is_asked_anew_is_open_again() {
        let home = tempfile::tempdir().unwrap();
        let journal = Journal::create(Some(home.path()), &plan()).unwrap();
        for id in ["gw1", "gw2", "gw3"] {
            wait(journal.sent(&device(id), &Before::default())).unwrap();
        }
        let unsent = DeviceOutcome { unsent: true, ..on_device("gw1", Outcome::Error) };
        journal.outcome(&unsent).unwrap();
        let offline = DeviceOutcome { unsent: true, ..on_device("gw2", Outcome::Offline) };
        journal.outcome(&offline).unwrap();
        journal.outcome(&on_device("gw3", Outcome::Refused)).unwrap();
        let path = journal.path().to_owned();
        drop(journal);
        let (journal, _, past) = Journal::resume(&path).unwrap();
        assert!(
            past.sent.keys().eq([&device("gw3")]) && past.outcomes.keys().eq([&device("gw3")]),
            "{past:?}"
        );
        assert!(past.unreached.iter().eq([&device("gw2")]));
        let id = "r-2".parse().unwrap();
        journal.retry(&id, &[device("gw3")]).unwrap();
        drop(journal);
        let (_, _, past) = Journal::resume(&path).unwrap();
        assert!(past.sent.is_empty() && past.outcomes.is_empty(), "{past:?}");
        assert_eq!(past.ids.get(&device("gw3")), Some(&id));
    }

    /// The link broke during the call, so that the device may be rebooting.
    #[test]
    fn who_went_offline_during_the_call_may_have_got_it() {
        let home = tempfile::tempdir().unwrap();
        let journal = Journal::create(Some(home.path()), &plan()).unwrap();
        wait(journal.sent(&device("gw1"), &Before::default())).unwrap();
        journal.outcome(&on_device("gw1", Outcome::Offline)).unwrap();
        let path = journal.path().to_owned();
        drop(journal);
        let (_, _, past) = Journal::resume(&path).unwrap();
        assert!(past.sent.contains_key(&device("gw1")) && past.outcomes.is_empty(), "{past:?}");
    }

    /// What a device that was going down said keeps its group's place over `--resume`.
    #[test]
    fn a_device_that_goes_down_for_another_is_known_later() {
        let home = tempfile::tempdir().unwrap();
        let journal = Journal::create(Some(home.path()), &plan()).unwrap();
        let refused = |id: &str, code: &str| {
            let reply =
                MethodReply { status: 409, payload: json!({"error": {"code": code, "message": "m"}}) };
            let told = Told { reply: Some(reply), ..Told::default() };
            DeviceOutcome { told, ..on_device(id, Outcome::Refused) }
        };
        journal.outcome(&refused("gw1", "shuttingDown")).unwrap();
        journal.outcome(&refused("gw2", "rebootPending")).unwrap();
        let path = journal.path().to_owned();
        drop(journal);
        let (_, _, mut past) = Journal::resume(&path).unwrap();
        let may_be_away = |id: &str| past.outcomes[&device(id)].may_be_away(false);
        assert!(may_be_away("gw1") && !may_be_away("gw2"), "{past:?}");
        // So it does where it is asked anew.
        let id = "r-2".parse().unwrap();
        ["gw1", "gw2"].into_iter().for_each(|again| past.ask_anew(device(again), &id));
        assert!(past.unreached.iter().eq([&device("gw1")]), "{past:?}");
    }

    #[test]
    fn a_line_that_did_not_fit_spoils_no_other() {
        let home = tempfile::tempdir().unwrap();
        let journal = Journal::create(Some(home.path()), &plan()).unwrap();
        let path = journal.path().to_owned();
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let good = journal.file.replace(full.into());
        assert!(wait(journal.sent(&device("gw1"), &Before::default())).is_err() && journal.is_broken());
        journal.file.replace(good);
        // What a full disk takes of a line before the write fails.
        (&**journal.file.borrow()).write_all(b"{\"sent\":").unwrap();
        journal.cut_back();
        wait(journal.sent(&device("gw2"), &Before::default())).unwrap();
        drop(journal);
        let (_, _, past) = Journal::resume(&path).unwrap();
        assert!(past.sent.keys().eq([&device("gw2")]), "{past:?}");
    }

    /// Lines that wait at the same time are on the disk at the same time, and nobody
    /// goes on before that.
    #[test]
    fn devices_that_wait_together_share_a_sync() {
        let home = tempfile::tempdir().unwrap();
        let journal = Journal::create(Some(home.path()), &plan()).unwrap();
        let before = Before::default();
        wait(async {
            let syncs = journal.synced.lock().await;
            let (one, two) = (device("gw1"), device("gw2"));
            let mut sent = std::pin::pin!(async {
                tokio::join!(journal.sent(&one, &before), journal.sent(&two, &before))
            });
            // Both lines are written, and neither may go out.
            assert!(futures_util::poll!(&mut sent).is_pending());
            let end = journal.length.get();
            assert_eq!(fs::metadata(journal.path()).unwrap().len(), end);
            assert_eq!(fs::read_to_string(journal.path()).unwrap().matches("\"sent\"").count(), 2);
            drop(syncs);
            assert!(matches!(sent.await, (Ok(()), Ok(()))));
            assert_eq!(*journal.synced.lock().await, end, "one sync for both");
        });
    }

    #[test]
    fn what_did_not_reach_the_disk_is_not_sent_nor_is_anything_after_it() {
        let home = tempfile::tempdir().unwrap();
        let journal = Journal::create(Some(home.path()), &plan()).unwrap();
        let path = journal.path().to_owned();
        // A pipe takes what is written, and cannot be synced.
        let (_reader, writer) = std::io::pipe().unwrap();
        let good = journal.file.replace(Arc::new(std::os::fd::OwnedFd::from(writer).into()));
        wait(async {
            assert!(journal.on_disk().await.is_err() && journal.is_broken());
            journal.file.replace(good);
            // The disk takes it now, but what was written before may be lost.
            for id in ["gw1", "gw2"] {
                let error = journal.sent(&device(id), &Before::default()).await.unwrap_err().to_string();
                assert!(error.contains("an earlier line did not reach the disk"), "{error}");
                journal
                    .outcome(&DeviceOutcome { unsent: true, ..on_device(id, Outcome::NotStarted) })
                    .unwrap();
            }
        });
        drop(journal);
        let (_, _, past) = Journal::resume(&path).unwrap();
        assert!(past.sent.is_empty(), "{past:?}");
    }

    /// What was sent stays sent, whatever becomes of a second line about it.
    #[test]
    fn who_was_asked_before_stays_so_where_the_disk_fails() {
        let home = tempfile::tempdir().unwrap();
        let journal = Journal::create(Some(home.path()), &plan()).unwrap();
        let path = journal.path().to_owned();
        let before = Before { agent: true, ..Before::default() };
        wait(journal.sent(&device("gw1"), &before)).unwrap();
        journal.is_unsynced.set(true);
        assert!(wait(journal.sent(&device("gw1"), &before)).is_err());
        journal.outcome(&on_device("gw1", Outcome::NotStarted)).unwrap();
        drop(journal);
        let (_, _, past) = Journal::resume(&path).unwrap();
        assert!(past.sent.keys().eq([&device("gw1")]) && past.outcomes.is_empty(), "{past:?}");
    }

    #[test]
    fn what_is_no_journal_is_refused_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let dots = "{\"sent\":{\"device\":\"..\",\"before\":{\"agent\":true}}}\n";
        for (text, expected) in [
            ("", "is empty"),
            ("gw1\n", "line 1 is none"),
            ("{\"ended\":3}\n", "line 1"),
            (dots, "cannot be named in a URL"),
        ] {
            fs::write(&path, text).unwrap();
            let error = Journal::resume(&path).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("--resume"), "{error}");
        }
        let device = Journal::resume(Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(device.contains("--resume /dev/zero: this is no regular file"), "{device}");
        let nowhere = Journal::create(None, &plan()).unwrap_err().to_string();
        assert!(nowhere.contains("XDG_STATE_HOME"), "{nowhere}");
    }
}
