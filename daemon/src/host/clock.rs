//! The system clock: when it is set, and whether it has become one to trust.
//!
//! The kernel tells at once when the clock jumps. A clock that a time daemon
//! moved so gently that it did not jump is found by asking now and then, ever
//! more seldom, and only until it is synchronised.

use std::os::fd::OwnedFd;
use std::time::Duration;

use iotdm_proto::report::Clock;
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::logind::Logind;
use super::sighting::Sighting;

/// How long after the start, and after the clock was set, to ask whether it is
/// synchronised; then twice as long, up to the longest.
const FIRST_LOOK: Duration = Duration::from_secs(60);
const LAST_LOOK: Duration = Duration::from_secs(60 * 60);

/// Tells of the clock whenever it was set, and when it is found synchronised,
/// until nobody listens.
pub async fn watch(logind: Logind, known: Clock, sightings: mpsc::Sender<Sighting>) {
    let mut jumps = match Jumps::new() {
        Ok(jumps) => jumps,
        Err(error) => {
            tracing::warn!("that the clock is set will not be noticed: {error}");
            return;
        }
    };
    let mut known = known;
    let mut look = FIRST_LOOK;
    loop {
        let set = tokio::select! {
            jumped = jumps.next() => match jumped {
                Ok(()) => true,
                Err(error) => {
                    tracing::warn!("that the clock is set is not noticed any more: {error}");
                    return;
                }
            },
            () = tokio::time::sleep(look), if known == Clock::Unsynchronized => false,
        };
        look = if set { FIRST_LOOK } else { later(look) };
        let clock = logind.clock().await;
        if (set || clock != known) && sightings.send(Sighting::Clock { clock, set }).await.is_err() {
            return;
        }
        known = clock;
    }
}

/// How long to wait after a look that came after this time and found nothing new.
fn later(look: Duration) -> Duration {
    (look * 2).min(LAST_LOOK)
}

/// A timer that never expires, but is cancelled when the clock jumps. Source:
/// timerfd_create(2), `TFD_TIMER_CANCEL_ON_SET`.
struct Jumps(AsyncFd<OwnedFd>);

impl Jumps {
    fn new() -> std::io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Realtime, flags)?;
        arm(&timer)?;
        #[expect(deprecated, reason = "what its unsafe successor wants promised, OwnedFd promises")]
        Ok(Jumps(AsyncFd::with_interest(timer, Interest::READABLE)?))
    }

    async fn next(&mut self) -> std::io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            match rustix::io::read(&self.0, &mut [0u8; 8]) {
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::CANCELED) | Ok(_) => {
                    arm(self.0.get_ref())?;
                    ready.clear_ready();
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn arm(timer: &OwnedFd) -> std::io::Result<()> {
    // Not nix's, in which the year 2038 is the last on a 32-bit machine.
    let never = Timespec { tv_sec: i64::from(i32::MAX) * 4, tv_nsec: 0 };
    let once = Itimerspec { it_interval: Timespec::default(), it_value: never };
    let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
    timerfd_settime(timer, flags, &once)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_stays_unsynchronised_is_looked_at_ever_more_seldom_down_to_once_an_hour() {
        let looks = std::iter::successors(Some(FIRST_LOOK), |look| Some(later(*look)));
        let minutes: Vec<u64> = looks.take(9).map(|look| look.as_secs() / 60).collect();
        assert_eq!(minutes, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }
}
