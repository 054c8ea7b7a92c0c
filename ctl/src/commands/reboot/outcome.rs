//! The kinds of outcomes, each with its words and its exit code.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::exit::Exit;

/// What became of a request on one device.
///
/// `ValueEnum` gives the full list, against which a test holds the help text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "camelCase")]
pub(super) enum Outcome {
    /// The device accepted the request, of which no more was waited for.
    Accepted,
    /// A dry run: the device would accept the request.
    Checked,
    /// The machine has booted anew.
    Completed,
    /// The machine has booted anew, but without an orderly shutdown.
    Unclean,
    /// The machine has booted anew, but something is wrong that was not before.
    Unhealthy,
    /// The device accepted the request and then could not reboot.
    Failed,
    /// The request was withdrawn before the reboot began.
    Cancelled,
    /// The machine needs no reboot, and only one that does was to be rebooted.
    NotNeeded,
    /// The device refused the request.
    Refused,
    /// The device is offline.
    Offline,
    /// The hub has no such device.
    NoSuchDevice,
    /// There was no reply, or nothing more to see, in time.
    TimedOut,
    /// The hub does not accept who we are, or what we may do.
    NotAuthorized,
    /// The hub still throttled after the retries.
    Throttled,
    /// The network, the hub or something in this program failed.
    Error,
    /// The run stopped before it came to this device.
    NotStarted,
}

impl Outcome {
    /// The exit code of a run for this device alone.
    pub(super) fn exit(self) -> Exit {
        match self {
            Outcome::Accepted | Outcome::Checked | Outcome::Completed | Outcome::NotNeeded => Exit::Done,
            Outcome::Unclean
            | Outcome::Unhealthy
            | Outcome::Failed
            | Outcome::Cancelled
            | Outcome::NotStarted => Exit::RebootFailed,
            Outcome::Refused => Exit::Refused,
            Outcome::Offline => Exit::Offline,
            Outcome::NoSuchDevice => Exit::NoSuchDevice,
            Outcome::TimedOut => Exit::TimedOut,
            Outcome::NotAuthorized => Exit::NotAuthorized,
            Outcome::Throttled => Exit::Throttled,
            Outcome::Error => Exit::Failure,
        }
    }

    /// Whether the machine has booted anew.
    pub(super) fn is_after_a_boot(self) -> bool {
        matches!(self, Outcome::Completed | Outcome::Unclean | Outcome::Unhealthy)
    }

    /// Whether there is anything left to do or to learn about the device, for a later run
    /// to take up.
    pub(super) fn can_be_resumed(self) -> bool {
        match self {
            Outcome::TimedOut
            | Outcome::NotAuthorized
            | Outcome::Throttled
            | Outcome::Error
            | Outcome::Offline
            | Outcome::NotStarted => true,
            Outcome::Accepted
            | Outcome::Checked
            | Outcome::Completed
            | Outcome::Unclean
            | Outcome::Unhealthy
            | Outcome::Failed
            | Outcome::Cancelled
            | Outcome::NotNeeded
            | Outcome::Refused
            | Outcome::NoSuchDevice => false,
        }
    }

    /// The outcome for people.
    pub(super) fn words(self) -> &'static str {
        match self {
            Outcome::Accepted => "accepted",
            Outcome::Checked => "checked",
            Outcome::Completed => "completed",
            Outcome::Unclean => "came back unclean",
            Outcome::Unhealthy => "unhealthy",
            Outcome::Failed => "failed",
            Outcome::Cancelled => "cancelled",
            Outcome::NotNeeded => "not needed",
            Outcome::Refused => "refused",
            Outcome::Offline => "offline",
            Outcome::NoSuchDevice => "no such device",
            Outcome::TimedOut => "timed out",
            Outcome::NotAuthorized => "not authorised",
            Outcome::Throttled => "throttled",
            Outcome::Error => "error",
            Outcome::NotStarted => "not started",
        }
    }

    /// The outcome that an error with the exit code `exit` amounts to.
    pub(super) fn of_error(exit: Exit) -> Self {
        match exit {
            Exit::Refused => Outcome::Refused,
            Exit::Offline => Outcome::Offline,
            Exit::NoSuchDevice => Outcome::NoSuchDevice,
            Exit::TimedOut => Outcome::TimedOut,
            Exit::NotAuthorized => Outcome::NotAuthorized,
            Exit::Throttled => Outcome::Throttled,
            Exit::Done | Exit::Failure | Exit::Usage | Exit::RebootFailed | Exit::Interrupted => {
                Outcome::Error
            }
        }
    }
}

/// The exit code for several devices: that of each if they agree, else
/// [`Exit::RebootFailed`].
pub(super) fn exit_of_all(outcomes: impl IntoIterator<Item = Outcome>) -> Exit {
    let mut exits = outcomes.into_iter().map(Outcome::exit);
    let first = exits.next().unwrap_or(Exit::Done);
    if exits.all(|exit| exit == first) { first } else { Exit::RebootFailed }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use serde_json::json;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn the_help_names_each_outcome_and_no_other() {
        let mut command = Cli::command();
        let help = command.find_subcommand_mut("reboot").unwrap().render_long_help().to_string();
        let (_, named) = help.split_once("outcome (").unwrap();
        let named = named.split(')').next().unwrap().split(',').map(str::trim).map(str::to_owned);
        let all = Outcome::value_variants().iter().map(|outcome| json!(outcome).as_str().unwrap().to_owned());
        let sorted = |words: Vec<String>| std::collections::BTreeSet::from_iter(words);
        assert_eq!(sorted(named.collect()), sorted(all.collect()));
    }

    /// The numbers that scripts rely on, and the words that people read.
    #[test]
    fn each_outcome_has_its_code_and_words() {
        use Outcome::*;
        let expected = [
            (Accepted, 0, "accepted"),
            (Checked, 0, "checked"),
            (Completed, 0, "completed"),
            (Unclean, 7, "came back unclean"),
            (Unhealthy, 7, "unhealthy"),
            (Failed, 7, "failed"),
            (Cancelled, 7, "cancelled"),
            (NotNeeded, 0, "not needed"),
            (Refused, 3, "refused"),
            (Offline, 4, "offline"),
            (NoSuchDevice, 5, "no such device"),
            (TimedOut, 6, "timed out"),
            (NotAuthorized, 8, "not authorised"),
            (Throttled, 9, "throttled"),
            (Error, 1, "error"),
            (NotStarted, 7, "not started"),
        ];
        let found = expected.map(|(outcome, ..)| (outcome, outcome.exit().code(), outcome.words()));
        assert_eq!(found, expected);
        assert_eq!(expected.len(), Outcome::value_variants().len());
        let booted = expected.map(|(outcome, ..)| outcome).into_iter().filter(|one| one.is_after_a_boot());
        assert_eq!(booted.collect::<Vec<_>>(), [Completed, Unclean, Unhealthy]);
        assert_eq!(exit_of_all([]), Exit::Done);
    }

    #[test]
    fn the_error_of_an_outcomes_exit_code_is_that_outcome() {
        let of_errors = |outcome: &&Outcome| Outcome::of_error(outcome.exit()) == **outcome;
        let found: Vec<&Outcome> = Outcome::value_variants().iter().filter(of_errors).collect();
        use Outcome::*;
        assert_eq!(found, [&Refused, &Offline, &NoSuchDevice, &TimedOut, &NotAuthorized, &Throttled, &Error]);
    }

    #[test]
    fn several_devices_agree_or_are_mixed() {
        use Outcome::*;
        for (outcomes, exit) in [
            (vec![Completed, Completed], Exit::Done),
            (vec![Completed, Accepted, NotNeeded], Exit::Done),
            (vec![Completed, Unhealthy], Exit::RebootFailed),
            (vec![Offline, Offline], Exit::Offline),
            (vec![Completed, Offline], Exit::RebootFailed),
            (vec![Refused, TimedOut], Exit::RebootFailed),
            (vec![Throttled], Exit::Throttled),
        ] {
            assert_eq!(exit_of_all(outcomes.clone()), exit, "{outcomes:?}");
        }
    }
}
