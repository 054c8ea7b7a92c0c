//! How long to wait before the next attempt to connect. Where the other side
//! said no, the waits begin and end higher than where the network failed.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::connection::outage::{Class, Outage};

/// Growing waits, for each class of outage.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Whether no attempt has failed since the start or since the last stable
    /// connection.
    fresh: bool,
    unreachable: Backoff,
    refused: Backoff,
    busy: Backoff,
}

/// How long a connection has to last to count as stable. A shorter one may be one of
/// many that end alike, between which the waits have to grow.
pub(super) const STABLE: Duration = Duration::from_secs(60);
/// The longest `retry-after` that is heeded: a server that names a longer one is
/// taken to be mistaken, since the device would be away for so long.
const LONGEST: Duration = Duration::from_secs(60 * 60);

impl Pace {
    /// The pace at a start: no attempt has failed yet. First and longest wait are in
    /// seconds.
    #[expect(clippy::new_without_default, reason = "one way to make it")]
    pub fn new() -> Self {
        let backoff = |first, cap| Backoff::new(Duration::from_secs(first), Duration::from_secs(cap));
        Pace { fresh: true, unreachable: backoff(1, 60), refused: backoff(20, 600), busy: backoff(10, 300) }
    }

    /// Takes note of how long a connection has `lasted`; after a stable one the waits
    /// start over.
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
            Class::Unreachable | Class::Untrusted | Class::Closed if fresh => Duration::ZERO,
            Class::Unreachable | Class::Untrusted | Class::Closed => self.unreachable.next(jitter),
            Class::Refused => self.refused.next(jitter),
            Class::Busy { retry_after } => {
                retry_after.unwrap_or_default().min(LONGEST) + self.busy.next(jitter)
            }
        }
    }

    /// Starts over, because what stood in the way of a connection may be gone.
    pub fn reset(&mut self) {
        *self = Pace::new();
    }
}

/// Limits the attempts that are made before their time because the network has
/// changed. A network comes back in pieces (a link, an address, a route) and nothing
/// tells which piece was the last, so several attempts may follow each other at
/// once; but a network whose routes change all the time must not have the hub asked
/// all the time.
#[derive(Debug, Clone, Default)]
pub struct Eagerness {
    /// When the latest attempts were made, at most [`BURST`].
    latest: VecDeque<Instant>,
}

/// At most so many attempts before their time are made within [`SPAN`].
const BURST: usize = 8;
/// With [`BURST`], a network that never rests has the hub asked every 3 s on average.
const SPAN: Duration = Duration::from_secs(24);
/// The least time between two such attempts: what the kernel tells of one change
/// comes within it.
const GAP: Duration = Duration::from_millis(100);

impl Eagerness {
    /// When the next attempt may be made: an instant that has passed if it may be
    /// made now.
    pub fn due(&self) -> Instant {
        let after_last = self.latest.back().map(|last| *last + GAP);
        let after_first =
            self.latest.front().filter(|_| self.latest.len() == BURST).map(|first| *first + SPAN);
        after_last.max(after_first).unwrap_or_else(Instant::now)
    }

    /// Counts an attempt that is made now.
    pub fn spent(&mut self) {
        if self.latest.len() == BURST {
            self.latest.pop_front();
        }
        self.latest.push_back(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_network_in_pieces_is_tried_at_once_and_one_that_never_rests_is_not() {
        let (mut eagerness, start) = (Eagerness::default(), Instant::now());
        let mut attempts = Vec::new();
        for _ in 0..20 {
            tokio::time::sleep_until(eagerness.due()).await;
            eagerness.spent();
            attempts.push(start.elapsed().as_millis());
        }
        let expected =
            [0, 24_000, 48_000].into_iter().flat_map(|from| (0..8).map(move |nth| from + nth * 100));
        assert_eq!(attempts, expected.take(20).collect::<Vec<u128>>());
    }

    fn bounds(class: Class) -> Vec<u64> {
        let (mut pace, outage) = (Pace::new(), Outage { class, ..Outage::unreachable("") });
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
