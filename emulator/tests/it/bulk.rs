//! Many identities in one request.

use iotdm_tests::Hub;
use serde_json::{Value, json};

use crate::support::service::Service;

async fn bulk(service: &Service, changes: Value, status: u16) -> Value {
    let answer = service.send("POST", "/devices", changes).await;
    assert_eq!(answer.status, status, "{answer:?}");
    answer.body
}

#[tokio::test]
async fn identities_and_twins_in_every_mode() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    let created = json!([
        {"id": "a", "importMode": "create", "status": "disabled", "tags": {"site": "x"},
         "properties": {"desired": {"n": 1}}},
        {"id": "b", "importMode": "Create"},
        {"id": "b", "moduleId": "m", "importMode": "create"},
        {"id": "c"},
    ]);
    let result = bulk(&service, created, 200).await;
    assert_eq!(result, json!({"isSuccessful": true, "errors": [], "warnings": []}));
    let a = service.read("/devices/a").await;
    assert_eq!(a["status"], "disabled");
    assert!(hub.file("devices/a").contains("DeviceId=a;"));
    let twin = service.read("/twins/a").await;
    assert_eq!((&twin["tags"], &twin["properties"]["desired"]["n"]), (&json!({"site": "x"}), &json!(1)));
    service.read("/devices/b/modules/m").await;

    let changed = json!([
        {"id": "a", "importMode": "updateIfMatchETag", "eTag": a["etag"], "status": "enabled"},
        {"id": "b", "importMode": "updateTwin", "tags": {"site": "y"}},
        {"id": "c", "importMode": "update", "statusReason": "spare"},
        {"id": "gw1", "importMode": "delete"},
    ]);
    bulk(&service, changed, 200).await;
    assert_eq!(service.read("/devices/a").await["status"], "enabled");
    assert_eq!(service.read("/twins/b").await["tags"]["site"], "y");
    assert_eq!(service.read("/devices/c").await["statusReason"], "spare");
    service.get("/devices/gw1").await.refused(404, "DeviceNotFound");
}

#[tokio::test]
async fn one_that_fails_does_not_hold_up_the_others() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    bulk(&service, json!([{"id": "gw2"}, {"id": "gw3"}]), 200).await;
    let changes = json!([
        {"id": "gw1", "importMode": "create"},
        {"id": "new", "importMode": "create"},
        {"id": "new", "importMode": "delete"},
        {"id": "nobody", "importMode": "update"},
        {"id": "gw2", "importMode": "deleteIfMatchETag", "eTag": "other"},
        {"id": "gw3", "importMode": "explode"},
        {"importMode": "create"},
    ]);
    let result = bulk(&service, changes, 400).await;
    assert_eq!(result["isSuccessful"], false);
    let errors: Vec<_> = result["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| (error["deviceId"].as_str(), error["errorCode"].as_u64().unwrap()))
        .collect();
    let expected = [
        (Some("gw1"), 409_001),
        (Some("new"), 400_011),
        (Some("nobody"), 404_001),
        (Some("gw2"), 412_001),
        (Some("gw3"), 400_004),
        (None, 400_004),
    ];
    assert_eq!(errors, expected);
    service.read("/devices/new").await;
    service.read("/devices/gw1").await;
}

#[tokio::test]
async fn a_mode_that_is_about_an_etag_is_unconditional_without_one() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    bulk(&service, json!([{"id": "a"}, {"id": "b"}, {"id": "c"}, {"id": "d"}]), 200).await;
    let changes = json!([
        {"id": "a", "importMode": "updateIfMatchETag", "status": "disabled"},
        {"id": "b", "importMode": "deleteIfMatchETag"},
        {"id": "c", "importMode": "updateTwinIfMatchETag", "tags": {"site": "x"}},
        {"Id": "d", "ImportMode": "createOrUpdateIfMatchETag", "Status": "disabled"},
    ]);
    bulk(&service, changes, 200).await;
    assert_eq!(service.read("/devices/a").await["status"], "disabled");
    service.get("/devices/b").await.refused(404, "DeviceNotFound");
    assert_eq!(service.read("/twins/c").await["tags"], json!({"site": "x"}));
    assert_eq!(service.read("/devices/d").await["status"], "disabled");
}

#[tokio::test]
async fn more_than_100_and_no_array_are_refused() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    let many = |count| (0..count).map(|n| json!({"id": format!("d{n}")})).collect::<Vec<_>>();
    service.send("POST", "/devices", json!(many(101))).await.refused(413, "TooManyDevices");
    service.send("POST", "/devices", json!({})).await.refused(400, "ArgumentInvalid");
    let reader = Service::with_policy(&hub, "registryRead");
    reader.send("POST", "/devices", json!([])).await.refused(401, "IotHubUnauthorizedAccess");
    bulk(&service, json!(many(100)), 200).await;
    assert_eq!(service.read("/statistics/devices").await["totalDeviceCount"], 101);
}
