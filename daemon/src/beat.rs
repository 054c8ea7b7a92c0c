//! One timer for whatever is due now and then while nothing happens: the sign of life
//! for systemd's watchdog and, at those of its beats that come before it would be late,
//! the one for the hub. So an idle machine is woken once for both.
//!
//! A timer of the kernel's, since one of tokio's wakes the program up to three times
//! before its instant, as its wheel turns to finer steps.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Beats for ever.
#[derive(Debug)]
pub struct Beat(AsyncFd<OwnedFd>);

impl Beat {
    /// Beats each `period`, for the first time after one.
    pub fn new(period: Duration) -> io::Result<Self> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let seconds = i64::try_from(period.as_secs()).unwrap_or(i64::MAX);
        let every = Timespec { tv_sec: seconds, tv_nsec: period.subsec_nanos().into() };
        let spec = Itimerspec { it_interval: every, it_value: every };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &spec)?;
        #[expect(deprecated, reason = "OwnedFd keeps the descriptor open and is never replaced")]
        Ok(Beat(AsyncFd::with_interest(timer, Interest::READABLE)?))
    }

    /// Ready at the next beat, or at once where one was missed. No beat is lost when
    /// the future is dropped.
    pub async fn next(&mut self) {
        loop {
            // Fails only at the end of the runtime, when nobody waits any more.
            let Ok(mut ready) = self.0.readable().await else { return std::future::pending().await };
            match rustix::io::read(&self.0, &mut [0u8; 8]) {
                Err(Errno::AGAIN) => ready.clear_ready(),
                _ => {
                    ready.clear_ready();
                    return;
                }
            }
        }
    }
}

/// The period of the beats where systemd is to hear of the daemon at least every
/// `watchdog`, and the hub every `keep_alive`: the longest that is enough for the one
/// and of which the other is a multiple.
pub fn period(watchdog: Duration, keep_alive: Duration) -> Duration {
    let beats = keep_alive.as_nanos().div_ceil(watchdog.as_nanos().max(1)).max(1);
    keep_alive / u32::try_from(beats).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_beats_are_enough_for_the_watchdog_and_meet_the_keep_alive() {
        let seconds = Duration::from_secs;
        for (watchdog, keep_alive, expected) in [
            (seconds(60), seconds(240), seconds(60)),
            (seconds(60), seconds(250), seconds(50)),
            (seconds(60), seconds(30), seconds(30)),
            (seconds(60), seconds(60), seconds(60)),
            (seconds(60), seconds(61), Duration::from_millis(30_500)),
            (Duration::from_millis(1500), seconds(10), Duration::from_nanos(1_428_571_428)),
        ] {
            assert_eq!(period(watchdog, keep_alive), expected, "{watchdog:?} {keep_alive:?}");
        }
    }

    #[tokio::test]
    async fn beats_come_each_period_and_a_missed_one_once() {
        let began = Instant::now();
        let mut beat = Beat::new(Duration::from_millis(200)).unwrap();
        beat.next().await;
        beat.next().await;
        assert!(began.elapsed() >= Duration::from_millis(400));
        // Two more are over before they are asked for.
        std::thread::sleep(Duration::from_millis(450));
        let late = Instant::now();
        beat.next().await;
        assert!(late.elapsed() < Duration::from_millis(150), "{:?}", late.elapsed());
        beat.next().await;
        assert!(began.elapsed() >= Duration::from_millis(1000));
    }
}
