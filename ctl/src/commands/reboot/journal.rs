//! What a run was to do and how far it is, in a file: one JSON object a line.
//!
//! The first line has the request with its id and all devices. Before a
//! request goes out there is a line that says so, synced, with what the device
//! reported until then; after the end of a device there is one with its end.
//! So whoever reads it knows which devices may have got the request.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, bail};
use iotdm_proto::{DeviceId, Time};
use serde::{Deserialize, Serialize};

use super::device::Before;
use super::ending::Ending;
use super::fleet::Rules;
use super::request::{Request, Way};
use crate::error::Usage;

/// A run's journal, open for writing and locked.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: RefCell<File>,
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
    /// The layout of the file.
    version: u32,
    /// When it was made.
    at: Time,
    /// The hub, with its port.
    pub(super) hub: String,
    /// What is asked of each device.
    pub(super) request: Request,
    /// Which way it goes to them.
    pub(super) way: Way,
    /// How to go through them.
    pub(super) rules: Rules,
    /// The devices, in order.
    pub(super) devices: Vec<String>,
}

/// What a journal tells of the devices.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// Those that the request may have gone to, with what they reported then.
    pub(super) sent: BTreeMap<String, Before>,
    /// Those that nothing more is to be done about.
    pub(super) ended: BTreeMap<String, Ending>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Line {
    Run(Plan),
    Sent { device: String, before: Before },
    Ended(Ending),
}

const VERSION: u32 = 1;

impl Plan {
    /// A plan of now.
    pub(super) fn new(hub: String, request: Request, way: Way, rules: Rules, devices: &[DeviceId]) -> Self {
        let devices = devices.iter().map(ToString::to_string).collect();
        Plan { version: VERSION, at: Time::from(SystemTime::now()), hub, request, way, rules, devices }
    }
}

impl Journal {
    /// Begins one in `state_home`, which only its owner can read.
    pub(super) fn create(state_home: Option<&Path>, plan: Plan) -> anyhow::Result<Self> {
        let Some(state_home) = state_home else {
            let message = "there is no place for the journal of this run; set HOME or XDG_STATE_HOME";
            return Err(Usage(message.to_owned()).into());
        };
        let folder = state_home.join("iotdm/reboots");
        let failed = || format!("cannot begin a journal in {}", folder.display());
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).with_context(failed)?;
        // Sorts by time.
        let prefix = plan.at.to_string().replace([':', '-'], "").replace(".", "-");
        let file =
            tempfile::Builder::new().prefix(&format!("{prefix}-")).suffix(".jsonl").tempfile_in(&folder);
        let (file, path) = file.with_context(failed)?.keep().with_context(failed)?;
        lock(&file, &path)?;
        let journal = Journal { path, file: RefCell::new(file) };
        journal.write(&Line::Run(plan), true)?;
        File::open(&folder).and_then(|folder| folder.sync_all()).with_context(failed)?;
        Ok(journal)
    }

    /// Takes one up again: what was to be done, and what has been.
    pub(super) fn resume(path: &Path) -> anyhow::Result<(Self, Plan, Past)> {
        let refuse = |what: String| Usage(format!("--resume {}: {what}", path.display()));
        let open = OpenOptions::new().read(true).write(true).open(path);
        let mut file = open.map_err(|error| refuse(error.to_string()))?;
        lock(&file, path)?;
        let (mut plan, mut past) = (None, Past::default());
        let (mut reader, mut whole, mut number, mut text) = (BufReader::new(&file), 0, 0, String::new());
        loop {
            text.clear();
            let length = reader.read_line(&mut text).map_err(|error| refuse(error.to_string()))?;
            // The last line is incomplete if the writing of it was cut short;
            // what it would have told of had not been done yet.
            if !text.ends_with('\n') {
                break;
            }
            number += 1;
            let not_ours = |error: String| {
                refuse(format!("line {number} is none of a journal of iotdm-ctl reboot ({error})"))
            };
            match serde_json::from_str(&text).map_err(|error| not_ours(error.to_string()))? {
                Line::Run(run) if plan.is_none() && run.version == VERSION => plan = Some(run),
                Line::Run(_) => return Err(not_ours("another version".into()).into()),
                Line::Sent { device, before } => drop(past.sent.insert(device, before)),
                Line::Ended(ending) => past.note(ending),
            }
            whole += length;
        }
        let Some(plan) = plan else { return Err(refuse("the journal is empty".into()).into()) };
        let end = u64::try_from(whole).context("too long a journal")?;
        let ready = file.set_len(end).and_then(|()| file.seek(SeekFrom::End(0)));
        ready.map_err(|error| refuse(error.to_string()))?;
        Ok((Journal { path: path.to_owned(), file: RefCell::new(file) }, plan, past))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The request is about to go to `device`.
    pub(super) fn sent(&self, device: &DeviceId, before: &Before) -> Result<(), JournalError> {
        self.write(&Line::Sent { device: device.to_string(), before: before.clone() }, true)
    }

    /// A device is done with.
    pub(super) fn ended(&self, ending: &Ending) -> Result<(), JournalError> {
        self.write(&Line::Ended(ending.clone().brief()), false)
    }

    fn write(&self, line: &Line, sync: bool) -> Result<(), JournalError> {
        let mut file = self.file.borrow_mut();
        let written = serde_json::to_string(line).map_err(Into::into).and_then(|mut text: String| {
            text.push('\n');
            file.write_all(text.as_bytes())?;
            if sync { file.sync_data() } else { Ok(()) }
        });
        written.map_err(|cause| JournalError { path: self.path.clone(), cause })
    }
}

impl Past {
    /// Takes note of an ending, if it is one: a device of which nothing is
    /// known, or that the hub kept us from, is to be taken up again.
    fn note(&mut self, ending: Ending) {
        if ending.can_be_resumed() {
            self.ended.remove(&ending.device);
        } else {
            self.ended.insert(ending.device.clone(), ending);
        }
    }
}

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
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use serde_json::json;

    use super::*;
    use crate::outcome::Outcome;

    fn plan() -> Plan {
        let request = serde_json::from_value(json!({"id": "r-1", "reason": "why"})).unwrap();
        let devices = ["gw1", "gw2", "gw3"].map(|id| id.parse().unwrap());
        Plan::new("hub:8443".into(), request, Way::Method, Rules::default(), &devices)
    }

    fn ending(device: &str, outcome: Outcome) -> Ending {
        Ending { outcome, ..Ending::not_started(&device.parse().unwrap(), "r-1") }
    }

    #[test]
    fn tells_what_was_sent_and_what_has_ended() {
        let home = tempfile::tempdir().unwrap();
        let journal = Journal::create(Some(home.path()), plan()).unwrap();
        let path = journal.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        let before = Before { agent: true, reboot_time: None, reboot_id: Some("r-0".into()) };
        for device in ["gw1", "gw2"] {
            journal.sent(&device.parse().unwrap(), &before).unwrap();
        }
        journal.ended(&ending("gw1", Outcome::Completed)).unwrap();
        journal.ended(&ending("gw2", Outcome::TimedOut)).unwrap();
        let busy = Journal::resume(&path).unwrap_err().to_string();
        assert!(busy.contains("another iotdm-ctl is at work"), "{busy}");
        drop(journal);

        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"sent\":{\"dev").unwrap();
        let (journal, again, past) = Journal::resume(&path).unwrap();
        assert_eq!((again.request.id.as_str(), again.devices.len()), ("r-1", 3));
        assert_eq!(past.sent.get("gw2"), Some(&before));
        assert_eq!(past.ended.keys().collect::<Vec<_>>(), ["gw1"], "no outcome is no end");
        journal.ended(&ending("gw2", Outcome::Completed)).unwrap();
        drop(journal);
        let (_, _, past) = Journal::resume(&path).unwrap();
        assert_eq!(past.ended.len(), 2, "written after the torn line was cut off");
    }

    #[test]
    fn one_of_before_there_was_a_rate_has_the_default() {
        let rules =
            serde_json::from_value::<Rules>(json!({"maxInFlight": 10, "canary": 0, "maxFailures": null}));
        assert_eq!(rules.unwrap(), Rules::default());
    }

    #[test]
    fn what_is_no_journal_is_refused_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        for (text, expected) in [("", "is empty"), ("gw1\n", "line 1 is none"), ("{\"ended\":3}\n", "line 1")]
        {
            fs::write(&path, text).unwrap();
            let error = Journal::resume(&path).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("--resume"), "{error}");
        }
        let nowhere = Journal::create(None, plan()).unwrap_err().to_string();
        assert!(nowhere.contains("XDG_STATE_HOME"), "{nowhere}");
    }
}
