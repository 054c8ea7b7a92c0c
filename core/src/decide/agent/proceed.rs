//! The road of a granted request to its end: its time, the guards, the
//! inhibitors, the twin, logind.

use std::time::Duration;

use iotdm_proto::report::{RebootError, RebootErrorCode, RebootStatus, RequestedBy};
use iotdm_proto::{OnInhibitor, Time};

use super::need::Told;
use super::{Core, LOOK_AGAIN, Phase, Step};
use crate::decide::effect::{Effect, Note};
use crate::decide::outlook::{Manners, Outlook, Weighed};
use crate::decide::refusal::Refusal;

/// The longest error message that is reported, in characters. Others choose what
/// stands in one: who inhibits a shutdown, and why.
const MAX_MESSAGE: usize = 250;

/// How long to wait until preflight checks that objected are run again.
const CHECK_AGAIN: Duration = Duration::from_secs(60);

/// After how long it is looked again what is in the way, if the hub was away when the
/// reboot was about to begin.
const LOOKED_LONG_AGO: Duration = Duration::from_secs(60);

/// How many of the units that hold up a shutdown are named.
const MAX_WAITING_FOR: usize = 5;

impl Core {
    /// Goes on with the pending request from where the record says it is.
    pub(super) fn proceed(&mut self, now: Time) -> Step {
        let Some(reboot) = self.record.pending() else { return (Phase::Idle, Vec::new()) };
        let expires = self.record.plan.as_ref().and_then(|plan| plan.deadline);
        match (reboot.status, reboot.not_before, reboot.started_at) {
            // Announced before a crash: whether logind would reboot is not asked
            // again.
            (_, _, Some(_)) => self.announce(now),
            _ if expires.is_some_and(|deadline| deadline <= now) => self.expire(now),
            (RebootStatus::Scheduled | RebootStatus::Waiting, Some(at), _) if at > now => {
                let until = expires.map_or(at, |deadline| deadline.min(at));
                (Phase::Scheduled, vec![Effect::Deadline(Some(until.since(now))), self.report()])
            }
            (RebootStatus::Scheduled | RebootStatus::Waiting, ..) => {
                let effects = vec![self.patience(now), self.report(), self.ask_permission()];
                (Phase::Due { changed: false, refused: None, waited_for: None }, effects)
            }
            _ => self.announce(now),
        }
    }

    /// For how long a due request may wait for what holds it up.
    pub(super) fn patience(&self, now: Time) -> Effect {
        Effect::Deadline(self.patient_until().map(|until| until.since(now)))
    }

    /// When to look again whether this is still in the way, if nobody tells.
    pub(super) fn look_again(&self, refusal: &Refusal, now: Time) -> Effect {
        let left = self.patient_until().map(|until| until.since(now));
        match refusal {
            Refusal::Blocked(_) => Effect::Deadline(left),
            _ => Effect::Deadline(Some(left.map_or(CHECK_AGAIN, |left| left.min(CHECK_AGAIN)))),
        }
    }

    /// Until when a due request may wait for what holds it up.
    pub(super) fn patient_until(&self) -> Option<Time> {
        let plan = self.record.plan.as_ref()?;
        [plan.wait_until, plan.deadline].into_iter().flatten().min()
    }

    /// What the pending request says about obstacles.
    fn manners(&self) -> Manners {
        let plan = self.record.plan.as_ref();
        plan.map_or_else(Manners::default, |plan| Manners {
            on_inhibitor: plan.on_inhibitor,
            on_preflight: plan.on_preflight,
        })
    }

    /// Asks what is in the way of the pending request.
    pub(super) fn ask_permission(&self) -> Effect {
        Effect::AskPermission { preflight: self.manners().mind_preflight() }
    }

    /// The request's time has come, and this is the outlook.
    pub(super) fn due(
        &mut self,
        changed: bool,
        refused: Option<String>,
        outlook: Outlook,
        now: Time,
    ) -> Step {
        let plan = self.record.plan.as_ref();
        if plan.is_some_and(|plan| plan.only_if_required) && self.needed().is_err() {
            return self.conclude(RebootStatus::NotNeeded, None, now);
        }
        let manners = self.manners();
        let weighed = outlook.weigh(manners);
        // Somebody's inhibitor was in the way, and was released since.
        let released = changed && manners.on_inhibitor == OnInhibitor::Wait && weighed == Weighed::Go;
        if released && refused.is_some() {
            self.not_begun();
        }
        let refused = refused.filter(|_| !released);
        let allowed = self.settings.guards.open(self.waits_since(), self.rested(now));
        let weighed = match weighed {
            // What the daemon asks for itself does not fail for what is in the way.
            Weighed::Stop(refusal) if self.is_own() => Weighed::Wait(refusal),
            weighed => weighed,
        };
        match weighed {
            _ if self.is_own() && refused.is_none() && allowed > now => self.put_off(allowed, now),
            // logind says that it would reboot, and did not when it was asked to.
            Weighed::Go if refused.is_some() => {
                let message = format!("logind refused to reboot: {}", refused.unwrap_or_default());
                self.fail(RebootError { code: RebootErrorCode::LogindRefused, message }, now)
            }
            Weighed::Go if allowed > now => self.put_off(allowed, now),
            Weighed::Go => self.announce(now),
            Weighed::Wait(refusal) if changed => {
                let phase = Phase::Due { changed: false, refused, waited_for: Some(refusal) };
                (phase, vec![self.ask_permission()])
            }
            Weighed::Wait(refusal) => {
                let mut effects = Vec::new();
                if refused.is_some() {
                    self.not_begun();
                    effects = vec![self.save(), self.patience(now), self.report()];
                }
                effects.extend(self.wait(&refusal, now));
                if !matches!(refusal, Refusal::Blocked(_)) {
                    effects.push(self.look_again(&refusal, now));
                }
                (Phase::Waiting { refusal }, effects)
            }
            Weighed::Stop(refusal) => self.fail(refusal.error(), now),
        }
    }

    /// The deadline has come of a request that waits for something, or is about to
    /// hear whether it still has to.
    pub(super) fn waited(&mut self, waited_for: Option<Refusal>, now: Time) -> Step {
        let expires = self.record.plan.as_ref().and_then(|plan| plan.deadline);
        if expires.is_some_and(|deadline| deadline <= now) {
            return self.expire(now);
        }
        let patient = self.patient_until().is_none_or(|until| until > now);
        match waited_for {
            Some(refusal) if patient && !matches!(refusal, Refusal::Blocked(_)) => {
                let phase = Phase::Due { changed: false, refused: None, waited_for: Some(refusal) };
                (phase, vec![self.patience(now), self.ask_permission()])
            }
            // The window has closed, as far as anything may begin in it.
            _ if self.is_own() => {
                let later = self.rested(now).max(now.after(Duration::from_millis(1)));
                let at = self.settings.guards.open(self.waits_since(), later);
                self.put_off(at, now)
            }
            Some(refusal @ Refusal::Objected(_)) => self.fail(refusal.error(), now),
            _ => {
                let message = "the inhibitor was not released in time".to_owned();
                self.fail(RebootError { code: RebootErrorCode::BlockedByInhibitor, message }, now)
            }
        }
    }

    /// logind did not reboot when it was asked to. Somebody may have taken an
    /// inhibitor since logind said that it would, so it is asked that again.
    pub(super) fn refused(&mut self, why: String) -> Step {
        let phase = Phase::Due { changed: false, refused: Some(why), waited_for: None };
        (phase, vec![Effect::Deadline(None), self.ask_permission()])
    }

    /// Takes back that the pending request has begun, if it has.
    pub(super) fn not_begun(&mut self) {
        self.record.asked = None;
        let Some(reboot) = &mut self.record.reboot else { return };
        reboot.status = RebootStatus::Waiting;
        if reboot.started_at.take().is_some() {
            self.record.starts.pop();
        }
    }

    /// When the pending request could have begun but for the device's own limits.
    pub(super) fn waits_since(&self) -> Time {
        let asked_for = self.record.plan.as_ref().and_then(|plan| plan.moved_from);
        let reboot = self.record.reboot.as_ref();
        let at = reboot.map(|reboot| reboot.not_before.unwrap_or(reboot.requested_at));
        asked_for.or(at).unwrap_or(self.booted)
    }

    /// From when on `max_per_hour` and `min_uptime` allow a reboot.
    fn rested(&self, now: Time) -> Time {
        self.settings.guards.rested(now, self.booted, &self.record.starts)
    }

    /// When a reboot for `asked_for` may be at the earliest, but for the
    /// windows. How often there will have been one by then is not known yet.
    pub(super) fn earliest(&self, asked_for: Option<Time>, now: Time) -> Time {
        asked_for.filter(|at| *at > now).unwrap_or_else(|| self.rested(now))
    }

    /// The device's own limits do not allow the reboot before `at`.
    fn put_off(&mut self, at: Time, now: Time) -> Step {
        let mut effects = Vec::new();
        if let (Some(reboot), Some(plan)) = (&mut self.record.reboot, &mut self.record.plan) {
            plan.moved_from.get_or_insert(reboot.not_before.unwrap_or(reboot.requested_at));
            plan.wait_until = None;
            (reboot.status, reboot.not_before) = (RebootStatus::Waiting, Some(at));
            let message = format!("its windows and limits allow it at {at}");
            effects.push(Effect::Note(Note::Waiting { id: reboot.id.clone(), message }));
        }
        effects.push(self.save());
        let (phase, more) = self.proceed(now);
        effects.extend(more);
        (phase, effects)
    }

    /// Waits for the inhibitors' release, for the first time or again.
    fn wait(&mut self, refusal: &Refusal, now: Time) -> Vec<Effect> {
        let (Some(reboot), Some(plan)) = (&mut self.record.reboot, &mut self.record.plan) else {
            return Vec::new();
        };
        if plan.wait_until.is_some() {
            return Vec::new();
        }
        plan.wait_until = Some(match reboot.requested_by {
            RequestedBy::Device => self.settings.guards.last(now).unwrap_or(now),
            RequestedBy::Method | RequestedBy::Twin => now.after(Duration::from_secs(plan.wait_seconds)),
        });
        reboot.status = RebootStatus::Waiting;
        let note = Note::Waiting { id: reboot.id.clone(), message: refusal.message() };
        vec![Effect::Note(note), self.save(), self.patience(now), self.report()]
    }

    /// Tells the twin, before logind is asked.
    fn announce(&mut self, now: Time) -> Step {
        let mut effects = Vec::new();
        let started_at = self.comparable(now);
        let boot = &self.record.boot;
        // A start is not counted twice when the daemon died after it.
        let again = self.record.reboot.as_ref().is_some_and(|reboot| reboot.started_at.is_some());
        if let Some(reboot) = &mut self.record.reboot {
            reboot.status = RebootStatus::Rebooting;
            reboot.started_at = Some(started_at);
            reboot.previous_boot_id.clone_from(&boot.boot_id);
            self.record.started_clock = Some(boot.clock);
            effects.push(Effect::Note(Note::Rebooting { id: reboot.id.clone() }));
        }
        if !again {
            self.record.started(now);
        }
        // Whoever asked for it: a need that outlives this reboot is not to cause another.
        if self.own_id().is_some() {
            self.record.asked_for.clone_from(&self.need);
        }
        // What was in the way is not any more, and the hub is waited for however long
        // it is away.
        if self.needs_the_hub()
            && let Some(plan) = &mut self.record.plan
        {
            plan.wait_until = None;
        }
        effects.push(self.save());
        // Before the report: a twin that has it already is answered at once.
        effects.push(match self.needs_the_hub() {
            true => self.patience(now),
            false => Effect::Deadline(Some(self.settings.ack_timeout)),
        });
        effects.push(self.report());
        (Phase::Announcing, effects)
    }

    /// Notes whether an orderly shutdown is under way, for judging the next
    /// boot. Events may say again what is known.
    pub(super) fn going_down(&mut self, going_down: bool, now: Time) -> Vec<Effect> {
        if self.record.going_down == going_down {
            return Vec::new();
        }
        self.record.going_down = going_down;
        let health_changed = self.judge_health(now);
        let note = if going_down { Note::ShutdownBegan } else { Note::ShutdownCancelled };
        let mut effects = vec![Effect::Note(note), self.save()];
        effects.extend(health_changed.then(|| self.report()));
        effects
    }

    /// Whether the pending request is one that stands until the hub knows that it was
    /// carried out: a wish, or a need.
    pub(super) fn needs_the_hub(&self) -> bool {
        self.record.pending().is_some_and(|reboot| match reboot.requested_by {
            RequestedBy::Twin | RequestedBy::Device => true,
            RequestedBy::Method => false,
        })
    }

    /// Whether so much time has passed since it was looked what is in the way of the
    /// pending request that it has to be looked at again.
    pub(super) fn announced_long_ago(&self, now: Time) -> bool {
        let announced = self.record.pending().and_then(|reboot| reboot.started_at);
        announced.is_some_and(|at| self.comparable(now).since(at) > LOOKED_LONG_AGO)
    }

    /// It was looked, after logind was asked to reboot, whether the machine is
    /// going down, and which units systemd is still `stopping`.
    pub(super) fn looked(&mut self, under_way: bool, mut stopping: Vec<String>, now: Time) -> Step {
        let was_under_way = self.record.going_down;
        let mut effects = self.going_down(under_way, now);
        if !under_way && !was_under_way {
            let waited = self.settings.down_timeout.as_secs();
            let message = format!(
                "the machine was still up, and not going down, {waited} s after it was asked to reboot; or its boot \
                 id does not change by a reboot, as in some containers"
            );
            return self.fail(RebootError { code: RebootErrorCode::NeverWentDown, message }, now);
        }
        stopping.sort_unstable();
        let count = u32::try_from(stopping.len()).ok().filter(|count| *count > 0);
        stopping.truncate(MAX_WAITING_FOR);
        if let Some(reboot) = &mut self.record.reboot
            && (&reboot.waiting_for, reboot.waiting_for_count) != (&stopping, count)
        {
            (reboot.waiting_for, reboot.waiting_for_count) = (stopping, count);
            effects.push(self.report());
        }
        let wait = if under_way { LOOK_AGAIN } else { self.settings.down_timeout };
        effects.push(Effect::Deadline(Some(wait)));
        (Phase::Rebooting, effects)
    }

    /// The pending request's deadline has passed.
    pub(super) fn expire(&mut self, now: Time) -> Step {
        let message = "its deadline passed before it could be carried out".to_owned();
        self.fail(RebootError { code: RebootErrorCode::Expired, message }, now)
    }

    /// The pending request ends without a reboot.
    pub(super) fn fail(&mut self, error: RebootError, now: Time) -> Step {
        self.conclude(RebootStatus::Failed, Some(error), now)
    }

    /// The pending request has this outcome, and it is told.
    pub(super) fn conclude(&mut self, status: RebootStatus, error: Option<RebootError>, now: Time) -> Step {
        self.end(status, error, now);
        let mut effects = vec![Effect::Deadline(None)];
        if let Some(reboot) = &self.record.reboot {
            effects.push(Effect::Note(Note::Ended(Box::new(reboot.clone()))));
        }
        effects.push(self.save());
        effects.push(self.report());
        (Phase::Idle, effects)
    }

    /// Writes the pending request's outcome into the record.
    pub(super) fn end(&mut self, status: RebootStatus, error: Option<RebootError>, now: Time) {
        // Somebody's reboot would have met the need, and there was none.
        let is_unasked = self.own_id().is_some_and(|id| self.granted(&id).is_none());
        if is_unasked && !self.is_own() {
            self.record.asked_for = None;
        }
        self.outcome = Told::NotYet;
        if let Some(reboot) = &mut self.record.reboot {
            reboot.status = status;
            reboot.completed_at = Some(now);
            reboot.error = error.map(brief);
            (reboot.waiting_for, reboot.waiting_for_count) = (Vec::new(), None);
        }
        self.record.renew(false);
        self.record.plan = None;
        self.record.asked = None;
    }
}

/// An error with a message that is short enough for the twin.
pub(super) fn brief(error: RebootError) -> RebootError {
    RebootError { message: error.message.chars().take(MAX_MESSAGE).collect(), ..error }
}
