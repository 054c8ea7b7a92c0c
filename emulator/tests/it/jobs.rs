//! Jobs over REST: from creation to every device's outcome.

use std::time::Duration;

use iotdm_tests::Hub;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::support::DEADLINE;
use crate::support::device::{DESIRED_PATCHES, Device, METHOD_CALLS};
use crate::support::service::{HttpResponse, Service};

fn method_job(condition: &str) -> Value {
    json!({
        "type": "scheduleDeviceMethod",
        "queryCondition": condition,
        "cloudToDeviceMethod": {"methodName": "rebootDevice", "payload": {"id": "r1"}},
        "maxExecutionTimeInSeconds": 60,
    })
}

async fn create(service: &Service, id: &str, body: Value) -> Value {
    let answer = service.send("PUT", &format!("/jobs/v2/{id}"), body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

async fn wait_for(service: &Service, id: &str, status: &str) -> Value {
    wait_until(service, id, |job| job["status"] == status).await
}

/// Polls, as clients have to.
async fn wait_until(service: &Service, id: &str, there: impl Fn(&Value) -> bool) -> Value {
    let poll = async {
        loop {
            let job = service.read(&format!("/jobs/v2/{id}")).await;
            if there(&job) {
                return job;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, poll).await.expect("the job does not get there")
}

async fn query(service: &Service, text: &str) -> Value {
    let answer = service.send("POST", "/devices/query", json!({ "query": text })).await;
    assert_eq!((answer.status, answer.header("x-ms-item-type")), (200, Some("DeviceJob")), "{answer:?}");
    answer.body
}

async fn with_tagged_devices(hub: &Hub) -> Service {
    let service = Service::owner(hub);
    for id in ["a", "b", "c"] {
        service.send("PUT", &format!("/devices/{id}"), json!({})).await;
        let tags = json!({"tags": {"site": if id == "c" { "y" } else { "x" }}});
        assert_eq!(service.send("PATCH", &format!("/twins/{id}"), tags).await.status, 200);
    }
    service
}

#[tokio::test]
async fn a_method_for_all_that_a_condition_selects() {
    let hub = Hub::start();
    let service = with_tagged_devices(&hub).await;
    let mut a = Device::listening(&hub, "a", &[METHOD_CALLS]).await;
    let mut c = Device::listening(&hub, "c", &[METHOD_CALLS]).await;
    let created = create(&service, "job1", method_job("tags.site = 'x'")).await;
    assert_eq!((&created["jobId"], &created["type"]), (&json!("job1"), &json!("scheduleDeviceMethod")));
    assert_eq!(created["status"], "queued");
    let (name, rid, payload) = a.method().await;
    assert_eq!((name.as_str(), payload), ("rebootDevice", json!({"id": "r1"})));
    assert_eq!(service.read("/jobs/v2/job1").await["status"], "running");
    a.publish(&format!("$iothub/methods/res/200/?$rid={rid}"), r#"{"status":"accepted"}"#).await;

    let job = wait_for(&service, "job1", "completed").await;
    let counts = json!({
        "deviceCount": 2, "succeededCount": 1, "failedCount": 1, "runningCount": 0, "pendingCount": 0,
    });
    assert_eq!(job["deviceJobStatistics"], counts);
    assert!(job["endTime"].is_string() && job["createdTime"].is_string());
    assert_eq!(job["cloudToDeviceMethod"]["methodName"], "rebootDevice");
    assert!(c.is_idle().await, "not selected");

    let rows = query(&service, "SELECT * FROM devices.jobs WHERE devices.jobs.jobId = 'job1'").await;
    assert_eq!(rows[0]["deviceId"], "a");
    assert_eq!(rows[0]["status"], "completed");
    let response = json!({"status": 200, "payload": {"status": "accepted"}});
    assert_eq!(rows[0]["outcome"]["deviceMethodResponse"], response);
    assert_eq!((&rows[1]["deviceId"], &rows[1]["status"]), (&json!("b"), &json!("failed")));
    assert_eq!(rows[1]["error"]["code"], "404103-DeviceNotOnline");
    let failed = "SELECT * FROM devices.jobs WHERE devices.jobs.status = 'failed'";
    assert_eq!(query(&service, failed).await, json!([rows[1]]));
}

#[tokio::test]
async fn a_twin_change_for_all_devices_without_a_start_time() {
    let hub = Hub::start();
    let service = with_tagged_devices(&hub).await;
    let mut device = Device::listening(&hub, "gw1", &[DESIRED_PATCHES]).await;
    let body = json!({
        "jobId": "twins", "type": "scheduleUpdateTwin", "queryCondition": "*",
        "updateTwin": {"etag": "*", "tags": {"seen": true}, "properties": {"desired": {"interval": 5}}},
    });
    create(&service, "twins", body).await;
    let job = wait_for(&service, "twins", "completed").await;
    assert_eq!(job["deviceJobStatistics"]["succeededCount"], 4);
    assert_eq!(device.message().await.1, json!({"interval": 5, "$version": 2}));
    let twin = service.read("/twins/c").await;
    assert_eq!(twin["tags"], json!({"site": "y", "seen": true}));
    assert_eq!(twin["properties"]["desired"]["interval"], 5);
}

#[tokio::test]
async fn a_job_for_later_is_cancelled_and_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::start_in(dir.path(), &["--device", "gw1"]);
    let service = Service::owner(&hub);
    let mut later = method_job("*");
    later["startTime"] = json!("2099-01-01T00:00:00Z");
    create(&service, "later", later.clone()).await;
    wait_for(&service, "later", "scheduled").await;
    create(&service, "never", later).await;
    let mut device = Device::listening(&hub, "gw1", &[METHOD_CALLS]).await;
    create(&service, "now", method_job("*")).await;
    device.method().await;
    hub.kill();

    let hub = Hub::start_in(dir.path(), &[]);
    let service = Service::owner(&hub);
    let job = wait_for(&service, "now", "completed").await;
    assert_eq!(job["deviceJobStatistics"]["failedCount"], 1, "nobody knows whether the device got the call");
    assert_eq!(service.read("/jobs/v2/later").await["status"], "scheduled");
    let cancelled = service.send("POST", "/jobs/v2/never/cancel", Value::Null).await;
    assert_eq!((cancelled.status, &cancelled.body["status"]), (200, &json!("cancelled")));
    let again = service.send("POST", "/jobs/v2/never/cancel", Value::Null).await;
    again.refused(405, "OperationNotAllowedInCurrentState");
    let mut device = Device::listening(&hub, "gw1", &[METHOD_CALLS]).await;
    assert!(device.is_idle().await, "the call is not repeated");
}

#[tokio::test]
async fn a_cancelled_job_begins_with_no_further_device() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    // More devices than are dealt with at once; only the first of them answers.
    for n in 0..105 {
        service.send("PUT", &format!("/devices/d{n:03}"), json!({})).await;
    }
    let mut job = method_job("deviceId != 'gw1'");
    job["cloudToDeviceMethod"]["connectTimeoutInSeconds"] = json!(300);
    create(&service, "big", job).await;
    let mut first = Device::listening(&hub, "d000", &[METHOD_CALLS]).await;
    let (_, rid, _) = first.method().await;
    wait_until(&service, "big", |job| job["deviceJobStatistics"]["runningCount"] == 100).await;
    let cancelled = service.send("POST", "/jobs/v2/big/cancel", Value::Null).await;
    let counts = &cancelled.body["deviceJobStatistics"];
    assert_eq!((&counts["runningCount"], &counts["pendingCount"]), (&json!(100), &json!(0)));
    first.publish(&format!("$iothub/methods/res/200/?$rid={rid}"), "{}").await;
    let canceled = query(&service, "SELECT * FROM devices.jobs WHERE devices.jobs.status = 'canceled'").await;
    assert_eq!(canceled.as_array().unwrap().len(), 5);
    let mut last = Device::listening(&hub, "d104", &[METHOD_CALLS]).await;
    assert!(last.is_idle().await);
    assert_eq!(service.read("/jobs/v2/big").await["status"], "cancelled");
}

#[tokio::test]
async fn a_job_ends_when_its_time_is_over() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    let mut job = method_job("*");
    job["cloudToDeviceMethod"]["connectTimeoutInSeconds"] = json!(300);
    job["maxExecutionTimeInSeconds"] = json!(1);
    create(&service, "short", job).await;
    let job = wait_for(&service, "short", "completed").await;
    assert_eq!(job["deviceJobStatistics"]["failedCount"], 1);
    let row = &query(&service, "SELECT * FROM devices.jobs").await[0];
    assert!(row["error"]["description"].as_str().unwrap().contains("maxExecutionTime"), "{row}");
}

#[tokio::test]
async fn jobs_are_listed_by_type_and_status_in_pages() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    for n in 0..5 {
        create(&service, &format!("m{n}"), method_job("deviceId = 'none'")).await;
        wait_for(&service, &format!("m{n}"), "completed").await;
    }
    let twin = json!({"type": "scheduleUpdateTwin", "queryCondition": "*", "updateTwin": {"tags": {"a": 1}}});
    create(&service, "t", twin).await;
    wait_for(&service, "t", "completed").await;
    let list = async |filter: &[(&str, &str)], headers: &[(&str, &str)]| {
        let mut request = service.request("GET", "/jobs/v2/query").query(filter);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = HttpResponse::to(request).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let ids: Vec<_> = answer
            .body
            .as_array()
            .unwrap()
            .iter()
            .map(|job| job["jobId"].as_str().unwrap().to_owned())
            .collect();
        (ids, answer.header("x-ms-continuation").map(str::to_owned))
    };
    let all = list(&[], &[]).await.0;
    assert_eq!(all, ["m0", "m1", "m2", "m3", "m4", "t"]);
    let twins = [("jobType", "scheduleUpdateTwin"), ("jobStatus", "completed")];
    assert_eq!(list(&twins, &[]).await.0, ["t"]);
    assert!(list(&[("jobStatus", "running")], &[]).await.0.is_empty());
    let size = ("x-ms-max-item-count", "4");
    let (first, token) = list(&[("jobType", "scheduleDeviceMethod")], &[size]).await;
    let token = token.unwrap();
    let (second, end) =
        list(&[("jobType", "scheduleDeviceMethod")], &[size, ("x-ms-continuation", &token)]).await;
    assert_eq!(([first, second].concat().len(), end), (5, None));
}

#[tokio::test]
async fn a_condition_that_is_not_understood_fails_its_job() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    create(&service, "j", method_job("deviceId ===")).await;
    let job = wait_for(&service, "j", "failed").await;
    assert!(job["failureReason"].as_str().unwrap().starts_with("SQL query parse failed"), "{job}");
    assert!(job["endTime"].is_string(), "{job}");
    let cancelled = service.send("POST", "/jobs/v2/j/cancel", Value::Null).await;
    cancelled.refused(405, "OperationNotAllowedInCurrentState");
}

#[tokio::test]
async fn bad_unknown_and_repeated_jobs_are_refused() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    create(&service, "j", method_job("*")).await;
    service.send("PUT", "/jobs/v2/j", method_job("*")).await.refused(409, "JobAlreadyExists");
    let bad = json!({"type": "scheduleDeviceMethod", "queryCondition": "*"});
    service.send("PUT", "/jobs/v2/k", bad).await.refused(400, "ArgumentInvalid");
    let unknown = json!({"jobId": "k", "type": "unknown", "status": "unknown"});
    assert_eq!(service.read("/jobs/v2/k").await, unknown);
    service.send("POST", "/jobs/v2/k/cancel", Value::Null).await.refused(404, "JobNotFound");
    // The older kind of jobs, which official tools look for as well.
    assert_eq!(service.read("/jobs").await, json!([]));
    service.get("/jobs/k").await.refused(404, "JobNotFound");
    let device = Service::with_policy(&hub, "device");
    device.get("/jobs/v2/j").await.refused(401, "IotHubUnauthorizedAccess");
}
