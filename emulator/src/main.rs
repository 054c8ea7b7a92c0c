//! The program `iotdm-emulator`: reads the command line, sets up the log and
//! carries the command out. Everything else is in the library.

use iotdm_proto::text::{is_unseen, line, lines};
use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use iotdm_emulator::cli::{Cli, Command};
use iotdm_emulator::{commands, fault_command, health, printable, serve};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::format::debug_fn;

fn main() -> ExitCode {
    // From here on there are keys in memory: no core file, also where a program
    // collects them that heeds no limit, and no look from the user's other
    // processes.
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        eprintln!("iotdm-emulator: cannot keep the keys out of core files: {error}");
        return ExitCode::FAILURE;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    tracing_subscriber::fmt()
        .with_max_level(if cli.verbose { LevelFilter::DEBUG } else { LevelFilter::INFO })
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .fmt_fields(debug_fn(printable::log_field).delimited(" "))
        .init();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("iotdm-emulator: {}", line(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

/// Says what is wrong with the command line, or shows the help. An argument is
/// quoted in it, which may be the name of somebody else's device.
fn usage(error: &clap::Error) -> ExitCode {
    let is_hostile = |argument: OsString| argument.to_string_lossy().contains(is_unseen);
    if std::env::args_os().any(is_hostile) {
        eprint!("{}", lines(&error.to_string()));
    } else {
        // An error only means that nobody reads it.
        let _ = error.print();
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

fn run(command: Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        match command {
            Command::Serve(options) => serve::run(options).await,
            Command::Fault(fault) => fault_command::run(fault).await,
            Command::Browse(options) => commands::browse(options).await,
            Command::Events(options) => commands::events(options).await,
            Command::Send(options) => commands::send(options).await,
            Command::Enrol(options) => commands::enrol(options).await,
            Command::Env(options) => commands::environment(options),
            Command::Trust(data) => commands::trust(data.dir),
            Command::Health(data) => health::run(data.dir).await,
        }
    });
    // Tasks that have not ended by now are cut off.
    runtime.shutdown_background();
    outcome
}
