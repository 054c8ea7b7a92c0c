//! Shell completions, each where its shell looks.

use clap_complete::{Shell, generate};

/// The scripts of a program: path below the root, and content.
pub(crate) fn all(command: &clap::Command) -> [(String, Vec<u8>); 3] {
    let name = command.get_name();
    [
        (Shell::Bash, format!("usr/share/bash-completion/completions/{name}")),
        (Shell::Zsh, format!("usr/share/zsh/vendor-completions/_{name}")),
        (Shell::Fish, format!("usr/share/fish/vendor_completions.d/{name}.fish")),
    ]
    .map(|(shell, path)| {
        let mut script = Vec::new();
        generate(shell, &mut command.clone(), name, &mut script);
        (path, script)
    })
}
