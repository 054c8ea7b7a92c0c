//! Messages to devices and from them.

use std::process::Stdio;

use iotdm_tests::Hub;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{Connect, ConnectReturnCode, LastWill, Packet, Publish};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tokio::time::timeout;

use crate::support::device::{Device, hello};
use crate::support::service::Service;
use crate::support::{DEADLINE, command};

const INBOX: &str = "devices/gw1/messages/devicebound/#";

async fn send(service: &Service, text: &str) {
    let body = json!({"body": text, "properties": {"a b": "c=d"}});
    let answer = service.send("POST", "/emulator/messages/gw1", body).await;
    assert_eq!(answer.status, 204, "{answer:?}");
}

async fn waiting(service: &Service) -> Value {
    service.read("/twins/gw1").await["cloudToDeviceMessageCount"].clone()
}

/// The command `events` for `gw1`, listening, which ends after `count` messages.
async fn listen(hub: &Hub, count: usize) -> Child {
    let mut events = command();
    events.args(["events", "gw1", "--count", &count.to_string(), "--data"]).arg(hub.data());
    let mut events = events.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut notes = BufReader::new(events.stderr.take().unwrap()).lines();
    let note = timeout(DEADLINE, notes.next_line()).await.unwrap().unwrap().unwrap();
    assert!(note.contains("waiting"), "{note}");
    events
}

/// What the command has printed once it ends.
async fn heard(events: Child) -> Vec<Value> {
    let output = timeout(DEADLINE, events.wait_with_output()).await.unwrap().unwrap();
    assert!(output.status.success());
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_message_waits_until_its_device_acknowledges_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::start_in(dir.path(), &["--device", "gw1"]);
    let service = Service::owner(&hub);
    let mut device = Device::listening(&hub, "gw1", &[INBOX]).await;
    send(&service, "one").await;
    let (topic, text, pkid) = device.unacknowledged().await;
    assert!(topic.starts_with("devices/gw1/messages/devicebound/%24.mid="), "{topic}");
    assert!(topic.contains("&%24.to=%2Fdevices%2Fgw1%2Fmessages%2Fdevicebound"), "{topic}");
    assert!(topic.ends_with("&a%20b=c%3Dd"), "{topic}");
    assert_eq!((text.as_str(), waiting(&service).await), ("one", json!(1)));
    device.acknowledge(pkid).await;
    assert_eq!(waiting(&service).await, 0);

    send(&service, "two").await;
    device.unacknowledged().await;
    drop(device);
    send(&service, "three").await;
    hub.kill();

    let hub = Hub::start_in(dir.path(), &[]);
    let service = Service::owner(&hub);
    assert_eq!(waiting(&service).await, 2);
    // The session's subscription is still there.
    let mut device = Device::connect(&hub, "gw1").await;
    for expected in ["two", "three"] {
        let (_, text, pkid) = device.unacknowledged().await;
        assert_eq!(text, expected);
        device.acknowledge(pkid).await;
    }
    assert_eq!(waiting(&service).await, 0);
    assert!(device.is_idle().await);
}

#[tokio::test]
async fn subscribing_brings_what_waits_and_a_clean_session_drops_it() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    send(&service, "one").await;
    let mut device = Device::connect(&hub, "gw1").await;
    assert!(device.is_idle().await);
    device.subscribe(INBOX).await;
    assert_eq!(device.unacknowledged().await.1, "one");
    device.subscribe(INBOX).await;
    assert!(device.is_idle().await, "not twice");
    let mut clean = hello(&hub, "gw1");
    clean.clean_session = true;
    assert_eq!(Device::say_hello(&hub, clean).await.1.code, ConnectReturnCode::Success);
    assert_eq!(waiting(&service).await, 0);
}

#[tokio::test]
async fn at_most_50_wait_and_all_are_purged_at_once() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    for n in 0..50 {
        send(&service, &n.to_string()).await;
    }
    let full = service.send("POST", "/emulator/messages/gw1", json!({"body": "x"})).await;
    full.refused(403, "DeviceMaximumQueueDepthExceeded");
    let purged = service.send("DELETE", "/devices/gw1/commands", Value::Null).await;
    let expected = json!({"deviceId": "gw1", "moduleId": null, "totalMessagesPurged": 50});
    assert_eq!((purged.status, purged.body), (200, expected));
    assert_eq!(waiting(&service).await, 0);
    for (path, body, status, name) in [
        ("/emulator/messages/nobody", json!({"body": "x"}), 404, "DeviceNotFound"),
        ("/emulator/messages/gw1", json!({}), 400, "ArgumentInvalid"),
        ("/emulator/messages/gw1", json!({"body": "x", "properties": {"a": 1}}), 400, "ArgumentInvalid"),
        ("/emulator/messages/gw1", json!({"body": "x".repeat(65 * 1024)}), 413, "MessageTooLarge"),
    ] {
        service.send("POST", path, body).await.refused(status, name);
    }
}

#[tokio::test]
async fn the_commands_send_and_show_messages() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    service.send("PUT", "/devices/gw2", json!({})).await;
    let mut device = Device::listening(&hub, "gw1", &[INBOX]).await;
    let data = hub.data().to_str().unwrap().to_owned();
    let sent = command().args(["send", "gw1", "hello", "--property", "k=v=w", "--data", &data]).output();
    assert!(sent.await.unwrap().status.success());
    let (topic, text, _) = device.unacknowledged().await;
    assert!(text == "hello" && topic.ends_with("&k=v%3Dw"), "{topic} {text}");

    let events = listen(&hub, 2).await;
    let mut other = Device::connect(&hub, "gw2").await;
    other.publish("devices/gw2/messages/events/", "{}").await;
    device.publish("devices/gw1/messages/events/a=b&%24.ct=text", r#"{"t":1,"a":2}"#).await;
    device.publish("devices/gw1/messages/events/", "text").await;
    let lines = heard(events).await;
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["deviceId"], &lines[0]["body"]), (&json!("gw1"), &json!({"t": 1, "a": 2})));
    assert_eq!(lines[0]["body"].to_string(), r#"{"t":1,"a":2}"#, "in its order");
    assert_eq!(lines[0]["properties"], json!({"a": "b"}));
    assert_eq!(lines[0]["systemProperties"], json!({"$.ct": "text"}));
    assert_eq!(lines[1]["body"], "text");
}

fn hello_with_will(hub: &Hub, topic: &str) -> Connect {
    let mut connect = hello(hub, "gw1");
    connect.last_will = Some(LastWill::new(topic, "gone", QoS::AtLeastOnce, true));
    connect
}

#[tokio::test]
async fn a_will_is_sent_for_a_connection_that_breaks_and_for_no_other() {
    let hub = Hub::start();
    let events = listen(&hub, 2).await;
    let hello = hello_with_will(&hub, "devices/gw1/messages/events/a=b");
    let (mut device, _) = Device::say_hello(&hub, hello.clone()).await;
    device.send(&Packet::Disconnect).await;
    device.expect_close().await;
    let (device, _) = Device::say_hello(&hub, hello).await;
    drop(device);
    // The Will is sent before the device counts as gone.
    while Service::owner(&hub).read("/twins/gw1").await["connectionState"] == "Connected" {}
    let mut device = Device::connect(&hub, "gw1").await;
    let mut publish = Publish::new("devices/gw1/messages/events/", QoS::AtMostOnce, "kept?");
    publish.retain = true;
    device.send(&Packet::Publish(publish)).await;
    device.ping().await;
    let lines = heard(events).await;
    assert_eq!((&lines[0]["body"], &lines[1]["body"]), (&json!("gone"), &json!("kept?")));
    assert_eq!(lines[0]["properties"], json!({"a": "b", "mqtt-retain": "true"}));
    assert_eq!(lines[0]["systemProperties"], json!({"iothub-MessageType": "Will"}));
    assert_eq!(lines[1]["properties"], json!({"mqtt-retain": "true"}));
    for topic in ["devices/gw2/messages/events/", "$iothub/twin/GET/?$rid=1", "gone"] {
        let (_, ack) = Device::say_hello(&hub, hello_with_will(&hub, topic)).await;
        assert_eq!(ack.code, ConnectReturnCode::NotAuthorized, "{topic}");
    }
}
