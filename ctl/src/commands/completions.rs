//! `completions`: prints the script by which a shell completes command lines.

use std::io::Write as _;

use crate::cli::CompletionsArgs;
use crate::completion;

/// Prints the script for the shell that was named.
pub fn run(args: &CompletionsArgs) -> anyhow::Result<()> {
    Ok(std::io::stdout().lock().write_all(&completion::script(args.shell)?)?)
}
