//! One state directory has one daemon: two would carry out, cancel and report each
//! other's requests.

use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};

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
    match lock.try_lock() {
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

/// Whether a daemon has locked the state directory `dir`; a missing one has none.
///
/// The lock is shared for an instant to find that out.
pub fn is_held(dir: &Path) -> std::io::Result<bool> {
    let opened = match File::open(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    match opened.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Ok(true),
        // Where there are no such locks, daemons do not hold any.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(false),
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
}
