//! How long to wait before the next attempt to connect. Where the other side
//! said no, the waits begin and end higher than where the network failed.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::outage::{Class, Outage};

/// Growing waits, for each class of outage.
#[derive(Debug, Clone)]
pub struct Pace {
    /// No connection since the last stable one was tried yet.
    fresh: bool,
    unreachable: Backoff,
    refused: Backoff,
    busy: Backoff,
}

/// So long a connection has to last.
const STABLE: Duration = Duration::from_secs(60);
/// A `retry-after` beyond this is a mistake.
const LONGEST: Duration = Duration::from_secs(60 * 60);

impl Pace {
    /// Nothing has failed yet.
    #[expect(clippy::new_without_default, reason = "one way to make it")]
    pub fn new() -> Self {
        let backoff = |first, cap| Backoff::new(Duration::from_secs(first), Duration::from_secs(cap));
        Pace { fresh: true, unreachable: backoff(1, 60), refused: backoff(20, 600), busy: backoff(10, 300) }
    }

    /// A connection has `lasted` so long; a stable one makes the next outage a
    /// new one.
    pub fn lasted(&mut self, lasted: Duration) {
        if lasted >= STABLE {
            self.reset();
        }
    }

    /// The wait after `outage`. The first attempt after a network's failure is
    /// immediate. `jitter` is a random number in 0..=1.
    pub fn after(&mut self, outage: &Outage, jitter: f64) -> Duration {
        let fresh = std::mem::take(&mut self.fresh);
        match outage.class {
            Class::Unreachable if fresh => Duration::ZERO,
            Class::Unreachable => self.unreachable.next(jitter),
            Class::Refused => self.refused.next(jitter),
            Class::Busy { retry_after } => {
                retry_after.unwrap_or_default().min(LONGEST) + self.busy.next(jitter)
            }
        }
    }

    /// Starts over: what stood in the way may be gone.
    pub fn reset(&mut self) {
        *self = Pace::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(class: Class) -> Vec<u64> {
        let (mut pace, outage) = (Pace::new(), Outage { class, message: String::new() });
        (0..9).map(|_| pace.after(&outage, 1.0).as_secs()).collect()
    }

    #[test]
    fn each_class_has_its_own_bounds() {
        assert_eq!(bounds(Class::Unreachable), [0, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(bounds(Class::Refused), [20, 40, 80, 160, 320, 600, 600, 600, 600]);
        assert_eq!(bounds(Class::Busy { retry_after: None })[..6], [10, 20, 40, 80, 160, 300]);
        let asked = Class::Busy { retry_after: Some(Duration::from_secs(7)) };
        assert_eq!(bounds(asked)[..3], [17, 27, 47]);
        let absurd = Class::Busy { retry_after: Some(Duration::MAX) };
        assert_eq!(bounds(absurd)[0], 3610);
    }

    #[test]
    fn jitter_is_full_and_a_stable_connection_starts_over() {
        let outage = Outage::unreachable("");
        let mut pace = Pace::new();
        assert_eq!(pace.after(&outage, 1.0), Duration::ZERO);
        assert_eq!(pace.after(&outage, 0.5), Duration::from_millis(500));
        (0..100).for_each(|_| assert!(pace.after(&outage, 0.0).is_zero()));
        pace.lasted(Duration::from_secs(59));
        assert_eq!(pace.after(&outage, 1.0), Duration::from_secs(60));
        pace.lasted(Duration::from_secs(60));
        assert_eq!(pace.after(&outage, 1.0), Duration::ZERO);
        assert_eq!(pace.after(&outage, 1.0), Duration::from_secs(1));
    }
}
