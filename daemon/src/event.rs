//! What happens to the daemon, as the decision core hears of it.

use std::time::Duration;

use iotdm_proto::Time;
use iotdm_proto::report::{Clock, RebootError, RebootErrorCode};
use serde_json::Value;

/// What the daemon finds when it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The running kernel's boot id.
    pub boot_id: String,
    /// When it booted, by the clock of now.
    pub boot_time: Time,
    /// Whether that clock is synchronised.
    pub clock: Clock,
    /// The last boot that is known to have ended by an orderly shutdown.
    pub shut_down: Option<String>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A direct method was called.
    Called {
        /// Identifies the call in the reply.
        rid: String,
        /// The method.
        name: String,
        /// The payload as it came.
        payload: Vec<u8>,
        /// A new UUID, for a request without an id.
        fresh_id: String,
    },
    /// What logind says about a reboot now; answers `Effect::AskPermission`.
    Permission(Result<(), Refusal>),
    /// How things are; answers `Effect::Survey`.
    Surveyed {
        /// The call that asked.
        rid: String,
        /// As for [`Event::Permission`].
        permission: Result<(), Refusal>,
        /// Since the kernel booted.
        uptime: Duration,
    },
    /// Whether the record is on disk.
    Saved(Result<(), String>),
    /// Some time after the record could not be saved.
    StorageMayWork,
    /// The hub acknowledged the reply to this call.
    ReplyDelivered {
        /// The call.
        rid: String,
    },
    /// The hub has all that was last to be reported.
    Reported,
    /// The twin's desired properties are known, or have changed.
    Desired {
        /// `properties.desired.reboot`.
        reboot: Option<Value>,
        /// `properties.reported.reboot` as it was before we reported, if the
        /// whole twin was read.
        reported: Option<Value>,
    },
    /// The clock was set, or its state has become known.
    ClockSet {
        /// Whether it is synchronised.
        clock: Clock,
        /// When the running kernel booted, by the clock of now.
        boot_time: Time,
    },
    /// Somebody took or released a block inhibitor.
    InhibitorsChanged,
    /// What logind said when it was asked to reboot.
    RebootAsked(Result<(), String>),
    /// An orderly shutdown is under way, ours or another.
    ShutdownBegan,
    /// None is, or no longer.
    ShutdownCancelled,
    /// The wait asked for by the last `Effect::Deadline` is over.
    DeadlinePassed,
}

/// Why the machine cannot be rebooted now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No logind, or none that can reboot.
    LogindUnavailable(String),
    /// polkit does not let us.
    NotAuthorized(String),
    /// Somebody holds block inhibitors for shutdown.
    Blocked(Vec<Inhibitor>),
    /// Inhibitors are not to be passed over here.
    Forbidden,
    /// Too often, or too soon after the last boot.
    RateLimited {
        /// When it would be accepted.
        until: Time,
        /// How long that is from now.
        wait: Duration,
    },
}

/// A holder of a logind inhibitor lock.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Inhibitor {
    /// The program, in its own words.
    pub who: String,
    /// Its reason.
    pub why: String,
    /// Its user.
    pub uid: u32,
    /// Its process.
    pub pid: u32,
}

impl Refusal {
    /// How a request that nobody waits for is reported to have failed by it.
    pub fn error(&self) -> RebootError {
        let code = match self {
            Refusal::LogindUnavailable(_) | Refusal::NotAuthorized(_) => RebootErrorCode::LogindRefused,
            Refusal::Blocked(_) => RebootErrorCode::BlockedByInhibitor,
            Refusal::Forbidden | Refusal::RateLimited { .. } => RebootErrorCode::Forbidden,
        };
        RebootError { code, message: self.message() }
    }

    /// The sentence about it.
    pub fn message(&self) -> String {
        match self {
            Refusal::LogindUnavailable(why) | Refusal::NotAuthorized(why) => why.clone(),
            Refusal::Forbidden => "this device does not let operators override inhibitors \
                                   (reboot.allow_inhibitor_override)"
                .to_owned(),
            Refusal::RateLimited { until, .. } => {
                format!(
                    "this device's limits (reboot.max_per_hour, reboot.min_uptime) allow a reboot from {until} on"
                )
            }
            Refusal::Blocked(holders) => {
                let holder = |holder: &Inhibitor| format!("{} ({})", holder.who, holder.why);
                let holders: Vec<String> = holders.iter().map(holder).collect();
                format!("shutdown is inhibited by {}", holders.join(", "))
            }
        }
    }
}
