//! Faults do to a device what they say, as often as they say.

use iotdm_tests::Hub;
use rumqttc::mqttbytes::v4::{ConnectReturnCode, Packet};
use serde_json::{Value, json};

use crate::support::device::{Device, METHOD_CALLS, TWIN_RESPONSES, hello, hello_until};
use crate::support::now;
use crate::support::service::{HttpResponse, Service};

const PATCH: &str = "$iothub/twin/PATCH/properties/reported/?$rid=1";

#[tokio::test]
async fn a_withheld_puback_and_a_withheld_reply_take_effect_all_the_same() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    let mut device = Device::listening(&hub, "gw1", &[TWIN_RESPONSES]).await;
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
    let hub = Hub::start();
    let service = Service::owner(&hub);
    let mut device = Device::connect(&hub, "gw1").await;
    service.fault(json!({"deviceId": "gw1", "fault": "refuseConnect", "count": 2, "code": 3})).await;
    service.fault(json!({"deviceId": "gw1", "fault": "dropLink"})).await;
    device.expect_close().await;
    for expected in [
        ConnectReturnCode::ServiceUnavailable,
        ConnectReturnCode::ServiceUnavailable,
        ConnectReturnCode::Success,
    ] {
        assert_eq!(Device::say_hello(&hub, hello(&hub, "gw1")).await.1.code, expected);
    }
}

#[tokio::test]
async fn a_fault_is_one_devices_and_can_be_cleared() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    service.send("PUT", "/devices/gw2", json!({})).await;
    for device in ["gw1", "gw2"] {
        service.fault(json!({"deviceId": device, "fault": "refuseConnect"})).await;
    }
    let clear = service.request("DELETE", "/emulator/faults").query(&[("deviceId", "gw2")]);
    assert_eq!(HttpResponse::to(clear).await.status, 204);
    let left = json!([{"deviceId": "gw1", "fault": "refuseConnect", "count": 1, "code": 5}]);
    assert_eq!(service.read("/emulator/faults").await, left);
    let mut device = Device::connect(&hub, "gw2").await;
    device.send(&Packet::PingReq).await;
    assert_eq!(device.read().await, Some(Packet::PingResp));
    assert_eq!(service.send("DELETE", "/emulator/faults", Value::Null).await.status, 204);
    Device::connect(&hub, "gw1").await.ping().await;
}

fn invoke(service: &Service) -> tokio::task::JoinHandle<HttpResponse> {
    let service = service.clone();
    let call = json!({"methodName": "m", "responseTimeoutInSeconds": 30});
    tokio::spawn(async move { service.send("POST", "/twins/gw1/methods", call).await })
}

#[tokio::test]
async fn a_method_can_be_late_and_come_twice() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    let mut device = Device::listening(&hub, "gw1", &[METHOD_CALLS]).await;
    service.fault(json!({"deviceId": "gw1", "fault": "delayMethod", "milliseconds": 500})).await;
    let start = std::time::Instant::now();
    let call = invoke(&service);
    let (_, rid, _) = device.method().await;
    assert!(start.elapsed().as_millis() >= 500, "{:?}", start.elapsed());
    device.publish(&format!("$iothub/methods/res/200/?$rid={rid}"), "1").await;
    assert_eq!(call.await.unwrap().body["payload"], 1);

    service.fault(json!({"deviceId": "gw1", "fault": "duplicateMethod"})).await;
    let call = invoke(&service);
    let (first, second) = (device.method().await, device.method().await);
    assert_eq!(first, second);
    device.publish(&format!("$iothub/methods/res/200/?$rid={}", first.1), "2").await;
    device.publish(&format!("$iothub/methods/res/500/?$rid={}", first.1), "3").await;
    assert_eq!(call.await.unwrap().body, json!({"status": 200, "payload": 2}));
}

#[tokio::test]
async fn an_expired_token_is_of_no_use_any_more_but_a_newer_one_is() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    let expiry = now() + 600;
    let (mut device, _) = Device::say_hello(&hub, hello_until(&hub, "gw1", expiry)).await;
    service.fault(json!({"deviceId": "gw1", "fault": "expireToken"})).await;
    device.expect_close().await;
    for (expiry, code) in [
        (expiry, ConnectReturnCode::NotAuthorized),
        (expiry - 1, ConnectReturnCode::NotAuthorized),
        (expiry + 1, ConnectReturnCode::Success),
    ] {
        let hello = hello_until(&hub, "gw1", expiry);
        assert_eq!(Device::say_hello(&hub, hello).await.1.code, code);
    }
}

#[tokio::test]
async fn throttled_devices_and_services_get_429() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    let mut device = Device::listening(&hub, "gw1", &[TWIN_RESPONSES]).await;
    service.fault(json!({"deviceId": "gw1", "fault": "throttleDevice"})).await;
    device.publish(PATCH, r#"{"a":1}"#).await;
    let (topic, body) = device.message().await;
    assert_eq!((topic.as_str(), &body["errorCode"]), ("$iothub/twin/res/429/?$rid=1", &json!(429_001)));
    device.publish(PATCH, r#"{"a":1}"#).await;
    assert_eq!(device.message().await.0, "$iothub/twin/res/204/?$rid=1&$version=2");

    service.fault(json!({"deviceId": "gw1", "fault": "throttleService", "count": 2})).await;
    service.read("/devices").await;
    service.get("/twins/gw1").await.refused(429, "ThrottlingException");
    let call = service.send("POST", "/twins/gw1/methods", json!({"methodName": "m"})).await;
    call.refused_nested(429, 429_001, "ThrottlingException");
    service.read("/twins/gw1").await;
    service.fault(json!({"fault": "throttleService"})).await;
    let query = json!({"query": "SELECT * FROM devices"});
    service.send("POST", "/devices/query", query.clone()).await.refused(429, "ThrottlingException");
    assert_eq!(service.send("POST", "/devices/query", query).await.status, 200);
}

#[tokio::test]
async fn a_route_is_told_by_its_pattern_and_not_by_the_ids_in_it() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    service.send("PUT", "/devices/methods", json!({})).await;
    service.send("PUT", "/devices/methods/modules/methods", json!({})).await;
    for (id, path) in [("methods", "/twins/methods"), ("methods/methods", "/twins/methods/modules/methods")] {
        service.fault(json!({"deviceId": id, "fault": "throttleService"})).await;
        service.get(path).await.refused(429, "ThrottlingException");
    }
    service.fault(json!({"deviceId": "methods", "fault": "throttleService"})).await;
    let call = service.send("POST", "/twins/methods/methods", json!({"methodName": "m"})).await;
    call.refused_nested(429, 429_001, "ThrottlingException");
}

#[tokio::test]
async fn a_tier_throttles_by_its_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start_in(dir.path(), &["--tier", "S1"]);
    let service = Service::owner(&hub);
    // The tier allows 20 queries a minute; a few more are allowed by the time that asking takes.
    let mut refused = None;
    for _ in 0..60 {
        let answer = service.send("POST", "/devices/query", json!({"query": "SELECT * FROM devices"})).await;
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
    }
    refused.expect("never throttled").refused(429, "ThrottlingException");
    service.read("/devices").await;
}

#[tokio::test]
async fn bad_faults_are_refused() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
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
