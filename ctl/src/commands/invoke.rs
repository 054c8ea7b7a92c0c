//! `invoke`: calls a direct method.

use anyhow::Context as _;

use crate::cli::InvokeArgs;
use crate::error::or_interrupt;
use crate::exit::Exit;
use crate::hub::{HubClient, MethodCall};
use crate::output::{Output, say};

/// Calls the method and prints the device's reply.
pub async fn run(hub: &HubClient, output: Output, args: InvokeArgs) -> anyhow::Result<Exit> {
    let (device, method) = (&args.device, &args.method);
    let payload = args.payload.map(|payload| payload.0);
    let call = MethodCall::new(method, payload, args.timeouts.response, args.timeouts.connect);
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
    if !reply.is_refusal() {
        return Ok(Exit::Done);
    }
    say(format_args!("iotdm-ctl: {device}: the device refused {method} with status {}", reply.status));
    Ok(Exit::Refused)
}
