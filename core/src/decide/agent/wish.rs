//! Wishes: the reboot that `properties.desired.reboot` asks for, each id once.

use iotdm_proto::report::{Clock, RebootError, RebootErrorCode, RebootStatus, RequestedBy};
use iotdm_proto::{Time, Wish};

use super::need::Told;
use super::proceed::brief;
use super::{Ask, Core, Phase, Step};
use crate::decide::effect::{Effect, Note};
use crate::decide::refusal::Refusal;
use crate::decide::request::{DesiredReboot, Request};

/// What the twin wishes for.
#[derive(Debug, Clone)]
pub(super) enum Wished {
    /// The twin has not been read yet.
    Unknown,
    /// No reboot.
    Nothing,
    /// This one.
    Reboot(Box<DesiredReboot>),
}

impl Wished {
    /// Whether the twin still wishes for the same as when `wish` was seen.
    pub(super) fn is(&self, wish: &DesiredReboot) -> bool {
        matches!(self, Wished::Reboot(now) if now.raw == wish.raw)
    }
}

impl Core {
    /// Takes up the wish as it stands, unless something else is under way. To
    /// be called whenever that may have changed.
    pub(super) fn consider_wish(&mut self, phase: Phase, now: Time) -> Step {
        let wish = match &self.wished {
            Wished::Unknown => return (phase, Vec::new()),
            Wished::Nothing => None,
            Wished::Reboot(wish) => Some(DesiredReboot::clone(wish)),
        };
        if self.wish_held || wish.as_ref().map(|wish| &wish.raw) == self.record.wish.as_ref() {
            return (phase, Vec::new());
        }
        match (phase, self.record.pending()) {
            (Phase::Idle, None) => match wish {
                Some(wish) => self.take_up(wish, now),
                None => (Phase::Idle, self.no_wish()),
            },
            (
                phase @ (Phase::Scheduled | Phase::Waiting { .. } | Phase::Due { .. } | Phase::Announcing),
                Some(reboot),
            ) if reboot.requested_by == RequestedBy::Twin => {
                let id = reboot.id.clone();
                self.withdraw(phase, id, wish.as_ref(), now)
            }
            // The daemon's own request makes room for one that can be taken up.
            (phase, _) if self.gives_way(&phase) && self.is_new(wish.as_ref()) => self.withdraw_own(now),
            (phase, _) => (phase, Vec::new()),
        }
    }

    /// Whether a wish stands that is about to be taken up.
    pub(super) fn wish_comes(&self) -> bool {
        let Wished::Reboot(wish) = &self.wished else { return false };
        let known = self.record.wish.as_ref() == Some(&wish.raw);
        !known && !self.wish_held && self.is_new(Some(wish))
    }

    /// Whether there is a wish that was not carried out already.
    fn is_new(&self, wish: Option<&DesiredReboot>) -> bool {
        wish.is_some_and(|wish| wish.id().is_none_or(|id| self.granted(id).is_none()))
    }

    /// The wish that is pending was taken back or changed.
    fn withdraw(&mut self, phase: Phase, id: String, wish: Option<&DesiredReboot>, now: Time) -> Step {
        let only_changed = wish.and_then(DesiredReboot::id) == Some(id.as_str());
        let phase = self.cancel(phase, id.clone(), Vec::new(), now);
        self.record.wish = None;
        if only_changed {
            // It has not been carried out, so it is to be taken up anew.
            self.record.granted.retain(|request| request.id != id);
        }
        (phase, vec![self.save()])
    }

    fn no_wish(&mut self) -> Vec<Effect> {
        self.record.wish = None;
        vec![self.save(), self.report()]
    }

    fn take_up(&mut self, desired: DesiredReboot, now: Time) -> Step {
        let id = desired.id().map(str::to_owned).filter(|id| self.granted(id).is_none());
        let Some(id) = id else {
            // Carried out already, or nobody knows under which name it was to
            // be; the latter is reported.
            self.record.wish = Some(desired.raw);
            return (Phase::Idle, vec![self.save(), self.report()]);
        };
        let request = desired.wish.as_ref().map(Request::wished);
        let too_far = desired.wish.as_ref().ok().and_then(|wish| wish.check_time(now).err());
        let too_far = too_far.map(|why| why.to_string());
        let error = |code, message: String| Err(RebootError { code, message });
        let checked = match &request {
            Err(why) => error(RebootErrorCode::InvalidPayload, why.to_string()),
            // A clock that is not set yet cannot tell.
            Ok(_) if self.record.boot.clock == Clock::Synchronized && too_far.is_some() => {
                error(RebootErrorCode::InvalidPayload, too_far.unwrap_or_default())
            }
            Ok(request) if request.deadline.is_some_and(|deadline| deadline <= now) => {
                error(RebootErrorCode::Expired, "the wish was seen only after its deadline".to_owned())
            }
            Ok(request) => self.forbids(request).map_or(Ok(()), |forbidden| Err(forbidden.error())),
        };
        let request = request.unwrap_or_default();
        match checked {
            Ok(()) if self.crowded().is_some() => (Phase::Idle, self.put_off_wish(&id, &request, now)),
            Ok(()) => {
                self.wish_crowded = false;
                let preflight = request.manners.mind_preflight();
                let ask = Ask { id, request, rids: Vec::new(), wish: Some(desired) };
                (Phase::Checking(Box::new(ask)), vec![Effect::AskPermission { preflight }])
            }
            Err(error) => (Phase::Idle, self.fail_wish(desired, &id, &request, error, now)),
        }
    }

    /// The wish is taken up when it can be granted, unless its deadline is before
    /// that.
    fn put_off_wish(&mut self, id: &str, request: &Request, now: Time) -> Vec<Effect> {
        let Some(refusal @ Refusal::RateLimited { until, .. }) = self.too_many(now) else {
            return Vec::new();
        };
        let until = request.deadline.map_or(until, |deadline| deadline.min(until));
        let mut effects = vec![Effect::Deadline(Some(until.since(now)))];
        if !std::mem::replace(&mut self.wish_crowded, true) {
            effects.push(Effect::Note(Note::Waiting { id: id.to_owned(), message: refusal.message() }));
        }
        effects
    }

    /// Reports that the wish cannot be granted, once.
    pub(super) fn fail_wish(
        &mut self,
        wish: DesiredReboot,
        id: &str,
        request: &Request,
        error: RebootError,
        now: Time,
    ) -> Vec<Effect> {
        self.end_wish(wish, id, request, (RebootStatus::Failed, Some(error)), now)
    }

    /// Reports that the machine needs no reboot, for which the wish asks only then.
    pub(super) fn wish_not_needed(
        &mut self,
        wish: DesiredReboot,
        id: &str,
        request: &Request,
        now: Time,
    ) -> Vec<Effect> {
        self.end_wish(wish, id, request, (RebootStatus::NotNeeded, None), now)
    }

    fn end_wish(
        &mut self,
        wish: DesiredReboot,
        id: &str,
        request: &Request,
        (status, error): (RebootStatus, Option<RebootError>),
        now: Time,
    ) -> Vec<Effect> {
        let mut reboot = self.new_reboot(id, request, RequestedBy::Twin, now);
        reboot.status = status;
        reboot.completed_at = Some(now);
        reboot.error = error.map(brief);
        let note = Note::Ended(Box::new(reboot.clone()));
        let given_up = self.give_place(id);
        self.record.reboot = Some(reboot);
        self.outcome = Told::NotYet;
        self.record.wish = Some(wish.raw);
        self.record.last_wish = Some(id.to_owned());
        let mut effects = given_up;
        effects.extend([Effect::Note(note), self.save(), self.report()]);
        effects
    }

    /// What is wrong with the wish that was last dealt with, where not even its
    /// id can be read, so that no request tells.
    pub(super) fn wish_error(&self) -> Option<String> {
        let wish = self.record.wish.as_ref().filter(|wish| Wish::id_of(wish).is_none())?;
        Wish::parse(wish).err().map(|why| why.to_string())
    }
}
