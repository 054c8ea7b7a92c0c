//! `history`: the last boots of a device, by its own account.

use anyhow::Context as _;
use iotdm_proto::MethodName;
use serde_json::Value;

use crate::cli::HistoryArgs;
use crate::exit::Exit;
use crate::hub::{HubClient, MethodCall};
use crate::output::{Format, Output, cell, say};
use crate::reply::MethodReply;
use crate::times;

/// The columns, with the key of each in what the device tells of a boot.
const COLUMNS: [(&str, &str); 6] = [
    ("BOOTED", "bootTime"),
    ("CAUSE", "cause"),
    ("DETAIL", "detail"),
    ("REQUEST", "requestId"),
    ("DOWN", "downSeconds"),
    ("BOOT ID", "bootId"),
];

/// Asks the device for its last boots and prints them.
pub async fn run(hub: &HubClient, output: Output, args: HistoryArgs) -> anyhow::Result<Exit> {
    let device = &args.device;
    let (method, timeouts) = (MethodName::GetBootHistory, args.timeouts);
    let call = MethodCall::new(&method, None, timeouts.response, timeouts.connect);
    let reply = hub.invoke(device, &call).await.with_context(|| device.to_string())?;
    let boots = match boots(&reply) {
        Ok(boots) => boots,
        Err(why) => {
            say(format_args!("iotdm-ctl: {device}: {why}"));
            return Ok(Exit::Refused);
        }
    };
    match output.format() {
        Format::Json | Format::Jsonl => output.array(boots)?,
        Format::Text if boots.is_empty() => output.line(format_args!("no boots"))?,
        _ => {
            let local = times::local();
            let header = COLUMNS.map(|(name, _)| name);
            let shown = |boot: &Value, key: &str| match (output.is_text(), cell(boot.get(key))) {
                (false, none) if none == "-" => String::new(),
                (false, bare) => bare,
                (true, text) if key == "bootTime" => local(&text),
                (true, text) if key == "downSeconds" && text != "-" => format!("{text} s"),
                (true, text) => text,
            };
            let row = |boot: &Value| COLUMNS.iter().map(|(_, key)| shown(boot, key)).collect();
            output.table(&header, &boots.iter().map(row).collect::<Vec<Vec<String>>>())?;
        }
    }
    Ok(Exit::Done)
}

/// The boots that a reply tells of, or why it tells of none.
fn boots(reply: &MethodReply) -> Result<&[Value], String> {
    let other = "it runs an agent that is too old for getBootHistory, or another program";
    match (reply.status, reply.payload.get("boots").and_then(Value::as_array)) {
        (404, _) => Err(format!("{other}; {}", reply.refusal())),
        _ if reply.is_refusal() => Err(reply.refusal()),
        (_, Some(boots)) => Ok(boots),
        (_, None) => Err(format!("{other}; its reply has no boots: {}", reply.payload)),
    }
}
