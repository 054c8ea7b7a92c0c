//! Completes the ids of devices on a shell's command line, by asking the hub
//! that the line means.

use std::ffi::{OsStr, OsString};
use std::sync::OnceLock;
use std::time::Duration;

use clap::{Command, FromArgMatches as _};
use clap_complete::{ArgValueCompleter, CompletionCandidate};
use serde_json::Value;

use crate::hub::{HubClient, literal};
use crate::target::{Environment, HubArgs, Target};
use crate::values;

/// How long the hub may take: somebody waits with a finger on the Tab key.
const PATIENCE: Duration = Duration::from_secs(3);

/// How many ids are asked for: one page, and so one query. A small hub takes 20
/// queries in a minute, and more ids are of no use on a screen.
const MOST: usize = 100;

/// The words of the unfinished command line, the program's name first.
static LINE: OnceLock<Vec<OsString>> = OnceLock::new();

/// Takes note of the words of the command line that is being completed.
pub(crate) fn remember(words: &[OsString]) {
    let _ = LINE.set(words.to_vec());
}

/// Completes the id of a device that the hub has.
pub fn completer() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        // Nothing is said about errors: a message in the middle of a command line
        // would only be in the way.
        let Some(prefix) = current.to_str() else { return Vec::new() };
        device_ids(LINE.get().cloned().unwrap_or_default().into_iter(), prefix).unwrap_or_default()
    })
}

/// The ids of the hub's devices that begin with `prefix`. `words` is the command
/// line so far.
fn device_ids(
    words: impl Iterator<Item = OsString>,
    prefix: &str,
) -> anyhow::Result<Vec<CompletionCandidate>> {
    let target = Target::find(&hub_args(words), &Environment::of_the_process())?;
    let hub = HubClient::new(target)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let rows = runtime.block_on(async {
        let query = hub.query(&query_for(prefix), Some(MOST)).all();
        tokio::time::timeout(PATIENCE, query).await
    })??;
    let ids = rows.iter().filter_map(|row| row.get("deviceId").and_then(Value::as_str));
    Ok(ids.filter(|id| id.starts_with(prefix) && is_argument(id)).map(CompletionCandidate::new).collect())
}

/// Whether a hub's word is a device id, and not one that this program would take
/// for an option.
fn is_argument(id: &str) -> bool {
    values::device_id(id).is_ok() && !id.starts_with('-')
}

/// The query for the devices whose ids begin with `prefix`. The query language
/// cannot say how a string begins, but what it lies between; `~` is beyond every
/// character of an id.
fn query_for(prefix: &str) -> String {
    let (first, last) = (literal(prefix), literal(&format!("{prefix}~")));
    format!("SELECT deviceId FROM devices WHERE deviceId >= {first} AND deviceId <= {last}")
}

/// Which hub an unfinished command line means.
fn hub_args(words: impl Iterator<Item = OsString>) -> HubArgs {
    // A parser for these options alone, as that of the whole command refuses a
    // line that is unfinished.
    let parser = <HubArgs as clap::Args>::augment_args(Command::new("iotdm-ctl"));
    let wanted: Vec<String> =
        parser.get_arguments().filter_map(|argument| Some(format!("--{}", argument.get_long()?))).collect();
    let mut words = words.peekable();
    let mut chosen = vec![OsString::from("iotdm-ctl")];
    while let Some(word) = words.next() {
        let text = word.to_string_lossy();
        if wanted.iter().any(|option| *option == text) {
            chosen.push(word);
            chosen.extend(words.next());
        } else if wanted.iter().any(|option| text.starts_with(&format!("{option}="))) {
            chosen.push(word);
        }
    }
    let matches = parser.try_get_matches_from(chosen);
    matches.and_then(|matches| HubArgs::from_arg_matches(&matches)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hub_of_an_unfinished_line() {
        let hub = |line: &str| hub_args(line.split(' ').map(OsString::from)).hub;
        assert_eq!(hub("iotdm-ctl --hub lab reboot --reason x gw"), Some("lab".into()));
        assert_eq!(hub("iotdm-ctl reboot --no-such gw1 --hub=lab "), Some("lab".into()));
        assert_eq!(hub("iotdm-ctl reboot gw"), None);
        assert_eq!(hub("iotdm-ctl reboot --hub"), None);
    }

    #[test]
    fn only_ids_are_completed() {
        assert!(is_argument("zz$(id);'x'"));
        for other in ["", "--yes", "-h", "a b", "`id`", "a\n", "a\u{1b}[2J", "a/../b", ".."] {
            assert!(!is_argument(other), "{other:?}");
        }
    }

    #[test]
    fn only_what_can_be_meant_is_asked_for() {
        let expected = r"SELECT deviceId FROM devices WHERE deviceId >= 'o\'c' AND deviceId <= 'o\'c~'";
        assert_eq!(query_for("o'c"), expected);
    }
}
