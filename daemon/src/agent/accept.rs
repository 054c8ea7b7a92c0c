//! Requests: checked, granted or refused, and recorded before they are
//! answered.

use iotdm_proto::Time;
use iotdm_proto::report::{Reboot, RebootStatus, RequestedBy};
use serde_json::{Value, json};

use super::{Agent, Ask, Change, Phase};
use crate::answer::{refuse, refuse_all, reply};
use crate::effect::{Effect, Note};
use crate::event::Refusal;
use crate::record::Plan;
use crate::request::{self, OnInhibitor, RebootRequest};

/// A call of `rebootDevice` with `check`.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) rid: String,
    id: String,
    request: RebootRequest,
}

/// How a request that is granted stands then.
pub(super) struct Grant {
    status: RebootStatus,
    /// When it is for, unless for now.
    not_before: Option<Time>,
    message: String,
}

impl Agent {
    pub(super) fn asked_to_reboot(
        &mut self,
        rid: String,
        payload: &[u8],
        fresh_id: String,
        now: Time,
    ) -> Vec<Effect> {
        let request = match RebootRequest::parse(payload, now) {
            Ok(request) => request,
            Err(error) => return refuse(&rid, 400, "invalidPayload", &error.to_string(), json!({})),
        };
        let id = request.id.clone().unwrap_or(fresh_id);
        match &mut self.phase {
            // The same call delivered twice.
            Phase::Checking(Ask { rids, .. }) | Phase::Recording { rids, .. } | Phase::Replying { rids }
                if rids.contains(&rid) =>
            {
                return Vec::new();
            }
            Phase::Checking(ask) if ask.id == id && !request.check => {
                ask.rids.push(rid);
                return Vec::new();
            }
            _ => {}
        }
        if let Some(body) = self.record.answer(&id).filter(|_| !request.check) {
            return vec![reply(&rid, body.clone())];
        }
        if let Some(pending) = self.pending_id() {
            let message = format!("the reboot {pending:?} is already pending");
            return refuse(&rid, 409, "rebootPending", &message, json!({ "id": pending }));
        }
        if self.forbids(&request) {
            return refuse_all(&[rid], &Refusal::Forbidden);
        }
        if request.check {
            // It changes nothing, so it is in nobody's way.
            self.checks.push(Check { rid: rid.clone(), id, request });
            return vec![Effect::Survey { rid }];
        }
        self.phase = Phase::Checking(Ask { id, request, rids: vec![rid], wish: None });
        vec![Effect::AskPermission]
    }

    /// Whether the device's own configuration says no, whatever else.
    pub(super) fn forbids(&self, request: &RebootRequest) -> bool {
        request.on_inhibitor == OnInhibitor::Override && !self.settings.allow_inhibitor_override
    }

    /// The request that keeps others from being accepted.
    fn pending_id(&self) -> Option<&str> {
        match &self.phase {
            Phase::Checking(ask) => Some(&ask.id),
            _ => self.record.pending().map(|reboot| reboot.id.as_str()),
        }
    }

    pub(super) fn asked_to_cancel(&mut self, rid: String, payload: &[u8], now: Time) -> Vec<Effect> {
        let wanted = match request::parse_cancel(payload) {
            Ok(wanted) => wanted,
            Err(error) => return refuse(&rid, 400, "invalidPayload", &error.to_string(), json!({})),
        };
        let pending = self.record.pending().map(|reboot| reboot.id.clone());
        let id = match (pending, wanted) {
            (Some(pending), Some(wanted)) if pending != wanted => {
                let message = format!("not {wanted:?} but {pending:?} is pending");
                return refuse(&rid, 404, "nothingPending", &message, json!({ "id": pending }));
            }
            (Some(pending), _) => pending,
            (None, _) => return refuse(&rid, 404, "nothingPending", "no reboot is pending", json!({})),
        };
        if matches!(self.phase, Phase::Announcing | Phase::Asking | Phase::Rebooting) {
            let message = format!("the reboot {id:?} has begun");
            return refuse(&rid, 409, "tooLate", &message, json!({ "id": id }));
        }
        self.cancel(&id, vec![rid], now);
        vec![self.save()]
    }

    /// Ends the pending request; to be saved, and then answered.
    pub(super) fn cancel(&mut self, id: &str, rids: Vec<String>, now: Time) {
        let record = self.record.clone();
        self.not_begun();
        self.end(RebootStatus::Cancelled, None, now);
        let body = json!({ "id": id, "status": "cancelled" });
        let before = Box::new((std::mem::replace(&mut self.phase, Phase::Idle), record));
        self.phase = Phase::Recording { change: Change::Cancelled(body), rids, before };
    }

    /// Answers a dry run, knowing what logind thinks of it.
    pub(super) fn checked(
        &mut self,
        index: usize,
        permission: Result<(), Refusal>,
        now: Time,
    ) -> Vec<Effect> {
        let Check { rid, id, request } = self.checks.swap_remove(index);
        match self.verdict(&request, false, permission, now) {
            Ok(grant) => vec![reply(&rid, self.body(&id, &request, "checked", &grant))],
            Err(refusal) => refuse_all(&[rid], &refusal),
        }
    }

    /// Decides about a new request, knowing what logind thinks of it.
    pub(super) fn decide(&mut self, ask: Ask, permission: Result<(), Refusal>, now: Time) -> Vec<Effect> {
        let Ask { id, request, rids, wish } = ask;
        let grant = match self.verdict(&request, wish.is_some(), permission, now) {
            Ok(grant) => grant,
            Err(refusal) => {
                let mut effects = refuse_all(&rids, &refusal);
                if let Some(wish) = wish {
                    effects.extend(self.fail_wish(wish, &id, &request, refusal.error(), now));
                }
                return effects;
            }
        };
        let word = if grant.status == RebootStatus::Scheduled { "scheduled" } else { "accepted" };
        let body = self.body(&id, &request, word, &grant);
        let before = Box::new((Phase::Idle, self.record.clone()));
        self.record.remember(&id, body.clone());
        let by = if wish.is_some() { RequestedBy::Twin } else { RequestedBy::Method };
        self.record.reboot = Some(Reboot {
            status: grant.status,
            not_before: grant.not_before,
            ..self.new_reboot(&id, &request, by, now)
        });
        self.record.plan = Some(Plan {
            on_inhibitor: request.on_inhibitor,
            wait_seconds: request.wait.as_secs(),
            wait_until: (grant.status == RebootStatus::Waiting).then(|| now.after(request.wait)),
            delayed: request.delayed || request.not_before.is_none(),
            moved_from: (grant.not_before != request.not_before).then(|| request.not_before.unwrap_or(now)),
            deadline: request.deadline,
        });
        if wish.is_some() {
            self.record.wish = wish;
        }
        self.phase = Phase::Recording { change: Change::Accepted(body), rids, before };
        vec![self.save()]
    }

    /// What becomes of a request when logind says this. A wish that comes too
    /// often or too early is put off; a caller is told to come again.
    fn verdict(
        &self,
        request: &RebootRequest,
        is_wish: bool,
        permission: Result<(), Refusal>,
        now: Time,
    ) -> Result<Grant, Refusal> {
        let earliest = self.earliest(request.not_before, now);
        if request.not_before.is_none_or(|at| at <= now) && earliest > now && !is_wish {
            return Err(Refusal::RateLimited { until: earliest, wait: earliest.since(now) });
        }
        let at = self.settings.guards.open(earliest);
        let blocked = match permission {
            Ok(()) => None,
            // Who inhibits it now matters only to a reboot now.
            Err(refusal @ Refusal::Blocked(_)) if at > now || request.on_inhibitor != OnInhibitor::Fail => {
                Some(refusal.message())
            }
            Err(refusal) => return Err(refusal),
        };
        let waits = blocked.filter(|_| request.on_inhibitor == OnInhibitor::Wait);
        let (status, message) = match waits {
            _ if at > earliest => {
                let message = format!("the device reboots at {at}, when its next window opens");
                (RebootStatus::Scheduled, message)
            }
            _ if at > now => (RebootStatus::Scheduled, format!("the device reboots at {at}")),
            Some(why) => (RebootStatus::Waiting, format!("the device reboots once it may: {why}")),
            None => (RebootStatus::Rebooting, "the device reboots once this reply is delivered".to_owned()),
        };
        let not_before = if at > now { Some(at) } else { request.not_before };
        Ok(Grant { status, not_before, message })
    }

    /// The body of a reply that grants a request.
    fn body(&self, id: &str, request: &RebootRequest, word: &str, grant: &Grant) -> Value {
        let mut body = json!({
            "id": id, "status": word, "message": grant.message,
            "bootId": self.record.boot.boot_id, "ignored": request.ignored,
        });
        if let (Some(at), Some(body)) = (grant.not_before, body.as_object_mut()) {
            body.insert("notBefore".to_owned(), json!(at));
        }
        body
    }

    /// A request as it is recorded when nothing has become of it yet.
    pub(super) fn new_reboot(
        &self,
        id: &str,
        request: &RebootRequest,
        requested_by: RequestedBy,
        now: Time,
    ) -> Reboot {
        Reboot {
            id: id.to_owned(),
            status: RebootStatus::Rebooting,
            reason: request.reason.clone(),
            requested_by,
            requested_at: now,
            not_before: request.not_before,
            started_at: None,
            completed_at: None,
            previous_boot_id: self.record.boot.boot_id.clone(),
            boot_id: None,
            down_seconds: None,
            error: None,
        }
    }

    /// The change is on disk: now it may be answered.
    pub(super) fn recorded(&mut self, change: Change, rids: Vec<String>, now: Time) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some(reboot) = &self.record.reboot {
            let reboot = Box::new(reboot.clone());
            effects.push(Effect::Note(match change {
                Change::Accepted(_) => Note::Accepted(reboot),
                Change::Cancelled(_) => Note::Ended(reboot),
            }));
        }
        match change {
            Change::Accepted(_) if rids.is_empty() => effects.extend(self.proceed(now)),
            Change::Accepted(body) => {
                effects.extend(rids.iter().map(|rid| reply(rid, body.clone())));
                effects.push(Effect::Deadline(Some(self.settings.ack_timeout)));
                self.phase = Phase::Replying { rids };
            }
            Change::Cancelled(body) => {
                effects.extend(rids.iter().map(|rid| reply(rid, body.clone())));
                effects.push(Effect::Deadline(None));
                effects.push(self.report());
            }
        }
        effects
    }
}
