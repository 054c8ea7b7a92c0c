//! What carries out a reboot: logind, or nothing.

use std::path::Path;
use std::time::SystemTime;

use iotdm_proto::Time;

use crate::boot;
use crate::event::{Refusal, Start};
use crate::logind::Logind;
use crate::simulate::Simulation;

/// The two ways.
#[derive(Debug, Clone)]
pub enum Backend {
    /// The machine is rebooted.
    Logind(Logind),
    /// It is pretended.
    Simulate(Simulation),
}

impl Backend {
    /// The record's file name. A pretended machine's history is not the real
    /// one's.
    pub fn record_name(&self) -> &'static str {
        match self {
            Backend::Logind(_) => "state.json",
            Backend::Simulate(_) => "simulated-state.json",
        }
    }

    /// What logind says about a reboot now; a pretended one is never refused.
    pub async fn permission(&self) -> Result<(), Refusal> {
        match self {
            Backend::Logind(logind) => logind.permission().await,
            Backend::Simulate(_) => Ok(()),
        }
    }

    /// Whether the machine is being shut down, by whatever way.
    pub async fn is_going_down(&self) -> bool {
        match self {
            Backend::Logind(logind) => logind.system_is_stopping().await,
            Backend::Simulate(_) => false,
        }
    }

    /// The running boot, of the machine whose files are below `root`.
    pub async fn start(&self, root: &Path, state_dir: &Path) -> anyhow::Result<Start> {
        match self {
            Backend::Logind(logind) => {
                let clock = logind.clock().await;
                let shut_down = boot::last_shut_down(state_dir);
                Ok(Start { boot_id: boot::boot_id(root)?, boot_time: boot::boot_time(), clock, shut_down })
            }
            Backend::Simulate(simulation) => simulation.start(Time::from(SystemTime::now())),
        }
    }
}
