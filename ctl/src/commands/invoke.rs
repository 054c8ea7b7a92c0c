//! `invoke`: calls a direct method.

use anyhow::Context as _;

use crate::cli::InvokeArgs;
use crate::error::{Exit, or_interrupt};
use crate::hub::{Hub, MethodCall};
use crate::output::{Output, say};

/// Calls the method and prints the device's reply.
pub async fn run(hub: &Hub, output: Output, args: InvokeArgs) -> anyhow::Result<Exit> {
    let (device, method) = (&args.device, &args.method);
    let call = MethodCall {
        method_name: method.clone(),
        payload: args.payload.map(|payload| payload.0),
        response_timeout_in_seconds: args.response_timeout.as_secs(),
        connect_timeout_in_seconds: args.connect_timeout.as_secs(),
    };
    let invoke = async { hub.invoke(device, &call).await.with_context(|| device.to_string()) };
    let notice = || {
        format!(
            "interrupted: stopped waiting; the call of {method} stays in force if {device} has received it"
        )
    };
    let reply = or_interrupt(invoke, notice).await?;
    if output.is_text() {
        output.line(format_args!("status {}", reply.status))?;
        output.json(&reply.payload)?;
    } else {
        output.json(&reply)?;
    }
    if reply.status < 400 {
        return Ok(Exit::Done);
    }
    say(format_args!("iotdm-ctl: {device}: the device refused {method} with status {}", reply.status));
    Ok(Exit::Refused)
}
