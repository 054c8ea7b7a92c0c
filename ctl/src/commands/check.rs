//! `check`: whether the hub is reached, what it lets us do, and what its tier
//! has.

mod line;
mod reach;

use self::line::{Line, Lines};
use self::reach::reach;
use crate::exit::Exit;
use crate::hub::{CLOCK_TOLERANCE, HubClient, HubError, Probe, Probed, RefusalKind};
use crate::output::Output;

/// What is tried of the hub, in the order of the lines: first the rights, then
/// what the tier has, for which the right `service` is needed.
const PROBES: [(&str, Probe); 5] = [
    ("service", Probe::Service),
    ("registry-read", Probe::RegistryRead),
    ("registry-write", Probe::RegistryWrite),
    ("methods", Probe::Methods),
    ("jobs", Probe::Jobs),
];

/// Checks one thing after the other, and prints a line for each.
pub async fn run(hub: &HubClient, output: Output) -> anyhow::Result<Exit> {
    let mut lines = Lines::default();
    if reach(hub, &mut lines).await {
        ask(hub, &mut lines).await;
    } else {
        let names = ["clock"].into_iter().chain(PROBES.map(|(name, _)| name));
        names.chain(["devices", "throttling"]).for_each(|name| lines.skipped(name, "the hub is not reached"));
    }
    if output.is_text() {
        let row =
            |line: &Line| vec![line.check.to_owned(), line.result.word().to_owned(), line.detail.clone()];
        output.table(&[], &lines.0.iter().map(row).collect::<Vec<_>>())?;
    } else {
        output.array(&lines.0)?;
    }
    Ok(lines.worst())
}

/// Checks what the hub itself tells: the clock, each right, and the tier.
async fn ask(hub: &HubClient, lines: &mut Lines) {
    let mut found = Vec::new();
    // Why methods and jobs are not tried, if they are not.
    let mut untried = None;
    for (name, probe) in PROBES {
        if untried.is_some() && matches!(probe, Probe::Methods | Probe::Jobs) {
            continue;
        }
        let probed = hub.probe(probe).await;
        if probe == Probe::Service {
            untried = unknown(&probed, "service");
        }
        found.push((name, probed));
    }
    clock(&found, lines);
    let mut statistics = Err("the hub's answer has no numbers".to_owned());
    for (name, probed) in found {
        if name == "registry-read" {
            statistics = unknown(&probed, name).map_or(statistics, Err);
        }
        match probed {
            Ok(Probed { refusal: Some(refusal), .. }) => {
                lines.failed(name, refusal.to_string(), refusal.kind().into());
            }
            Ok(probed) => {
                lines.ok(name, "allowed".to_owned());
                statistics = probed.devices.map_or(statistics, Ok);
            }
            Err(error) => lines.failed(name, error.to_string(), Exit::from(&error)),
        }
    }
    if let Some(why) = untried {
        ["methods", "jobs"].into_iter().for_each(|name| lines.skipped(name, &why));
    }
    match statistics {
        Ok((all, disabled)) => lines.ok("devices", format!("{all} registered, {disabled} of them disabled")),
        Err(why) => lines.skipped("devices", &why),
    }
    match hub.throttled() {
        0 => lines.ok("throttling", "none of these requests was throttled".to_owned()),
        count => {
            let detail =
                format!("the hub throttled {count} requests; somebody else may be using up its tier");
            lines.failed("throttling", detail, Exit::Throttled);
        }
    }
}

/// Why nothing is known of what needs the right that was probed. `None` if we
/// have the right.
fn unknown(probed: &Result<Probed, HubError>, right: &str) -> Option<String> {
    match probed {
        Ok(Probed { refusal: None, .. }) => None,
        Ok(Probed { refusal: Some(refusal), .. }) if refusal.kind() == RefusalKind::NotAuthorized => {
            Some(format!("it needs the right {right}"))
        }
        _ => Some(format!("the check of {right} failed")),
    }
}

/// Compares our clock with the hub's, by the first of the hub's answers that has a
/// date.
fn clock(found: &[(&str, Result<Probed, HubError>)], lines: &mut Lines) {
    let ahead = found.iter().find_map(|(_, probed)| probed.as_ref().ok()?.clock_ahead);
    match ahead {
        None => lines.skipped("clock", "the hub's answers have no date"),
        Some(ahead) if ahead.abs() > CLOCK_TOLERANCE => {
            let side = if ahead > 0 { "ahead of" } else { "behind" };
            let detail = format!("{} s {side} the hub's; set it right", ahead.abs());
            lines.failed("clock", detail, Exit::Failure);
        }
        Some(ahead) => lines.ok("clock", format!("{} s from the hub's", ahead.abs())),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn the_help_names_every_probe() {
        let mut command = Cli::command();
        let help = command.find_subcommand_mut("check").unwrap().render_long_help().to_string();
        for (name, probe) in PROBES {
            assert!(help.contains(name), "{probe:?}");
        }
    }
}
