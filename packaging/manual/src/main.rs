//! Writes what the packages ship besides the programs: manual pages and shell
//! completions, below a directory laid out as a gateway's root.
//!
//! The command line comes from the programs' own definitions, the settings
//! from the shipped `agentd.toml`; only what neither says is written by hand,
//! in the `.txt` files beside this crate's manifest.

mod completions;
mod help;
mod page;
mod settings;

use std::io;
use std::path::Path;

use anyhow::{Context as _, bail};
use clap::CommandFactory as _;
use clap_complete::Shell;

/// Writes the completion script for a shell.
type Script = fn(Shell) -> io::Result<Vec<u8>>;

/// A program as its manual presents it.
struct Program {
    command: clap::Command,
    /// Of the manual: 1 for everybody's commands, 8 for the administrator's.
    section: &'static str,
    /// What the command line does not say, written like a help text.
    more: &'static str,
    /// Its own completion scripts, if it has any.
    script: Option<Script>,
}

fn programs() -> [Program; 3] {
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

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(out), None) = (arguments.next(), arguments.next()) else {
        bail!("usage: iotdm-manual DIR");
    };
    let out = Path::new(&out);
    for program in programs() {
        for (path, page) in page::all(&program)? {
            write(&out.join(path), page.as_bytes())?;
        }
        for (path, script) in completions::all(&program)? {
            write(&out.join(path), &script)?;
        }
    }
    write(&out.join("usr/share/man/man5/iotdm-agentd.toml.5"), settings::page().as_bytes())
}

fn write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    std::fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}
