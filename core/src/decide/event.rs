//! What happens to the daemon, as [`super::agent`] hears of it.

use std::time::Duration;

use iotdm_proto::Time;
use iotdm_proto::device_information::DeviceInformation;
use iotdm_proto::reply::IfItHangs;
use iotdm_proto::report::Clock;

use super::health::Observed;
use super::ids::GrantedRequest;
use super::memory::Memory;
use super::need::Need;
use super::outlook::Outlook;
use super::request::DesiredReboot;

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
    /// How long ago it booted. Only differences count, within one boot.
    pub uptime: Duration,
    /// The requests in the file of those that were granted.
    pub granted: Vec<GrantedRequest>,
    /// What the machine tells of how the boot before ended.
    pub traces: Traces,
    /// Whether the machine needs a reboot, where that is known.
    pub need: Option<Need>,
    /// What the machine says of itself.
    pub information: Option<DeviceInformation>,
}

#[cfg(test)]
impl Start {
    /// An ordinary boot, by a clock that is synchronised.
    pub(super) fn of(boot_id: &str, seconds: i64) -> Self {
        Start {
            boot_id: boot_id.to_owned(),
            boot_time: Time::from_unix_millis(seconds * 1000),
            clock: Clock::Synchronized,
            shut_down: None,
            uptime: Duration::ZERO,
            granted: Vec::new(),
            traces: Traces::default(),
            need: None,
            information: None,
        }
    }
}

/// What is found on the machine that tells how the boot before ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traces {
    /// The dumps that panics of the kernel have left, of whatever boot, by their
    /// names; `None` where they cannot be looked for.
    pub panics: Option<Vec<String>>,
    /// A hardware watchdog says that it has reset the machine.
    pub watchdog: bool,
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
    /// What logind and the preflight checks say about a reboot now; answers
    /// [`super::effect::Effect::AskPermission`].
    Permission(Outlook),
    /// How things are; answers [`super::effect::Effect::Survey`].
    Surveyed {
        /// The call that asked.
        rid: String,
        /// As for [`Event::Permission`].
        outlook: Outlook,
        /// Since the kernel booted.
        uptime: Duration,
        /// What would end a shutdown that hangs.
        if_it_hangs: IfItHangs,
    },
    /// Whether the record is on disk.
    Saved(Result<(), String>),
    /// Whether the file of granted requests is written; answers
    /// [`super::effect::Effect::Keep`].
    Kept {
        /// It is, and synced.
        written: bool,
    },
    /// The file of granted requests is not there any more.
    KeptIsGone,
    /// Some time after the record could not be saved.
    StorageMayWork,
    /// The hub acknowledged the reply to this call.
    ReplyDelivered {
        /// The call.
        rid: String,
    },
    /// The hub has all that was last to be reported.
    Reported,
    /// The hub does not take what was last to be reported, nor would it later.
    ReportRefused,
    /// The twin's desired properties are known, or have changed.
    Desired {
        /// `properties.desired.reboot`, if it is there.
        reboot: Option<DesiredReboot>,
        /// What the twin remembers of earlier runs, if the whole twin was read.
        memory: Option<Box<Memory>>,
    },
    /// The clock was set, or its state has become known.
    ClockSet {
        /// Whether it is synchronised.
        clock: Clock,
        /// When the running kernel booted, by the clock of now.
        boot_time: Time,
    },
    /// Systemd tells how the machine's units are.
    Health {
        /// How they are.
        observed: Observed,
        /// Whether that is to be reported, or was too little time since the last
        /// report.
        report: bool,
    },
    /// Whether the machine needs a reboot has changed.
    Need(Option<Need>),
    /// What the machine says of itself, which may have changed.
    Information(Box<DeviceInformation>),
    /// The hub has answered for the first time since the daemon started.
    HubReached {
        /// Since the kernel booted.
        uptime: Duration,
    },
    /// Somebody took or released a block inhibitor.
    InhibitorsChanged,
    /// What logind said when it was asked to reboot.
    RebootAsked(Result<(), String>),
    /// Whether the machine is going down, if anybody can tell, and which units
    /// systemd is still stopping; answers
    /// [`super::effect::Effect::AskShutdown`].
    Shutdown {
        /// Whether logind prepares for a shutdown, systemd is stopping, or a job
        /// of shutdown.target runs.
        under_way: Option<bool>,
        /// The units whose stop jobs run.
        stopping: Vec<String>,
    },
    /// An orderly shutdown is under way, ours or another.
    ShutdownBegan,
    /// No shutdown is under way, or it was called off.
    ShutdownCancelled,
    /// The wait that the last [`super::effect::Effect::Deadline`] asked for is
    /// over.
    DeadlinePassed,
}
