//! Faults that tests switch on: what the hub shall do wrong, to which device,
//! and how often. All of them are gone after a restart.
//!
//! [`FaultKind`] is the only list of faults. The command line offers its kinds,
//! JSON spells them, and the REST interface and this file match on them without a
//! wildcard, so that a new kind does not compile before it has a place in both.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::refusal::{ErrorCode, HubRefusal};
use iotdm_proto::Identity;

/// The return codes of a CONNECT that refuse it. Source: MQTT 3.1.1, 3.2.2.3.
pub const RETURN_CODES: std::ops::RangeInclusive<u8> = 1..=5;

/// Everything that can be made to go wrong. The command line calls a kind
/// `drop-link` and shows the comment on the kind as help; JSON calls it `dropLink`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "camelCase")]
pub enum FaultKind {
    /// Carry out a QoS 1 publish, but do not acknowledge it
    WithholdPuback,
    /// Carry out a twin request, but do not answer it
    WithholdTwinReply,
    /// Refuse a CONNECT
    RefuseConnect,
    /// Drop the connection now
    DropLink,
    /// Drop the connection now and take its token, and older ones, for expired
    ExpireToken,
    /// Deliver a method call late; the caller's time runs meanwhile
    DelayMethod,
    /// Deliver a method call twice
    DuplicateMethod,
    /// Answer a twin request with 429
    ThrottleDevice,
    /// Answer a service's request about the device with 429
    ThrottleService,
}

/// Something to do wrong, the next `count` times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What to do wrong.
    #[serde(rename = "fault")]
    pub kind: FaultKind,
    /// How often, at least once.
    #[serde(default = "once")]
    pub count: u32,
    /// The return code of a refused CONNECT, one of [`RETURN_CODES`]; `None` for
    /// every other kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<u8>,
    /// How late a method call is delivered, in milliseconds; `None` for every
    /// other kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    milliseconds: Option<u64>,
}

/// The faults that are still to happen.
#[derive(Debug, Default)]
pub struct Faults(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Each fault with its device; a fault without one can spoil any request.
    pending: Vec<(Option<Identity>, Fault)>,
    /// A time for each device, in seconds since the Unix epoch: the device's
    /// tokens that end no later count as expired.
    expired: HashMap<Identity, u64>,
}

/// How a method call shall reach its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// How much later the call is sent than without a fault.
    pub delay: Duration,
    /// Whether the call is sent a second time, with the same `$rid`.
    pub twice: bool,
}

impl Fault {
    /// A fault that happens `count` times, with the kind's own defaults.
    pub fn new(kind: FaultKind, count: u32) -> Self {
        Fault { kind, count, code: None, milliseconds: None }.completed()
    }

    /// Reads `{"fault","count"?,"code"?,"milliseconds"?}`. The last two are only
    /// minded for the kind that they mean something for.
    pub fn parse(body: &Value) -> Result<Self, HubRefusal> {
        let invalid = |why: String| ErrorCode::ArgumentInvalid.because(why);
        let fault = Fault::deserialize(body).map_err(|error| invalid(error.to_string()))?.completed();
        if fault.code.is_some_and(|code| !RETURN_CODES.contains(&code)) {
            let (least, most) = (RETURN_CODES.start(), RETURN_CODES.end());
            return Err(invalid(format!("code ranges from {least} to {most}")));
        }
        if fault.count == 0 {
            return Err(invalid("count is at least 1".into()));
        }
        Ok(fault)
    }

    /// The fault with the options of its kind, and none of other kinds.
    fn completed(self) -> Self {
        let (code, milliseconds) = match self.kind {
            // 5, not authorised, is what the hub itself refuses with.
            FaultKind::RefuseConnect => (Some(self.code.unwrap_or(5)), None),
            FaultKind::DelayMethod => (None, Some(self.milliseconds.unwrap_or(1000))),
            FaultKind::WithholdPuback
            | FaultKind::WithholdTwinReply
            | FaultKind::DropLink
            | FaultKind::ExpireToken
            | FaultKind::DuplicateMethod
            | FaultKind::ThrottleDevice
            | FaultKind::ThrottleService => (None, None),
        };
        Fault { code, milliseconds, ..self }
    }
}

impl Faults {
    /// Adds a fault of a device, or without one of whatever comes first.
    pub fn add(&self, device: Option<Identity>, fault: Fault) {
        self.lock().pending.push((device, fault));
    }

    /// Makes tokens of `device` count as expired that end at `expiry`, in seconds
    /// since the Unix epoch, or before.
    pub fn expire(&self, device: Identity, expiry: u64) {
        self.lock().expired.insert(device, expiry);
    }

    /// All faults that are still to happen, each with its device if it has one.
    pub fn list(&self) -> Vec<(Option<Identity>, Fault)> {
        self.lock().pending.clone()
    }

    /// Forgets the faults of `device`, or without one all faults.
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

    /// Whether to do `kind` wrong to `device` now; if so, once less later.
    pub fn happens(&self, device: &Identity, kind: FaultKind) -> bool {
        self.take(Some(device), kind).is_some()
    }

    /// Whether to refuse a service's request, which is about `device` if it is
    /// about one; if so, once less later.
    pub fn throttles(&self, device: Option<&Identity>) -> bool {
        self.take(device, FaultKind::ThrottleService).is_some()
    }

    /// The return code to refuse a CONNECT of `device` with, if any; if so, once
    /// less later.
    pub fn refused(&self, device: &Identity) -> Option<u8> {
        self.take(Some(device), FaultKind::RefuseConnect)?.code
    }

    /// How to deliver a method call to `device`; each fault that has a part in
    /// it happens once less later.
    pub fn delivery(&self, device: &Identity) -> Delivery {
        let delay = self.take(Some(device), FaultKind::DelayMethod).and_then(|fault| fault.milliseconds);
        let twice = self.happens(device, FaultKind::DuplicateMethod);
        Delivery { delay: Duration::from_millis(delay.unwrap_or_default()), twice }
    }

    /// Whether a token of `device` that ends at `expiry`, in seconds since the
    /// Unix epoch, counts as expired.
    pub fn is_expired(&self, device: &Identity, expiry: u64) -> bool {
        self.lock().expired.get(device).is_some_and(|expired| expiry <= *expired)
    }

    /// The next fault of this kind that `device` has, or that anything has; it
    /// happens once less later.
    fn take(&self, device: Option<&Identity>, kind: FaultKind) -> Option<Fault> {
        let mut inner = self.lock();
        let fits = |id: &Option<Identity>| id.is_none() || id.as_ref() == device;
        let (_, fault) = inner.pending.iter_mut().find(|(id, fault)| fault.kind == kind && fits(id))?;
        let taken = *fault;
        fault.count = fault.count.saturating_sub(1);
        inner.pending.retain(|(_, fault)| fault.count > 0);
        Some(taken)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often a fault happens when nobody says so.
fn once() -> u32 {
    1
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: Value) -> Fault {
        Fault::parse(&body).unwrap()
    }

    fn ids() -> (Identity, Identity) {
        ("a".parse().unwrap(), "b".parse().unwrap())
    }

    #[test]
    fn each_happens_as_often_as_asked_to_its_device_only() {
        let faults = Faults::default();
        let (a, b) = ids();
        faults.add(Some(a.clone()), Fault::new(FaultKind::WithholdPuback, 2));
        faults.add(Some(a.clone()), read(json!({"fault": "refuseConnect", "code": 3})));
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
            faults.add(Some(id.clone()), Fault::new(FaultKind::WithholdTwinReply, 1));
        }
        faults.expire(a.clone(), 100);
        faults.clear(Some(&a));
        assert!(!faults.is_expired(&a, 100));
        assert_eq!(faults.list().len(), 1);
        assert!(faults.happens(&b, FaultKind::WithholdTwinReply));
        faults.add(Some(a), Fault::new(FaultKind::WithholdTwinReply, 1));
        faults.clear(None);
        assert!(faults.list().is_empty());
    }

    #[test]
    fn a_call_can_be_late_and_twice() {
        let faults = Faults::default();
        let (a, b) = ids();
        faults.add(Some(a.clone()), read(json!({"fault": "delayMethod", "milliseconds": 7})));
        faults.add(Some(a.clone()), Fault::new(FaultKind::DuplicateMethod, 2));
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
        let fault = Fault::new(FaultKind::ThrottleService, 1);
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
    fn json_says_what_its_kind_has_options_for() {
        for (body, shown) in [
            (json!({"fault": "withholdPuback"}), json!({"fault": "withholdPuback", "count": 1})),
            (
                json!({"fault": "refuseConnect", "count": 3, "milliseconds": 9}),
                json!({"fault": "refuseConnect", "count": 3, "code": 5}),
            ),
            (
                json!({"fault": "delayMethod", "milliseconds": 50, "code": 9}),
                json!({"fault": "delayMethod", "count": 1, "milliseconds": 50}),
            ),
            (
                json!({"fault": "delayMethod"}),
                json!({"fault": "delayMethod", "count": 1, "milliseconds": 1000}),
            ),
        ] {
            assert_eq!(json!(read(body)), shown);
        }
    }

    #[test]
    fn each_kind_is_documented_and_has_one_name_in_two_spellings() {
        let readme = include_str!("../README.md");
        let (_, faults) = readme.split_once("## Faults").unwrap();
        let (faults, _) = faults.split_once("\n## ").unwrap();
        for kind in FaultKind::value_variants() {
            let option = kind.to_possible_value().unwrap().get_name().to_owned();
            assert!(faults.contains(&format!("`{option}`")), "{option} is not in the README");
            let words = |name: &str| name.replace('-', "").to_ascii_lowercase();
            let Value::String(json) = json!(kind) else { panic!("{kind:?} is no string in JSON") };
            assert_eq!(words(&option), words(&json));
        }
    }
}
