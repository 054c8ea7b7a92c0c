//! The summary of a run: what it came to as a whole.

use std::io;

use iotdm_proto::DeviceId;
use serde_json::json;

use super::device_outcome::DeviceOutcome;
use super::fleet::StopReason;
use super::outcome::{Outcome, exit_of_all};
use crate::exit::Exit;
use crate::output::{Output, cell};

/// An outcome, as far as a summary shows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'a> {
    /// The device.
    pub(super) device: &'a DeviceId,
    /// The kind of outcome.
    pub(super) outcome: Outcome,
    /// What went wrong, in a sentence.
    pub(super) error: Option<&'a str>,
}

impl<'a> From<&'a DeviceOutcome> for Line<'a> {
    fn from(on: &'a DeviceOutcome) -> Self {
        Line { device: &on.device, outcome: on.outcome, error: on.error.as_deref() }
    }
}

/// Prints how many devices came to which outcome, of a dry run that it was one, and lists
/// the devices that were asked and did not do it.
pub(super) fn print<'a>(
    output: Output,
    is_dry_run: bool,
    outcomes: impl Iterator<Item = Line<'a>> + Clone,
) -> io::Result<()> {
    let dry_run = if is_dry_run { "dry run, nothing was rebooted: " } else { "" };
    output.line(format_args!("{dry_run}{}", counts(outcomes.clone().map(|on| on.outcome))))?;
    let is_bad = |on: &Line<'_>| on.outcome.exit() != Exit::Done && on.outcome != Outcome::NotStarted;
    let row = |on: Line<'_>| {
        vec![on.device.to_string(), on.outcome.words().to_owned(), on.error.unwrap_or_default().to_owned()]
    };
    let rows: Vec<Vec<String>> = outcomes.filter(is_bad).map(row).collect();
    if rows.is_empty() { Ok(()) } else { output.table(&["DEVICE", "OUTCOME", "WHY"], &rows) }
}

/// Prints what became of each device, as CSV.
pub(super) fn print_csv(output: Output, outcomes: &[DeviceOutcome]) -> io::Result<()> {
    let row = |on: &DeviceOutcome| {
        let time = on.told.reported.reboot_time.as_ref();
        let seconds = on.told.seconds.map(|seconds| format!("{seconds:.1}"));
        vec![
            on.device.to_string(),
            on.id.to_string(),
            json!(on.outcome).as_str().unwrap_or_default().to_owned(),
            time.map_or_else(String::new, |time| cell(Some(time))),
            seconds.unwrap_or_default(),
            on.why().unwrap_or_default().to_owned(),
        ]
    };
    let rows: Vec<Vec<String>> = outcomes.iter().map(row).collect();
    output.table(&["DEVICE", "ID", "OUTCOME", "LAST REBOOT", "SECONDS", "WHY"], &rows)
}

/// How many devices came to which outcome, in one line.
pub(super) fn counts(outcomes: impl Iterator<Item = Outcome>) -> String {
    let (mut counts, mut all): (Vec<(Outcome, usize)>, usize) = (Vec::new(), 0);
    for on in outcomes {
        all += 1;
        match counts.iter_mut().find(|(outcome, _)| *outcome == on) {
            Some((_, count)) => *count += 1,
            None => counts.push((on, 1)),
        }
    }
    // First successes, then those that needed nothing, then failures, then the devices that were not asked.
    counts.sort_by_key(|(outcome, count)| {
        let is_untouched = *outcome == Outcome::NotNeeded;
        (
            *outcome == Outcome::NotStarted,
            outcome.exit() != Exit::Done,
            is_untouched,
            std::cmp::Reverse(*count),
        )
    });
    let each = counts.iter().map(|(outcome, count)| format!("{count} {}", outcome.words()));
    let devices = if all == 1 { "device" } else { "devices" };
    format!("{all} {devices}: {}", each.collect::<Vec<_>>().join(", "))
}

/// The exit code of the run: that of each device if they agree. A journal that could
/// not be written is this program's own failure. If the run stopped
/// because the hub failed, the devices that it did not come to do not count: the
/// code is then that of the hub's failure.
pub(super) fn exit(outcomes: impl Iterator<Item = Outcome>, stop: Option<StopReason>) -> Exit {
    if stop == Some(StopReason::Journal) {
        return Exit::Failure;
    }
    let counts = |outcome: &Outcome| stop != Some(StopReason::Hub) || *outcome != Outcome::NotStarted;
    exit_of_all(outcomes.filter(counts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_the_good_first_and_the_unbegun_last() {
        use Outcome::*;
        let several = [NotNeeded, NotStarted, Offline, NotNeeded, Completed, NotStarted, Refused, Refused];
        assert_eq!(
            counts(several.into_iter()),
            "8 devices: 1 completed, 2 not needed, 2 refused, 1 offline, 2 not started"
        );
        assert_eq!(counts([TimedOut].into_iter()), "1 device: 1 timed out");
    }

    #[test]
    fn what_was_not_started_makes_it_mixed_but_for_the_hubs_fault() {
        use Outcome::*;
        for (outcomes, stop, expected) in [
            (&[Completed, Completed][..], None, Exit::Done),
            (&[Refused, NotStarted], Some(StopReason::Canary), Exit::RebootFailed),
            (&[NotAuthorized, NotStarted], Some(StopReason::Hub), Exit::NotAuthorized),
            (&[Completed, Error, NotStarted], Some(StopReason::Hub), Exit::RebootFailed),
        ] {
            assert_eq!(exit(outcomes.iter().copied(), stop), expected, "{outcomes:?}");
        }
    }
}
