//! Whom a command is for: devices, or one module of each (`--module`).
//!
//! The key `module` of a profile says which module the daemon is; so it counts for
//! the commands that speak of the daemon, and not for those that manage identities.

use anyhow::anyhow;
use iotdm_proto::ModuleId;

use crate::cli::Command;
use crate::commands::reboot;
use crate::error::Usage;
use crate::values::ModuleArg;

/// The module that `command` is for, if for any: the one that the command line gives,
/// else that of the profile. A run that is taken up again is for the module that its
/// journal names.
pub fn of_command(
    command: &Command,
    given: Option<&ModuleArg>,
    profile: Option<ModuleId>,
) -> anyhow::Result<Option<ModuleId>> {
    let explicit = given.and_then(|given| given.0.clone());
    let journal = match command {
        Command::Reboot(args) => args.which.resume.as_ref().map(|path| ("--resume", path)),
        Command::Cancel(args) => args.journal.as_ref().map(|path| ("--journal", path)),
        _ => None,
    };
    if let Some((option, path)) = journal {
        let module = reboot::module_of_journal(option, path)?;
        return match given {
            Some(given) if given.0 != module => {
                let whose =
                    module.map_or("the devices themselves".to_owned(), |name| format!("module {name}"));
                Err(anyhow!(Usage(format!(
                    "{option} {}: the run is for {whose}, not for what --module says: leave it out",
                    path.display()
                ))))
            }
            _ => Ok(module),
        };
    }
    let has_none = match command {
        Command::Job { .. } => Some("IoT Hub's jobs are for devices, not for modules of them"),
        Command::Configuration { .. } => {
            Some("configurations are the hub's; each says itself what it is for")
        }
        Command::Check(_) => Some("check asks about the hub, not about devices or modules of them"),
        Command::SasToken(args) if args.device.is_none() => Some("say of which device with --device"),
        _ => None,
    };
    match (has_none, command, explicit) {
        (Some(why), _, Some(_)) => Err(Usage(format!("--module: {why}")).into()),
        (Some(_), ..) => Ok(None),
        (None, Command::Device { .. } | Command::SasToken(_), explicit) => Ok(explicit),
        (None, _, explicit) => Ok(if given.is_some() { explicit } else { profile }),
    }
}
