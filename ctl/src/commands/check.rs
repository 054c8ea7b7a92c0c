//! `check`: whether the hub is reached, what it lets us do, and what its tier
//! shows of itself.

mod reach;

use serde::Serialize;

use self::reach::reach;
use crate::error::Exit;
use crate::hub::{Hub, Probe, Probed};
use crate::hub_error::HubError;
use crate::output::Output;
use crate::refusal::{Kind, SKEW_LIMIT};

/// What is tried of the hub, in the order of the lines. What comes after the
/// rights needs that of a service, and tells of the tier.
const PROBES: [(&str, Probe); 5] = [
    ("service", Probe::Service),
    ("registry-read", Probe::RegistryRead),
    ("registry-write", Probe::RegistryWrite),
    ("methods", Probe::Methods),
    ("jobs", Probe::Jobs),
];

/// Not reaching the hub is worse than not being let in, and that than having
/// to wait.
const ORDER: [Exit; 3] = [Exit::Failure, Exit::NotAuthorized, Exit::Throttled];

/// The result of one check.
#[derive(Debug, Serialize)]
struct Line {
    check: &'static str,
    result: Verdict,
    detail: String,
    #[serde(skip)]
    exit: Exit,
}

/// All lines.
#[derive(Debug, Default)]
struct Report(Vec<Line>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Verdict {
    Ok,
    Failed,
    Skipped,
}

/// Checks one thing after the other, and prints a line for each.
pub async fn run(hub: &Hub, output: Output) -> anyhow::Result<Exit> {
    let mut report = Report::default();
    if reach(hub, &mut report).await {
        of_the_hub(hub, &mut report).await;
    } else {
        let names = ["clock"].into_iter().chain(PROBES.map(|(name, _)| name));
        names
            .chain(["devices", "throttling"])
            .for_each(|name| report.skipped(name, "the hub is not reached"));
    }
    if output.is_text() {
        let word = |result| match result {
            Verdict::Ok => "ok",
            Verdict::Failed => "failed",
            Verdict::Skipped => "skipped",
        };
        let row =
            |line: &Line| vec![line.check.to_owned(), word(line.result).to_owned(), line.detail.clone()];
        output.table(&[], &report.0.iter().map(row).collect::<Vec<_>>())?;
    } else {
        output.array(&report.0)?;
    }
    Ok(report.worst())
}

/// The clock, each right, and the tier.
async fn of_the_hub(hub: &Hub, report: &mut Report) {
    let mut found = Vec::new();
    // Why methods and jobs are not tried.
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
    clock(&found, report);
    let mut statistics = Err("the hub's answer has no numbers".to_owned());
    for (name, probed) in found {
        if name == "registry-read" {
            statistics = unknown(&probed, name).map_or(statistics, Err);
        }
        match probed {
            Ok(Probed { refusal: Some(refusal), .. }) => {
                report.failed(name, refusal.to_string(), refusal.kind().exit());
            }
            Ok(probed) => {
                report.ok(name, "allowed".to_owned());
                statistics = probed.devices.map_or(statistics, Ok);
            }
            Err(error) => report.failed(name, error.to_string(), error.exit()),
        }
    }
    if let Some(why) = untried {
        ["methods", "jobs"].into_iter().for_each(|name| report.skipped(name, &why));
    }
    match statistics {
        Ok((all, disabled)) => report.ok("devices", format!("{all} registered, {disabled} of them disabled")),
        Err(why) => report.skipped("devices", &why),
    }
    match hub.throttled() {
        0 => report.ok("throttling", "none of these requests was throttled".to_owned()),
        count => {
            let detail =
                format!("the hub throttled {count} requests; somebody else may be using up its tier");
            report.failed("throttling", detail, Exit::Throttled);
        }
    }
}

/// Why what needs the right that was probed is not known.
fn unknown(probed: &Result<Probed, HubError>, right: &str) -> Option<String> {
    match probed {
        Ok(Probed { refusal: None, .. }) => None,
        Ok(Probed { refusal: Some(refusal), .. }) if refusal.kind() == Kind::NotAuthorized => {
            Some(format!("it needs the right {right}"))
        }
        _ => Some(format!("the check of {right} failed")),
    }
}

/// Our clock against the hub's, by the first answer that has a date.
fn clock(found: &[(&str, Result<Probed, HubError>)], report: &mut Report) {
    let ahead = found.iter().find_map(|(_, probed)| probed.as_ref().ok()?.clock_ahead);
    match ahead {
        None => report.skipped("clock", "the hub's answers have no date"),
        Some(ahead) if ahead.abs() > SKEW_LIMIT => {
            let side = if ahead > 0 { "ahead of" } else { "behind" };
            let detail = format!("{} s {side} the hub's; set it right", ahead.abs());
            report.failed("clock", detail, Exit::Failure);
        }
        Some(ahead) => report.ok("clock", format!("{} s from the hub's", ahead.abs())),
    }
}

impl Report {
    fn ok(&mut self, check: &'static str, detail: String) {
        self.0.push(Line { check, result: Verdict::Ok, detail, exit: Exit::Done });
    }

    fn failed(&mut self, check: &'static str, detail: String, exit: Exit) {
        let exit = if ORDER.contains(&exit) { exit } else { Exit::Failure };
        self.0.push(Line { check, result: Verdict::Failed, detail, exit });
    }

    fn skipped(&mut self, check: &'static str, why: &str) {
        self.0.push(Line { check, result: Verdict::Skipped, detail: why.to_owned(), exit: Exit::Done });
    }

    /// The exit code of the worst line.
    fn worst(&self) -> Exit {
        ORDER.into_iter().find(|exit| self.0.iter().any(|line| line.exit == *exit)).unwrap_or(Exit::Done)
    }
}
