//! `status`: how devices are and how their last reboot went.

use anyhow::Context as _;
use serde_json::Value;

use crate::cli::StatusArgs;
use crate::commands::query::cell;
use crate::error::{Exit, exit_of};
use crate::hub::{Hub, check_length};
use crate::output::{Output, say};
use crate::times;

const HEADER: [&str; 6] = ["DEVICE", "CONNECTION", "LAST REBOOT", "OUTCOME", "CAUSE", "AGENT"];

/// Prints the status of the named devices, of those that a condition selects,
/// or of all. What is there is printed even if some devices do not exist.
pub async fn run(hub: &Hub, output: Output, args: StatusArgs) -> anyhow::Result<Exit> {
    let mut exit = Exit::Done;
    let mut twins = Vec::new();
    if args.devices.is_empty() {
        let sql = match &args.condition {
            Some(condition) => format!("SELECT * FROM devices WHERE {condition}"),
            None => "SELECT * FROM devices".to_owned(),
        };
        check_length(&sql)?;
        twins = hub.query(&sql, None).all().await.with_context(|| format!("the query \"{sql}\" failed"))?;
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
    let states: Vec<Value> = twins.iter().map(state).collect();
    match states.as_slice() {
        [] if !args.devices.is_empty() => {}
        [] if output.is_text() => output.line(format_args!("no devices"))?,
        states if output.is_tabular() => {
            let local = times::local();
            let time = |text: &str| if output.is_text() { local(text) } else { text.to_owned() };
            output.table(&HEADER, &states.iter().map(|state| row(state, time)).collect::<Vec<_>>())?
        }
        [state] if args.devices.len() == 1 => output.json(state)?,
        states => output.array(states)?,
    }
    Ok(exit)
}

fn state(twin: &Value) -> Value {
    let reported = twin.pointer("/properties/reported");
    let hubs = ["deviceId", "connectionState"].map(|key| (key, twin.get(key)));
    let devices =
        ["rebootTime", "reboot", "boot", "agent"].map(|key| (key, reported.and_then(|r| r.get(key))));
    let there =
        hubs.into_iter().chain(devices).filter_map(|(key, value)| Some((key.to_owned(), value?.clone())));
    Value::Object(there.collect())
}

fn row(state: &Value, time: impl Fn(&str) -> String) -> Vec<String> {
    let at = |pointer: &str| cell(state.pointer(pointer));
    let outcome = match state.pointer("/reboot/error/code") {
        Some(code) => format!("{} ({})", at("/reboot/status"), cell(Some(code))),
        None => at("/reboot/status"),
    };
    vec![
        at("/deviceId"),
        at("/connectionState"),
        time(&at("/rebootTime")),
        outcome,
        at("/boot/cause"),
        at("/agent/version"),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_shows_what_is_reported_and_dashes_for_the_rest() {
        let twin = json!({
            "deviceId": "gw1", "connectionState": "Connected", "etag": "x",
            "properties": {"reported": {
                "rebootTime": "T", "reboot": {"status": "failed", "error": {"code": "neverWentDown"}},
                "boot": {"cause": "local"}, "agent": {"version": "1.0.0"}, "other": 1,
            }},
        });
        let expected = ["gw1", "Connected", "T", "failed (neverWentDown)", "local", "1.0.0"];
        assert_eq!(row(&state(&twin), str::to_owned), expected);
        assert_eq!(state(&twin).get("other"), None);
        let bare = json!({"deviceId": "gw2", "connectionState": "Disconnected"});
        assert_eq!(row(&state(&bare), str::to_owned), ["gw2", "Disconnected", "-", "-", "-", "-"]);
    }
}
