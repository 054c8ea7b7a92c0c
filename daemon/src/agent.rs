//! The decision core: what the daemon does next, given what it is doing and
//! what happened. Pure and synchronous; [`crate::run`] carries the effects out
//! in order and feeds back what comes of them.

use std::time::Duration;

use iotdm_proto::Time;
use iotdm_proto::report::{
    self, Boot, BootCause, Reboot, RebootError, RebootErrorCode, RebootStatus, Report, RequestedBy,
};
use serde_json::{Value, json};

use crate::answer::{refuse, refuse_all, reply};
use crate::effect::{Effect, Note};
use crate::event::{Event, Refusal, Start};
use crate::record::{Asked, Plan, Record};
use crate::request::{self, OnInhibitor, RebootRequest};

/// The direct methods that are answered.
pub const METHODS: [&str; 3] = ["rebootDevice", "cancelReboot", "getRebootStatus"];

/// The core's state: the phase of the reboot under way and the record as it is
/// on disk, or was last tried to be written.
#[derive(Debug)]
pub struct Agent {
    phase: Phase,
    record: Record,
    settings: Settings,
    /// Dry runs that wait for what logind says.
    checks: Vec<Check>,
}

#[derive(Debug)]
struct Check {
    rid: String,
    id: String,
    request: RebootRequest,
}

/// What the device's own configuration says.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How long to wait for the hub to acknowledge the reply, and again the
    /// report.
    pub ack_timeout: Duration,
    /// How long the machine may take to go down once it was asked to.
    pub down_timeout: Duration,
    /// Whether an operator may pass over block inhibitors.
    pub allow_inhibitor_override: bool,
}

/// How far the reboot under way is. What must survive a crash is in the
/// record; here is only what does not.
#[derive(Debug)]
enum Phase {
    Idle,
    /// logind was asked whether it would; `rids` wait for the answer.
    Checking {
        id: String,
        request: RebootRequest,
        rids: Vec<String>,
    },
    /// A change is being written. If that fails, it is undone.
    Recording {
        change: Change,
        rids: Vec<String>,
        before: Box<(Phase, Record)>,
    },
    /// The replies to the request are on their way.
    Replying {
        rids: Vec<String>,
    },
    /// Its time has not come.
    Scheduled,
    /// Its time has come, and logind was asked whether it would. `changed`
    /// tells that the answer may be outdated when it comes.
    Due {
        changed: bool,
    },
    /// Somebody inhibits it.
    Waiting,
    /// The twin is being told.
    Announcing,
    /// logind was asked to reboot.
    Rebooting,
}

/// What is being written, and answered when it is.
#[derive(Debug)]
enum Change {
    Accepted(Value),
    Cancelled(Value),
}

impl Agent {
    /// Takes up where the `record` of the last run ends; without one this is
    /// the first start ever. `damaged` says where a damaged record was set
    /// aside.
    pub fn resume(
        record: Option<Record>,
        damaged: Option<String>,
        start: Start,
        settings: Settings,
        now: Time,
    ) -> (Self, Vec<Effect>) {
        let mut effects = Vec::new();
        let record = match record {
            None => {
                let mut record = Record::new(boot(&start, BootCause::Unknown));
                record.damaged = damaged;
                effects.push(Effect::Save(Box::new(record.clone())));
                record
            }
            Some(record) if record.boot.boot_id == start.boot_id => record,
            Some(mut record) => {
                record.boot = boot(&start, cause_of_boot(&record));
                record.reboot_time = Some(start.boot_time);
                (record.asked, record.going_down) = (None, false);
                record.damaged = None;
                effects.push(Effect::Note(Note::Booted(record.boot.clone())));
                conclude_after_boot(&mut record, now, &mut effects);
                effects.push(Effect::Save(Box::new(record.clone())));
                record
            }
        };
        let mut agent = Agent { phase: Phase::Idle, record, settings, checks: Vec::new() };
        if agent.record.pending().is_some() && agent.record.asked == Some(Asked::Agreed) {
            // Asked again, a machine whose boot id outlives its reboots (a
            // container's does) would reboot without end.
            agent.phase = Phase::Rebooting;
            effects.push(Effect::Deadline(Some(settings.down_timeout)));
            effects.push(agent.report());
        } else if agent.record.pending().is_some() {
            effects.extend(agent.proceed(now));
        } else {
            effects.push(agent.report());
        }
        (agent, effects)
    }

    /// One sentence about what is under way, for `systemctl status`.
    pub fn status(&self) -> String {
        let Some(reboot) = self.record.pending() else { return "no reboot pending".to_owned() };
        match (&self.phase, reboot.status, reboot.not_before) {
            (Phase::Rebooting, ..) => format!("reboot {} asked of logind", reboot.id),
            (_, RebootStatus::Scheduled, Some(at)) => format!("reboot {} scheduled for {at}", reboot.id),
            (_, RebootStatus::Waiting, _) => format!("reboot {} waits for an inhibitor", reboot.id),
            _ => format!("reboot {} accepted", reboot.id),
        }
    }

    /// Decides what follows from `event`.
    pub fn handle(&mut self, event: Event, now: Time) -> Vec<Effect> {
        match (std::mem::replace(&mut self.phase, Phase::Idle), event) {
            (phase, Event::Called { rid, name, payload, fresh_id }) => {
                self.phase = phase;
                match name.as_str() {
                    "rebootDevice" => self.asked_to_reboot(rid, &payload, fresh_id, now),
                    "cancelReboot" => self.asked_to_cancel(rid, &payload, now),
                    "getRebootStatus" => vec![Effect::Survey { rid }],
                    _ => {
                        let message = format!("this device has no method {name:?}");
                        refuse(&rid, 404, "unknownMethod", &message, json!({ "methods": METHODS }))
                    }
                }
            }
            (phase, Event::Surveyed { rid, permission, uptime }) => {
                self.phase = phase;
                match self.checks.iter().position(|check| check.rid == rid) {
                    Some(index) => self.checked(index, permission),
                    None => vec![reply(&rid, self.survey(&permission, uptime))],
                }
            }

            (Phase::Checking { id, request, rids }, Event::Permission(permission)) => {
                self.decide(id, request, rids, permission, now)
            }

            (Phase::Recording { change, rids, before: _ }, Event::Saved(Ok(()))) => {
                self.recorded(change, rids)
            }
            (Phase::Recording { rids, before, .. }, Event::Saved(Err(why))) => {
                // The new record may be on disk all the same, and would be
                // acted upon at the next start: put the old one back.
                (self.phase, self.record) = *before;
                let message = format!("the request could not be recorded, so nothing was done: {why}");
                let mut effects = vec![Effect::Save(Box::new(self.record.clone()))];
                effects.extend(
                    rids.iter().flat_map(|rid| refuse(rid, 500, "storageFailed", &message, json!({}))),
                );
                effects
            }

            (Phase::Replying { mut rids }, Event::ReplyDelivered { rid }) => {
                rids.retain(|waiting| *waiting != rid);
                if rids.is_empty() {
                    return self.proceed(now);
                }
                self.phase = Phase::Replying { rids };
                Vec::new()
            }
            (Phase::Replying { .. } | Phase::Scheduled, Event::DeadlinePassed) => self.proceed(now),

            (Phase::Waiting, Event::InhibitorsChanged) => {
                self.phase = Phase::Due { changed: false };
                vec![Effect::AskPermission]
            }
            (Phase::Due { .. }, Event::InhibitorsChanged) => {
                self.phase = Phase::Due { changed: true };
                Vec::new()
            }
            (Phase::Due { changed }, Event::Permission(permission)) => self.due(changed, permission, now),
            (Phase::Waiting | Phase::Due { .. }, Event::DeadlinePassed) => {
                let message = "the inhibitor was not released in time".to_owned();
                self.fail(RebootErrorCode::BlockedByInhibitor, message, now)
            }

            (Phase::Announcing, Event::Reported | Event::DeadlinePassed) => {
                self.phase = Phase::Rebooting;
                let reason = self.record.reboot.as_ref().and_then(|reboot| reboot.reason.clone());
                let plan = self.record.plan.as_ref();
                let ignore_inhibitors = plan.is_some_and(|plan| plan.on_inhibitor == OnInhibitor::Override);
                // Before it is asked: the machine may go down, and this
                // process end, faster than it could write that it has agreed.
                self.record.asked = Some(Asked::Asking);
                vec![
                    Effect::Save(Box::new(self.record.clone())),
                    Effect::Deadline(Some(self.settings.down_timeout)),
                    Effect::Reboot { reason, ignore_inhibitors },
                ]
            }

            (Phase::Rebooting, Event::RebootAsked(Ok(()))) => {
                self.phase = Phase::Rebooting;
                self.record.asked = Some(Asked::Agreed);
                vec![Effect::Save(Box::new(self.record.clone()))]
            }
            // Somebody's shutdown was faster; the machine goes down either way.
            (Phase::Rebooting, Event::RebootAsked(Err(_))) if self.record.going_down => {
                self.phase = Phase::Rebooting;
                Vec::new()
            }
            (Phase::Rebooting, Event::RebootAsked(Err(why))) => {
                self.fail(RebootErrorCode::LogindRefused, format!("logind refused to reboot: {why}"), now)
            }
            (Phase::Rebooting, Event::DeadlinePassed) => {
                let waited = self.settings.down_timeout.as_secs();
                let message = format!("the machine was still up {waited} s after it was asked to reboot");
                self.record.going_down = false;
                self.fail(RebootErrorCode::NeverWentDown, message, now)
            }

            (phase, Event::ShutdownBegan) => {
                self.phase = phase;
                self.going_down(true)
            }
            (phase, Event::ShutdownCancelled) => {
                self.phase = phase;
                self.going_down(false)
            }

            // Too late, or for nobody: an answer to a phase that has passed.
            (
                phase,
                Event::Permission(_)
                | Event::Saved(_)
                | Event::ReplyDelivered { .. }
                | Event::Reported
                | Event::InhibitorsChanged
                | Event::RebootAsked(_)
                | Event::DeadlinePassed,
            ) => {
                self.phase = phase;
                Vec::new()
            }
        }
    }

    fn asked_to_reboot(&mut self, rid: String, payload: &[u8], fresh_id: String, now: Time) -> Vec<Effect> {
        let request = match RebootRequest::parse(payload, now) {
            Ok(request) => request,
            Err(error) => return refuse(&rid, 400, "invalidPayload", &error.to_string(), json!({})),
        };
        let id = request.id.clone().unwrap_or(fresh_id);
        match &mut self.phase {
            // The same call delivered twice.
            Phase::Checking { rids, .. } | Phase::Recording { rids, .. } | Phase::Replying { rids }
                if rids.contains(&rid) =>
            {
                return Vec::new();
            }
            Phase::Checking { id: checking, rids, .. } if *checking == id && !request.check => {
                rids.push(rid);
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
        if request.on_inhibitor == OnInhibitor::Override && !self.settings.allow_inhibitor_override {
            let message = "this device does not let operators override inhibitors \
                           (reboot.allow_inhibitor_override)";
            return refuse(&rid, 403, "forbidden", message, json!({}));
        }
        if request.check {
            // It changes nothing, so it is in nobody's way.
            self.checks.push(Check { rid: rid.clone(), id, request });
            return vec![Effect::Survey { rid }];
        }
        self.phase = Phase::Checking { id, request, rids: vec![rid] };
        vec![Effect::AskPermission]
    }

    /// The request that keeps others from being accepted.
    fn pending_id(&self) -> Option<&str> {
        match &self.phase {
            Phase::Checking { id, .. } => Some(id),
            _ => self.record.pending().map(|reboot| reboot.id.as_str()),
        }
    }

    fn asked_to_cancel(&mut self, rid: String, payload: &[u8], now: Time) -> Vec<Effect> {
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
        if matches!(self.phase, Phase::Announcing | Phase::Rebooting) {
            let message = format!("the reboot {id:?} has begun");
            return refuse(&rid, 409, "tooLate", &message, json!({ "id": id }));
        }
        let record = self.record.clone();
        self.end(RebootStatus::Cancelled, None, now);
        let body = json!({ "id": id, "status": "cancelled" });
        let before = Box::new((std::mem::replace(&mut self.phase, Phase::Idle), record));
        self.phase = Phase::Recording { change: Change::Cancelled(body), rids: vec![rid], before };
        vec![Effect::Save(Box::new(self.record.clone()))]
    }

    /// Answers a dry run, knowing what logind thinks of it.
    fn checked(&mut self, index: usize, permission: Result<(), Refusal>) -> Vec<Effect> {
        let Check { rid, id, request } = self.checks.swap_remove(index);
        match verdict(&request, permission) {
            Ok((_, message)) => vec![reply(&rid, self.grant(&id, &request, "checked", &message))],
            Err(refusal) => refuse_all(&[rid], &refusal),
        }
    }

    /// Decides about a new request, knowing what logind thinks of it.
    fn decide(
        &mut self,
        id: String,
        request: RebootRequest,
        rids: Vec<String>,
        permission: Result<(), Refusal>,
        now: Time,
    ) -> Vec<Effect> {
        let (status, message) = match verdict(&request, permission) {
            Ok(verdict) => verdict,
            Err(refusal) => return refuse_all(&rids, &refusal),
        };
        let word = if status == RebootStatus::Scheduled { "scheduled" } else { "accepted" };
        let body = self.grant(&id, &request, word, &message);
        let before = Box::new((Phase::Idle, self.record.clone()));
        self.record.remember(&id, body.clone());
        self.record.reboot = Some(Reboot {
            id,
            status,
            reason: request.reason,
            requested_by: RequestedBy::Method,
            requested_at: now,
            not_before: request.not_before,
            started_at: None,
            completed_at: None,
            previous_boot_id: self.record.boot.boot_id.clone(),
            boot_id: None,
            down_seconds: None,
            error: None,
        });
        self.record.plan = Some(Plan {
            on_inhibitor: request.on_inhibitor,
            wait_seconds: request.wait.as_secs(),
            wait_until: (status == RebootStatus::Waiting).then(|| now.after(request.wait)),
        });
        self.phase = Phase::Recording { change: Change::Accepted(body), rids, before };
        vec![Effect::Save(Box::new(self.record.clone()))]
    }

    /// The body of a reply that grants a request.
    fn grant(&self, id: &str, request: &RebootRequest, word: &str, message: &str) -> Value {
        let mut body = json!({
            "id": id, "status": word, "message": message,
            "bootId": self.record.boot.boot_id, "ignored": request.ignored,
        });
        if let (Some(at), Some(body)) = (request.not_before, body.as_object_mut()) {
            body.insert("notBefore".to_owned(), json!(at));
        }
        body
    }

    /// The change is on disk: now it may be answered.
    fn recorded(&mut self, change: Change, rids: Vec<String>) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some(reboot) = &self.record.reboot {
            let reboot = Box::new(reboot.clone());
            effects.push(Effect::Note(match change {
                Change::Accepted(_) => Note::Accepted(reboot),
                Change::Cancelled(_) => Note::Ended(reboot),
            }));
        }
        match change {
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

    /// Goes on with the pending request from where the record says it is.
    fn proceed(&mut self, now: Time) -> Vec<Effect> {
        let Some(reboot) = self.record.pending() else { return Vec::new() };
        match (reboot.status, reboot.not_before, reboot.started_at) {
            // Announced before a crash: nobody asks logind's opinion again.
            (_, _, Some(_)) => self.announce(now),
            (RebootStatus::Scheduled, Some(at), _) if at > now => {
                self.phase = Phase::Scheduled;
                vec![Effect::Deadline(Some(at.since(now))), self.report()]
            }
            (RebootStatus::Scheduled, ..) => {
                self.phase = Phase::Due { changed: false };
                vec![Effect::Deadline(None), Effect::AskPermission]
            }
            (RebootStatus::Waiting, ..) => {
                self.phase = Phase::Due { changed: false };
                let until = self.record.plan.as_ref().and_then(|plan| plan.wait_until);
                vec![
                    Effect::Deadline(until.map(|until| until.since(now))),
                    self.report(),
                    Effect::AskPermission,
                ]
            }
            _ => self.announce(now),
        }
    }

    /// The request's time has come, and this is what logind thinks of it.
    fn due(&mut self, changed: bool, permission: Result<(), Refusal>, now: Time) -> Vec<Effect> {
        let plan = self.record.plan.clone();
        let on_inhibitor = plan.as_ref().map_or(OnInhibitor::Fail, |plan| plan.on_inhibitor);
        match (permission, on_inhibitor) {
            (Ok(()), _) | (Err(Refusal::Blocked(_)), OnInhibitor::Override) => self.announce(now),
            (Err(Refusal::Blocked(_)), OnInhibitor::Wait) if changed => {
                self.phase = Phase::Due { changed: false };
                vec![Effect::AskPermission]
            }
            (Err(refusal @ Refusal::Blocked(_)), OnInhibitor::Wait) => self.wait(&refusal, now),
            (Err(refusal @ Refusal::Blocked(_)), OnInhibitor::Fail) => {
                self.fail(RebootErrorCode::BlockedByInhibitor, refusal.message(), now)
            }
            (Err(refusal), _) => self.fail(RebootErrorCode::LogindRefused, refusal.message(), now),
        }
    }

    /// Waits for the inhibitors' release, for the first time or again.
    fn wait(&mut self, refusal: &Refusal, now: Time) -> Vec<Effect> {
        self.phase = Phase::Waiting;
        let (Some(reboot), Some(plan)) = (&mut self.record.reboot, &mut self.record.plan) else {
            return Vec::new();
        };
        if plan.wait_until.is_some() {
            return Vec::new();
        }
        let wait = Duration::from_secs(plan.wait_seconds);
        plan.wait_until = Some(now.after(wait));
        reboot.status = RebootStatus::Waiting;
        let note = Note::Waiting { id: reboot.id.clone(), message: refusal.message() };
        vec![
            Effect::Note(note),
            Effect::Save(Box::new(self.record.clone())),
            Effect::Deadline(Some(wait)),
            self.report(),
        ]
    }

    /// Tells the twin, before logind is asked.
    fn announce(&mut self, now: Time) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some(reboot) = &mut self.record.reboot {
            reboot.status = RebootStatus::Rebooting;
            reboot.started_at = Some(now);
            reboot.previous_boot_id.clone_from(&self.record.boot.boot_id);
            effects.push(Effect::Note(Note::Rebooting { id: reboot.id.clone() }));
        }
        self.phase = Phase::Announcing;
        effects.push(Effect::Save(Box::new(self.record.clone())));
        // Before the report: a twin that says so already answers at once.
        effects.push(Effect::Deadline(Some(self.settings.ack_timeout)));
        effects.push(self.report());
        effects
    }

    /// Notes whether an orderly shutdown is under way, for judging the next
    /// boot. Events may say again what is known.
    fn going_down(&mut self, going_down: bool) -> Vec<Effect> {
        if self.record.going_down == going_down {
            return Vec::new();
        }
        self.record.going_down = going_down;
        let note = if going_down { Note::ShutdownBegan } else { Note::ShutdownCancelled };
        vec![Effect::Note(note), Effect::Save(Box::new(self.record.clone()))]
    }

    fn fail(&mut self, code: RebootErrorCode, message: String, now: Time) -> Vec<Effect> {
        self.end(RebootStatus::Failed, Some(RebootError { code, message }), now);
        let mut effects = vec![Effect::Deadline(None)];
        if let Some(reboot) = &self.record.reboot {
            effects.push(Effect::Note(Note::Ended(Box::new(reboot.clone()))));
        }
        effects.push(Effect::Save(Box::new(self.record.clone())));
        effects.push(self.report());
        effects
    }

    fn end(&mut self, status: RebootStatus, error: Option<RebootError>, now: Time) {
        if let Some(reboot) = &mut self.record.reboot {
            reboot.status = status;
            reboot.completed_at = Some(now);
            reboot.error = error;
        }
        self.record.plan = None;
        self.record.asked = None;
    }

    fn report(&self) -> Effect {
        Effect::Report(Box::new(Report {
            reboot_time: self.record.reboot_time,
            reboot: self.record.reboot.clone(),
            boot: Some(self.record.boot.clone()),
            agent: Some(report::Agent {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                methods: METHODS.map(str::to_owned).to_vec(),
                damaged_record: self.record.damaged.clone(),
            }),
        }))
    }

    /// The body of `getRebootStatus`.
    fn survey(&self, permission: &Result<(), Refusal>, uptime: Duration) -> Value {
        let inhibitors = match permission {
            Err(Refusal::Blocked(holders)) => holders.clone(),
            _ => Vec::new(),
        };
        let mut body = json!({
            "boot": self.record.boot,
            "uptimeSeconds": uptime.as_secs(),
            "inhibitors": inhibitors,
            "canReboot": permission.is_ok(),
        });
        if let Some(body) = body.as_object_mut() {
            if let Some(reboot) = &self.record.reboot {
                body.insert("reboot".to_owned(), json!(reboot));
            }
            if let Err(refusal) = permission {
                body.insert("message".to_owned(), json!(refusal.message()));
            }
        }
        body
    }
}

/// What becomes of a request when logind says this: how it stands then, and a
/// sentence about it.
fn verdict(
    request: &RebootRequest,
    permission: Result<(), Refusal>,
) -> Result<(RebootStatus, String), Refusal> {
    let blocked = match permission {
        Ok(()) => None,
        // Who inhibits it now matters only to a reboot now.
        Err(refusal @ Refusal::Blocked(_))
            if request.not_before.is_some() || request.on_inhibitor != OnInhibitor::Fail =>
        {
            Some(refusal.message())
        }
        Err(refusal) => return Err(refusal),
    };
    let waits = blocked.filter(|_| request.on_inhibitor == OnInhibitor::Wait);
    Ok(match (request.not_before, waits) {
        (Some(at), _) => (RebootStatus::Scheduled, format!("the device reboots at {at}")),
        (None, Some(why)) => (RebootStatus::Waiting, format!("the device reboots once it may: {why}")),
        (None, None) => {
            (RebootStatus::Rebooting, "the device reboots once this reply is delivered".to_owned())
        }
    })
}

fn boot(start: &Start, cause: BootCause) -> Boot {
    Boot { boot_id: start.boot_id.clone(), boot_time: start.boot_time, cause, clock: start.clock }
}

/// What ended the boot that `record` was written in.
fn cause_of_boot(record: &Record) -> BootCause {
    match (record.asked, record.going_down) {
        (Some(_), _) => BootCause::Requested,
        (None, true) => BootCause::Local,
        (None, false) => BootCause::Unclean,
    }
}

/// The machine has booted since the pending request was accepted. Unless it
/// was meant for later than that, it is not rebooted for it once more.
fn conclude_after_boot(record: &mut Record, now: Time, effects: &mut Vec<Effect>) {
    let boot = record.boot.clone();
    let Some(reboot) = record.reboot.as_mut().filter(|reboot| !reboot.status.is_final()) else { return };
    if reboot.started_at.is_none() && reboot.not_before.is_some_and(|at| at > boot.boot_time) {
        return;
    }
    record.plan = None;
    reboot.completed_at = Some(now);
    reboot.boot_id = Some(boot.boot_id);
    if boot.cause == BootCause::Unclean {
        reboot.status = RebootStatus::Failed;
        reboot.error = Some(RebootError {
            code: RebootErrorCode::UncleanBoot,
            message: "the machine booted anew without an orderly shutdown".to_owned(),
        });
    } else {
        reboot.status = RebootStatus::Completed;
        // A clock that was set in between can make this nonsense.
        let down = reboot.started_at.map(|started| boot.boot_time.seconds_since(started));
        reboot.down_seconds = down.filter(|seconds| *seconds >= 0.0);
    }
    effects.push(Effect::Note(Note::Ended(Box::new(reboot.clone()))));
}

#[cfg(test)]
mod promises;
#[cfg(test)]
mod tests;
