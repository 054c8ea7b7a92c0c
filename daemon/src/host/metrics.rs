//! The daemon's numbers, for node_exporter's textfile collector and whatever else
//! reads Prometheus' text format: a file in the runtime directory, without a port.
//!
//! Written when a number has changed, at most once in 15 s, so that a scrape of
//! usual pace sees each state that lasts and an idle machine is not woken. Names and
//! units follow Prometheus' conventions, `promtool check metrics` holds them to that.
//! Source: prometheus.io/docs, "Exposition formats", "Metric and label naming".

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use iotdm_core::decide::record::BootCounts;
use iotdm_proto::health::HealthState;
use iotdm_proto::report::{BootCause, RebootStatus};
use iotdm_proto::text::harmless;
use iotdm_proto::{ErrorCode, Time};
use tokio::time::Instant;

use super::status::Status;
use crate::durable::{self, Readers};

/// In the runtime directory. The collector takes files of this suffix.
const FILE: &str = "iotdm.prom";
/// The shortest time between two writings.
const PACE: Duration = Duration::from_secs(15);

/// The file, for as long as this lives, and the numbers that nobody else counts.
#[derive(Debug)]
pub struct Metrics {
    /// Without one, nobody is told.
    file: Option<PathBuf>,
    /// The refused calls since the daemon started.
    refusals: HashMap<ErrorCode, u64>,
    /// What stands in the file.
    written: Option<String>,
    /// Before this, it is not written again.
    not_before: Option<Instant>,
    /// When to write what has changed meanwhile.
    due: Option<Instant>,
    /// That it could not be written was logged.
    complained: bool,
}

impl Metrics {
    /// The file in this directory, if there is one and it is wanted.
    pub fn new(directory: Option<&Path>) -> Self {
        Metrics {
            file: directory.map(|directory| directory.join(FILE)),
            refusals: HashMap::new(),
            written: None,
            not_before: None,
            due: None,
            complained: false,
        }
    }

    /// Whether anybody is told.
    pub fn is_there(&self) -> bool {
        self.file.is_some()
    }

    /// A call was refused.
    pub fn refused(&mut self, code: ErrorCode) {
        let count = self.refusals.entry(code).or_default();
        *count = count.saturating_add(1);
    }

    /// When [`Metrics::tell`] is to be called even if nothing happens.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Has the file say this, now or when it is due.
    pub fn tell(&mut self, status: &Status, boots: BootCounts) {
        let Some(file) = &self.file else { return };
        let text = render(status, boots, &self.refusals);
        self.due = self.not_before.filter(|_| self.written.as_ref() != Some(&text));
        let now = Instant::now();
        if self.written.as_ref() == Some(&text) || self.due.is_some_and(|due| due > now) {
            return;
        }
        self.due = None;
        match durable::replace_for_now(file, text.as_bytes(), Readers::All) {
            Ok(()) => {
                self.written = Some(text);
                self.not_before = Some(now + PACE);
                self.complained = false;
            }
            Err(error) => {
                self.written = None;
                if !std::mem::replace(&mut self.complained, true) {
                    tracing::warn!("{} is out of date: {error}", file.display());
                }
            }
        }
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        if let Some(file) = self.file.as_ref().filter(|_| self.written.is_some())
            && let Err(error) = fs::remove_file(file)
        {
            tracing::debug!("{} is left behind: {error}", file.display());
        }
    }
}

fn render(status: &Status, boots: BootCounts, refusals: &HashMap<ErrorCode, u64>) -> String {
    let (connection, report) = (&status.connection, &status.report);
    let mut text = Text::default();

    let version = report.agent.as_ref().map_or("", |agent| agent.version.as_str());
    let hub = connection.hub.as_deref().unwrap_or_default();
    let mut labels =
        vec![("version", version), ("hub", hub), ("device_id", connection.whom.device_id.as_str())];
    labels.extend(connection.whom.module_id.as_ref().map(|module| ("module_id", module.as_str())));
    text.family("iotdm_agent_info", Kind::Gauge, "The reboot agent, and as whom of which hub.");
    text.sample("iotdm_agent_info", &labels, 1.0);

    text.gauge("iotdm_connected", "Whether the hub has taken the device.", Some(of(connection.connected)));
    text.gauge(
        "iotdm_last_acknowledgement_timestamp_seconds",
        "When the hub last acknowledged something since the agent started.",
        connection.last_acknowledgement.map(seconds),
    );

    let name = "iotdm_boots_total";
    text.family(name, Kind::Counter, "Boots since the agent was installed, by what ended the boot before.");
    for cause in BootCause::ALL {
        text.sample(name, &[("cause", cause.as_str())], count(boots.of(*cause)));
    }

    let pending = report.reboot.as_ref().is_some_and(|reboot| !reboot.status.is_final());
    text.gauge("iotdm_reboot_pending", "Whether a request to reboot is pending.", Some(of(pending)));
    text.gauge(
        "iotdm_last_reboot_timestamp_seconds",
        "When the running kernel booted, if it followed a boot that the agent had seen.",
        report.reboot_time.map(seconds),
    );
    if let Some(reboot) = &report.reboot {
        let name = "iotdm_last_request_status";
        text.family(name, Kind::Gauge, "How far the newest request to reboot is: 1 for its status.");
        for known in RebootStatus::ALL {
            text.sample(name, &[("status", known.as_str())], of(*known == reboot.status));
        }
        text.gauge(
            "iotdm_last_request_down_seconds",
            "How long the machine was down for the newest request.",
            reboot.down_seconds,
        );
    }
    text.gauge(
        "iotdm_reboot_required",
        "Whether the machine needs a reboot.",
        report.reboot_required.as_ref().map(|need| of(need.required)),
    );

    if let Some(health) = &report.health {
        let name = "iotdm_health_state";
        text.family(name, Kind::Gauge, "How the machine is: 1 for its state.");
        for known in HealthState::ALL {
            text.sample(name, &[("state", known.as_str())], of(*known == health.state));
        }
        text.gauge("iotdm_failed_units", "How many units are wrong.", Some(f64::from(health.failed_count)));
    }

    let name = "iotdm_refusals_total";
    text.family(name, Kind::Counter, "Refused calls since the agent started, by the error's code.");
    for code in ErrorCode::ALL {
        let refused = refusals.get(code).copied().unwrap_or_default();
        text.sample(name, &[("code", code.as_str())], count(refused));
    }
    text.0
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

/// A text in Prometheus' format.
#[derive(Debug, Default)]
struct Text(String);

impl Text {
    /// Begins a metric. `help` is ours, and holds nothing that has to be escaped.
    fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    /// A metric without labels; none where the value is not known.
    fn gauge(&mut self, name: &str, help: &str, value: Option<f64>) {
        if let Some(value) = value {
            self.family(name, Kind::Gauge, help);
            self.sample(name, &[], value);
        }
    }
}

/// The value of a label. The format knows these three escapes and no others; what a
/// terminal would obey is replaced before, also line ends.
fn escaped(value: &str) -> String {
    harmless(value).replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

fn of(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

/// Exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "all numbers of the format are of this type")]
fn count(number: u64) -> f64 {
    number as f64
}

fn seconds(at: Time) -> f64 {
    count(u64::try_from(at.unix_millis()).unwrap_or_default()) / 1000.0
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use iotdm_proto::report::Report;

    use super::super::status::{Connection, Whom};
    use super::*;

    fn status(device: &str) -> Status {
        let whom = Whom { device_id: device.into(), module_id: None };
        let at = "2026-11-22T18:36:07.412Z".parse().unwrap();
        let mut connection = Connection::new(Some("hub".into()), whom.clone(), at);
        connection.begin("hub".into(), whom, at);
        connection.last_acknowledgement = Some(at);
        let report = Report { reboot_time: Some(at), ..Report::default() };
        Status { pid: 7, boot_id: "b".into(), status: String::new(), connection, report }
    }

    fn boots() -> BootCounts {
        BootCounts { requested: 4, local: 2, unclean: 1, unknown: 1 }
    }

    #[test]
    fn a_stranger_cannot_add_lines_labels_or_metrics() {
        let text = render(&status("a\"} 1\nevil{x=\"\\"), boots(), &HashMap::new());
        assert!(text.contains("device_id=\"a\\\"} 1\u{fffd}evil{x=\\\"\\\\\"} 1\n"), "{text}");
        assert!(text.lines().all(|line| line.starts_with("# ") || line.starts_with("iotdm_")), "{text}");
    }

    #[test]
    fn a_module_is_named_as_one() {
        let mut status = status("gw1");
        status.connection.whom.module_id = Some("iotdm".parse().unwrap());
        let text = render(&status, boots(), &HashMap::new());
        assert!(text.contains(r#"device_id="gw1",module_id="iotdm"} 1"#), "{text}");
    }

    #[test]
    fn each_number_is_told_and_what_is_not_known_is_absent() {
        let refusals = HashMap::from([(ErrorCode::RateLimited, 3)]);
        let text = render(&status("gw1"), boots(), &refusals);
        for line in [
            r#"iotdm_agent_info{version="",hub="hub",device_id="gw1"} 1"#,
            "iotdm_connected 1",
            "iotdm_last_acknowledgement_timestamp_seconds 1795372567.412",
            r#"iotdm_boots_total{cause="requested"} 4"#,
            r#"iotdm_boots_total{cause="unclean"} 1"#,
            "iotdm_reboot_pending 0",
            "iotdm_last_reboot_timestamp_seconds 1795372567.412",
            r#"iotdm_refusals_total{code="rateLimited"} 3"#,
            r#"iotdm_refusals_total{code="forbidden"} 0"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        for absent in ["iotdm_reboot_required", "iotdm_health_state", "iotdm_last_request_status"] {
            assert!(!text.contains(absent), "{absent} in {text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_written_on_change_and_at_most_once_in_15_s() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE);
        let mut metrics = Metrics::new(Some(dir.path()));
        let told = || fs::read_to_string(&file).unwrap();
        metrics.tell(&status("gw1"), boots());
        let first = told();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o644);
        assert_eq!(metrics.due(), None, "nothing is to be written");
        metrics.tell(&status("gw1"), boots());
        assert_eq!(metrics.due(), None);

        // A change within 15 s waits for their end, and so does what follows it.
        tokio::time::advance(Duration::from_secs(5)).await;
        metrics.refused(ErrorCode::TooLate);
        metrics.tell(&status("gw1"), boots());
        assert_eq!(told(), first);
        let due = metrics.due().unwrap();
        assert_eq!(due - Instant::now(), Duration::from_secs(10));
        metrics.refused(ErrorCode::TooLate);
        metrics.tell(&status("gw1"), boots());
        assert_eq!(metrics.due(), Some(due));
        tokio::time::sleep_until(due).await;
        metrics.tell(&status("gw1"), boots());
        assert!(told().contains(r#"{code="tooLate"} 2"#), "{}", told());
        assert_eq!(metrics.due(), None, "no timer where nothing waits");

        // What changes and changes back needs no writing; later changes go at once.
        metrics.tell(&status("gw2"), boots());
        assert!(metrics.due().is_some());
        metrics.tell(&status("gw1"), boots());
        assert_eq!(metrics.due(), None);
        tokio::time::advance(PACE).await;
        metrics.tell(&status("gw2"), boots());
        assert!(told().contains("gw2"));
        drop(metrics);
        assert!(!file.exists());
    }
}
