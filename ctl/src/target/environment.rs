//! The environment variables that this program heeds.

use std::env;
use std::path::PathBuf;

use azure_core::credentials::Secret;

use crate::credential::Login;

/// The environment variables that say which hub is meant, as whom to log in,
/// and where the user's files are. An empty variable counts as none.
#[derive(Debug, Default)]
pub struct Environment {
    /// `IOTHUB_CONNECTION_STRING`
    pub connection_string: Option<String>,
    /// `IOTHUB_HOST_NAME`
    pub host_name: Option<String>,
    /// `IOTHUB_TOKEN`
    pub token: Option<String>,
    /// `AZURE_CLIENT_SECRET` with `AZURE_TENANT_ID` and `AZURE_CLIENT_ID`, as
    /// Azure's own tools know them
    pub client_secret: Option<Result<Login, Incomplete>>,
    /// `IOTDM_CA_FILE`
    pub ca_file: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`
    pub config_home: Option<PathBuf>,
    /// `XDG_STATE_HOME`
    pub state_home: Option<PathBuf>,
    /// `HOME`
    pub home: Option<PathBuf>,
}

/// `AZURE_CLIENT_SECRET` is set, but not both `AZURE_TENANT_ID` and
/// `AZURE_CLIENT_ID`, which say whose secret it is.
#[derive(Debug, Clone, Copy)]
pub struct Incomplete;

impl Environment {
    /// The environment of this process. Relative paths in XDG variables count as
    /// none, as the XDG Base Directory Specification has it.
    pub fn of_the_process() -> Self {
        let text = |name| env::var(name).ok().filter(|text| !text.is_empty());
        let path = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Environment {
            connection_string: text("IOTHUB_CONNECTION_STRING"),
            host_name: text("IOTHUB_HOST_NAME"),
            token: text("IOTHUB_TOKEN"),
            client_secret: text("AZURE_CLIENT_SECRET").map(|secret| {
                let names = text("AZURE_TENANT_ID").zip(text("AZURE_CLIENT_ID"));
                let (tenant_id, client_id) = names.ok_or(Incomplete)?;
                Ok(Login::ClientSecret { tenant_id, client_id, secret: Secret::new(secret) })
            }),
            ca_file: path("IOTDM_CA_FILE"),
            config_home: path("XDG_CONFIG_HOME").filter(|path| path.is_absolute()),
            state_home: path("XDG_STATE_HOME").filter(|path| path.is_absolute()),
            home: path("HOME"),
        }
    }

    /// The folder for state that a later run of the program needs. `None`
    /// without `HOME`.
    pub fn state_home(&self) -> Option<PathBuf> {
        self.state_home.clone().or_else(|| Some(self.home.as_ref()?.join(".local/state")))
    }

    /// The path of `ctl.toml`, whether it exists or not. `None` without `HOME`.
    pub(super) fn profiles_file(&self) -> Option<PathBuf> {
        let base = self.config_home.clone().or_else(|| Some(self.home.as_ref()?.join(".config")))?;
        Some(base.join("iotdm/ctl.toml"))
    }
}
