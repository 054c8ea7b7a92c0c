//! Until when an outcome is waited for.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::hub::HubError;
use crate::output::say;

/// How long reading the twin for the last time may take, beyond the time that the
/// user wants to wait: long enough for a hub that answers at all.
const LAST_LOOK: Duration = Duration::from_secs(10);

/// How long a device is given to connect again, and to say what it has to say,
/// after the hub itself was away.
pub(super) const GRACE: Duration = Duration::from_secs(2 * 60);

/// For how long a hub that has gone away is waited for.
pub(super) const HUB_PATIENCE: Duration = Duration::from_secs(10 * 60);

/// When to stop looking. Time passes also while this process is stopped (Ctrl-Z)
/// or the machine is busy, so that only a look that has begun after the deadline
/// is the last one.
pub(super) struct Deadline {
    at: Instant,
    /// Until when the last look is tried, once it has begun.
    last: Option<Instant>,
    /// Since when all looks have failed since the hub is away.
    away_since: Option<Instant>,
}

/// What a look came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// The twin was read.
    Read,
    /// The hub did not give it away this time.
    Failed,
    /// The hub itself was away.
    Away,
}

/// Reads something that the hub works off by itself, and that is named `what`. A hub that
/// has trouble is asked again, once in an interval, until the deadline.
pub(super) async fn read_until<T>(
    deadline: Instant,
    interval: Duration,
    what: &str,
    read: impl AsyncFn() -> Result<T, HubError>,
) -> Result<T, HubError> {
    let mut is_told = false;
    loop {
        let began = Instant::now();
        match read().await {
            Err(error) if error.is_transient() && began < deadline => {
                if !is_told {
                    say(format_args!("iotdm-ctl: {what}: {error}; trying again"));
                    is_told = true;
                }
            }
            result => return result,
        }
        sleep_until((began + interval).min(deadline)).await;
    }
}

impl Deadline {
    /// A deadline so long from now.
    pub(super) fn new(after: Duration) -> Self {
        Deadline { at: Instant::now() + after, last: None, away_since: None }
    }

    /// Until when the look may take that begins now.
    pub(super) fn limit(&mut self) -> Instant {
        let now = Instant::now();
        if now < self.at {
            return self.at + LAST_LOOK;
        }
        *self.last.get_or_insert(now + LAST_LOOK)
    }

    /// Takes note of a look, and tells whether it was the last one.
    pub(super) fn is_over_after(&mut self, look: Look) -> bool {
        let now = Instant::now();
        if look == Look::Away {
            let since = *self.away_since.get_or_insert(now);
            if now.duration_since(since) < HUB_PATIENCE {
                self.at = self.at.max(now + GRACE);
                self.last = None;
                return false;
            }
            return true;
        }
        self.away_since = None;
        match (self.last, look) {
            (None, _) => false,
            (Some(_), Look::Read) => true,
            (Some(last), _) => now >= last,
        }
    }

    /// When to look again: at `next`, but not later than the deadline. The last
    /// look, having failed, is tried again soon.
    pub(super) fn next(&self, next: Instant) -> Instant {
        match self.last {
            Some(_) => next.min(Instant::now() + Duration::from_secs(1)),
            None => next.min(self.at),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn in_still_time(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(test);
    }

    #[test]
    fn a_look_that_the_deadline_overtook_is_not_the_last_one() {
        in_still_time(async {
            let mut deadline = Deadline::new(MINUTE);
            deadline.limit();
            // The process is stopped in the middle of a look, for an hour.
            advance(60 * MINUTE).await;
            assert!(!deadline.is_over_after(Look::Failed));
            let limit = deadline.limit();
            assert_eq!(limit, Instant::now() + LAST_LOOK, "and the last one has its time");
            assert!(!deadline.is_over_after(Look::Failed), "the connection broke meanwhile: once more");
            assert!(deadline.is_over_after(Look::Read));
        });
    }

    #[test]
    fn the_last_look_is_not_tried_for_ever() {
        in_still_time(async {
            let mut deadline = Deadline::new(Duration::ZERO);
            let limit = deadline.limit();
            advance(LAST_LOOK).await;
            assert_eq!(deadline.limit(), limit);
            assert!(deadline.is_over_after(Look::Failed));
        });
    }

    #[test]
    fn a_hub_that_was_away_costs_no_device_its_time() {
        in_still_time(async {
            let mut deadline = Deadline::new(MINUTE);
            for _ in 0..4 {
                deadline.limit();
                advance(MINUTE).await;
                assert!(!deadline.is_over_after(Look::Away));
            }
            deadline.limit();
            assert!(!deadline.is_over_after(Look::Read), "it is given time to connect again");
            advance(GRACE).await;
            deadline.limit();
            assert!(deadline.is_over_after(Look::Read));

            let mut never = Deadline::new(MINUTE);
            assert!(!never.is_over_after(Look::Away));
            advance(HUB_PATIENCE).await;
            assert!(never.is_over_after(Look::Away));
        });
    }
}
