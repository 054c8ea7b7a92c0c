//! PUBLISH: what a device says, by topic.

use std::borrow::Cow;

use bytes::Bytes;
use iotdm_proto::topic::{DeviceTopic, HubTopic};
use rumqttc::mqttbytes::v4::Publish;
use serde_json::Value;

use crate::device::{Device, now};
use crate::error::{Code, HubError};
use crate::events::with;
use crate::faults::Kind;
use crate::hub::Hub;
use crate::identity::Identity;
use crate::link::{Link, Message};
use crate::throttle::Operation;

/// Lets a publish take effect and returns what the device gets as an answer,
/// if it listens for one. An error ends the connection: the topic is none
/// that this device may publish to. (That the real hub does so is
/// unverified.)
pub async fn handle(hub: &Hub, link: &Link, published: &Publish) -> Result<Option<Message>, String> {
    if let Some(bag) = telemetry_bag(&link.device, &published.topic) {
        hub.events.note(&link.device, &with_retain(bag, published.retain), &published.payload);
        return Ok(None);
    }
    let refuse = || format!("the client published to {:?}", published.topic);
    let answer = match DeviceTopic::parse(&published.topic).ok_or_else(refuse)? {
        DeviceTopic::TwinGet { rid } => twin_get(hub, link, rid),
        DeviceTopic::ReportedPatch { rid, version } => {
            reported_patch(hub, link, rid, version, &published.payload).await?
        }
        DeviceTopic::MethodResponse { status, rid } => {
            method_response(hub, link, status, &rid, &published.payload);
            return Ok(None);
        }
        DeviceTopic::Telemetry { .. } => return Err(refuse()),
    };
    let listens = hub.links.subscriptions(&link.device, link.number).is_some_and(|to| to.twin_responses);
    Ok(listens.then_some(answer))
}

/// What follows `devices/{device}[/modules/{module}]/messages/events`, if
/// `topic` is that, for the sender itself.
pub(super) fn telemetry_bag<'a>(sender: &Identity, topic: &'a str) -> Option<&'a str> {
    let bag = topic.strip_prefix(&sender.path())?.strip_prefix("/messages/events")?;
    if bag.is_empty() { Some(bag) } else { bag.strip_prefix('/') }
}

/// The hub keeps no messages on topics. It passes one that should be kept on
/// like all others, with a property that says so.
pub(super) fn with_retain(bag: &str, retain: bool) -> Cow<'_, str> {
    if retain { with(bag, "mqtt-retain=true").into() } else { bag.into() }
}

fn twin_get(hub: &Hub, link: &Link, rid: String) -> Message {
    let read = || hub.registry.read(&link.device, |device| device.twin.device_json());
    match allowed(hub, link, Operation::TwinRead).and_then(|()| read()) {
        Ok(twin) => answer(200, rid, None, twin.to_string()),
        Err(error) => refusal(rid, &error),
    }
}

async fn reported_patch(
    hub: &Hub,
    link: &Link,
    rid: String,
    version: Option<u64>,
    payload: &Bytes,
) -> Result<Message, String> {
    let merge = |device: &mut Device| match serde_json::from_slice(payload) {
        Ok(Value::Object(patch)) => device.twin.report(&patch, version, now()),
        Ok(_) => Err(Code::ArgumentInvalid.because("the patch is not a JSON object")),
        Err(error) => Err(Code::ArgumentInvalid.because(format!("the patch is not JSON: {error}"))),
    };
    let update = async {
        allowed(hub, link, Operation::TwinUpdate)?;
        hub.registry.update(&link.device, merge, |_, version| version).await
    };
    match update.await {
        Ok(version) => Ok(answer(204, rid, Some(version), String::new())),
        // What is not kept is not acknowledged either.
        Err(error) if error.code == Code::ServerError => Err(error.to_string()),
        Err(error) => Ok(refusal(rid, &error)),
    }
}

fn allowed(hub: &Hub, link: &Link, operation: Operation) -> Result<(), HubError> {
    if hub.faults.happens(&link.device, Kind::ThrottleDevice) {
        return Err(Code::ThrottlingException.because("a fault throttles the request"));
    }
    hub.throttle.take(operation)
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
    Message::new(HubTopic::TwinResponse { status, rid, version }, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sends_its_own_telemetry_only() {
        for (sender, topic, expected) in [
            ("gw1", "devices/gw1/messages/events", Some("")),
            ("gw1", "devices/gw1/messages/events/%24.mid=1", Some("%24.mid=1")),
            ("gw1/m", "devices/gw1/modules/m/messages/events/", Some("")),
            ("gw1/m", "devices/gw1/messages/events/", None),
            ("gw1", "devices/gw1/modules/m/messages/events/", None),
            ("gw1", "devices/gw10/messages/events/", None),
            ("gw1", "devices/gw1/messages/eventsx", None),
        ] {
            assert_eq!(telemetry_bag(&sender.parse().unwrap(), topic), expected, "{sender} {topic}");
        }
    }
}
