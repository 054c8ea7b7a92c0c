//! Waits until the daemon's hub has acknowledged something, for
//! `iotdm-agentd-connected.service`: an image whose boots are judged takes one that
//! cuts the gateway off from its hub for a failed one.
//!
//! Woken by a change of the daemon's status, and otherwise asleep; how long to wait
//! is up to whoever has started it.

use std::io::{self, Read as _};
use std::path::Path;

use anyhow::Context as _;
use rustix::fs::inotify;
use rustix::fs::inotify::WatchFlags;

use super::status::{self, Status};

/// The daemon's runtime directory.
pub const DIRECTORY: &str = "/run/iotdm";

/// Waits until the status in `directory`, which may come later, tells of an
/// acknowledgement; the sentence about that. What it waits for, and when that
/// changes, is told to `say`.
pub fn wait(directory: &Path, mut say: impl FnMut(&str)) -> anyhow::Result<String> {
    let parent = directory.parent().context("the root directory is no runtime directory")?;
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC)?;
    let watches = |path: &Path, flags: WatchFlags| match inotify::add_watch(
        &watch,
        path,
        flags | WatchFlags::ONLYDIR,
    ) {
        Err(rustix::io::Errno::NOENT) => Ok(()),
        added => added.map(drop).with_context(|| format!("cannot watch {}", path.display())),
    };
    watches(parent, WatchFlags::CREATE | WatchFlags::MOVED_TO)?;
    let mut said = String::new();
    let mut events = std::fs::File::from(watch.try_clone()?);
    loop {
        // Each time anew: the directory is another one when the daemon has started
        // again. Watched from before the look, so that no change is missed.
        watches(directory, WatchFlags::MOVED_TO)?;
        let waits_for = match status::read(directory) {
            Ok(status) => match acknowledged(&status) {
                Some(sentence) => return Ok(sentence),
                None => reason(&status),
            },
            Err(error) if is_missing(&error) => "iotdm-agentd does not run".to_owned(),
            Err(error) => format!("the daemon's status cannot be read: {error:#}"),
        };
        if waits_for != said {
            say(&waits_for);
            said = waits_for;
        }
        let mut buffer = [0; 4096];
        match events.read(&mut buffer) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
    }
}

fn acknowledged(status: &Status) -> Option<String> {
    let connection = &status.connection;
    let at = connection.last_acknowledgement?;
    let hub = connection.hub.as_deref().unwrap_or("the hub");
    Some(format!("{hub} has acknowledged {} at {at}", connection.whom))
}

fn reason(status: &Status) -> String {
    match (&status.connection.outage, status.connection.connected) {
        (Some(outage), _) => format!("not connected: {outage}"),
        (None, true) => "connected, and nothing is acknowledged yet".to_owned(),
        (None, false) => "connecting".to_owned(),
    }
}

fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use iotdm_proto::report::Report;
    use iotdm_proto::{Identity, Time};

    use super::super::status::{Connection, StatusFile, Whom};
    use super::*;

    fn at(text: &str) -> Time {
        text.parse().unwrap()
    }

    fn gw1() -> Whom {
        "gw1".parse::<Identity>().unwrap().into()
    }

    fn status(connection: Connection) -> Status {
        let report = Report::default();
        Status { pid: 1, boot_id: "b".into(), status: String::new(), connection, report }
    }

    #[test]
    fn it_waits_for_the_daemon_and_through_a_new_start_of_it_until_the_hub_acknowledges() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = dir.path().join("iotdm");
        let (sender, said) = mpsc::channel();
        let waiting = thread::spawn({
            let runtime = runtime.clone();
            move || wait(&runtime, |sentence| sender.send(sentence.to_owned()).unwrap()).unwrap()
        });
        let hears = |expected: &str| {
            assert_eq!(said.recv_timeout(Duration::from_secs(30)).as_deref(), Ok(expected));
        };
        hears("iotdm-agentd does not run");
        let mut connection = Connection::new(Some("hub".into()), gw1(), at("2026-11-22T18:00:00Z"));
        fs::create_dir(&runtime).unwrap();
        let mut file = StatusFile::new(Some(&runtime));
        file.tell(status(connection.clone()));
        hears("connecting");
        connection.end("no route", at("2026-11-22T18:01:00Z"), at("2026-11-22T18:00:30Z"));
        file.tell(status(connection.clone()));
        hears("not connected: no route");
        // The same reason is not told again, and each file is looked at.
        connection.end("no route", at("2026-11-22T18:02:00Z"), at("2026-11-22T18:01:00Z"));
        file.tell(status(connection.clone()));
        drop(file);
        fs::remove_dir(&runtime).unwrap();
        fs::create_dir(&runtime).unwrap();
        let mut file = StatusFile::new(Some(&runtime));
        connection.begin("hub".into(), gw1(), at("2026-11-22T18:03:00Z"));
        file.tell(status(connection.clone()));
        let heard = said.recv_timeout(Duration::from_secs(30)).unwrap();
        // Between the two starts it may have looked, or not.
        if heard == "iotdm-agentd does not run" {
            hears("connected, and nothing is acknowledged yet");
        } else {
            assert_eq!(heard, "connected, and nothing is acknowledged yet");
        }
        connection.last_acknowledgement = Some(at("2026-11-22T18:03:01Z"));
        file.tell(status(connection));
        assert_eq!(waiting.join().unwrap(), "hub has acknowledged gw1 at 2026-11-22T18:03:01.000Z");
    }
}
