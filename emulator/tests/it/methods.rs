//! Direct methods, and each way in which they fail.

use iotdm_tests::Hub;
use serde_json::{Value, json};

use crate::support::device::{Device, METHOD_CALLS};
use crate::support::service::{HttpResponse, Service};

const PATH: &str = "/twins/gw1/methods";

fn invoke(service: &Service, body: Value) -> tokio::task::JoinHandle<HttpResponse> {
    let service = service.clone();
    tokio::spawn(async move { service.send("POST", PATH, body).await })
}

async fn reply(device: &mut Device, status: i64, rid: &str, payload: &str) {
    device.publish(&format!("$iothub/methods/res/{status}/?$rid={rid}"), payload).await;
}

#[tokio::test]
async fn there_and_back() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    let mut device = Device::listening(&hub, "gw1", &[METHOD_CALLS]).await;
    for (payload, status, sent, received) in [
        (json!({"b": [1], "a": 2}), 200, r#"{"ok":true,"id":1}"#, json!({"ok": true, "id": 1})),
        (json!(""), 404, r#""text""#, json!("text")),
        (Value::Null, -7, "", Value::Null),
        (json!(1), 200, "not json", Value::Null),
    ] {
        let call = invoke(&service, json!({"methodName": "rebootDevice", "payload": payload}));
        let (name, rid, got) = device.method().await;
        assert_eq!(name, "rebootDevice");
        // Compared as text: the keys are in the order in which they were sent.
        assert_eq!(got.to_string(), payload.to_string());
        reply(&mut device, status, &rid, sent).await;
        // A second reply has nobody to go to and does no harm.
        reply(&mut device, 500, &rid, "{}").await;
        let answer = call.await.unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.body.to_string(), json!({"status": status, "payload": received}).to_string());
    }
    // Without a payload the device gets `null`, as from the real hub.
    let call = invoke(&service, json!({"methodName": "m"}));
    let (_, rid, got) = device.method().await;
    assert_eq!(got, Value::Null);
    reply(&mut device, 200, &rid, "{}").await;
    assert_eq!(call.await.unwrap().status, 200);
}

#[tokio::test]
async fn several_calls_at_once_get_their_own_replies() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    let mut device = Device::listening(&hub, "gw1", &[METHOD_CALLS]).await;
    let calls: Vec<_> =
        (0..10).map(|n| (n, invoke(&service, json!({"methodName": "m", "payload": n})))).collect();
    let mut waiting = Vec::new();
    for _ in 0..10 {
        waiting.push(device.method().await);
    }
    for (_, rid, payload) in waiting.iter().rev() {
        reply(&mut device, 200, rid, &payload.to_string()).await;
    }
    for (n, call) in calls {
        assert_eq!(call.await.unwrap().body, json!({"status": 200, "payload": n}));
    }
}

#[tokio::test]
async fn a_device_that_is_not_there_or_does_not_listen_is_not_online() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    let call = json!({"methodName": "m"});
    service.send("POST", PATH, call.clone()).await.refused_nested(404, 404_103, "DeviceNotOnline");
    let _deaf = Device::connect(&hub, "gw1").await;
    service.send("POST", PATH, call.clone()).await.refused_nested(404, 404_103, "DeviceNotOnline");
    let nobody = service.send("POST", "/twins/nobody/methods", call).await;
    nobody.refused_nested(404, 404_001, "DeviceNotFound");
    let waiting = std::time::Instant::now();
    let call = json!({"methodName": "m", "connectTimeoutInSeconds": 1});
    service.send("POST", PATH, call).await.refused_nested(404, 404_103, "DeviceNotOnline");
    assert!(waiting.elapsed().as_millis() >= 1000);
}

#[tokio::test]
async fn a_call_waits_for_its_device_to_come_and_listen() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    let call = invoke(&service, json!({"methodName": "m", "connectTimeoutInSeconds": "20"}));
    let mut device = Device::listening(&hub, "gw1", &[METHOD_CALLS]).await;
    let (_, rid, _) = device.method().await;
    reply(&mut device, 200, &rid, "1").await;
    assert_eq!(call.await.unwrap().body["payload"], 1);
}

#[tokio::test]
async fn a_device_that_does_not_answer_is_a_gateway_timeout() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    let mut device = Device::listening(&hub, "gw1", &[METHOD_CALLS]).await;
    let call = invoke(&service, json!({"methodName": "m", "responseTimeoutInSeconds": "5"}));
    let (_, rid, _) = device.method().await;
    call.await.unwrap().refused_nested(504, 504_101, "GatewayTimeout");
    // This reply comes too late, and does no harm.
    reply(&mut device, 200, &rid, "{}").await;
    device.ping().await;
}

#[tokio::test]
async fn a_connection_that_ends_takes_its_calls_along() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    let mut old = Device::listening(&hub, "gw1", &[METHOD_CALLS]).await;
    let call = invoke(&service, json!({"methodName": "m"}));
    let (_, rid, _) = old.method().await;
    let mut new = Device::connect(&hub, "gw1").await;
    let replaced = call.await.unwrap();
    replaced.refused_nested(400, 400_027, "ConnectionForcefullyClosedOnNewConnection");
    reply(&mut new, 200, &rid, "{}").await;

    let call = invoke(&service, json!({"methodName": "m"}));
    new.method().await;
    drop(new);
    call.await.unwrap().refused_nested(404, 404_104, "DeviceConnectionClosedRemotely");
}

#[tokio::test]
async fn bad_calls_are_refused_before_the_device_hears_of_them() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    let mut device = Device::listening(&hub, "gw1", &[METHOD_CALLS]).await;
    for body in [
        json!([]),
        json!({"payload": 1}),
        json!({"methodName": "a b"}),
        json!({"methodName": "m", "responseTimeoutInSeconds": 301}),
        json!({"methodName": "m", "connectTimeoutInSeconds": 301}),
        json!({"methodName": "m", "connectTimeoutInSeconds": "x"}),
    ] {
        service.send("POST", PATH, body).await.refused_nested(400, 400_004, "ArgumentInvalid");
    }
    let big = json!({"methodName": "m", "payload": "x".repeat(129 * 1024)});
    service.send("POST", PATH, big).await.refused_nested(413, 413_001, "MessageTooLarge");
    let reader = Service::with_policy(&hub, "registryRead");
    let refused = reader.send("POST", PATH, json!({"methodName": "m"})).await;
    refused.refused_nested(401, 401_002, "IotHubUnauthorizedAccess");
    assert!(device.is_idle().await);
}
