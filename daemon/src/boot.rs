//! The running boot: its id, and when it began.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use iotdm_proto::Time;
use nix::time::{ClockId, clock_gettime};

/// The running kernel's boot id, from below `root`.
pub fn boot_id(root: &Path) -> anyhow::Result<String> {
    let path = root.join("proc/sys/kernel/random/boot_id");
    let id = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(id.trim().to_owned())
}

/// When the kernel started, by the clock of now. The time since boot counts
/// while the machine sleeps and is not moved when the clock is set.
pub fn boot_time() -> anyhow::Result<Time> {
    let since_boot = clock_gettime(ClockId::CLOCK_BOOTTIME).context("cannot read CLOCK_BOOTTIME")?;
    Ok(Time::from(SystemTime::now()).before(Duration::from(since_boot)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_trimmed_and_a_missing_file_is_named() {
        let root = tempfile::tempdir().unwrap();
        let error = boot_id(root.path()).unwrap_err();
        assert!(error.to_string().contains("proc/sys/kernel/random/boot_id"), "{error}");
        let dir = root.path().join("proc/sys/kernel/random");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("boot_id"), "0ba4f4e2-2c9f-4c0b-8c4c-8a8b8b6a9b6e\n").unwrap();
        assert_eq!(boot_id(root.path()).unwrap(), "0ba4f4e2-2c9f-4c0b-8c4c-8a8b8b6a9b6e");
    }

    #[test]
    fn the_boot_lies_in_the_past_and_stands_still() {
        let (first, second) = (boot_time().unwrap(), boot_time().unwrap());
        assert!(first < Time::from(SystemTime::now()));
        assert!(second.seconds_since(first).abs() < 1.0);
    }
}
