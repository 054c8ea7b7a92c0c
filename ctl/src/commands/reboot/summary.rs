//! How a run went as a whole.

use super::ending::Ending;
use super::fleet::Stop;
use crate::error::Exit;
use crate::outcome::{Outcome, exit_of_all};
use crate::output::Output;

/// Counts the outcomes, and lists the devices that did not end well.
pub(super) fn print(output: Output, endings: &[Ending]) -> anyhow::Result<()> {
    output.line(format_args!("{}", counts(endings)))?;
    let bad = |ending: &&Ending| ending.outcome.exit() != Exit::Done && ending.outcome != Outcome::NotStarted;
    let row = |ending: &Ending| {
        vec![
            ending.device.clone(),
            ending.outcome.words().to_owned(),
            ending.error.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<Vec<String>> = endings.iter().filter(bad).map(row).collect();
    if rows.is_empty() { Ok(()) } else { Ok(output.table(&["DEVICE", "OUTCOME", "WHY"], &rows)?) }
}

fn counts(endings: &[Ending]) -> String {
    let mut counts: Vec<(Outcome, usize)> = Vec::new();
    for ending in endings {
        match counts.iter_mut().find(|(outcome, _)| *outcome == ending.outcome) {
            Some((_, count)) => *count += 1,
            None => counts.push((ending.outcome, 1)),
        }
    }
    // What went well, then what did not, then what was not begun.
    counts.sort_by_key(|(outcome, count)| {
        (*outcome == Outcome::NotStarted, outcome.exit() != Exit::Done, std::cmp::Reverse(*count))
    });
    let each = counts.iter().map(|(outcome, count)| format!("{count} {}", outcome.words()));
    let devices = if endings.len() == 1 { "device" } else { "devices" };
    format!("{} {devices}: {}", endings.len(), each.collect::<Vec<_>>().join(", "))
}

/// The exit code: the devices' own if they agree. Where the hub failed, that
/// is what happened, though it did not come to the rest.
pub(super) fn exit(endings: &[Ending], stop: Option<Stop>) -> Exit {
    let begun = |outcome: &Outcome| stop != Some(Stop::Hub) || *outcome != Outcome::NotStarted;
    exit_of_all(endings.iter().map(|ending| ending.outcome).filter(begun))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endings(outcomes: &[Outcome]) -> Vec<Ending> {
        let device = "gw1".parse().unwrap();
        let ending = |outcome: &Outcome| Ending { outcome: *outcome, ..Ending::not_started(&device, "r-1") };
        outcomes.iter().map(ending).collect()
    }

    #[test]
    fn counts_the_good_first_and_the_unbegun_last() {
        use Outcome::*;
        let several = endings(&[NotStarted, Offline, Completed, NotStarted, Refused, Refused]);
        assert_eq!(counts(&several), "6 devices: 1 completed, 2 refused, 1 offline, 2 not started");
        assert_eq!(counts(&endings(&[TimedOut])), "1 device: 1 timed out");
    }

    #[test]
    fn what_was_not_started_makes_it_mixed_but_for_the_hubs_fault() {
        use Outcome::*;
        for (outcomes, stop, expected) in [
            (&[Completed, Completed][..], None, Exit::Done),
            (&[Refused, NotStarted], Some(Stop::Canary), Exit::RebootFailed),
            (&[NotAuthorized, NotStarted], Some(Stop::Hub), Exit::NotAuthorized),
            (&[Completed, Error, NotStarted], Some(Stop::Hub), Exit::RebootFailed),
        ] {
            assert_eq!(exit(&endings(outcomes), stop), expected, "{outcomes:?}");
        }
    }
}
