//! The program `iotdm-emulator`: reads the command line, sets up the log and
//! carries the command out. Everything else is in the library.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use iotdm_emulator::cli::{Cli, Command};
use iotdm_emulator::{commands, fault_command, serve};
use tracing::level_filters::LevelFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_max_level(if cli.verbose { LevelFilter::DEBUG } else { LevelFilter::INFO })
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("iotdm-emulator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        match command {
            Command::Serve(options) => serve::run(options).await,
            Command::Fault(fault) => fault_command::run(fault).await,
            Command::Events(options) => commands::events(options).await,
            Command::Send(options) => commands::send(options).await,
            Command::Enrol(options) => commands::enrol(options).await,
            Command::Env(options) => commands::environment(options),
            Command::Trust(data) => commands::trust(data.dir),
        }
    });
    // Tasks that have not ended by now are cut off.
    runtime.shutdown_background();
    outcome
}
