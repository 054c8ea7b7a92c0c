//! PUBLISH: what a device says, by topic.

use bytes::Bytes;
use iotdm_proto::topic::{DeviceTopic, HubTopic};
use rumqttc::mqttbytes::v4::Publish;
use serde_json::Value;

use crate::device::{Device, now};
use crate::error::{Code, HubError};
use crate::hub::Hub;
use crate::links::{Link, Message};

/// Lets a publish take effect and returns what the device gets as an answer,
/// if it listens for one. An error ends the connection: the topic is none
/// that this device may publish to. (That the real hub does so is
/// unverified.)
pub fn handle(hub: &Hub, link: &Link, published: &Publish) -> Result<Option<Message>, String> {
    let refuse = || format!("the client published to {:?}", published.topic);
    let answer = match DeviceTopic::parse(&published.topic).ok_or_else(refuse)? {
        DeviceTopic::TwinGet { rid } => twin_get(hub, link, rid),
        DeviceTopic::ReportedPatch { rid, version } => {
            reported_patch(hub, link, rid, version, &published.payload)
        }
        DeviceTopic::MethodResponse { status, rid } => {
            method_response(hub, link, status, &rid, &published.payload);
            return Ok(None);
        }
        // Telemetry has nobody to read it here; it is acknowledged and gone.
        DeviceTopic::Telemetry { device_id, .. } if device_id == link.device.as_str() => return Ok(None),
        DeviceTopic::Telemetry { .. } => return Err(refuse()),
    };
    let listens = hub.links.subscriptions(&link.device, link.number).is_some_and(|to| to.twin_responses);
    Ok(listens.then_some(answer))
}

fn twin_get(hub: &Hub, link: &Link, rid: String) -> Message {
    match hub.registry.read(&link.device, |device| device.twin.device_json()) {
        Ok(twin) => answer(200, rid, None, twin.to_string()),
        Err(error) => refusal(rid, &error),
    }
}

fn reported_patch(hub: &Hub, link: &Link, rid: String, version: Option<u64>, payload: &Bytes) -> Message {
    let merge = |device: &mut Device| match serde_json::from_slice(payload) {
        Ok(Value::Object(patch)) => device.twin.report(&patch, version, now()),
        Ok(_) => Err(Code::ArgumentInvalid.because("the patch is not a JSON object")),
        Err(error) => Err(Code::ArgumentInvalid.because(format!("the patch is not JSON: {error}"))),
    };
    match hub.registry.update(&link.device, merge, |_, version| version) {
        Ok(version) => answer(204, rid, Some(version), String::new()),
        Err(error) => refusal(rid, &error),
    }
}

/// An empty payload and one that is not JSON count as `null`; what the real
/// hub makes of the latter is unverified.
fn method_response(hub: &Hub, link: &Link, status: i64, rid: &str, payload: &Bytes) {
    let payload = serde_json::from_slice(payload).unwrap_or(Value::Null);
    if !hub.links.reply(&link.device, rid, status, payload) {
        tracing::debug!(device = %link.device, rid, "nobody waits for this reply");
    }
}

fn refusal(rid: String, error: &HubError) -> Message {
    answer(error.code.status().as_u16(), rid, None, error.to_device_body().to_string())
}

fn answer(status: u16, rid: String, version: Option<u64>, body: String) -> Message {
    Message { topic: HubTopic::TwinResponse { status, rid, version }, payload: body.into() }
}
