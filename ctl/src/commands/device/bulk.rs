//! `device create --from`: creates the devices that a file names.

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use anyhow::Context as _;
use iotdm_proto::DeviceId;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::credential::{DeviceCredential, authentication, connection_string, write_out};
use crate::cli::{Auth, DeviceCreateArgs};
use crate::error::{Usage, or_interrupt};
use crate::exit::Exit;
use crate::hub::HubClient;
use crate::output::{Output, say};
use crate::{secret_file, values};

/// How many devices the registry takes in one HTTP request.
///
/// Source: REST reference "Bulk registry".
const CHUNK: usize = 100;

/// A line of the file, which is one device.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Row {
    device_id: String,
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
    let mut text = String::new();
    let read = if path == Path::new("-") {
        io::stdin().lock().read_to_string(&mut text).map(drop)
    } else {
        fs::read_to_string(path).map(|read| text = read)
    };
    read.map_err(|error| refuse(error.to_string()))?;
    let rows = if text.trim_start().starts_with('{') { json_lines(&text) } else { csv(&text) };
    let new = |(line, row)| New::of(row, args).map_err(|what| format!("line {line}: {what}"));
    let news =
        rows.and_then(|rows| rows.into_iter().map(new).collect::<Result<Vec<_>, _>>()).map_err(refuse)?;
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
    report(output, &created, &failed)
}

/// Prints what was created, and what the hub refused.
fn report(output: Output, created: &[&New], failed: &[Value]) -> anyhow::Result<Exit> {
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
        output.line(format_args!("created {} devices", created.len()))?;
    } else {
        let created: Vec<&str> = created.iter().map(|new| new.device.as_str()).collect();
        output.json(&json!({"created": created, "errors": failed}))?;
    }
    Ok(if failed.is_empty() { Exit::Done } else { Exit::Failure })
}

/// Whether an error of the registry is about `device`.
fn names(error: &Value, device: &DeviceId) -> bool {
    error.get("deviceId").and_then(Value::as_str) == Some(device.as_str())
}

impl New {
    /// Checks a line. What the line leaves open is as the command line says.
    fn of(row: Row, args: &DeviceCreateArgs) -> Result<Self, String> {
        let device = values::device_id(&row.device_id)?;
        let thumbprints = [&row.thumbprint, &row.secondary_thumbprint]
            .map(|text| text.as_deref().map(values::thumbprint).transpose());
        let [thumbprint, secondary] = thumbprints;
        let auth = row.auth.or(args.auth).unwrap_or_default();
        let (authentication, credential) =
            authentication(auth, thumbprint?, secondary?).map_err(|error| format!("{error:#}"))?;
        let disabled = row.status.map_or(args.disabled, |status| status == Status::Disabled);
        let mut change = json!({
            "id": device.as_str(),
            "importMode": "create",
            "status": if disabled { "disabled" } else { "enabled" },
            "authentication": authentication,
        });
        if let (false, Some(change)) = (row.tags.is_empty(), change.as_object_mut()) {
            change.insert("tags".into(), Value::Object(row.tags));
        }
        Ok(New { device, change, credential })
    }
}

/// The lines of a file with their numbers, or what is wrong with one of them.
type Rows = Result<Vec<(u64, Row)>, String>;

/// Reads a file that has a JSON object on each line; empty lines do not count.
fn json_lines(text: &str) -> Rows {
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let row = |(number, line)| match serde_json::from_str(line) {
        Ok(row) => Ok((number, row)),
        Err(error) => Err(format!("line {number}: {error}")),
    };
    lines.map(row).collect()
}

/// Reads a CSV file, of which the first line names the columns. An empty cell is
/// an absent key.
fn csv(text: &str) -> Rows {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let columns = reader.headers().map_err(|error| error.to_string())?.clone();
    let row = |record: Result<csv::StringRecord, csv::Error>| {
        let record = record.map_err(|error| error.to_string())?;
        let line = record.position().map_or(0, csv::Position::line);
        let (mut row, mut tags) = (Map::new(), Map::new());
        for (column, cell) in columns.iter().zip(&record).filter(|(_, cell)| !cell.is_empty()) {
            match column.strip_prefix("tags.") {
                Some(tag) => tags.insert(tag.to_owned(), cell.into()),
                None => row.insert(column.to_owned(), cell.into()),
            };
        }
        row.insert("tags".to_owned(), Value::Object(tags));
        serde_json::from_value(Value::Object(row))
            .map(|row| (line, row))
            .map_err(|error| format!("line {line}: {error}"))
    };
    reader.records().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_say_the_same() {
        let csv = csv("deviceId,auth,tags.site\ngw1,,north\n gw2 , x509-ca ,\n").unwrap();
        let json = json_lines(
            "{\"deviceId\":\"gw1\",\"tags\":{\"site\":\"north\"}}\n\n{\"deviceId\":\"gw2\",\"auth\":\"x509-ca\"}\n",
        );
        let rows = |rows: Vec<(u64, Row)>| rows.into_iter().map(|(_, row)| row).collect::<Vec<_>>();
        let lines = csv.iter().map(|(line, _)| *line).collect::<Vec<_>>();
        assert_eq!(lines, [2, 3]);
        assert_eq!(rows(csv), rows(json.unwrap()));
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (rows, expected) in [
            (csv("deviceId,colour\ngw1,red\n"), "line 2: unknown field `colour`"),
            (csv("device\ngw1\n"), "line 2: unknown field `device`"),
            (csv("deviceId,auth\ngw1,sas\ngw2\n"), "line: 3"),
            (csv("deviceId,auth\ngw1,tpm\n"), "line 2: unknown variant `tpm`"),
            (json_lines("{\"deviceId\":\"gw1\"}\n{\"deviceId\":}"), "line 2: expected value"),
        ] {
            let error = rows.unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
