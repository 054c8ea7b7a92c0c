//! Which hub is meant: `--connection-string-file`, else
//! `$IOTHUB_CONNECTION_STRING`, else `$IOTHUB_HOST_NAME` with Microsoft Entra
//! ID, else a profile of `ctl.toml`.
//!
//! Profiles are in `$XDG_CONFIG_HOME/iotdm/ctl.toml`, or
//! `~/.config/iotdm/ctl.toml`; relative paths in it start at its folder:
//!
//! ```toml
//! default = "prod"
//!
//! [hub.prod]
//! connection_string_file = "prod.connection-string"
//!
//! [hub.lab]
//! connection_string_file = "/etc/iotdm/lab.connection-string"
//! ca_file = "/etc/iotdm/lab-ca.pem"
//! module = "iotdm"    # there the daemon is this module of each device
//!
//! [hub.entra]
//! host_name = "myhub.azure-devices.net"
//! azure_cli = true    # or token_file = "entra.token"
//! [hub.vm]
//! host_name = "myhub.azure-devices.net"
//! managed_identity = true    # and client_id, if the identity is user-assigned
//! [hub.pipeline]
//! host_name = "myhub.azure-devices.net"
//! tenant_id = "…"
//! client_id = "…"
//! client_secret_file = "pipeline.secret"
//! ```

mod args;
mod environment;
mod find;
mod profile;

use std::path::PathBuf;

use iotdm_proto::{Endpoint, ModuleId, ServiceConnectionString};

pub use self::args::{GENERAL, HubArgs};
pub use self::environment::{Environment, Incomplete};
use crate::credential::{Credential, Policy};

/// A hub and what is needed to be let in. [`Target::find`] finds it.
#[derive(Debug)]
pub struct Target {
    /// The hub; its port is that of the REST interface.
    pub endpoint: Endpoint,
    /// What proves to the hub who we are.
    pub credential: Credential,
    /// A file with CAs to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// The module of each device that commands are for, if not the device itself; as
    /// the profile says it, at first.
    pub module: Option<ModuleId>,
}

impl Target {
    /// The hub of a connection string.
    fn of(connection: ServiceConnectionString, ca_file: Option<PathBuf>) -> Self {
        let ServiceConnectionString { host_name, policy, key } = connection;
        let credential = Credential::Policy(Policy::new(policy, key));
        Target { endpoint: host_name, credential, ca_file, module: None }
    }
}
