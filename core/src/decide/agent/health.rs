//! The health of the machine, as it is reported beside the reboots.

use std::time::Duration;

use iotdm_proto::Time;
use iotdm_proto::health::{Health, HealthState};

use super::Core;
use crate::decide::effect::Effect;
use crate::decide::health::{KnownHealth, Observed, told_before};

impl Core {
    /// What is remembered of the health of the running boot.
    pub(super) fn known_health(&self) -> Option<&KnownHealth> {
        self.record.health.as_ref().filter(|known| known.told.boot_id == self.record.boot.boot_id)
    }

    /// Systemd was heard about the units.
    pub(super) fn observed(&mut self, observed: Observed, report: bool, now: Time) -> Vec<Effect> {
        self.observed = Some(observed);
        match report && self.judge_health(now) {
            true => vec![self.save(), self.report()],
            false => Vec::new(),
        }
    }

    /// The hub has answered for the first time in this run of the daemon.
    pub(super) fn hub_reached(&mut self, uptime: Duration, now: Time) -> Vec<Effect> {
        self.hub_reached_after = Some(uptime);
        match self.judge_health(now) {
            true => vec![self.save(), self.report()],
            false => Vec::new(),
        }
    }

    /// Works out the health anew; whether it has changed.
    pub(super) fn judge_health(&mut self, now: Time) -> bool {
        let known = self.known_health();
        let told = known.map(|known| &known.told);
        let (state, (failed_units, failed_count)) = match (&self.observed, told) {
            (Some(observed), _) => (observed.state, observed.named(&self.record.failed_before)),
            (None, Some(told)) => (told.state, (told.failed_units.clone(), told.failed_count)),
            (None, None) => return false,
        };
        let state = if self.record.going_down { HealthState::Stopping } else { state };
        let whole_boot = known.map_or(self.whole_boot, |known| known.whole_boot);
        let began = if state == HealthState::Starting { self.booted } else { now };
        let reached = self.hub_reached_after.filter(|_| whole_boot).map(in_seconds);
        let told = Health {
            boot_id: self.record.boot.boot_id.clone(),
            state,
            failed_units,
            failed_count,
            since: told.filter(|told| told.state == state).map_or(began, |told| told.since),
            hub_reached_after_seconds: told.and_then(|told| told.hub_reached_after_seconds).or(reached),
        };
        let now_known = Some(KnownHealth { told, whole_boot });
        let changed = self.record.health != now_known;
        self.record.health = now_known;
        changed
    }

    /// Remembers which units have failed already, as a request is accepted;
    /// those that are told with the request.
    pub(super) fn note_failed_before(&mut self) -> Vec<String> {
        self.record.failed_before = match (&self.observed, self.known_health()) {
            (Some(observed), _) => observed.failed.clone(),
            (None, Some(known)) => known.told.failed_units.clone(),
            (None, None) => Vec::new(),
        };
        told_before(&self.record.failed_before).to_vec()
    }
}

/// The health at the first start in a new boot of a machine whose health is
/// known to be told.
pub(super) fn starting(boot_id: &str, booted: Time) -> KnownHealth {
    let told = Health {
        boot_id: boot_id.to_owned(),
        state: HealthState::Starting,
        failed_units: Vec::new(),
        failed_count: 0,
        since: booted,
        hub_reached_after_seconds: None,
    };
    KnownHealth { told, whole_boot: true }
}

/// To three decimals.
fn in_seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}
