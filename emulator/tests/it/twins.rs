//! Twins from both sides.

use iotdm_tests::Hub;
use serde_json::{Value, json};

use crate::support::device::{DESIRED_PATCHES, Device, TWIN_RESPONSES};
use crate::support::service::{HttpResponse, Service};

const GET: &str = "$iothub/twin/GET/?$rid=g";

fn patch_topic(rid: &str) -> String {
    format!("$iothub/twin/PATCH/properties/reported/?$rid={rid}")
}

#[tokio::test]
async fn a_device_reads_and_reports() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    let mut device = Device::listening(&hub, "gw1", &[TWIN_RESPONSES]).await;
    device.publish(&patch_topic("1"), r#"{"a":{"b":1,"c":2},"list":[1,"x"]}"#).await;
    assert_eq!(device.message().await, ("$iothub/twin/res/204/?$rid=1&$version=2".into(), Value::Null));
    device.publish(&format!("{}&$version=2", patch_topic("2")), r#"{"a":{"b":null}}"#).await;
    assert_eq!(device.message().await.0, "$iothub/twin/res/204/?$rid=2&$version=3");

    device.publish(GET, " ").await;
    let (topic, twin) = device.message().await;
    assert_eq!(topic, "$iothub/twin/res/200/?$rid=g");
    let reported = json!({"a": {"c": 2}, "list": [1, "x"], "$version": 3});
    assert_eq!(twin, json!({"desired": {"$version": 1}, "reported": reported}));

    let twin = service.read("/twins/gw1").await;
    assert_eq!(twin["properties"]["reported"]["a"], json!({"c": 2}));
    assert_eq!(twin["version"], 4);
    let metadata = &twin["properties"]["reported"]["$metadata"]["a"]["c"];
    assert!(metadata["$lastUpdated"].as_str().unwrap().ends_with('Z'), "{metadata}");
    assert!(metadata.get("$lastUpdatedVersion").is_none());
}

#[tokio::test]
async fn a_bad_report_is_answered_with_json_and_changes_nothing() {
    let hub = Hub::start();
    let mut device = Device::listening(&hub, "gw1", &[TWIN_RESPONSES]).await;
    let big = |n: usize| format!(r#"{{"k{n}":"{}"}}"#, "x".repeat(4000));
    for n in 0..8 {
        device.publish(&patch_topic("fill"), &big(n)).await;
        assert_eq!(device.message().await.0, format!("$iothub/twin/res/204/?$rid=fill&$version={}", n + 2));
    }
    for (topic, payload, status, code) in [
        (patch_topic("e"), "{", 400, 400_004),
        (patch_topic("e"), "[1]", 400, 400_004),
        (patch_topic("e"), r#"{"$version":3}"#, 400, 400_004),
        (patch_topic("e"), r#"{"a.b":3}"#, 400, 400_004),
        (patch_topic("e"), r#"{"a":[null]}"#, 400, 400_004),
        (patch_topic("e"), &big(8), 400, 400_004),
        (format!("{}&$version=1", patch_topic("e")), "{}", 412, 412_001),
    ] {
        device.publish(&topic, payload).await;
        let (topic, body) = device.message().await;
        assert_eq!(topic, format!("$iothub/twin/res/{status}/?$rid=e"));
        assert_eq!(body["errorCode"], code, "{body}");
        assert!(
            body["message"].is_string() && body["trackingId"].is_string() && body["timestampUtc"].is_string()
        );
    }
    device.publish(GET, "").await;
    assert_eq!(device.message().await.1["reported"]["$version"], 9);
}

#[tokio::test]
async fn a_reply_that_nobody_subscribed_to_is_discarded() {
    let hub = Hub::start();
    let mut device = Device::connect(&hub, "gw1").await;
    device.publish(GET, "").await;
    assert!(device.is_idle().await);
    device.publish(&patch_topic("1"), r#"{"a":1}"#).await;
    assert!(device.is_idle().await);
    device.subscribe(TWIN_RESPONSES).await;
    device.publish(GET, "").await;
    assert_eq!(device.message().await.1["reported"], json!({"a": 1, "$version": 2}));
}

#[tokio::test]
async fn a_device_hears_of_desired_changes_in_order() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    let mut device = Device::listening(&hub, "gw1", &[DESIRED_PATCHES]).await;
    let change = json!({"properties": {"desired": {"a": {"b": 1}, "c": 2}}});
    assert_eq!(service.send("PATCH", "/twins/gw1", change).await.status, 200);
    let topic = |version| format!("$iothub/twin/PATCH/properties/desired/?$version={version}");
    assert_eq!(device.message().await, (topic(2), json!({"a": {"b": 1}, "c": 2, "$version": 2})));
    let change = json!({"properties": {"desired": {"a": {"b": null}}}});
    assert_eq!(service.send("PATCH", "/twins/gw1", change).await.status, 200);
    assert_eq!(device.message().await, (topic(3), json!({"a": {"b": null}, "$version": 3})));
    let whole = json!({"properties": {"desired": {"d": 4}}});
    assert_eq!(service.send("PUT", "/twins/gw1", whole).await.status, 200);
    assert_eq!(device.message().await, (topic(4), json!({"a": null, "c": null, "d": 4, "$version": 4})));
    assert_eq!(service.send("PATCH", "/twins/gw1", json!({"tags": {"x": 1}})).await.status, 200);
    assert!(device.is_idle().await, "tags are none of the device's business");

    // Many services at once: no version is skipped or out of order.
    let writers: Vec<_> = (0..20)
        .map(|n| {
            let service = service.clone();
            tokio::spawn(async move {
                let change = json!({"properties": {"desired": {"n": n}}});
                assert_eq!(service.send("PATCH", "/twins/gw1", change).await.status, 200);
            })
        })
        .collect();
    for version in 5..25 {
        assert_eq!(device.message().await.0, topic(version));
    }
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn null_for_a_section_empties_it() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    let mut device = Device::listening(&hub, "gw1", &[DESIRED_PATCHES]).await;
    for (method, version) in [("PATCH", 2), ("PUT", 4)] {
        let full = json!({"tags": {"a": 1}, "properties": {"desired": {"b": 2, "c": {"d": 3}}}});
        assert_eq!(service.send("PATCH", "/twins/gw1", full).await.status, 200);
        device.message().await;
        let none = json!({"tags": null, "properties": {"desired": null}});
        let twin = service.send(method, "/twins/gw1", none).await.body;
        assert_eq!(twin.get("tags"), None, "{method}");
        assert_eq!(twin["properties"]["desired"]["b"], Value::Null, "{method}");
        let told = json!({"b": null, "c": null, "$version": version + 1});
        assert_eq!(device.message().await.1, told, "{method}");
    }
}

#[tokio::test]
async fn etags_guard_a_twin() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    let first = service.get("/twins/gw1").await;
    let etag = first.body["etag"].as_str().unwrap().to_owned();
    assert_eq!((etag.as_str(), first.header("etag")), ("AAAAAAAAAAE=", None));
    let change = async |method: &str, if_match: &str| {
        let request = service.request(method, "/twins/gw1").header("If-Match", if_match);
        HttpResponse::to(request.json(&json!({"tags": {"a": 1}}))).await
    };
    let changed = change("PATCH", &format!("\"{etag}\"")).await;
    assert_eq!(changed.status, 200);
    assert_ne!(changed.body["etag"], etag.as_str());
    for method in ["PATCH", "PUT"] {
        change(method, &format!("\"{etag}\"")).await.refused(412, "PreconditionFailed");
        // An etag without quotes is none, and nothing is demanded by it.
        for any in ["*", "\"*\"", "\"\"", etag.as_str(), "abc"] {
            assert_eq!(change(method, any).await.status, 200);
        }
    }
    // A device's reports do not change it.
    let before = service.read("/twins/gw1").await["etag"].clone();
    let mut device = Device::listening(&hub, "gw1", &[TWIN_RESPONSES]).await;
    device.publish(&patch_topic("1"), r#"{"a":1}"#).await;
    assert_eq!(service.read("/twins/gw1").await["etag"], before);
}

#[tokio::test]
async fn what_a_service_sends_is_checked() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    for body in [
        json!([]),
        json!({"tags": 1}),
        json!({"tags": {"a.b": 1}}),
        json!({"tags": {"a": "x".repeat(4097)}}),
        json!({"properties": {"desired": {"$x": 1}}}),
        json!({"properties": {"desired": {"a": [null]}}}),
    ] {
        service.send("PATCH", "/twins/gw1", body.clone()).await.refused(400, "ArgumentInvalid");
        service.send("PUT", "/twins/gw1", body).await.refused(400, "ArgumentInvalid");
    }
    let not_json = service.request("PATCH", "/twins/gw1").body("{");
    HttpResponse::to(not_json).await.refused(400, "ArgumentInvalid");
    let huge = json!({"tags": {"a": "x".repeat(600_000)}});
    service.send("PATCH", "/twins/gw1", huge).await.refused(413, "MessageTooLarge");
    for method in ["GET", "PATCH", "PUT"] {
        let body = if method == "GET" { Value::Null } else { json!({}) };
        service.send(method, "/twins/nobody", body).await.refused(404, "DeviceNotFound");
    }
    assert_eq!(service.read("/twins/gw1").await["version"], 2);
}
