//! What a connection may do, and what outlives it.

use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{ConnAck, ConnectReturnCode, Packet, Publish, Subscribe, Unsubscribe};
use serde_json::json;

use crate::support::Emulator;
use crate::support::device::{DESIRED_PATCHES, Device, METHOD_CALLS, TWIN_RESPONSES, hello};
use crate::support::service::Service;

async fn connect(emulator: &Emulator, clean_session: bool) -> (Device, ConnAck) {
    let mut hello = hello(emulator, "gw1");
    hello.clean_session = clean_session;
    let (device, ack) = Device::say_hello(emulator, hello).await;
    assert_eq!(ack.code, ConnectReturnCode::Success);
    (device, ack)
}

async fn is_notified(emulator: &Emulator, device: &mut Device) -> bool {
    let change = json!({"properties": {"desired": {"a": 1}}});
    assert_eq!(Service::owner(emulator).send("PATCH", "/twins/gw1", change).await.status, 200);
    !device.is_idle().await
}

#[tokio::test]
async fn subscriptions_outlive_the_connection_and_the_emulator() {
    let dir = tempfile::tempdir().unwrap();
    let mut emulator = Emulator::start(dir.path(), &["--device", "gw1"]).await;
    let (mut device, ack) = connect(&emulator, false).await;
    assert!(!ack.session_present);
    device.subscribe(DESIRED_PATCHES).await;

    let (mut device, ack) = connect(&emulator, false).await;
    assert!(ack.session_present);
    assert!(is_notified(&emulator, &mut device).await);

    emulator.kill().await;
    let emulator = Emulator::start(dir.path(), &[]).await;
    let (mut device, ack) = connect(&emulator, false).await;
    assert!(ack.session_present);
    assert!(is_notified(&emulator, &mut device).await);

    let (mut device, ack) = connect(&emulator, true).await;
    assert!(!ack.session_present);
    assert!(!is_notified(&emulator, &mut device).await);
    device.subscribe(DESIRED_PATCHES).await;
    let (mut device, ack) = connect(&emulator, false).await;
    assert!(!ack.session_present, "a clean session leaves nothing behind");
    assert!(!is_notified(&emulator, &mut device).await);
}

#[tokio::test]
async fn unsubscribing_ends_the_messages() {
    let emulator = Emulator::new().await;
    let mut device = Device::listening(&emulator, "gw1", &[DESIRED_PATCHES]).await;
    let mut unsubscribe = Unsubscribe::new(DESIRED_PATCHES);
    unsubscribe.pkid = 9;
    device.send(&Packet::Unsubscribe(unsubscribe)).await;
    assert!(matches!(device.read().await, Some(Packet::UnsubAck(ack)) if ack.pkid == 9));
    assert!(!is_notified(&emulator, &mut device).await);
}

#[tokio::test]
async fn filters_that_the_hub_does_not_have_end_the_connection() {
    let emulator = Emulator::new().await;
    for filter in ["#", "$iothub/#", "devices/gw2/messages/devicebound/#", "devices/gw1/messages/events/#"] {
        let mut device = Device::connect(&emulator, "gw1").await;
        let mut subscribe = Subscribe::new(filter, QoS::AtLeastOnce);
        subscribe.pkid = 1;
        device.send(&Packet::Subscribe(subscribe)).await;
        assert_eq!(device.read().await, None, "{filter}");
    }
    let filters = [TWIN_RESPONSES, DESIRED_PATCHES, METHOD_CALLS, "devices/gw1/messages/devicebound/#"];
    Device::listening(&emulator, "gw1", &filters).await.ping().await;
}

#[tokio::test]
async fn topics_that_the_hub_does_not_have_end_the_connection() {
    let emulator = Emulator::new().await;
    for topic in ["a", "$iothub/twin/GET/", "devices/gw2/messages/events/", "$iothub/methods/POST/m/?$rid=1"]
    {
        let mut device = Device::connect(&emulator, "gw1").await;
        device.publish_without_waiting(topic, "{}").await;
        assert_eq!(device.read().await, None, "{topic}");
    }
}

#[tokio::test]
async fn publishing_at_qos_2_ends_the_connection() {
    let emulator = Emulator::new().await;
    let mut device = Device::connect(&emulator, "gw1").await;
    let mut publish = Publish::new("devices/gw1/messages/events/", QoS::ExactlyOnce, "x");
    publish.pkid = 1;
    device.send(&Packet::Publish(publish)).await;
    assert_eq!(device.read().await, None);
}

#[tokio::test]
async fn telemetry_is_acknowledged_up_to_the_limit() {
    let emulator = Emulator::new().await;
    let mut device = Device::connect(&emulator, "gw1").await;
    let topic = "devices/gw1/messages/events/%24.ct=application%2Fjson&a=b";
    device.publish(topic, "{}").await;
    device.publish(topic, &"x".repeat(256 * 1024)).await;
    device.publish_without_waiting(topic, &"x".repeat(264 * 1024)).await;
    device.expect_close().await;
}

#[tokio::test]
async fn a_device_that_does_not_read_is_cut_off_and_holds_up_nobody() {
    let emulator = Emulator::new().await;
    let service = Service::owner(&emulator);
    let _deaf = Device::listening(&emulator, "gw1", &[DESIRED_PATCHES]).await;
    let parts: Vec<String> = (0..7).map(|_| "x".repeat(4000)).collect();
    // Far more than the buffers on the way can hold.
    for n in 0..5000 {
        let change = json!({"properties": {"desired": {"n": n, "parts": parts}}});
        let start = std::time::Instant::now();
        let answer = service.send("PATCH", "/twins/gw1", change).await;
        assert_eq!(answer.status, 200);
        assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
        if answer.body["connectionState"] == "Disconnected" {
            return;
        }
    }
    panic!("still connected");
}
