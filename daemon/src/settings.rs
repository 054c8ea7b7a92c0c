//! What the daemon is to do, from its command line, its configuration and the
//! files that these name.

pub mod as_service;
pub mod cli;
pub mod config;
pub mod credentials;
pub mod describe;
#[cfg(test)]
mod keys;

use std::io;
use std::path::{Path, PathBuf};

use iotdm_core::decide::windows::{LEAST_USE, Window};

use self::cli::Arguments;
use self::config::{Config, RebootConfig};
use self::credentials::Credentials;
use crate::connection::proxy::Proxy;
use crate::connection::tls::CertificateFiles;
use crate::connection::trust;

const DEFAULT_CONFIG: &str = "/etc/iotdm/agentd.toml";
/// The file that the packaged unit makes the credential `connection-string` from.
const PACKAGED_CONNECTION_STRING: &str = "/etc/iotdm/connection-string";
const DEFAULT_STATE_DIR: &str = "/var/lib/iotdm";

/// Everything that the command line and the configuration lead to.
#[derive(Debug)]
pub struct Settings {
    /// The configuration.
    pub config: Config,
    /// Who the device is, and what proves it.
    pub credentials: Credentials,
    /// The state directory, which may not exist yet.
    pub state_dir: PathBuf,
    /// The runtime directory, which systemd makes and removes, if there is one.
    pub runtime_dir: Option<PathBuf>,
}

impl Settings {
    /// Reads all of it; an error names the file and what to do about it.
    pub fn load(arguments: &Arguments) -> anyhow::Result<Self> {
        let file = arguments.config.as_deref();
        let config = Config::load(file.unwrap_or(Path::new(DEFAULT_CONFIG)), file.is_some())?;
        let credentials_dir = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let packaged = Path::new(PACKAGED_CONNECTION_STRING);
        let mut credentials = credentials::load(&config, credentials_dir.as_deref(), packaged)?;
        credentials.warnings.extend(readable_password(&config));
        credentials.warnings.extend(short_windows(&config));
        let runtime_dir = directory_of_systemd("RUNTIME_DIRECTORY");
        Ok(Settings { config, credentials, state_dir: state_dir(arguments), runtime_dir })
    }

    /// Checks the files of certificates. Not done at a start: they may come late or be
    /// half renewed, and are read whenever a connection is made.
    pub fn check_certificates(&self) -> anyhow::Result<()> {
        let own = self.credentials.source.proof().certificate();
        own.map(CertificateFiles::check).transpose()?;
        self.config.hub.ca_file.as_deref().map(trust::read_ca_file).transpose()?;
        Ok(())
    }
}

/// The exit code for settings that cannot be loaded: 78 (`EX_CONFIG` of sysexits.h),
/// upon which the unit is not started again, for a text that a person has to mend; 1
/// where a file or directory is missing, late or unreadable, which may get better.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    // InvalidData is about what was read: bytes that are no UTF-8.
    let is_access = |error: &io::Error| error.kind() != io::ErrorKind::InvalidData;
    let of_access = error.chain().any(|cause| cause.downcast_ref().is_some_and(is_access));
    if of_access { 1 } else { 78 }
}

/// Warns where every user can read the password of the proxy.
fn readable_password(config: &Config) -> Option<String> {
    config.hub.proxy.as_ref().filter(|proxy| Proxy::has_credentials(proxy))?;
    let file = config.proxy_file.as_ref().filter(|file| credentials::is_world_readable(file))?;
    Some(format!(
        "{} can be read by every user of this machine, and hub.proxy has a password: write that into a drop-in of its \
         own, chgrp iotdm and chmod 0640 it",
        file.display()
    ))
}

/// Warns of windows of which the reserve leaves next to nothing.
fn short_windows(config: &Config) -> Vec<String> {
    let RebootConfig { windows, window_reserve, .. } = &config.reboot;
    let short = windows.iter().filter(|window| window.length() < *window_reserve + LEAST_USE);
    let warning = |window: &Window| {
        format!(
            "of the window \"{window}\" (reboot.windows) reboot.window_reserve leaves next to nothing: a reboot begins \
             only within {} s of its opening, unless another window goes on from it. Make the window longer, or the \
             reserve shorter",
            LEAST_USE.min(window.length() / 2).as_secs()
        )
    };
    short.map(warning).collect()
}

fn state_dir(arguments: &Arguments) -> PathBuf {
    let of_systemd = || directory_of_systemd("STATE_DIRECTORY");
    arguments.state_dir.clone().or_else(of_systemd).unwrap_or_else(|| PathBuf::from(DEFAULT_STATE_DIR))
}

/// systemd separates several directories by colons; the daemon's unit has one of
/// each.
fn directory_of_systemd(variable: &str) -> Option<PathBuf> {
    std::env::var(variable).ok()?.split(':').next().map(PathBuf::from)
}
