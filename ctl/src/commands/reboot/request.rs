//! What is asked of every device of a run: one request with one id.

use std::time::{Duration, SystemTime};

use iotdm_proto::report::Feature;
use iotdm_proto::request::{Operator, Terms};
use iotdm_proto::{RebootRequest, RequestId, Time, Wish};
use nix::unistd::{Uid, User, gethostname};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::cli::RequestArgs;
use crate::twin::with_wish;

/// The request of a run, as it is sent and as the journal keeps it. Unlike any
/// [`RebootRequest`], it always has an id, by which its outcome is found.
///
/// Each device sees the id once, so that one id serves all devices of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RebootRequest", into = "RebootRequest")]
pub(super) struct RunRequest {
    id: RequestId,
    /// What is sent, the id included.
    request: RebootRequest,
}

/// A journal's request has no id.
#[derive(Debug, thiserror::Error)]
#[error("the request has no id")]
pub(super) struct WithoutId;

/// Which way a request goes to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Way {
    /// By the direct method, to a device that is online.
    Method,
    /// By the twin's desired properties, as a wish that waits for the device.
    Twin {
        /// When the wish lapses.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline: Option<Time>,
    },
}

impl RunRequest {
    /// What the command line asks for; with `check` a dry run of it. Without an
    /// id on the command line, the id is a new UUID.
    pub(super) fn new(args: RequestArgs, check: bool) -> anyhow::Result<Self> {
        let RequestArgs {
            reason,
            operator,
            id,
            delay,
            at,
            on_inhibitor,
            on_preflight,
            wait_seconds,
            if_required: only_if_required,
            check: _,
            when_online: _,
            deadline: _,
        } = args;
        let operator = operator.or_else(operator_here);
        let id = match id {
            Some(id) => id,
            None => new_id()?,
        };
        let request = RebootRequest {
            id: Some(id.clone()),
            delay_seconds: delay.map(|delay| delay.as_secs()),
            at,
            check,
            terms: Terms { reason, operator, on_inhibitor, on_preflight, wait_seconds, only_if_required },
        };
        Ok(RunRequest { id, request })
    }

    /// The same request under another id.
    pub(super) fn with_id(&self, id: RequestId) -> Self {
        RunRequest { request: RebootRequest { id: Some(id.clone()), ..self.request.clone() }, id }
    }

    /// A key of the request that restrains the reboot and that a daemon with these
    /// features does not know. Such a daemon would reboot all the same.
    pub(super) fn restraint_not_among(&self, features: &[String]) -> Option<&'static str> {
        let has = |feature: Feature| features.iter().any(|known| known == feature.as_str());
        self.restraints().into_iter().find(|(feature, _)| !has(*feature)).map(|(_, key)| key)
    }

    /// The keys of the request that restrain the reboot, each with the feature of
    /// daemons that know it.
    pub(super) fn restraints(&self) -> Vec<(Feature, &'static str)> {
        let Terms { on_preflight, only_if_required, .. } = &self.request.terms;
        let restraints = [
            (on_preflight.is_some(), Feature::Preflight, "onPreflight"),
            (*only_if_required, Feature::OnlyIfRequired, "onlyIfRequired"),
        ];
        restraints.into_iter().filter(|(given, ..)| *given).map(|(_, feature, key)| (feature, key)).collect()
    }

    /// Whether only a machine that needs a reboot is to be rebooted.
    pub(super) fn is_only_if_required(&self) -> bool {
        self.request.terms.only_if_required
    }

    /// The id of the request.
    pub(super) fn id(&self) -> &RequestId {
        &self.id
    }

    /// Whether the devices are only to say what would happen.
    pub(super) fn is_dry_run(&self) -> bool {
        self.request.check
    }

    /// The payload of `rebootDevice`.
    pub(super) fn payload(&self) -> Value {
        json!(self.request)
    }

    /// The twin patch that wishes for the reboot, until `deadline`.
    pub(super) fn wish(&self, deadline: Option<Time>) -> Value {
        with_wish(&self.as_wish(deadline))
    }

    /// The wish for the reboot, until `deadline`, where there is no earlier one to be
    /// taken back.
    pub(super) fn whole_wish(&self, deadline: Option<Time>) -> Value {
        json!(self.as_wish(deadline))
    }

    fn as_wish(&self, deadline: Option<Time>) -> Wish {
        let not_before = self.request.not_before(Time::from(SystemTime::now()));
        Wish { id: self.id.clone(), not_before, deadline, terms: self.request.terms.clone() }
    }

    /// How long it is until the reboot may begin.
    pub(super) fn until_due(&self) -> Duration {
        let now = Time::from(SystemTime::now());
        self.request.not_before(now).map(|time| time.since(now)).unwrap_or_default()
    }
}

/// An id that no request has had.
pub(super) fn new_id() -> anyhow::Result<RequestId> {
    Ok(Uuid::new_v4().to_string().parse()?)
}

/// Who runs this program, and where: `user@host`, as far as both are known and may
/// stand in a request.
fn operator_here() -> Option<Operator> {
    let user = User::from_uid(Uid::current()).ok().flatten().map(|user| user.name);
    let host = gethostname().ok().and_then(|host| host.into_string().ok());
    match (user, host) {
        (Some(user), Some(host)) => format!("{user}@{host}").parse().or_else(|_| user.parse()).ok(),
        (Some(only), None) | (None, Some(only)) => only.parse().ok(),
        (None, None) => None,
    }
}

impl TryFrom<RebootRequest> for RunRequest {
    type Error = WithoutId;

    fn try_from(request: RebootRequest) -> Result<Self, WithoutId> {
        let id = request.id.clone().ok_or(WithoutId)?;
        Ok(RunRequest { id, request })
    }
}

impl From<RunRequest> for RebootRequest {
    fn from(run: RunRequest) -> Self {
        run.request
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    /// The request that `iotdm-ctl reboot` with these options is about.
    fn request(options: &[&str]) -> RunRequest {
        let line = [&["iotdm-ctl", "reboot", "gw1"], options].concat();
        let Command::Reboot(args) = Cli::try_parse_from(line).unwrap().command else { unreachable!() };
        RunRequest::new(args.request, false).unwrap()
    }

    #[test]
    fn every_key_of_a_request_can_be_given() {
        let obstacles =
            ["--on-inhibitor", "wait", "--on-preflight", "wait", "--wait-seconds", "60", "--if-required"];
        let options = [&["--id", "r-1", "--reason", "why"][..], &obstacles].concat();
        let later = request(&[&options[..], &["--delay", "1h"]].concat());
        let then = request(&[&options[..], &["--at", "2026-11-30T02:00:00Z"]].concat());
        let check = RebootRequest { check: true, ..RebootRequest::from(then.clone()) };
        let mut keys: Vec<String> = [later.payload(), then.payload(), json!(check)]
            .iter()
            .flat_map(|payload| payload.as_object().unwrap().keys().cloned())
            .collect();
        keys.sort_unstable();
        keys.dedup();
        let mut all = RebootRequest::KEYS.to_vec();
        all.sort_unstable();
        assert_eq!(keys, all);

        let wish = later.wish(Some("2026-12-01T00:00:00Z".parse().unwrap()));
        let wish = wish.pointer("/properties/desired/reboot").unwrap().as_object().unwrap();
        assert!(
            Wish::KEYS.iter().all(|key| wish.get(*key).is_some_and(|value| !value.is_null())),
            "{wish:?}"
        );
        assert_eq!(wish.len(), Wish::KEYS.len());
    }

    #[test]
    fn a_restraint_is_only_for_those_who_know_it() {
        let restrained = request(&["--on-preflight", "wait", "--if-required"]);
        let missing = |features: &[&str]| {
            let features: Vec<String> = features.iter().map(ToString::to_string).collect();
            restrained.restraint_not_among(&features)
        };
        assert_eq!(missing(&["preflight", "onlyIfRequired"]), None);
        assert_eq!(missing(&["preflight"]), Some("onlyIfRequired"));
        assert_eq!(missing(&["onlyIfRequired"]), Some("onPreflight"));
        assert_eq!(request(&[]).restraint_not_among(&[]), None);
    }

    #[test]
    fn the_journals_form_is_the_daemons() {
        let asked = request(&["--id", "r-1"]);
        let operator = asked.request.terms.operator.clone().unwrap();
        assert!(operator.as_str().contains('@'), "{operator}");
        let form = json!({"id": "r-1", "operator": operator});
        assert_eq!(json!(asked), form);
        assert_eq!(serde_json::from_value::<RunRequest>(form).unwrap(), asked);
        let other = asked.with_id("r-2".parse().unwrap());
        assert_eq!((other.id().as_str(), other.payload()["id"].as_str()), ("r-2", Some("r-2")));
        let error = serde_json::from_value::<RunRequest>(json!({})).unwrap_err().to_string();
        assert!(error.contains("has no id"), "{error}");
        assert_eq!(request(&[]).id().as_str().len(), 36, "a UUID");
    }
}
