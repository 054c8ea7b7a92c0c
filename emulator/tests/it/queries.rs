//! Queries over REST: rows, pages, refusals. What the language means is
//! tested beside its code.

use iotdm_tests::Hub;
use serde_json::{Value, json};

use crate::support::service::{HttpResponse, Service};

async fn query(service: &Service, text: &str, headers: &[(&str, &str)]) -> HttpResponse {
    let mut request = service.request("POST", "/devices/query").json(&json!({ "query": text }));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    HttpResponse::to(request).await
}

async fn with_devices(count: usize) -> (Hub, Service) {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    for n in 0..count {
        service.send("PUT", &format!("/devices/d{n:03}"), json!({})).await;
        service.send("PATCH", &format!("/twins/d{n:03}"), json!({"tags": {"n": n, "odd": n % 2 == 1}})).await;
    }
    (hub, service)
}

#[tokio::test]
async fn rows_and_their_type() {
    let (_emulator, service) = with_devices(4).await;
    let all = query(&service, "select * from devices", &[]).await;
    assert_eq!((all.body.as_array().unwrap().len(), all.header("x-ms-item-type")), (5, Some("Twin")));
    assert_eq!(all.body[0], service.read("/twins/d000").await);
    assert_eq!(all.header("x-ms-continuation"), None);

    let text = "SELECT deviceId, tags.n AS number FROM devices WHERE tags.odd = true OR NOT is_defined(tags)";
    let some = query(&service, text, &[]).await;
    let rows =
        json!([{"deviceId": "d001", "number": 1}, {"deviceId": "d003", "number": 3}, {"deviceId": "gw1"}]);
    assert_eq!((&some.body, some.header("x-ms-item-type")), (&rows, Some("Raw")));
}

#[tokio::test]
async fn pages_miss_nothing_while_devices_come_and_go() {
    let (_emulator, service) = with_devices(7).await;
    let text = "SELECT deviceId FROM devices WHERE tags.n >= 0";
    let size = ("x-ms-max-item-count", "3");
    let mut ids: Vec<Value> = Vec::new();
    let mut page = query(&service, text, &[size]).await;
    loop {
        let rows = page.body.as_array().unwrap();
        assert!(rows.len() <= 3);
        ids.extend(rows.iter().map(|row| row["deviceId"].clone()));
        if ids.len() == 3 {
            assert_eq!(service.send("DELETE", "/devices/d002", Value::Null).await.status, 204);
            assert_eq!(service.send("DELETE", "/devices/d000", Value::Null).await.status, 204);
        }
        let Some(token) = page.header("x-ms-continuation").map(str::to_owned) else { break };
        page = query(&service, text, &[size, ("x-ms-continuation", &token)]).await;
    }
    assert_eq!(json!(ids), json!(["d000", "d001", "d002", "d003", "d004", "d005", "d006"]));
}

#[tokio::test]
async fn top_counts_over_all_pages() {
    let (_emulator, service) = with_devices(6).await;
    let text = "SELECT TOP 4 deviceId FROM devices";
    let size = ("x-ms-max-item-count", "3");
    let first = query(&service, text, &[size]).await;
    assert_eq!(first.body.as_array().unwrap().len(), 3);
    let token = first.header("x-ms-continuation").unwrap().to_owned();
    let second = query(&service, text, &[size, ("x-ms-continuation", &token)]).await;
    assert_eq!(second.body, json!([{"deviceId": "d003"}]));
    assert_eq!(second.header("x-ms-continuation"), None);
    let exact = query(&service, "SELECT TOP 3 deviceId FROM devices", &[size]).await;
    assert_eq!(exact.header("x-ms-continuation"), None);
}

#[tokio::test]
async fn groups_come_in_pages_too() {
    let (_emulator, service) = with_devices(6).await;
    let text = "SELECT tags.odd AS odd, COUNT() AS count, MAX(tags.n) AS max FROM devices GROUP BY tags.odd";
    let size = ("x-ms-max-item-count", "2");
    let first = query(&service, text, &[size]).await;
    // gw1 has no tags.
    assert_eq!(first.body, json!([{"count": 1}, {"odd": false, "count": 3, "max": 4}]));
    assert_eq!(first.header("x-ms-item-type"), Some("Raw"));
    let token = first.header("x-ms-continuation").unwrap().to_owned();
    let second = query(&service, text, &[size, ("x-ms-continuation", &token)]).await;
    assert_eq!(second.body, json!([{"odd": true, "count": 3, "max": 5}]));
    assert_eq!(second.header("x-ms-continuation"), None);
    let all = query(&service, "SELECT COUNT() AS n, AVG(tags.n) AS avg FROM devices", &[]).await;
    assert_eq!(all.body, json!([{"n": 7, "avg": 2.5}]));
}

#[tokio::test]
async fn a_page_has_at_most_100_rows() {
    let (_emulator, service) = with_devices(101).await;
    for headers in [&[][..], &[("x-ms-max-item-count", "1000")]] {
        let page = query(&service, "SELECT deviceId FROM devices", headers).await;
        assert_eq!(page.body.as_array().unwrap().len(), 100);
        assert!(page.header("x-ms-continuation").is_some());
    }
}

#[tokio::test]
async fn what_is_not_understood_is_refused() {
    let (_emulator, service) = with_devices(0).await;
    let text = "SELECT * FROM devices";
    for (text, headers) in [
        ("SELECT", &[][..]),
        ("SELECT MEDIAN(tags.n) FROM devices", &[]),
        ("SELECT jobId FROM devices.jobs", &[]),
        (text, &[("x-ms-max-item-count", "0")]),
        (text, &[("x-ms-max-item-count", "many")]),
        (text, &[("x-ms-continuation", "other")]),
    ] {
        query(&service, text, headers).await.refused(400, "ArgumentInvalid");
    }
    let refused = service.send("POST", "/devices/query", json!({"sql": text})).await;
    refused.refused(400, "ArgumentNull");
    assert_eq!(refused.body["Message"], "ErrorCode:ArgumentNull;BadRequest");
    let refused = query(&service, "SELECT", &[]).await;
    assert_eq!(refused.body["Message"], "ErrorCode:ArgumentInvalid;BadRequest");
    assert!(
        refused.header("x-emulator-reason").unwrap().contains("ends where a name belongs"),
        "{refused:?}"
    );
    let long = format!("SELECT * FROM devices WHERE deviceId = '{}'", "x".repeat(8192));
    query(&service, &long, &[]).await.refused(412, "PreconditionFailed");
}

#[tokio::test]
async fn names_of_the_service_are_read_in_any_case() {
    let (_emulator, service) = with_devices(1).await;
    let text = "SELECT DeviceId FROM Devices WHERE DeviceId = 'd000' AND Tags.n = 0 AND Status = 'enabled'";
    let found = service.send("POST", "/devices/query", json!({ "Query": text })).await;
    assert_eq!(found.body, json!([{"DeviceId": "d000"}]));
}
