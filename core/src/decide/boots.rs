//! The boots that the daemon has seen: how many, the last ones, and what the
//! machine itself tells of how one ended.

use iotdm_proto::reply::PastBoot;
use iotdm_proto::report::{Boot, BootCause, BootDetail};

use super::event::{Start, Traces};
use super::record::{BootCounts, Record};

/// How many boots are remembered, the running one included.
const MAX_BOOTS: usize = 32;

impl BootCounts {
    /// Those of one cause.
    pub fn of(mut self, cause: BootCause) -> u64 {
        *self.count(cause)
    }

    fn count(&mut self, cause: BootCause) -> &mut u64 {
        match cause {
            BootCause::Requested => &mut self.requested,
            BootCause::Local => &mut self.local,
            BootCause::Unclean => &mut self.unclean,
            BootCause::Unknown => &mut self.unknown,
        }
    }
}

impl Record {
    /// The boots by their cause. Where they were not counted so yet, as far as that
    /// can be told.
    pub fn boot_counts(&self) -> BootCounts {
        self.boot_counts.unwrap_or_else(|| {
            let mut counts = BootCounts::default();
            for boot in self.boots.iter().filter(|boot| boot.cause != BootCause::Unknown) {
                *counts.count(boot.cause) += 1;
            }
            counts.unclean = counts.unclean.max(self.boot.unclean_count.unwrap_or_default());
            let known = counts.requested + counts.local + counts.unclean;
            counts.unknown = self.boot.count.unwrap_or(1).saturating_sub(known);
            counts
        })
    }

    /// Takes the boot of `start`, which had that `cause`, for the running one.
    pub(super) fn begin_boot(&mut self, start: &Start, cause: BootCause) {
        let mut counts = self.boot_counts();
        let counted = counts.count(cause);
        *counted = counted.saturating_add(1);
        self.boot_counts = Some(counts);
        let before = &self.boot;
        let unclean = u64::from(cause == BootCause::Unclean);
        self.boot = Boot {
            detail: detail(self.panics.as_deref(), &start.traces, cause),
            // A record from before boots were counted knows of one.
            count: Some(before.count.unwrap_or(1).saturating_add(1)),
            unclean_count: Some(before.unclean_count.unwrap_or(0).saturating_add(unclean)),
            ..first_boot(start)
        };
        self.boot.cause = cause;
        self.note_panics(start);
        self.note_boot();
    }

    /// Remembers the dumps that are there, so that only others count as new.
    pub(super) fn note_panics(&mut self, start: &Start) {
        if start.traces.panics.is_some() {
            self.panics.clone_from(&start.traces.panics);
        }
    }

    /// Remembers the running boot as it is known now, with the request that it
    /// ended, if it has ended one.
    pub(super) fn note_boot(&mut self) {
        let Boot { boot_id, boot_time, cause, detail, .. } = self.boot.clone();
        let known = self.boots.pop_if(|boot| boot.boot_id == boot_id);
        let ended = self.reboot.as_ref().filter(|reboot| reboot.boot_id.as_ref() == Some(&boot_id));
        let (request_id, down_seconds) = match (ended, known) {
            (Some(reboot), _) => (Some(reboot.id.clone()), reboot.down_seconds),
            (None, Some(known)) => (known.request_id, known.down_seconds),
            (None, None) => (None, None),
        };
        self.boots.push(PastBoot { boot_id, boot_time, cause, detail, request_id, down_seconds });
        let excess = self.boots.len().saturating_sub(MAX_BOOTS);
        self.boots.drain(..excess);
    }

    /// The boots, the newest first.
    pub(super) fn past_boots(&self) -> Vec<PastBoot> {
        self.boots.iter().rev().cloned().collect()
    }
}

/// The boot of the first start ever.
pub(super) fn first_boot(start: &Start) -> Boot {
    Boot {
        boot_id: start.boot_id.clone(),
        boot_time: start.boot_time,
        cause: BootCause::Unknown,
        clock: start.clock,
        detail: start.traces.watchdog.then_some(BootDetail::Watchdog),
        count: Some(1),
        unclean_count: Some(0),
    }
}

/// What the `traces` tell of the end of the boot before, where the dumps `known`
/// were there in that boot already.
///
/// A kernel that went on after an oops leaves a dump as well, so a dump counts
/// only where the boot did not end in good order. A watchdog may have ended an
/// orderly shutdown that hung; after a panic it tells less than the dump.
fn detail(known: Option<&[String]>, traces: &Traces, cause: BootCause) -> Option<BootDetail> {
    let is_new = |known: &[String], found: &[String]| found.iter().any(|dump| !known.contains(dump));
    let panicked = known.zip(traces.panics.as_deref()).is_some_and(|(known, found)| is_new(known, found));
    match (panicked && cause == BootCause::Unclean, traces.watchdog) {
        (true, _) => Some(BootDetail::KernelPanic),
        (false, true) => Some(BootDetail::Watchdog),
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(boot_id: &str) -> Start {
        Start::of(boot_id, 0)
    }

    #[test]
    fn each_boot_counts_once_also_those_that_are_not_remembered_any_more() {
        use BootCause::{Local, Requested, Unclean};
        let mut record = Record::new(first_boot(&start("0")));
        record.note_boot();
        let counts = |requested, local, unclean, unknown| BootCounts { requested, local, unclean, unknown };
        assert_eq!(record.boot_counts(), counts(0, 0, 0, 1));
        for number in 1..=90 {
            let cause = [Requested, Local, Unclean][number % 3];
            record.begin_boot(&start(&number.to_string()), cause);
        }
        assert_eq!(record.boot_counts(), counts(30, 30, 30, 1));
        assert_eq!(record.boot_counts().of(Unclean), 30);
        // Of an earlier version's record only what it has counted is known.
        record.boot_counts = None;
        let derived = record.boot_counts();
        assert_eq!((derived.unclean, record.boot.count), (30, Some(91)));
        assert_eq!(derived.requested + derived.local + derived.unclean + derived.unknown, 91);
        record.begin_boot(&start("91"), Local);
        let later = BootCounts { local: derived.local + 1, ..derived };
        assert_eq!(record.boot_counts(), later, "no count goes back");
    }

    /// A record from before boots were counted by their cause has only those that it
    /// remembers one by one, and how many there were in all.
    #[test]
    fn what_an_older_version_has_not_counted_is_counted_from_the_boots_it_remembers() {
        use BootCause::{Local, Requested, Unclean};
        let mut record = Record::new(first_boot(&start("0")));
        record.note_boot();
        for (number, cause) in [Requested, Requested, Local, Unclean].into_iter().enumerate() {
            record.begin_boot(&start(&format!("b{number}")), cause);
        }
        record.boot_counts = None;
        let counted = BootCounts { requested: 2, local: 1, unclean: 1, unknown: 1 };
        assert_eq!(record.boot_counts(), counted);
        // It knows of more than the boots that it has kept.
        record.boot.count = Some(41);
        record.boot.unclean_count = Some(3);
        assert_eq!(record.boot_counts(), BootCounts { unclean: 3, unknown: 35, ..counted });
    }

    #[test]
    fn only_what_the_machine_tells_is_told() {
        let dumps = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        use BootCause::{Local, Requested, Unclean};
        use BootDetail::{KernelPanic, Watchdog};
        for (known, found, watchdog, cause, expected) in [
            (dumps(&[]), dumps(&["7"]), false, Unclean, Some(KernelPanic)),
            (dumps(&["7"]), dumps(&["7"]), false, Unclean, None),
            (dumps(&["7"]), dumps(&["7", "8"]), true, Unclean, Some(KernelPanic)),
            // An administrator has tidied up.
            (dumps(&["7", "8"]), dumps(&["8"]), false, Unclean, None),
            // What was there before is not known, or what is there now.
            (None, dumps(&["7"]), false, Unclean, None),
            (dumps(&["7"]), None, false, Unclean, None),
            // The kernel has lived on after that dump.
            (dumps(&[]), dumps(&["7"]), false, Local, None),
            (dumps(&["7"]), dumps(&["7"]), true, Unclean, Some(Watchdog)),
            (None, None, true, Requested, Some(Watchdog)),
        ] {
            let traces = Traces { panics: found, watchdog };
            assert_eq!(detail(known.as_deref(), &traces, cause), expected, "{known:?} {traces:?} {cause}");
        }
    }
}
