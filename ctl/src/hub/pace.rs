//! How fast HTTP requests of one kind go to the hub: as fast as the hub takes
//! them.
//!
//! Requests are spaced by a gap, which doubles at once when the hub throttles
//! and shrinks slowly while all goes well, so that a run over many devices
//! settles at what the hub's tier allows.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The pace of one kind of HTTP request.
#[derive(Debug)]
pub(super) struct Pace {
    /// The gap is never smaller: the operator has set a limit.
    least: Cell<Duration>,
    /// The gap is never larger.
    longest: Duration,
    /// How long after one request the next one may go out.
    gap: Cell<Duration>,
    /// When the next request may go out.
    next: Cell<Instant>,
    /// When the gap was last doubled.
    slowed: Cell<Instant>,
}

/// The gap that the first throttling leads to: 50 requests in a second, a little
/// more than the 40 calls that the smallest paid tier takes.
const FIRST_GAP: Duration = Duration::from_millis(20);

impl Pace {
    /// The pace of a kind of which even the smallest hub takes one request in
    /// `longest`.
    pub(super) fn new(longest: Duration) -> Self {
        let now = Instant::now();
        Pace {
            least: Cell::default(),
            longest,
            gap: Cell::default(),
            next: Cell::new(now),
            slowed: Cell::new(now),
        }
    }

    /// From now on, keeps requests at least `gap` apart.
    pub(super) fn no_faster_than(&self, gap: Duration) {
        self.least.set(gap);
        self.gap.set(self.gap.get().max(gap));
    }

    /// Waits until it is a request's turn, and returns when its turn was.
    pub(super) async fn turn(&self) -> Instant {
        let turn = self.next.get().max(Instant::now());
        self.next.set(turn + self.gap.get());
        sleep_until(turn).await;
        turn
    }

    /// The hub did not throttle a request.
    pub(super) fn went_well(&self) {
        let gap = self.gap.get();
        self.gap.set((gap - gap / 8).max(self.least.get()));
    }

    /// The hub throttled the request whose turn was at `turn`, and wants `pause`
    /// before the next one. Several throttled requests that were under way at
    /// the same time double the gap once.
    pub(super) fn throttled(&self, turn: Instant, pause: Duration) {
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

    /// Runs `test` with a clock that stands still except while it is waited for.
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
