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
    assert_eq!(device["lastActivityTime"], "0001-01-01T00:00:00", "as only the creation has it");
    assert_eq!(device["authentication"]["type"], "sas");
    let key = device["authentication"]["symmetricKey"]["primaryKey"].as_str().unwrap().to_owned();
    assert!(hub.file("devices/gw2").contains(&key));
    let read = service.read("/devices/gw2").await;
    assert_eq!((&read["etag"], &read["authentication"]), (&device["etag"], &device["authentication"]));
    service.send("PUT", "/devices/gw2", json!({})).await.refused(409, "DeviceAlreadyExists");

    let new_key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    let body = json!({"status": "disabled", "authentication": {"symmetricKey": {"primaryKey": new_key, "secondaryKey": new_key}}});
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
    for (method, path) in [
        ("POST", "/jobs/create"),
        ("GET", "/digitaltwins/gw1"),
        ("POST", "/devices/gw1/files"),
        ("POST", "/devices/gw1/applyConfigurationContent"),
        ("POST", "/registrations/group/query"),
    ] {
        let refused = service.send(method, path, Value::Null).await;
        refused.refused(501, "NotEmulated");
        assert!(refused.body["Message"].as_str().unwrap().contains(path), "{refused:?}");
    }
    service.get("/").await.refused(404, "GenericNotFound");
    service.send("PATCH", "/devices/gw1", json!({})).await.refused(405, "GenericMethodNotAllowed");
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

#[tokio::test]
async fn an_empty_etag_creates() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    for path in ["/devices/gw2", "/devices/gw2/modules/m"] {
        let put = async |if_match: Option<&str>| {
            let request = service.request("PUT", path).json(&json!({}));
            let request =
                if_match.into_iter().fold(request, |request, etag| request.header("If-Match", etag));
            HttpResponse::to(request).await
        };
        assert_eq!(put(Some("*")).await.status, 404, "there is nothing to change");
        let created = put(Some("\"\"")).await;
        assert_eq!(created.status, 200, "{created:?}");
        for exists in [Some("\"\""), None] {
            assert_eq!(put(exists).await.status, 409, "{path} {exists:?}");
        }
        let etag = created.body["etag"].as_str().unwrap();
        put(Some(etag)).await.refused(412, "PreconditionFailed");
        let changed = put(Some(&format!("\"{etag}\""))).await;
        assert_eq!(changed.status, 200, "{changed:?}");
        let stale = put(Some(&format!("\"{etag}\""))).await;
        stale.refused(412, "PreconditionFailed");
        let message = stale.body["Message"].as_str().unwrap();
        assert!(message.contains("did not match, existingVersion:"), "{message}");
        // Only a device's etag is in the headers as well.
        let is_device = !path.contains("modules");
        assert_eq!(changed.header("etag").is_some(), is_device, "{path}");
    }
    for path in ["/devices/gw2/modules/m", "/devices/gw2"] {
        for demand in [None, Some("\"\""), Some("abc")] {
            let request = service.request("DELETE", path);
            let request = demand.into_iter().fold(request, |request, etag| request.header("If-Match", etag));
            HttpResponse::to(request).await.refused(412, "PreconditionFailed");
        }
        assert_eq!(service.send("DELETE", path, Value::Null).await.status, 204);
    }
}

#[tokio::test]
async fn an_identity_that_is_written_back_without_keys_gets_new_ones() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    let put = async |body: Value| {
        let request = service.request("PUT", "/devices/gw1").header("If-Match", "*").json(&body);
        HttpResponse::to(request).await
    };
    let read = service.read("/devices/gw1").await;
    let same = put(read.clone()).await.body;
    assert_eq!(same["authentication"], read["authentication"]);
    let mut keys = vec![read["authentication"]["symmetricKey"]["primaryKey"].clone()];
    for body in [
        json!({"status": "enabled"}),
        json!({"authentication": {"symmetricKey": {"primaryKey": "", "secondaryKey": null}}}),
        json!({"Authentication": {"Type": "sas"}}),
    ] {
        let key = put(body).await.body["authentication"]["symmetricKey"]["primaryKey"].clone();
        assert!(key.is_string() && !keys.contains(&key), "{key}");
        keys.push(key);
    }
    let one = json!({"authentication": {"symmetricKey": {"primaryKey": keys[0], "secondaryKey": ""}}});
    put(one).await.refused(400, "ArgumentInvalid");
    let without = put(json!({"authentication": {"type": "selfSigned", "x509Thumbprint": {}}})).await;
    assert_eq!((without.status, &without.body["authentication"]["type"]), (200, &json!("selfSigned")));
}

#[tokio::test]
async fn keys_are_renewed_where_they_are() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    service.send("PUT", "/devices/gw1/modules/m", json!({})).await;
    let ca = json!({"authentication": {"type": "certificateAuthority"}});
    service.send("PUT", "/devices/ca", ca).await;
    let renew = async |policy: &str, devices: Value| {
        let body = json!({"policyKey": policy, "devices": devices});
        service.send("POST", "/devices/keys/regenerate", body).await
    };
    let keys = async |path: &str| service.read(path).await["authentication"]["symmetricKey"].clone();
    for path in ["/devices/gw1", "/devices/gw1/modules/m"] {
        let mut named = json!({"id": "gw1"});
        if path.contains("modules") {
            named["moduleId"] = json!("m");
        }
        for (policy, primary, secondary) in
            [("primaryKey", true, false), ("secondaryKey", false, true), ("both", true, true)]
        {
            let before = keys(path).await;
            let answer = renew(policy, json!([named])).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let after = keys(path).await;
            assert_eq!(before["primaryKey"] != after["primaryKey"], primary, "{path} {policy}");
            assert_eq!(before["secondaryKey"] != after["secondaryKey"], secondary, "{path} {policy}");
            let mut rotated = named.clone();
            rotated["primaryKey"] = after["primaryKey"].clone();
            rotated["secondaryKey"] = after["secondaryKey"].clone();
            let whole = json!({"policyKey": policy, "rotatedKeys": [rotated], "errors": []});
            assert_eq!(answer.body, whole);
        }
    }
    let some = renew("both", json!([{"id": "gw1"}, {"id": "nobody"}, {"id": "ca"}])).await;
    assert_eq!((some.status, some.body["rotatedKeys"].as_array().unwrap().len()), (207, 1));
    let codes: Vec<_> = some.body["errors"].as_array().unwrap().iter().map(|e| &e["errorCode"]).collect();
    assert_eq!(codes, [404_001, 400_003]);
    assert_eq!(renew("both", json!([{"id": "nobody"}])).await.status, 400);
    renew("swap", json!([{"id": "gw1"}])).await.refused(400, "ArgumentInvalid");
}

#[tokio::test]
async fn every_answer_has_the_headers_of_the_service() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    let mut ids = std::collections::HashSet::new();
    for (method, path, body, status) in [
        ("PUT", "/devices/gw2", json!({}), 200),
        ("GET", "/twins/gw2", Value::Null, 200),
        ("PUT", "/devices/gw2/modules/m", json!({}), 200),
        ("PUT", "/configurations/c", json!({}), 200),
        ("POST", "/devices/query", json!({"query": "SELECT * FROM devices"}), 200),
        ("POST", "/devices", json!([{"id": "gw3"}]), 200),
        ("GET", "/statistics/devices", Value::Null, 200),
        ("POST", "/twins/gw2/methods", json!({"methodName": "m"}), 404),
        ("GET", "/devices/nobody", Value::Null, 404),
        ("GET", "/nothing", Value::Null, 404),
        ("POST", "/jobs/create", json!({}), 501),
        ("DELETE", "/devices/gw2", Value::Null, 204),
    ] {
        let answer = service.send(method, path, body).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.header("vary"), Some("Origin"), "{method} {path}");
        assert!(ids.insert(answer.header("x-ms-request-id").unwrap().to_owned()), "{method} {path}");
        let json = (status != 204).then_some("application/json; charset=utf-8");
        assert_eq!(answer.header("content-type"), json, "{method} {path}");
        if status == 204 {
            assert_eq!(answer.header("content-length"), Some("0"), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_version_of_the_interface_shows_what_it_knows() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    service.send("PUT", "/devices/edge", json!({"capabilities": {"iotEdge": true}})).await;
    let read = async |version: &str, path: &str| {
        HttpResponse::to(service.versioned(version, "GET", path)).await.body
    };
    for (version, models, parents) in
        [("2020-03-13", false, false), ("2020-05-31-preview", true, false), ("2021-04-12", true, true)]
    {
        let (identity, twin) = (read(version, "/devices/edge").await, read(version, "/twins/edge").await);
        assert_eq!(twin.get("modelId").is_some(), models, "{version}");
        for json in [identity, twin] {
            assert!(json["deviceScope"].is_string(), "{version}");
            assert_eq!(json.get("parentScopes").is_some(), parents, "{version}");
        }
    }
}
