//! Throttling: how much of each kind of operation a hub of some tier carries out
//! in a time. Without a tier nothing is throttled.
//!
//! Each kind of operation may use up its allowance of one period at once and
//! regains the allowance evenly. The real hub delays what exceeds an allowance
//! before it refuses; here it is refused at once. Source: "IoT Hub quotas and
//! throttling".

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::refusal::{ErrorCode, HubRefusal};

/// The tier of a hub, of one unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum Tier {
    /// Free
    F1,
    /// Standard, small
    S1,
    /// Standard, medium
    S2,
    /// Standard, large
    S3,
}

/// A kind of operation with an allowance of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Reading and changing identities, configurations and jobs.
    Registry,
    /// A query.
    Query,
    /// A call of a direct method.
    Method,
    /// Reading a twin, by a service or by the device.
    TwinRead,
    /// Changing a twin, by a service or by the device.
    TwinUpdate,
    /// A new connection of a device.
    Connection,
    /// What a job does to one device.
    JobDevice,
}

/// How much of each kind of operation is still allowed.
#[derive(Debug)]
pub struct Throttle {
    tier: Option<Tier>,
    buckets: Mutex<HashMap<Operation, Bucket>>,
}

/// What is left of an allowance.
#[derive(Debug)]
struct Bucket {
    /// How many operations may be carried out at once.
    left: f64,
    /// When `left` was last brought up to date.
    filled: Instant,
}

impl Throttle {
    /// The throttle of a tier; without one it refuses nothing.
    pub fn new(tier: Option<Tier>) -> Self {
        Throttle { tier, buckets: Mutex::default() }
    }

    /// Counts an operation, or refuses it with 429 when the allowance is used up.
    pub fn take(&self, operation: Operation) -> Result<(), HubRefusal> {
        self.take_at(operation, Instant::now()).map_err(|wait| {
            let why = format!("{operation:?} is throttled; try again in {:.1} s", wait.as_secs_f64());
            ErrorCode::ThrottlingException.because(why)
        })
    }

    /// How long an operation has to wait; it is counted when that is zero.
    pub fn wait(&self, operation: Operation) -> Duration {
        self.take_at(operation, Instant::now()).err().unwrap_or_default()
    }

    /// How many scheduled jobs may run at the same time.
    pub fn concurrent_jobs(&self) -> usize {
        match self.tier {
            None => usize::MAX,
            Some(Tier::F1 | Tier::S1) => 1,
            Some(Tier::S2) => 5,
            Some(Tier::S3) => 10,
        }
    }

    /// Counts an operation at the time `now`; the error is how long to wait.
    fn take_at(&self, operation: Operation, now: Instant) -> Result<(), Duration> {
        let Some(tier) = self.tier else { return Ok(()) };
        let (allowance, period) = operation.allowance(tier);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(operation).or_insert(Bucket { left: allowance, filled: now });
        let rate = allowance / period.as_secs_f64();
        let regained = now.saturating_duration_since(bucket.filled).as_secs_f64() * rate;
        (bucket.left, bucket.filled) = ((bucket.left + regained).min(allowance), now);
        if bucket.left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.left) / rate));
        }
        bucket.left -= 1.0;
        Ok(())
    }
}

impl Operation {
    /// How many of these operations one unit of `tier` allows in which time.
    fn allowance(self, tier: Tier) -> (f64, Duration) {
        let small = matches!(tier, Tier::F1 | Tier::S1);
        let per = |s1, s2, s3| match tier {
            _ if small => s1,
            Tier::S2 => s2,
            _ => s3,
        };
        let (minute, second) = (Duration::from_secs(60), Duration::from_secs(1));
        match self {
            Operation::Registry => (per(100.0, 100.0, 5000.0), minute),
            Operation::Query => (per(20.0, 20.0, 1000.0), minute),
            // Documented as 160, 480 and 24,576 KB per second, of which each
            // call uses up at least 4 KB.
            Operation::Method => (per(40.0, 120.0, 6144.0), second),
            Operation::TwinRead => (per(100.0, 100.0, 500.0), second),
            Operation::TwinUpdate => (per(50.0, 50.0, 250.0), second),
            Operation::Connection => (per(100.0, 120.0, 6000.0), second),
            Operation::JobDevice => (per(10.0, 10.0, 50.0), second),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_is_used_up_and_regained() {
        let throttle = Throttle::new(Some(Tier::S1));
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        for _ in 0..20 {
            throttle.take_at(Operation::Query, start).unwrap();
        }
        let wait = throttle.take_at(Operation::Query, start).unwrap_err();
        assert_eq!(wait.as_millis(), 3000, "20 in a minute");
        throttle.take_at(Operation::TwinRead, start).unwrap();
        let wait = throttle.take_at(Operation::Query, at(2900)).unwrap_err();
        assert!((99..=101).contains(&wait.as_millis()), "{wait:?}");
        throttle.take_at(Operation::Query, at(3100)).unwrap();
        assert!(throttle.take_at(Operation::Query, at(3200)).is_err());
    }

    /// The numbers of "IoT Hub quotas and throttling" for one unit.
    #[test]
    fn each_tier_has_its_documented_numbers() {
        for (operation, f1, s1, s2, s3, seconds) in [
            (Operation::Registry, 100, 100, 100, 5000, 60),
            (Operation::Query, 20, 20, 20, 1000, 60),
            (Operation::Method, 40, 40, 120, 6144, 1),
            (Operation::TwinRead, 100, 100, 100, 500, 1),
            (Operation::TwinUpdate, 50, 50, 50, 250, 1),
            (Operation::Connection, 100, 100, 120, 6000, 1),
            (Operation::JobDevice, 10, 10, 10, 50, 1),
        ] {
            for (tier, allowed) in [(Tier::F1, f1), (Tier::S1, s1), (Tier::S2, s2), (Tier::S3, s3)] {
                let throttle = Throttle::new(Some(tier));
                let now = Instant::now();
                let at_once = (0..).take_while(|_| throttle.take_at(operation, now).is_ok()).count();
                assert_eq!(at_once, allowed, "{operation:?} of {tier:?}");
                // Not more after a long time, either, and half of it after half of the time.
                let half = now + Duration::from_secs(3600) + Duration::from_millis(seconds * 500);
                let again = (0..)
                    .take_while(|_| throttle.take_at(operation, now + Duration::from_secs(3600)).is_ok());
                assert_eq!(again.count(), allowed, "{operation:?} of {tier:?}");
                let regained = (0..).take_while(|_| throttle.take_at(operation, half).is_ok()).count();
                assert_eq!(regained, allowed / 2, "{operation:?} of {tier:?}");
            }
        }
        let jobs = [
            (None, usize::MAX),
            (Some(Tier::F1), 1),
            (Some(Tier::S1), 1),
            (Some(Tier::S2), 5),
            (Some(Tier::S3), 10),
        ];
        for (tier, concurrent) in jobs {
            assert_eq!(Throttle::new(tier).concurrent_jobs(), concurrent, "{tier:?}");
        }
    }

    #[test]
    fn what_has_to_wait_is_told_for_how_long_and_counted_only_then() {
        let throttle = Throttle::new(Some(Tier::S1));
        assert_eq!(throttle.wait(Operation::Query), Duration::ZERO);
        let waits: Vec<Duration> = (0..25).map(|_| throttle.wait(Operation::Query)).collect();
        assert_eq!(waits.iter().filter(|wait| wait.is_zero()).count(), 19, "{waits:?}");
        let longest = waits.iter().max().unwrap();
        assert!((2..=3).contains(&longest.as_secs()), "20 in a minute: {longest:?}");
        assert_eq!(Throttle::new(None).wait(Operation::Query), Duration::ZERO);
    }

    #[test]
    fn without_a_tier_nothing_is_refused() {
        let throttle = Throttle::new(None);
        for _ in 0..10_000 {
            throttle.take(Operation::Query).unwrap();
        }
    }

    #[test]
    fn what_is_refused_says_when_to_come_back() {
        let throttle = Throttle::new(Some(Tier::F1));
        let refused = (0..1000).find_map(|_| throttle.take(Operation::Query).err()).unwrap();
        assert_eq!(refused.code, ErrorCode::ThrottlingException);
        assert!(refused.message.contains("Query") && refused.message.contains(" s"), "{refused}");
    }
}
