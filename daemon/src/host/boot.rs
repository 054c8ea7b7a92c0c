//! The running boot: its id, and when it began.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use iotdm_proto::Time;
use nix::time::{ClockId, clock_gettime};

use crate::durable;

/// The running kernel's boot id, from below `root`.
pub fn boot_id(root: &Path) -> anyhow::Result<String> {
    let path = root.join("proc/sys/kernel/random/boot_id");
    let id = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(id.trim().to_owned())
}

/// The last boot that ended by an orderly shutdown, as `iotdm-agentd-shutdown.service`
/// has noted it in the state directory; or nothing, where that does not run.
pub fn last_shut_down(state_dir: &Path) -> Option<String> {
    let id = durable::read(&state_dir.join("last-shutdown")).ok()?;
    Some(String::from_utf8(id).ok()?.trim().to_owned())
}

/// When the kernel started, by the clock of now.
pub fn boot_time() -> Time {
    Time::from(SystemTime::now()).before(uptime())
}

/// How long ago that was. It counts while the machine sleeps, and is not moved
/// when the clock is set.
pub fn uptime() -> Duration {
    // Every kernel that systemd runs on has this clock.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
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
        let (first, second) = (boot_time(), boot_time());
        assert!(first < Time::from(SystemTime::now()));
        assert!(second.seconds_since(first).abs() < 1.0);
    }
}
