//! The summary of a run: what it came to as a whole.

use std::io;

use serde_json::json;

use super::device_outcome::DeviceOutcome;
use super::fleet::StopReason;
use super::outcome::{Outcome, exit_of_all};
use crate::exit::Exit;
use crate::output::{Output, cell};

/// Prints how many devices came to which outcome, and lists the devices that were
/// asked and did not do it.
pub(super) fn print(output: Output, outcomes: &[DeviceOutcome]) -> io::Result<()> {
    let checked = outcomes.iter().any(|on| on.outcome == Outcome::Checked);
    let dry_run = if checked { "dry run, nothing was rebooted: " } else { "" };
    output.line(format_args!("{dry_run}{}", counts(outcomes)))?;
    let is_bad = |on: &&DeviceOutcome| on.outcome.exit() != Exit::Done && on.outcome != Outcome::NotStarted;
    let row = |on: &DeviceOutcome| {
        vec![on.device.to_string(), on.outcome.words().to_owned(), on.error.clone().unwrap_or_default()]
    };
    let rows: Vec<Vec<String>> = outcomes.iter().filter(is_bad).map(row).collect();
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
pub(super) fn counts(outcomes: &[DeviceOutcome]) -> String {
    let mut counts: Vec<(Outcome, usize)> = Vec::new();
    for on in outcomes {
        match counts.iter_mut().find(|(outcome, _)| *outcome == on.outcome) {
            Some((_, count)) => *count += 1,
            None => counts.push((on.outcome, 1)),
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
    let devices = if outcomes.len() == 1 { "device" } else { "devices" };
    format!("{} {devices}: {}", outcomes.len(), each.collect::<Vec<_>>().join(", "))
}

/// The exit code of the run: that of each device if they agree. A journal that could
/// not be written is this program's own failure. If the run stopped
/// because the hub failed, the devices that it did not come to do not count: the
/// code is then that of the hub's failure.
pub(super) fn exit(outcomes: &[DeviceOutcome], stop: Option<StopReason>) -> Exit {
    if stop == Some(StopReason::Journal) {
        return Exit::Failure;
    }
    let counts = |outcome: &Outcome| stop != Some(StopReason::Hub) || *outcome != Outcome::NotStarted;
    exit_of_all(outcomes.iter().map(|on| on.outcome).filter(counts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_devices(outcomes: &[Outcome]) -> Vec<DeviceOutcome> {
        let not_started = DeviceOutcome::not_started(&"gw1".parse().unwrap(), &"r-1".parse().unwrap());
        outcomes.iter().map(|outcome| DeviceOutcome { outcome: *outcome, ..not_started.clone() }).collect()
    }

    #[test]
    fn counts_the_good_first_and_the_unbegun_last() {
        use Outcome::*;
        let several = [NotNeeded, NotStarted, Offline, NotNeeded, Completed, NotStarted, Refused, Refused];
        assert_eq!(
            counts(&on_devices(&several)),
            "8 devices: 1 completed, 2 not needed, 2 refused, 1 offline, 2 not started"
        );
        assert_eq!(counts(&on_devices(&[TimedOut])), "1 device: 1 timed out");
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
            assert_eq!(exit(&on_devices(outcomes), stop), expected, "{outcomes:?}");
        }
    }
}
