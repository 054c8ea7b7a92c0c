//! The start: what the record of the last run means in the running boot, and
//! how times are corrected when the clock is.

use iotdm_proto::report::{Boot, BootCause, Clock, Reboot, RebootError, RebootErrorCode, RebootStatus};
use iotdm_proto::{Time, Wish};

use super::need::Told;
use super::remember::Kept;
use super::wish::Wished;
use super::{Agent, Core, Phase, Settings, Step, health};
use crate::decide::age::Age;
use crate::decide::boots::first_boot;
use crate::decide::effect::{Effect, Note};
use crate::decide::event::Start;
use crate::decide::record::{Asked, Record};

/// A clock that is set by less than so many milliseconds was right: times in the
/// twin that change by less would help nobody.
const NOTICEABLE_MS: i64 = 1000;

impl Agent {
    /// Takes up where the `record` of the last run ends; without one this is
    /// the first start ever. `damaged` says where a damaged file, the record or
    /// that of the granted requests, was set aside.
    pub fn resume(
        record: Option<Record>,
        damaged: Option<String>,
        start: Start,
        settings: Settings,
        now: Time,
    ) -> (Self, Vec<Effect>) {
        let mut effects = Vec::new();
        let clock = start.clock;
        // Without a note of it by an earlier run, the hub may have answered that.
        let mut whole_boot = true;
        let need =
            |record: &Record| start.need.as_ref().map(|need| need.tell(record.reboot_required.as_ref(), now));
        let in_record = record.as_ref().map_or(&[][..], |record| &record.granted);
        let kept = Kept::found(start.granted.clone(), in_record, damaged.is_some());
        let mut record = match record {
            None => {
                let mut record = Record::new(first_boot(&start));
                record.note_panics(&start);
                record.note_boot();
                record.damaged = damaged;
                record.age = Age::begin(kept.passed(), start.uptime);
                record.reboot_required = need(&record);
                // Until the twin has told what it remembers: this may be the
                // first start ever, or the state directory did not survive.
                record.lost = true;
                effects.push(Effect::Save(Box::new(record.clone())));
                record
            }
            Some(mut record) if record.boot.boot_id == start.boot_id => {
                whole_boot = record.health.as_ref().is_some_and(|known| known.whole_boot);
                let required = need(&record);
                let is_news = required != record.reboot_required;
                record.reboot_required = required;
                record.note_panics(&start);
                record.note_boot();
                let known = record.boot.boot_time;
                let newly_damaged = damaged.is_some();
                record.damaged = damaged.or(record.damaged);
                if correct(&mut record, start.clock, start.boot_time) {
                    shift_plan(&mut record, start.boot_time.unix_millis() - known.unix_millis());
                    effects.push(Effect::Note(Note::ClockSet(record.boot.clone())));
                    effects.push(Effect::Save(Box::new(record.clone())));
                } else if newly_damaged || is_news {
                    effects.push(Effect::Save(Box::new(record.clone())));
                }
                record
            }
            Some(mut record) => {
                // What the daemon itself noted, or systemd for it: one that was
                // killed sees no shutdown.
                let orderly =
                    record.going_down || start.shut_down.as_deref() == Some(record.boot.boot_id.as_str());
                let cause = cause_of_boot(&record, orderly);
                record.begin_boot(&start, cause);
                record.reboot_required = need(&record);
                record.health = record
                    .health
                    .filter(|_| settings.health)
                    .map(|_| health::starting(&start.boot_id, start.boot_time));
                record.reboot_time = Some(start.boot_time);
                (record.asked, record.going_down) = (None, false);
                record.damaged = damaged;
                record.age.boots(start.uptime);
                record.age.count(start.uptime, &record.boot);
                effects.push(Effect::Note(Note::Booted(record.boot.clone())));
                conclude_after_boot(&mut record, now, &mut effects);
                record.note_boot();
                effects.push(Effect::Save(Box::new(record.clone())));
                record
            }
        };
        // A record from before this key was kept.
        if record.last_wish.is_none() {
            record.last_wish = record.wish.as_ref().and_then(Wish::id_of).map(String::from);
        }
        let passed = record.age.passed();
        record.granted = record.granted.into_iter().map(|request| request.taken_over(passed)).collect();
        let mut core = Core {
            record,
            kept,
            shut_down: start.shut_down,
            settings,
            booted: start.boot_time,
            checks: Vec::new(),
            wished: Wished::Unknown,
            wish_held: false,
            saved_count: passed,
            wish_crowded: false,
            need: None,
            outcome: Told::NotYet,
            telling: None,
            unsaved: false,
            observed: None,
            hub_reached_after: None,
            whole_boot,
            information: start.information,
        };
        core.count(start.uptime);
        core.find_need(start.need.as_ref());
        effects.extend(core.mend());
        let (phase, more) = core.take_up_pending(clock, now);
        effects.extend(more);
        core.hold_back(&mut effects);
        core.note_telling(&effects);
        (Agent { phase, core }, effects)
    }
}

impl Core {
    /// Goes on with what the last run had under way, if anything.
    fn take_up_pending(&mut self, clock: Clock, now: Time) -> Step {
        let Some(pending) = self.record.pending() else { return (Phase::Idle, vec![self.report()]) };
        if self.record.asked == Some(Asked::Agreed) {
            // Asked again, a machine whose boot id outlives its reboots (a
            // container's does) would reboot without end.
            let effects = vec![Effect::Deadline(Some(self.settings.down_timeout)), self.report()];
            return (Phase::Rebooting, effects);
        }
        // The request was about to be carried out when the last run ended, who
        // knows how long ago: whether it may be is asked again.
        if pending.status == RebootStatus::Rebooting && self.record.asked.is_none() {
            self.not_begun();
        }
        let before = self.record.clone();
        self.reschedule(clock, now);
        let mut effects = Vec::new();
        if self.record != before {
            effects.push(self.save());
        }
        let (phase, more) = self.proceed(now);
        effects.extend(more);
        (phase, effects)
    }

    /// Whether the pending request's time has still to come after all.
    fn is_early(&self, now: Time) -> bool {
        self.record.pending().and_then(|reboot| reboot.not_before).is_some_and(|at| at > now)
    }

    /// Whether what was begun for nobody who waits for it lies outside of the windows.
    pub(super) fn is_out_of_time(&self, now: Time) -> bool {
        self.needs_the_hub() && self.settings.guards.open(self.waits_since(), now) > now
    }

    /// The clock was set, or has become one to be trusted.
    pub(super) fn clock_set(&mut self, phase: Phase, clock: Clock, boot_time: Time, now: Time) -> Step {
        let mut effects = Vec::new();
        let moved = boot_time.unix_millis() - self.booted.unix_millis();
        let before = self.record.clone();
        if correct(&mut self.record, clock, boot_time) {
            self.count(self.record.age.uptime());
            effects.push(Effect::Note(Note::ClockSet(self.record.boot.clone())));
        }
        if moved.abs() >= NOTICEABLE_MS {
            self.booted = boot_time;
            shift_plan(&mut self.record, moved);
            if let Told::At(at) = &mut self.outcome {
                *at = moved_by(*at, moved);
            }
        }
        self.reschedule(clock, now);
        if self.record != before {
            effects.push(self.save());
            effects.push(self.report());
        }
        // What is due, or not, by the clock of now.
        let (phase, more) = match phase {
            Phase::Scheduled => self.proceed(now),
            Phase::Waiting { .. } | Phase::Due { refused: None, .. } if self.is_early(now) => {
                if let Some(plan) = &mut self.record.plan {
                    plan.wait_until = None;
                }
                self.proceed(now)
            }
            // It was about to begin by a clock that was ahead.
            Phase::Announcing | Phase::Asking if self.is_early(now) || self.is_out_of_time(now) => {
                self.not_begun();
                effects.push(self.save());
                self.proceed(now)
            }
            Phase::Waiting { refusal } => {
                let again = self.look_again(&refusal, now);
                (Phase::Waiting { refusal }, vec![again])
            }
            phase @ Phase::Due { refused: None, .. } => (phase, vec![self.patience(now)]),
            phase => (phase, Vec::new()),
        };
        effects.extend(more);
        (phase, effects)
    }

    /// The instant `now`, to be compared with one of the next boot: by the clock as it was when it was last
    /// synchronised in this boot, whoever has set it since.
    pub(super) fn comparable(&self, now: Time) -> Time {
        let boot = &self.record.boot;
        let set_by = match boot.clock {
            Clock::Synchronized => self.booted.unix_millis() - boot.boot_time.unix_millis(),
            Clock::Unsynchronized => 0,
        };
        if set_by.abs() < NOTICEABLE_MS { now } else { moved_by(now, -set_by) }
    }

    /// Works out the pending request's time anew, from the `clock` as it now
    /// is.
    fn reschedule(&mut self, clock: Clock, now: Time) {
        let (Some(reboot), Some(plan)) = (&mut self.record.reboot, &mut self.record.plan) else { return };
        // Asked for in an earlier boot, by a clock that was ahead: in truth the
        // request was made no later than now, and the span of time that was
        // asked for begins no later than now.
        let ahead = now.unix_millis() - reboot.requested_at.unix_millis();
        let of_another_boot = reboot.previous_boot_id != self.record.boot.boot_id;
        if plan.delayed && of_another_boot && ahead < 0 && clock == Clock::Synchronized {
            reboot.requested_at = now;
            shift(&mut plan.moved_from, ahead);
            shift(&mut reboot.not_before, ahead);
        }
        if let Some(asked_for) = plan.moved_from.filter(|_| reboot.not_before.is_some_and(|at| at > now)) {
            let at = self.settings.guards.open(asked_for, self.earliest(Some(asked_for), now));
            if let Some(reboot) = &mut self.record.reboot {
                reboot.not_before = Some(at);
            }
        }
    }
}

/// What ended the boot that `record` was written in.
fn cause_of_boot(record: &Record, orderly: bool) -> BootCause {
    match (orderly, record.asked) {
        (false, _) => BootCause::Unclean,
        (true, Some(_)) => BootCause::Requested,
        (true, None) => BootCause::Local,
    }
}

/// The machine has booted since the pending request was accepted. Unless it
/// was meant for later than that, it is not rebooted for it once more.
fn conclude_after_boot(record: &mut Record, now: Time, effects: &mut Vec<Effect>) {
    let boot = record.boot.clone();
    let clock_was_set = std::mem::take(&mut record.clock_was_set);
    let Some(reboot) = record.reboot.as_mut().filter(|reboot| !reboot.status.is_final()) else { return };
    if reboot.started_at.is_none() && reboot.not_before.is_some_and(|at| at > boot.boot_time) {
        return;
    }
    record.plan = None;
    let begun = reboot.started_at.is_some();
    reboot.completed_at = Some(now);
    reboot.boot_id = Some(boot.boot_id.clone());
    if boot.cause == BootCause::Unclean {
        reboot.status = RebootStatus::Failed;
        reboot.error = Some(RebootError {
            code: RebootErrorCode::UncleanBoot,
            message: "the machine booted anew without an orderly shutdown".to_owned(),
        });
    } else {
        reboot.status = RebootStatus::Completed;
        // Set by hand, and set again or not: nobody knows.
        let comparable = boot.clock == Clock::Synchronized || !clock_was_set;
        reboot.down_seconds = down_seconds(reboot, &boot, record.started_clock).filter(|_| comparable);
    }
    effects.push(Effect::Note(Note::Ended(Box::new(reboot.clone()))));
    let down = reboot.status == RebootStatus::Completed;
    record.renew(begun || down);
}

/// From the request's start to the kernel's, if the clock was the same kind of
/// clock at both.
pub(super) fn down_seconds(reboot: &Reboot, boot: &Boot, started_clock: Option<Clock>) -> Option<f64> {
    let comparable = started_clock.is_none_or(|clock| clock == boot.clock);
    let down = boot.boot_time.seconds_since(reboot.started_at?);
    (comparable && down >= 0.0).then_some(down)
}

/// Takes the times of the running boot from a clock that was set; `false` if
/// they were right already.
fn correct(record: &mut Record, clock: Clock, boot_time: Time) -> bool {
    let moved = boot_time.unix_millis() - record.boot.boot_time.unix_millis();
    // A clock that was synchronised was right then, whatever it is now.
    let worse = record.boot.clock == Clock::Synchronized && clock == Clock::Unsynchronized;
    if worse || (record.boot.clock == clock && moved.abs() < NOTICEABLE_MS) {
        return false;
    }
    record.clock_was_set |= record.boot.clock == clock && clock == Clock::Unsynchronized;
    (record.boot.boot_time, record.boot.clock) = (boot_time, clock);
    if let Some(time) = &mut record.reboot_time {
        *time = boot_time;
    }
    if let Some(known) = &mut record.health {
        known.told.since = moved_by(known.told.since, moved);
    }
    if let Some(need) = &mut record.reboot_required {
        shift(&mut need.since, moved);
    }
    // The clock that the start of an earlier request was taken from is known as long as the
    // newest has not begun.
    let began = record
        .reboot
        .as_ref()
        .is_some_and(|newest| newest.started_at.is_some() && newest.previous_boot_id == record.boot.boot_id);
    for unheard in &mut record.unheard {
        let comparable = clock == Clock::Synchronized && !began;
        correct_reboot(&mut unheard.reboot, &record.boot, record.started_clock, comparable, moved);
    }
    if let Some(newest) = &mut record.reboot {
        let comparable = clock == Clock::Synchronized;
        correct_reboot(newest, &record.boot, record.started_clock, comparable, moved);
    }
    record.note_boot();
    true
}

/// The same for the times of a request, which were off by `moved` milliseconds.
/// `comparable` tells whether it can be said how long the machine was down for it.
fn correct_reboot(
    reboot: &mut Reboot,
    boot: &Boot,
    started_clock: Option<Clock>,
    comparable: bool,
    moved: i64,
) {
    if reboot.boot_id.as_ref() == Some(&boot.boot_id) {
        // Concluded at the start of this boot.
        shift(&mut reboot.completed_at, moved);
        if reboot.status == RebootStatus::Completed {
            let down = down_seconds(reboot, boot, started_clock);
            reboot.down_seconds = down.filter(|_| comparable);
        }
    } else if reboot.previous_boot_id == boot.boot_id {
        // Of this boot. One that has begun may have been asked for in an
        // earlier one, by another clock.
        if reboot.started_at.is_none() {
            reboot.requested_at = moved_by(reboot.requested_at, moved);
        }
        shift(&mut reboot.started_at, moved);
        shift(&mut reboot.completed_at, moved);
    }
}

/// What was given as a span of time stays one when the clock is set.
fn shift_plan(record: &mut Record, moved: i64) {
    let (Some(reboot), Some(plan)) = (&mut record.reboot, &mut record.plan) else { return };
    // Waiting for an inhibitor never outlives a boot.
    shift(&mut plan.wait_until, moved);
    if plan.delayed && reboot.previous_boot_id == record.boot.boot_id {
        shift(&mut plan.moved_from, moved);
        shift(&mut reboot.not_before, moved);
    }
}

fn shift(time: &mut Option<Time>, moved: i64) {
    *time = time.map(|time| moved_by(time, moved));
}

fn moved_by(time: Time, moved: i64) -> Time {
    Time::from_unix_millis(time.unix_millis().saturating_add(moved))
}
