//! How fast a hub is asked: as fast as it takes it.
//!
//! Requests are spaced by a gap, which grows at once when the hub throttles
//! and shrinks slowly while all goes well, so that many devices at a time
//! settle at what the hub's tier allows.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The pace of one kind of request.
#[derive(Debug)]
pub struct Pace {
    least: Cell<Duration>,
    longest: Duration,
    gap: Cell<Duration>,
    next: Cell<Instant>,
    slowed: Cell<Instant>,
}

/// The gap that the first throttling leads to.
const FIRST_GAP: Duration = Duration::from_millis(20);

impl Pace {
    /// Of a kind of which a hub takes one in `longest` at the very least.
    pub fn new(longest: Duration) -> Self {
        let now = Instant::now();
        Pace {
            least: Cell::default(),
            longest,
            gap: Cell::default(),
            next: Cell::new(now),
            slowed: Cell::new(now),
        }
    }

    /// Keeps requests at least `gap` apart from now on.
    pub fn no_faster_than(&self, gap: Duration) {
        self.least.set(gap);
        self.gap.set(self.gap.get().max(gap));
    }

    /// Waits until it is a request's turn, and returns when that was.
    pub async fn turn(&self) -> Instant {
        let turn = self.next.get().max(Instant::now());
        self.next.set(turn + self.gap.get());
        sleep_until(turn).await;
        turn
    }

    /// The hub answered a request.
    pub fn went_well(&self) {
        let gap = self.gap.get();
        self.gap.set((gap - gap / 8).max(self.least.get()));
    }

    /// The hub throttled the request whose turn was at `turn`, and wants a
    /// pause. Those that were under way at the same time slow it down once.
    pub fn throttled(&self, turn: Instant, pause: Duration) {
        let now = Instant::now();
        self.next.set(self.next.get().max(now + pause));
        if turn < self.slowed.get() {
            return;
        }
        self.slowed.set(now);
        self.gap.set((self.gap.get() * 2).clamp(FIRST_GAP, self.longest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The time that passes stands still but for waiting.
    fn in_still_time(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(test);
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn is_not_slowed_down_by_itself() {
        in_still_time(async {
            let (pace, begin) = (Pace::new(Duration::from_secs(1)), Instant::now());
            for _ in 0..100 {
                pace.turn().await;
            }
            assert_eq!(begin.elapsed(), Duration::ZERO);
            pace.no_faster_than(10 * MS);
            for _ in 0..101 {
                pace.turn().await;
            }
            assert_eq!(begin.elapsed(), 1000 * MS);
        });
    }

    #[test]
    fn throttling_slows_down_once_for_all_under_way() {
        in_still_time(async {
            let pace = Pace::new(Duration::from_secs(1));
            let turns = [pace.turn().await, pace.turn().await];
            tokio::time::advance(MS).await;
            turns.into_iter().for_each(|turn| pace.throttled(turn, 500 * MS));
            let begin = Instant::now();
            pace.turn().await;
            pace.throttled(pace.turn().await, Duration::ZERO);
            assert_eq!(begin.elapsed(), 500 * MS + FIRST_GAP);
            pace.turn().await;
            let begin = Instant::now();
            pace.turn().await;
            assert_eq!(begin.elapsed(), 2 * FIRST_GAP, "a later one slows down again");
            (0..500).for_each(|_| pace.went_well());
            pace.turn().await;
            let begin = Instant::now();
            pace.turn().await;
            assert!(begin.elapsed() < 2 * MS, "and recovers");
        });
    }
}
