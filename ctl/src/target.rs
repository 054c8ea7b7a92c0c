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
//!
//! [hub.entra]
//! host_name = "myhub.azure-devices.net"
//! azure_cli = true    # or token_file = "entra.token"
//! [hub.vm]
//! host_name = "myhub.azure-devices.net"
//! managed_identity = true    # of a user-assigned one also client_id
//! [hub.pipeline]
//! host_name = "myhub.azure-devices.net"
//! tenant_id = "…"
//! client_id = "…"
//! client_secret_file = "pipeline.secret"
//! ```

mod profile;

use std::env;
use std::fmt::Display;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use azure_core::credentials::Secret;
use iotdm_proto::{Endpoint, ServiceConnectionString};

use self::profile::profile;
use crate::cli::HubArgs;
use crate::credential::{Credential, Login};
use crate::error::Usage;
use crate::output::say;

/// A hub and what is needed to be let in.
#[derive(Debug)]
pub struct Target {
    /// The hub; its port is that of the REST interface.
    pub endpoint: Endpoint,
    /// What proves who we are.
    pub credential: Credential,
    /// A CA to trust beside the system's.
    pub ca_file: Option<PathBuf>,
}

/// The environment variables that matter here.
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

/// `AZURE_CLIENT_SECRET` without the names that belong to it.
#[derive(Debug, Clone, Copy)]
pub struct Incomplete;

impl Environment {
    /// That of this process; an empty variable counts as none.
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

    /// Where state is kept that a later run needs.
    pub fn state_home(&self) -> Option<PathBuf> {
        self.state_home.clone().or_else(|| Some(self.home.as_ref()?.join(".local/state")))
    }

    fn profiles_file(&self) -> Option<PathBuf> {
        let base = self.config_home.clone().or_else(|| Some(self.home.as_ref()?.join(".config")))?;
        Some(base.join("iotdm/ctl.toml"))
    }
}

impl Target {
    fn of(connection: ServiceConnectionString, ca_file: Option<PathBuf>) -> Self {
        let ServiceConnectionString { host_name, policy, key } = connection;
        Target { endpoint: host_name, credential: Credential::Policy { policy, key }, ca_file }
    }

    /// The hub that the arguments and the environment mean.
    pub fn find(args: &HubArgs, environment: &Environment) -> Result<Target, Usage> {
        let ca_file = args.ca_file.clone().or_else(|| environment.ca_file.clone());
        if let Some(path) = &args.connection_string_file {
            warn_of_ignored_hub(args, "--connection-string-file is given");
            return Ok(Target::of(read("--connection-string-file", path)?, ca_file));
        }
        if let Some(text) = &environment.connection_string {
            warn_of_ignored_hub(args, "IOTHUB_CONNECTION_STRING is set");
            let connection =
                text.parse().map_err(|error| Usage(format!("IOTHUB_CONNECTION_STRING: {error}")))?;
            return Ok(Target::of(connection, ca_file));
        }
        if let Some(host) = &environment.host_name {
            warn_of_ignored_hub(args, "IOTHUB_HOST_NAME is set");
            let endpoint = host.parse().map_err(|error| Usage(format!("IOTHUB_HOST_NAME: {error}")))?;
            let credential = match (&environment.token, &environment.client_secret) {
                (Some(token), _) => {
                    Credential::Token(token.parse().map_err(|error| Usage(format!("IOTHUB_TOKEN: {error}")))?)
                }
                (None, Some(Ok(login))) => Credential::of(login.clone()),
                (None, Some(Err(Incomplete))) => {
                    return Err(Usage(
                        "AZURE_CLIENT_SECRET is set, but not both AZURE_TENANT_ID and AZURE_CLIENT_ID: set \
                         them, or unset it to log in as the Azure CLI does"
                            .to_owned(),
                    ));
                }
                (None, None) => Credential::of(Login::AzureCli),
            };
            return Ok(Target { endpoint, credential, ca_file });
        }
        let file = environment.profiles_file().filter(|file| file.exists());
        match (file, &args.hub) {
            (Some(file), name) => profile(&file, name.as_deref(), ca_file),
            (None, Some(name)) => Err(Usage(format!(
                "--hub {name}: there are no profiles; write them to {}",
                environment.profiles_file().unwrap_or_else(|| "~/.config/iotdm/ctl.toml".into()).display()
            ))),
            (None, None) => Err(Usage(
                "no hub given; use --connection-string-file FILE, IOTHUB_CONNECTION_STRING or a profile in \
                 ~/.config/iotdm/ctl.toml"
                    .into(),
            )),
        }
    }
}

/// To reboot a device of another hub than the named one would be bad enough
/// to say it each time.
fn warn_of_ignored_hub(args: &HubArgs, because: &str) {
    if let Some(name) = &args.hub {
        say(format_args!("iotdm-ctl: warning: --hub {name} is not used, since {because}"));
    }
}

/// Reads a secret, and warns of a file that everybody can read. `what` is who
/// names the file.
fn read<T: FromStr>(what: &str, path: &Path) -> Result<T, Usage>
where
    T::Err: Display,
{
    let refuse = |why: String| Usage(format!("{what} {}: {why}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
    let secret = text.parse().map_err(|error| refuse(format!("{error}")))?;
    let open = fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0);
    if open {
        say(format_args!(
            "iotdm-ctl: warning: everybody can read the key in {0}; chmod 600 {0}",
            path.display()
        ));
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRING: &str = "HostName={};SharedAccessKeyName=service;SharedAccessKey=c2VjcmV0";

    struct Home(tempfile::TempDir);

    impl Home {
        fn new(ctl_toml: &str) -> Self {
            let home = Home(tempfile::tempdir().unwrap());
            fs::create_dir_all(home.0.path().join(".config/iotdm")).unwrap();
            home.write(".config/iotdm/ctl.toml", ctl_toml);
            for hub in ["flag", "prod", "lab"] {
                home.write(&format!(".config/iotdm/{hub}"), &STRING.replace("{}", hub));
            }
            home
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(".config/iotdm").join(name)
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.0.path().join(name), text).unwrap();
        }

        fn environment(&self) -> Environment {
            Environment { home: Some(self.0.path().into()), ..Environment::default() }
        }
    }

    const PROFILES: &str = "default = 'prod'\n[hub.prod]\nconnection_string_file = 'prod'\n\
        [hub.lab]\nconnection_string_file = 'lab'\nca_file = 'ca.pem'\n";

    fn host(target: &Target) -> &str {
        target.endpoint.host.as_str()
    }

    #[test]
    fn flag_then_variable_then_profile() {
        let home = Home::new(PROFILES);
        let mut environment = home.environment();
        let mut args = HubArgs::default();
        assert_eq!(host(&Target::find(&args, &environment).unwrap()), "prod");
        args.hub = Some("lab".into());
        let lab = Target::find(&args, &environment).unwrap();
        assert_eq!((host(&lab), lab.ca_file.clone()), ("lab", Some(home.path("ca.pem"))));
        environment.ca_file = Some("variable.pem".into());
        assert_eq!(Target::find(&args, &environment).unwrap().ca_file, Some("variable.pem".into()));
        environment.connection_string = Some(STRING.replace("{}", "variable"));
        args.ca_file = Some("own.pem".into());
        let variable = Target::find(&args, &environment).unwrap();
        assert_eq!((host(&variable), variable.ca_file.clone()), ("variable", Some("own.pem".into())));
        args.connection_string_file = Some(home.path("flag"));
        assert_eq!(host(&Target::find(&args, &environment).unwrap()), "flag");
    }

    fn logs_in_by_the_azure_cli(target: &Target) -> bool {
        matches!(&target.credential, Credential::Entra(entra) if matches!(entra.login(), Login::AzureCli))
    }

    #[test]
    fn a_hub_by_its_name_and_a_token() {
        let home = Home::new(
            "[hub.lab]\nhost_name = 'lab'\ntoken_file = 't'\n[hub.az]\nhost_name = 'az'\nazure_cli = true\n",
        );
        home.write(".config/iotdm/t", "eyJ0\n");
        let args = |hub: &str| HubArgs { hub: Some(hub.into()), ..HubArgs::default() };
        let mut environment = home.environment();
        let lab = Target::find(&args("lab"), &environment).unwrap();
        assert!(matches!(lab.credential, Credential::Token(_)) && host(&lab) == "lab");
        let az = Target::find(&args("az"), &environment).unwrap();
        assert!(logs_in_by_the_azure_cli(&az) && host(&az) == "az");
        environment.host_name = Some("variable".into());
        let variable = Target::find(&HubArgs::default(), &environment).unwrap();
        assert!(logs_in_by_the_azure_cli(&variable) && host(&variable) == "variable");
        environment.token = Some("eyJ0".into());
        let variable = Target::find(&HubArgs::default(), &environment).unwrap();
        assert!(matches!(variable.credential, Credential::Token(_)));
    }

    #[test]
    fn xdg_config_home_moves_the_profiles() {
        let home = Home::new(PROFILES);
        let mut environment = home.environment();
        environment.config_home = Some(home.0.path().join("elsewhere"));
        let error = Target::find(&HubArgs::default(), &environment).unwrap_err().to_string();
        assert!(error.contains("no hub given"), "{error}");
        environment.config_home = Some(home.0.path().join(".config"));
        environment.home = None;
        assert_eq!(host(&Target::find(&HubArgs::default(), &environment).unwrap()), "prod");
    }

    #[test]
    fn mistakes_name_file_and_remedy() {
        let args = |hub: &str| HubArgs { hub: Some(hub.into()), ..HubArgs::default() };
        for (profiles, args, expected) in [
            (PROFILES, args("mars"), "no [hub.mars]; there are: lab, prod"),
            ("[hub.lab]\nconnection_string_file = 'lab'", HubArgs::default(), "give --hub NAME, one of: lab"),
            ("[hub.lab]\nconnection_string = 's3cret'", args("lab"), "ctl.toml: line 2: unknown field"),
            ("[hub.lab]\nhost_name = 'h'", args("lab"), "host_name with one of token_file, azure_cli = true"),
            (
                "[hub.lab]\nhost_name = 'h'\nclient_secret_file = 'lab'",
                args("lab"),
                "tenant_id and client_id",
            ),
            ("[hub.lab]\nhost_name = 'h'\nazure_cli = true\nmanaged_identity = true", args("lab"), "one of"),
            ("[hub.lab]\nhost_name = 'h:x'\nazure_cli = true", args("lab"), "[hub.lab] host_name"),
            ("[hub.lab]\nconnection_string_file = 'gone'", args("lab"), "gone: No such file"),
        ] {
            let home = Home::new(profiles);
            let error = Target::find(&args, &home.environment()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(error.contains(".config/iotdm/"), "{error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn an_application_that_is_half_named_is_nobody_else() {
        let home = Home::new(PROFILES);
        let host_name = Some("h".to_owned());
        let environment =
            Environment { host_name, client_secret: Some(Err(Incomplete)), ..home.environment() };
        let error = Target::find(&HubArgs::default(), &environment).unwrap_err().to_string();
        assert!(error.starts_with("AZURE_CLIENT_SECRET is set, but not both"), "{error}");
    }

    #[test]
    fn a_devices_string_is_refused_without_showing_its_key() {
        let home = Home::new(PROFILES);
        home.write(".config/iotdm/prod", "HostName=h;DeviceId=d;SharedAccessKey=c2VjcmV0");
        let error = Target::find(&HubArgs::default(), &home.environment()).unwrap_err().to_string();
        assert!(error.contains("a device's connection string"), "{error}");
        assert!(!error.contains("c2VjcmV0"), "{error}");
    }
}
