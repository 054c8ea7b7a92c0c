//! `device …`: identities. Keys are fetched with an identity, but shown only
//! where they are asked for.

mod bulk;
mod keys;

use std::path::Path;

use anyhow::{Context as _, bail};
use iotdm_proto::{DeviceId, Endpoint, SecretKey};
use serde_json::{Value, json};

pub use self::keys::derive;
use crate::cli::{
    Auth, ConnectionStringArgs, DeviceArgs, DeviceCreateArgs, DeviceDeleteArgs, DeviceDisableArgs,
    DeviceListArgs, Key, RenewKeyArgs,
};
use crate::commands::query::{self, cell};
use crate::error::{Exit, Usage};
use crate::hub::Hub;
use crate::output::{Output, say};
use crate::prompt::confirm;
use crate::{secret_file, times};

/// What a connection string ends in.
enum Secret {
    Key(SecretKey),
    Certificate,
}

/// Creates a device, or those of a file.
pub async fn create(hub: &Hub, output: Output, args: DeviceCreateArgs) -> anyhow::Result<Exit> {
    if let Some(path) = &args.from {
        return bulk::create(hub, output, path, &args).await;
    }
    let Some(device) = &args.device else { bail!("which device is missing") };
    let of_file = |path: &Option<_>| path.as_deref().map(keys::thumbprint).transpose();
    let thumbprint = of_file(&args.certificate)?.or_else(|| args.thumbprint.clone());
    let secondary = of_file(&args.secondary_certificate)?;
    let (authentication, secret) = authentication(args.auth.unwrap_or_default(), thumbprint, secondary)?;
    if let Some(out) = &args.out {
        secret_file::check(out)?;
    }
    let identity = json!({
        "deviceId": device.as_str(),
        "status": if args.disabled { "disabled" } else { "enabled" },
        "authentication": authentication,
    });
    let identity = hub.put_device(device, &identity, None).await.with_context(|| device.to_string())?;
    if output.is_text() {
        output.line(format_args!("created {device}"))?;
    } else {
        output.json(&without_keys(identity))?;
    }
    match &args.out {
        Some(out) => write_out(out, &connection_string(hub, device, args.gateway.as_ref(), &secret))?,
        None if output.is_text() => {
            say(format_args!(
                "its connection string: iotdm-ctl device connection-string {device} --out FILE"
            ));
        }
        None => {}
    }
    Ok(Exit::Done)
}

/// An identity's `authentication`, and what the device needs for it.
fn authentication(
    auth: Auth,
    thumbprint: Option<String>,
    secondary: Option<String>,
) -> anyhow::Result<(Value, Secret)> {
    let refuse = |what: &str| Err(Usage(what.to_owned()).into());
    match (auth, thumbprint) {
        (Auth::X509Thumbprint, Some(primary)) => {
            let thumbprints = json!({"primaryThumbprint": primary, "secondaryThumbprint": secondary});
            Ok((json!({"type": "selfSigned", "x509Thumbprint": thumbprints}), Secret::Certificate))
        }
        (Auth::X509Thumbprint, None) => {
            refuse("x509-thumbprint needs the device's --certificate FILE or --thumbprint HEX")
        }
        (_, Some(_)) => refuse("a certificate's thumbprint is for --auth x509-thumbprint"),
        (Auth::X509Ca, None) => Ok((json!({"type": "certificateAuthority"}), Secret::Certificate)),
        (Auth::Sas, None) => {
            let (primary, secondary) = (keys::new_key()?, keys::new_key()?);
            let keys = json!({
                "primaryKey": primary.expose_base64().as_str(),
                "secondaryKey": secondary.expose_base64().as_str(),
            });
            Ok((json!({"type": "sas", "symmetricKey": keys}), Secret::Key(primary)))
        }
    }
}

/// Prints an identity.
pub async fn show(hub: &Hub, output: Output, args: DeviceArgs) -> anyhow::Result<()> {
    let identity = hub.device(&args.device).await.with_context(|| args.device.to_string())?;
    let identity = without_keys(identity);
    if !output.is_text() {
        return Ok(output.json(&identity)?);
    }
    let local = times::local();
    let rows: Vec<Vec<String>> = [
        ("device", "/deviceId"),
        ("status", "/status"),
        ("reason", "/statusReason"),
        ("connection", "/connectionState"),
        ("last activity", "/lastActivityTime"),
        ("authentication", "/authentication/type"),
        ("thumbprint", "/authentication/x509Thumbprint/primaryThumbprint"),
        ("etag", "/etag"),
    ]
    .into_iter()
    .map(|(name, pointer)| vec![name.to_owned(), local(&cell(identity.pointer(pointer)))])
    .collect();
    Ok(output.table(&[], &rows)?)
}

/// Lists devices. A query has all of them page by page, where the registry's
/// own list ends at a thousand.
pub async fn list(hub: &Hub, output: Output, args: DeviceListArgs) -> anyhow::Result<()> {
    query::print(hub, output, "SELECT * FROM devices", args.top).await
}

/// Lets a device connect.
pub async fn enable(hub: &Hub, output: Output, args: DeviceArgs) -> anyhow::Result<()> {
    let change = |identity: &mut Value| set(identity, &[("status", json!("enabled"))]);
    changed(hub, output, &args.device, change, "enabled").await
}

/// Keeps a device from connecting.
pub async fn disable(hub: &Hub, output: Output, args: DeviceDisableArgs) -> anyhow::Result<()> {
    let reason = args.reason.map_or(Value::Null, Value::from);
    let change = |identity: &mut Value| {
        set(identity, &[("status", json!("disabled")), ("statusReason", reason.clone())])
    };
    changed(hub, output, &args.device, change, "disabled").await
}

/// Deletes a device.
pub async fn delete(hub: &Hub, output: Output, args: DeviceDeleteArgs) -> anyhow::Result<()> {
    let (device, host) = (&args.device, hub.endpoint());
    let question = format!("Delete {device} from hub {host}, with its keys and its twin?");
    if !args.yes && !confirm(&format!("device delete {device}"), question).await? {
        bail!("nothing deleted");
    }
    hub.delete_device(device).await.with_context(|| device.to_string())?;
    if output.is_text() {
        output.line(format_args!("deleted {device}"))?;
    }
    Ok(())
}

/// Gives a device a new key.
pub async fn renew_key(hub: &Hub, output: Output, args: RenewKeyArgs) -> anyhow::Result<()> {
    let device = &args.device;
    if let Some(out) = &args.out {
        secret_file::check(out)?;
    }
    let key = keys::new_key()?;
    let change = |identity: &mut Value| {
        let Some(keys) = identity.pointer_mut("/authentication/symmetricKey").and_then(Value::as_object_mut)
        else {
            return false;
        };
        let (new, old) = (json!(key.expose_base64().as_str()), keys.get("primaryKey").cloned());
        match (args.key, old) {
            (Some(Key::Secondary), _) => keys.insert("secondaryKey".into(), new),
            (Some(Key::Primary), _) => keys.insert("primaryKey".into(), new),
            (None, Some(Value::String(old))) => {
                keys.insert("secondaryKey".into(), old.into());
                keys.insert("primaryKey".into(), new)
            }
            (None, _) => return false,
        };
        true
    };
    let how = match args.key {
        None => "has a new primary key, and its old one as the secondary",
        Some(Key::Primary) => "has a new primary key, and the old one is gone",
        Some(Key::Secondary) => "has a new secondary key, and the old one is gone",
    };
    changed(hub, output, device, change, how).await?;
    match &args.out {
        Some(out) => write_out(out, &connection_string(hub, device, None, &Secret::Key(key)))?,
        None => say(format_args!(
            "its new connection string: iotdm-ctl device connection-string {device}{} --out FILE",
            if args.key == Some(Key::Secondary) { " --key secondary" } else { "" }
        )),
    }
    Ok(())
}

/// Prints the connection string that the device needs, or writes it to a file
/// that only its owner can read.
pub async fn connection_string_of(
    hub: &Hub,
    output: Output,
    args: ConnectionStringArgs,
) -> anyhow::Result<()> {
    let identity = hub.device(&args.device).await.with_context(|| args.device.to_string())?;
    let secret = secret(&identity, args.key).with_context(|| args.device.to_string())?;
    let text = connection_string(hub, &args.device, args.gateway.as_ref(), &secret);
    match &args.out {
        Some(path) => write_out(path, &text)?,
        None if output.is_text() => output.line(format_args!("{text}"))?,
        None => output.json(&json!({ "connectionString": text }))?,
    }
    Ok(())
}

/// The key of a device that has keys.
pub(crate) fn key(identity: &Value, which: Key) -> anyhow::Result<SecretKey> {
    let pointer = match which {
        Key::Primary => "/authentication/symmetricKey/primaryKey",
        Key::Secondary => "/authentication/symmetricKey/secondaryKey",
    };
    let Some(key) = identity.pointer(pointer).and_then(Value::as_str) else {
        bail!("the hub shows no key; the policy needs the right to write the registry");
    };
    key.parse().context("the hub's key for it")
}

fn secret(identity: &Value, which: Key) -> anyhow::Result<Secret> {
    match identity.pointer("/authentication/type").and_then(Value::as_str) {
        Some("selfSigned" | "certificateAuthority") => Ok(Secret::Certificate),
        _ => key(identity, which).map(Secret::Key),
    }
}

fn connection_string(hub: &Hub, device: &DeviceId, gateway: Option<&Endpoint>, secret: &Secret) -> String {
    // The port of the service string is REST's; the device speaks MQTT.
    let mut text = format!("HostName={};DeviceId={device}", hub.endpoint().host);
    if let Some(gateway) = gateway {
        text.push_str(&format!(";GatewayHostName={gateway}"));
    }
    match secret {
        Secret::Key(key) => text.push_str(&format!(";SharedAccessKey={}", key.expose_base64().as_str())),
        Secret::Certificate => text.push_str(";x509=true"),
    }
    text
}

fn write_out(path: &Path, text: &str) -> anyhow::Result<()> {
    secret_file::write(path, text)?;
    say(format_args!("wrote {}", path.display()));
    Ok(())
}

/// Reads an identity, changes it, and writes it back unless somebody else has
/// changed it meanwhile. `change` returns whether it could.
async fn changed(
    hub: &Hub,
    output: Output,
    device: &DeviceId,
    change: impl Fn(&mut Value) -> bool,
    how: &str,
) -> anyhow::Result<()> {
    let of_device = || device.to_string();
    let mut identity = hub.device(device).await.with_context(of_device)?;
    if !change(&mut identity) {
        bail!("{device}: the hub shows no key of it: it has none, or the policy may not write the registry");
    }
    let etag = identity.get("etag").and_then(Value::as_str).unwrap_or("*").to_owned();
    let identity = hub.put_device(device, &identity, Some(&etag)).await.with_context(of_device)?;
    if output.is_text() {
        return Ok(output.line(format_args!("{device} {how}"))?);
    }
    Ok(output.json(&without_keys(identity))?)
}

fn set(identity: &mut Value, values: &[(&str, Value)]) -> bool {
    let Some(identity) = identity.as_object_mut() else { return false };
    for (key, value) in values {
        identity.insert((*key).to_owned(), value.clone());
    }
    true
}

fn without_keys(mut identity: Value) -> Value {
    if let Some(authentication) = identity.get_mut("authentication").and_then(Value::as_object_mut) {
        authentication.remove("symmetricKey");
    }
    identity
}
