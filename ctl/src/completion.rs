//! Shell completion. A shell's script asks this program itself what may stand at
//! the cursor, so that the ids of devices come from the hub (see
//! [`crate::device_ids`]).
//!
//! Whatever a hub or a folder calls its devices or files, a completed word is one
//! word to the shell: zsh and fish quote what they are given, for bash it is done
//! in the module `bash`. Only shells with which this is tested are offered.

mod bash;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::env::{EnvCompleter, Fish, Shells, Zsh};
use clap_complete::{CompleteEnv, CompletionCandidate, Shell};

use self::bash::Bash;
use crate::cli::Cli;
use crate::device_ids;

/// The environment variable by which a script says that it is the shell that
/// asks.
const VARIABLE: &str = "COMPLETE";

/// The shells for which there is a script.
const COMPLETERS: Shells<'static> = Shells(&[&Bash, &WithWords(Zsh), &WithWords(Fish)]);

/// Answers and ends the process, if it is a shell that asks.
pub fn answer() {
    let environment = CompleteEnv::with_factory(Cli::command).var(VARIABLE).shells(COMPLETERS);
    environment.bin("iotdm-ctl").completer("iotdm-ctl").complete();
}

/// The script that a shell is to read; an error unless it is one of
/// [`crate::values::SHELLS`].
pub fn script(shell: Shell) -> io::Result<Vec<u8>> {
    let mut script = Vec::new();
    let completer = COMPLETERS.completer(&shell.to_string()).ok_or(io::ErrorKind::Unsupported)?;
    completer.write_registration(VARIABLE, "iotdm-ctl", "iotdm-ctl", "iotdm-ctl", &mut script)?;
    Ok(script)
}

/// What may stand in place of the word `index` of a command line.
fn candidates(
    command: &mut clap::Command,
    words: Vec<OsString>,
    index: usize,
    folder: Option<&Path>,
) -> io::Result<Vec<CompletionCandidate>> {
    device_ids::remember(&words);
    clap_complete::engine::complete(command, words, index, folder)
}

/// A shell's part of clap_complete, which is told the words of the line.
struct WithWords<T>(T);

impl<T: EnvCompleter> EnvCompleter for WithWords<T> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn is(&self, name: &str) -> bool {
        self.0.is(name)
    }

    fn write_registration(
        &self,
        variable: &str,
        name: &str,
        bin: &str,
        completer: &str,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let mut script = Vec::new();
        self.0.write_registration(variable, name, bin, completer, &mut script)?;
        // zsh has the words as they are typed, quotes and all. `(Q)` takes a level
        // of quotes away and expands nothing.
        let script = String::from_utf8_lossy(&script).replace("\"${words[@]}\"", "\"${(@Q)words}\"");
        out.write_all(script.as_bytes())
    }

    fn write_complete(
        &self,
        command: &mut clap::Command,
        words: Vec<OsString>,
        folder: Option<&Path>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        device_ids::remember(&words);
        self.0.write_complete(command, words, folder, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::SHELLS;

    #[test]
    fn every_shell_has_its_script() {
        for shell in SHELLS {
            let script = String::from_utf8(script(shell).unwrap()).unwrap();
            assert!(script.contains("iotdm-ctl") && script.contains(VARIABLE), "{shell}: {script}");
            assert_eq!(script.contains("{(@Q)words}"), shell == Shell::Zsh, "{shell}: {script}");
        }
        assert!(script(Shell::PowerShell).is_err(), "it would take ids for words of its own");
    }
}
