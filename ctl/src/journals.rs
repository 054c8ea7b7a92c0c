//! The folder in which the journals of runs are: completes their names on a shell's
//! command line, and removes those that nobody needs any more.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap_complete::engine::{PathCompleter, ValueCompleter as _};
use clap_complete::{ArgValueCompleter, CompletionCandidate};

use crate::output::printable;
use crate::target::Environment;

/// How long a journal is kept after it was last written to: 90 days, far more than
/// the 7 days that a reboot can lie ahead.
pub const KEPT: Duration = Duration::from_secs(90 * 24 * 3600);

/// The folder of journals in the folder for state that the environment names.
pub fn folder(state_home: &Path) -> PathBuf {
    state_home.join("iotdm/reboots")
}

/// Removes the journals of `state_home` that are older than [`KEPT`] at the instant
/// `now`, and that no other process is at work on. What cannot be removed stays.
pub fn remove_old(state_home: &Path, now: SystemTime) {
    for path in all(&folder(state_home)) {
        let Ok(file) = fs::File::open(&path) else { continue };
        let written = file.metadata().and_then(|found| found.modified());
        let is_old = written.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age > KEPT));
        if is_old && file.try_lock().is_ok() {
            let _ = fs::remove_file(&path);
        }
    }
}

/// The journals in a folder, the oldest first. A journal's name begins with the
/// instant at which its run began, such as `20261122T180000-123Z-`.
fn all(folder: &Path) -> Vec<PathBuf> {
    let is_journal = |path: &PathBuf| {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let is_instant = name.split_once('T').is_some_and(|(day, rest)| {
            day.len() == 8 && day.bytes().all(|b| b.is_ascii_digit()) && rest.contains('Z')
        });
        is_instant
            && name.ends_with(".jsonl")
            && fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_journal).collect();
    paths.sort();
    paths
}

/// Completes the name of a journal: one of the folder, the newest first, or any
/// other file.
pub(crate) fn completer() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let journals = Environment::of_the_process().state_home().map(|home| all(&folder(&home)));
        let text = current.to_string_lossy();
        let fits = |path: &PathBuf| {
            path.to_str().is_some_and(|path| path.starts_with(&*text) && printable(path) == path)
        };
        let mut paths: Vec<PathBuf> = journals.unwrap_or_default().into_iter().filter(fits).collect();
        paths.reverse();
        if paths.is_empty() {
            return PathCompleter::file().complete(current);
        }
        paths.into_iter().map(CompletionCandidate::new).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_journals_that_nobody_writes_are_removed() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder(home.path())).unwrap();
        let path = |name: &str| folder(home.path()).join(name);
        let names = [
            "20260101T000000-000Z-a.jsonl",
            "20260102T000000-000Z-b.jsonl",
            "notes.jsonl",
            "20260103T-Z-c.txt",
        ];
        for name in names {
            fs::write(path(name), "x").unwrap();
        }
        let busy = fs::File::open(path("20260102T000000-000Z-b.jsonl")).unwrap();
        busy.lock().unwrap();
        let left = || {
            let mut left: Vec<String> = fs::read_dir(folder(home.path()))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            left.sort();
            left
        };
        let now = SystemTime::now();
        remove_old(home.path(), now + KEPT - Duration::from_secs(60));
        assert_eq!(left().len(), 4, "none of them is old enough");
        remove_old(home.path(), now + KEPT + Duration::from_secs(60));
        assert_eq!(left(), ["20260102T000000-000Z-b.jsonl", "20260103T-Z-c.txt", "notes.jsonl"]);
        remove_old(&home.path().join("gone"), now);
    }
}
