//! The decision core: what the daemon does next, given how far the reboot under
//! way is and what happened.
//!
//! A phase goes in by value and comes out by value ([`Step`]): what happens in
//! a phase says which one follows, or does not compile.

mod accept;
mod health;
mod need;
mod proceed;
mod recall;
mod remember;
mod resume;
mod short;
mod wish;

use std::time::Duration;

use iotdm_proto::device_information::DeviceInformation;
use iotdm_proto::reply::{BootHistoryReply, CallError, IfItHangs, StatusReply};
use iotdm_proto::report::{self, Feature, Reboot, RebootError, RebootErrorCode, RebootStatus, Report};
use iotdm_proto::{ErrorCode, MethodName, OnInhibitor, Time};
use serde_json::Value;

use self::accept::Check;
use self::need::Told;
use self::remember::Kept;
use self::short::short;
use self::wish::Wished;
use super::effect::{Effect, Notice};
use super::event::Event;
use super::guard::Guards;
use super::health::Observed;
use super::record::{Asked, BootCounts, Record, Unheard};
use super::refusal::{Refusal, grant, refuse};
use super::request::{DesiredReboot, Request};

/// The daemon's state: how far the reboot under way is, and all else that it
/// knows.
#[derive(Debug, Clone)]
pub struct Agent {
    phase: Phase,
    core: Core,
}

/// All that the daemon knows but for the phase.
#[derive(Debug, Clone)]
struct Core {
    /// The record as it is on disk, or was last tried to be written.
    record: Record,
    settings: Settings,
    /// What was granted and is not in the record any more.
    kept: Kept,
    /// When the machine booted, by the clock of now.
    booted: Time,
    /// The last boot that is known to have ended by an orderly shutdown.
    shut_down: Option<String>,
    /// Calls that change nothing yet, and wait for what logind says: dry runs, and those
    /// for which the daemon's own request would make room.
    checks: Vec<Check>,
    /// What the twin wishes for.
    wished: Wished,
    /// The wish could not be recorded, so it waits until the disk may take it.
    wish_held: bool,
    /// What had passed, by the record's count, when the record was last to be saved.
    saved_count: u64,
    /// The administrator was told that the wish waits until it can be granted.
    wish_crowded: bool,
    /// Which need for a reboot there is, if any ([`crate::decide::need::Need::digest`]).
    need: Option<String>,
    /// Whether the hub has heard of the newest request's outcome.
    outcome: Told,
    /// Which request's outcome, before the newest request, the twin was last to tell.
    telling: Option<String>,
    /// The newest record could not be written, so that its report may be held back.
    unsaved: bool,
    /// What systemd was last heard of the machine's units.
    observed: Option<Observed>,
    /// How long after the kernel's start the hub first answered in this run.
    hub_reached_after: Option<Duration>,
    /// The daemon has been there since its first start in the running boot.
    whole_boot: bool,
    /// What the machine says of itself.
    information: Option<DeviceInformation>,
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
    /// Whether an operator may pass over preflight checks that object.
    pub allow_preflight_override: bool,
    /// How often and when the machine may be rebooted.
    pub guards: Guards,
    /// Whether the daemon itself asks for a reboot, in the next window, where the
    /// machine needs one.
    pub when_required: bool,
    /// Whether the machine's health is followed, as that of a pretended machine
    /// is not.
    pub health: bool,
}

/// How far the reboot under way is. What must survive a crash is in the
/// record; here is only what does not.
#[derive(Debug, Clone, Default)]
enum Phase {
    /// Nothing is under way: a request or a wish would be taken up.
    #[default]
    Idle,
    /// logind was asked whether it would reboot.
    Checking(Box<Ask>),
    /// A change is being written. If that fails, it is undone.
    Recording { change: Change, rids: Vec<String>, before: Box<(Phase, Record)> },
    /// The replies to the request are on their way.
    Replying { rids: Vec<String> },
    /// The request's time has still to come.
    Scheduled,
    /// The request's time has come, and logind was asked whether it would
    /// reboot. `changed` tells that its answer may be outdated when it comes;
    /// `refused` is why logind did not reboot when it was asked to; `waited_for` is
    /// what was in the way when it was asked before.
    Due { changed: bool, refused: Option<String>, waited_for: Option<Refusal> },
    /// Something is in the way, and the request waits until it is not.
    Waiting { refusal: Refusal },
    /// The twin is being told that the reboot begins.
    Announcing,
    /// The record that logind is about to be asked is being written.
    Asking,
    /// logind was asked to reboot.
    Rebooting,
}

/// How often to look what holds up a shutdown that is under way.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// What follows from an event: the phase that comes next, and what to do.
type Step = (Phase, Vec<Effect>);

/// A request before anything was promised.
#[derive(Debug, Clone)]
struct Ask {
    id: String,
    request: Request,
    /// The calls that wait for a reply.
    rids: Vec<String>,
    /// The wish that it was read from, if it was.
    wish: Option<DesiredReboot>,
}

/// What is being written, with the body of the reply that follows.
#[derive(Debug, Clone)]
enum Change {
    Accepted(Value),
    Cancelled(Value),
}

impl Agent {
    /// One sentence about what is under way, for `systemctl status`.
    pub fn status(&self) -> String {
        let Some(reboot) = self.core.record.pending() else { return "no reboot pending".to_owned() };
        match (&self.phase, reboot.status, reboot.not_before) {
            (Phase::Rebooting, ..) => format!("reboot {} asked of logind", reboot.id),
            (Phase::Announcing, ..) if self.core.needs_the_hub() => {
                format!("reboot {} waits until the hub has its report", reboot.id)
            }
            (_, RebootStatus::Scheduled, Some(at)) => format!("reboot {} scheduled for {at}", reboot.id),
            (Phase::Scheduled, RebootStatus::Waiting, Some(at)) => {
                format!("reboot {} waits until {at}", reboot.id)
            }
            (Phase::Waiting { refusal: Refusal::Objected(_) }, ..) => {
                format!("reboot {} waits for the preflight checks", reboot.id)
            }
            (Phase::Waiting { refusal: Refusal::LogindUnavailable(_) | Refusal::NotAuthorized(_) }, ..) => {
                format!("reboot {} waits for logind", reboot.id)
            }
            (_, RebootStatus::Waiting, _) => format!("reboot {} waits for an inhibitor", reboot.id),
            _ => format!("reboot {} accepted", reboot.id),
        }
    }

    /// What is known, in the form in which the twin is told it. It may say more than the
    /// twin was told: where the twin has to be read first, nothing is reported until then,
    /// and outcomes of earlier requests are reported before the newest request.
    pub fn told(&self) -> Report {
        self.core.told()
    }

    /// The boots by their cause.
    pub fn boot_counts(&self) -> BootCounts {
        self.core.record.boot_counts()
    }

    /// The running boot's id.
    pub fn boot_id(&self) -> &str {
        &self.core.record.boot.boot_id
    }

    /// The reboot that waits for its time. For one that is about to begin, or
    /// has, nothing changes: `None`.
    pub fn notice(&self) -> Option<Option<Notice>> {
        match (&self.phase, self.core.record.pending()) {
            (_, None) => Some(None),
            (Phase::Scheduled, Some(reboot)) => Some(reboot.not_before.map(|at| Notice {
                at,
                id: reboot.id.clone(),
                reason: reboot.reason.clone(),
            })),
            _ => None,
        }
    }

    /// Tells how long the machine has been up by now, from which the age of what
    /// is remembered is counted. To be called before each [`Agent::handle`].
    pub fn count(&mut self, uptime: Duration) {
        self.core.count(uptime);
    }

    /// Decides what follows from `event` at the instant `now`.
    pub fn handle(&mut self, event: Event, now: Time) -> Vec<Effect> {
        if let Some(effects) = self.core.follow_unheard(&event) {
            self.core.note_telling(&effects);
            return effects;
        }
        let tell_again = self.core.follow_outcome(&event, now);
        let (phase, mut effects) = self.core.step(std::mem::take(&mut self.phase), event, now);
        if tell_again {
            effects.push(self.core.report());
        }
        let (phase, more) = self.core.consider_wish(phase, now);
        effects.extend(more);
        let (phase, more) = self.core.consider_need(phase, now);
        // What is saved and told then is all that there is to save and to tell.
        if more.iter().any(|effect| matches!(effect, Effect::Save(_))) {
            effects.retain(|effect| !matches!(effect, Effect::Save(_) | Effect::Report(_)));
        }
        effects.extend(more);
        effects.extend(self.core.save_count(&phase, &effects));
        self.phase = phase;
        self.core.hold_back(&mut effects);
        self.core.note_telling(&effects);
        effects
    }

    /// Tells which of many machines this one is ([`crate::decide::spread::number`]), as
    /// soon as its hub and its name there are known.
    pub fn is_number(&mut self, number: u64) {
        self.core.settings.guards.turn.number = number;
    }

    /// Whether calls can be judged: the record of earlier runs is there, or the
    /// twin has told what it remembers. Until then no call should be asked for.
    pub fn remembers(&self) -> bool {
        !self.core.record.lost
    }
}

impl Core {
    /// Takes out the reports while the twin may remember what the daemon does
    /// not: a report would take back what stands there.
    fn hold_back(&self, effects: &mut Vec<Effect>) {
        if self.record.lost {
            effects.retain(|effect| !matches!(effect, Effect::Report(_)));
        }
    }

    fn step(&mut self, phase: Phase, event: Event, now: Time) -> Step {
        match (phase, event) {
            (phase, Event::Called { rid, name, payload, fresh_id }) => match name.parse() {
                Ok(MethodName::RebootDevice) => self.asked_to_reboot(phase, rid, &payload, fresh_id, now),
                Ok(MethodName::CancelReboot) => self.asked_to_cancel(phase, rid, &payload, now),
                Ok(MethodName::GetRebootStatus) => (phase, vec![Effect::Survey { rid, preflight: false }]),
                Ok(MethodName::GetBootHistory) => {
                    let history = BootHistoryReply { boots: self.record.past_boots() };
                    (phase, vec![grant(&rid, &history)])
                }
                Err(_) => {
                    let message = format!("this device has no method {name:?}");
                    let error = CallError {
                        methods: Some(methods()),
                        ..CallError::new(ErrorCode::UnknownMethod, message)
                    };
                    (phase, refuse(&rid, error))
                }
            },
            (phase, Event::Surveyed { rid, outlook, uptime, if_it_hangs }) => {
                match self.checks.iter().position(|check| check.rid == rid) {
                    Some(index) => self.checked(phase, index, outlook, if_it_hangs, now),
                    None => {
                        (phase, vec![grant(&rid, &self.survey(&outlook.permission, uptime, if_it_hangs))])
                    }
                }
            }

            (Phase::Checking(mut ask), Event::Permission(outlook)) => {
                // The twin may wish for something else by now: then the request
                // is that of the calls alone, if there are any.
                ask.wish = ask.wish.filter(|wish| self.wished.is(wish));
                if ask.wish.is_none() && ask.rids.is_empty() {
                    return (Phase::Idle, Vec::new());
                }
                self.decide(Phase::Idle, *ask, outlook, now)
            }

            (Phase::Recording { change, rids, before: _ }, Event::Saved(Ok(()))) => {
                self.recorded(change, rids, now)
            }
            (Phase::Recording { rids, before, .. }, Event::Saved(Err(why))) => {
                // The new record may be on disk all the same, and would be
                // acted upon at the next start: put the old one back.
                let (phase, record) = *before;
                self.record = record;
                self.wish_held = true;
                let message = format!("the request could not be recorded, so nothing was done: {why}");
                let error = CallError::new(ErrorCode::StorageFailed, message);
                let mut effects = vec![self.save()];
                effects.extend(rids.iter().flat_map(|rid| refuse(rid, error.clone())));
                // Its time may have come meanwhile, unheard.
                if self.gives_way(&phase) {
                    let (phase, more) = self.proceed(now);
                    effects.extend(more);
                    return (phase, effects);
                }
                (phase, effects)
            }

            (Phase::Replying { mut rids }, Event::ReplyDelivered { rid }) => {
                rids.retain(|waiting| *waiting != rid);
                match rids.is_empty() {
                    true => self.proceed(now),
                    false => (Phase::Replying { rids }, Vec::new()),
                }
            }
            (Phase::Replying { .. } | Phase::Scheduled, Event::DeadlinePassed) => self.proceed(now),

            (Phase::Waiting { refusal }, Event::InhibitorsChanged) => {
                let mut effects = Vec::new();
                if !matches!(refusal, Refusal::Blocked(_)) {
                    effects.push(self.patience(now));
                }
                effects.push(self.ask_permission());
                (Phase::Due { changed: false, refused: None, waited_for: Some(refusal) }, effects)
            }
            (Phase::Due { refused, waited_for, .. }, Event::InhibitorsChanged) => {
                (Phase::Due { changed: true, refused, waited_for }, Vec::new())
            }
            (Phase::Due { changed, refused, .. }, Event::Permission(outlook)) => {
                self.due(changed, refused, outlook, now)
            }
            (Phase::Waiting { refusal }, Event::DeadlinePassed) => self.waited(Some(refusal), now),
            (Phase::Due { waited_for, .. }, Event::DeadlinePassed) => self.waited(waited_for, now),

            // A wish, or a need, would be carried out again by a daemon whose record is
            // lost, unless the twin remembers it: it waits until the hub has taken the
            // report, however long that takes.
            (Phase::Announcing, Event::DeadlinePassed) if self.needs_the_hub() => {
                let expires = self.record.plan.as_ref().and_then(|plan| plan.deadline);
                match expires.is_some_and(|deadline| deadline <= now) {
                    true => {
                        self.not_begun();
                        self.expire(now)
                    }
                    false => (Phase::Announcing, vec![self.patience(now)]),
                }
            }
            // What was looked at before may be otherwise by now, and the window closed.
            (Phase::Announcing, Event::Reported)
                if self.needs_the_hub() && (self.announced_long_ago(now) || self.is_out_of_time(now)) =>
            {
                self.not_begun();
                let mut effects = vec![self.save()];
                let (phase, more) = self.proceed(now);
                effects.extend(more);
                (phase, effects)
            }
            (Phase::Announcing, event @ (Event::Reported | Event::DeadlinePassed)) => {
                // Before logind is asked: the machine may go down, and this
                // process end, faster than it could write that logind agreed.
                self.record.asked = Some(Asked::Asking);
                self.record.renew(true);
                let mut effects = vec![Effect::Deadline(Some(self.settings.down_timeout)), self.save()];
                if event == Event::DeadlinePassed {
                    // A daemon that has lost its record will have only the twin to know
                    // from that this was begun.
                    effects.insert(0, Effect::ReportNow(Box::new(self.told())));
                }
                (Phase::Asking, effects)
            }

            (Phase::Asking, Event::Saved(Ok(()))) => {
                let words = self.record.reboot.as_ref().and_then(|reboot| reboot.words());
                let plan = self.record.plan.as_ref();
                let ignore_inhibitors = plan.is_some_and(|plan| plan.on_inhibitor == OnInhibitor::Override);
                let effects = vec![
                    Effect::Deadline(Some(self.settings.down_timeout)),
                    Effect::Reboot { words, ignore_inhibitors },
                ];
                (Phase::Rebooting, effects)
            }
            // The record is tried again until the deadline: without it, the
            // next boot could be taken for one that the request has still to
            // cause.
            (Phase::Asking, Event::Saved(Err(_))) => (Phase::Asking, Vec::new()),
            (Phase::Asking, Event::DeadlinePassed) => {
                let message = "that it begins could not be recorded, so logind was not asked".to_owned();
                self.fail(RebootError { code: RebootErrorCode::NeverWentDown, message }, now)
            }

            (Phase::Rebooting, Event::RebootAsked(Ok(()))) => {
                self.record.asked = Some(Asked::Agreed);
                (Phase::Rebooting, vec![self.save()])
            }
            // Somebody's shutdown was faster; the machine goes down either way.
            (Phase::Rebooting, Event::RebootAsked(Err(_))) if self.record.going_down => {
                (Phase::Rebooting, Vec::new())
            }
            (Phase::Rebooting, Event::RebootAsked(Err(why))) => self.refused(why),
            (Phase::Rebooting, Event::DeadlinePassed) => (Phase::Rebooting, vec![Effect::AskShutdown]),
            (Phase::Rebooting, Event::Shutdown { under_way, stopping }) => {
                self.looked(under_way.unwrap_or(self.record.going_down), stopping, now)
            }

            (phase, Event::Desired { reboot, memory }) => {
                let step = match memory.filter(|_| self.record.lost) {
                    Some(memory) => self.recall(phase, *memory, reboot.as_ref(), now),
                    None => (phase, Vec::new()),
                };
                self.wished = reboot.map_or(Wished::Nothing, |wish| Wished::Reboot(Box::new(wish)));
                (self.wish_held, self.wish_crowded) = (false, false);
                step
            }
            (phase, Event::Kept { written }) => {
                self.kept(written);
                (phase, Vec::new())
            }
            (phase, Event::KeptIsGone) => (phase, Vec::from_iter(self.kept_is_lost())),
            (phase, Event::StorageMayWork) => {
                self.wish_held = false;
                (phase, Vec::new())
            }
            (phase, Event::ClockSet { clock, boot_time }) => self.clock_set(phase, clock, boot_time, now),
            (phase, Event::Health { observed, report }) => (phase, self.observed(observed, report, now)),
            (phase, Event::Need(need)) => (phase, self.need_changed(need, now)),
            (phase, Event::Information(information)) => (phase, self.introduced(*information)),
            (phase, Event::HubReached { uptime }) => (phase, self.hub_reached(uptime, now)),
            (phase, Event::ShutdownBegan) => {
                let mut effects = self.going_down(true, now);
                if matches!(phase, Phase::Rebooting) {
                    effects.push(Effect::Deadline(Some(LOOK_AGAIN)));
                }
                (phase, effects)
            }
            (phase, Event::ShutdownCancelled) => {
                let mut effects = self.going_down(false, now);
                if matches!(phase, Phase::Rebooting) && !effects.is_empty() {
                    effects.push(Effect::Deadline(Some(self.settings.down_timeout)));
                }
                (phase, effects)
            }

            // Too late: the phase that waited for this has passed.
            (
                phase,
                Event::Permission(_)
                | Event::Saved(_)
                | Event::ReplyDelivered { .. }
                | Event::Reported
                | Event::ReportRefused
                | Event::InhibitorsChanged
                | Event::RebootAsked(_)
                | Event::Shutdown { .. }
                | Event::DeadlinePassed,
            ) => (phase, Vec::new()),
        }
    }

    fn save(&self) -> Effect {
        Effect::Save(Box::new(self.record.clone()))
    }

    fn report(&self) -> Effect {
        Effect::Report(Box::new(match self.unheard_first() {
            Some(Unheard { reboot, last_wish }) => self.telling(Some(reboot), last_wish.as_ref()),
            None => self.told(),
        }))
    }

    /// The outcome that the twin is to tell before the newest request. None while logind
    /// is asked to reboot for that: a daemon that loses its record would do it again.
    fn unheard_first(&self) -> Option<&Unheard> {
        self.record.unheard.front().filter(|_| self.record.asked.is_none())
    }

    /// What is known, and what the twin is to say once the hub has heard of each outcome
    /// before the newest request.
    fn told(&self) -> Report {
        self.telling(self.record.reboot.as_ref(), self.record.last_wish.as_ref())
    }

    fn telling(&self, reboot: Option<&Reboot>, last_wish: Option<&String>) -> Report {
        short(Report {
            reboot_time: self.record.reboot_time,
            reboot: reboot.cloned(),
            boot: Some(self.record.boot.clone()),
            health: self.known_health().map(|known| known.told.clone()),
            reboot_required: self.told_need(),
            agent: Some(report::Agent {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                methods: methods(),
                features: self.features(),
                damaged_record: self.record.damaged.clone(),
                wish_error: self.wish_error(),
                last_wish: last_wish.cloned(),
            }),
            device_information: self.information.clone(),
        })
    }

    /// The machine has said what it is: reported if that is news.
    fn introduced(&mut self, information: DeviceInformation) -> Vec<Effect> {
        let is_news = self.information.as_ref() != Some(&information);
        self.information = Some(information);
        if is_news { vec![self.report()] } else { Vec::new() }
    }

    /// The reply to `getRebootStatus`.
    fn survey(
        &self,
        permission: &Result<(), Refusal>,
        uptime: Duration,
        if_it_hangs: IfItHangs,
    ) -> StatusReply {
        let inhibitors = match permission {
            Err(Refusal::Blocked(holders)) => holders.clone(),
            _ => Vec::new(),
        };
        StatusReply {
            reboot: self.record.reboot.clone(),
            boot: self.record.boot.clone(),
            uptime_seconds: uptime.as_secs(),
            inhibitors,
            can_reboot: permission.is_ok(),
            message: permission.as_ref().err().map(Refusal::message),
            health: self.known_health().map(|known| known.told.clone()),
            reboot_required: self.told_need(),
            if_it_hangs: Some(if_it_hangs),
        }
    }

    /// What callers may rely on beyond the methods.
    fn features(&self) -> Vec<String> {
        let features = [
            (Feature::Health, self.settings.health),
            (Feature::OnlyIfRequired, true),
            (Feature::Preflight, true),
        ];
        features.iter().filter(|(_, has)| *has).map(|(feature, _)| feature.to_string()).collect()
    }
}

/// The direct methods that the daemon has, as they are told.
fn methods() -> Vec<String> {
    MethodName::ALL.iter().map(MethodName::to_string).collect()
}

#[cfg(test)]
mod promises;
#[cfg(test)]
mod tests;
