//! What a shell is told when somebody presses Tab. Its script asks this
//! program itself, so that device ids come from the hub.

use std::env;
use std::ffi::{OsStr, OsString};
use std::time::Duration;

use clap::{Command, CommandFactory as _, FromArgMatches as _};
use clap_complete::env::Shells;
use clap_complete::{ArgValueCompleter, CompleteEnv, CompletionCandidate, Shell};
use serde_json::Value;

use crate::cli::{Cli, HubArgs};
use crate::hub::{Hub, literal};
use crate::target::{Environment, Target};

/// By this variable the script says that it is the shell that asks.
const VARIABLE: &str = "COMPLETE";

/// Somebody waits with a finger on the key.
const PATIENCE: Duration = Duration::from_secs(3);

/// One page, and so one query: a small hub takes 20 of them in a minute, and
/// more ids are of no use on a screen.
const MOST: usize = 100;

/// Answers and ends the process, if it is a shell that asks.
pub fn answer() {
    CompleteEnv::with_factory(Cli::command).var(VARIABLE).bin("iotdm-ctl").completer("iotdm-ctl").complete();
}

/// The script that a shell is to read.
pub fn script(shell: Shell) -> std::io::Result<Vec<u8>> {
    let mut script = Vec::new();
    let shells = Shells::builtins();
    let completer = shells.completer(&shell.to_string()).ok_or(std::io::ErrorKind::Unsupported)?;
    completer.write_registration(VARIABLE, "iotdm-ctl", "iotdm-ctl", "iotdm-ctl", &mut script)?;
    Ok(script)
}

/// Completes the id of a device that the hub has.
pub fn device() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        // Whatever is wrong, there is nobody to tell in the middle of a line.
        let Some(prefix) = current.to_str() else { return Vec::new() };
        let words = env::args_os().skip_while(|word| word != "--").skip(1);
        device_ids(words, prefix).unwrap_or_default()
    })
}

fn device_ids(
    words: impl Iterator<Item = OsString>,
    prefix: &str,
) -> anyhow::Result<Vec<CompletionCandidate>> {
    let target = Target::find(&hub_args(words), &Environment::of_the_process())?;
    let hub = Hub::new(target)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let rows = runtime.block_on(async {
        let query = hub.query(&query_for(prefix), Some(MOST)).all();
        tokio::time::timeout(PATIENCE, query).await
    })??;
    let ids = rows.iter().filter_map(|row| row.get("deviceId").and_then(Value::as_str));
    Ok(ids.filter(|id| id.starts_with(prefix)).map(CompletionCandidate::new).collect())
}

/// The devices from `prefix` on; the language has no other way to say how a
/// string begins. No id has a character after `~`.
fn query_for(prefix: &str) -> String {
    let (first, last) = (literal(prefix), literal(&format!("{prefix}~")));
    format!("SELECT deviceId FROM devices WHERE deviceId >= {first} AND deviceId <= {last}")
}

/// Which hub an unfinished command line means.
fn hub_args(words: impl Iterator<Item = OsString>) -> HubArgs {
    // Of its own, as one that is unfinished is not taken by the whole command.
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
    fn only_what_can_be_meant_is_asked_for() {
        let expected = r"SELECT deviceId FROM devices WHERE deviceId >= 'o\'c' AND deviceId <= 'o\'c~'";
        assert_eq!(query_for("o'c"), expected);
    }

    #[test]
    fn every_shell_has_its_script() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
            let script = String::from_utf8(script(shell).unwrap()).unwrap();
            assert!(script.contains("iotdm-ctl") && script.contains(VARIABLE), "{shell}: {script}");
        }
    }
}
