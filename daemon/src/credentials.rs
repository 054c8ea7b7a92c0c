//! Where the connection string comes from: a file named in the configuration,
//! or the systemd credential `connection-string`. Never an argument or the
//! value of an environment variable, since others could read those.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use iotdm_proto::{DeviceAuth, DeviceConnectionString, SecretKey};
use zeroize::Zeroizing;

use crate::config::Hub;

/// A device's identity, ready to connect with.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The string's other parts.
    pub connection: DeviceConnectionString,
    /// The key that signs its tokens.
    pub key: SecretKey,
    /// The file it came from.
    pub source: PathBuf,
    /// What should be mended about that file.
    pub warning: Option<String>,
}

/// A connection string is well below a kilobyte; more is another file.
const MAX_BYTES: u64 = 16 * 1024;

/// Reads the identity; `credentials_dir` is systemd's `$CREDENTIALS_DIRECTORY`.
/// Started by hand there is none: then `packaged` is taken, the file that the
/// packaged unit makes its credential from, if it is there.
pub fn load(hub: &Hub, credentials_dir: Option<&Path>, packaged: &Path) -> anyhow::Result<Identity> {
    let configured = hub.connection_string_file.as_ref();
    let source = match (configured, credentials_dir) {
        (Some(file), _) => file.clone(),
        (None, Some(dir)) => dir.join("connection-string"),
        (None, None) if packaged.exists() => packaged.to_owned(),
        (None, None) => bail!(
            "no connection string: write it into {} (root only, mode 0600), \
             or set hub.connection_string_file; one encrypted by systemd-creds is seen by the service alone",
            packaged.display()
        ),
    };
    let text = read(&source)?;
    if text.trim().is_empty() {
        let remedy = match configured {
            Some(_) => "write the device's connection string into it",
            None => {
                "write the device's connection string into /etc/iotdm/connection-string \
                 (root only, mode 0600) and restart iotdm-agentd"
            }
        };
        bail!("the connection string in {} is empty: {remedy}", source.display());
    }
    let connection: DeviceConnectionString = text
        .parse()
        .with_context(|| format!("the connection string in {} cannot be used", source.display()))?;
    let key = match &connection.auth {
        DeviceAuth::Key(key) => key.clone(),
        DeviceAuth::Token(_) => {
            bail!("{}: SharedAccessSignature is not supported; give SharedAccessKey", source.display())
        }
        DeviceAuth::X509 => {
            bail!("{}: x509=true is not supported by this version; give SharedAccessKey", source.display())
        }
    };
    if !connection.device_id.fits_mqtt() {
        bail!("{}: a device id with '#' or '+' cannot connect over MQTT", source.display());
    }
    // A credential is systemd's copy; the file that it is made from can still
    // be everybody's.
    let warning = world_readable(configured.map_or(packaged, PathBuf::as_path));
    Ok(Identity { connection, key, source, warning })
}

fn read(source: &Path) -> anyhow::Result<Zeroizing<String>> {
    let cannot = || format!("cannot read the connection string in {}", source.display());
    let size = fs::metadata(source).with_context(cannot)?.len();
    if size > MAX_BYTES {
        bail!("{} has {size} bytes; a connection string has far fewer", source.display());
    }
    let bytes = Zeroizing::new(fs::read(source).with_context(cannot)?);
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => bail!("{} is not text; expected HostName=…;DeviceId=…;SharedAccessKey=…", source.display()),
    }
}

fn world_readable(file: &Path) -> Option<String> {
    let mode = fs::metadata(file).ok()?.permissions().mode();
    (mode & 0o004 != 0)
        .then(|| format!("{} can be read by every user of this machine: chmod 0600 it", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRING: &str = "HostName=h;DeviceId=gw1;SharedAccessKey=c2VjcmV0";

    fn loaded(text: &[u8]) -> Result<Identity, String> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("connection-string"), text).unwrap();
        load(&Hub::default(), Some(dir.path()), Path::new("/nowhere")).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn the_systemd_credential_with_a_newline() {
        let identity = loaded(format!("{STRING}\n").as_bytes()).unwrap();
        assert_eq!(identity.connection.device_id.as_str(), "gw1");
        assert!(!format!("{identity:?}").contains("c2VjcmV0"));
    }

    #[test]
    fn a_configured_file_wins_and_must_not_be_everybodys() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cs");
        fs::write(&file, STRING).unwrap();
        let hub = Hub { connection_string_file: Some(file.clone()), ..Hub::default() };
        let warning = |mode| {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            load(&hub, Some(Path::new("/nowhere")), Path::new("/nowhere")).unwrap().warning
        };
        assert!(warning(0o644).unwrap().contains("chmod 0600"));
        assert_eq!(warning(0o600), None);
    }

    #[test]
    fn nor_must_the_file_that_the_credential_is_made_from() {
        let dir = tempfile::tempdir().unwrap();
        let packaged = dir.path().join("packaged");
        fs::write(&packaged, STRING).unwrap();
        fs::write(dir.path().join("connection-string"), STRING).unwrap();
        let warning = |mode| {
            fs::set_permissions(&packaged, fs::Permissions::from_mode(mode)).unwrap();
            load(&Hub::default(), Some(dir.path()), &packaged).unwrap().warning
        };
        assert!(warning(0o604).unwrap().contains("packaged can be read by every user"));
        assert_eq!(warning(0o640), None);
    }

    #[test]
    fn each_mistake_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let packaged = dir.path().join("connection-string");
        let none = load(&Hub::default(), None, &packaged).unwrap_err().to_string();
        assert!(none.contains(packaged.to_str().unwrap()), "{none}");
        fs::write(&packaged, STRING).unwrap();
        assert_eq!(load(&Hub::default(), None, &packaged).unwrap().source, packaged);
        assert!(none.contains("hub.connection_string_file"), "{none}");
        let missing = load(&Hub::default(), Some(Path::new("/nowhere")), &packaged).unwrap_err();
        assert!(format!("{missing:#}").contains("/nowhere/connection-string"));
        for (text, words) in [
            (&b""[..], "is empty: write the device's connection string into /etc/iotdm/connection-string"),
            (b"\xff\xfe\x00", "is not text"),
            (&[b'x'; 20_000], "20000 bytes"),
            (b"HostName=h;SharedAccessKeyName=p;SharedAccessKey=c2VjcmV0", "service connection string"),
            (b"HostName=h;DeviceId=d;x509=true", "x509=true is not supported"),
            (b"HostName=h;DeviceId=a#b;SharedAccessKey=c2VjcmV0", "cannot connect over MQTT"),
        ] {
            let error = loaded(text).unwrap_err();
            assert!(error.contains(words), "{error}");
            assert!(!error.contains("c2VjcmV0"));
        }
    }
}
