//! Requests: checked, granted or refused, and recorded before they are
//! answered.

use iotdm_proto::reply::{CallError, CancelReply, Granted, IfItHangs, RebootReply};
use iotdm_proto::report::{Reboot, RebootStatus, RequestedBy};
use iotdm_proto::request::{CancelRequest, InvalidPayload, OnPreflight};
use iotdm_proto::{ErrorCode, OnInhibitor, RebootRequest, Time};
use serde_json::json;

use super::{Ask, Change, Core, Phase, Step};
use crate::decide::effect::{Effect, Note};
use crate::decide::outlook::{Manners, Outlook, Weighed};
use crate::decide::record::Plan;
use crate::decide::refusal::{Limit, Refusal, Sacred, grant, refuse, refuse_all};
use crate::decide::request::{DesiredReboot, Request};

/// The longest message of a reply that is remembered, in characters. Others choose
/// what stands in one: who inhibits a shutdown, and why.
const MAX_MESSAGE: usize = 250;

/// A call of `rebootDevice` that changes nothing until it is known what logind says.
#[derive(Debug, Clone)]
pub(super) struct Check {
    pub(super) rid: String,
    id: String,
    request: Request,
}

/// How a request stands once it is granted.
struct Terms {
    status: RebootStatus,
    /// When it is for, unless for now.
    not_before: Option<Time>,
    message: String,
}

impl Core {
    pub(super) fn asked_to_reboot(
        &mut self,
        mut phase: Phase,
        rid: String,
        payload: &[u8],
        fresh_id: String,
        now: Time,
    ) -> Step {
        let received = match RebootRequest::parse(payload) {
            Ok(received) => received,
            Err(error) => return (phase, invalid(&rid, &error)),
        };
        let in_time = received.request.check_time(now);
        let id = received.request.id.clone().map_or(fresh_id, String::from);
        let request = Request::called(received, now);
        match &mut phase {
            // The same call delivered twice.
            Phase::Checking(ask) if ask.rids.contains(&rid) => return (phase, Vec::new()),
            Phase::Recording { rids, .. } | Phase::Replying { rids } if rids.contains(&rid) => {
                return (phase, Vec::new());
            }
            Phase::Checking(ask) if ask.id == id && !request.check => {
                ask.rids.push(rid);
                return (phase, Vec::new());
            }
            _ => {}
        }
        if let Some(granted) = self.granted(&id).filter(|_| !request.check) {
            return (phase, vec![grant(&rid, &granted.reply(&request.ignored))]);
        }
        if let Err(error) = in_time {
            return (phase, invalid(&rid, &error));
        }
        if self.record.lost {
            return (phase, not_yet(&rid));
        }
        if let Some(error) = self.busy(&phase) {
            return (phase, refuse(&rid, error));
        }
        if let Some(forbidden) = self.forbids(&request) {
            return (phase, refuse_all(&[rid], &forbidden));
        }
        if request.check || self.gives_way(&phase) {
            // It changes nothing yet, so it is in nobody's way: if it is refused, the
            // daemon's own request goes on.
            if self.checks.iter().any(|check| check.rid == rid) {
                return (phase, Vec::new());
            }
            let preflight = request.check || request.manners.mind_preflight();
            self.checks.push(Check { rid: rid.clone(), id, request });
            return (phase, vec![Effect::Survey { rid, preflight }]);
        }
        let preflight = request.manners.mind_preflight();
        let ask = Ask { id, request, rids: vec![rid], wish: None };
        (Phase::Checking(Box::new(ask)), vec![Effect::AskPermission { preflight }])
    }

    /// Why no request can be accepted in this phase, if that is so.
    fn busy(&self, phase: &Phase) -> Option<CallError> {
        if self.record.going_down || matches!(phase, Phase::Rebooting) {
            return Some(CallError::new(ErrorCode::ShuttingDown, "the machine is going down already"));
        }
        let pending = self.pending_id(phase).filter(|_| !self.gives_way(phase))?;
        let message = format!("the reboot {pending:?} is already pending");
        Some(CallError { id: Some(pending), ..CallError::new(ErrorCode::RebootPending, message) })
    }

    /// Whether the device's own configuration says no, whatever else.
    pub(super) fn forbids(&self, request: &Request) -> Option<Refusal> {
        let Manners { on_inhibitor, on_preflight } = request.manners;
        if on_inhibitor == OnInhibitor::Override && !self.settings.allow_inhibitor_override {
            return Some(Refusal::Forbidden(Sacred::Inhibitors));
        }
        (on_preflight == OnPreflight::Override && !self.settings.allow_preflight_override)
            .then_some(Refusal::Forbidden(Sacred::Preflight))
    }

    /// The request that keeps others from being accepted.
    fn pending_id(&self, phase: &Phase) -> Option<String> {
        match phase {
            Phase::Checking(ask) => Some(ask.id.clone()),
            _ => self.record.pending().map(|reboot| reboot.id.clone()),
        }
    }

    pub(super) fn asked_to_cancel(&mut self, phase: Phase, rid: String, payload: &[u8], now: Time) -> Step {
        let wanted = match CancelRequest::parse(payload) {
            Ok(request) => request.id.map(String::from),
            Err(error) => return (phase, invalid(&rid, &error)),
        };
        if self.record.lost {
            return (phase, not_yet(&rid));
        }
        let Some(id) = self.record.pending().map(|reboot| reboot.id.clone()) else {
            let error = CallError::new(ErrorCode::NothingPending, "no reboot is pending");
            return (phase, refuse(&rid, error));
        };
        if let Some(wanted) = wanted.filter(|wanted| *wanted != id) {
            let message = format!("not {wanted:?} but {id:?} is pending");
            let error = CallError { id: Some(id), ..CallError::new(ErrorCode::NothingPending, message) };
            return (phase, refuse(&rid, error));
        }
        if matches!(phase, Phase::Asking | Phase::Rebooting) {
            let message = format!("the reboot {id:?} has begun");
            let error = CallError { id: Some(id), ..CallError::new(ErrorCode::TooLate, message) };
            return (phase, refuse(&rid, error));
        }
        let phase = self.cancel(phase, id, vec![rid], now);
        (phase, vec![self.save()])
    }

    /// Ends the pending request; to be saved, and then replied to.
    pub(super) fn cancel(&mut self, phase: Phase, id: String, rids: Vec<String>, now: Time) -> Phase {
        let before = Box::new((phase, self.record.clone()));
        self.not_begun();
        self.end(RebootStatus::Cancelled, None, now);
        let body = json!(CancelReply { id, status: Granted::Cancelled });
        Phase::Recording { change: Change::Cancelled(body), rids, before }
    }

    /// Replies to a dry run, or decides about a call that the daemon's own request was to
    /// make room for, knowing the outlook.
    pub(super) fn checked(
        &mut self,
        phase: Phase,
        index: usize,
        outlook: Outlook,
        if_it_hangs: IfItHangs,
        now: Time,
    ) -> Step {
        let Check { rid, id, request } = self.checks.swap_remove(index);
        if !request.check {
            return match (self.granted(&id), self.busy(&phase)) {
                (Some(granted), _) => (phase, vec![grant(&rid, &granted.reply(&request.ignored))]),
                (None, Some(error)) => (phase, refuse(&rid, error)),
                (None, None) => {
                    self.decide(phase, Ask { id, request, rids: vec![rid], wish: None }, outlook, now)
                }
            };
        }
        let preflight = outlook.preflight.clone();
        let reply = match self.verdict(&request, false, outlook, now) {
            Ok(terms) => self.reply(&id, &request, Granted::Checked, &terms),
            Err(Refusal::NotNeeded(why)) => self.not_needed(&id, &request, why),
            Err(refusal) => return (phase, refuse_all(&[rid], &refusal)),
        };
        let reply = RebootReply { preflight, if_it_hangs: Some(if_it_hangs), ..reply };
        (phase, vec![grant(&rid, &reply)])
    }

    /// Decides about a new request, knowing the outlook. If it is refused, the phase
    /// stays.
    pub(super) fn decide(&mut self, phase: Phase, ask: Ask, outlook: Outlook, now: Time) -> Step {
        let Ask { id, request, rids, wish } = ask;
        let terms = match self.verdict(&request, wish.is_some(), outlook, now) {
            Ok(terms) => terms,
            Err(Refusal::NotNeeded(why)) => {
                let reply = self.not_needed(&id, &request, why);
                let mut effects: Vec<Effect> = rids.iter().map(|rid| grant(rid, &reply)).collect();
                if let Some(wish) = wish {
                    effects.extend(self.wish_not_needed(wish, &id, &request, now));
                }
                return (phase, effects);
            }
            Err(refusal) => {
                let mut effects = refuse_all(&rids, &refusal);
                if let Some(wish) = wish {
                    effects.extend(self.fail_wish(wish, &id, &request, refusal.error(), now));
                }
                return (phase, effects);
            }
        };
        let granted = match terms.status {
            RebootStatus::Scheduled => Granted::Scheduled,
            _ => Granted::Accepted,
        };
        let reply = self.reply(&id, &request, granted, &terms);
        let before = Box::new((phase, self.record.clone()));
        if self.is_own() {
            self.not_begun();
            self.unmake_own();
        }
        self.remember(&reply);
        let given_up = self.give_place(&id);
        let by = if wish.is_some() { RequestedBy::Twin } else { RequestedBy::Method };
        let failed_before = self.note_failed_before();
        self.record.reboot = Some(Reboot {
            status: terms.status,
            not_before: terms.not_before,
            failed_before,
            ..self.new_reboot(&id, &request, by, now)
        });
        self.record.plan = Some(Plan {
            on_inhibitor: request.manners.on_inhibitor,
            on_preflight: request.manners.on_preflight,
            wait_seconds: request.wait.as_secs(),
            wait_until: (terms.status == RebootStatus::Waiting).then(|| now.after(request.wait)),
            delayed: request.delayed || request.not_before.is_none(),
            moved_from: (terms.not_before != request.not_before).then(|| request.not_before.unwrap_or(now)),
            only_if_required: request.only_if_required,
            deadline: request.deadline,
        });
        if let Some(DesiredReboot { raw, .. }) = wish {
            self.record.wish = Some(raw);
            self.record.last_wish = Some(id);
        }
        let mut effects = given_up;
        effects.push(self.save());
        (Phase::Recording { change: Change::Accepted(json!(reply)), rids, before }, effects)
    }

    /// What becomes of a request with this outlook. A wish that comes too often or
    /// too early is put off; a caller is told to come again.
    fn verdict(
        &self,
        request: &Request,
        is_wish: bool,
        outlook: Outlook,
        now: Time,
    ) -> Result<Terms, Refusal> {
        if let Some(refusal) = self.too_many(now).filter(|_| !is_wish) {
            return Err(refusal);
        }
        let earliest = self.earliest(request.not_before, now);
        if request.not_before.is_none_or(|at| at <= now) && earliest > now && !is_wish {
            let wait = earliest.since(now);
            return Err(Refusal::RateLimited { until: earliest, wait, limit: Limit::Reboots });
        }
        if request.only_if_required {
            self.needed()?;
        }
        let at = self.settings.guards.open(request.not_before.unwrap_or(now).max(now), earliest);
        let reboots = if request.check { "would reboot" } else { "reboots" };
        let (status, message) = if at > now {
            // Who inhibits it now matters only to a reboot now; that the machine would
            // not come back may be mended by then.
            let warning = outlook.objections().map(|objected| format!("; for now, {}", objected.message()));
            let later = Outlook { preflight: Vec::new(), ..outlook };
            match later.weigh(request.manners) {
                Weighed::Stop(refusal) if !matches!(refusal, Refusal::Blocked(_)) => return Err(refusal),
                _ => {}
            }
            let opens = match (at > earliest, self.settings.guards.turn.spread.is_zero()) {
                (false, _) => "",
                (true, true) => ", when its next window opens",
                (true, false) => ", its turn when its next window opens",
            };
            let warning = warning.unwrap_or_default();
            (RebootStatus::Scheduled, format!("the device {reboots} at {at}{opens}{warning}"))
        } else {
            match outlook.weigh(request.manners) {
                Weighed::Stop(refusal) => return Err(refusal),
                Weighed::Wait(why) => {
                    let message = format!("the device {reboots} once it may: {}", why.message());
                    (RebootStatus::Waiting, message)
                }
                Weighed::Go => {
                    let when = if request.check { "at once" } else { "once this reply is delivered" };
                    (RebootStatus::Rebooting, format!("the device {reboots} {when}"))
                }
            }
        };
        let not_before = if at > now { Some(at) } else { request.not_before };
        Ok(Terms { status, not_before, message })
    }

    /// The reply to a request that is granted.
    fn reply(&self, id: &str, request: &Request, status: Granted, terms: &Terms) -> RebootReply {
        RebootReply {
            id: id.to_owned(),
            status,
            message: terms.message.chars().take(MAX_MESSAGE).collect(),
            not_before: terms.not_before,
            boot_id: self.record.boot.boot_id.clone(),
            preflight: Vec::new(),
            if_it_hangs: None,
            ignored: request.ignored.clone(),
        }
    }

    /// A request as it is recorded when nothing has become of it yet.
    pub(super) fn new_reboot(
        &self,
        id: &str,
        request: &Request,
        requested_by: RequestedBy,
        now: Time,
    ) -> Reboot {
        Reboot {
            id: id.to_owned(),
            status: RebootStatus::Rebooting,
            reason: request.reason.clone(),
            operator: request.operator.clone(),
            requested_by,
            requested_at: now,
            not_before: request.not_before,
            started_at: None,
            completed_at: None,
            previous_boot_id: self.record.boot.boot_id.clone(),
            boot_id: None,
            down_seconds: None,
            waiting_for: Vec::new(),
            waiting_for_count: None,
            failed_before: Vec::new(),
            error: None,
        }
    }

    /// The change is on disk: now it may be replied to.
    pub(super) fn recorded(&mut self, change: Change, rids: Vec<String>, now: Time) -> Step {
        let keep = self.keep();
        let mut effects = Vec::new();
        if let Some(reboot) = &self.record.reboot {
            let reboot = Box::new(reboot.clone());
            effects.push(Effect::Note(match change {
                Change::Accepted(_) => Note::Accepted(reboot),
                Change::Cancelled(_) => Note::Ended(reboot),
            }));
        }
        let phase = match change {
            Change::Accepted(_) if rids.is_empty() => {
                let (phase, more) = self.proceed(now);
                effects.extend(more);
                phase
            }
            Change::Accepted(body) => {
                effects.extend(rids.iter().map(|rid| grant(rid, &body)));
                effects.push(Effect::Deadline(Some(self.settings.ack_timeout)));
                Phase::Replying { rids }
            }
            Change::Cancelled(body) => {
                effects.extend(rids.iter().map(|rid| grant(rid, &body)));
                effects.push(Effect::Deadline(None));
                effects.push(self.report());
                Phase::Idle
            }
        };
        // Last, so that no reply waits for it.
        effects.extend(keep);
        (phase, effects)
    }
}

/// Refuses the call `rid` for what is wrong with its payload.
fn invalid(rid: &str, error: &InvalidPayload) -> Vec<Effect> {
    refuse(rid, CallError::new(ErrorCode::InvalidPayload, error.to_string()))
}

/// Refuses the call `rid` since the daemon does not know what it did before.
fn not_yet(rid: &str) -> Vec<Effect> {
    let message = "this device has lost its record of earlier requests and has not read its twin since; ask again in a \
                   moment";
    refuse(rid, CallError::new(ErrorCode::Internal, message))
}
