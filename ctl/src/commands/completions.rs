//! `completions`: scripts for shells.

use std::io::Write as _;

use clap::CommandFactory as _;

use crate::cli::{Cli, CompletionsArgs};

/// Prints the script for a shell.
pub fn run(args: &CompletionsArgs) -> anyhow::Result<()> {
    // The generator panics where its writer fails, as at a closed pipe.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "iotdm-ctl", &mut script);
    Ok(std::io::stdout().lock().write_all(&script)?)
}
