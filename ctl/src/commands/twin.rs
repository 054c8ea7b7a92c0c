//! `twin show` and `twin update`.

use anyhow::Context as _;
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::{DeviceArgs, TwinUpdateArgs};
use crate::hub::Hub;
use crate::output::Output;

#[derive(Serialize)]
struct TwinPatch {
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    properties: Option<PropertiesPatch>,
}

#[derive(Serialize)]
struct PropertiesPatch {
    desired: Value,
}

/// Prints a twin as the hub gives it; it is JSON for people, too.
pub async fn show(hub: &Hub, output: Output, args: DeviceArgs) -> anyhow::Result<()> {
    let twin = hub.twin(&args.device).await.with_context(|| args.device.to_string())?;
    Ok(output.json(&twin)?)
}

/// Merges changes into a twin.
pub async fn update(hub: &Hub, output: Output, args: TwinUpdateArgs) -> anyhow::Result<()> {
    let device = &args.device;
    let properties = args.desired.map(|desired| PropertiesPatch { desired });
    let patch = json!(TwinPatch { tags: args.tags, properties });
    let twin =
        hub.patch_twin(device, &patch, args.etag.as_deref()).await.with_context(|| device.to_string())?;
    if !output.is_text() {
        return Ok(output.json(&twin)?);
    }
    let etag = twin.get("etag").and_then(Value::as_str).unwrap_or("-");
    let version = twin.pointer("/properties/desired/$version").and_then(Value::as_u64).unwrap_or_default();
    Ok(output.line(format_args!("{device}: twin updated, etag {etag}, desired version {version}"))?)
}
