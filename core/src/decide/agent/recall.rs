//! A start without a record: it may be the first one ever, or the record did not
//! survive. What the twin remembers then stands for the record.

use iotdm_proto::Time;
use iotdm_proto::reply::{Granted, RebootReply};
use iotdm_proto::report::{BootCause, Reboot, RebootError, RebootErrorCode, RebootStatus, RequestedBy};

use super::resume::down_seconds;
use super::{Core, Phase, Step};
use crate::decide::effect::{Effect, Note};
use crate::decide::ids::GrantedRequest;
use crate::decide::memory::Memory;
use crate::decide::record::Asked;
use crate::decide::request::DesiredReboot;

impl Core {
    /// Takes what the twin remembers for the record that is gone. `wish` is what
    /// the twin wishes for now.
    pub(super) fn recall(
        &mut self,
        phase: Phase,
        memory: Memory,
        wish: Option<&DesiredReboot>,
        now: Time,
    ) -> Step {
        self.record.lost = false;
        if memory == Memory::default() {
            return (phase, vec![self.save(), self.report()]);
        }
        let mut effects = vec![Effect::Note(Note::Recalled { id: memory.reboot_id.clone() })];
        self.recall_boot(&memory);
        let stands = wish.and_then(DesiredReboot::id);
        let own_id = self.own_id();
        let taken_up_anew = memory.reboot.as_ref().is_some_and(|reboot| {
            let wanted = match reboot.requested_by {
                RequestedBy::Method => None,
                RequestedBy::Twin => stands,
                RequestedBy::Device => own_id.as_deref(),
            };
            is_for_later(reboot) && wanted == Some(&reboot.id)
        });
        let is_own = memory.reboot.as_ref().is_some_and(|reboot| reboot.requested_by == RequestedBy::Device);
        if !(taken_up_anew && is_own) && (self.need.is_some() || !self.has_settled()) {
            self.record.asked_for.clone_from(&memory.asked_for);
        }
        if !taken_up_anew {
            for id in memory.reboot_id.iter().chain(&memory.last_wish) {
                let begun = memory
                    .reboot
                    .as_ref()
                    .is_none_or(|reboot| reboot.id != *id || reboot.started_at.is_some());
                self.recall_id(id, begun);
            }
            self.record.reboot = memory.reboot.clone();
            let reboot = memory.reboot.as_ref();
            self.record.failed_before = reboot.map_or_else(Vec::new, |reboot| reboot.failed_before.clone());
        }
        self.record.last_wish = memory.last_wish;
        self.record.starts.extend(memory.reboot.as_ref().and_then(|reboot| reboot.started_at));
        let clock = memory.boot.map(|boot| boot.clock);
        self.record.started_clock = clock;
        let phase = self.conclude_recalled(phase, now, &mut effects);
        self.record.note_boot();
        self.judge_health(now);
        effects.push(self.save());
        // The wish that is taken up anew is reported when that is done; until
        // then the twin is to keep what it remembers.
        if !taken_up_anew {
            effects.push(self.report());
        }
        (phase, effects)
    }

    /// A twin that knows another boot has seen the running one follow it.
    fn recall_boot(&mut self, memory: &Memory) {
        let Some(known) = &memory.boot else { return };
        if known.boot_id == self.record.boot.boot_id {
            let boot = &mut self.record.boot;
            (boot.cause, boot.detail) = (known.cause, known.detail);
            (boot.count, boot.unclean_count) = (known.count, known.unclean_count);
            self.recall_health(memory);
            self.record.reboot_time = memory.reboot_time.map(|_| self.booted);
            return;
        }
        self.record.reboot_time = Some(self.booted);
        let boot = &mut self.record.boot;
        (boot.count, boot.unclean_count) =
            (known.count.map(|count| count.saturating_add(1)), known.unclean_count);
        // A shutdown while a request was pending may have been for it.
        let pending = memory.reboot.as_ref().is_some_and(|reboot| !reboot.status.is_final());
        if self.shut_down.as_ref() == Some(&known.boot_id) && !pending {
            self.record.boot.cause = BootCause::Local;
        }
    }

    /// The hub was reached before in this boot, at an instant that only the twin
    /// knows, if anybody.
    fn recall_health(&mut self, memory: &Memory) {
        let reached = memory.health.as_ref().filter(|health| health.boot_id == self.record.boot.boot_id);
        let reached = reached.and_then(|health| health.hub_reached_after_seconds);
        self.whole_boot = false;
        if let Some(known) = &mut self.record.health {
            known.whole_boot = false;
            known.told.hub_reached_after_seconds = reached;
        }
    }

    /// What was replied to an earlier request is lost, but not that there was one.
    fn recall_id(&mut self, id: &str, begun: bool) {
        let reply = RebootReply {
            id: id.to_owned(),
            status: Granted::Accepted,
            message: "this request was granted before; the device has lost its record of it since".to_owned(),
            not_before: None,
            boot_id: self.record.boot.boot_id.clone(),
            preflight: Vec::new(),
            if_it_hangs: None,
            ignored: Vec::new(),
        };
        if self.granted(id).is_none() {
            let passed = self.record.age.passed();
            self.record.granted.push(GrantedRequest::new(&reply, begun, passed));
        }
    }

    /// What became of the request that the twin remembers as not ended.
    fn conclude_recalled(&mut self, phase: Phase, now: Time, effects: &mut Vec<Effect>) -> Phase {
        let boot = self.record.boot.clone();
        let started_clock = self.record.started_clock;
        let Some(reboot) = self.record.reboot.as_mut().filter(|reboot| !reboot.status.is_final()) else {
            return phase;
        };
        (reboot.waiting_for, reboot.waiting_for_count) = (Vec::new(), None);
        if is_for_later(reboot) {
            (reboot.status, reboot.completed_at) = match reboot.requested_by {
                // The wish does not stand any more, nor does the need.
                RequestedBy::Twin | RequestedBy::Device => (RebootStatus::Cancelled, Some(now)),
                RequestedBy::Method => (RebootStatus::Failed, Some(now)),
            };
            reboot.error = (reboot.requested_by == RequestedBy::Method).then(|| RebootError {
                code: RebootErrorCode::RecordLost,
                // A hub that was slow may not have heard that it began.
                message:
                    "the device's record of this request did not survive, so nothing more is done for it"
                        .to_owned(),
            });
        } else if reboot.previous_boot_id == boot.boot_id {
            // logind may have been asked, and is not asked again.
            self.record.asked = Some(Asked::Agreed);
            effects.push(Effect::Deadline(Some(self.settings.down_timeout)));
            return Phase::Rebooting;
        } else {
            reboot.status = RebootStatus::Completed;
            reboot.completed_at = Some(now);
            reboot.boot_id = Some(boot.boot_id.clone());
            reboot.down_seconds = down_seconds(reboot, &boot, started_clock);
            self.record.boot.cause = BootCause::Requested;
            self.record.reboot_time = Some(self.booted);
        }
        if let Some(reboot) = &self.record.reboot {
            effects.push(Effect::Note(Note::Ended(Box::new(reboot.clone()))));
        }
        phase
    }
}

/// Whether the machine was not going to be rebooted yet.
fn is_for_later(reboot: &Reboot) -> bool {
    matches!(reboot.status, RebootStatus::Scheduled | RebootStatus::Waiting)
}
