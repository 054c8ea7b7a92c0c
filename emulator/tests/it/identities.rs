//! Identities over REST, and who may touch them.

use iotdm_proto::{ServiceConnectionString, sas};
use iotdm_tests::Hub;
use serde_json::{Value, json};

use crate::support::device::Device;
use crate::support::now;
use crate::support::service::{HttpResponse, Service};

#[tokio::test]
async fn from_creation_to_deletion() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    let created = service.send("PUT", "/devices/gw2", json!({"deviceId": "gw2", "status": "enabled"})).await;
    assert_eq!(created.status, 200, "{created:?}");
    let device = &created.body;
    assert_eq!(device["connectionState"], "Disconnected");
    assert_eq!(device["lastActivityTime"], "0001-01-01T00:00:00Z");
    assert_eq!(device["authentication"]["type"], "sas");
    let key = device["authentication"]["symmetricKey"]["primaryKey"].as_str().unwrap().to_owned();
    assert!(hub.file("devices/gw2").contains(&key));
    assert_eq!(service.read("/devices/gw2").await, *device);
    service.send("PUT", "/devices/gw2", json!({})).await.refused(409, "DeviceAlreadyExists");

    let new_key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    let body = json!({"status": "disabled", "authentication": {"symmetricKey": {"primaryKey": new_key}}});
    let update = async |if_match: &str| {
        HttpResponse::to(service.request("PUT", "/devices/gw2").header("If-Match", if_match).json(&body))
            .await
    };
    update("\"other\"").await.refused(412, "PreconditionFailed");
    let etag = device["etag"].as_str().unwrap();
    let updated = update(&format!("\"{etag}\"")).await;
    assert_eq!((updated.status, &updated.body["status"]), (200, &json!("disabled")));
    assert_ne!(updated.body["statusUpdatedTime"], "0001-01-01T00:00:00Z");
    assert!(hub.file("devices/gw2").contains(new_key));
    assert!(!hub.file("devices/gw2").contains(&key));
    update(etag).await.refused(412, "PreconditionFailed");

    let delete = async |if_match: &str| {
        HttpResponse::to(service.request("DELETE", "/devices/gw2").header("If-Match", if_match)).await
    };
    delete(etag).await.refused(412, "PreconditionFailed");
    assert_eq!(delete("\"*\"").await.status, 204);
    assert!(!hub.data().join("devices/gw2").exists());
    delete("*").await.refused(404, "DeviceNotFound");
    service.get("/devices/gw2").await.refused(404, "DeviceNotFound");
    update("*").await.refused(404, "DeviceNotFound");
}

#[tokio::test]
async fn strange_ids_stay_in_their_directory() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    // `..` and `.` cannot be sent in a URL's path as they are: clients resolve them.
    for (id, path) in
        [("*", "*"), ("...", "..."), ("a%b", "a%25b"), ("a'b", "a'b"), ("$x", "$x"), ("a:b", "a:b")]
    {
        let created = service.send("PUT", &format!("/devices/{path}"), json!({ "deviceId": id })).await;
        assert_eq!(created.body["deviceId"], id, "{created:?}");
        let text = hub.file(&format!("devices/{id}"));
        assert!(text.contains(&format!(";DeviceId={id};")), "{text}");
        Device::connect(&hub, id).await.ping().await;
        assert_eq!(service.send("DELETE", &format!("/devices/{path}"), Value::Null).await.status, 204);
    }
    for path in ["a%20b", "a%2Fb", "%C3%BC", &"x".repeat(129)] {
        let refused = service.send("PUT", &format!("/devices/{path}"), json!({})).await;
        refused.refused(400, "ArgumentInvalid");
    }
    let names: Vec<_> =
        hub.data().join("devices").read_dir().unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["gw1"]);
}

#[tokio::test]
async fn dots_alone_are_ids_but_not_paths() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start_in(&dir.path().join("hub"), &["--device", "..", "--device", "."]);
    for id in ["..", "."] {
        let text = hub.file(&format!("devices/{id}~"));
        assert!(text.contains(&format!(";DeviceId={id};")), "{text}");
    }
    assert_eq!(dir.path().read_dir().unwrap().count(), 1);
}

#[tokio::test]
async fn bad_bodies_are_refused() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    for body in [
        json!([]),
        json!({"deviceId": "other"}),
        json!({"status": "asleep"}),
        json!({"authentication": {"type": "password"}}),
        json!({"authentication": {"type": "selfSigned"}}),
        json!({"authentication": {"symmetricKey": {"primaryKey": "?"}}}),
    ] {
        service.send("PUT", "/devices/gw2", body).await.refused(400, "ArgumentInvalid");
    }
    service.get("/devices/gw2").await.refused(404, "DeviceNotFound");
}

#[tokio::test]
async fn lists_and_counts() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    for id in ["a", "b"] {
        service.send("PUT", &format!("/devices/{id}"), json!({"status": "disabled"})).await;
    }
    let ids = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|device| device["deviceId"].as_str().unwrap().into()).collect()
    };
    assert_eq!(ids(&service.read("/devices").await), ["a", "b", "gw1"]);
    assert_eq!(ids(&service.read("/devices/").await), ["a", "b", "gw1"]);
    let top = HttpResponse::to(service.request("GET", "/devices").query(&[("top", "2")])).await;
    assert_eq!(ids(&top.body), ["a", "b"]);
    for top in ["0", "1001", "x"] {
        let refused = HttpResponse::to(service.request("GET", "/devices").query(&[("top", top)])).await;
        refused.refused(400, "ArgumentInvalid");
    }
    let counts = json!({"totalDeviceCount": 3, "enabledDeviceCount": 1, "disabledDeviceCount": 2});
    assert_eq!(service.read("/statistics/devices").await, counts);
    let mut device = Device::connect(&hub, "gw1").await;
    assert_eq!(service.read("/statistics/service").await, json!({"connectedDeviceCount": 1}));
    assert_eq!(service.read("/devices/gw1").await["connectionState"], "Connected");
    device.ping().await;
}

#[tokio::test]
async fn each_policy_opens_its_doors_only() {
    let hub = Hub::start();
    for (policy, allowed) in [
        ("iothubowner", "read write service"),
        ("service", "service"),
        ("registryRead", "read"),
        ("registryReadWrite", "read write"),
        ("device", ""),
    ] {
        let service = Service::with_policy(&hub, policy);
        for (right, method, path, body) in [
            ("read", "GET", "/devices/gw1", Value::Null),
            ("read", "GET", "/devices", Value::Null),
            ("read", "GET", "/statistics/devices", Value::Null),
            ("write", "PUT", &*format!("/devices/new-{policy}"), json!({})),
            ("write", "DELETE", &*format!("/devices/new-{policy}"), Value::Null),
            ("service", "GET", "/twins/gw1", Value::Null),
            ("service", "PATCH", "/twins/gw1", json!({})),
            ("service", "POST", "/devices/query", json!({"query": "SELECT * FROM devices"})),
            ("service", "GET", "/emulator/faults", Value::Null),
        ] {
            let answer = service.send(method, path, body).await;
            if allowed.contains(right) {
                assert!(answer.status < 300, "{policy} {method} {path}: {answer:?}");
            } else {
                answer.refused(401, "IotHubUnauthorizedAccess");
            }
        }
    }
}

#[tokio::test]
async fn tokens_are_checked() {
    let hub = Hub::start();
    let owner: ServiceConnectionString = hub.file("service-connection-string").parse().unwrap();
    let host = owner.host_name.to_string();
    let other = iotdm_proto::SecretKey::from_bytes(vec![1; 32]);
    let sign = |resource: &str, expiry| sas::sign(resource, &owner.key, expiry, Some("iothubowner"));
    for (token, name) in [
        ("Bearer x".to_owned(), "IotHubUnauthorizedAccess"),
        (sas::sign(&host, &other, now() + 60, Some("iothubowner")), "IotHubUnauthorizedAccess"),
        (sas::sign(&host, &owner.key, now() + 60, Some("root")), "IotHubUnauthorizedAccess"),
        (sas::sign(&host, &owner.key, now() + 60, None), "IotHubUnauthorizedAccess"),
        (sign(&host, now() - 1), "IotHubUnauthorized"),
        (sign("elsewhere.azure-devices.net", now() + 60), "IotHubUnauthorized"),
        (sign(&format!("{host}/twins/gw2"), now() + 60), "IotHubUnauthorized"),
    ] {
        Service::with_token(&hub, token).get("/twins/gw1").await.refused(401, name);
    }
    // The bare host, any case, a deeper path.
    for resource in ["localhost", "LOCALHOST", &format!("{host}/twins/gw1")] {
        Service::with_token(&hub, sign(resource, now() + 60)).read("/twins/gw1").await;
    }
}

#[tokio::test]
async fn what_is_not_emulated_says_so() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    for (method, path) in
        [("POST", "/jobs/create"), ("GET", "/digitaltwins/gw1"), ("GET", "/"), ("POST", "/devices/gw1/files")]
    {
        service.send(method, path, Value::Null).await.refused(400, "InvalidOperation");
    }
}

#[tokio::test]
async fn devices_stand_behind_iot_edge_devices() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    let edge = json!({"capabilities": {"iotEdge": true}});
    let root = service.send("PUT", "/devices/root", edge).await.body;
    let scope = format!("ms-azure-iot-edge://root-{}", root["generationId"].as_str().unwrap());
    assert_eq!((&root["deviceScope"], &root["parentScopes"]), (&json!(scope), &json!([])));
    let child = json!({"capabilities": {"iotEdge": true}, "parentScopes": [scope]});
    let child = service.send("PUT", "/devices/child", child).await.body;
    assert!(child["deviceScope"].as_str().unwrap().starts_with("ms-azure-iot-edge://child-"));
    assert_eq!(child["parentScopes"], json!([scope]));
    let leaf = service.send("PUT", "/devices/leaf", json!({"deviceScope": scope})).await.body;
    assert_eq!((&leaf["deviceScope"], &leaf["parentScopes"]), (&json!(scope), &json!([scope])));
    assert_eq!(service.read("/twins/leaf").await["deviceScope"], json!(scope));

    // What was read can be written back.
    for (path, device) in [("/devices/root", root), ("/devices/child", child), ("/devices/leaf", leaf)] {
        let request = service.request("PUT", path).header("If-Match", "*").json(&device);
        let answer = HttpResponse::to(request).await;
        for key in ["deviceScope", "parentScopes"] {
            assert_eq!(answer.body[key], device[key], "{path}");
        }
    }
    let elsewhere = service.request("PUT", "/devices/leaf").header("If-Match", "*");
    let scopes = json!({"deviceScope": "x", "parentScopes": [scope]});
    HttpResponse::to(elsewhere.json(&scopes)).await.refused(400, "ArgumentInvalid");
    assert!(service.read("/devices/gw1").await.get("deviceScope").is_none());
}
