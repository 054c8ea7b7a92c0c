//! The programs that have manual pages and completions.

use std::io;

use clap::CommandFactory as _;
use clap_complete::Shell;

/// Writes the completion script for a shell.
pub(crate) type Script = fn(Shell) -> io::Result<Vec<u8>>;

/// A program as its manual presents it.
pub(crate) struct Program {
    pub(crate) command: clap::Command,
    /// Of the manual: 1 for everybody's commands, 8 for the administrator's.
    pub(crate) section: &'static str,
    /// What the command line does not say, written like a help text.
    pub(crate) more: &'static str,
    /// Its own completion scripts, if it has any.
    pub(crate) script: Option<Script>,
}

/// Every program that the packages ship.
pub(crate) fn all() -> [Program; 3] {
    [
        Program {
            command: iotdm_agentd::settings::cli::Arguments::command(),
            section: "8",
            more: include_str!("../iotdm-agentd.txt"),
            script: None,
        },
        Program {
            command: iotdm_ctl::cli::Cli::command(),
            section: "1",
            more: include_str!("../iotdm-ctl.txt"),
            script: Some(iotdm_ctl::completion::script),
        },
        Program {
            command: iotdm_emulator::cli::Cli::command(),
            section: "1",
            more: include_str!("../iotdm-emulator.txt"),
            script: None,
        },
    ]
}
