//! What was granted is remembered for as long as it may be delivered again: where
//! it is looked up, when it is forgotten, and how it gets from the record to a file
//! of its own.
//!
//! A request stands in the record from its reply on, so that a reply of 200 costs
//! no more than the record's write. From there it is moved, some at once, to the
//! file: it leaves the record only after the file was synced, so after a power cut
//! it is in one of the two, or in both. Where it is in both, the record's counts.

use std::time::Duration;

use iotdm_proto::reply::RebootReply;
use iotdm_proto::{Time, Wish};

use super::{Core, Phase};
use crate::decide::effect::Effect;
use crate::decide::ids::{GrantedRequest, MAX_GRANTED, MAX_IDS, PERIOD};
use crate::decide::refusal::{Limit, Refusal};

/// How many requests are moved to their file at once: each time costs a sync of the
/// disk, and until then they make the record longer by some 300 bytes each.
const BATCH: usize = 16;

/// How many entries the file may have in vain before it is written anew.
const MAX_STALE: usize = 256;

/// After how many milliseconds the count is saved at the latest, if anything happens
/// at all: an hour, since a card wears by each write.
const SAVE_COUNT: u64 = 60 * 60 * 1000;

/// The requests in their file.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept {
    /// As they stand there; none that the record has as well.
    requests: Vec<GrantedRequest>,
    /// Those that are being moved to the file, while it is written.
    writing: Option<Vec<GrantedRequest>>,
    /// How many entries the file has besides: forgotten, or written again.
    stale: usize,
    /// The file is not known to hold what it should.
    rewrite: bool,
}

impl Kept {
    /// What was `found` in the file at the start; `damaged` if that was not all.
    pub(super) fn found(found: Vec<GrantedRequest>, in_record: &[GrantedRequest], damaged: bool) -> Self {
        let entries = found.len();
        let mut requests: Vec<GrantedRequest> = Vec::new();
        // Of two entries the later one counts.
        for request in found.into_iter().rev() {
            if requests.iter().chain(in_record).all(|known| known.id != request.id) {
                requests.push(request);
            }
        }
        requests.reverse();
        let stale = entries - requests.len();
        // A file that is not there cannot be appended to.
        Kept { rewrite: damaged || entries == 0, stale, requests, writing: None }
    }

    /// How much had passed, at least, when the file was written.
    pub(super) fn passed(&self) -> u64 {
        self.requests.iter().filter_map(|request| request.at).max().unwrap_or(0)
    }
}

impl Core {
    /// Counts the time that has passed until the machine's `uptime`.
    pub(super) fn count(&mut self, uptime: Duration) {
        let record = &mut self.record;
        let began = record.age.boot_began();
        let missed = record.age.count(uptime, &record.boot);
        if missed == 0 {
            return;
        }
        // What was missed lies before this boot, so nothing of this boot grows older
        // by it. The file has the old instants, so the record takes those requests
        // back: it is written together with the count.
        let of_this_boot = |at: u64| at >= began;
        let requests = std::mem::take(&mut self.kept.requests);
        let (back, stay): (Vec<_>, Vec<_>) =
            requests.into_iter().partition(|request| request.at.is_some_and(of_this_boot));
        self.kept.requests = stay;
        self.kept.stale += back.len();
        record.granted.splice(0..0, back);
        let instants = record.granted.iter_mut().filter_map(|request| request.at.as_mut());
        for at in instants.chain(&mut record.granted_at).filter(|at| of_this_boot(**at)) {
            *at = at.saturating_add(missed);
        }
    }

    /// The request `id`, if it was granted and is not forgotten.
    pub(super) fn granted(&self, id: &str) -> Option<&GrantedRequest> {
        let mut all = self.record.granted.iter().chain(&self.kept.requests);
        all.find(|request| request.id == id).filter(|request| !self.is_over(request))
    }

    /// Remembers a request that is granted now.
    pub(super) fn remember(&mut self, reply: &RebootReply) {
        self.forget();
        let passed = self.record.age.passed();
        self.record.granted.push(GrantedRequest::new(reply, false, passed));
        self.record.granted_at.push(passed);
        let excess = self.record.granted_at.len().saturating_sub(MAX_GRANTED);
        self.record.granted_at.drain(..excess);
    }

    /// For how long no request can be granted, and why: too many were of late, or
    /// there is no room to remember another.
    pub(super) fn crowded(&self) -> Option<(Duration, Limit)> {
        let passed = self.record.age.passed();
        let until = |end: u64| Duration::from_millis(end.saturating_sub(passed));
        let granted_at = &self.record.granted_at;
        let nth_last = granted_at.len().checked_sub(MAX_GRANTED).and_then(|index| granted_at.get(index));
        let often = nth_last.map(|at| until(at.saturating_add(PERIOD.as_secs() * 1000)));
        let often = often.filter(|wait| !wait.is_zero()).map(|wait| (wait, Limit::Granted));
        let remembered = || {
            let all = self.record.granted.iter().chain(&self.kept.requests);
            all.filter(|request| !self.is_over(request))
        };
        let full = (remembered().count() >= MAX_IDS).then(|| {
            let ends = remembered().filter(|request| !self.is_needed(&request.id)).map(GrantedRequest::end);
            (until(ends.min().unwrap_or(0)), Limit::Memory)
        });
        [often, full].into_iter().flatten().max_by_key(|(wait, _)| *wait)
    }

    /// The refusal of a request that is not granted since it is [`Self::crowded`].
    pub(super) fn too_many(&self, now: Time) -> Option<Refusal> {
        let (wait, limit) = self.crowded()?;
        Some(Refusal::RateLimited { until: now.after(wait), wait, limit })
    }

    /// Moves requests from the record to their file, if there are enough of them.
    /// To be called when the record is on disk.
    pub(super) fn keep(&mut self) -> Option<Effect> {
        let newest = self.record.reboot.as_ref().map(|reboot| reboot.id.as_str());
        // What becomes of the newest is still to be written.
        let movable = self.record.granted.iter().filter(|request| Some(request.id.as_str()) != newest);
        let new: Vec<GrantedRequest> = movable.cloned().collect();
        (self.kept.writing.is_none() && new.len() >= BATCH).then(|| self.write(new))
    }

    /// Writes the file anew, if it does not hold what it should.
    pub(super) fn mend(&mut self) -> Option<Effect> {
        let needed = self.kept.rewrite && !self.kept.requests.is_empty();
        (self.kept.writing.is_none() && needed).then(|| self.write(Vec::new()))
    }

    fn write(&mut self, new: Vec<GrantedRequest>) -> Effect {
        let kept = &mut self.kept;
        let whole = kept.rewrite || kept.stale > MAX_STALE;
        kept.writing = Some(new.clone());
        if whole {
            (kept.rewrite, kept.stale) = (false, 0);
        }
        Effect::Keep { requests: if whole { [kept.requests.clone(), new].concat() } else { new }, whole }
    }

    /// What the last [`Effect::Keep`] was to write is on disk, or not.
    pub(super) fn kept(&mut self, written: bool) {
        let Some(new) = self.kept.writing.take() else { return };
        if !written {
            // Whatever is in the file now, or half in it.
            self.kept.rewrite = true;
            return;
        }
        for request in new {
            match self.record.granted.iter().position(|known| *known == request) {
                Some(index) => {
                    self.record.granted.remove(index);
                    let before = self.kept.requests.len();
                    self.kept.requests.retain(|known| known.id != request.id);
                    self.kept.stale += before - self.kept.requests.len();
                    self.kept.requests.push(request);
                }
                // It has changed since, or was forgotten.
                None => self.kept.stale += 1,
            }
        }
    }

    /// Saves the record if the count has gone on for long, so that a power cut does
    /// not take that back. `effects` are those that are to be carried out anyway.
    pub(super) fn save_count(&mut self, phase: &Phase, effects: &[Effect]) -> Option<Effect> {
        let passed = self.record.age.passed();
        let saves = effects.iter().any(|effect| matches!(effect, Effect::Save(_)));
        let calm = matches!(phase, Phase::Idle | Phase::Scheduled | Phase::Waiting { .. });
        let due = calm && passed.saturating_sub(self.saved_count) >= SAVE_COUNT;
        if saves || due {
            self.saved_count = passed;
        }
        (due && !saves).then(|| self.save())
    }

    /// The file is gone, as with the directory that it was in.
    pub(super) fn kept_is_lost(&mut self) -> Option<Effect> {
        self.kept.rewrite = true;
        self.mend()
    }

    fn forget(&mut self) {
        let mut granted = std::mem::take(&mut self.record.granted);
        granted.retain(|request| !self.is_over(request));
        self.record.granted = granted;
        let mut requests = std::mem::take(&mut self.kept.requests);
        let before = requests.len();
        requests.retain(|request| !self.is_over(request));
        self.kept.stale += before - requests.len();
        self.kept.requests = requests;
    }

    fn is_over(&self, request: &GrantedRequest) -> bool {
        request.end() <= self.record.age.passed() && !self.is_needed(&request.id)
    }

    /// The pending request, and the wish for as long as it stands in the twin: both
    /// may be there for a year.
    fn is_needed(&self, id: &str) -> bool {
        let wish = || self.record.wish.as_ref().and_then(Wish::id_of);
        self.record.pending().is_some_and(|reboot| reboot.id == id)
            || wish().is_some_and(|wish| wish.as_str() == id)
    }
}
