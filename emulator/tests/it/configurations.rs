//! Configurations are kept as they are.

use iotdm_tests::Hub;
use serde_json::{Value, json};

use crate::support::service::{HttpResponse, Service};

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
    service.send("PUT", "/configurations/c1", body.clone()).await.refused(409, "ConfigurationAlreadyExists");
    hub.kill();
    let hub = Hub::start_in(dir.path(), &[]);
    let service = Service::owner(&hub);
    assert_eq!(service.read("/configurations/c1").await, created.body);
    assert_eq!(service.read("/configurations").await, json!([created.body]));
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
