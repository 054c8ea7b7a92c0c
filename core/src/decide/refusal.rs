//! Why a reboot is refused, and how a call is told so.

use std::time::Duration;

use iotdm_proto::reply::{CallError, GRANTED, Inhibitor, PreflightCheck, RefusalReply};
use iotdm_proto::report::{RebootError, RebootErrorCode};
use iotdm_proto::{ErrorCode, Time};
use serde::Serialize;
use serde_json::json;

use super::effect::{Effect, Note};
use super::ids::{MAX_GRANTED, MAX_IDS};

/// Why the machine cannot be rebooted now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is no logind, or none that can reboot; the sentence about it.
    LogindUnavailable(String),
    /// polkit does not let the daemon; the sentence about it.
    NotAuthorized(String),
    /// Somebody holds block inhibitors for shutdown.
    Blocked(Vec<Inhibitor>),
    /// These preflight checks object: the machine may not come back.
    Objected(Vec<PreflightCheck>),
    /// This is not to be passed over on this device.
    Forbidden(Sacred),
    /// A reboot now would be too often, or too soon after the last boot, or the
    /// request cannot be remembered.
    RateLimited {
        /// What it exceeds.
        limit: Limit,
        /// When it would be accepted.
        until: Time,
        /// How long that is from now.
        wait: Duration,
    },
    /// The request is for a machine that needs a reboot; the sentence that this one
    /// does not. To a call it is no error.
    NotNeeded(String),
}

/// What a request that comes too often exceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Of reboots, in the device's configuration.
    Reboots,
    /// Of requests that are granted within an hour.
    Granted,
    /// Of requests that are remembered.
    Memory,
}

/// What the device's own configuration lets operators pass over, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sacred {
    /// Block inhibitors for shutdown.
    Inhibitors,
    /// Preflight checks that object.
    Preflight,
}

impl Refusal {
    /// How a request that nobody waits for is reported to have failed.
    pub(super) fn error(&self) -> RebootError {
        let code = match self {
            Refusal::LogindUnavailable(_) | Refusal::NotAuthorized(_) => RebootErrorCode::LogindRefused,
            Refusal::Blocked(_) => RebootErrorCode::BlockedByInhibitor,
            Refusal::Objected(_) => RebootErrorCode::PreflightFailed,
            Refusal::Forbidden(_) | Refusal::RateLimited { .. } | Refusal::NotNeeded(_) => {
                RebootErrorCode::Forbidden
            }
        };
        RebootError { code, message: self.message() }
    }

    /// The sentence for people.
    pub(super) fn message(&self) -> String {
        match self {
            Refusal::LogindUnavailable(why) | Refusal::NotAuthorized(why) | Refusal::NotNeeded(why) => {
                why.clone()
            }
            Refusal::Forbidden(Sacred::Inhibitors) => {
                "this device does not let operators override inhibitors (reboot.allow_inhibitor_override)".to_owned()
            }
            Refusal::Forbidden(Sacred::Preflight) => {
                "this device does not let operators override preflight checks (reboot.allow_preflight_override)"
                    .to_owned()
            }
            Refusal::RateLimited { until, limit: Limit::Reboots, .. } => {
                format!(
                    "this device's limits (reboot.max_per_hour, reboot.min_uptime) allow a reboot from {until} on"
                )
            }
            Refusal::RateLimited { until, limit: Limit::Granted, .. } => {
                format!("this device grants {MAX_GRANTED} requests an hour, the next one from {until} on")
            }
            Refusal::RateLimited { until, limit: Limit::Memory, .. } => {
                format!("this device remembers {MAX_IDS} requests, and may forget the oldest from {until} on")
            }
            Refusal::Blocked(holders) => {
                let holder = |holder: &Inhibitor| format!("{} ({})", holder.who, holder.why);
                let holders: Vec<String> = holders.iter().map(holder).collect();
                format!("shutdown is inhibited by {}", holders.join(", "))
            }
            Refusal::Objected(checks) => {
                let objection = |check: &PreflightCheck| {
                    format!("{} ({})", check.name, check.reason.as_deref().unwrap_or_default())
                };
                let objections: Vec<String> = checks.iter().map(objection).collect();
                format!("the machine may not come back, by its preflight checks: {}", objections.join(", "))
            }
        }
    }

    /// The error that a call is told.
    fn call_error(&self) -> CallError {
        let code = match self {
            Refusal::LogindUnavailable(_) => ErrorCode::LogindUnavailable,
            Refusal::NotAuthorized(_) => ErrorCode::NotAuthorized,
            Refusal::Forbidden(_) | Refusal::NotNeeded(_) => ErrorCode::Forbidden,
            Refusal::Objected(_) => ErrorCode::PreflightFailed,
            Refusal::RateLimited { .. } => ErrorCode::RateLimited,
            Refusal::Blocked(_) => ErrorCode::BlockedByInhibitor,
        };
        let mut error = CallError::new(code, self.message());
        match self {
            Refusal::RateLimited { wait, .. } => {
                error.retry_after_seconds = u64::try_from(wait.as_millis().div_ceil(1000)).ok();
            }
            Refusal::Blocked(holders) => error.inhibitors = Some(holders.clone()),
            Refusal::Objected(checks) => error.preflight = Some(checks.clone()),
            Refusal::LogindUnavailable(_)
            | Refusal::NotAuthorized(_)
            | Refusal::NotNeeded(_)
            | Refusal::Forbidden(_) => {}
        }
        error
    }
}

/// The reply that grants the call `rid`.
pub(super) fn grant(rid: &str, body: &impl Serialize) -> Effect {
    Effect::Reply { rid: rid.to_owned(), status: GRANTED, body: json!(body) }
}

/// The reply that refuses the call `rid`, and a note for the administrator.
pub(super) fn refuse(rid: &str, error: CallError) -> Vec<Effect> {
    let (code, message) = (error.code, error.message.clone());
    let body = json!(RefusalReply { error });
    vec![
        Effect::Note(Note::Refused { code, message }),
        Effect::Reply { rid: rid.to_owned(), status: code.status(), body },
    ]
}

/// The same refusal for several calls.
pub(super) fn refuse_all(rids: &[String], refusal: &Refusal) -> Vec<Effect> {
    rids.iter().flat_map(|rid| refuse(rid, refusal.call_error())).collect()
}
