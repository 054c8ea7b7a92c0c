//! `iotdm-ctl`: reboots and manages the devices of an IoT hub from the
//! command line, over the hub's service REST interface.
//!
//! [`cli`] parses the command line, [`target`] finds the hub and [`credential`]
//! proves to it who we are, [`hub`] talks to it, and [`commands`] has one file
//! for each command. [`reported`] and [`reply`] are the places that know what
//! devices say; [`output`] and [`progress`] print; [`exit`] knows the exit codes.

pub mod cli;
pub mod commands;
pub mod completion;
pub mod credential;
pub mod device_file;
pub mod device_ids;
pub mod error;
pub mod exit;
pub mod hub;
pub mod journals;
pub mod module;
pub mod natural;
pub mod output;
pub mod progress;
pub mod prompt;
pub mod reply;
pub mod reported;
pub mod secret_file;
pub mod target;
pub mod text_file;
pub mod times;
pub mod tls;
pub mod twin;
pub mod values;

use std::env;
use std::path::PathBuf;

use clap::Parser as _;

use crate::cli::{CheckArgs, Cli, Command, ConfigurationCommand, DeviceCommand, JobCommand, TwinCommand};
use crate::error::{Usage, or_interrupt};
use crate::exit::{Exit, exit_of};
use crate::hub::HubClient;
use crate::output::{Format, Output, say, say_misunderstood};
use crate::target::{Environment, Target};

/// Parses the command line, runs the command, prints its error, if any, and
/// says how to exit.
pub fn main() -> Exit {
    completion::answer();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(help) if !help.use_stderr() => help.exit(),
        Err(error) => {
            let arguments = env::args_os().map(|argument| argument.to_string_lossy().into_owned());
            say_misunderstood(&error, arguments);
            return Exit::Usage;
        }
    };
    run(cli).unwrap_or_else(|error| {
        let exit = exit_of(&error);
        if exit != Exit::Done {
            say(format_args!("iotdm-ctl: {error:#}"));
        }
        exit
    })
}

/// Runs the command, and returns how to exit.
fn run(cli: Cli) -> anyhow::Result<Exit> {
    let output = Output::new(cli.output);
    // Commands that need no hub come first, so that they work without one.
    if output.format() == Format::Prometheus && !matches!(cli.command, Command::Status(_)) {
        return Err(Usage("--output prometheus is for status".into()).into());
    }
    match cli.command {
        Command::Completions(args) => return commands::completions::run(&args).map(|()| Exit::Done),
        Command::Report(args) => return commands::reboot::report(&args).map(|()| Exit::Done),
        Command::Device { command: DeviceCommand::DeriveKey(args) } => {
            return commands::device::derive(output, args).map(|()| Exit::Done);
        }
        Command::Query(_)
        | Command::Status(_)
        | Command::History(_)
        | Command::Reboot(_)
        | Command::Cancel(_)
        | Command::Job { command: JobCommand::List(_) }
        | Command::Configuration { command: ConfigurationCommand::List }
        | Command::Device { command: DeviceCommand::List(_) } => {}
        _ if output.format() == Format::Csv => {
            let message = "--output csv is for query, status, history, reboot, cancel, device list, job list and configuration list";
            return Err(Usage(message.into()).into());
        }
        _ => {}
    }
    let environment = Environment::of_the_process();
    let mut target = Target::find(&cli.hub, &environment)?;
    target.module = module::of_command(&cli.command, cli.hub.module.as_ref(), target.module)?;
    let hub = HubClient::new(target)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let command = dispatch(&hub, output, cli.command, environment.state_home());
    let notice = || match hub.has_sent_changes() {
        true => "interrupted: what was sent may be carried out all the same".to_owned(),
        false => "interrupted: nothing was changed".to_owned(),
    };
    runtime.block_on(or_interrupt(command, notice))
}

/// Hands the command to its file.
async fn dispatch(
    hub: &HubClient,
    output: Output,
    command: Command,
    state_home: Option<PathBuf>,
) -> anyhow::Result<Exit> {
    use commands::{
        cancel, check, completions, configuration, device, history, invoke, job, query, reboot, sas_token,
        status, twin,
    };
    match command {
        Command::Reboot(args) => return reboot::run(hub, output, *args, state_home).await,
        Command::Cancel(args) => return cancel::run(hub, output, args).await,
        Command::Invoke(args) => return invoke::run(hub, output, args).await,
        Command::Status(args) => return status::run(hub, output, args).await,
        Command::History(args) => return history::run(hub, output, args).await,
        Command::Check(CheckArgs {}) => return check::run(hub, output).await,
        Command::SasToken(args) => sas_token::run(hub, output, args).await,
        Command::Completions(args) => completions::run(&args),
        Command::Report(args) => reboot::report(&args),
        Command::Job { command } => match command {
            JobCommand::List(args) => job::list(hub, output, args).await,
            JobCommand::Show(args) => job::show(hub, output, args).await,
            JobCommand::Cancel(args) => job::cancel(hub, output, args).await,
        },
        Command::Configuration { command } => match command {
            ConfigurationCommand::List => configuration::list(hub, output).await,
            ConfigurationCommand::Show(args) => configuration::show(hub, output, args).await,
            ConfigurationCommand::Delete(args) => configuration::delete(hub, output, args).await,
        },
        Command::Query(args) => query::run(hub, output, args).await,
        Command::Twin { command } => match command {
            TwinCommand::Show(args) => twin::show(hub, output, args).await,
            TwinCommand::Update(args) => twin::update(hub, output, args).await,
            TwinCommand::Replace(args) => twin::replace(hub, output, args).await,
        },
        Command::Device { command } => match command {
            DeviceCommand::Create(args) => return device::create(hub, output, *args).await,
            DeviceCommand::Show(args) => device::show(hub, output, args).await,
            DeviceCommand::List(args) => device::list(hub, output, args).await,
            DeviceCommand::Enable(args) => return device::enable(hub, output, args).await,
            DeviceCommand::Disable(args) => return device::disable(hub, output, args).await,
            DeviceCommand::RenewKey(args) => return device::renew_key(hub, output, args).await,
            DeviceCommand::DeriveKey(args) => device::derive(output, args),
            DeviceCommand::Delete(args) => return device::delete(hub, output, args).await,
            DeviceCommand::ConnectionString(args) => device::connection_string_of(hub, output, args).await,
        },
    }?;
    Ok(Exit::Done)
}
