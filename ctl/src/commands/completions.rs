//! `completions`: scripts for shells.

use std::io::Write as _;

use crate::cli::CompletionsArgs;
use crate::completion;

/// Prints the script for a shell.
pub fn run(args: &CompletionsArgs) -> anyhow::Result<()> {
    Ok(std::io::stdout().lock().write_all(&completion::script(args.shell)?)?)
}
