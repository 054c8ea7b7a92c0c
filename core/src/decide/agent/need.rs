//! Whether the machine needs a reboot: requests that are for no other machine, and the
//! one that the daemon makes itself.

use std::time::Duration;

use iotdm_proto::OnInhibitor;
use iotdm_proto::Time;
use iotdm_proto::need::RebootRequired;
use iotdm_proto::reply::{Granted, RebootReply};
use iotdm_proto::report::{Reboot, RebootStatus, RequestedBy};
use iotdm_proto::request::{MAX_REASON, OnPreflight};

use super::{Core, Phase, Step};
use crate::decide::effect::{Effect, Note};
use crate::decide::event::Event;
use crate::decide::ids::GrantedRequest;
use crate::decide::need::Need;
use crate::decide::outlook::Manners;
use crate::decide::record::Plan;
use crate::decide::refusal::Refusal;
use crate::decide::request::Request;

/// How the id of a request begins that the daemon makes itself; which need it is for
/// follows.
const OWN: &str = "required:";

/// For how long the outcome of somebody's request stands in the twin before the daemon's
/// own request takes its place there: whoever waits for an outcome reads the twin again
/// and again, and would never see it.
const READ_FIRST: Duration = Duration::from_secs(600);

/// After how much uptime a need that has outlived a boot is there again: some flags are
/// made anew by each boot, a while after the daemon was started.
const SETTLED: Duration = Duration::from_secs(600);

/// Whether the hub has heard of the newest request's outcome.
#[derive(Debug, Clone, Copy)]
pub(super) enum Told {
    /// It has not acknowledged it in this run of the daemon.
    NotYet,
    /// It has, then.
    At(Time),
}

impl Core {
    /// What is known of it has changed.
    pub(super) fn need_changed(&mut self, need: Option<Need>, now: Time) -> Vec<Effect> {
        let told = need.as_ref().map(|need| need.tell(self.record.reboot_required.as_ref(), now));
        let before = (self.need.clone(), self.record.reboot_required.clone());
        self.note_need(need.as_ref());
        self.record.reboot_required = told;
        match before == (self.need.clone(), self.record.reboot_required.clone()) {
            true => Vec::new(),
            false => vec![self.save(), self.report()],
        }
    }

    /// Remembers which need there is. One that comes again after it was gone is asked for
    /// anew, though not while the id of the request for it is remembered. One that was
    /// there before a boot and not yet after it is not gone until that has [`SETTLED`].
    pub(super) fn note_need(&mut self, need: Option<&Need>) {
        let before = std::mem::replace(&mut self.need, need.and_then(Need::digest));
        let goes = before.is_some() && self.need.is_none();
        let was_gone = before.is_none() && self.has_settled();
        if goes || was_gone {
            self.record.asked_for = None;
        }
    }

    /// The need that is found at the start, which goes on.
    pub(super) fn find_need(&mut self, need: Option<&Need>) {
        self.need = need.and_then(Need::digest);
        self.forget_what_is_gone();
    }

    /// A need that has not come back by now is gone.
    fn forget_what_is_gone(&mut self) {
        if self.need.is_none() && self.has_settled() {
            self.record.asked_for = None;
        }
    }

    /// Whether the machine has been up for so long that what each boot makes anew is there.
    pub(super) fn has_settled(&self) -> bool {
        self.record.age.uptime() >= SETTLED
    }

    /// The need as it is told, with what was done about it.
    pub(super) fn told_need(&self) -> Option<RebootRequired> {
        let told = self.record.reboot_required.clone()?;
        Some(RebootRequired { asked_for: self.record.asked_for.clone(), ..told })
    }

    /// That the machine is known to need a reboot, or why that cannot be said.
    pub(super) fn needed(&self) -> Result<(), Refusal> {
        let why = match &self.record.reboot_required {
            Some(need) if need.required => return Ok(()),
            Some(_) => "the machine needs no reboot",
            None => "whether the machine needs a reboot is not known, so it is left alone",
        };
        Err(Refusal::NotNeeded(why.to_owned()))
    }

    /// The reply to a request that is for a machine that needs a reboot.
    pub(super) fn not_needed(&self, id: &str, request: &Request, why: String) -> RebootReply {
        RebootReply {
            id: id.to_owned(),
            status: Granted::NotNeeded,
            message: if request.check { format!("the device would not reboot: {why}") } else { why },
            not_before: None,
            boot_id: self.record.boot.boot_id.clone(),
            preflight: Vec::new(),
            if_it_hangs: None,
            ignored: request.ignored.clone(),
        }
    }

    /// Whether the pending request is the daemon's own.
    pub(super) fn is_own(&self) -> bool {
        self.record.pending().is_some_and(|reboot| reboot.requested_by == RequestedBy::Device)
    }

    /// Whether the pending request is the daemon's own and makes room for another: until
    /// its turn has come, while something is in the way, and while the hub does not take
    /// the report that it begins.
    pub(super) fn gives_way(&self, phase: &Phase) -> bool {
        matches!(phase, Phase::Scheduled | Phase::Waiting { .. } | Phase::Announcing) && self.is_own()
    }

    /// The id of the request that the daemon makes for the present need, if it is to.
    pub(super) fn own_id(&self) -> Option<String> {
        let need = self.need.as_ref().filter(|_| self.settings.when_required)?;
        Some(format!("{OWN}{need}"))
    }

    /// Asks for a reboot that the machine needs, unless something else is under way, or
    /// takes back what was asked for. To be called whenever that may have changed. Nobody
    /// was promised anything, so nothing waits for the disk: what is not on it is asked for
    /// anew after a power cut.
    pub(super) fn consider_need(&mut self, phase: Phase, now: Time) -> Step {
        if self.record.lost {
            return (phase, Vec::new());
        }
        self.forget_what_is_gone();
        let wanted = self.own_id();
        match (phase, self.record.pending()) {
            (Phase::Idle, None) => match wanted.filter(|id| self.is_unheard_of(id)) {
                Some(id) => match self.outcome_stays(now) {
                    Some(Duration::ZERO) => self.ask_oneself(id, now),
                    Some(rest) => (Phase::Idle, vec![Effect::Deadline(Some(rest))]),
                    None => (Phase::Idle, Vec::new()),
                },
                None => (Phase::Idle, Vec::new()),
            },
            (
                phase @ (Phase::Scheduled | Phase::Waiting { .. } | Phase::Due { .. } | Phase::Announcing),
                Some(reboot),
            ) if reboot.requested_by == RequestedBy::Device && wanted.as_ref() != Some(&reboot.id) => {
                match wanted.filter(|id| self.granted(id).is_none()) {
                    Some(id) => (phase, self.rename_own(id)),
                    None => self.withdraw_own(now),
                }
            }
            // The record is tried to be written, and logind was not asked.
            (Phase::Asking, Some(reboot))
                if reboot.requested_by == RequestedBy::Device && wanted.is_none() =>
            {
                self.withdraw_own(now)
            }
            (phase, _) => (phase, Vec::new()),
        }
    }

    /// Whether the daemon may ask for what it would under this `id`: it has not yet, and
    /// nothing else comes first.
    fn is_unheard_of(&self, id: &str) -> bool {
        let busy = self.record.going_down || self.wish_comes();
        !busy && self.record.asked_for != self.need && self.granted(id).is_none()
    }

    /// Takes note of whether the hub has heard of the newest request's outcome. What the
    /// hub acknowledges while the record is not on disk may be an older report, so then
    /// the outcome is to be told again once it is: that is what is returned.
    pub(super) fn follow_outcome(&mut self, event: &Event, now: Time) -> bool {
        match (event, self.outcome) {
            (Event::Reported, Told::NotYet) if !self.unsaved => self.outcome = Told::At(now),
            (Event::Saved(saved), outcome) => {
                let was_unsaved = std::mem::replace(&mut self.unsaved, saved.is_err());
                let ended = self.record.reboot.as_ref().is_some_and(|reboot| reboot.status.is_final());
                let owed = (ended && matches!(outcome, Told::NotYet)) || !self.record.unheard.is_empty();
                return was_unsaved && saved.is_ok() && owed;
            }
            _ => {}
        }
        false
    }

    /// The newest request is about to give its place to the request `id`. Whoever waits
    /// for its outcome may still have to hear of it; of the same request, that is what
    /// becomes of it in the end. Returns a note of each outcome that is given up.
    pub(super) fn give_place(&mut self, id: &str) -> Vec<Effect> {
        self.record.unheard.retain(|unheard| unheard.reboot.id != id);
        let is_another = self.record.reboot.as_ref().is_some_and(|reboot| reboot.id != id);
        let is_owed = is_another && matches!(self.outcome, Told::NotYet);
        let given_up = if is_owed { self.record.keep_unheard() } else { Vec::new() };
        given_up.into_iter().map(|id| Effect::Note(Note::Untold { id })).collect()
    }

    /// Goes on to what is to be told next, once the hub has heard of an outcome before the
    /// newest request, or would not hear of it ever; `None` for any other event.
    pub(super) fn follow_unheard(&mut self, event: &Event) -> Option<Vec<Effect>> {
        let is_answer = matches!(event, Event::Reported | Event::ReportRefused);
        if !is_answer || self.unheard_first().is_none() {
            return None;
        }
        // While the record is not on disk, the answer may be to an older report.
        if self.unsaved {
            return Some(Vec::new());
        }
        let heard = self.record.unheard.pop_front_if(|first| self.telling.as_ref() == Some(&first.reboot.id));
        let mut effects = Vec::from_iter(heard.map(|_| self.save()));
        effects.push(self.report());
        Some(effects)
    }

    /// Takes note of which outcome before the newest request is told by these `effects`.
    pub(super) fn note_telling(&mut self, effects: &[Effect]) {
        if effects.iter().any(|effect| matches!(effect, Effect::Report(_) | Effect::ReportNow(_))) {
            self.telling = self.unheard_first().map(|first| first.reboot.id.clone());
        }
    }

    /// For how long the newest request's outcome has still to stand in the twin, where the
    /// daemon's own request would take its place; `None` until the hub has it.
    fn outcome_stays(&self, now: Time) -> Option<Duration> {
        let Some(newest) = &self.record.reboot else { return Some(Duration::ZERO) };
        match (self.outcome, newest.requested_by) {
            (Told::NotYet, _) => None,
            (Told::At(_), RequestedBy::Device) => Some(Duration::ZERO),
            (Told::At(at), RequestedBy::Method | RequestedBy::Twin) => {
                Some(READ_FIRST.saturating_sub(now.since(at)))
            }
        }
    }

    fn ask_oneself(&mut self, id: String, now: Time) -> Step {
        if let Some((wait, _)) = self.crowded() {
            return (Phase::Idle, vec![Effect::Deadline(Some(wait))]);
        }
        let at = self.settings.guards.open(now, self.earliest(None, now));
        let later = at > now;
        let request = Request {
            reason: Some(self.own_reason()),
            // Whatever is in the way is waited for.
            manners: Manners { on_inhibitor: OnInhibitor::Wait, on_preflight: OnPreflight::Wait },
            ..Request::default()
        };
        let reply = self.own_reply(&id, Some(at).filter(|_| later));
        self.remember(&reply);
        let failed_before = self.note_failed_before();
        self.record.reboot = Some(Reboot {
            status: if later { RebootStatus::Scheduled } else { RebootStatus::Waiting },
            not_before: later.then_some(at),
            failed_before,
            ..self.new_reboot(&id, &request, RequestedBy::Device, now)
        });
        self.record.plan = Some(Plan {
            on_inhibitor: request.manners.on_inhibitor,
            on_preflight: request.manners.on_preflight,
            wait_seconds: request.wait.as_secs(),
            wait_until: None,
            delayed: true,
            moved_from: later.then_some(now),
            only_if_required: false,
            deadline: None,
        });
        self.record.asked_for.clone_from(&self.need);
        let mut effects = vec![self.save()];
        effects
            .extend(self.record.reboot.clone().map(|reboot| Effect::Note(Note::Accepted(Box::new(reboot)))));
        let (phase, more) = self.proceed(now);
        effects.extend(more);
        effects.extend(self.keep());
        (phase, effects)
    }

    /// Has the daemon's own request go on for the present need, which is another than
    /// when it was made.
    fn rename_own(&mut self, id: String) -> Vec<Effect> {
        let Some(before) = self.record.pending().map(|reboot| reboot.id.clone()) else { return Vec::new() };
        let not_before = self.record.pending().and_then(|reboot| reboot.not_before);
        let reply = self.own_reply(&id, not_before);
        let passed = self.record.age.passed();
        self.record.granted.retain(|request| request.id != before);
        self.record.granted.push(GrantedRequest::new(&reply, false, passed));
        let reason = self.own_reason();
        if let Some(reboot) = &mut self.record.reboot {
            (reboot.id, reboot.reason) = (id, Some(reason));
        }
        self.record.asked_for.clone_from(&self.need);
        vec![self.save(), self.report()]
    }

    /// Takes the daemon's own request back, as if it had never been made.
    pub(super) fn withdraw_own(&mut self, now: Time) -> Step {
        self.not_begun();
        self.unmake_own();
        self.conclude(RebootStatus::Cancelled, None, now)
    }

    /// Forgets the daemon's own request, which is pending: it may be made again, and does
    /// not count as one that was granted.
    pub(super) fn unmake_own(&mut self) {
        let own = self.record.pending().filter(|reboot| reboot.requested_by == RequestedBy::Device);
        let Some(id) = own.map(|reboot| reboot.id.clone()) else { return };
        self.record.granted.retain(|request| request.id != id);
        // Nothing was granted since, or it would have taken its place.
        self.record.granted_at.pop();
        self.record.asked_for = None;
    }

    /// For people: who asks for the reboot.
    fn own_reason(&self) -> String {
        let reasons = self.record.reboot_required.as_ref().map(|need| need.reasons.join(", "));
        format!("required by {}", reasons.unwrap_or_default()).chars().take(MAX_REASON).collect()
    }

    /// What a caller is told who asks with this `id`.
    fn own_reply(&self, id: &str, not_before: Option<Time>) -> RebootReply {
        RebootReply {
            id: id.to_owned(),
            status: if not_before.is_some() { Granted::Scheduled } else { Granted::Accepted },
            message: "the device has asked for this itself, since the machine needs a reboot".to_owned(),
            not_before,
            boot_id: self.record.boot.boot_id.clone(),
            preflight: Vec::new(),
            if_it_hangs: None,
            ignored: Vec::new(),
        }
    }
}
