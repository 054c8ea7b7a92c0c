//! The backend for trying things out: it never touches the machine. "Going
//! down" is the daemon leaving the hub for a while and coming back with
//! another boot id.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use iotdm_proto::Time;
use serde::{Deserialize, Serialize};

use crate::store;

/// A machine that is pretended.
#[derive(Debug, Clone)]
pub struct Simulation {
    dir: PathBuf,
    file: PathBuf,
    /// How long a reboot takes.
    pub duration: Duration,
}

/// A boot that is pretended; as a file, so that a restart of the daemon is not
/// one of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PretendedBoot {
    /// Its id.
    pub boot_id: String,
    /// When it began; not yet known while the machine is "down".
    pub boot_time: Option<Time>,
}

impl Simulation {
    /// A machine whose boot is kept in `state_dir`.
    pub fn new(state_dir: &Path, duration: Duration) -> Self {
        Simulation { dir: state_dir.to_owned(), file: state_dir.join("simulated-boot.json"), duration }
    }

    /// The running boot, with its time. The first one ever begins `now`, and
    /// so does one that was begun by [`Simulation::reboot`].
    pub fn boot(&self, now: Time) -> anyhow::Result<(String, Time)> {
        let boot = match fs::read(&self.file) {
            // What cannot be understood is as good as another boot.
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|_| fresh()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => fresh(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", self.file.display())),
        };
        let began = boot.boot_time.unwrap_or(now);
        self.write(&PretendedBoot { boot_id: boot.boot_id.clone(), boot_time: Some(began) })?;
        Ok((boot.boot_id, began))
    }

    /// Ends the running boot: the next one has another id.
    pub fn reboot(&self) -> anyhow::Result<()> {
        self.write(&fresh())
    }

    fn write(&self, boot: &PretendedBoot) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec(boot)?;
        store::replace(&self.dir, &self.file, &bytes)
            .with_context(|| format!("cannot write {}", self.file.display()))
    }
}

fn fresh() -> PretendedBoot {
    PretendedBoot { boot_id: uuid::Uuid::new_v4().to_string(), boot_time: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_keeps_the_boot_and_a_reboot_changes_it() {
        let dir = tempfile::tempdir().unwrap();
        let simulation = Simulation::new(dir.path(), Duration::ZERO);
        let at = Time::from_unix_millis;
        let (first, began) = simulation.boot(at(1)).unwrap();
        assert_eq!(began, at(1));
        assert_eq!(simulation.boot(at(2)).unwrap(), (first.clone(), at(1)));
        simulation.reboot().unwrap();
        let (second, began) = simulation.boot(at(3)).unwrap();
        assert_ne!(first, second);
        assert_eq!(began, at(3));
    }
}
