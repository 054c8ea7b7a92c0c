//! `device create --from`: creates the devices that a file names.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use iotdm_proto::{DeviceId, ModuleId};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::credential::{DeviceCredential, authentication, connection_string, write_out};
use super::{CHUNK, set};
use crate::cli::{Auth, DeviceCreateArgs};
use crate::device_file::{self, Named};
use crate::error::{Usage, or_interrupt};
use crate::exit::Exit;
use crate::hub::HubClient;
use crate::output::{Output, say};
use crate::{secret_file, values};

/// What a file says of a device beside its id.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Row {
    auth: Option<Auth>,
    thumbprint: Option<String>,
    secondary_thumbprint: Option<String>,
    status: Option<Status>,
    #[serde(default)]
    tags: Map<String, Value>,
}

/// Whether a device may connect.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Status {
    Enabled,
    Disabled,
}

/// A device to create, of which all is known to be good.
struct New {
    device: DeviceId,
    /// The change of the registry that creates the device.
    change: Value,
    credential: DeviceCredential,
}

/// Creates the devices that the file at `path` names, and writes the connection
/// strings of those that were created. No device is created before all of the
/// file is known to be good.
pub(super) async fn create(
    hub: &HubClient,
    output: Output,
    path: &Path,
    args: &DeviceCreateArgs,
) -> anyhow::Result<Exit> {
    let refuse = |what: String| Usage(format!("--from {}: {what}", path.display()));
    let mut places = BTreeMap::new();
    let mut news = Vec::new();
    for named in device_file::read("--from", path)? {
        let place = named.place.clone();
        if let Some(first) = places.insert(named.device.clone(), place.clone()) {
            return Err(refuse(format!("{place}: {} stands there already, on {first}", named.device)).into());
        }
        news.push(New::of(named, args, hub.module()).map_err(|what| refuse(format!("{place}: {what}")))?);
    }
    if let Some(out) = &args.out {
        secret_file::check(out)?;
    }
    let (mut created, mut failed, mut trouble) = (Vec::new(), Vec::new(), None);
    for chunk in news.chunks(CHUNK) {
        let changes = json!(chunk.iter().map(|new| &new.change).collect::<Vec<_>>());
        let request = async { hub.bulk(&changes).await.context("creating devices") };
        let notice = || format!("interrupted: {} more may have been created, too", chunk.len());
        match or_interrupt(request, notice).await {
            Ok(errors) => {
                let has_failed = |new: &&New| errors.iter().any(|error| names(error, &new.device));
                created.extend(chunk.iter().filter(|new| !has_failed(new)));
                failed.extend(errors);
            }
            Err(error) => {
                trouble = Some(error);
                break;
            }
        }
    }
    // Also after an error or Ctrl-C, so that the keys of the devices that were
    // created are not lost.
    if let Some(out) = args.out.as_ref().filter(|_| !created.is_empty()) {
        let line = |new: &&New| connection_string(hub, &new.device, args.gateway.as_ref(), &new.credential);
        write_out(out, &created.iter().map(line).collect::<Vec<_>>().join("\n"))?;
    }
    if let Some(error) = trouble {
        say(format_args!("{} devices were created", created.len()));
        return Err(error);
    }
    report(output, (&created, &failed), hub.module())
}

/// Prints what was created, and what the hub refused.
fn report(
    output: Output,
    (created, failed): (&[&New], &[Value]),
    module: Option<&ModuleId>,
) -> anyhow::Result<Exit> {
    let noun = if module.is_some() { "modules" } else { "devices" };
    let text = |error: &Value, key: &str| match error.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    for error in failed {
        let (code, status) = (text(error, "errorCode"), text(error, "errorStatus"));
        say(format_args!("iotdm-ctl: {}: the hub refused ({code}, {status:?})", text(error, "deviceId")));
    }
    if output.is_text() {
        output.line(format_args!("created {} {noun}", created.len()))?;
    } else {
        let created: Vec<&str> = created.iter().map(|new| new.device.as_str()).collect();
        output.json(&json!({"created": created, "errors": failed}))?;
    }
    // A hub that created nothing has failed, whether it says why or not.
    Ok(if failed.is_empty() && !created.is_empty() { Exit::Done } else { Exit::Failure })
}

/// Whether an error of the registry is about `device`.
fn names(error: &Value, device: &DeviceId) -> bool {
    error.get("deviceId").and_then(Value::as_str) == Some(device.as_str())
}

impl New {
    /// Checks what a file says of a device. What it leaves open is as the command
    /// line says.
    fn of(named: Named, args: &DeviceCreateArgs, module: Option<&ModuleId>) -> Result<Self, String> {
        let device = values::new_device_id(named.device.as_str())?;
        // The hub takes such an id, but a list of them is rather CSV that lacks its
        // line of column names.
        if named.is_bare && device.as_str().contains(',') {
            return Err(format!(
                "{:?} has a comma; CSV begins with a line of column names, such as deviceId",
                device.as_str()
            ));
        }
        let row = Row::of(named.more)?;
        let thumbprints = [&row.thumbprint, &row.secondary_thumbprint]
            .map(|text| text.as_deref().map(values::thumbprint).transpose());
        let [thumbprint, secondary] = thumbprints;
        let auth = row.auth.or(args.auth).unwrap_or_default();
        let (authentication, credential) =
            authentication(auth, thumbprint?, secondary?).map_err(|error| format!("{error:#}"))?;
        let disabled = row.status.map_or(args.disabled, |status| status == Status::Disabled);
        let mut change =
            json!({"id": device.as_str(), "importMode": "create", "authentication": authentication});
        let own = match module {
            Some(_) if disabled => return Err("a module has no status of its own".to_owned()),
            Some(module) => ("moduleId", json!(module)),
            None => ("status", json!(if disabled { "disabled" } else { "enabled" })),
        };
        set(&mut change, &[own]);
        if let (false, Some(change)) = (row.tags.is_empty(), change.as_object_mut()) {
            change.insert("tags".into(), Value::Object(row.tags));
        }
        Ok(New { device, change, credential })
    }
}

impl Row {
    /// Reads the columns or keys beside the id. In CSV each tag has a column of its
    /// own, such as `tags.site`.
    fn of(more: Map<String, Value>) -> Result<Self, String> {
        let (mut row, mut tags) = (Map::new(), Map::new());
        for (key, value) in more {
            match key.strip_prefix("tags.") {
                Some(tag) => tags.insert(tag.to_owned(), value),
                None => row.insert(key, value),
            };
        }
        let mut row: Row = serde_json::from_value(Value::Object(row)).map_err(|error| error.to_string())?;
        row.tags.extend(tags);
        Ok(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(more: Value) -> Result<Row, String> {
        let Value::Object(more) = more else { unreachable!() };
        Row::of(more)
    }

    #[test]
    fn csv_and_json_say_the_same() {
        let csv = row(json!({"auth": "x509-ca", "tags.site": "north"}));
        assert_eq!(csv, row(json!({"auth": "x509-ca", "tags": {"site": "north"}})));
        assert!(row(json!({"colour": "red"})).unwrap_err().contains("unknown field `colour`"));
        assert!(row(json!({"auth": "tpm"})).unwrap_err().contains("unknown variant `tpm`"));
    }
}
