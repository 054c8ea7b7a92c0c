//! What carries out a reboot: logind, or nothing.

use std::path::Path;
use std::time::SystemTime;

use iotdm_proto::Time;
use iotdm_proto::report::Clock;

use crate::agent::Start;
use crate::boot;
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

    /// The running boot, of the machine whose files are below `root`.
    pub async fn start(&self, root: &Path) -> anyhow::Result<Start> {
        match self {
            Backend::Logind(logind) => {
                let clock = logind.clock().await;
                Ok(Start { boot_id: boot::boot_id(root)?, boot_time: boot::boot_time()?, clock })
            }
            Backend::Simulate(simulation) => {
                let (boot_id, boot_time) = simulation.boot(Time::from(SystemTime::now()))?;
                Ok(Start { boot_id, boot_time, clock: Clock::Unsynchronized })
            }
        }
    }
}
