//! PUBLISH: what a device sends, and what the hub does with it, by topic.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use iotdm_proto::topic::{DeviceTopic, HubTopic};
use iotdm_proto::twin::Object;
use rumqttc::mqttbytes::v4::Publish;
use serde_json::{Value, json};

use crate::clock::now;
use crate::device::{Device, DevicePatch};
use crate::faults::FaultKind;
use crate::hub::Hub;
use crate::link::{Link, Message};
use crate::notifications::About;
use crate::refusal::{ErrorCode, HubRefusal};
use crate::telemetry::with;
use crate::throttle::Operation;
use iotdm_proto::Identity;

/// Lets a publish take effect and returns the reply to a twin request, if the
/// device is subscribed to replies. An error ends the connection: this device
/// may not publish to that topic, or its change could not be kept. (That the
/// real hub ends the connection is unverified.)
pub async fn handle(hub: &Hub, link: &Link, published: &Publish) -> Result<Option<Message>, String> {
    if let Some(bag) = telemetry_bag(&link.device, &published.topic) {
        hub.telemetry.note(&link.device, &with_retain(bag, published.retain), &published.payload);
        return Ok(None);
    }
    let refuse = || format!("the client published to {:?}", published.topic);
    let reply = match DeviceTopic::parse(&published.topic).ok_or_else(refuse)? {
        DeviceTopic::TwinGet { rid } => twin_get(hub, link, rid),
        DeviceTopic::ReportedPatch { rid, version } => {
            // Boxed, since a session has this in itself also while it is idle.
            Box::pin(reported_patch(hub, link, rid, version, &published.payload)).await?
        }
        DeviceTopic::MethodResponse { status, rid } => {
            method_response(hub, link, status, &rid, &published.payload);
            return Ok(None);
        }
        DeviceTopic::Telemetry { .. } => return Err(refuse()),
    };
    let listens =
        hub.links.subscriptions(&link.device, link.number).is_some_and(|to| to.twin_responses.is_some());
    Ok(listens.then_some(reply))
}

/// The properties that stand in a telemetry topic, after
/// `devices/{device}[/modules/{module}]/messages/events`; `None` when `topic` is
/// no telemetry topic of the sender's own.
pub(super) fn telemetry_bag<'a>(sender: &Identity, topic: &'a str) -> Option<&'a str> {
    // Most topics are of other kinds, so the path is only made for those that may have it.
    let bag = topic
        .starts_with("devices/")
        .then(|| topic.strip_prefix(&sender.path()))??
        .strip_prefix("/messages/events")?;
    if bag.is_empty() { Some(bag) } else { bag.strip_prefix('/') }
}

/// The properties `bag` of a message, marked where its sender asked for
/// `retain`: the hub keeps no messages on topics, and passes such a message on
/// like any other. Source: "Communicate with an IoT hub using the MQTT
/// protocol".
pub(super) fn with_retain(bag: &str, retain: bool) -> Cow<'_, str> {
    if retain { with(bag, "mqtt-retain=true").into() } else { bag.into() }
}

fn twin_get(hub: &Hub, link: &Link, rid: String) -> Message {
    let read = || hub.registry.read(&link.device, |device| device.twin.device_json());
    match allowed(hub, link, Operation::TwinRead).and_then(|()| read()) {
        Ok(twin) => reply(200, rid, None, twin.to_string()),
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
    let invalid = |why: String| ErrorCode::ArgumentInvalid.because(why);
    let update = async {
        allowed(hub, link, Operation::TwinUpdate)?;
        let merge = |device: &Device, _| {
            let patch = match serde_json::from_slice(payload) {
                Ok(Value::Object(patch)) => patch,
                Ok(_) => return Err(invalid("the patch is not a JSON object".to_owned())),
                Err(error) => return Err(invalid(format!("the patch is not JSON: {error}"))),
            };
            let mut told = patch.clone();
            let (twin, version) = device.twin.reported(patch, version, now())?;
            told.insert("$version".into(), version.into());
            Ok((DevicePatch { twin: Some(twin), ..DevicePatch::default() }, (version, told)))
        };
        let tell = |device: &Arc<Device>, (version, reported): (u64, Object)| {
            hub.note(
                About::Twin,
                &link.device,
                "updateTwin",
                || json!({ "version": device.twin.version, "properties": { "reported": reported } }),
            );
            version
        };
        hub.registry.patch(&link.device, merge, tell).await
    };
    match update.await {
        Ok(version) => Ok(reply(204, rid, Some(version), String::new())),
        // The change is not on disk, so it must not be acknowledged either.
        Err(error) if error.code == ErrorCode::ServerError => Err(error.to_string()),
        Err(error) => Ok(refusal(rid, &error)),
    }
}

/// Refuses a twin request with 429 when a fault or the tier says so.
fn allowed(hub: &Hub, link: &Link, operation: Operation) -> Result<(), HubRefusal> {
    if hub.faults.happens(&link.device, FaultKind::ThrottleDevice) {
        return Err(ErrorCode::ThrottlingException.because("a fault throttles the request"));
    }
    hub.throttle.take(operation)
}

/// Hands the device's reply to whoever called. An empty payload and one that
/// is not JSON count as `null`; what the real hub makes of a payload that is
/// not JSON is unverified.
fn method_response(hub: &Hub, link: &Link, status: i64, rid: &str, payload: &Bytes) {
    let payload = serde_json::from_slice(payload).unwrap_or(Value::Null);
    if !hub.links.reply(&link.device, rid, status, payload) {
        tracing::debug!(device = %link.device, rid, "nobody waits for this reply");
    }
}

/// The reply to a twin request that the hub refuses.
fn refusal(rid: String, error: &HubRefusal) -> Message {
    reply(error.code.status().as_u16(), rid, None, error.to_device_body().to_string())
}

/// A reply to the twin request `rid`.
fn reply(status: u16, rid: String, version: Option<u64>, body: String) -> Message {
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
