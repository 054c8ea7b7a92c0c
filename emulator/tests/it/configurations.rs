//! Configurations are kept, and applied to what they target.

use iotdm_tests::Hub;
use serde_json::{Value, json};

use crate::support::device::{DESIRED_PATCHES, Device};
use crate::support::service::{HttpResponse, Service};

/// A wish for a reboot, as a configuration leaves it.
fn wish(id: &str) -> Value {
    json!({"deviceContent": {"properties.desired.reboot": {"id": id, "reason": "kernel update"}}})
}

/// Creates or replaces a configuration.
async fn configure(service: &Service, id: &str, body: Value) {
    let exists = service.get(&format!("/configurations/{id}")).await.status == 200;
    let mut request = service.request("PUT", &format!("/configurations/{id}"));
    if exists {
        request = request.header("If-Match", "*");
    }
    let answer = HttpResponse::to(request.json(&body)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

async fn tag(service: &Service, id: &str, tags: Value) {
    let patched = service.send("PATCH", &format!("/twins/{id}"), json!({ "tags": tags })).await;
    assert_eq!(patched.status, 200, "{patched:?}");
}

/// Waits until the twin at `path` is as `expected` finds it; the hub applies
/// configurations beside what changes them, and tells services nothing.
async fn twin_when(service: &Service, path: &str, expected: impl Fn(&Value) -> bool) -> Value {
    let deadline = std::time::Instant::now() + crate::support::DEADLINE;
    loop {
        let twin = service.read(path).await;
        if expected(&twin) {
            return twin;
        }
        assert!(std::time::Instant::now() < deadline, "{twin}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

fn reboot(twin: &Value) -> &Value {
    &twin["properties"]["desired"]["reboot"]
}

#[tokio::test]
async fn a_wish_reaches_devices_that_are_there_and_that_come_afterwards() {
    let hub = Hub::start_with(&["--device", "gw1", "--device", "gw2"]);
    let service = Service::owner(&hub);
    tag(&service, "gw1", json!({"site": "x"})).await;
    let mut gw1 = Device::listening(&hub, "gw1", &[DESIRED_PATCHES]).await;
    let metrics = json!({"queries": {
        "done": "SELECT deviceId FROM devices WHERE properties.reported.reboot.id = 'r-1'",
        "sites": "SELECT COUNT() AS n, tags.site FROM devices GROUP BY tags.site",
        "nonsense": "SELECT",
    }});
    let body = json!({
        "id": "wave", "priority": 5, "targetCondition": "tags.site = 'x'", "content": wish("r-1"),
        "metrics": metrics,
    });
    configure(&service, "wave", body.clone()).await;
    // A device that is connected hears of it at once.
    let (topic, patch) = gw1.message().await;
    assert_eq!(topic, "$iothub/twin/PATCH/properties/desired/?$version=2");
    assert_eq!(patch["reboot"], json!({"id": "r-1", "reason": "kernel update"}));
    let twin = service.read("/twins/gw1").await;
    assert_eq!(twin["configurations"], json!({"wave": {"status": "Applied"}}));
    let metadata = &twin["properties"]["desired"]["$metadata"]["reboot"]["id"];
    assert_eq!((&metadata["$lastUpdatedBy"], &metadata["$lastUpdatedVersion"]), (&json!("wave"), &json!(2)));
    assert!(metadata["$lastUpdatedByDigest"].as_str().unwrap().parse::<u64>().unwrap() > 0);
    assert!(service.read("/twins/gw2").await.get("configurations").is_none());

    // One that comes to the site later, and one that is created there, find it.
    tag(&service, "gw2", json!({"site": "x"})).await;
    let created = json!({"id": "gw3", "importMode": "create", "tags": {"site": "x"}});
    assert_eq!(service.send("POST", "/devices", json!([created])).await.status, 200);
    for id in ["gw2", "gw3"] {
        let twin = twin_when(&service, &format!("/twins/{id}"), |twin| reboot(twin)["id"] == "r-1").await;
        assert_eq!(twin["configurations"], json!({"wave": {"status": "Applied"}}), "{id}");
    }
    let mut gw2 = Device::listening(&hub, "gw2", &["$iothub/twin/res/#"]).await;
    gw2.publish("$iothub/twin/GET/?$rid=1", "").await;
    assert_eq!(gw2.message().await.1["desired"]["reboot"]["id"], "r-1");
    let done = json!({"reboot": {"id": "r-1", "status": "completed"}}).to_string();
    gw2.publish("$iothub/twin/PATCH/properties/reported/?$rid=2", &done).await;

    // Its metrics count them.
    let shown = service.read("/configurations/wave").await;
    assert_eq!(shown["systemMetrics"]["results"], json!({"targetedCount": 3, "appliedCount": 3}));
    assert_eq!(shown["metrics"]["results"], json!({"done": 1, "sites": 1}));
    assert_eq!(shown["metrics"]["queries"], metrics["queries"]);
    let query =
        json!({"query": "SELECT deviceId FROM devices WHERE configurations.[[wave]].status = 'Applied'"});
    let applied = service.send("POST", "/devices/query", query).await;
    assert_eq!(applied.body, json!([{"deviceId": "gw1"}, {"deviceId": "gw2"}, {"deviceId": "gw3"}]));

    // One that leaves the site loses the wish, and hears of that.
    tag(&service, "gw1", json!({"site": "y"})).await;
    let (_, patch) = gw1.message().await;
    assert_eq!(patch, json!({"reboot": null, "$version": 3}));
    let twin = service.read("/twins/gw1").await;
    assert!(twin.get("configurations").is_none() && reboot(&twin).is_null(), "{twin}");

    // So do all when the configuration goes.
    assert_eq!(service.send("DELETE", "/configurations/wave", Value::Null).await.status, 204);
    for id in ["gw2", "gw3"] {
        let twin = twin_when(&service, &format!("/twins/{id}"), |twin| reboot(twin).is_null()).await;
        assert!(twin.get("configurations").is_none(), "{twin}");
    }
}

#[tokio::test]
async fn conditions_may_be_about_connections_and_reports() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    let body = |condition: &str| json!({"targetCondition": condition, "content": wish("r-1")});
    configure(&service, "online", body("connectionState = 'Connected'")).await;
    let device = Device::connect(&hub, "gw1").await;
    twin_when(&service, "/twins/gw1", |twin| reboot(twin)["id"] == "r-1").await;
    drop(device);
    twin_when(&service, "/twins/gw1", |twin| reboot(twin).is_null()).await;
    configure(&service, "online", body("properties.reported.old = true")).await;
    let mut device = Device::connect(&hub, "gw1").await;
    device.publish("$iothub/twin/PATCH/properties/reported/?$rid=1", r#"{"old":true}"#).await;
    twin_when(&service, "/twins/gw1", |twin| reboot(twin)["id"] == "r-1").await;
}

#[tokio::test]
async fn the_highest_priority_wins_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::start_in(dir.path(), &["--device", "gw1"]);
    let service = Service::owner(&hub);
    let body =
        |priority: i64, id: &str| json!({"priority": priority, "targetCondition": "*", "content": wish(id)});
    configure(&service, "low", body(1, "r-low")).await;
    twin_when(&service, "/twins/gw1", |twin| reboot(twin)["id"] == "r-low").await;
    configure(&service, "high", body(2, "r-high")).await;
    let twin = twin_when(&service, "/twins/gw1", |twin| reboot(twin)["id"] == "r-high").await;
    assert_eq!(twin["configurations"], json!({"high": {"status": "Applied"}, "low": {"status": "Targeted"}}));
    let low = service.read("/configurations/low").await;
    assert_eq!(low["systemMetrics"]["results"], json!({"targetedCount": 1, "appliedCount": 0}));

    hub.kill();
    let hub = Hub::start_in(dir.path(), &[]);
    let service = Service::owner(&hub);
    let twin = service.read("/twins/gw1").await;
    assert_eq!((reboot(&twin)["id"].as_str(), twin["version"].as_u64().unwrap() > 2), (Some("r-high"), true));
    assert_eq!(service.send("DELETE", "/configurations/high", Value::Null).await.status, 204);
    let twin = twin_when(&service, "/twins/gw1", |twin| reboot(twin)["id"] == "r-low").await;
    assert_eq!(twin["configurations"], json!({"low": {"status": "Applied"}}));
    // Nothing that is settled is written again.
    let version = twin["version"].clone();
    tag(&service, "gw1", json!({"a": 1})).await;
    let device = Device::connect(&hub, "gw1").await;
    drop(device);
    let twin = twin_when(&service, "/twins/gw1", |twin| twin["connectionState"] == "Disconnected").await;
    assert_eq!(twin["version"].as_u64(), version.as_u64().map(|version| version + 1));
}

#[tokio::test]
async fn modules_are_targeted_by_themselves_or_with_their_device() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    for module in ["iotdm", "other"] {
        assert_eq!(
            service.send("PUT", &format!("/devices/gw1/modules/{module}"), json!({})).await.status,
            200
        );
    }
    let content = json!({"moduleContent": {"properties.desired.reboot": {"id": "r-1"}}});
    let condition = "FROM devices.modules WHERE moduleId = 'iotdm'";
    configure(&service, "by-module", json!({"targetCondition": condition, "content": content})).await;
    let twin = twin_when(&service, "/twins/gw1/modules/iotdm", |twin| reboot(twin)["id"] == "r-1").await;
    assert_eq!(twin["configurations"], json!({"by-module": {"status": "Applied"}}));
    let shown = service.read("/configurations/by-module").await;
    assert_eq!(shown["systemMetrics"]["results"], json!({"targetedCount": 1, "appliedCount": 1}));

    let content = json!({"modulesContent": {"other": {"properties.desired.reboot": {"id": "r-2"}}}});
    configure(&service, "edge", json!({"targetCondition": "tags.site = 'x'", "content": content})).await;
    tag(&service, "gw1", json!({"site": "x"})).await;
    twin_when(&service, "/twins/gw1/modules/other", |twin| reboot(twin)["id"] == "r-2").await;
    assert!(reboot(&service.read("/twins/gw1").await).is_null());
    tag(&service, "gw1", json!({"site": null})).await;
    twin_when(&service, "/twins/gw1/modules/other", |twin| reboot(twin).is_null()).await;
    let tested =
        service.send("POST", "/configurations/testQueries", json!({"targetCondition": condition})).await;
    assert_eq!(tested.body["targetConditionError"], Value::Null, "{tested:?}");
}

#[tokio::test]
async fn from_creation_to_deletion() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::start_in(dir.path(), &[]);
    let service = Service::owner(&hub);
    let body = json!({
        "id": "c1", "schemaVersion": "1.0", "priority": 5, "targetCondition": "tags.site = 'x'",
        "content": {"deviceContent": {"properties.desired.interval": 5}}, "labels": {"by": "me"},
    });
    let created = service.send("PUT", "/configurations/c1", body.clone()).await;
    assert_eq!(created.status, 200, "{created:?}");
    assert_eq!(created.header("etag"), Some("\"MQ==\""));
    assert_eq!(created.body["etag"], "MQ==");
    let queries = json!({
        "targetedCount": "select deviceId from devices where tags.site = 'x'",
        "appliedCount": "select deviceId from devices where configurations.[[c1]].status = 'Applied'",
    });
    assert_eq!(created.body["systemMetrics"], json!({"results": {}, "queries": queries}));
    assert_eq!(created.body["metrics"], json!({"results": {}, "queries": {}}));
    for (key, value) in body.as_object().unwrap() {
        assert_eq!(&created.body[key], value);
    }
    let without_results = |mut configuration: Value| {
        let fields = configuration.as_object_mut().unwrap();
        fields.remove("systemMetrics");
        fields.remove("metrics");
        configuration
    };
    service.send("PUT", "/configurations/c1", body.clone()).await.refused(409, "ConfigurationAlreadyExists");
    hub.kill();
    let hub = Hub::start_in(dir.path(), &[]);
    let service = Service::owner(&hub);
    let read = service.read("/configurations/c1").await;
    assert_eq!(read["systemMetrics"]["results"], json!({"targetedCount": 0, "appliedCount": 0}));
    assert_eq!(service.read("/configurations").await, json!([read]));
    assert_eq!(without_results(read), without_results(created.body.clone()));
    let change = async |etag: &str| {
        let request = service.request("PUT", "/configurations/c1").header("If-Match", etag);
        HttpResponse::to(request.json(&json!({"priority": 6}))).await
    };
    change("\"other\"").await.refused(412, "PreconditionFailed");
    change("other").await.refused(412, "PreconditionFailed");
    let changed = change("\"MQ==\"").await;
    assert_eq!(changed.body["etag"], "Mg==");
    // As the official Python client writes it.
    let changed = change("Mg==").await;
    assert_eq!(changed.body["etag"], "Mw==");
    assert_eq!(
        (&changed.body["priority"], &changed.body["createdTimeUtc"]),
        (&json!(6), &created.body["createdTimeUtc"])
    );
    let unconditional = service.request("DELETE", "/configurations/c1");
    HttpResponse::to(unconditional).await.refused(412, "PreconditionFailed");
    assert_eq!(service.send("DELETE", "/configurations/c1", Value::Null).await.status, 204);
    service.get("/configurations/c1").await.refused(404, "ConfigurationNotFound");
    service.send("DELETE", "/configurations/c1", Value::Null).await.refused(404, "ConfigurationNotFound");
    service.send("PUT", "/configurations/c2", json!([])).await.refused(400, "ArgumentInvalid");
    let nothing = service.request("PUT", "/configurations/c2").header("If-Match", "*").json(&json!({}));
    HttpResponse::to(nothing).await.refused(404, "ConfigurationNotFound");
    let empty = service.request("PUT", "/configurations/c2").header("If-Match", "\"\"");
    let bare = HttpResponse::to(empty.json(&json!({"Priority": 7}))).await.body;
    let names: Vec<_> = bare.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "id",
        "schemaVersion",
        "labels",
        "content",
        "targetCondition",
        "createdTimeUtc",
        "lastUpdatedTimeUtc",
        "priority",
        "systemMetrics",
        "metrics",
        "etag",
    ];
    assert_eq!(names, expected);
    assert_eq!((&bare["priority"], &bare["schemaVersion"]), (&json!(7), &Value::Null));
}

#[tokio::test]
async fn queries_are_tested() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    let body = json!({
        "targetCondition": "tags.site =",
        "customMetricQueries": {"good": "SELECT deviceId FROM devices", "bad": "SELECT"},
    });
    let tested = service.send("POST", "/configurations/testQueries", body).await;
    assert!(tested.body["targetConditionError"].is_string(), "{tested:?}");
    let errors = tested.body["customMetricQueryErrors"].as_object().unwrap();
    assert_eq!(errors.keys().collect::<Vec<_>>(), ["bad"]);
}
