//! Faults do to a device what they say, as often as they say.

use rumqttc::mqttbytes::v4::{ConnectReturnCode, Packet};
use serde_json::{Value, json};

use crate::support::Emulator;
use crate::support::device::{Device, TWIN_RESPONSES, hello};
use crate::support::service::{Answer, Service};

const PATCH: &str = "$iothub/twin/PATCH/properties/reported/?$rid=1";

#[tokio::test]
async fn a_withheld_puback_and_a_withheld_reply_take_effect_all_the_same() {
    let emulator = Emulator::new().await;
    let service = Service::owner(&emulator);
    let mut device = Device::listening(&emulator, "gw1", &[TWIN_RESPONSES]).await;
    service.fault(json!({"deviceId": "gw1", "fault": "withholdPuback"})).await;
    device.publish_without_waiting(PATCH, r#"{"a":1}"#).await;
    assert_eq!(device.message().await.0, "$iothub/twin/res/204/?$rid=1&$version=2");
    device.publish(PATCH, r#"{"a":2}"#).await;
    assert_eq!(device.message().await.0, "$iothub/twin/res/204/?$rid=1&$version=3");

    service.fault(json!({"deviceId": "gw1", "fault": "withholdTwinReply", "count": 2})).await;
    for n in 3..5 {
        device.publish(PATCH, &json!({ "a": n }).to_string()).await;
        assert!(device.is_idle().await);
    }
    assert_eq!(service.read("/twins/gw1").await["properties"]["reported"]["a"], 4);
    device.publish("$iothub/twin/GET/?$rid=2", "").await;
    assert_eq!(device.message().await.1["reported"], json!({"a": 4, "$version": 5}));
    assert_eq!(service.read("/emulator/faults").await, json!([]));
}

#[tokio::test]
async fn a_dropped_link_and_refused_connects() {
    let emulator = Emulator::new().await;
    let service = Service::owner(&emulator);
    let mut device = Device::connect(&emulator, "gw1").await;
    service.fault(json!({"deviceId": "gw1", "fault": "refuseConnect", "count": 2, "code": 3})).await;
    service.fault(json!({"deviceId": "gw1", "fault": "dropLink"})).await;
    device.expect_close().await;
    for expected in [
        ConnectReturnCode::ServiceUnavailable,
        ConnectReturnCode::ServiceUnavailable,
        ConnectReturnCode::Success,
    ] {
        assert_eq!(Device::say_hello(&emulator, hello(&emulator, "gw1")).await.1.code, expected);
    }
}

#[tokio::test]
async fn a_fault_is_one_devices_and_can_be_cleared() {
    let emulator = Emulator::new().await;
    let service = Service::owner(&emulator);
    service.send("PUT", "/devices/gw2", json!({})).await;
    for device in ["gw1", "gw2"] {
        service.fault(json!({"deviceId": device, "fault": "refuseConnect"})).await;
    }
    let clear = service.request("DELETE", "/emulator/faults").query(&[("deviceId", "gw2")]);
    assert_eq!(Answer::to(clear).await.status, 204);
    let left = json!([{"deviceId": "gw1", "fault": "refuseConnect", "count": 1, "code": 5}]);
    assert_eq!(service.read("/emulator/faults").await, left);
    let mut device = Device::connect(&emulator, "gw2").await;
    device.send(&Packet::PingReq).await;
    assert_eq!(device.read().await, Some(Packet::PingResp));
    assert_eq!(service.send("DELETE", "/emulator/faults", Value::Null).await.status, 204);
    Device::connect(&emulator, "gw1").await.ping().await;
}

#[tokio::test]
async fn bad_faults_are_refused() {
    let emulator = Emulator::new().await;
    let service = Service::owner(&emulator);
    for body in [
        json!({}),
        json!({"deviceId": "gw1"}),
        json!({"deviceId": "a b", "fault": "withholdPuback"}),
        json!({"deviceId": "gw1", "fault": "explode"}),
        json!({"deviceId": "gw1", "fault": "withholdPuback", "count": 0}),
        json!({"deviceId": "gw1", "fault": "refuseConnect", "code": 0}),
        json!({"deviceId": "gw1", "fault": "refuseConnect", "code": 6}),
    ] {
        service.send("POST", "/emulator/faults", body).await.refused(400, "ArgumentInvalid");
    }
    let fault = |device: &str| json!({"deviceId": device, "fault": "dropLink"});
    service.send("POST", "/emulator/faults", fault("nobody")).await.refused(404, "DeviceNotFound");
    service.send("POST", "/emulator/faults", fault("gw1")).await.refused(404, "DeviceNotOnline");
}
