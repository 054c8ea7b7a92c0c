//! Reads who the daemon is, and what proves it: a connection string, from a file
//! named in the configuration or the systemd credential `connection-string`; or
//! an enrolment in the provisioning service, which gives the device its name.
//! Never an argument or the value of an environment variable, since others could
//! read those.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail, ensure};
use iotdm_proto::{DeviceAuth, DeviceConnectionString};
use zeroize::Zeroizing;

use super::config::{Config, HubConfig, ProvisioningConfig};
use crate::connection::identity::{Enrolment, Login, Origin, Proof, Source};
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
/// The systemd credential with the connection string.
const CREDENTIAL: &str = "connection-string";
/// The byte order marks of UTF-16.
const UTF_16: [[u8; 2]; 2] = [[0xff, 0xfe], [0xfe, 0xff]];

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
    // The packaged unit's credential is empty where there is no connection string.
    let (file, needed) = match (configured, credentials_dir) {
        (Some(file), _) => (file.to_owned(), true),
        (None, Some(dir)) => (dir.join(CREDENTIAL), false),
        (None, None) => (packaged.to_owned(), false),
    };
    let origin = origin(&file, credentials_dir, packaged);
    let text = if needed || file.exists() {
        read(&file, &origin, "connection string")?
    } else {
        Zeroizing::default()
    };
    let is_there = needed || !text.trim().is_empty();
    let (source, mut warnings) = if is_there {
        let login = login(hub, origin, &text)?;
        // Nobody else can read a credential, but perhaps the file that systemd
        // copied it from.
        let readable = match configured {
            Some(file) => readable_key(file),
            None => world_readable(packaged, "chmod 0600 it"),
        };
        (Source::Fixed(login), Vec::from_iter(readable))
    } else if provisioning.id_scope.is_some() {
        let enrolment = enrolment(hub, provisioning, credentials_dir, packaged)?;
        let file = provisioning.symmetric_key_file.as_deref();
        (Source::Provisioned(enrolment), file.and_then(readable_key).into_iter().collect())
    } else {
        bail!(no_connection_string(credentials_dir, packaged));
    };
    if let Some(files) = source.proof().certificate() {
        warnings.extend(readable_key(&files.private_key));
    }
    Ok(Credentials { source, warnings })
}

/// Where a secret came from that is read from `file`. What systemd hands over as the
/// credential NAME, the packaged unit takes from NAME or NAME.cred beside `packaged`.
fn origin(file: &Path, credentials_dir: Option<&Path>, packaged: &Path) -> Origin {
    let credential = credentials_dir.and_then(|dir| file.strip_prefix(dir).ok());
    let plain = credential.map_or_else(|| file.to_owned(), |name| packaged.with_file_name(name));
    let encrypted = encrypted(&plain);
    if credential.is_some() && encrypted.exists() {
        Origin { command: Some(encrypt_command(&encrypted)), file: encrypted }
    } else if plain.exists() && (credential.is_some() || file == packaged) {
        Origin { command: Some(install_command(&plain)), file: plain }
    } else {
        Origin { file: file.to_owned(), command: None }
    }
}

/// The file with the same secret, encrypted.
fn encrypted(plain: &Path) -> PathBuf {
    let mut name = plain.to_owned().into_os_string();
    name.push(".cred");
    PathBuf::from(name)
}

fn install_command(file: &Path) -> String {
    format!("install -m 600 /dev/stdin {}", file.display())
}

fn encrypt_command(file: &Path) -> String {
    let name = file.file_stem().unwrap_or_default().display();
    format!("systemd-creds encrypt --name={name} - {}", file.display())
}

/// What to do where there is neither a connection string nor a provisioning service.
fn no_connection_string(credentials_dir: Option<&Path>, packaged: &Path) -> String {
    let encrypted = encrypted(packaged);
    match (encrypted.exists(), credentials_dir) {
        (true, None) => format!(
            "the connection string in {} is encrypted for the service, which alone can read it: run this as root",
            encrypted.display()
        ),
        (true, Some(_)) => format!(
            "no connection string has come out of {}: encrypt it again by {}, and run systemctl daemon-reload",
            encrypted.display(),
            encrypt_command(&encrypted)
        ),
        (false, _) => format!(
            "no connection string: write the device's one into {} by {}, or set hub.connection_string_file or \
             provisioning.id_scope",
            packaged.display(),
            install_command(packaged)
        ),
    }
}

fn login(hub: &HubConfig, origin: Origin, text: &str) -> anyhow::Result<Login> {
    let file = origin.file.display().to_string();
    if text.trim().is_empty() {
        bail!("{file} is empty: write the device's connection string into it");
    }
    let by =
        origin.command.as_ref().map(|command| format!(" (to replace it: {command})")).unwrap_or_default();
    let connection: DeviceConnectionString =
        text.parse().with_context(|| format!("{file} cannot be used{by}"))?;
    let proof = match connection.auth {
        DeviceAuth::Key(key) => Proof::Key { key, origin },
        DeviceAuth::X509 => Proof::Certificate(certificate_files(hub, "x509=true")?),
        DeviceAuth::Token(_) => bail!(
            "{file} has a SharedAccessSignature, which is not supported, since it ends and cannot be renewed: give the \
             device's SharedAccessKey"
        ),
    };
    let DeviceConnectionString { host_name, id, gateway, .. } = connection;
    if !id.fits_mqtt() {
        bail!("{file} has a device or module id with '#' or '+', which cannot connect over MQTT");
    }
    Ok(Login { hub: host_name, id, gateway, proof })
}

fn enrolment(
    hub: &HubConfig,
    provisioning: &ProvisioningConfig,
    credentials_dir: Option<&Path>,
    packaged: &Path,
) -> anyhow::Result<Enrolment> {
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
            let origin = origin(file, credentials_dir, packaged);
            let key = read(file, &origin, "key")?.trim().parse();
            let key =
                key.with_context(|| format!("{} holds no key of this device", origin.file.display()))?;
            Proof::Key { key, origin }
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

/// Reads the secret `what` in `file`, which is `origin` for people.
fn read(file: &Path, origin: &Origin, what: &str) -> anyhow::Result<Zeroizing<String>> {
    let shown = origin.file.display();
    let cannot = || format!("cannot read the {what} in {shown}");
    let size = fs::metadata(file).with_context(cannot)?.len();
    if size > MAX_BYTES {
        bail!("{shown} has {size} bytes; a {what} has far fewer");
    }
    let bytes = Zeroizing::new(fs::read(file).with_context(cannot)?);
    let text = std::str::from_utf8(&bytes).map(|text| Zeroizing::new(text.to_owned()));
    text.map_err(|_| {
        let form = match what {
            "key" => "a key in base64",
            _ => "HostName=…;DeviceId=…;SharedAccessKey=…",
        };
        if UTF_16.iter().any(|mark| bytes.starts_with(mark)) {
            return anyhow!("{shown} is text in UTF-16, as some editors write it: save it as UTF-8");
        }
        anyhow!("{shown} is not text; expected {form}")
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

    fn loaded(text: &[u8]) -> Result<Login, String> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("connection-string"), text).unwrap();
        let loaded = load(&Config::default(), Some(dir.path()), Path::new("/nowhere"));
        loaded.map(|loaded| fixed(loaded.source)).map_err(|error| format!("{error:#}"))
    }

    fn fixed(source: Source) -> Login {
        let Source::Fixed(login) = source else { panic!("{source:?}") };
        login
    }

    #[test]
    fn the_systemd_credential_with_a_newline() {
        let login = loaded(format!("{STRING}\n").as_bytes()).unwrap();
        assert_eq!(login.id.to_string(), "gw1");
        assert!(!format!("{login:?}").contains("c2VjcmV0"));
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
        let by_hand = format!(
            "no connection string: write the device's one into {0} by install -m 600 ",
            packaged.display()
        );
        assert!(none.starts_with(&by_hand) && none.contains("hub.connection_string_file"), "{none}");
        // Nor does a unit's own credentials directory without that credential have one.
        let other = load(&Config::default(), Some(Path::new("/nowhere")), &packaged).unwrap_err().to_string();
        assert_eq!(other, none);
        let cred = dir.path().join("connection-string.cred");
        fs::write(&cred, "").unwrap();
        let encrypted = load(&Config::default(), None, &packaged).unwrap_err().to_string();
        assert!(encrypted.contains("connection-string.cred is encrypted for the service"), "{encrypted}");
        fs::remove_file(&cred).unwrap();
        fs::write(&packaged, STRING).unwrap();
        let found = fixed(load(&Config::default(), None, &packaged).unwrap().source);
        assert!(matches!(found.proof, Proof::Key { origin, .. } if origin.file == packaged));
        for (text, words) in [
            (&b" \n"[..], "no connection string: write the device's one into "),
            (b"\xff\x00", "is not text"),
            (b"\xff\xfeH\x00", "is text in UTF-16"),
            (
                b"\xef\xbb\xbfHostName=h;DeviceId=d;SharedAccessKey=c2VjcmV0",
                ": a byte order mark stands before",
            ),
            (b"\"HostName=h;DeviceId=d;SharedAccessKey=c2VjcmV0\"", ": quotes stand around"),
            (&[b'x'; 20_000], "20000 bytes"),
            (b"HostName=h;SharedAccessKeyName=p;SharedAccessKey=c2VjcmV0", "service connection string"),
            (b"HostName=h;DeviceId=d;x509=true", "x509=true needs a certificate: set hub.certificate_file"),
            (b"HostName=h;DeviceId=a#b;SharedAccessKey=c2VjcmV0", "cannot connect over MQTT"),
            (b"HostName=h;DeviceId=a;ModuleId=b+;SharedAccessKey=c2VjcmV0", "cannot connect over MQTT"),
            (b"HostName=h;ModuleId=m;SharedAccessKey=c2VjcmV0", "lacks DeviceId"),
            (b"HostName=h;DeviceId=d;SharedAccessKey=!", ": SharedAccessKey: the key is not valid base64"),
            (b"HostName=a b;DeviceId=d;SharedAccessKey=c2VjcmV0", ": HostName: \"a b\" is not a host name"),
            (b"HostName=h:0;DeviceId=d;SharedAccessKey=c2VjcmV0", "does not end in a port"),
        ] {
            let error = loaded(text).unwrap_err();
            assert!(error.contains(words), "{error}");
            assert_eq!(error.matches(words).count(), 1, "said twice: {error}");
            assert!(!error.contains("c2VjcmV0"));
        }
    }

    #[test]
    fn a_secret_is_named_by_the_file_that_a_person_can_change() {
        let (etc, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (packaged, copy) = (etc.path().join("connection-string"), run.path().join("connection-string"));
        let (cred, wrong) = (etc.path().join("connection-string.cred"), "HostName=h;DeviceId=gw1");
        fs::write(&copy, wrong).unwrap();
        let error = || format!("{:#}", load(&Config::default(), Some(run.path()), &packaged).unwrap_err());
        let copies = run.path().to_str().unwrap();
        // A unit of the administrator's own takes it from elsewhere.
        assert!(error().starts_with(copies), "{}", error());
        fs::write(&packaged, wrong).unwrap();
        let named = |file: &Path, by: &str| {
            let named = format!("{} cannot be used (to replace it: {by} {0}): ", file.display());
            assert!(error().starts_with(&named) && !error().contains(copies), "{}", error());
        };
        named(&packaged, "install -m 600 /dev/stdin");
        fs::write(&cred, "").unwrap();
        named(&cred, "systemd-creds encrypt --name=connection-string -");
        fs::write(&copy, STRING).unwrap();
        let login = fixed(load(&Config::default(), Some(run.path()), &packaged).unwrap().source);
        let proof = login.proof.to_string();
        assert_eq!(
            proof,
            format!(
                "key in {0} (to replace it: systemd-creds encrypt --name=connection-string - {0})",
                cred.display()
            )
        );
    }

    #[test]
    fn only_what_stands_in_a_text_is_for_a_person_to_mend() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agentd.toml");
        let code = |text: &[u8]| {
            fs::write(&file, text).unwrap();
            let loaded =
                Config::load(&file, true).and_then(|config| load(&config, None, Path::new("/nowhere/x")));
            crate::settings::exit_code(&loaded.unwrap_err())
        };
        let named =
            |name: &str| format!("hub.connection_string_file = {:?}", dir.path().join(name)).into_bytes();
        for (name, text) in [("empty", ""), ("wrong", "HostName=h"), ("long", &"x".repeat(20_000))] {
            fs::write(dir.path().join(name), text).unwrap();
            assert_eq!(code(&named(name)), 78, "{name}");
        }
        fs::write(dir.path().join("binary"), b"\xff").unwrap();
        for text in [&named("binary"), &b"[hub\n"[..], b"# \xff", b""] {
            assert_eq!(code(text), 78, "{text:?}");
        }
        // Late, or not (yet) readable.
        assert_eq!(code(&named("missing")), 1);
        assert_eq!(code(&named("missing/too")), 1);
        fs::create_dir(dir.path().join("agentd.toml.d")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("agentd.toml.d/a.toml")).unwrap();
        assert_eq!(code(b""), 1);
        fs::remove_file(&file).unwrap();
        assert_eq!(crate::settings::exit_code(&Config::load(&file, true).unwrap_err()), 1);
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
