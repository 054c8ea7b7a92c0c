//! What a connection may do, and what outlives it.

use iotdm_tests::Hub;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{ConnAck, ConnectReturnCode, Packet, Publish, Subscribe};
use serde_json::json;

use crate::support::device::{DESIRED_PATCHES, Device, METHOD_CALLS, TWIN_RESPONSES, hello};
use crate::support::service::Service;

async fn connect(hub: &Hub, clean_session: bool) -> (Device, ConnAck) {
    let mut hello = hello(hub, "gw1");
    hello.clean_session = clean_session;
    let (device, ack) = Device::say_hello(hub, hello).await;
    assert_eq!(ack.code, ConnectReturnCode::Success);
    (device, ack)
}

async fn is_notified(hub: &Hub, device: &mut Device) -> bool {
    let change = json!({"properties": {"desired": {"a": 1}}});
    assert_eq!(Service::owner(hub).send("PATCH", "/twins/gw1", change).await.status, 200);
    !device.is_idle().await
}

#[tokio::test]
async fn subscriptions_outlive_the_connection_and_the_emulator() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::start_in(dir.path(), &["--device", "gw1"]);
    let (mut device, ack) = connect(&hub, false).await;
    assert!(!ack.session_present);
    device.subscribe(DESIRED_PATCHES).await;

    let (mut device, ack) = connect(&hub, false).await;
    assert!(ack.session_present);
    assert!(is_notified(&hub, &mut device).await);

    hub.kill();
    let hub = Hub::start_in(dir.path(), &[]);
    let (mut device, ack) = connect(&hub, false).await;
    assert!(ack.session_present);
    assert!(is_notified(&hub, &mut device).await);

    let (mut device, ack) = connect(&hub, true).await;
    assert!(!ack.session_present);
    assert!(!is_notified(&hub, &mut device).await);
    device.subscribe(DESIRED_PATCHES).await;
    let (mut device, ack) = connect(&hub, false).await;
    assert!(!ack.session_present, "a clean session leaves nothing behind");
    assert!(!is_notified(&hub, &mut device).await);
}

#[tokio::test]
async fn unsubscribing_ends_the_messages() {
    let hub = Hub::start();
    let mut device = Device::listening(&hub, "gw1", &[DESIRED_PATCHES]).await;
    device.unsubscribe(DESIRED_PATCHES).await;
    assert!(!is_notified(&hub, &mut device).await);
}

#[tokio::test]
async fn filters_that_the_hub_does_not_have_end_the_connection() {
    let hub = Hub::start();
    for filter in ["#", "$iothub/#", "devices/gw2/messages/devicebound/#", "devices/gw1/messages/events/#"] {
        let mut device = Device::connect(&hub, "gw1").await;
        let mut subscribe = Subscribe::new(filter, QoS::AtLeastOnce);
        subscribe.pkid = 1;
        device.send(&Packet::Subscribe(subscribe)).await;
        assert_eq!(device.read().await, None, "{filter}");
    }
    let filters = [TWIN_RESPONSES, DESIRED_PATCHES, METHOD_CALLS, "devices/gw1/messages/devicebound/#"];
    Device::listening(&hub, "gw1", &filters).await.ping().await;
}

#[tokio::test]
async fn topics_that_the_hub_does_not_have_end_the_connection() {
    let hub = Hub::start();
    for topic in ["a", "$iothub/twin/GET/", "devices/gw2/messages/events/", "$iothub/methods/POST/m/?$rid=1"]
    {
        let mut device = Device::connect(&hub, "gw1").await;
        device.publish_without_waiting(topic, "{}").await;
        assert_eq!(device.read().await, None, "{topic}");
    }
}

#[tokio::test]
async fn publishing_at_qos_2_ends_the_connection() {
    let hub = Hub::start();
    let mut device = Device::connect(&hub, "gw1").await;
    let mut publish = Publish::new("devices/gw1/messages/events/", QoS::ExactlyOnce, "x");
    publish.pkid = 1;
    device.send(&Packet::Publish(publish)).await;
    assert_eq!(device.read().await, None);
}

#[tokio::test]
async fn telemetry_is_acknowledged_up_to_the_limit() {
    let hub = Hub::start();
    let mut device = Device::connect(&hub, "gw1").await;
    let topic = "devices/gw1/messages/events/%24.ct=application%2Fjson&a=b";
    device.publish(topic, "{}").await;
    device.publish(topic, &"x".repeat(256 * 1024)).await;
    for beyond in [256 * 1024 + 1, 264 * 1024] {
        let mut device = Device::connect(&hub, "gw1").await;
        device.publish_without_waiting(topic, &"x".repeat(beyond)).await;
        device.expect_close().await;
    }
}

#[tokio::test]
async fn a_device_that_does_not_read_is_cut_off_and_holds_up_nobody() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    let _deaf = Device::listening(&hub, "gw1", &[DESIRED_PATCHES]).await;
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
