//! How the daemon is, for whoever asks on this machine: programs of the package,
//! those of the administrator, and people.
//!
//! A file for everybody to read in the runtime directory, which systemd removes when
//! the daemon stops. So the file is there only while the daemon runs, and what it
//! says is of this boot. It is replaced as a whole when something in it changes, and
//! at no other time: a machine on which nothing happens is not woken for it.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use iotdm_proto::report::Report;
use iotdm_proto::text::{harmless, lines};
use iotdm_proto::{Identity, ModuleId, Time};
use serde::{Deserialize, Serialize};

use crate::durable::{self, Readers};

/// In the runtime directory.
pub const FILE: &str = "status.json";

/// The longest sentence that is told, in characters; more than any of ours.
const MAX_SENTENCE: usize = 800;

/// How the daemon is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// `pid`: the daemon's process.
    pub pid: u32,
    /// `bootId`: the kernel's id of the running boot.
    pub boot_id: String,
    /// `status`: how things are in one sentence, the same as systemd is told.
    pub status: String,
    /// Whether the hub is connected, as which device, and why not.
    #[serde(flatten)]
    pub connection: Connection,
    /// What the twin is told, also where the hub has not taken it yet: the newest
    /// request (`reboot`), `boot`, `health`, `rebootRequired`, `agent`.
    #[serde(flatten)]
    pub report: Report,
}

/// How it is with the hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// `connected`: whether the hub has taken the device. A short reconnect with a
    /// new token does not count as an end.
    pub connected: bool,
    /// `since`: since when that is so; for one that is not connected yet, the start
    /// of the daemon.
    pub since: Time,
    /// `hub`: the hub's name. Absent until the provisioning service has assigned one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub: Option<String>,
    /// Who the daemon is there.
    #[serde(flatten)]
    pub whom: Whom,
    /// `lastAcknowledgement`: when the hub last acknowledged something in this run of
    /// the daemon: a reply to a call, or what was asked or told about the twin. Absent
    /// until it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_acknowledgement: Option<Time>,
    /// `outage`: why the hub is not connected, and what helps. Absent while it is,
    /// and during the first attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outage: Option<String>,
    /// `nextAttempt`: when it is tried again at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt: Option<Time>,
}

/// Who the daemon is at its hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Whom {
    /// `deviceId`: the device's name; until a hub is assigned, its registration id.
    pub device_id: String,
    /// `moduleId`: the module of the device that the daemon is. Absent where it is the
    /// device itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module_id: Option<ModuleId>,
}

impl From<Identity> for Whom {
    fn from(id: Identity) -> Self {
        Whom { device_id: id.device.into(), module_id: id.module }
    }
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.module_id {
            None => f.write_str(&self.device_id),
            Some(module) => write!(f, "{}/{module}", self.device_id),
        }
    }
}

impl Connection {
    /// Of a daemon that starts at `now` and has not tried yet.
    pub fn new(hub: Option<String>, whom: Whom, now: Time) -> Self {
        Connection {
            connected: false,
            since: now,
            hub,
            whom,
            last_acknowledgement: None,
            outage: None,
            next_attempt: None,
        }
    }

    /// The hub has taken the device or module.
    pub fn begin(&mut self, hub: String, whom: Whom, now: Time) {
        let goes_on = self.connected && self.hub.as_ref() == Some(&hub) && self.whom == whom;
        let since = if goes_on { self.since } else { now };
        let last_acknowledgement = self.last_acknowledgement;
        *self = Connection {
            connected: true,
            since,
            last_acknowledgement,
            ..Connection::new(Some(hub), whom, now)
        };
    }

    /// There is no connection, for the reason `outage`.
    pub fn end(&mut self, outage: &str, next_attempt: Time, now: Time) {
        if std::mem::replace(&mut self.connected, false) {
            self.since = now;
        }
        self.outage = Some(sentence(outage));
        self.next_attempt = Some(next_attempt);
    }
}

/// The file, for as long as this lives: whatever the daemon's end is, the file does
/// not go on to say how the daemon was.
#[derive(Debug)]
pub struct StatusFile {
    /// Without one, nobody is told.
    file: Option<PathBuf>,
    /// What stands in the file.
    written: Option<Status>,
    /// That it could not be written was logged.
    complained: bool,
}

impl StatusFile {
    /// The one in this directory, if there is one.
    pub fn new(directory: Option<&Path>) -> Self {
        let file = directory.map(|directory| directory.join(FILE));
        StatusFile { file, written: None, complained: false }
    }

    /// Whether anybody is told.
    pub fn is_there(&self) -> bool {
        self.file.is_some()
    }

    /// Has the file say this. What could not be written is tried again the next time,
    /// also if nothing has changed.
    pub fn tell(&mut self, mut status: Status) {
        let Some(file) = &self.file else { return };
        status.status = sentence(&status.status);
        if self.written.as_ref() == Some(&status) {
            return;
        }
        let written = to_text(&status)
            .and_then(|text| Ok(durable::replace_for_now(file, text.as_bytes(), Readers::All)?));
        match written {
            Ok(()) => (self.written, self.complained) = (Some(status), false),
            Err(error) => {
                self.written = None;
                if !std::mem::replace(&mut self.complained, true) {
                    tracing::warn!("{} is out of date: {error:#}", file.display());
                }
            }
        }
    }
}

impl Drop for StatusFile {
    fn drop(&mut self) {
        if let Some(file) = self.file.as_ref().filter(|_| self.written.is_some())
            && let Err(error) = fs::remove_file(file)
        {
            tracing::debug!("{} is left behind: {error}", file.display());
        }
    }
}

/// What the file in this directory says.
pub fn read(directory: &Path) -> anyhow::Result<Status> {
    Ok(serde_json::from_slice(&durable::read(&directory.join(FILE))?)?)
}

/// Nothing in it steers the terminal of somebody who looks at the file.
fn to_text(status: &Status) -> anyhow::Result<String> {
    Ok(lines(&serde_json::to_string_pretty(status)?) + "\n")
}

/// One line, and nothing in it that a terminal would obey: part of it may be what a
/// server said.
fn sentence(text: &str) -> String {
    harmless(text).chars().take(MAX_SENTENCE).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use serde_json::{Value, json};

    use super::*;

    fn at(text: &str) -> Time {
        text.parse().unwrap()
    }

    fn whom(id: &str) -> Whom {
        id.parse::<Identity>().unwrap().into()
    }

    fn status() -> Status {
        let now = at("2026-11-22T18:36:07Z");
        let mut connection = Connection::new(Some("hub".into()), whom("gw1"), now);
        connection.begin("hub".into(), whom("gw1"), now);
        Status {
            pid: 7,
            boot_id: "b".into(),
            status: "connected".into(),
            connection,
            report: Report::default(),
        }
    }

    #[test]
    fn a_connection_lasts_over_a_new_token_and_an_outage_counts_from_its_first_failure() {
        let times = ["2026-11-22T18:00:00Z", "2026-11-22T19:00:00Z", "2026-11-22T20:00:00Z"].map(at);
        let mut connection = Connection::new(None, whom("gw1"), times[0]);
        assert_eq!((connection.connected, connection.since), (false, times[0]));
        connection.end("no\u{1b}[2J\nway", times[2], times[1]);
        assert_eq!((connection.connected, connection.since), (false, times[0]), "it never was");
        assert_eq!(connection.outage.as_deref(), Some("no\u{fffd}[2J\u{fffd}way"));
        connection.begin("hub".into(), whom("gw1"), times[1]);
        connection.last_acknowledgement = Some(times[1]);
        connection.begin("hub".into(), whom("gw1"), times[2]);
        assert_eq!((connection.connected, connection.since), (true, times[1]));
        assert_eq!((connection.outage.as_ref(), connection.next_attempt), (None, None));
        assert_eq!(connection.last_acknowledgement, Some(times[1]));
        connection.begin("another".into(), whom("gw1"), times[2]);
        assert_eq!(connection.since, times[2]);
        connection.end("gone", times[2], times[2]);
        connection.end("still gone", times[2], times[2]);
        assert_eq!((connection.since, connection.outage.as_deref()), (times[2], Some("still gone")));
        assert_eq!(connection.last_acknowledgement, Some(times[1]), "in this run of the daemon");
    }

    #[test]
    fn the_file_is_everybodys_to_read_written_on_change_and_gone_with_the_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE);
        let mut told = StatusFile::new(Some(dir.path()));
        assert!(!file.exists());
        told.tell(status());
        let inode = || fs::metadata(&file).unwrap().ino();
        let first = inode();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o644);
        told.tell(status());
        assert_eq!(inode(), first, "nothing has changed");
        let said: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        let expected = json!({"pid": 7, "bootId": "b", "status": "connected", "connected": true,
            "since": "2026-11-22T18:36:07.000Z", "hub": "hub", "deviceId": "gw1"});
        assert_eq!(said, expected);
        let mut module = status();
        module.connection.whom = whom("gw1/iotdm");
        let said: Value = serde_json::from_str(&to_text(&module).unwrap()).unwrap();
        assert_eq!((&said["deviceId"], &said["moduleId"]), (&json!("gw1"), &json!("iotdm")));
        let mut changed = status();
        changed.connection.end("gone", at("2026-11-22T19:00:00Z"), at("2026-11-22T18:40:00Z"));
        told.tell(changed.clone());
        assert_eq!(read(dir.path()).unwrap(), changed);
        drop(told);
        assert!(!file.exists());
        // Where there is no directory, nothing happens.
        StatusFile::new(None).tell(status());
    }

    #[test]
    fn what_could_not_be_written_is_written_as_soon_as_it_can_be() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = dir.path().join("runtime");
        let mut told = StatusFile::new(Some(&runtime));
        told.tell(status());
        fs::create_dir(&runtime).unwrap();
        told.tell(status());
        assert_eq!(read(&runtime).unwrap(), status());
    }

    #[test]
    fn the_file_can_be_shown_on_a_terminal() {
        let text = to_text(&Status { boot_id: "\u{9b}2J\u{202e}".into(), ..status() }).unwrap();
        assert!(text.contains(r"\u009b2J\u202e") && !text.contains('\u{9b}'), "{text}");
    }
}
