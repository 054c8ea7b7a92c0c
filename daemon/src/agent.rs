//! The decision core: what the daemon does next, given what it is doing and
//! what happened. Pure and synchronous; [`crate::run`] carries the effects out
//! in order and feeds back what comes of them.

use std::time::Duration;

use iotdm_proto::Time;
use iotdm_proto::report::{
    self, Boot, BootCause, Clock, Reboot, RebootError, RebootErrorCode, RebootStatus, Report, RequestedBy,
};
use serde_json::{Value, json};

use crate::record::Record;
use crate::request::RebootRequest;

/// The direct methods that are answered.
pub const METHODS: [&str; 1] = ["rebootDevice"];

/// The core's state: the phase of the reboot under way and the record as it is
/// on disk, or was last tried to be written.
#[derive(Debug)]
pub struct Agent {
    phase: Phase,
    record: Record,
    settings: Settings,
}

/// How long is waited for others.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// For the hub to acknowledge the reply, and again the report.
    pub ack_timeout: Duration,
    /// For the machine to go down once it was asked to.
    pub down_timeout: Duration,
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
    /// The request is being written; `previous` is the record without it.
    Recording {
        body: Value,
        rids: Vec<String>,
        previous: Box<Record>,
    },
    /// The replies are on their way.
    Replying {
        rids: Vec<String>,
    },
    /// The twin is being told.
    Announcing,
    /// logind was asked to reboot.
    Rebooting,
}

/// What the daemon finds when it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The running kernel's boot id.
    pub boot_id: String,
    /// When it booted, by the clock of now.
    pub boot_time: Time,
    /// Whether that clock is synchronised.
    pub clock: Clock,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A direct method was called.
    Called {
        /// Identifies the call in the reply.
        rid: String,
        /// The method.
        name: String,
        /// The payload as it came.
        payload: Vec<u8>,
        /// A new UUID, for a request without an id.
        fresh_id: String,
    },
    /// Whether logind would reboot the machine for us.
    Checked(Result<(), Refusal>),
    /// Whether the record is on disk.
    Saved(Result<(), String>),
    /// The hub acknowledged the reply to this call.
    ReplyDelivered {
        /// The call.
        rid: String,
    },
    /// The hub has all that was last to be reported.
    Reported,
    /// What logind said when it was asked to reboot.
    RebootAsked(Result<(), String>),
    /// An orderly shutdown is under way, ours or another.
    ShutdownBegan,
    /// None is, or no longer.
    ShutdownCancelled,
    /// The wait asked for by the last [`Effect::Deadline`] is over.
    DeadlinePassed,
}

/// Why the machine cannot be rebooted now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No logind, or none that can reboot.
    LogindUnavailable(String),
    /// polkit does not let us.
    NotAuthorized(String),
    /// Somebody holds block inhibitors for shutdown.
    Blocked(Vec<Inhibitor>),
}

/// A holder of a logind inhibitor lock.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Inhibitor {
    /// The program, in its own words.
    pub who: String,
    /// Its reason.
    pub why: String,
    /// Its user.
    pub uid: u32,
    /// Its process.
    pub pid: u32,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Answer a call.
    Reply {
        /// The call.
        rid: String,
        /// The method's status.
        status: u16,
        /// A JSON object.
        body: Value,
    },
    /// Ask logind whether it would reboot; answered by [`Event::Checked`].
    CheckReboot,
    /// Write the record and sync it; answered by [`Event::Saved`].
    Save(Box<Record>),
    /// Make the twin's reported properties say this; answered, once and for
    /// the newest only, by [`Event::Reported`].
    Report(Box<Report>),
    /// Ask logind to reboot; answered by [`Event::RebootAsked`].
    Reboot,
    /// From now on wait this long, or for nothing any more.
    Deadline(Option<Duration>),
    /// Tell the administrator.
    Note(Note),
}

/// What an administrator wants to find in the journal.
#[derive(Debug, Clone, PartialEq)]
pub enum Note {
    /// A new boot was seen.
    Booted(Boot),
    /// A request was accepted and recorded.
    Accepted {
        /// The request.
        id: String,
        /// Why.
        reason: Option<String>,
    },
    /// A call was refused.
    Refused {
        /// The reply's status.
        status: u16,
        /// The error's code.
        code: &'static str,
        /// The sentence.
        message: String,
    },
    /// The machine is about to be asked to go down.
    Rebooting {
        /// The request.
        id: String,
    },
    /// A request ended.
    Ended(Box<Reboot>),
    /// An orderly shutdown has begun.
    ShutdownBegan,
    /// It was called off.
    ShutdownCancelled,
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
        let boot = |cause| Boot {
            boot_id: start.boot_id.clone(),
            boot_time: start.boot_time,
            cause,
            clock: start.clock,
        };
        let mut effects = Vec::new();
        let record = match record {
            None => {
                let mut record = Record::new(boot(BootCause::Unknown));
                record.damaged = damaged;
                effects.push(Effect::Save(Box::new(record.clone())));
                record
            }
            Some(record) if record.boot.boot_id == start.boot_id => record,
            Some(mut record) => {
                record.boot = boot(cause_of_boot(&record));
                record.reboot_time = Some(start.boot_time);
                record.going_down = false;
                record.damaged = None;
                effects.push(Effect::Note(Note::Booted(record.boot.clone())));
                if record.pending().is_some() {
                    conclude_after_boot(&mut record, now, &mut effects);
                }
                effects.push(Effect::Save(Box::new(record.clone())));
                record
            }
        };
        let mut agent = Agent { phase: Phase::Idle, record, settings };
        if agent.record.pending().is_some() {
            // The daemon died in this boot after it had accepted the request.
            effects.extend(agent.announce(now));
        } else {
            effects.push(agent.report());
        }
        (agent, effects)
    }

    /// One sentence about what is under way, for `systemctl status`.
    pub fn status(&self) -> String {
        match (&self.phase, self.record.pending()) {
            (Phase::Idle | Phase::Checking { .. }, None) => "no reboot pending".to_owned(),
            (Phase::Rebooting, Some(reboot)) => format!("reboot {} asked of logind", reboot.id),
            (_, Some(reboot)) => format!("reboot {} accepted", reboot.id),
            (_, None) => "reboot being recorded".to_owned(),
        }
    }

    /// Decides what follows from `event`.
    pub fn handle(&mut self, event: Event, now: Time) -> Vec<Effect> {
        match (std::mem::replace(&mut self.phase, Phase::Idle), event) {
            (phase, Event::Called { rid, name, payload, fresh_id }) => {
                self.phase = phase;
                self.called(rid, &name, &payload, fresh_id)
            }

            (Phase::Checking { id, request, rids }, Event::Checked(Ok(()))) => {
                self.checked(id, request, rids, now)
            }
            (Phase::Checking { rids, .. }, Event::Checked(Err(refusal))) => refuse_all(rids, &refusal),

            (Phase::Recording { body, rids, previous: _ }, Event::Saved(Ok(()))) => {
                let mut effects = Vec::new();
                if let Some(reboot) = self.record.pending() {
                    let (id, reason) = (reboot.id.clone(), reboot.reason.clone());
                    effects.push(Effect::Note(Note::Accepted { id, reason }));
                }
                effects.extend(rids.iter().map(|rid| reply(rid, 200, body.clone())));
                effects.push(Effect::Deadline(Some(self.settings.ack_timeout)));
                self.phase = Phase::Replying { rids };
                effects
            }
            (Phase::Recording { rids, previous, .. }, Event::Saved(Err(why))) => {
                // The new record may be on disk all the same, and would be
                // carried out at the next start: put the old one back.
                self.record = *previous;
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
                    return self.announce(now);
                }
                self.phase = Phase::Replying { rids };
                Vec::new()
            }
            (Phase::Replying { .. }, Event::DeadlinePassed) => self.announce(now),

            (Phase::Announcing, Event::Reported | Event::DeadlinePassed) => {
                self.phase = Phase::Rebooting;
                vec![Effect::Deadline(Some(self.settings.down_timeout)), Effect::Reboot]
            }

            (Phase::Rebooting, Event::RebootAsked(Ok(()))) => {
                self.phase = Phase::Rebooting;
                self.going_down(true)
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
                Event::Checked(_)
                | Event::Saved(_)
                | Event::ReplyDelivered { .. }
                | Event::Reported
                | Event::RebootAsked(_)
                | Event::DeadlinePassed,
            ) => {
                self.phase = phase;
                Vec::new()
            }
        }
    }

    fn called(&mut self, rid: String, name: &str, payload: &[u8], fresh_id: String) -> Vec<Effect> {
        if name != "rebootDevice" {
            let message = format!("this device has no method {name:?}");
            return refuse(&rid, 404, "unknownMethod", &message, json!({ "methods": METHODS }));
        }
        let request = match RebootRequest::parse(payload) {
            Ok(request) => request,
            Err(error) => return refuse(&rid, 400, "invalidPayload", &error.to_string(), json!({})),
        };
        let id = request.id.clone().unwrap_or(fresh_id);
        if let Some(body) = self.record.answer(&id) {
            return vec![reply(&rid, 200, body.clone())];
        }
        let pending = match &mut self.phase {
            Phase::Checking { id: checking, rids, .. } if *checking == id => {
                rids.push(rid);
                return Vec::new();
            }
            Phase::Checking { id: checking, .. } => Some(&*checking),
            _ => self.record.pending().map(|reboot| &reboot.id),
        };
        if let Some(pending) = pending {
            let message = format!("the reboot {pending:?} is already pending");
            return refuse(&rid, 409, "rebootPending", &message, json!({ "id": pending }));
        }
        self.phase = Phase::Checking { id, request, rids: vec![rid] };
        vec![Effect::CheckReboot]
    }

    fn checked(&mut self, id: String, request: RebootRequest, rids: Vec<String>, now: Time) -> Vec<Effect> {
        let body = |status: &str, message: &str| {
            json!({
                "id": id, "status": status, "message": message,
                "bootId": self.record.boot.boot_id, "ignored": request.ignored,
            })
        };
        if request.check {
            let body = body("checked", "the device would reboot now");
            return rids.iter().map(|rid| reply(rid, 200, body.clone())).collect();
        }
        let body = body("accepted", "the device reboots once this reply is delivered");
        let previous = Box::new(self.record.clone());
        self.record.remember(&id, body.clone());
        self.record.reboot = Some(Reboot {
            id,
            status: RebootStatus::Rebooting,
            reason: request.reason,
            requested_by: RequestedBy::Method,
            requested_at: now,
            started_at: None,
            completed_at: None,
            previous_boot_id: self.record.boot.boot_id.clone(),
            boot_id: None,
            down_seconds: None,
            error: None,
        });
        self.phase = Phase::Recording { body, rids, previous };
        vec![Effect::Save(Box::new(self.record.clone()))]
    }

    /// Tells the twin, before logind is asked.
    fn announce(&mut self, now: Time) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some(reboot) = &mut self.record.reboot {
            reboot.started_at = Some(now);
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
        let mut effects = vec![Effect::Deadline(None)];
        if let Some(reboot) = &mut self.record.reboot {
            reboot.status = RebootStatus::Failed;
            reboot.completed_at = Some(now);
            reboot.error = Some(RebootError { code, message });
            effects.push(Effect::Note(Note::Ended(Box::new(reboot.clone()))));
        }
        effects.push(Effect::Save(Box::new(self.record.clone())));
        effects.push(self.report());
        effects
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
}

/// What ended the boot that `record` was written in.
fn cause_of_boot(record: &Record) -> BootCause {
    let asked = record.pending().is_some_and(|reboot| reboot.started_at.is_some());
    match (record.going_down, asked) {
        (true, true) => BootCause::Requested,
        (true, false) => BootCause::Local,
        (false, _) => BootCause::Unclean,
    }
}

/// The machine has booted since the pending request was accepted: whatever the
/// way, it is not rebooted for it once more.
fn conclude_after_boot(record: &mut Record, now: Time, effects: &mut Vec<Effect>) {
    let boot = record.boot.clone();
    let Some(reboot) = &mut record.reboot else { return };
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

fn reply(rid: &str, status: u16, body: Value) -> Effect {
    Effect::Reply { rid: rid.to_owned(), status, body }
}

/// `{"error":{"code","message",…}}` with the keys of `details`.
fn refuse(rid: &str, status: u16, code: &'static str, message: &str, details: Value) -> Vec<Effect> {
    let mut error = json!({ "code": code, "message": message });
    if let (Some(error), Value::Object(details)) = (error.as_object_mut(), details) {
        error.extend(details);
    }
    vec![
        Effect::Note(Note::Refused { status, code, message: message.to_owned() }),
        reply(rid, status, json!({ "error": error })),
    ]
}

fn refuse_all(rids: Vec<String>, refusal: &Refusal) -> Vec<Effect> {
    let (status, code, message, details) = match refusal {
        Refusal::LogindUnavailable(why) => (503, "logindUnavailable", why.clone(), json!({})),
        Refusal::NotAuthorized(why) => (503, "notAuthorized", why.clone(), json!({})),
        Refusal::Blocked(holders) => {
            let names: Vec<&str> = holders.iter().map(|holder| holder.who.as_str()).collect();
            let message = format!("shutdown is inhibited by {}", names.join(", "));
            (423, "blockedByInhibitor", message, json!({ "inhibitors": holders }))
        }
    };
    rids.iter().flat_map(|rid| refuse(rid, status, code, &message, details.clone())).collect()
}

#[cfg(test)]
mod tests;
