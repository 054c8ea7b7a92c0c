//! Wishes: the reboot that `properties.desired.reboot` asks for, each id once.

use iotdm_proto::Time;
use iotdm_proto::report::{RebootError, RebootErrorCode, RebootStatus, RequestedBy};
use serde_json::Value;

use super::proceed::brief;
use super::{Agent, Ask, Phase};
use crate::effect::{Effect, Note};
use crate::event::Refusal;
use crate::request::{self, RebootRequest};

impl Agent {
    /// What the twin wishes for now, and which reboot it reported before we
    /// did.
    pub(super) fn wished(&mut self, wish: Option<Value>, reported: Option<&Value>) {
        // Without the record of it, what the twin tells is all that keeps a
        // wish that was granted from being granted again.
        if let Some(id) = wish.as_ref().and_then(request::id_of_wish)
            && self.record.answer(&id).is_none()
            && self.record.reboot.as_ref().is_none_or(|reboot| reboot.id != id)
            && let Some(reported) = reported
            && reported.get("id").and_then(Value::as_str) == Some(&id)
            && !matches!(reported.get("status").and_then(Value::as_str), Some("scheduled" | "waiting"))
        {
            self.record.remember(&id, reported.clone());
        }
        self.wished = Some(wish);
        self.wish_held = false;
    }

    /// Takes up the wish as it stands, unless something else is under way. To
    /// be called whenever that may have changed.
    pub(super) fn consider_wish(&mut self, now: Time) -> Vec<Effect> {
        let Some(wish) = self.wished.clone().filter(|wish| !self.wish_held && *wish != self.record.wish)
        else {
            return Vec::new();
        };
        match (&self.phase, self.record.pending()) {
            (Phase::Idle, None) => match wish {
                Some(wish) => self.take_up(wish, now),
                None => self.no_wish(),
            },
            (Phase::Scheduled | Phase::Waiting | Phase::Due { .. }, Some(reboot))
                if reboot.requested_by == RequestedBy::Twin =>
            {
                let id = reboot.id.clone();
                self.withdraw(id, wish.as_ref(), now)
            }
            _ => Vec::new(),
        }
    }

    /// The wish that is pending does not stand any more, or not like that.
    fn withdraw(&mut self, id: String, wish: Option<&Value>, now: Time) -> Vec<Effect> {
        self.cancel(&id, Vec::new(), now);
        self.record.wish = None;
        if wish.and_then(request::id_of_wish).as_ref() == Some(&id) {
            // It is only changed, and has not been carried out.
            self.record.answers.retain(|answer| answer.id != id);
        }
        vec![self.save()]
    }

    fn no_wish(&mut self) -> Vec<Effect> {
        self.record.wish = None;
        vec![self.save(), self.report()]
    }

    fn take_up(&mut self, wish: Value, now: Time) -> Vec<Effect> {
        let request = RebootRequest::wished(&wish);
        let Some(id) = request::id_of_wish(&wish).filter(|id| self.record.answer(id).is_none()) else {
            // Carried out already, or nobody knows under which name it was to
            // be; the latter is reported.
            self.record.wish = Some(wish);
            return vec![self.save(), self.report()];
        };
        let error = |code, message: String| Err(RebootError { code, message });
        let checked = match &request {
            Err(why) => error(RebootErrorCode::InvalidPayload, why.to_string()),
            Ok(request) if self.forbids(request) => Err(Refusal::Forbidden.error()),
            Ok(request) if request.deadline.is_some_and(|deadline| deadline <= now) => {
                error(RebootErrorCode::Expired, "the wish was seen only after its deadline".to_owned())
            }
            Ok(_) => Ok(()),
        };
        let request = request.unwrap_or_default();
        if let Err(error) = checked {
            return self.fail_wish(wish, &id, &request, error, now);
        }
        self.phase = Phase::Checking(Ask { id, request, rids: Vec::new(), wish: Some(wish) });
        vec![Effect::AskPermission]
    }

    /// Reports that the wish cannot be granted, once.
    pub(super) fn fail_wish(
        &mut self,
        wish: Value,
        id: &str,
        request: &RebootRequest,
        error: RebootError,
        now: Time,
    ) -> Vec<Effect> {
        let mut reboot = self.new_reboot(id, request, RequestedBy::Twin, now);
        reboot.status = RebootStatus::Failed;
        reboot.completed_at = Some(now);
        reboot.error = Some(brief(error));
        let note = Note::Ended(Box::new(reboot.clone()));
        self.record.reboot = Some(reboot);
        self.record.wish = Some(wish);
        vec![Effect::Note(note), self.save(), self.report()]
    }

    /// What is wrong with the wish, if it is not even known whose it is.
    pub(super) fn wish_error(&self) -> Option<String> {
        let wish = self.record.wish.as_ref().filter(|wish| request::id_of_wish(wish).is_none())?;
        RebootRequest::wished(wish).err().map(|why| why.to_string())
    }
}
