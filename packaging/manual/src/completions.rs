//! Shell completions, each where its shell looks.

use clap_complete::{Shell, generate};

use crate::program::Program;

/// The scripts of a program: path below the root, and content.
pub(crate) fn all(program: &Program) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let command = &program.command;
    let name = command.get_name();
    let shells = [
        (Shell::Bash, format!("usr/share/bash-completion/completions/{name}")),
        (Shell::Zsh, format!("usr/share/zsh/vendor-completions/_{name}")),
        (Shell::Fish, format!("usr/share/fish/vendor_completions.d/{name}.fish")),
    ];
    let script = |shell| match program.script {
        Some(script) => script(shell),
        None => {
            let mut script = Vec::new();
            generate(shell, &mut command.clone(), name, &mut script);
            Ok(script)
        }
    };
    shells.into_iter().map(|(shell, path)| Ok((path, script(shell)?))).collect()
}
