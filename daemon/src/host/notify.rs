//! What systemd is told: readiness, one sentence of status, signs of life.

use std::time::Duration;

use sd_notify::NotifyState;

/// In characters; more than any sentence of ours.
const MAX_STATUS: usize = 800;

/// The way to the service manager; without one everything is a no-op.
#[derive(Debug, Default)]
pub struct Notify {
    status: String,
}

impl Notify {
    /// The service has started.
    pub fn ready(&self) {
        send(&[NotifyState::Ready]);
    }

    /// What `systemctl status` shows; sent only when it changed.
    pub fn status(&mut self, status: String) {
        // One line: systemd takes the next for another assignment, and part of
        // this may be what a server said.
        let status: String =
            status.chars().map(|char| if char.is_control() { ' ' } else { char }).take(MAX_STATUS).collect();
        if status != self.status {
            send(&[NotifyState::Status(&status)]);
            self.status = status;
        }
    }

    /// The loop that does the work goes round.
    pub fn alive(&self) {
        send(&[NotifyState::Watchdog]);
    }

    /// The service is about to stop.
    pub fn stopping(&self) {
        send(&[NotifyState::Stopping]);
    }

    /// How often [`Notify::alive`] is expected at least: half of the unit's
    /// `WatchdogSec=`.
    pub fn watchdog(&self) -> Option<Duration> {
        sd_notify::watchdog_enabled().map(|limit| limit / 2)
    }
}

fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!("systemd was not notified: {error}");
    }
}
