//! `device …`: the identities of devices. The hub gives a device's keys along with
//! its identity; they are shown only where they are asked for.

mod bulk;
mod credential;
mod keys;
mod many;

use std::cell::RefCell;
use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use iotdm_proto::{DeviceId, Identity, SecretKey};
use serde_json::{Value, json};

pub(crate) use self::credential::key;
use self::credential::{DeviceCredential, authentication, connection_string, stored, write_out};
pub use self::keys::derive;
use self::many::Many;
use crate::cli::{
    ConnectionStringArgs, DeviceArgs, DeviceCreateArgs, DeviceDeleteArgs, DeviceDisableArgs, DeviceListArgs,
    Key, ManyArgs, RenewKeyArgs,
};
use crate::commands::query;
use crate::commands::selection::of_modules;
use crate::error::Usage;
use crate::exit::Exit;
use crate::hub::HubClient;
use crate::output::{Output, arguments, cell, say};
use crate::prompt::confirm;
use crate::values::can_connect;
use crate::{secret_file, times};

/// How many devices the registry takes in one HTTP request.
///
/// Source: REST reference "Bulk registry".
const CHUNK: usize = 100;

/// Why a module cannot be enabled or disabled.
const NO_STATUS: &str =
    "--module: a module has no status of its own: disable its device, or delete the module";

/// Creates a device, or the devices that a file names; of modules, each with its own
/// credential.
pub async fn create(hub: &HubClient, output: Output, args: DeviceCreateArgs) -> anyhow::Result<Exit> {
    if let Some(module) = hub.module() {
        if args.disabled {
            return Err(Usage(NO_STATUS.to_owned()).into());
        }
        can_connect(module.as_str(), "module").map_err(|why| Usage(format!("--module: {why}")))?;
    }
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
    let status = if args.disabled { "disabled" } else { "enabled" };
    let mut new = json!({"deviceId": device.as_str(), "authentication": authentication});
    let own = match hub.module() {
        None => ("status", json!(status)),
        Some(module) => ("moduleId", json!(module)),
    };
    set(&mut new, &[own]);
    let identity =
        hub.put_device(device, &new, None).await.with_context(|| hub.identity(device).to_string())?;
    if output.is_text() {
        output.line(format_args!("created {}", hub.identity(device)))?;
    } else {
        output.json(&without_keys(identity))?;
    }
    match &args.out {
        Some(out) => write_out(out, &connection_string(hub, device, args.gateway.as_ref(), &credential))?,
        None if output.is_text() => {
            say(format_args!(
                "its connection string: iotdm-ctl device connection-string --out FILE {}",
                command_line_of(hub, device)
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
        ("module", "/moduleId"),
        ("status", "/status"),
        ("reason", "/statusReason"),
        ("connection", "/connectionState"),
        ("last activity", "/lastActivityTime"),
        ("authentication", "/authentication/type"),
        ("thumbprint", "/authentication/x509Thumbprint/primaryThumbprint"),
        ("etag", "/etag"),
    ]
    .into_iter()
    // A module has no status of its own, and a device is no module.
    .filter(|(_, pointer)| match *pointer {
        "/moduleId" => hub.module().is_some(),
        "/status" | "/statusReason" => hub.module().is_none(),
        _ => true,
    })
    .map(|(name, pointer)| vec![name.to_owned(), local(&cell(identity.pointer(pointer)))])
    .collect();
    Ok(output.table(&[], &rows)?)
}

/// Lists devices, by a query, which gives all of them page by page; the registry's
/// own list ends at a thousand.
pub async fn list(hub: &HubClient, output: Output, args: DeviceListArgs) -> anyhow::Result<()> {
    match hub.module() {
        None => query::print(hub, output, "SELECT * FROM devices", args.top).await,
        Some(_) => {
            let sql = of_modules(hub, "*", None, None)?;
            query::print(hub, output, &sql.concat(), args.top).await
        }
    }
}

/// Lets devices connect again.
pub async fn enable(hub: &HubClient, output: Output, args: ManyArgs) -> anyhow::Result<Exit> {
    let change = |identity: &mut Value| set(identity, &[("status", json!("enabled"))]);
    set_status(hub, output, &args, change, ("Enable", "enabled")).await
}

/// Keeps devices from connecting.
pub async fn disable(hub: &HubClient, output: Output, args: DeviceDisableArgs) -> anyhow::Result<Exit> {
    let reason = args.reason.map_or(Value::Null, Value::from);
    let change = |identity: &mut Value| {
        set(identity, &[("status", json!("disabled")), ("statusReason", reason.clone())])
    };
    set_status(hub, output, &args.which, change, ("Disable", "disabled")).await
}

/// Changes the identities of devices by `change`. It asks before devices that were
/// not named.
async fn set_status(
    hub: &HubClient,
    output: Output,
    args: &ManyArgs,
    change: impl Fn(&mut Value) -> bool,
    (verb, word): (&str, &str),
) -> anyhow::Result<Exit> {
    if hub.module().is_some() {
        return Err(Usage(NO_STATUS.to_owned()).into());
    }
    let Some(many) = Many::of(hub, args).await? else { return Ok(Exit::NoSuchDevice) };
    if args.are_selected() {
        let command = format!("device {}", verb.to_lowercase());
        many.may(hub, &command, args, (verb, "")).await?;
    }
    if let ([device], true) = (many.devices.as_slice(), many.is_one) {
        let identity = changed(hub, device, change).await?;
        return print_changed(output, &hub.identity(device), identity, word).map(|()| Exit::Done);
    }
    let work = async |device: &DeviceId| changed(hub, device, &change).await.map(drop);
    many.each(output, word, work).await?.end(output, word)
}

/// Deletes devices.
pub async fn delete(hub: &HubClient, output: Output, args: DeviceDeleteArgs) -> anyhow::Result<Exit> {
    let Some(many) = Many::of(hub, &args.which).await? else { return Ok(Exit::NoSuchDevice) };
    if let ([device], true) = (many.devices.as_slice(), many.is_one) {
        let question = format!(
            "Delete {} from hub {}, with its keys and its twin?",
            hub.identity(device),
            hub.endpoint()
        );
        if !args.which.yes && !confirm(&format!("device delete {device}"), question).await? {
            bail!("nothing deleted");
        }
        hub.delete_device(device).await.with_context(|| hub.identity(device).to_string())?;
        if output.is_text() {
            output.line(format_args!("deleted {}", hub.identity(device)))?;
        }
        return Ok(Exit::Done);
    }
    many.may(hub, "device delete", &args.which, ("Delete", ", with their keys and their twins")).await?;
    many.delete(hub).await?.end(output, "deleted")
}

/// Gives devices new keys.
pub async fn renew_key(hub: &HubClient, output: Output, args: RenewKeyArgs) -> anyhow::Result<Exit> {
    let Some(many) = Many::of(hub, &args.which).await? else { return Ok(Exit::NoSuchDevice) };
    if let Some(out) = &args.out {
        secret_file::check(out)?;
    }
    let how = match args.key {
        None => "has a new primary key, and its old one as the secondary",
        Some(Key::Primary) => "has a new primary key, and the old one is gone",
        Some(Key::Secondary) => "has a new secondary key, and the old one is gone",
    };
    let string = |device: &DeviceId, key| connection_string(hub, device, None, &DeviceCredential::Key(key));
    if let ([device], true) = (many.devices.as_slice(), many.is_one) {
        let mut identity = hub.device(device).await.with_context(|| device.to_string())?;
        if is_last_old_key(&identity, args.key) && !args.which.yes {
            say(format_args!(
                "{device}: its key was renewed before, and this takes away the one that it had until then: if it has \
                 not got its new key yet, it is locked out"
            ));
            let question = format!("Renew the key of {device} again?");
            if !confirm(&format!("device renew-key {device}"), question).await? {
                bail!("nothing was changed");
            }
        }
        let key = renew(&mut identity, args.key).with_context(|| device.to_string())?;
        let identity = put_back(hub, device, identity).await?;
        print_changed(output, &hub.identity(device), identity, how)?;
        match &args.out {
            Some(out) => write_out(out, &string(device, key))?,
            None => say(format_args!(
                "its new connection string: iotdm-ctl device connection-string{} --out FILE {}",
                if args.key == Some(Key::Secondary) { " --key secondary" } else { "" },
                command_line_of(hub, device)
            )),
        }
        return Ok(Exit::Done);
    }
    let more = "; one that has not got the key of its last renewal yet is locked out";
    many.may(hub, "device renew-key", &args.which, ("Renew the keys of", more)).await?;
    let strings = RefCell::new(BTreeMap::new());
    let work = async |device: &DeviceId| {
        let mut identity = hub.device(device).await.with_context(|| device.to_string())?;
        let key = renew(&mut identity, args.key).with_context(|| device.to_string())?;
        put_back(hub, device, identity).await?;
        strings.borrow_mut().insert(device.clone(), string(device, key));
        Ok(())
    };
    let changed = many.each(output, how, work).await;
    // Also after an error or Ctrl-C, so that the new keys are not lost.
    let strings = strings.into_inner();
    if let Some(out) = args.out.as_ref().filter(|_| !strings.is_empty()) {
        let in_order = many.devices.iter().filter_map(|device| strings.get(device).map(String::as_str));
        write_out(out, &in_order.collect::<Vec<_>>().join("\n"))?;
    }
    changed?.end(output, "renewed")
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

/// Whether the key that is about to go is one that the device may have from before
/// its last renewal, as its only one.
fn is_last_old_key(identity: &Value, which: Option<Key>) -> bool {
    let keys = (key(identity, Key::Primary), key(identity, Key::Secondary));
    match (which, keys) {
        (None | Some(Key::Secondary), (Ok(primary), Ok(secondary))) => keys::succeeds(&primary, &secondary),
        _ => false,
    }
}

/// Puts a new key into an identity, and returns that key.
fn renew(identity: &mut Value, which: Option<Key>) -> anyhow::Result<SecretKey> {
    let (primary, secondary) = (key(identity, Key::Primary)?, key(identity, Key::Secondary).ok());
    // The secondary key stays known as the old one for as long as it is there.
    let old = match which {
        None => Some(&primary),
        Some(Key::Primary) => secondary.as_ref().filter(|secondary| keys::succeeds(&primary, secondary)),
        Some(Key::Secondary) => None,
    };
    let new = old.map_or_else(keys::new_key, keys::new_key_after)?;
    let Some(stored) = identity.pointer_mut("/authentication/symmetricKey").and_then(Value::as_object_mut)
    else {
        bail!("the hub shows no key");
    };
    if which.is_none() {
        stored.insert("secondaryKey".into(), json!(primary.expose_base64().as_str()));
    }
    let place = if which == Some(Key::Secondary) { "secondaryKey" } else { "primaryKey" };
    stored.insert(place.into(), json!(new.expose_base64().as_str()));
    Ok(new)
}

/// Reads an identity, changes it by `change`, writes it back unless somebody else
/// has changed it meanwhile, and returns it as the hub then has it.
async fn changed(
    hub: &HubClient,
    device: &DeviceId,
    change: impl Fn(&mut Value) -> bool,
) -> anyhow::Result<Value> {
    let mut identity = hub.device(device).await.with_context(|| device.to_string())?;
    if !change(&mut identity) {
        bail!("{device}: the hub's answer is no identity");
    }
    put_back(hub, device, identity).await
}

/// Writes an identity back that was read and changed, unless somebody else has
/// changed it meanwhile.
async fn put_back(hub: &HubClient, device: &DeviceId, identity: Value) -> anyhow::Result<Value> {
    let etag = identity.get("etag").and_then(Value::as_str).unwrap_or("*").to_owned();
    hub.put_device(device, &identity, Some(&etag)).await.with_context(|| device.to_string())
}

/// Says what a device now is, or has, or prints its identity.
fn print_changed(output: Output, id: &Identity, identity: Value, how: &str) -> anyhow::Result<()> {
    if output.is_text() {
        return Ok(output.line(format_args!("{id} {how}"))?);
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

/// The words of a command line that name a device, and the module of it that is meant.
fn command_line_of(hub: &HubClient, device: &DeviceId) -> String {
    match hub.module() {
        None => arguments([device.as_str()]),
        Some(module) => {
            let module = arguments([module.as_str()]);
            let module = module.strip_prefix("-- ").unwrap_or(&module);
            format!("--module={module} {}", arguments([device.as_str()]))
        }
    }
}

/// An identity as it may be shown.
fn without_keys(mut identity: Value) -> Value {
    if let Some(authentication) = identity.get_mut("authentication").and_then(Value::as_object_mut) {
        authentication.remove("symmetricKey");
    }
    identity
}
