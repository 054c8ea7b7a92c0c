//! `twin show`, `update` and `replace`.

use anyhow::Context as _;
use iotdm_proto::DeviceId;
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::{DeviceArgs, TwinReplaceArgs, TwinUpdateArgs};
use crate::hub::HubClient;
use crate::output::Output;
use crate::twin::Twin;

/// Changes of a twin, as the hub takes them. What is absent stays as it is.
#[derive(Serialize)]
struct TwinPatch {
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    properties: Option<PropertiesPatch>,
}

/// The part of a twin's properties that an operator can change.
#[derive(Serialize)]
struct PropertiesPatch {
    desired: Value,
}

/// Prints a twin as the hub gives it. Also for people it is printed as JSON.
pub async fn show(hub: &HubClient, output: Output, args: DeviceArgs) -> anyhow::Result<()> {
    let twin = hub.twin(&args.device).await.with_context(|| args.device.to_string())?;
    Ok(output.json(&twin)?)
}

/// Merges changes into a twin.
pub async fn update(hub: &HubClient, output: Output, args: TwinUpdateArgs) -> anyhow::Result<()> {
    let device = &args.device;
    let properties = args.desired.map(|desired| PropertiesPatch { desired });
    let patch = json!(TwinPatch { tags: args.tags, properties });
    let twin =
        hub.patch_twin(device, &patch, args.etag.as_deref()).await.with_context(|| device.to_string())?;
    changed(output, device, &twin, "updated")
}

/// Replaces the tags, the desired properties or both. The hub only replaces both
/// at once. So if one of them is not given, it is read first and put back, unless
/// the twin has changed meanwhile.
pub async fn replace(hub: &HubClient, output: Output, args: TwinReplaceArgs) -> anyhow::Result<()> {
    let device = &args.device;
    let (mut desired, mut tags, mut etag) = (args.desired, args.tags, args.etag);
    if desired.is_none() || tags.is_none() {
        let twin = hub.twin(device).await.with_context(|| device.to_string())?;
        desired = desired.or_else(|| twin.desired().map(without_metadata));
        tags = tags.or_else(|| twin.get("tags").cloned());
        etag = etag.or_else(|| twin.etag().map(str::to_owned));
    }
    let (desired, tags) = (desired.unwrap_or_else(|| json!({})), tags.unwrap_or_else(|| json!({})));
    let whole = json!({"tags": tags, "properties": {"desired": desired}});
    let twin = hub.replace_twin(device, &whole, etag.as_deref()).await.with_context(|| device.to_string())?;
    changed(output, device, &twin, "replaced")
}

/// Says that a device's twin was changed `how`, or prints the new twin.
fn changed(output: Output, device: &DeviceId, twin: &Twin, how: &str) -> anyhow::Result<()> {
    if !output.is_text() {
        return Ok(output.json(&twin)?);
    }
    let etag = twin.etag().unwrap_or("-");
    let version = twin.desired_version().unwrap_or_default();
    Ok(output.line(format_args!("{device}: twin {how}, etag {etag}, desired version {version}"))?)
}

/// Desired properties without the metadata (`$metadata`, `$version`) that the hub
/// adds and does not take back.
fn without_metadata(desired: &Value) -> Value {
    let mut desired = desired.clone();
    if let Some(object) = desired.as_object_mut() {
        object.retain(|key, _| !key.starts_with('$'));
    }
    desired
}
