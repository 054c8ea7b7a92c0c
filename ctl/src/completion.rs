//! Shell completion. A shell's script asks this program itself what may stand at
//! the cursor, so that the ids of devices come from the hub (see
//! [`crate::device_ids`]).

use clap::CommandFactory as _;
use clap_complete::env::Shells;
use clap_complete::{CompleteEnv, Shell};

use crate::cli::Cli;

/// The environment variable by which a script says that it is the shell that
/// asks.
const VARIABLE: &str = "COMPLETE";

/// Answers and ends the process, if it is a shell that asks.
pub fn answer() {
    CompleteEnv::with_factory(Cli::command).var(VARIABLE).bin("iotdm-ctl").completer("iotdm-ctl").complete();
}

/// The script that a shell is to read.
pub fn script(shell: Shell) -> std::io::Result<Vec<u8>> {
    let mut script = Vec::new();
    let shells = Shells::builtins();
    let completer = shells.completer(&shell.to_string()).ok_or(std::io::ErrorKind::Unsupported)?;
    completer.write_registration(VARIABLE, "iotdm-ctl", "iotdm-ctl", "iotdm-ctl", &mut script)?;
    Ok(script)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_shell_has_its_script() {
        for shell in Shell::value_variants() {
            let script = String::from_utf8(script(*shell).unwrap()).unwrap();
            assert!(script.contains("iotdm-ctl") && script.contains(VARIABLE), "{shell}: {script}");
        }
    }
}
