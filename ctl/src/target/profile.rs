//! The profiles of `ctl.toml`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use azure_core::credentials::Secret;
use clap_complete::{ArgValueCompleter, CompletionCandidate};
use serde::Deserialize;

use super::Target;
use super::environment::Environment;
use crate::credential::{Credential, Login, TokenFile};
use crate::error::Usage;
use crate::output::printable;
use crate::secret_file::read;
use crate::values::module_id;

/// The whole of `ctl.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Profiles {
    /// The name of the profile to use without `--hub`.
    default: Option<String>,
    #[serde(default)]
    hub: BTreeMap<String, Profile>,
}

/// One hub: `connection_string_file`, or `host_name` with one way to prove who
/// we are.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Profile {
    connection_string_file: Option<PathBuf>,
    host_name: Option<String>,
    token_file: Option<PathBuf>,
    #[serde(default)]
    azure_cli: bool,
    #[serde(default)]
    managed_identity: bool,
    tenant_id: Option<String>,
    client_id: Option<String>,
    client_secret_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    module: Option<String>,
}

/// The hub of the profile called `name`, or of the default one, in the file at
/// `file`. `ca_file` goes before the profile's own.
pub(super) fn profile(file: &Path, name: Option<&str>, ca_file: Option<PathBuf>) -> Result<Target, Usage> {
    let refuse = |what: String| Usage(format!("{}: {what}", file.display()));
    let profiles = profiles(file)?;
    let names: Vec<String> = profiles.hub.keys().cloned().collect();
    // The only hub needs not be called the default one.
    let only = || names.first().filter(|_| names.len() == 1).cloned();
    let Some(name) = name.map(str::to_owned).or(profiles.default).or_else(only) else {
        if names.is_empty() {
            return Err(refuse("it has no [hub.NAME]; see iotdm-ctl --help".to_owned()));
        }
        return Err(refuse(format!("no default; give --hub NAME, one of: {}", names.join(", "))));
    };
    let mut hubs = profiles.hub;
    let Some(mut profile) = hubs.remove(&name) else {
        return Err(refuse(format!("no [hub.{name}]; there are: {}", names.join(", "))));
    };
    let base = file.parent().unwrap_or(Path::new("."));
    let ca_file = ca_file.or(profile.ca_file.take().map(|path| base.join(path)));
    let module = profile.module.take().map(|name| module_id(&name)).transpose();
    let module = module.map_err(|error| refuse(format!("[hub.{name}] module: {error}")))?;
    match (profile.connection_string_file.take(), profile.host_name.take()) {
        (Some(path), None) if !profile.has_credential() => {
            let target = Target::of(read("connection_string_file", &base.join(path))?, ca_file);
            Ok(Target { module, ..target })
        }
        (None, Some(host)) => {
            let endpoint =
                host.parse().map_err(|error| refuse(format!("[hub.{name}] host_name: {error}")))?;
            let credential = profile.credential(base)?.ok_or_else(|| refuse(incomplete(&name)))?;
            Ok(Target { endpoint, credential, ca_file, module })
        }
        _ => Err(refuse(incomplete(&name))),
    }
}

/// Reads `ctl.toml`, which is at `file`.
fn profiles(file: &Path) -> Result<Profiles, Usage> {
    let refuse = |what: String| Usage(format!("{}: {what}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| refuse(error.to_string()))?;
    toml::from_str(&text).map_err(|error: toml::de::Error| {
        // The error does not show the line itself, in which somebody may have
        // written a secret.
        let at = error.span().map_or(0, |span| span.start).min(text.len());
        let line = text.get(..at).map_or(0, |before| before.matches('\n').count()) + 1;
        refuse(format!("line {line}: {}", error.message().replace('\n', ", ")))
    })
}

/// Completes the name of a profile on a shell's command line.
pub(super) fn completer() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        // Nothing is said about errors: a message in the middle of a command line
        // would only be in the way.
        let Some((prefix, file)) = current.to_str().zip(Environment::of_the_process().profiles_file()) else {
            return Vec::new();
        };
        let names = profiles(&file).map(|profiles| profiles.hub.into_keys()).into_iter().flatten();
        let fits =
            |name: &String| name.starts_with(prefix) && !name.starts_with('-') && printable(name) == *name;
        names.filter(fits).map(CompletionCandidate::new).collect()
    })
}

/// What a profile needs.
fn incomplete(name: &str) -> String {
    format!(
        "[hub.{name}] needs connection_string_file, or host_name with one of token_file, azure_cli = true, \
         managed_identity = true (and client_id, if it is user-assigned), or client_secret_file with tenant_id \
         and client_id"
    )
}

impl Profile {
    /// Whether the profile has anything of a way to prove who we are.
    fn has_credential(&self) -> bool {
        let files = [&self.token_file, &self.client_secret_file];
        self.azure_cli
            || self.managed_identity
            || self.tenant_id.is_some()
            || self.client_id.is_some()
            || files.into_iter().any(Option::is_some)
    }

    /// What proves to the hub who we are. `None` unless the profile has exactly
    /// one way to prove it. Relative paths start at `base`.
    fn credential(self, base: &Path) -> Result<Option<Credential>, Usage> {
        let (cli, managed) = (self.azure_cli, self.managed_identity);
        let files = (self.token_file, self.client_secret_file);
        Ok(Some(match (files, cli, managed, self.tenant_id, self.client_id) {
            ((Some(token), None), false, false, None, None) => {
                let path = base.join(token);
                let token = read("token_file", &path)?;
                Credential::TokenFile(TokenFile::new(path, token))
            }
            ((None, None), true, false, None, None) => Credential::of(Login::AzureCli),
            ((None, None), false, true, None, client_id) => {
                Credential::of(Login::ManagedIdentity { client_id })
            }
            ((None, Some(secret)), false, false, Some(tenant_id), Some(client_id)) => {
                let secret: String = read("client_secret_file", &base.join(secret))?;
                let secret = Secret::new(secret.trim().to_owned());
                Credential::of(Login::ClientSecret { tenant_id, client_id, secret })
            }
            _ => return Ok(None),
        }))
    }
}
