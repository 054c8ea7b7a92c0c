//! What a test has found: a line for each step, or one JSON object.

use std::io::Write as _;

use iotdm_proto::text::{harmless, lines};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// The steps, in the order in which they are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Step {
    /// The settings, the secret and the certificates can be used.
    Configuration,
    /// The provisioning service has assigned a hub.
    Provisioning,
    /// The name of what TCP connects to has addresses.
    Name,
    /// These addresses, of both families, take connections.
    Tcp,
    /// The proxy connects to the hub.
    Proxy,
    /// The hub's certificate is accepted.
    Tls,
    /// The hub agrees to a WebSocket.
    Websocket,
    /// The clock is right.
    Clock,
    /// The hub takes the device.
    Connack,
    /// The device twin can be read.
    Twin,
    /// logind is there, and would reboot the machine.
    Logind,
    /// polkit lets the daemon do that.
    Polkit,
    /// The state directory can be written.
    StateDirectory,
    /// Something ends a reboot that hangs.
    Watchdog,
}

/// How a step went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Outcome {
    /// All is well.
    Ok,
    /// It works, and something should be mended all the same.
    Warning,
    /// It does not work.
    Failed,
    /// The step was not tried.
    Skipped,
}

/// What was found in one step.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Finding {
    /// The step.
    pub(super) step: Step,
    /// How it went.
    pub(super) result: Outcome,
    /// What was found, or why nothing was.
    pub(super) detail: String,
    /// What a person can do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<String>,
    /// What was found, for programs.
    #[serde(flatten)]
    pub(super) facts: Map<String, Value>,
    /// The exit code that this alone would lead to.
    #[serde(skip)]
    pub(super) exit: u8,
}

/// What all steps so far have found.
#[derive(Debug)]
pub(super) struct Report {
    findings: Vec<Finding>,
    json: bool,
    /// What is told of the test as a whole, for programs.
    pub(super) about: Map<String, Value>,
}

impl Finding {
    fn new(step: Step, result: Outcome, detail: impl Into<String>, remedy: Option<String>) -> Self {
        let exit = u8::from(result == Outcome::Failed);
        Finding { step, result, detail: detail.into(), remedy, facts: Map::new(), exit }
    }

    /// All is well.
    pub(super) fn ok(step: Step, detail: impl Into<String>) -> Self {
        Self::new(step, Outcome::Ok, detail, None)
    }

    /// It works, and `remedy` would make it better.
    pub(super) fn warning(step: Step, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(step, Outcome::Warning, detail, Some(remedy.into()))
    }

    /// It does not work, and `remedy` mends it.
    pub(super) fn failed(step: Step, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(step, Outcome::Failed, detail, Some(remedy.into()))
    }

    /// The step was not tried, and `why`.
    pub(super) fn skipped(step: Step, why: impl Into<String>) -> Self {
        Self::new(step, Outcome::Skipped, why, None)
    }

    /// The same, with something for programs.
    pub(super) fn with(mut self, key: &str, value: Value) -> Self {
        self.facts.insert(key.to_owned(), value);
        self
    }

    /// The line for people.
    fn line(&self) -> String {
        let remedy = self.remedy.as_ref().map(|remedy| format!(": {remedy}")).unwrap_or_default();
        let (step, result) = (word(&self.step), word(&self.result));
        // What a server or a certificate says of itself is part of it.
        harmless(&format!("{step:<17}{result:<9}{}{remedy}", self.detail))
    }
}

impl Report {
    /// Prints each line as soon as it is known or, with `json`, one object at the end.
    pub(super) fn new(json: bool) -> Self {
        Report { findings: Vec::new(), json, about: Map::new() }
    }

    /// Takes a finding, and returns whether the way leads on.
    pub(super) fn add(&mut self, finding: Finding) -> bool {
        if !self.json {
            // Nobody reads any more: the exit code still tells.
            let _ = writeln!(std::io::stdout(), "{}", finding.line());
        }
        let leads_on = finding.result != Outcome::Failed;
        self.findings.push(finding);
        leads_on
    }

    /// Takes the same reason for each of several steps that were not tried.
    pub(super) fn skip(&mut self, steps: &[Step], why: &str) {
        for step in steps {
            self.add(Finding::skipped(*step, why));
        }
    }

    /// Ends the report; the exit code of the worst finding.
    pub(super) fn end(mut self) -> u8 {
        let exit = self.exit();
        if self.json {
            let worst = [Outcome::Failed, Outcome::Warning]
                .into_iter()
                .find(|outcome| self.findings.iter().any(|finding| finding.result == *outcome));
            self.about.insert("result".to_owned(), json!(worst.unwrap_or(Outcome::Ok)));
            self.about.insert("exitCode".to_owned(), json!(exit));
            self.about.insert("steps".to_owned(), json!(self.findings));
            let _ = writeln!(std::io::stdout(), "{}", shown(&Value::Object(self.about)));
        }
        exit
    }

    fn exit(&self) -> u8 {
        self.findings.iter().map(|finding| finding.exit).max().unwrap_or_default()
    }
}

/// The object as it is printed. JSON escapes less than a terminal obeys, and what a
/// server or a certificate says of itself is part of it.
fn shown(object: &Value) -> String {
    lines(&format!("{object:#}"))
}

/// The one word of a step or of how it went.
fn word(value: &impl Serialize) -> String {
    json!(value).as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_and_the_worst_finding_decides() {
        let strange = Finding::failed(Step::StateDirectory, "a\nb\u{1b}[2J", "mend it");
        assert_eq!(strange.line(), "state-directory  failed   a\u{fffd}b\u{fffd}[2J: mend it");
        let subject = "CN=hub\u{9b}31m\u{7f}\u{202e}";
        let told = json!(Finding::ok(Step::Tls, subject).with("chain", json!([{"subject": subject}])));
        let printed = shown(&told);
        assert!(
            printed.chars().all(|char| char == '\n' || char == ' ' || char.is_ascii_graphic()),
            "{printed:?}"
        );
        assert_eq!(serde_json::from_str::<Value>(&printed).unwrap(), told, "it is the same JSON");
        let mut report = Report::new(true);
        assert_eq!(report.exit(), 0);
        assert!(report.add(Finding::warning(Step::Tcp, "one family", "open it")));
        report.skip(&[Step::Proxy, Step::Websocket], "not configured");
        assert_eq!(report.exit(), 0);
        assert!(!report.add(strange));
        assert_eq!(report.exit(), 1);
        report.add(Finding { exit: 78, ..Finding::failed(Step::Configuration, "a text", "mend it") });
        assert_eq!(report.exit(), 78);
    }
}
