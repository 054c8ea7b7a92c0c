//! What is seen of the machine.

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
    /// The machine is down, which only a pretended one lives to tell.
    WentDown,
}
