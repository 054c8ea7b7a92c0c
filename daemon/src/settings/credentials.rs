//! Reads who the device is, and what proves it: a connection string, from a file
//! named in the configuration or the systemd credential `connection-string`; or
//! an enrolment in the provisioning service, which gives the device its name.
//! Never an argument or the value of an environment variable, since others could
//! read those.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail, ensure};
use iotdm_proto::{DeviceAuth, DeviceConnectionString};
use zeroize::Zeroizing;

use super::config::{Config, HubConfig, ProvisioningConfig};
use crate::connection::identity::{Enrolment, Identity, Proof, Source};
use crate::connection::tls::CertificateFiles;

/// What the configuration leads to.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Who connects, and where.
    pub source: Source,
    /// What should be mended about the files that hold secrets.
    pub warnings: Vec<String>,
}

/// The largest file that is read, in bytes: a key or a connection string has well
/// below a thousand, so that a larger file was named by mistake.
const MAX_BYTES: u64 = 16 * 1024;

/// Reads what the configuration names. `credentials_dir` is systemd's
/// `$CREDENTIALS_DIRECTORY`; a daemon started by hand has none, and reads `packaged`
/// instead, the file that the packaged unit makes its credential from.
pub fn load(config: &Config, credentials_dir: Option<&Path>, packaged: &Path) -> anyhow::Result<Credentials> {
    let hub = &config.hub;
    let provisioning = &config.provisioning;
    ensure!(
        hub.certificate_file.is_some() == hub.private_key_file.is_some(),
        "hub.certificate_file and hub.private_key_file go together: set both, or none"
    );
    ensure!(
        provisioning.id_scope.is_some() || *provisioning == ProvisioningConfig::default(),
        "[provisioning] lacks id_scope, without which no service is asked"
    );
    let configured = hub.connection_string_file.as_deref();
    let provisioned = provisioning.id_scope.is_some();
    let source = match (configured, credentials_dir) {
        (Some(file), _) => Some(file.to_owned()),
        (None, Some(dir)) => Some(dir.join("connection-string")),
        (None, None) => packaged.exists().then(|| packaged.to_owned()),
    };
    // With a provisioning service, the packaged unit's empty credential means
    // that there is no connection string.
    let optional = configured.is_none() && provisioned;
    let text = match &source {
        Some(file) if optional && !file.exists() => None,
        Some(file) => {
            Some(read(file, "connection string")?).filter(|text| !(optional && text.trim().is_empty()))
        }
        None => None,
    };
    let (source, mut warnings) = match (source, text) {
        (Some(file), Some(text)) => {
            let identity = identity(hub, &file, &text, configured.is_some())?;
            // Nobody else can read a credential, but perhaps the file that systemd
            // copied it from.
            let readable = match configured {
                Some(file) => readable_key(file),
                None => world_readable(packaged, "chmod 0600 it"),
            };
            (Source::Fixed(identity), Vec::from_iter(readable))
        }
        _ if provisioned => {
            let enrolment = enrolment(hub, provisioning)?;
            let file = provisioning.symmetric_key_file.as_deref();
            (Source::Provisioned(enrolment), file.and_then(readable_key).into_iter().collect())
        }
        _ => bail!(
            "no connection string: write it into {} (root only, mode 0600), \
             or set hub.connection_string_file, or provisioning.id_scope; one encrypted by systemd-creds is seen by \
             the service alone",
            packaged.display()
        ),
    };
    if let Some(files) = source.proof().certificate() {
        warnings.extend(readable_key(&files.private_key));
    }
    Ok(Credentials { source, warnings })
}

fn identity(hub: &HubConfig, file: &Path, text: &str, configured: bool) -> anyhow::Result<Identity> {
    if text.trim().is_empty() {
        let remedy = if configured {
            "write the device's connection string into it"
        } else {
            "write the device's connection string into /etc/iotdm/connection-string \
             (root only, mode 0600) and restart iotdm-agentd"
        };
        bail!("the connection string in {} is empty: {remedy}", file.display());
    }
    let connection: DeviceConnectionString = text
        .parse()
        .with_context(|| format!("the connection string in {} cannot be used", file.display()))?;
    let proof = match connection.auth {
        DeviceAuth::Key(key) => Proof::Key { key, file: file.to_owned() },
        DeviceAuth::X509 => Proof::Certificate(certificate_files(hub, "x509=true")?),
        DeviceAuth::Token(_) => bail!(
            "{}: SharedAccessSignature is not supported, since it ends and cannot be renewed: give SharedAccessKey",
            file.display()
        ),
    };
    let DeviceConnectionString { host_name, device_id, gateway, .. } = connection;
    if !device_id.fits_mqtt() {
        bail!("{}: a device id with '#' or '+' cannot connect over MQTT", file.display());
    }
    Ok(Identity { hub: host_name, device_id, gateway, proof })
}

fn enrolment(hub: &HubConfig, provisioning: &ProvisioningConfig) -> anyhow::Result<Enrolment> {
    let ProvisioningConfig { id_scope, registration_id, global_endpoint, symmetric_key_file } = provisioning;
    let registration_id = match registration_id {
        Some(id) => id.clone(),
        None => {
            let name = nix::unistd::gethostname().context("cannot tell the host's name")?;
            name.to_string_lossy().to_lowercase()
        }
    };
    // Source: "DPS device concepts", registration ID.
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._:".contains(&b);
    ensure!(
        (1..=128).contains(&registration_id.len()) && registration_id.bytes().all(fits),
        "{registration_id:?} cannot be a registration id: set provisioning.registration_id to 1 to 128 letters, \
         digits and - . _ :"
    );
    let proof = match symmetric_key_file {
        None => Proof::Certificate(certificate_files(hub, "provisioning without symmetric_key_file")?),
        Some(file) => {
            let key = read(file, "key")?.trim().parse();
            let key = key.with_context(|| {
                format!("provisioning.symmetric_key_file {} holds no key of this device", file.display())
            })?;
            Proof::Key { key, file: file.clone() }
        }
    };
    let id_scope = id_scope.clone().unwrap_or_default();
    Ok(Enrolment { id_scope, registration_id, endpoint: global_endpoint.clone(), proof })
}

fn certificate_files(hub: &HubConfig, why: &str) -> anyhow::Result<CertificateFiles> {
    match (&hub.certificate_file, &hub.private_key_file) {
        (Some(certificate), Some(private_key)) => {
            Ok(CertificateFiles { certificate: certificate.clone(), private_key: private_key.clone() })
        }
        _ => bail!("{why} needs a certificate: set hub.certificate_file and hub.private_key_file"),
    }
}

fn read(source: &Path, what: &str) -> anyhow::Result<Zeroizing<String>> {
    let cannot = || format!("cannot read the {what} in {}", source.display());
    let size = fs::metadata(source).with_context(cannot)?.len();
    if size > MAX_BYTES {
        bail!("{} has {size} bytes; a {what} has far fewer", source.display());
    }
    let bytes = Zeroizing::new(fs::read(source).with_context(cannot)?);
    let text = std::str::from_utf8(&bytes).map(|text| Zeroizing::new(text.to_owned()));
    text.map_err(|_| {
        let form = match what {
            "key" => "a key in base64",
            _ => "HostName=…;DeviceId=…;SharedAccessKey=…",
        };
        anyhow!("{} is not text; expected {form}", source.display())
    })
}

/// Whether every user can read `file`.
pub fn is_world_readable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

/// Warns where everybody can read a file with a secret that the daemon itself reads.
fn readable_key(file: &Path) -> Option<String> {
    world_readable(file, "give it to the user that the daemon runs as, and chmod 0600 it")
}

/// Warns where everybody can read a file with a secret, and names the remedy.
fn world_readable(file: &Path, remedy: &str) -> Option<String> {
    is_world_readable(file)
        .then(|| format!("{} can be read by every user of this machine: {remedy}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRING: &str = "HostName=h;DeviceId=gw1;SharedAccessKey=c2VjcmV0";

    fn loaded(text: &[u8]) -> Result<Identity, String> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("connection-string"), text).unwrap();
        let loaded = load(&Config::default(), Some(dir.path()), Path::new("/nowhere"));
        loaded.map(|loaded| fixed(loaded.source)).map_err(|error| format!("{error:#}"))
    }

    fn fixed(source: Source) -> Identity {
        let Source::Fixed(identity) = source else { panic!("{source:?}") };
        identity
    }

    #[test]
    fn the_systemd_credential_with_a_newline() {
        let identity = loaded(format!("{STRING}\n").as_bytes()).unwrap();
        assert_eq!(identity.device_id.as_str(), "gw1");
        assert!(!format!("{identity:?}").contains("c2VjcmV0"));
    }

    #[test]
    fn a_configured_file_wins_and_must_not_be_everybodys() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cs");
        fs::write(&file, STRING).unwrap();
        let hub = HubConfig { connection_string_file: Some(file.clone()), ..HubConfig::default() };
        let config = Config { hub, ..Config::default() };
        let warning = |mode| {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            load(&config, Some(Path::new("/nowhere")), Path::new("/nowhere")).unwrap().warnings.concat()
        };
        assert!(warning(0o644).contains("chmod 0600"));
        assert_eq!(warning(0o600), "");
    }

    #[test]
    fn nor_must_the_file_that_the_credential_is_made_from() {
        let dir = tempfile::tempdir().unwrap();
        let packaged = dir.path().join("packaged");
        fs::write(&packaged, STRING).unwrap();
        fs::write(dir.path().join("connection-string"), STRING).unwrap();
        let warning = |mode| {
            fs::set_permissions(&packaged, fs::Permissions::from_mode(mode)).unwrap();
            load(&Config::default(), Some(dir.path()), &packaged).unwrap().warnings.concat()
        };
        assert!(warning(0o604).contains("packaged can be read by every user"));
        assert_eq!(warning(0o640), "");
    }

    #[test]
    fn each_mistake_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let packaged = dir.path().join("connection-string");
        let none = load(&Config::default(), None, &packaged).unwrap_err().to_string();
        assert!(none.contains(packaged.to_str().unwrap()), "{none}");
        fs::write(&packaged, STRING).unwrap();
        let found = fixed(load(&Config::default(), None, &packaged).unwrap().source);
        assert!(matches!(found.proof, Proof::Key { file, .. } if file == packaged));
        assert!(none.contains("hub.connection_string_file"), "{none}");
        let missing = load(&Config::default(), Some(Path::new("/nowhere")), &packaged).unwrap_err();
        assert!(format!("{missing:#}").contains("/nowhere/connection-string"));
        for (text, words) in [
            (&b""[..], "is empty: write the device's connection string into /etc/iotdm/connection-string"),
            (b"\xff\xfe\x00", "is not text"),
            (&[b'x'; 20_000], "20000 bytes"),
            (b"HostName=h;SharedAccessKeyName=p;SharedAccessKey=c2VjcmV0", "service connection string"),
            (b"HostName=h;DeviceId=d;x509=true", "x509=true needs a certificate: set hub.certificate_file"),
            (b"HostName=h;DeviceId=a#b;SharedAccessKey=c2VjcmV0", "cannot connect over MQTT"),
        ] {
            let error = loaded(text).unwrap_err();
            assert!(error.contains(words), "{error}");
            assert!(!error.contains("c2VjcmV0"));
        }
    }

    #[test]
    fn without_a_connection_string_the_provisioning_service_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        fs::write(&key, "c2VjcmV0\n").unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        let provisioning = ProvisioningConfig {
            id_scope: Some("0ne0001".to_owned()),
            registration_id: Some("gw1".to_owned()),
            symmetric_key_file: Some(key.clone()),
            ..ProvisioningConfig::default()
        };
        let config = Config { provisioning, ..Config::default() };
        let credential = dir.path().join("connection-string");
        for credential_text in [None, Some("\n")] {
            if let Some(text) = credential_text {
                fs::write(&credential, text).unwrap();
            }
            let loaded = load(&config, Some(dir.path()), Path::new("/nowhere")).unwrap();
            let Source::Provisioned(enrolment) = loaded.source else { panic!("{:?}", loaded.source) };
            assert_eq!(enrolment.endpoint.to_string(), "global.azure-devices-provisioning.net");
            assert_eq!(loaded.warnings, Vec::<String>::new());
        }
        fs::write(&credential, STRING).unwrap();
        fixed(load(&config, Some(dir.path()), Path::new("/nowhere")).unwrap().source);

        fs::remove_file(&credential).unwrap();
        let error = |provisioning: ProvisioningConfig| {
            let config = Config { provisioning, ..Config::default() };
            format!("{:#}", load(&config, Some(dir.path()), Path::new("/nowhere")).unwrap_err())
        };
        let wrong = |id: &str| ProvisioningConfig {
            registration_id: Some(id.to_owned()),
            ..config.provisioning.clone()
        };
        assert!(error(wrong("gw 1")).contains("\"gw 1\" cannot be a registration id"));
        let certificate = ProvisioningConfig { symmetric_key_file: None, ..config.provisioning.clone() };
        assert!(error(certificate).contains("needs a certificate: set hub.certificate_file"));
        fs::write(&key, "no base64!").unwrap();
        let no_key = error(config.provisioning.clone());
        assert!(no_key.contains("holds no key of this device") && !no_key.contains("no base64!"), "{no_key}");
    }
}
