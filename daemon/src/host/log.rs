//! The journal, or standard error where there is none; and the sentences that
//! have a `MESSAGE_ID` of their own.

use std::io;

use iotdm_core::decide::effect::Note;
use iotdm_core::decide::health::Observed;
use iotdm_core::decide::need::Need;
use iotdm_proto::report::RebootStatus;
use iotdm_proto::{Identity, ModuleId};
use serde::Deserialize;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::journal::{self, Logger};
use super::lines::Lines;
use super::status::Whom;

/// One per kind of event, for `journalctl MESSAGE_ID=…`; never changed.
mod message_id {
    pub(super) const BOOTED: &str = "679eaf17179e4c16aebbe80784c90b2e";
    pub(super) const RECALLED: &str = "5b0d3f1c3a9a4f0f9c3d6f0c1a7e42b8";
    pub(super) const CLOCK_SET: &str = "e4c67dbfb40241269228bba3cb936a33";
    pub(super) const ACCEPTED: &str = "a1e38844476d49c7a2f7cccb68acd1e3";
    pub(super) const REFUSED: &str = "3980ef0e91a54ddc9aecff857d3af308";
    pub(super) const WAITING: &str = "00d9dc122c034a078f06db6a8611dc1f";
    pub(super) const REBOOTING: &str = "dd0ce453efbc48679e4173b9d0daf4ef";
    pub(super) const UNTOLD: &str = "5d0f4f5e3c0d4a4bb7c7bb3f2f1c6e89";
    pub(super) const COMPLETED: &str = "8bec7f14b5bf443d9635b4774dbc2409";
    pub(super) const CANCELLED: &str = "111d9c5dcc7747b8a31ec8ab32e5abd0";
    pub(super) const FAILED: &str = "28d08dd4f0dc4ab9b5be640f3cb78052";
    pub(super) const HEALTH: &str = "6c0b8a4d2f6e4b7f8e1d97a35c21f0de";
    pub(super) const NEED: &str = "d41f0b6a95c84f0fa4f5c6f6f2a8137b";
    pub(super) const SHUTDOWN: &str = "bb5e83438bab47a59fd2b52bde1afc0a";
    pub(super) const CONNECTED: &str = "4f187890f03a450f89377e15bfa011a8";
    pub(super) const CANNOT_RUN: &str = "ccaeb3c8f3094a0ca845c20e65376472";
    pub(super) const DISCONNECTED: &str = "b95298ff625b40b4974ec8a0f9ec28b2";
}

/// A log level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Something does not work.
    Error,
    /// Something works, but not as it should.
    Warn,
    /// What the daemon does.
    Info,
    /// Each exchange.
    Debug,
}

/// What is logged is written as long as this lives; its end waits, but not long,
/// for the last lines.
#[derive(Debug)]
pub struct Log(Lines);

/// Sends what is logged from now on to the journal if standard error is
/// connected to it, else to standard error itself. Logging never waits for
/// either.
pub fn init(level: Level) -> io::Result<Log> {
    let level = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
    };
    let ours = Targets::new().with_default(LevelFilter::ERROR).with_target("iotdm_agentd", level);
    let lines = journal::start()?;
    tracing_subscriber::registry().with(ours).with(Logger(lines.clone())).init();
    Ok(Log(lines))
}

impl Drop for Log {
    fn drop(&mut self) {
        self.0.flush();
    }
}

/// Writes a note of the decision core.
pub fn note(note: &Note) {
    match note {
        Note::Booted(boot) => tracing::info!(
            message_id = message_id::BOOTED,
            boot_id = boot.boot_id,
            boot_time = %boot.boot_time,
            "the machine has booted anew, cause: {}",
            boot.cause
        ),
        Note::Recalled { id } => tracing::warn!(
            message_id = message_id::RECALLED,
            reboot_id = id,
            "the record of earlier reboots is gone; the device twin remembers {} as the last one",
            id.as_deref().unwrap_or("none")
        ),
        Note::ClockSet(boot) => tracing::info!(
            message_id = message_id::CLOCK_SET,
            boot_id = boot.boot_id,
            boot_time = %boot.boot_time,
            "the clock was set ({}): by it, the machine booted at {}",
            boot.clock,
            boot.boot_time
        ),
        Note::Accepted(reboot) => tracing::info!(
            message_id = message_id::ACCEPTED,
            reboot_id = reboot.id,
            operator = reboot.operator,
            "reboot {} accepted and recorded{}, reason: {:?}{}",
            reboot.id,
            reboot.not_before.map(|at| format!(" for {at}")).unwrap_or_default(),
            reboot.reason.as_deref().unwrap_or("none given"),
            reboot.operator.as_ref().map(|who| format!(", asked for by {who:?}")).unwrap_or_default()
        ),
        Note::Refused { code, message } => tracing::warn!(
            message_id = message_id::REFUSED,
            status = code.status(),
            code = code.as_str(),
            "a call was refused with {} {code}: {message}",
            code.status()
        ),
        Note::Waiting { id, message } => {
            tracing::info!(message_id = message_id::WAITING, reboot_id = id, "reboot {id} waits: {message}");
        }
        Note::Rebooting { id } => tracing::info!(
            message_id = message_id::REBOOTING,
            reboot_id = id,
            "the machine is about to be rebooted for {id}"
        ),
        Note::Ended(reboot) if reboot.status == RebootStatus::Completed => tracing::info!(
            message_id = message_id::COMPLETED,
            reboot_id = reboot.id,
            boot_id = reboot.boot_id,
            previous_boot_id = reboot.previous_boot_id,
            "reboot {} completed",
            reboot.id
        ),
        Note::Ended(reboot) if reboot.status == RebootStatus::Cancelled => tracing::info!(
            message_id = message_id::CANCELLED,
            reboot_id = reboot.id,
            "reboot {} was cancelled",
            reboot.id
        ),
        Note::Ended(reboot) => tracing::error!(
            message_id = message_id::FAILED,
            reboot_id = reboot.id,
            "reboot {} {}: {}",
            reboot.id,
            reboot.status,
            reboot.error.as_ref().map_or("", |error| error.message.as_str())
        ),
        Note::Untold { id } => tracing::warn!(
            message_id = message_id::UNTOLD,
            reboot_id = id,
            "the hub will not hear what became of reboot {id}: it takes no report, and too many requests have ended \
             since"
        ),
        Note::ShutdownBegan => {
            tracing::info!(message_id = message_id::SHUTDOWN, "an orderly shutdown of the machine has begun");
        }
        Note::ShutdownCancelled => {
            tracing::info!(message_id = message_id::SHUTDOWN, "the shutdown of the machine was called off");
        }
    }
}

/// Writes that the hub is connected.
pub fn connected(hub: &str, id: &Identity) {
    tracing::info!(
        message_id = message_id::CONNECTED,
        hub,
        device_id = id.device.as_str(),
        module_id = id.module.as_ref().map(ModuleId::as_str),
        "connected to {hub} as {id}"
    );
}

/// Writes why the hub is not connected.
pub fn disconnected(whom: &Whom, message: &str) {
    let Whom { device_id, module_id } = whom;
    let module_id = module_id.as_ref().map(ModuleId::as_str);
    tracing::warn!(message_id = message_id::DISCONNECTED, device_id, module_id, "{message}");
}

/// Writes how the machine's units are, which has changed or was seen for the first
/// time.
pub fn health(observed: &Observed) {
    let units: Vec<&str> = observed.down.iter().chain(&observed.failed).map(String::as_str).collect();
    let units = if units.is_empty() { String::new() } else { format!(": {}", units.join(", ")) };
    tracing::info!(message_id = message_id::HEALTH, "the machine is {}{units}", observed.state);
}

/// Writes whether the machine needs a reboot, which has changed.
pub fn need(need: Option<&Need>) {
    match need {
        Some(need) if need.is_required() => {
            tracing::info!(
                message_id = message_id::NEED,
                "the machine needs a reboot: {}",
                need.reasons.join(", ")
            );
        }
        _ => tracing::info!(
            message_id = message_id::NEED,
            "nothing says any more that the machine needs a reboot"
        ),
    }
}

/// Writes why the daemon ends.
pub fn cannot_run(message: &str) {
    tracing::error!(message_id = message_id::CANNOT_RUN, "{message}");
}
