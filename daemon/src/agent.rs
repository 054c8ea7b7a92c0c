//! The decision core: what the daemon does next, given what it is doing and
//! what happened. Pure and synchronous; [`crate::run`] carries the effects out
//! in order and feeds back what comes of them.

mod accept;
mod proceed;
mod resume;
mod wish;

use std::time::Duration;

use iotdm_proto::Time;
use iotdm_proto::report::{self, RebootError, RebootErrorCode, RebootStatus, Report};
use serde_json::{Value, json};

use self::accept::Check;
use crate::answer::{refuse, reply};
use crate::effect::{Effect, Notice};
use crate::event::{Event, Refusal};
use crate::guard::Guards;
use crate::record::{Asked, Record};
use crate::request::{OnInhibitor, RebootRequest};

/// The direct methods that are answered.
pub const METHODS: [&str; 3] = ["rebootDevice", "cancelReboot", "getRebootStatus"];

/// The core's state: the phase of the reboot under way and the record as it is
/// on disk, or was last tried to be written.
#[derive(Debug)]
pub struct Agent {
    phase: Phase,
    record: Record,
    settings: Settings,
    /// When the machine booted, by the clock of now.
    booted: Time,
    /// Dry runs that wait for what logind says.
    checks: Vec<Check>,
    /// `properties.desired.reboot`, once the twin was read.
    wished: Option<Option<Value>>,
    /// It could not be recorded; it waits until that may go better.
    wish_held: bool,
}

/// What the device's own configuration says.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long to wait for the hub to acknowledge the reply, and again the
    /// report.
    pub ack_timeout: Duration,
    /// How long the machine may take to go down once it was asked to.
    pub down_timeout: Duration,
    /// Whether an operator may pass over block inhibitors.
    pub allow_inhibitor_override: bool,
    /// How often and when the machine may be rebooted.
    pub guards: Guards,
}

/// How far the reboot under way is. What must survive a crash is in the
/// record; here is only what does not.
#[derive(Debug)]
enum Phase {
    Idle,
    /// logind was asked whether it would.
    Checking(Ask),
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
    /// Its time has not come, or not again.
    Scheduled,
    /// Its time has come, and logind was asked whether it would. `changed`
    /// tells that the answer may be outdated when it comes; `refused` is why
    /// logind did not when it was asked to.
    Due {
        changed: bool,
        refused: Option<String>,
    },
    /// Somebody inhibits it.
    Waiting,
    /// The twin is being told.
    Announcing,
    /// That logind is about to be asked is being written.
    Asking,
    /// logind was asked to reboot.
    Rebooting,
}

/// A request before anything was promised.
#[derive(Debug)]
struct Ask {
    id: String,
    request: RebootRequest,
    /// The calls that wait for an answer.
    rids: Vec<String>,
    /// The wish that it was read from, if it was.
    wish: Option<Value>,
}

/// What is being written, and answered when it is.
#[derive(Debug)]
enum Change {
    Accepted(Value),
    Cancelled(Value),
}

impl Agent {
    /// One sentence about what is under way, for `systemctl status`.
    pub fn status(&self) -> String {
        let Some(reboot) = self.record.pending() else { return "no reboot pending".to_owned() };
        match (&self.phase, reboot.status, reboot.not_before) {
            (Phase::Rebooting, ..) => format!("reboot {} asked of logind", reboot.id),
            (_, RebootStatus::Scheduled, Some(at)) => format!("reboot {} scheduled for {at}", reboot.id),
            (Phase::Scheduled, RebootStatus::Waiting, Some(at)) => {
                format!("reboot {} waits until {at}", reboot.id)
            }
            (_, RebootStatus::Waiting, _) => format!("reboot {} waits for an inhibitor", reboot.id),
            _ => format!("reboot {} accepted", reboot.id),
        }
    }

    /// The reboot that waits for its time. For one that is about to begin, or
    /// has, nothing changes: `None`.
    pub fn notice(&self) -> Option<Option<Notice>> {
        match (&self.phase, self.record.pending()) {
            (_, None) => Some(None),
            (Phase::Scheduled, Some(reboot)) => Some(reboot.not_before.map(|at| Notice {
                at,
                id: reboot.id.clone(),
                reason: reboot.reason.clone(),
            })),
            _ => None,
        }
    }

    /// Decides what follows from `event`.
    pub fn handle(&mut self, event: Event, now: Time) -> Vec<Effect> {
        let mut effects = self.step(event, now);
        effects.extend(self.consider_wish(now));
        effects
    }

    fn step(&mut self, event: Event, now: Time) -> Vec<Effect> {
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
                    Some(index) => self.checked(index, permission, now),
                    None => vec![reply(&rid, self.survey(&permission, uptime))],
                }
            }

            // Not wished for any more, in the meantime.
            (Phase::Checking(Ask { wish: Some(wish), rids, .. }), Event::Permission(_))
                if rids.is_empty() && self.wished.as_ref() != Some(&Some(wish.clone())) =>
            {
                Vec::new()
            }
            (Phase::Checking(mut ask), Event::Permission(permission)) => {
                // Then it is the callers' alone.
                ask.wish = ask.wish.filter(|wish| self.wished.as_ref() == Some(&Some(wish.clone())));
                self.decide(ask, permission, now)
            }

            (Phase::Recording { change, rids, before: _ }, Event::Saved(Ok(()))) => {
                self.recorded(change, rids, now)
            }
            (Phase::Recording { rids, before, .. }, Event::Saved(Err(why))) => {
                // The new record may be on disk all the same, and would be
                // acted upon at the next start: put the old one back.
                (self.phase, self.record) = *before;
                self.wish_held = true;
                let message = format!("the request could not be recorded, so nothing was done: {why}");
                let mut effects = vec![self.save()];
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
                self.phase = Phase::Due { changed: false, refused: None };
                vec![Effect::AskPermission]
            }
            (Phase::Due { refused, .. }, Event::InhibitorsChanged) => {
                self.phase = Phase::Due { changed: true, refused };
                Vec::new()
            }
            (Phase::Due { changed, refused }, Event::Permission(permission)) => {
                self.due(changed, refused, permission, now)
            }
            (Phase::Waiting | Phase::Due { .. }, Event::DeadlinePassed) => {
                let expires = self.record.plan.as_ref().and_then(|plan| plan.deadline);
                if expires.is_some_and(|deadline| deadline <= now) {
                    return self.expire(now);
                }
                let message = "the inhibitor was not released in time".to_owned();
                self.fail(RebootError { code: RebootErrorCode::BlockedByInhibitor, message }, now)
            }

            (Phase::Announcing, Event::Reported | Event::DeadlinePassed) => {
                self.phase = Phase::Asking;
                // Before it is asked: the machine may go down, and this
                // process end, faster than it could write that it has agreed.
                self.record.asked = Some(Asked::Asking);
                vec![Effect::Deadline(Some(self.settings.down_timeout)), self.save()]
            }

            (Phase::Asking, Event::Saved(Ok(()))) => {
                self.phase = Phase::Rebooting;
                let reason = self.record.reboot.as_ref().and_then(|reboot| reboot.reason.clone());
                let plan = self.record.plan.as_ref();
                let ignore_inhibitors = plan.is_some_and(|plan| plan.on_inhibitor == OnInhibitor::Override);
                vec![
                    Effect::Deadline(Some(self.settings.down_timeout)),
                    Effect::Reboot { reason, ignore_inhibitors },
                ]
            }
            // It is tried again; without it, the next boot could be taken for
            // one that this request has still to cause.
            (Phase::Asking, Event::Saved(Err(_))) => {
                self.phase = Phase::Asking;
                Vec::new()
            }
            (Phase::Asking, Event::DeadlinePassed) => {
                let message = "that it begins could not be recorded, so logind was not asked".to_owned();
                self.fail(RebootError { code: RebootErrorCode::NeverWentDown, message }, now)
            }

            (Phase::Rebooting, Event::RebootAsked(Ok(()))) => {
                self.phase = Phase::Rebooting;
                self.record.asked = Some(Asked::Agreed);
                vec![self.save()]
            }
            // Somebody's shutdown was faster; the machine goes down either way.
            (Phase::Rebooting, Event::RebootAsked(Err(_))) if self.record.going_down => {
                self.phase = Phase::Rebooting;
                Vec::new()
            }
            (Phase::Rebooting, Event::RebootAsked(Err(why))) => self.refused(why),
            (Phase::Rebooting, Event::DeadlinePassed) => {
                let waited = self.settings.down_timeout.as_secs();
                let message = format!("the machine was still up {waited} s after it was asked to reboot");
                self.record.going_down = false;
                self.fail(RebootError { code: RebootErrorCode::NeverWentDown, message }, now)
            }

            (phase, Event::Desired { reboot, reported }) => {
                self.phase = phase;
                self.wished(reboot, reported.as_ref());
                Vec::new()
            }
            (phase, Event::StorageMayWork) => {
                self.phase = phase;
                self.wish_held = false;
                Vec::new()
            }
            (phase, Event::ClockSet { clock, boot_time }) => {
                self.phase = phase;
                self.clock_set(clock, boot_time, now)
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

    fn save(&self) -> Effect {
        Effect::Save(Box::new(self.record.clone()))
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
                wish_error: self.wish_error(),
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

#[cfg(test)]
mod promises;
#[cfg(test)]
mod tests;
