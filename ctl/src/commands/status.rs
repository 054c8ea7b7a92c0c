//! `status`: how devices are and how their last reboot went.

use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;

use crate::cli::StatusArgs;
use crate::exit::{Exit, exit_of};
use crate::hub::{HubClient, check_length};
use crate::output::{Output, cell, say};
use crate::reported::Reported;
use crate::times;
use crate::twin::Twin;

const HEADER: [&str; 6] = ["DEVICE", "CONNECTION", "LAST REBOOT", "OUTCOME", "CAUSE", "AGENT"];

/// What is shown of one device, in the form of the JSON output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DeviceStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    device_id: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection_state: Option<Value>,
    #[serde(flatten)]
    reported: Reported,
}

/// Prints the status of the named devices, of those that a condition selects,
/// or of all. Where some of the named devices do not exist, the others are
/// printed all the same.
pub async fn run(hub: &HubClient, output: Output, args: StatusArgs) -> anyhow::Result<Exit> {
    let mut exit = Exit::Done;
    let mut twins: Vec<Twin> = Vec::new();
    if args.devices.is_empty() {
        let sql = match &args.condition {
            Some(condition) => format!("SELECT * FROM devices WHERE {condition}"),
            None => "SELECT * FROM devices".to_owned(),
        };
        check_length(&sql)?;
        let rows =
            hub.query(&sql, None).all().await.with_context(|| format!("the query \"{sql}\" failed"))?;
        twins = rows.into_iter().map(Twin::from).collect();
    }
    for device in &args.devices {
        match hub.twin(device).await.with_context(|| device.to_string()) {
            Ok(twin) => twins.push(twin),
            Err(error) if exit_of(&error) == Exit::NoSuchDevice => {
                say(format_args!("iotdm-ctl: {error:#}"));
                exit = Exit::NoSuchDevice;
            }
            Err(error) => return Err(error),
        }
    }
    let statuses: Vec<DeviceStatus> = twins.iter().map(DeviceStatus::of).collect();
    match statuses.as_slice() {
        [] if !args.devices.is_empty() => {}
        [] if output.is_text() => output.line(format_args!("no devices"))?,
        statuses if output.is_tabular() => {
            let local = times::local();
            let time = |text: &str| if output.is_text() { local(text) } else { text.to_owned() };
            let rows: Vec<_> = statuses.iter().map(|status| status.row(time)).collect();
            output.table(&HEADER, &rows)?
        }
        [status] if args.devices.len() == 1 => output.json(status)?,
        statuses => output.array(statuses)?,
    }
    Ok(exit)
}

impl DeviceStatus {
    fn of(twin: &Twin) -> Self {
        DeviceStatus {
            device_id: twin.get("deviceId").cloned(),
            connection_state: twin.get("connectionState").cloned(),
            reported: twin.reported(),
        }
    }

    /// The row below [`HEADER`]. `time` shows an instant.
    fn row(&self, time: impl Fn(&str) -> String) -> Vec<String> {
        let reported = &self.reported;
        let status = cell(reported.status());
        vec![
            cell(self.device_id.as_ref()),
            cell(self.connection_state.as_ref()),
            time(&cell(reported.reboot_time.as_ref())),
            match reported.error_code() {
                Some(code) => format!("{status} ({})", cell(Some(code))),
                None => status,
            },
            cell(reported.boot_cause()),
            cell(reported.agent_version()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_shows_what_is_reported_and_dashes_for_the_rest() {
        let status = |twin: Value| DeviceStatus::of(&Twin::from(twin));
        let full = status(json!({
            "deviceId": "gw1", "connectionState": "Connected", "etag": "x",
            "properties": {"reported": {
                "rebootTime": "T", "reboot": {"status": "failed", "error": {"code": "neverWentDown"}},
                "boot": {"cause": "local"}, "agent": {"version": "1.0.0"}, "other": 1,
            }},
        }));
        let expected = ["gw1", "Connected", "T", "failed (neverWentDown)", "local", "1.0.0"];
        assert_eq!(full.row(str::to_owned), expected);
        let keys = ["deviceId", "connectionState", "rebootTime", "reboot", "boot", "agent"];
        assert!(json!(full).as_object().unwrap().keys().eq(keys), "{full:?}");
        let bare = status(json!({"deviceId": "gw2", "connectionState": "Disconnected"}));
        assert_eq!(bare.row(str::to_owned), ["gw2", "Disconnected", "-", "-", "-", "-"]);
    }
}
