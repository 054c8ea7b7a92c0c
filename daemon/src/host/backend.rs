//! What carries out a reboot, and tells of the machine: logind, or nothing.

use std::path::Path;
use std::time::{Duration, SystemTime};

use iotdm_core::decide::event::Start;
use iotdm_core::decide::refusal::Refusal;
use iotdm_proto::Time;
use iotdm_proto::reply::{IfItHangs, PreflightCheck};
use iotdm_proto::report::Clock;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::logind::Logind;
pub use super::logind::Shutdown;
use super::preflight::Preflight;
use super::sighting::Sighting;
use super::simulate::Simulation;
use super::{boot, clock, hang, notice, required, traces};

/// The two ways.
#[derive(Debug, Clone)]
pub enum Backend {
    /// The machine is rebooted.
    Logind(Logind, Preflight),
    /// The reboot is pretended.
    Simulate(Simulation),
}

impl Backend {
    /// The record's file name. A pretended machine's history is not the real
    /// one's.
    pub fn record_name(&self) -> &'static str {
        match self {
            Backend::Logind(..) => "state.json",
            Backend::Simulate(_) => "simulated-state.json",
        }
    }

    /// The name of the file of granted requests.
    pub fn ids_name(&self) -> &'static str {
        match self {
            Backend::Logind(..) => "ids.jsonl",
            Backend::Simulate(_) => "simulated-ids.jsonl",
        }
    }

    /// The running boot, of the machine whose files are below `root`.
    pub async fn start(&self, root: &Path, state_dir: &Path) -> anyhow::Result<Start> {
        match self {
            Backend::Logind(logind, _) => {
                let clock = logind.clock().await;
                Ok(Start {
                    boot_id: boot::boot_id(root)?,
                    boot_time: boot::boot_time(),
                    clock,
                    shut_down: boot::last_shut_down(state_dir),
                    uptime: boot::uptime(),
                    granted: Vec::new(),
                    traces: traces::find(root),
                    need: required::look(root),
                    information: None,
                })
            }
            Backend::Simulate(simulation) => simulation.start(Time::from(SystemTime::now())),
        }
    }

    /// How long ago the running boot began.
    pub fn uptime(&self) -> Duration {
        match self {
            Backend::Logind(..) => boot::uptime(),
            Backend::Simulate(simulation) => simulation.uptime(Time::from(SystemTime::now())),
        }
    }

    /// Has `tasks` tell of what happens to the machine, whose clock was `known`
    /// to be like that, and tell the people on it of what is in `notices`: by a
    /// file in the daemon's `runtime_dir`, if it has one, and by the reason of the
    /// lock that is held.
    pub fn watch(
        &self,
        known: Clock,
        runtime_dir: Option<&Path>,
        notices: watch::Receiver<notice::Known>,
        sightings: mpsc::Sender<Sighting>,
        tasks: &mut JoinSet<()>,
    ) {
        match self {
            Backend::Logind(logind, _) => {
                if let Some(directory) = runtime_dir {
                    tasks.spawn(notice::keep(directory.to_owned(), notices.clone()));
                }
                tasks.spawn(clock::watch(logind.clone(), known, sightings.clone()));
                tasks.spawn(logind.clone().watch(notices, sightings));
            }
            Backend::Simulate(simulation) => {
                tasks.spawn(simulation.clone().watch(sightings));
            }
        }
    }

    // What speaks to the bus is kept in boxes here: it takes many kilobytes, which each
    // task that may have to ask would carry along, and copy twice, for whatever it does.

    /// What logind says about a reboot now; a pretended one is never refused.
    pub async fn permission(&self) -> Result<(), Refusal> {
        match self {
            Backend::Logind(logind, _) => Box::pin(logind.permission()).await,
            Backend::Simulate(_) => Ok(()),
        }
    }

    /// What each preflight check says now; a pretended machine has none.
    pub async fn preflight(&self) -> Vec<PreflightCheck> {
        match self {
            Backend::Logind(_, preflight) => Box::pin(preflight.run()).await,
            Backend::Simulate(_) => Vec::new(),
        }
    }

    /// Asks for a reboot, telling people who are logged in why; an error says
    /// why not. It happens some time after this returns.
    pub async fn reboot(&self, words: Option<&str>, ignore_inhibitors: bool) -> Result<(), String> {
        match self {
            Backend::Logind(logind, _) => Box::pin(logind.reboot(words, ignore_inhibitors)).await,
            Backend::Simulate(simulation) => simulation.reboot().map_err(|error| format!("{error:#}")),
        }
    }

    /// Has what people were told of a reboot that does not come forgotten.
    pub async fn forget_words(&self, words: Option<&str>) {
        match self {
            Backend::Logind(logind, _) => Box::pin(logind.forget_words(words)).await,
            Backend::Simulate(_) => {}
        }
    }

    /// Whether the machine is being shut down, by whatever way, and what holds
    /// that up.
    pub async fn shutdown(&self) -> Shutdown {
        match self {
            Backend::Logind(logind, _) => Box::pin(logind.shutdown()).await,
            Backend::Simulate(_) => Shutdown { under_way: Some(false), stopping: Vec::new() },
        }
    }

    /// What would end a shutdown that hangs; that of a pretended machine does not.
    pub async fn if_it_hangs(&self) -> IfItHangs {
        match self {
            Backend::Logind(logind, _) => {
                Box::pin(hang::look(logind, Path::new("/"))).await.unwrap_or_else(|error| {
                    tracing::debug!("what would end a shutdown that hangs is not known: {error}");
                    IfItHangs::default()
                })
            }
            Backend::Simulate(_) => IfItHangs::default(),
        }
    }

    /// Ready when the machine has come up again after [`Sighting::WentDown`],
    /// which is never where it takes the daemon along.
    pub async fn comes_up(&self) {
        match self {
            Backend::Logind(..) => std::future::pending().await,
            Backend::Simulate(simulation) => simulation.comes_up().await,
        }
    }
}
