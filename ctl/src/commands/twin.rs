//! `twin show`, `update` and `replace`.

use anyhow::Context as _;
use iotdm_proto::DeviceId;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::cli::{DeviceArgs, TwinReplaceArgs, TwinUpdateArgs};
use crate::hub::{HubClient, HubError};
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

/// Replaces the tags, the desired properties or both.
pub async fn replace(hub: &HubClient, output: Output, args: TwinReplaceArgs) -> anyhow::Result<()> {
    let device = &args.device;
    let twin = replaced(hub, &args).await.with_context(|| device.to_string())?;
    changed(output, device, &twin, "replaced")
}

/// The twin after it was replaced. The hub only replaces tags and desired properties
/// both at once, and takes that for a change of the desired properties, which the
/// device then hears of. So tags alone are merged into the twin, with all that is
/// to be gone as `null`, and what is not given of both is read first and put back.
/// What is read must not have changed meanwhile.
async fn replaced(hub: &HubClient, args: &TwinReplaceArgs) -> Result<Twin, HubError> {
    let (device, given) = (&args.device, args.etag.as_deref());
    let (desired, tags) = match (&args.desired, &args.tags) {
        (Some(desired), Some(tags)) => {
            let whole = json!({"tags": tags, "properties": {"desired": desired}});
            return hub.replace_twin(device, &whole, given).await;
        }
        (desired, tags) => (desired, tags.clone()),
    };
    let twin = hub.twin(device).await?;
    let etag = given.or(twin.etag());
    let old = twin.get("tags").cloned().unwrap_or_else(|| json!({}));
    match desired {
        Some(desired) => {
            let whole = json!({"tags": old, "properties": {"desired": desired}});
            hub.replace_twin(device, &whole, etag).await
        }
        None => {
            let patch = json!({"tags": difference(&old, &tags.unwrap_or_else(|| json!({})))});
            hub.patch_twin(device, &patch, etag).await
        }
    }
}

/// The patch that makes `new` of `old` when it is merged into it.
fn difference(old: &Value, new: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return new.clone() };
    let mut patch = Map::new();
    for key in old.keys().filter(|key| new.get(*key).is_none_or(Value::is_null)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in new.iter().filter(|(_, value)| !value.is_null()) {
        match old.get(key) {
            Some(before) if before == value => {}
            Some(before) => drop(patch.insert(key.clone(), difference(before, value))),
            None => drop(patch.insert(key.clone(), value.clone())),
        }
    }
    Value::Object(patch)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What the hub makes of a twin's section and a patch.
    fn merged(old: Value, patch: &Value) -> Value {
        let Value::Object(patch) = patch else { return patch.clone() };
        let mut new = old.as_object().cloned().unwrap_or_default();
        for (key, value) in patch {
            match value {
                Value::Null => drop(new.shift_remove(key)),
                _ => {
                    let before = new.get(key).cloned().unwrap_or_default();
                    drop(new.insert(key.clone(), merged(before, value)));
                }
            }
        }
        Value::Object(new)
    }

    #[test]
    fn what_is_merged_makes_the_new_tags() {
        for (old, new, patch) in [
            (json!({}), json!({"a": 1}), json!({"a": 1})),
            (json!({"a": 1, "b": {"c": 1, "d": 2}}), json!({}), json!({"a": null, "b": null})),
            (
                json!({"a": 1, "b": {"c": 1, "d": 2}}),
                json!({"a": 1, "b": {"c": 3}}),
                json!({"b": {"d": null, "c": 3}}),
            ),
            (json!({"a": {"b": 1}}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"a": [1, 2]}), json!({"a": {"b": 1}}), json!({"a": {"b": 1}})),
            (json!({"a": 1}), json!({"a": null, "b": null}), json!({"a": null})),
            (json!({"a": 1}), json!({"a": 1}), json!({})),
        ] {
            assert_eq!(difference(&old, &new), patch, "{old} to {new}");
            let nulls = |value: &Value| value.as_object().unwrap().values().any(Value::is_null);
            if !nulls(&new) {
                assert_eq!(merged(old, &patch), new);
            }
        }
    }
}
