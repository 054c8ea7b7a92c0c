//! Faults that tests switch on: what the hub shall do wrong to a device, and
//! how often. They are gone after a restart.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::identity::Identity;

/// The faults that are still to happen.
#[derive(Debug, Default)]
pub struct Faults(Mutex<Vec<(Identity, Fault)>>);

/// Something to do wrong, the next `count` times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What.
    #[serde(flatten)]
    pub kind: Kind,
    /// How often.
    #[serde(default = "once")]
    pub count: u32,
}

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "camelCase")]
pub enum Kind {
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
}

impl Faults {
    /// Adds a fault.
    pub fn add(&self, device: Identity, fault: Fault) {
        self.lock().push((device, fault));
    }

    /// All faults that are left.
    pub fn list(&self) -> Vec<(Identity, Fault)> {
        self.lock().clone()
    }

    /// Forgets the faults of `device`, or all.
    pub fn clear(&self, device: Option<&Identity>) {
        self.lock().retain(|(id, _)| device.is_some_and(|device| device != id));
    }

    /// Whether to do `kind` wrong now; uses it up once.
    pub fn happens(&self, device: &Identity, kind: Kind) -> bool {
        self.take(device, |found| (found == kind).then_some(())).is_some()
    }

    /// The code to refuse this CONNECT with, if any; uses it up once.
    pub fn refused(&self, device: &Identity) -> Option<u8> {
        self.take(device, |kind| match kind {
            Kind::RefuseConnect { code } => Some(code),
            _ => None,
        })
    }

    fn take<R>(&self, device: &Identity, matches: impl Fn(Kind) -> Option<R>) -> Option<R> {
        let mut faults = self.lock();
        let (fault, outcome) = faults
            .iter_mut()
            .filter(|(id, fault)| id == device && fault.count > 0)
            .find_map(|(_, fault)| matches(fault.kind).map(|outcome| (fault, outcome)))?;
        fault.count -= 1;
        faults.retain(|(_, fault)| fault.count > 0);
        Some(outcome)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Identity, Fault)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn once() -> u32 {
    1
}

fn not_authorized() -> u8 {
    5
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_happens_as_often_as_asked_to_its_device_only() {
        let faults = Faults::default();
        let (a, b): (Identity, Identity) = ("a".parse().unwrap(), "b".parse().unwrap());
        faults.add(a.clone(), Fault { kind: Kind::WithholdPuback, count: 2 });
        faults.add(a.clone(), Fault { kind: Kind::RefuseConnect { code: 3 }, count: 1 });
        assert!(!faults.happens(&b, Kind::WithholdPuback));
        assert!(!faults.happens(&a, Kind::WithholdTwinReply));
        assert!(faults.happens(&a, Kind::WithholdPuback));
        assert!(faults.happens(&a, Kind::WithholdPuback));
        assert!(!faults.happens(&a, Kind::WithholdPuback));
        assert_eq!((faults.refused(&a), faults.refused(&a)), (Some(3), None));
        assert!(faults.list().is_empty());
    }

    #[test]
    fn clearing_one_device_keeps_the_others() {
        let faults = Faults::default();
        let (a, b): (Identity, Identity) = ("a".parse().unwrap(), "b".parse().unwrap());
        for id in [&a, &b] {
            faults.add(id.clone(), Fault { kind: Kind::WithholdTwinReply, count: 1 });
        }
        faults.clear(Some(&a));
        assert_eq!(faults.list().len(), 1);
        assert!(faults.happens(&b, Kind::WithholdTwinReply));
        faults.add(a, Fault { kind: Kind::WithholdTwinReply, count: 1 });
        faults.clear(None);
        assert!(faults.list().is_empty());
    }

    #[test]
    fn read_from_json() {
        let read = |json| serde_json::from_value::<Fault>(json).unwrap();
        let fault = read(json!({"fault": "withholdPuback"}));
        assert_eq!(fault, Fault { kind: Kind::WithholdPuback, count: 1 });
        let fault = read(json!({"fault": "refuseConnect", "count": 3}));
        assert_eq!(fault, Fault { kind: Kind::RefuseConnect { code: 5 }, count: 3 });
    }
}
