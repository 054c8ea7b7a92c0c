//! The backend for trying things out: it never touches the machine. "Going
//! down" is the daemon leaving the hub for a while and coming back with
//! another boot id.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use iotdm_core::decide::event::Start;
use iotdm_core::decide::event::Traces;
use iotdm_proto::Time;
use iotdm_proto::report::Clock;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};

use super::boot;
use super::sighting::Sighting;
use crate::durable;

/// A machine that is pretended.
#[derive(Debug, Clone)]
pub struct Simulation {
    dir: PathBuf,
    file: PathBuf,
    /// The running boot, which outlives its file.
    running: Arc<Mutex<Option<PretendedBoot>>>,
    /// How long the machine is down in a reboot.
    duration: Duration,
    /// Told when the machine goes down.
    went_down: Arc<Notify>,
}

/// A boot that is pretended; as a file, so that a restart of the daemon is not
/// one of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PretendedBoot {
    boot_id: String,
    /// When it began; not yet known while the machine is "down".
    boot_time: Option<Time>,
    /// The one that was shut down for it.
    #[serde(default)]
    previous: Option<String>,
}

impl Simulation {
    /// A machine whose boot is kept in `state_dir`.
    pub fn new(state_dir: &Path, duration: Duration) -> Self {
        let file = state_dir.join("simulated-boot.json");
        Simulation {
            dir: state_dir.to_owned(),
            file,
            running: Arc::default(),
            duration,
            went_down: Arc::default(),
        }
    }

    /// The running boot. The first one ever begins `now`, and so does one that
    /// was begun by [`Simulation::reboot`].
    pub fn start(&self, now: Time) -> anyhow::Result<Start> {
        let mut boot = self.read()?;
        let boot_time = *boot.boot_time.get_or_insert(now);
        self.write(&boot)?;
        let PretendedBoot { boot_id, previous: shut_down, .. } = boot;
        Ok(Start {
            boot_id,
            boot_time,
            clock: Clock::Unsynchronized,
            shut_down,
            uptime: boot::uptime(),
            granted: Vec::new(),
            traces: Traces::default(),
            need: None,
            information: None,
        })
    }

    /// How long ago the running boot began, which it says that it did.
    pub fn uptime(&self, now: Time) -> Duration {
        let boot = self.read().ok().and_then(|boot| boot.boot_time);
        boot.map_or(Duration::ZERO, |boot_time| now.since(boot_time))
    }

    /// Ends the running boot: the next one has another id.
    pub fn reboot(&self) -> anyhow::Result<()> {
        let previous = Some(self.read()?.boot_id);
        self.write(&PretendedBoot { previous, ..fresh() })?;
        self.went_down.notify_one();
        Ok(())
    }

    /// Tells when the machine goes down.
    pub async fn watch(self, sightings: mpsc::Sender<Sighting>) {
        self.went_down.notified().await;
        // Fails only when the daemon ends anyway.
        let _ = sightings.send(Sighting::WentDown).await;
    }

    /// Ready when the machine, which is down, has come up again.
    pub async fn comes_up(&self) {
        tracing::info!("the simulated machine is down for {:?}", self.duration);
        tokio::time::sleep(self.duration).await;
    }

    fn read(&self) -> anyhow::Result<PretendedBoot> {
        if let Some(running) = self.running.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Ok(running);
        }
        match durable::read(&self.file) {
            // A file that cannot be understood is as good as another boot.
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_else(|_| fresh())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(fresh()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", self.file.display())),
        }
    }

    fn write(&self, boot: &PretendedBoot) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec(boot)?;
        durable::replace(&self.dir, &self.file, &bytes)
            .with_context(|| format!("cannot write {}", self.file.display()))?;
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(boot.clone());
        Ok(())
    }
}

fn fresh() -> PretendedBoot {
    PretendedBoot { boot_id: uuid::Uuid::new_v4().to_string(), boot_time: None, previous: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_keeps_the_boot_and_a_reboot_changes_it() {
        let dir = tempfile::tempdir().unwrap();
        let simulation = Simulation::new(dir.path(), Duration::ZERO);
        let at = Time::from_unix_millis;
        let first = simulation.start(at(1)).unwrap();
        assert_eq!((first.boot_time, &first.shut_down), (at(1), &None));
        let again = simulation.start(at(2)).unwrap();
        assert_eq!(Start { uptime: first.uptime, ..again }, first);
        // Nor does the boot depend on its file.
        std::fs::remove_file(dir.path().join("simulated-boot.json")).unwrap();
        assert_eq!(simulation.uptime(at(5001)), Duration::from_secs(5));
        simulation.reboot().unwrap();
        let second = simulation.start(at(3)).unwrap();
        assert_ne!(first.boot_id, second.boot_id);
        assert_eq!((second.boot_time, second.shut_down), (at(3), Some(first.boot_id)));
        assert_eq!(simulation.uptime(at(5003)), Duration::from_secs(5));
    }
}
