//! The notice to the people on the machine that it is going to be rebooted.
//!
//! The daemon may neither write to terminals nor greet who logs in, and nothing
//! that announces a reboot may be able to cause one. So the daemon leaves a file
//! in its runtime directory; `iotdm-notice.path` watches that file and has root
//! run `iotdm-agentd --show-notice`, which can do nothing but show what it says.
//! The file takes itself back: systemd removes the directory when the daemon
//! stops, by whatever way.
//!
//! The two sides trust each other with nothing but words: what root's side reads
//! has to be of the form below, and is shown without what a terminal would obey.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};
use iotdm_core::decide::effect::Notice;
use iotdm_proto::Time;
use iotdm_proto::request::{Reason, RequestId};
use iotdm_proto::text::harmless;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::durable::{self, Readers};

/// In the daemon's runtime directory.
const FILE: &str = "notice.json";
/// Where root's side finds it, below the root directory.
const NOTICE: &str = "run/iotdm/notice.json";
/// What those see who log in. Source: pam_motd(8).
const MOTD: &str = "run/motd.d/50-iotdm";
/// What the terminals were told last, so that a daemon that starts anew does not
/// have them told again.
const TOLD: &str = "run/iotdm-notice/told.json";

/// How long before the reboot the terminals are told again, in minutes.
const REMINDERS: [u32; 3] = [60, 10, 1];

/// The shortest time between two notices: an operator who schedules and cancels
/// in a loop, or a clock that is set back and forth, must not hold the reader up
/// at its start limit.
const PACE: Duration = Duration::from_secs(5);

/// How many seconds one terminal that does not read may hold up the others.
const PATIENCE: &str = "5";

/// What is known of the reboot to come: nothing yet, or whether there is one.
pub type Known = Option<Option<Notice>>;

/// What the file says; `null` stands for no reboot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    id: RequestId,
    at: Time,
    reason: Option<Reason>,
    /// The smallest of [`REMINDERS`] that has come.
    within_minutes: Option<u32>,
}

/// Keeps the notice in `directory`, the daemon's runtime directory, the one that
/// `notices` has, until nobody gives notice any more.
pub(super) async fn keep(directory: PathBuf, mut notices: watch::Receiver<Known>) {
    let mut last = None;
    loop {
        let known = notices.borrow_and_update().clone();
        let now = Time::from(SystemTime::now());
        let file = known.as_ref().map(|notice| notice.as_ref().and_then(|notice| written(notice, now)));
        if let Some(written) = file.filter(|written| last.as_ref() != Some(written)) {
            match write(&directory, written.as_ref()) {
                Ok(()) => {
                    // Again after the pause: a reader that was about to end after an
                    // earlier notice is not started for this one.
                    last = Some(written.clone());
                    sleep(PACE).await;
                    if let Err(error) = write(&directory, written.as_ref()) {
                        tracing::debug!("the notice is not written again: {error:#}");
                    }
                }
                Err(error) => {
                    tracing::warn!("people on this machine are not told of the scheduled reboot: {error:#}");
                    sleep(PACE).await;
                }
            }
        }
        let reminder =
            known.flatten().and_then(|notice| next_reminder(&notice, Time::from(SystemTime::now())));
        tokio::select! {
            changed = notices.changed() => if changed.is_err() { return },
            () = sleep(reminder.unwrap_or_default()), if reminder.is_some() => {}
        }
    }
}

fn written(notice: &Notice, now: Time) -> Option<Written> {
    let left = notice.at.seconds_since(now);
    let within_minutes = REMINDERS.into_iter().filter(|minutes| left <= f64::from(*minutes * 60)).min();
    // A record of an earlier version may hold a reason that is refused by now.
    let reason = notice.reason.as_deref().map(harmless).and_then(|reason| reason.parse().ok());
    Some(Written { id: notice.id.parse().ok()?, at: notice.at, reason, within_minutes })
}

/// How long it is until the next reminder.
fn next_reminder(notice: &Notice, now: Time) -> Option<Duration> {
    let left = notice.at.seconds_since(now);
    let to_come =
        REMINDERS.into_iter().map(|minutes| left - f64::from(minutes * 60)).filter(|wait| *wait > 0.0);
    to_come.min_by(f64::total_cmp).and_then(|wait| Duration::try_from_secs_f64(wait).ok())
}

fn write(directory: &Path, written: Option<&Written>) -> anyhow::Result<()> {
    let file = directory.join(FILE);
    let bytes = serde_json::to_vec(&written)?;
    durable::replace_for_now(&file, &bytes, Readers::None)
        .with_context(|| format!("cannot write {}", file.display()))
}

/// The reboot to come in one sentence, for those who look at this machine.
pub(super) fn sentence(at: Time, reason: Option<&str>) -> String {
    let at = Timestamp::from_millisecond(at.unix_millis()).unwrap_or_default().to_zoned(TimeZone::system());
    let reason = reason.map(|reason| format!(": {}", harmless(reason))).unwrap_or_default();
    format!("reboots this machine at {}{reason}", at.strftime("%a %Y-%m-%d %H:%M:%S %Z"))
}

/// Shows the notice, or takes it back; by root, with the files below `root`.
/// `wall` tells the terminals. A file that is no notice counts as none.
pub fn show(root: &Path, wall: impl Fn(&str) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let (file, motd, told) = (root.join(NOTICE), root.join(MOTD), root.join(TOLD));
    let notice = read(&file).unwrap_or_else(|error| {
        eprintln!("{} is not shown: {error:#}", file.display());
        None
    });
    let Some(notice) = notice else {
        // The daemon does not run, so nothing is going to be rebooted. The
        // terminals are not told: it may be about to start anew.
        return remove(&motd);
    };
    let words = notice.as_ref().map(Written::words);
    match &words {
        Some(words) => replace(&motd, format!("{words}\n").as_bytes())?,
        None => remove(&motd)?,
    }
    let before = read(&told).ok().flatten().flatten();
    if before == notice {
        return Ok(());
    }
    match (&notice, words) {
        (Some(notice), Some(words)) => {
            replace(&told, &serde_json::to_vec(notice)?)?;
            wall(&words)
        }
        _ => {
            remove(&told)?;
            wall("The reboot of this machine that iotdm-agentd announced has been called off.")
        }
    }
}

/// Has wall(1) tell the terminals.
pub fn wall(words: &str) -> anyhow::Result<()> {
    // By its standard input: an argument could be taken for a file's name.
    let mut wall = Command::new("/usr/bin/wall")
        .args(["--timeout", PATIENCE])
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::piped())
        .spawn()
        .context("cannot start /usr/bin/wall")?;
    if let Some(mut stdin) = wall.stdin.take() {
        stdin.write_all(words.as_bytes()).context("/usr/bin/wall does not read")?;
    }
    let ended = wall.wait()?;
    ensure!(ended.success(), "/usr/bin/wall failed: {ended}");
    Ok(())
}

impl Written {
    fn words(&self) -> String {
        let reason = self.reason.as_ref().map(Reason::as_str);
        format!("iotdm-agentd {} (request {} of its IoT hub).", sentence(self.at, reason), self.id)
    }
}

/// What the file says; nothing where there is none.
fn read(file: &Path) -> anyhow::Result<Option<Option<Written>>> {
    match durable::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        bytes => Ok(Some(serde_json::from_slice(&bytes?)?)),
    }
}

/// Writes a file of root's for everybody to read. Its directory is root's, too.
fn replace(file: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o644);
    options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    let written = options.open(file).and_then(|mut file| file.write_all(bytes));
    written.with_context(|| format!("cannot write {}", file.display()))
}

fn remove(file: &Path) -> anyhow::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", file.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::os::unix::fs::symlink;

    use tokio::time::Instant;

    use super::*;

    fn notice(at: &str) -> Notice {
        Notice { at: at.parse().unwrap(), id: "r-1".to_owned(), reason: Some("kernel update".to_owned()) }
    }

    /// A machine, and what its terminals have been told since it was last asked.
    struct Machine {
        root: tempfile::TempDir,
        told: RefCell<Vec<String>>,
    }

    impl Machine {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            for directory in ["run/iotdm", "run/motd.d", "run/iotdm-notice"] {
                fs::create_dir_all(root.path().join(directory)).unwrap();
            }
            Machine { root, told: RefCell::default() }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.root.path().join(name)
        }

        /// What the terminals are told, and what the motd says, after the file was
        /// written by the daemon.
        fn written(&self, notice: Option<&Notice>, now: &str) -> (Vec<String>, Option<String>) {
            let written = notice.and_then(|notice| written(notice, now.parse().unwrap()));
            write(&self.path("run/iotdm"), written.as_ref()).unwrap();
            self.shown()
        }

        fn shown(&self) -> (Vec<String>, Option<String>) {
            let wall = |words: &str| {
                self.told.borrow_mut().push(words.to_owned());
                Ok(())
            };
            show(self.root.path(), wall).unwrap();
            (self.told.take(), fs::read_to_string(self.path(MOTD)).ok())
        }
    }

    #[test]
    fn it_is_told_once_and_again_before_its_time_and_taken_back() {
        let machine = Machine::new();
        let soon = notice("2026-11-22T18:00:00Z");
        let (told, motd) = machine.written(Some(&soon), "2026-11-22T12:00:00Z");
        let [words] = told.as_slice() else { panic!("{told:?}") };
        assert!(words.starts_with("iotdm-agentd reboots this machine at Sun 2026-11-22 "), "{words}");
        assert!(words.ends_with(": kernel update (request r-1 of its IoT hub)."), "{words}");
        assert_eq!(motd, Some(format!("{words}\n")));
        // A daemon that starts anew does not have it told again.
        assert_eq!(machine.written(Some(&soon), "2026-11-22T13:00:00Z"), (vec![], motd.clone()));
        for reminder in ["2026-11-22T17:00:00Z", "2026-11-22T17:50:01Z", "2026-11-22T17:59:30Z"] {
            assert_eq!(machine.written(Some(&soon), reminder), (told.clone(), motd.clone()), "{reminder}");
        }
        // The daemon has stopped, and its directory is gone; then it starts.
        fs::remove_dir_all(machine.path("run/iotdm")).unwrap();
        assert_eq!(machine.shown(), (vec![], None));
        fs::create_dir(machine.path("run/iotdm")).unwrap();
        assert_eq!(machine.written(Some(&soon), "2026-11-22T17:59:40Z"), (vec![], motd));
        let (told, motd) = machine.written(None, "2026-11-22T17:59:50Z");
        assert!(told.concat().contains("called off"), "{told:?}");
        assert_eq!(motd, None);
        assert_eq!(machine.written(None, "2026-11-22T17:59:50Z"), (vec![], None));
    }

    #[test]
    fn what_a_daemon_in_wrong_hands_leaves_is_shown_as_nothing_or_as_clean_words() {
        let machine = Machine::new();
        let file = machine.path(NOTICE);
        fs::write(machine.path("shadow"), r#"{"id":"r-1","at":"2026-11-22T18:00:00Z"}"#).unwrap();
        symlink(machine.path("shadow"), &file).unwrap();
        assert_eq!(machine.shown(), (vec![], None), "a link");
        fs::remove_file(&file).unwrap();
        fs::hard_link(machine.path("shadow"), &file).unwrap();
        assert_eq!(machine.shown(), (vec![], None), "a second name");
        fs::remove_file(&file).unwrap();
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert_eq!(machine.shown(), (vec![], None), "a pipe");
        fs::remove_file(&file).unwrap();
        for reason in ["\\u001b]0;x\\u0007", "a\\nb", "\\u202ex", &"y".repeat(201)] {
            let text = format!(r#"{{"id":"r-1","at":"2026-11-22T18:00:00Z","reason":"{reason}"}}"#);
            fs::write(&file, text).unwrap();
            assert_eq!(machine.shown(), (vec![], None), "{reason}");
        }
        for text in ["", "{}", "[]", r#"{"id":"$(id)","at":"2026-11-22T18:00:00Z"}"#, "\u{1b}c"] {
            fs::write(&file, text).unwrap();
            assert_eq!(machine.shown(), (vec![], None), "{text}");
        }
        // What root writes replaces no file that a link leads to.
        symlink(machine.path("shadow"), machine.path(MOTD)).unwrap();
        write(
            &machine.path("run/iotdm"),
            written(&notice("2026-11-22T18:00:00Z"), Time::from_unix_millis(0)).as_ref(),
        )
        .unwrap();
        assert!(show(machine.root.path(), |_| Ok(())).is_err());
        assert!(fs::read_to_string(machine.path("shadow")).unwrap().contains("r-1"));
    }

    /// A record of an earlier version may have it.
    #[test]
    fn a_reason_that_is_refused_by_now_is_shown_without_what_deceives() {
        let old = Notice { reason: Some("a\u{1b}[2Jb".to_owned()), ..notice("2026-11-22T18:00:00Z") };
        let written = written(&old, Time::from_unix_millis(0)).unwrap();
        assert_eq!(written.reason.unwrap().as_str(), "a\u{fffd}[2Jb");
        assert!(sentence(old.at, old.reason.as_deref()).ends_with(": a\u{fffd}[2Jb"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_file_follows_the_notice_at_a_measured_pace() {
        let dir = tempfile::tempdir().unwrap();
        let (notices, noticed) = watch::channel(Some(None));
        let kept = tokio::spawn(keep(dir.path().to_owned(), noticed));
        let text = || fs::read_to_string(dir.path().join(FILE)).unwrap_or_default();
        while text() != "null" {
            tokio::task::yield_now().await;
        }
        let began = Instant::now();
        for number in 0..100 {
            notices.send_replace(Some(Some(Notice {
                id: format!("r-{number}"),
                ..notice("2999-01-01T00:00:00Z")
            })));
        }
        while text() == "null" {
            sleep(Duration::from_millis(100)).await;
        }
        assert!(began.elapsed() >= PACE - Duration::from_millis(100));
        assert!(text().contains("\"r-99\""), "{}", text());
        drop(notices);
        kept.await.unwrap();
    }

    #[test]
    fn the_next_reminder() {
        let at = notice("2026-11-22T18:00:00Z");
        let next = |now: &str| next_reminder(&at, now.parse().unwrap()).map(|wait| wait.as_secs());
        assert_eq!(next("2026-11-22T16:30:00Z"), Some(30 * 60));
        assert_eq!(next("2026-11-22T17:00:00Z"), Some(50 * 60));
        assert_eq!(next("2026-11-22T17:58:00Z"), Some(60));
        assert_eq!(next("2026-11-22T17:59:30Z"), None);
    }
}
