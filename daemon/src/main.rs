//! The program: arguments in, exit code out.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use iotdm_agentd::connection::tls::CertificateFiles;
use iotdm_agentd::host::{log, notice};
use iotdm_agentd::service;
use iotdm_agentd::settings::Settings;
use iotdm_agentd::settings::cli::Arguments;
use iotdm_agentd::settings::describe::describe;

/// The real system bus. Only here is it named, so that no test can reboot the
/// machine that it runs on.
const SYSTEM_BUS: &str = "unix:path=/run/dbus/system_bus_socket";
/// sysexits.h: EX_CONFIG.
const EXIT_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // From here on there are keys in memory: no core file, also where a program
    // collects them that heeds no limit, and no look from the user's other
    // processes.
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        eprintln!("iotdm-agentd: cannot keep the keys out of core files: {error}");
        return ExitCode::FAILURE;
    }
    if arguments.show_notice {
        // Whatever is wrong, the unit has not failed: that would mark the whole
        // machine as degraded.
        if let Err(error) = notice::show(Path::new("/"), notice::wall) {
            eprintln!("iotdm-agentd: the reboot to come is not shown everywhere: {error:#}");
        }
        return ExitCode::SUCCESS;
    }
    let settings = match Settings::load(&arguments) {
        Ok(settings) => settings,
        Err(error) => return misconfigured(&error),
    };
    if arguments.check_config {
        // Not at a start: a pair that is half renewed is used as soon as it is
        // whole.
        let files = settings.credentials.source.proof().certificate();
        if let Some(Err(error)) = files.map(CertificateFiles::check) {
            return misconfigured(&error);
        }
        print!("{}", describe(&settings));
        return ExitCode::SUCCESS;
    }
    let _log = match log::init(settings.config.log.level) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("iotdm-agentd: cannot write a log: {error}");
            return ExitCode::FAILURE;
        }
    };
    let bus = std::env::var("DBUS_SYSTEM_BUS_ADDRESS").unwrap_or_else(|_| SYSTEM_BUS.to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let served = runtime.context("cannot start").and_then(|runtime| {
        let served = runtime.block_on(service::serve(&settings, bus));
        // A name server that does not answer must not hold up the end.
        runtime.shutdown_background();
        served
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn misconfigured(error: &anyhow::Error) -> ExitCode {
    eprintln!("iotdm-agentd: {error:#}");
    ExitCode::from(EXIT_CONFIG)
}
