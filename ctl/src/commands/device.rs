//! `device …`: identities. Keys are fetched with an identity, but shown only
//! by `connection-string`.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use iotdm_proto::SecretKey;
use serde_json::Value;

use crate::cli::{ConnectionStringArgs, DeviceArgs, DeviceDeleteArgs, DeviceListArgs};
use crate::commands::query::{self, cell};
use crate::hub::Hub;
use crate::output::{Output, say};
use crate::prompt::confirm;

/// Creates a device.
pub async fn create(hub: &Hub, output: Output, args: DeviceArgs) -> anyhow::Result<()> {
    let device = &args.device;
    let identity = hub.create_device(device).await.with_context(|| device.to_string())?;
    if !output.is_text() {
        return Ok(output.json(&without_keys(identity))?);
    }
    output.line(format_args!("created {device}"))?;
    say(format_args!("its connection string: iotdm-ctl device connection-string {device} --out FILE"));
    Ok(())
}

/// Prints an identity.
pub async fn show(hub: &Hub, output: Output, args: DeviceArgs) -> anyhow::Result<()> {
    let identity = hub.device(&args.device).await.with_context(|| args.device.to_string())?;
    let identity = without_keys(identity);
    if !output.is_text() {
        return Ok(output.json(&identity)?);
    }
    let rows: Vec<Vec<String>> = [
        ("device", "/deviceId"),
        ("status", "/status"),
        ("reason", "/statusReason"),
        ("connection", "/connectionState"),
        ("last activity", "/lastActivityTime"),
        ("authentication", "/authentication/type"),
        ("etag", "/etag"),
    ]
    .into_iter()
    .map(|(name, pointer)| vec![name.to_owned(), cell(identity.pointer(pointer))])
    .collect();
    Ok(output.table(&[], &rows)?)
}

/// Lists devices. A query has all of them page by page, where the registry's
/// own list ends at a thousand.
pub async fn list(hub: &Hub, output: Output, args: DeviceListArgs) -> anyhow::Result<()> {
    query::print(hub, output, "SELECT * FROM devices", args.top).await
}

/// Deletes a device.
pub async fn delete(hub: &Hub, output: Output, args: DeviceDeleteArgs) -> anyhow::Result<()> {
    let (device, host) = (&args.device, hub.endpoint());
    let question = format!("Delete {device} from hub {host}, with its keys and its twin?");
    if !args.yes && !confirm(&format!("device delete {device}"), question).await? {
        bail!("nothing deleted");
    }
    hub.delete_device(&args.device).await.with_context(|| args.device.to_string())?;
    if output.is_text() {
        output.line(format_args!("deleted {}", args.device))?;
    }
    Ok(())
}

/// Prints the connection string that the device needs, or writes it to a file
/// that only its owner can read.
pub async fn connection_string(hub: &Hub, output: Output, args: ConnectionStringArgs) -> anyhow::Result<()> {
    let identity = hub.device(&args.device).await.with_context(|| args.device.to_string())?;
    // The port of the service string is REST's; the device speaks MQTT.
    let mut text = format!("HostName={};DeviceId={}", hub.endpoint().host, args.device);
    if let Some(gateway) = &args.gateway {
        text.push_str(&format!(";GatewayHostName={gateway}"));
    }
    text.push_str(&secret(&identity).with_context(|| args.device.to_string())?);
    match &args.out {
        Some(path) => {
            write_private(path, &text).with_context(|| format!("cannot write {}", path.display()))?;
            say(format_args!("wrote {}", path.display()));
        }
        None if output.is_text() => output.line(format_args!("{text}"))?,
        None => output.json(&serde_json::json!({ "connectionString": text }))?,
    }
    Ok(())
}

fn secret(identity: &Value) -> anyhow::Result<String> {
    match identity.pointer("/authentication/type").and_then(Value::as_str) {
        Some("selfSigned" | "certificateAuthority") => Ok(";x509=true".to_owned()),
        _ => {
            let key = identity.pointer("/authentication/symmetricKey/primaryKey").and_then(Value::as_str);
            let Some(key) = key else {
                bail!("the hub shows no key; the policy needs the right to write the registry");
            };
            let key: SecretKey = key.parse().context("the hub's key for it")?;
            Ok(format!(";SharedAccessKey={}", key.expose_base64().as_str()))
        }
    }
}

/// Replaces the file as a whole, so that a key never stands in one that is
/// half written or that others can read.
fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    writeln!(file, "{text}")?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

fn without_keys(mut identity: Value) -> Value {
    if let Some(authentication) = identity.get_mut("authentication").and_then(Value::as_object_mut) {
        authentication.remove("symmetricKey");
    }
    identity
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use serde_json::json;

    use super::*;

    #[test]
    fn the_secret_part_by_kind_of_authentication() {
        let with = |authentication: Value| secret(&json!({ "authentication": authentication }));
        let keys = json!({"type": "sas", "symmetricKey": {"primaryKey": "c2VjcmV0"}});
        assert_eq!(with(keys).unwrap(), ";SharedAccessKey=c2VjcmV0");
        assert_eq!(with(json!({"type": "selfSigned"})).unwrap(), ";x509=true");
        assert!(with(json!({"type": "sas", "symmetricKey": {"primaryKey": null}})).is_err());
    }

    #[test]
    fn a_readable_file_is_replaced_by_a_private_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        write_private(&path, "new").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
