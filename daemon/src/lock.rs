//! One state directory has one daemon: two would carry out, cancel and report each
//! other's requests.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};

/// How often, and how long each time, it is waited for a lock that somebody else has:
/// whoever looks whether there is a daemon ([`is_held`]) has it for an instant, and must
/// not be taken for one.
const LOOKS: u32 = 5;
const LOOK: Duration = Duration::from_millis(100);

/// Locks the state directory `dir`, which is made, with mode 0700, if it is missing.
/// The lock holds until the result is dropped or the process ends, however it ends.
///
/// The directory itself is locked (flock(2)), not a file in it: that needs no room on
/// a full disk and changes nothing in a directory that another daemon works in.
pub fn take(dir: &Path) -> anyhow::Result<File> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.with_context(|| format!("cannot make the state directory {}", dir.display()))?;
    let lock =
        File::open(dir).with_context(|| format!("cannot open the state directory {}", dir.display()))?;
    match patiently(&lock, || std::thread::sleep(LOOK)) {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => bail!(
            "another iotdm-agentd runs already with the state directory {}: stop that one first (systemctl stop \
             iotdm-agentd), or give this one another directory by --state-dir",
            dir.display()
        ),
        // Some network file systems have no such locks. The daemon is needed all
        // the same.
        Err(TryLockError::Error(error)) => tracing::warn!(
            "the state directory {} cannot be locked, so that a second daemon on it would go unnoticed: {error}",
            dir.display()
        ),
    }
    Ok(lock)
}

/// Locks `dir`, and does `wait` as long as somebody else has it, some times.
fn patiently(dir: &File, mut wait: impl FnMut()) -> Result<(), TryLockError> {
    for _ in 0..LOOKS {
        match dir.try_lock() {
            Err(TryLockError::WouldBlock) => wait(),
            taken => return taken,
        }
    }
    dir.try_lock()
}

/// Whether a daemon has locked the state directory `dir`; a missing one has none. Where
/// that cannot be seen, as on a file system without such locks, it is an error: a daemon
/// runs there all the same, without a lock.
///
/// The lock is shared for an instant to find that out.
pub fn is_held(dir: &Path) -> io::Result<bool> {
    let opened = match File::open(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    seen(opened.try_lock_shared())
}

/// What trying to share the lock says of a daemon.
fn seen(shared: Result<(), TryLockError>) -> io::Result<bool> {
    match shared {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_of_the_first_until_that_has_gone() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("state");
        assert!(!is_held(&dir).unwrap());
        let first = take(&dir).unwrap();
        assert!(is_held(&dir).unwrap());
        let refused = format!("{:#}", take(&dir).unwrap_err());
        assert!(refused.contains("another iotdm-agentd runs already with the state directory "), "{refused}");
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0, "nothing was changed");
        drop(first);
        assert!(!is_held(&dir).unwrap());
        take(&dir).unwrap();
    }
    /// A look at the lock at that very instant keeps no daemon from starting.
    #[test]
    fn whoever_only_looks_is_no_daemon() {
        let home = tempfile::tempdir().unwrap();
        let looking = File::open(home.path()).unwrap();
        looking.try_lock_shared().unwrap();
        let starting = File::open(home.path()).unwrap();
        let mut looks = 0;
        assert!(matches!(patiently(&starting, || looks += 1), Err(TryLockError::WouldBlock)));
        assert_eq!(looks, LOOKS);
        let mut looking = Some(looking);
        patiently(&starting, || drop(looking.take())).unwrap();
    }

    #[test]
    fn a_lock_that_cannot_be_tried_tells_nothing() {
        assert!(!seen(Ok(())).unwrap());
        assert!(seen(Err(TryLockError::WouldBlock)).unwrap());
        let error = io::Error::from(io::ErrorKind::Unsupported);
        assert_eq!(seen(Err(TryLockError::Error(error))).unwrap_err().kind(), io::ErrorKind::Unsupported);
    }
}
