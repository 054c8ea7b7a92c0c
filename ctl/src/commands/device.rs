//! `device …`: the identities of devices. The hub gives a device's keys along with
//! its identity; they are shown only where they are asked for.

mod bulk;
mod credential;
mod keys;

use anyhow::{Context as _, bail};
use iotdm_proto::DeviceId;
use serde_json::{Value, json};

pub(crate) use self::credential::key;
use self::credential::{DeviceCredential, authentication, connection_string, stored, write_out};
pub use self::keys::derive;
use crate::cli::{
    ConnectionStringArgs, DeviceArgs, DeviceCreateArgs, DeviceDeleteArgs, DeviceDisableArgs, DeviceListArgs,
    Key, RenewKeyArgs,
};
use crate::commands::query;
use crate::exit::Exit;
use crate::hub::HubClient;
use crate::output::{Output, arguments, cell, say};
use crate::prompt::confirm;
use crate::{secret_file, times};

/// Creates a device, or the devices that a file names.
pub async fn create(hub: &HubClient, output: Output, args: DeviceCreateArgs) -> anyhow::Result<Exit> {
    if let Some(path) = &args.from {
        return bulk::create(hub, output, path, &args).await;
    }
    let Some(device) = &args.device else { bail!("which device is missing") };
    let in_file = |path: &Option<_>| path.as_deref().map(keys::thumbprint).transpose();
    let thumbprint = in_file(&args.certificate)?.or_else(|| args.thumbprint.clone());
    let secondary = in_file(&args.secondary_certificate)?;
    let (authentication, credential) = authentication(args.auth.unwrap_or_default(), thumbprint, secondary)?;
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
        Some(out) => write_out(out, &connection_string(hub, device, args.gateway.as_ref(), &credential))?,
        None if output.is_text() => {
            say(format_args!(
                "its connection string: iotdm-ctl device connection-string --out FILE {}",
                arguments([device.as_str()])
            ));
        }
        None => {}
    }
    Ok(Exit::Done)
}

/// Prints an identity.
pub async fn show(hub: &HubClient, output: Output, args: DeviceArgs) -> anyhow::Result<()> {
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

/// Lists devices, by a query, which gives all of them page by page; the registry's
/// own list ends at a thousand.
pub async fn list(hub: &HubClient, output: Output, args: DeviceListArgs) -> anyhow::Result<()> {
    query::print(hub, output, "SELECT * FROM devices", args.top).await
}

/// Lets a device connect again.
pub async fn enable(hub: &HubClient, output: Output, args: DeviceArgs) -> anyhow::Result<()> {
    let change = |identity: &mut Value| set(identity, &[("status", json!("enabled"))]);
    changed(hub, output, &args.device, change, "enabled").await
}

/// Keeps a device from connecting.
pub async fn disable(hub: &HubClient, output: Output, args: DeviceDisableArgs) -> anyhow::Result<()> {
    let reason = args.reason.map_or(Value::Null, Value::from);
    let change = |identity: &mut Value| {
        set(identity, &[("status", json!("disabled")), ("statusReason", reason.clone())])
    };
    changed(hub, output, &args.device, change, "disabled").await
}

/// Deletes a device.
pub async fn delete(hub: &HubClient, output: Output, args: DeviceDeleteArgs) -> anyhow::Result<()> {
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
pub async fn renew_key(hub: &HubClient, output: Output, args: RenewKeyArgs) -> anyhow::Result<()> {
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
        Some(out) => write_out(out, &connection_string(hub, device, None, &DeviceCredential::Key(key)))?,
        None => say(format_args!(
            "its new connection string: iotdm-ctl device connection-string{} --out FILE {}",
            if args.key == Some(Key::Secondary) { " --key secondary" } else { "" },
            arguments([device.as_str()])
        )),
    }
    Ok(())
}

/// Prints the connection string that the device needs, or writes it to a file
/// that only its owner can read.
pub async fn connection_string_of(
    hub: &HubClient,
    output: Output,
    args: ConnectionStringArgs,
) -> anyhow::Result<()> {
    let identity = hub.device(&args.device).await.with_context(|| args.device.to_string())?;
    let credential = stored(&identity, args.key).with_context(|| args.device.to_string())?;
    let text = connection_string(hub, &args.device, args.gateway.as_ref(), &credential);
    match &args.out {
        Some(path) => write_out(path, &text)?,
        None if output.is_text() => output.line(format_args!("{text}"))?,
        None => output.json(&json!({ "connectionString": text }))?,
    }
    Ok(())
}

/// Reads an identity, changes it by `change`, and writes it back unless somebody
/// else has changed it meanwhile. `change` returns whether the identity has what
/// was to be changed. `how` says what the device then is, or has.
async fn changed(
    hub: &HubClient,
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

/// Sets keys of an identity; `false` if it is no JSON object.
fn set(identity: &mut Value, values: &[(&str, Value)]) -> bool {
    let Some(identity) = identity.as_object_mut() else { return false };
    for (key, value) in values {
        identity.insert((*key).to_owned(), value.clone());
    }
    true
}

/// An identity as it may be shown.
fn without_keys(mut identity: Value) -> Value {
    if let Some(authentication) = identity.get_mut("authentication").and_then(Value::as_object_mut) {
        authentication.remove("symmetricKey");
    }
    identity
}
