//! What proves to a hub which device it is, as the hub's registry and a device's
//! connection string have it.

use std::path::Path;

use anyhow::{Context as _, bail};
use iotdm_proto::{DeviceId, Endpoint, SecretKey};
use serde_json::{Value, json};

use super::keys::new_key;
use crate::cli::{Auth, Key};
use crate::error::Usage;
use crate::hub::HubClient;
use crate::output::say;
use crate::secret_file;

/// What a device proves its identity by.
pub(super) enum DeviceCredential {
    /// A key, which the connection string contains.
    Key(SecretKey),
    /// A certificate, which the device has in a file.
    Certificate,
}

/// An identity's `authentication` as the hub takes it, and the credential that the
/// device needs for it; for [`Auth::Sas`] two new keys.
pub(super) fn authentication(
    auth: Auth,
    thumbprint: Option<String>,
    secondary: Option<String>,
) -> anyhow::Result<(Value, DeviceCredential)> {
    let refuse = |what: &str| Err(Usage(what.to_owned()).into());
    match (auth, thumbprint) {
        (Auth::X509Thumbprint, Some(primary)) => {
            let thumbprints = json!({"primaryThumbprint": primary, "secondaryThumbprint": secondary});
            Ok((json!({"type": "selfSigned", "x509Thumbprint": thumbprints}), DeviceCredential::Certificate))
        }
        (Auth::X509Thumbprint, None) => {
            refuse("x509-thumbprint needs the device's --certificate FILE or --thumbprint HEX")
        }
        (_, Some(_)) => refuse("a certificate's thumbprint is for --auth x509-thumbprint"),
        (Auth::X509Ca, None) => Ok((json!({"type": "certificateAuthority"}), DeviceCredential::Certificate)),
        (Auth::Sas, None) => {
            let (primary, secondary) = (new_key()?, new_key()?);
            let keys = json!({
                "primaryKey": primary.expose_base64().as_str(),
                "secondaryKey": secondary.expose_base64().as_str(),
            });
            Ok((json!({"type": "sas", "symmetricKey": keys}), DeviceCredential::Key(primary)))
        }
    }
}

/// The key in an identity of a device that has keys. The hub shows keys only to
/// who may write the registry.
pub(crate) fn key(identity: &Value, which: Key) -> anyhow::Result<SecretKey> {
    let pointer = match which {
        Key::Primary => "/authentication/symmetricKey/primaryKey",
        Key::Secondary => "/authentication/symmetricKey/secondaryKey",
    };
    let Some(key) = identity.pointer(pointer).and_then(Value::as_str) else {
        bail!("the hub shows no key: it has none, or the policy may not write the registry");
    };
    key.parse().context("the hub's key for it")
}

/// The credential that the hub has of a device.
pub(super) fn stored(identity: &Value, which: Key) -> anyhow::Result<DeviceCredential> {
    match identity.pointer("/authentication/type").and_then(Value::as_str) {
        Some("selfSigned" | "certificateAuthority") => Ok(DeviceCredential::Certificate),
        _ => key(identity, which).map(DeviceCredential::Key),
    }
}

/// The connection string that a device needs. With `gateway` the device connects
/// there in place of the hub.
pub(super) fn connection_string(
    hub: &HubClient,
    device: &DeviceId,
    gateway: Option<&Endpoint>,
    credential: &DeviceCredential,
) -> String {
    // Without the port of our own connection string, which is that of REST: the
    // device speaks MQTT.
    let mut text = format!("HostName={};DeviceId={device}", hub.endpoint().host);
    if let Some(module) = hub.module() {
        text.push_str(&format!(";ModuleId={module}"));
    }
    if let Some(gateway) = gateway {
        text.push_str(&format!(";GatewayHostName={gateway}"));
    }
    match credential {
        DeviceCredential::Key(key) => {
            text.push_str(&format!(";SharedAccessKey={}", key.expose_base64().as_str()))
        }
        DeviceCredential::Certificate => text.push_str(";x509=true"),
    }
    text
}

/// Writes connection strings to a file that only its owner can read.
pub(super) fn write_out(path: &Path, text: &str) -> anyhow::Result<()> {
    secret_file::write(path, text)?;
    say(format_args!("wrote {}", path.display()));
    Ok(())
}
