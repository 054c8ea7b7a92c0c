//! The program: arguments in, exit code out.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use iotdm_agentd::host::log::{self, Level};
use iotdm_agentd::host::logind::Logind;
use iotdm_agentd::host::notice;
use iotdm_agentd::host::notify::Notify;
use iotdm_agentd::host::preflight;
use iotdm_agentd::host::{connected, hang};
use iotdm_agentd::service;
use iotdm_agentd::settings::cli::Arguments;
use iotdm_agentd::settings::config::BackendKind;
use iotdm_agentd::settings::{Settings, as_service, describe, exit_code};
use iotdm_agentd::way;
use iotdm_proto::model::MODEL;

/// The real system bus. Only here is it named, so that no test can reboot the
/// machine that it runs on.
const SYSTEM_BUS: &str = "unix:path=/run/dbus/system_bus_socket";
const EXIT_FAILURE: u8 = 1;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.print_model {
        return print_model();
    }
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
    if arguments.preflight {
        // As above: the verdict is in the answer.
        if let Err(error) = preflight::runner::answer() {
            eprintln!("iotdm-agentd: the preflight checks were not run: {error:#}");
        }
        return ExitCode::SUCCESS;
    }
    if arguments.wait_connected {
        let waited =
            connected::wait(Path::new(connected::DIRECTORY), |sentence| println!("waiting: {sentence}"));
        return match waited {
            Ok(sentence) => {
                println!("{sentence}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("iotdm-agentd: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    if let Some(initrd) = &arguments.check_initrd {
        return match preflight::initrd::check(initrd) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("iotdm-agentd: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    // Other files than the service's are judged as whoever asks.
    let of_service = arguments.config.is_none() && arguments.state_dir.is_none();
    if arguments.check_config {
        let again = || as_service::run_again(&["--check-config"]);
        return of_service.then(again).flatten().unwrap_or_else(|| check_config(&arguments));
    }
    if arguments.test {
        let json = if arguments.json { &["--test", "--json"][..] } else { &["--test"] };
        let again = || as_service::run_again(json);
        return of_service.then(again).flatten().unwrap_or_else(|| test(&arguments));
    }
    let settings = match Settings::load(&arguments) {
        Ok(settings) => settings,
        Err(error) => {
            let _log = log::init(Level::Info);
            return cannot_run(&error, exit_code(&error));
        }
    };
    let _log = match log::init(settings.config.log.level) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("iotdm-agentd: cannot write a log: {error}");
            return ExitCode::FAILURE;
        }
    };
    match to_its_end(service::serve(&settings, bus())).and_then(|served| served) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cannot_run(&error, EXIT_FAILURE),
    }
}

/// The D-Bus address of the system bus.
fn bus() -> String {
    std::env::var("DBUS_SYSTEM_BUS_ADDRESS").unwrap_or_else(|_| SYSTEM_BUS.to_owned())
}

fn to_its_end<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start")?;
    let done = runtime.block_on(work);
    // A look-up that waits for a name server which does not answer must not hold up
    // the end of the program.
    runtime.shutdown_background();
    Ok(done)
}

/// Tries the way to the hub, and says how far it leads.
fn test(arguments: &Arguments) -> ExitCode {
    match to_its_end(way::test(arguments, bus(), Path::new("/"))) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("iotdm-agentd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the model. That nobody reads it to its end is no failure.
fn print_model() -> ExitCode {
    match io::stdout().lock().write_all(MODEL.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("iotdm-agentd: the model cannot be printed: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Says what would be used, or what is wrong with it.
fn check_config(arguments: &Arguments) -> ExitCode {
    let settings = Settings::load(arguments).and_then(|settings| {
        settings.check_certificates()?;
        Ok(settings)
    });
    match settings {
        Ok(settings) => {
            let hangs = match settings.config.reboot.backend {
                BackendKind::Logind => if_it_hangs(),
                BackendKind::Simulate => String::new(),
            };
            println!("{}{hangs}judged as        {}", describe::describe(&settings), as_service::judge());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("iotdm-agentd: {error:#}");
            ExitCode::from(exit_code(&error))
        }
    }
}

/// What would end a reboot that hangs, and what an administrator should know of that.
fn if_it_hangs() -> String {
    let root = Path::new("/");
    let logind = Logind::new(bus());
    let found = to_its_end(hang::look(&logind, root)).map_err(|error| format!("{error:#}"));
    match found.and_then(|found| found) {
        Ok(found) => describe::if_it_hangs(found, &hang::dangers(found, root)),
        Err(error) => format!("if it hangs      not known: {error}\n"),
    }
}

/// Says why the daemon ends, where people look for it: in the journal, or on standard
/// error, and in `systemctl status`, which shows the status in full.
fn cannot_run(error: &anyhow::Error, code: u8) -> ExitCode {
    let message = format!("{error:#}");
    log::cannot_run(&message);
    Notify::default().status(message);
    ExitCode::from(code)
}
