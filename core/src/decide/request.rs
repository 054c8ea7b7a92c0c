//! A request for a reboot as the daemon thinks of it, whichever way it came.

use std::time::Duration;

use iotdm_proto::request::{DEFAULT_WAIT, InvalidPayload, Received};
use iotdm_proto::{RequestId, Time, Wish};
use serde_json::Value;

use super::outlook::Manners;

/// What is asked for, by a call or by a wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    /// Why, in the operator's words.
    pub(super) reason: Option<String>,
    /// Who asks, by their own word.
    pub(super) operator: Option<String>,
    /// Not before this instant; without one, now.
    pub(super) not_before: Option<Time>,
    /// `not_before` was given as a span of time from now, so it moves along
    /// when the clock is set.
    pub(super) delayed: bool,
    /// Not after this instant. Only a wish has one.
    pub(super) deadline: Option<Time>,
    /// What to do about obstacles.
    pub(super) manners: Manners,
    /// How long is waited for an obstacle to go, if at all.
    pub(super) wait: Duration,
    /// Do nothing unless the machine needs a reboot.
    pub(super) only_if_required: bool,
    /// Only say what would happen.
    pub(super) check: bool,
    /// The call's keys that the daemon does not know.
    pub(super) ignored: Vec<String>,
}

/// `properties.desired.reboot` as it stands in the twin: read once, when it was
/// seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredReboot {
    /// The value itself, by which a changed wish is told from the same one.
    pub(super) raw: Value,
    /// Its id, also where the rest cannot be understood.
    pub(super) id: Option<RequestId>,
    /// What it asks for, or what is wrong with it.
    pub(super) wish: Result<Wish, InvalidPayload>,
}

impl Request {
    /// What a call asks for that was `received` at the instant `now`.
    pub(super) fn called(received: Received, now: Time) -> Self {
        let Received { request, ignored } = received;
        let not_before = request.not_before(now);
        Request {
            reason: request.terms.reason.clone().map(String::from),
            operator: request.terms.operator.clone().map(String::from),
            not_before,
            delayed: request.delay_seconds.is_some(),
            deadline: None,
            manners: Manners::of(&request.terms),
            wait: request.terms.wait(),
            only_if_required: request.terms.only_if_required,
            check: request.check,
            ignored,
        }
    }

    /// What a wish asks for.
    pub(super) fn wished(wish: &Wish) -> Self {
        Request {
            reason: wish.terms.reason.clone().map(String::from),
            operator: wish.terms.operator.clone().map(String::from),
            not_before: wish.not_before,
            delayed: false,
            deadline: wish.deadline,
            manners: Manners::of(&wish.terms),
            wait: wish.terms.wait(),
            only_if_required: wish.terms.only_if_required,
            check: false,
            ignored: Vec::new(),
        }
    }
}

impl Default for Request {
    fn default() -> Self {
        Request {
            reason: None,
            operator: None,
            not_before: None,
            delayed: false,
            deadline: None,
            manners: Manners::default(),
            wait: DEFAULT_WAIT,
            only_if_required: false,
            check: false,
            ignored: Vec::new(),
        }
    }
}

impl From<Value> for DesiredReboot {
    fn from(raw: Value) -> Self {
        DesiredReboot { id: Wish::id_of(&raw), wish: Wish::parse(&raw), raw }
    }
}

impl DesiredReboot {
    /// The id as the record keeps ids.
    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_ref().map(RequestId::as_str)
    }
}
