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

/// Attempts that do not wait for their time because the network has changed. A
/// network comes back in pieces, such as a link, an address and a route, and
/// which of them was the last nobody says; so several may come at once, but one
/// whose routes change all the time does not have the hub asked all the time.
#[derive(Debug, Clone, Default)]
pub struct Eagerness {
    latest: VecDeque<Instant>,
}

/// So many attempts in so long.
const BURST: usize = 8;
const SPAN: Duration = Duration::from_secs(24);
/// What the kernel says of one change comes within this time.
const GAP: Duration = Duration::from_millis(100);

impl Eagerness {
    /// When the next one may be, which is in the past if it may be now.
    pub fn due(&self) -> Instant {
        let after_last = self.latest.back().map(|last| *last + GAP);
        let after_first =
            self.latest.front().filter(|_| self.latest.len() == BURST).map(|first| *first + SPAN);
        after_last.max(after_first).unwrap_or_else(Instant::now)
    }

    /// There was one now.
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
