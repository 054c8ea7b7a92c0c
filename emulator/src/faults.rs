//! Faults that tests switch on: what the hub shall do wrong to a device, and
//! how often. They are gone after a restart.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::identity::Identity;

/// The faults that are still to happen.
#[derive(Debug, Default)]
pub struct Faults(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Without a device: whatever a request is about.
    pending: Vec<(Option<Identity>, Fault)>,
    /// Tokens that end no later than this, in seconds since the Unix epoch,
    /// count as expired.
    expired: HashMap<Identity, u64>,
}

/// Something to do wrong, the next `count` times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What.
    #[serde(flatten)]
    pub kind: FaultKind,
    /// How often.
    #[serde(default = "once")]
    pub count: u32,
}

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "camelCase")]
pub enum FaultKind {
    /// A QoS 1 publish takes effect but is not acknowledged.
    WithholdPuback,
    /// A twin request takes effect but is not answered.
    WithholdTwinReply,
    /// A CONNECT is answered with this return code, 1 to 5.
    RefuseConnect {
        /// The code; 5, not authorised, is what the hub itself uses.
        #[serde(default = "not_authorized")]
        code: u8,
    },
    /// A method call reaches the device so much later, although its time runs.
    DelayMethod {
        /// In milliseconds.
        #[serde(default = "a_second")]
        milliseconds: u64,
    },
    /// A method call reaches the device twice, with the same `$rid`.
    DuplicateMethod,
    /// A twin request of the device is refused with 429.
    ThrottleDevice,
    /// A service's request is refused with 429.
    ThrottleService,
}

/// How a method call shall reach its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// How much later.
    pub delay: Duration,
    /// Whether twice.
    pub twice: bool,
}

impl Faults {
    /// Adds a fault of a device, or of all requests.
    pub fn add(&self, device: Option<Identity>, fault: Fault) {
        self.lock().pending.push((device, fault));
    }

    /// Makes tokens of `device` that end at `expiry` or before count as
    /// expired.
    pub fn expire(&self, device: Identity, expiry: u64) {
        self.lock().expired.insert(device, expiry);
    }

    /// All faults that are left.
    pub fn list(&self) -> Vec<(Option<Identity>, Fault)> {
        self.lock().pending.clone()
    }

    /// Forgets the faults of `device`, or all.
    pub fn clear(&self, device: Option<&Identity>) {
        let mut inner = self.lock();
        match device {
            Some(device) => {
                inner.pending.retain(|(id, _)| id.as_ref() != Some(device));
                inner.expired.remove(device);
            }
            None => *inner = Inner::default(),
        }
    }

    /// Whether to do `kind` wrong now; uses it up once.
    pub fn happens(&self, device: &Identity, kind: FaultKind) -> bool {
        self.take(Some(device), |found| (found == kind).then_some(())).is_some()
    }

    /// Whether to refuse a service's request about `device`, if it is about
    /// one.
    pub fn throttles(&self, device: Option<&Identity>) -> bool {
        self.take(device, |found| (found == FaultKind::ThrottleService).then_some(())).is_some()
    }

    /// The code to refuse this CONNECT with, if any; uses it up once.
    pub fn refused(&self, device: &Identity) -> Option<u8> {
        self.take(Some(device), |kind| match kind {
            FaultKind::RefuseConnect { code } => Some(code),
            _ => None,
        })
    }

    /// How to deliver this method call; uses faults up once.
    pub fn delivery(&self, device: &Identity) -> Delivery {
        let delay = self.take(Some(device), |kind| match kind {
            FaultKind::DelayMethod { milliseconds } => Some(Duration::from_millis(milliseconds)),
            _ => None,
        });
        let twice = self.happens(device, FaultKind::DuplicateMethod);
        Delivery { delay: delay.unwrap_or_default(), twice }
    }

    /// Whether a token of `device` that ends at `expiry` counts as expired.
    pub fn is_expired(&self, device: &Identity, expiry: u64) -> bool {
        self.lock().expired.get(device).is_some_and(|expired| expiry <= *expired)
    }

    fn take<R>(&self, device: Option<&Identity>, matches: impl Fn(FaultKind) -> Option<R>) -> Option<R> {
        let mut inner = self.lock();
        let (fault, outcome) = inner
            .pending
            .iter_mut()
            .filter(|(id, fault)| (id.is_none() || id.as_ref() == device) && fault.count > 0)
            .find_map(|(_, fault)| matches(fault.kind).map(|outcome| (fault, outcome)))?;
        fault.count -= 1;
        inner.pending.retain(|(_, fault)| fault.count > 0);
        Some(outcome)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn once() -> u32 {
    1
}

fn not_authorized() -> u8 {
    5
}

fn a_second() -> u64 {
    1000
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ids() -> (Identity, Identity) {
        ("a".parse().unwrap(), "b".parse().unwrap())
    }

    #[test]
    fn each_happens_as_often_as_asked_to_its_device_only() {
        let faults = Faults::default();
        let (a, b) = ids();
        faults.add(Some(a.clone()), Fault { kind: FaultKind::WithholdPuback, count: 2 });
        faults.add(Some(a.clone()), Fault { kind: FaultKind::RefuseConnect { code: 3 }, count: 1 });
        assert!(!faults.happens(&b, FaultKind::WithholdPuback));
        assert!(!faults.happens(&a, FaultKind::WithholdTwinReply));
        assert!(faults.happens(&a, FaultKind::WithholdPuback));
        assert!(faults.happens(&a, FaultKind::WithholdPuback));
        assert!(!faults.happens(&a, FaultKind::WithholdPuback));
        assert_eq!((faults.refused(&a), faults.refused(&a)), (Some(3), None));
        assert!(faults.list().is_empty());
    }

    #[test]
    fn clearing_one_device_keeps_the_others() {
        let faults = Faults::default();
        let (a, b) = ids();
        for id in [&a, &b] {
            faults.add(Some(id.clone()), Fault { kind: FaultKind::WithholdTwinReply, count: 1 });
        }
        faults.expire(a.clone(), 100);
        faults.clear(Some(&a));
        assert!(!faults.is_expired(&a, 100));
        assert_eq!(faults.list().len(), 1);
        assert!(faults.happens(&b, FaultKind::WithholdTwinReply));
        faults.add(Some(a), Fault { kind: FaultKind::WithholdTwinReply, count: 1 });
        faults.clear(None);
        assert!(faults.list().is_empty());
    }

    #[test]
    fn a_call_can_be_late_and_twice() {
        let faults = Faults::default();
        let (a, b) = ids();
        faults.add(Some(a.clone()), Fault { kind: FaultKind::DelayMethod { milliseconds: 7 }, count: 1 });
        faults.add(Some(a.clone()), Fault { kind: FaultKind::DuplicateMethod, count: 2 });
        let delivery = |delay, twice| Delivery { delay: Duration::from_millis(delay), twice };
        assert_eq!(faults.delivery(&b), delivery(0, false));
        assert_eq!(faults.delivery(&a), delivery(7, true));
        assert_eq!(faults.delivery(&a), delivery(0, true));
        assert_eq!(faults.delivery(&a), delivery(0, false));
    }

    #[test]
    fn throttling_is_of_one_device_or_of_all() {
        let faults = Faults::default();
        let (a, b) = ids();
        let fault = Fault { kind: FaultKind::ThrottleService, count: 1 };
        faults.add(Some(a.clone()), fault);
        assert!(!faults.throttles(Some(&b)) && !faults.throttles(None));
        assert!(faults.throttles(Some(&a)));
        for about in [Some(&b), None] {
            faults.add(None, fault);
            assert!(faults.throttles(about));
            assert!(!faults.throttles(about));
        }
    }

    #[test]
    fn only_a_newer_token_is_not_expired() {
        let faults = Faults::default();
        let (a, b) = ids();
        faults.expire(a.clone(), 100);
        assert!(faults.is_expired(&a, 100) && !faults.is_expired(&a, 101) && !faults.is_expired(&b, 100));
    }

    #[test]
    fn read_from_json() {
        let read = |json| serde_json::from_value::<Fault>(json).unwrap();
        let fault = read(json!({"fault": "withholdPuback"}));
        assert_eq!(fault, Fault { kind: FaultKind::WithholdPuback, count: 1 });
        let fault = read(json!({"fault": "refuseConnect", "count": 3}));
        assert_eq!(fault, Fault { kind: FaultKind::RefuseConnect { code: 5 }, count: 3 });
        let fault = read(json!({"fault": "delayMethod", "milliseconds": 50}));
        assert_eq!(fault, Fault { kind: FaultKind::DelayMethod { milliseconds: 50 }, count: 1 });
    }
}
