//! `--test`: tries the way to the hub step by step, and what a reboot takes on this
//! machine, and says of each step how it went and what helps. Nothing is changed, and
//! a daemon that runs meanwhile keeps its connection, if it can be known (`neighbour`).

mod machine;
mod neighbour;
mod report;
mod road;

use std::path::Path;

use serde_json::json;

use self::neighbour::Neighbour;
use self::report::{Finding, Report, Step};
use crate::host::hang;
use crate::host::logind::Logind;
use crate::lock;
use crate::service::hub_options;
use crate::settings::cli::Arguments;
use crate::settings::config::BackendKind;
use crate::settings::{Settings, as_service, exit_code};

/// Runs the test and prints what it finds; the exit code. logind is looked for on the
/// bus at the D-Bus address `bus`, and the machine's files below `root`.
pub async fn test(arguments: &Arguments, bus: String, root: &Path) -> u8 {
    let mut report = Report::new(arguments.json);
    report.about.insert("judgedAs".to_owned(), json!(as_service::judge()));
    match Settings::load(arguments) {
        Ok(settings) => {
            report.add(judge_settings(&settings));
            try_all(&settings, bus, root, &mut report).await;
        }
        Err(error) => {
            report.add(unusable(&error));
            let rest = [
                Step::Provisioning,
                Step::Name,
                Step::Tcp,
                Step::Proxy,
                Step::Tls,
                Step::Websocket,
                Step::Clock,
                Step::Connack,
                Step::Twin,
                Step::Logind,
                Step::Polkit,
                Step::StateDirectory,
                Step::Watchdog,
            ];
            report.skip(&rest, "the configuration cannot be used");
        }
    }
    report.end()
}

async fn try_all(settings: &Settings, bus: String, root: &Path, report: &mut Report) {
    let logind = (settings.config.reboot.backend == BackendKind::Logind).then(|| Logind::new(bus));
    let clock = match &logind {
        Some(logind) => Some(logind.clock().await),
        None => None,
    };
    let neighbour = |login: &_| Neighbour::find(&settings.state_dir, settings.runtime_dir.as_deref(), login);
    let is_held = lock::is_held(&settings.state_dir).unwrap_or(false);
    road::walk(hub_options(settings), clock, is_held, neighbour, report).await;
    machine::ask_logind(logind.as_ref(), report).await;
    report.add(machine::judge_state_directory(&settings.state_dir));
    let hangs = match &logind {
        Some(logind) => Some(hang::look(logind, root).await),
        None => None,
    };
    report.add(machine::judge_watchdog(hangs, root));
}

/// What is to be said of settings that could be loaded.
fn judge_settings(settings: &Settings) -> Finding {
    if let Err(error) = settings.check_certificates() {
        return unusable(&error);
    }
    let detail = format!("can be used; judged as {}", as_service::judge());
    match settings.credentials.warnings.split_first() {
        None => Finding::ok(Step::Configuration, detail),
        Some((first, others)) => {
            let more = others.iter().map(|warning| format!("; {warning}")).collect::<String>();
            Finding::warning(Step::Configuration, detail, format!("{first}{more}"))
        }
    }
}

/// Settings, a secret or certificates that cannot be used, as `error` says.
fn unusable(error: &anyhow::Error) -> Finding {
    let remedy = "iotdm-agentd --check-config says what would be used";
    Finding { exit: exit_code(error), ..Finding::failed(Step::Configuration, format!("{error:#}"), remedy) }
}
