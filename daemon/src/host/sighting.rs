//! What is seen of the machine.

use iotdm_core::decide::health::Observed;
use iotdm_core::decide::need::Need;
use iotdm_proto::report::Clock;
use zbus::wire::OwnedFd;

/// Something that was seen.
#[derive(Debug)]
pub enum Sighting {
    /// A shutdown is under way. The machine waits with it, for a few seconds at
    /// most, until the lock is dropped.
    ShutdownBegan(Option<OwnedFd>),
    /// No shutdown is under way.
    NoShutdown,
    /// Somebody took or released a block inhibitor.
    InhibitorsChanged,
    /// What the clock is like now.
    Clock {
        /// Whether it is synchronised.
        clock: Clock,
        /// Whether it has jumped.
        set: bool,
    },
    /// How the machine's units are has changed, or was seen for the first time.
    Health {
        /// What was seen.
        observed: Observed,
        /// Whether the twin is to be told, or it was told of another change a
        /// moment ago.
        report: bool,
    },
    /// Whether the machine needs a reboot has changed.
    Need(Option<Need>),
    /// The machine is down, which only a pretended one lives to tell.
    WentDown,
}
