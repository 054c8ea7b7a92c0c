//! How long to wait before the next attempt: capped exponential growth with
//! full jitter, so that a fleet does not come back in step.

use std::time::Duration;

/// Successive waits. `jitter` is a random number in 0..=1 for each.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    attempts: u32,
}

impl Backoff {
    /// Waits of at most `first`, doubling up to `cap`.
    pub fn new(first: Duration, cap: Duration) -> Self {
        Backoff { first, cap, attempts: 0 }
    }

    /// The next wait, evenly distributed between nothing and the bound.
    pub fn next(&mut self, jitter: f64) -> Duration {
        let bound = self.first.saturating_mul(2u32.saturating_pow(self.attempts)).min(self.cap);
        self.attempts = self.attempts.saturating_add(1);
        bound.mul_f64(jitter.clamp(0.0, 1.0))
    }

    /// Starts over after success.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_cap_and_starts_over() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        let bounds: Vec<u64> = (0..8).map(|_| backoff.next(1.0).as_secs()).collect();
        assert_eq!(bounds, [1, 2, 4, 8, 16, 32, 60, 60]);
        backoff.reset();
        assert_eq!(backoff.next(0.5), Duration::from_millis(500));
        (0..100).for_each(|_| assert!(backoff.next(0.0).is_zero()));
        assert_eq!(backoff.next(1.0), Duration::from_secs(60));
    }
}
