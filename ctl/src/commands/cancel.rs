//! `cancel`: withdraws a reboot that has not begun.

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::cli::CancelArgs;
use crate::commands::reboot::refusal;
use crate::error::Exit;
use crate::hub::{Hub, MethodCall};
use crate::output::{Output, say};

/// Calls `cancelReboot` and prints the device's reply.
pub async fn run(hub: &Hub, output: Output, args: CancelArgs) -> anyhow::Result<Exit> {
    let device = &args.device;
    let call = MethodCall {
        method_name: "cancelReboot".to_owned(),
        payload: Some(args.id.map_or_else(|| json!({}), |id| json!({ "id": id }))),
        response_timeout_in_seconds: args.response_timeout.as_secs(),
        connect_timeout_in_seconds: args.connect_timeout.as_secs(),
    };
    let reply = hub.invoke(device, &call).await.with_context(|| device.to_string())?;
    if !output.is_text() {
        output.json(&reply)?;
    }
    if reply.status >= 400 {
        say(format_args!("iotdm-ctl: {device}: {}", refusal(&reply)));
        return Ok(Exit::Refused);
    }
    if output.is_text() {
        let id = reply.payload.get("id").and_then(Value::as_str).unwrap_or_default();
        output.line(format_args!("{device}: reboot {id} cancelled"))?;
    }
    Ok(Exit::Done)
}
