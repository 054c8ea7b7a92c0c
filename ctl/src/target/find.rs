//! Finds the hub that a command is about, in the order that [`super`] gives.

use super::Target;
use super::args::HubArgs;
use super::environment::{Environment, Incomplete};
use super::profile::profile;
use crate::credential::{Credential, Login};
use crate::error::Usage;
use crate::output::say;
use crate::secret_file::read;

impl Target {
    /// The hub that the options and the environment mean. The error says how to
    /// name one.
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
            return Ok(Target { endpoint, credential, ca_file, module: None });
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

/// Warns that `--hub` is not heeded: to reboot a device of another hub than the
/// named one would be bad.
fn warn_of_ignored_hub(args: &HubArgs, because: &str) {
    if let Some(name) = &args.hub {
        say(format_args!("iotdm-ctl: warning: --hub {name} is not used, since {because}"));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

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

    #[test]
    fn a_profile_says_which_module_the_daemon_is() {
        let home = Home::new(
            "[hub.lab]\nconnection_string_file = 'lab'\nmodule = 'iotdm'\n\
             [hub.az]\nhost_name = 'az'\nazure_cli = true\nmodule = 'm'\n[hub.prod]\nconnection_string_file = 'prod'\n",
        );
        for (hub, module) in [("lab", Some("iotdm")), ("az", Some("m")), ("prod", None)] {
            let args = HubArgs { hub: Some(hub.into()), ..HubArgs::default() };
            let target = Target::find(&args, &home.environment()).unwrap();
            assert_eq!(target.module.as_ref().map(|module| module.as_str()), module, "{hub}");
        }
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
        assert!(matches!(lab.credential, Credential::TokenFile(_)) && host(&lab) == "lab");
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
    fn the_only_profile_needs_not_be_called_the_default() {
        let home = Home::new("[hub.lab]\nconnection_string_file = 'lab'");
        assert_eq!(host(&Target::find(&HubArgs::default(), &home.environment()).unwrap()), "lab");
        let home = Home::new("default = 'mars'\n[hub.lab]\nconnection_string_file = 'lab'");
        let error = Target::find(&HubArgs::default(), &home.environment()).unwrap_err().to_string();
        assert!(error.contains("no [hub.mars]"), "a default is heeded: {error}");
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
            (
                "[hub.lab]\nconnection_string_file = 'lab'\n[hub.prod]\nconnection_string_file = 'prod'",
                HubArgs::default(),
                "no default; give --hub NAME, one of: lab, prod",
            ),
            ("", HubArgs::default(), "it has no [hub.NAME]"),
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
            (
                "[hub.lab]\nconnection_string_file = 'lab'\nmodule = 'a b'",
                args("lab"),
                "[hub.lab] module: \"a b\" is not a module id",
            ),
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
