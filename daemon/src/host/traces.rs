//! What a crash leaves behind: dumps of the kernel's log in persistent memory, and
//! the word of a hardware watchdog that it has reset the machine.
//!
//! All of it is there for everybody to see, but for the kernel's own view of the
//! persistent memory, which is root's. On a machine with systemd-pstore that is
//! empty by the time that the daemon starts.
//! Source: systemd-pstore.service(8), Documentation/admin-guide/pstore-blk.rst and
//! Documentation/watchdog/watchdog-api.rst of Linux.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use iotdm_core::decide::event::Traces;

/// Where systemd-pstore keeps what it has taken out of the persistent memory, and
/// where the kernel shows what is in there.
const DUMPS: [&str; 2] = ["var/lib/systemd/pstore", "sys/fs/pstore"];
const WATCHDOGS: &str = "sys/class/watchdog";

/// `WDIOF_CARDRESET`: the watchdog has reset the machine.
const CARDRESET: u64 = 0x20;

/// How many dumps are looked at: many times what a store of some kilobytes holds,
/// and as many as a record should take.
const MAX_DUMPS: usize = 512;

/// What is found below `root`.
pub fn find(root: &Path) -> Traces {
    Traces { panics: dumps(root), watchdog: watchdog(root) }
}

/// The dumps' names, in order, or nothing where no place can be looked at.
fn dumps(root: &Path) -> Option<Vec<String>> {
    let mut readable = false;
    let mut found = Vec::new();
    for place in DUMPS.map(|place| root.join(place)) {
        match dumps_in(&place) {
            Ok(dumps) => {
                readable = true;
                found.extend(dumps);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => readable = true,
            Err(error) => tracing::debug!("{} cannot be looked at: {error}", place.display()),
        }
    }
    found.sort_unstable();
    found.truncate(MAX_DUMPS);
    readable.then_some(found)
}

/// A dump is a directory of its own, or a file of the kernel's log beside others of
/// the same name in later boots, so that a file is known by its time as well. Its
/// time is compared with nothing but itself.
fn dumps_in(place: &Path) -> io::Result<Vec<String>> {
    let mut dumps = Vec::new();
    for entry in fs::read_dir(place)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            dumps.push(name);
        } else if name.starts_with("dmesg") {
            dumps.push(format!("{name}@{}.{}", metadata.mtime(), metadata.mtime_nsec()));
        }
    }
    Ok(dumps)
}

fn watchdog(root: &Path) -> bool {
    let Ok(watchdogs) = fs::read_dir(root.join(WATCHDOGS)) else { return false };
    let reset = |watchdog: fs::DirEntry| {
        let status = fs::read_to_string(watchdog.path().join("bootstatus")).ok()?;
        Some(status.trim().parse::<u64>().ok()? & CARDRESET != 0)
    };
    watchdogs.flatten().filter_map(reset).any(|reset| reset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn dumps_are_found_where_systemd_and_the_kernel_leave_them() {
        let root = tempfile::tempdir().unwrap();
        let names = || {
            let dumps = dumps(root.path()).unwrap();
            dumps.iter().map(|dump| dump.split('@').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(dumps(root.path()), Some(Vec::new()), "a machine that has never crashed");
        write(root.path(), "var/lib/systemd/pstore/7443/dmesg-efi-1", "");
        write(root.path(), "var/lib/systemd/pstore/dmesg-ramoops-0", "");
        write(root.path(), "var/lib/systemd/pstore/dmesg.txt", "");
        write(root.path(), "sys/fs/pstore/dmesg-erst-1", "");
        // What each boot leaves, clean or not.
        write(root.path(), "sys/fs/pstore/console-ramoops-0", "");
        assert_eq!(names(), ["7443", "dmesg-erst-1", "dmesg-ramoops-0", "dmesg.txt"]);
        // The same name again is another dump.
        let before = dumps(root.path()).unwrap();
        let file = root.path().join("var/lib/systemd/pstore/dmesg.txt");
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
        fs::File::options().write(true).open(file).unwrap().set_modified(later).unwrap();
        let after = dumps(root.path()).unwrap();
        assert_eq!(after.iter().filter(|dump| !before.contains(dump)).count(), 1);
    }

    #[test]
    fn where_nothing_can_be_looked_at_nothing_is_known() {
        let root = tempfile::tempdir().unwrap();
        for place in DUMPS {
            write(root.path(), place, "not a directory");
        }
        assert_eq!(dumps(root.path()), None);
    }

    #[test]
    fn only_a_watchdog_that_says_so_has_reset_the_machine() {
        for (statuses, expected) in [
            (&[][..], false),
            (&["0\n"], false),
            (&["0\n", "32\n"], true),
            (&["33"], true),
            (&["1"], false),
            (&["x"], false),
        ] {
            let root = tempfile::tempdir().unwrap();
            for (number, status) in statuses.iter().enumerate() {
                write(root.path(), &format!("sys/class/watchdog/watchdog{number}/bootstatus"), status);
            }
            assert_eq!(watchdog(root.path()), expected, "{statuses:?}");
        }
    }
}
