//! Writes what the packages ship besides the programs: manual pages, shell
//! completions and the notices of other people's code, below a directory laid
//! out as a gateway's root.
//!
//! The command line comes from the programs' own definitions, the settings
//! from the shipped `agentd.toml`, the notices from the crates; only what none
//! of them says is written by hand, in the `.txt` files beside this crate's
//! manifest.

mod completions;
mod help;
mod notices;
mod page;
mod program;
mod settings;
mod topic;

use std::path::Path;

use anyhow::{Context as _, bail};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(out), Some(target), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        bail!("usage: iotdm-manual DIR TARGET, the latter as Rust names what the programs are built for");
    };
    let out = Path::new(&out);
    let metadata = notices::metadata(&target.to_string_lossy())?;
    for program in program::all() {
        for (path, page) in page::all(&program)? {
            write(&out.join(path), page.as_bytes())?;
        }
        for (path, script) in completions::all(&program)? {
            write(&out.join(path), &script)?;
        }
        let name = program.command.get_name();
        let page = notices::page(&metadata, name)?;
        write(&out.join(format!("usr/share/doc/{name}/NOTICES")), page.as_bytes())?;
    }
    for (path, page) in topic::all() {
        write(&out.join(path), page.as_bytes())?;
    }
    write(&out.join("usr/share/man/man5/iotdm-agentd.toml.5"), settings::page().as_bytes())
}

fn write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    std::fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}
