//! Devices that learn their hub and their name from the provisioning service.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use iotdm_proto::{SecretKey, sas};
use iotdm_tests::Hub;
use rcgen::{Issuer, KeyPair};
use rumqttc::mqttbytes::v4::{Connect, ConnectReturnCode};
use serde_json::{Value, json};

use crate::support::certificate::{Identity, authority, issued, self_signed};
use crate::support::device::{Device, hello};
use crate::support::now;
use crate::support::service::{HttpResponse, Service};
use crate::support::websocket::introduce;

const RESPONSES: &str = "$dps/registrations/res/#";
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

fn owner(hub: &Hub) -> Service {
    Service::with_policy(hub, "provisioningserviceowner")
}

async fn enrol(hub: &Hub, path: &str, body: Value) -> Value {
    let answer = owner(hub).send("PUT", path, body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

fn by_key() -> Value {
    json!({"type": "symmetricKey", "symmetricKey": {"primaryKey": KEY, "secondaryKey": ""}})
}

fn by_certificate(identity: &Identity) -> Value {
    let der = STANDARD.encode(&identity.certificate);
    json!({"type": "x509", "x509": {"clientCertificates": {"primary": {"certificate": der}}}})
}

/// A CONNECT as captured from the official clients.
fn introduction(hub: &Hub, id: &str, password: &str) -> Connect {
    let scope = hub.file("id-scope");
    let mut connect = Connect::new(id);
    connect.keep_alive = 30;
    let user_name = format!("{}/registrations/{id}/api-version=2019-03-31&ClientVersion=x", scope.trim());
    connect.set_login(user_name, password);
    connect
}

fn token(hub: &Hub, id: &str, key: &SecretKey, policy: Option<&str>) -> String {
    let scope = hub.file("id-scope");
    sas::sign(&format!("{}/registrations/{id}", scope.trim()), key, now() + 600, policy)
}

/// Registers over an accepted connection; the final body.
async fn register(device: &mut Device, id: &str) -> Value {
    device.subscribe(RESPONSES).await;
    let body = json!({"registrationId": id, "payload": null}).to_string();
    device.publish("$dps/registrations/PUT/iotdps-register/?$rid=r1", &body).await;
    let (topic, accepted) = device.message().await;
    assert_eq!(topic, "$dps/registrations/res/202/?$rid=r1&retry-after=3");
    assert_eq!(accepted["status"], "assigning");
    assert_eq!(accepted.as_object().unwrap().len(), 2, "{accepted}");
    let operation = accepted["operationId"].as_str().unwrap();
    let topic = format!("$dps/registrations/GET/iotdps-get-operationstatus/?$rid=r2&operationId={operation}");
    device.publish(&topic, " ").await;
    let (topic, result) = device.message().await;
    assert_eq!(topic, "$dps/registrations/res/200/?$rid=r2");
    // As the official clients do before they disconnect, and it may be of anything.
    device.unsubscribe(RESPONSES).await;
    device.unsubscribe("$dps/something/else").await;
    result
}

/// Asks to register over a connection; the answer's status and body.
async fn ask(device: &mut Device, id: &str) -> (u16, Value) {
    device.subscribe(RESPONSES).await;
    let body = json!({"registrationId": id, "payload": null}).to_string();
    device.publish("$dps/registrations/PUT/iotdps-register/?$rid=r1", &body).await;
    let (topic, body) = device.message().await;
    let rest = topic.strip_prefix("$dps/registrations/res/").unwrap();
    let (status, rid) = rest.split_once("/?$rid=r1").unwrap();
    assert!(matches!(rid, "" | "&retry-after=3"), "{topic}");
    (status.parse().unwrap(), body)
}

/// Asserts that a device is let in, and told that it may not register.
async fn is_refused(device: &mut Device, id: &str, code: u32, message: &str) {
    let (status, body) = ask(device, id).await;
    assert_eq!(
        (status, &body["errorCode"], &body["message"]),
        (401, &json!(code), &json!(message)),
        "{body}"
    );
    let tracking_id = body["trackingId"].as_str().unwrap();
    assert_eq!(tracking_id.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12], "{body}");
    assert!(body["timestampUtc"].as_str().unwrap().ends_with('Z'));
    assert_eq!(body.as_object().unwrap().len(), 4, "{body}");
    // Nor does it hear of another device's operation, or of an own one.
    let topic = "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=r2&operationId=5.x.y";
    device.publish(topic, " ").await;
    assert_eq!(device.message().await.0, "$dps/registrations/res/401/?$rid=r2");
}

#[tokio::test]
async fn a_device_of_a_group_registers_and_connects_to_its_hub() {
    let hub = Hub::start();
    let body = json!({
        "enrollmentGroupId": "fleet", "attestation": by_key(),
        "initialTwin": {"tags": {"site": "x"}, "properties": {"desired": {"interval": 5}}},
    });
    let group = enrol(&hub, "/enrollmentGroups/fleet", body).await;
    assert_eq!(group["attestation"]["symmetricKey"]["primaryKey"], KEY);
    let key: SecretKey = KEY.parse().unwrap();
    for (what, key, fits) in [
        ("the group's own key", key.clone(), false),
        ("another device's", key.derived("cam2"), false),
        ("its own", key.derived("cam1"), true),
    ] {
        let token = token(&hub, "cam1", &key, None);
        let (mut device, ack) = Device::say_hello(&hub, introduction(&hub, "cam1", &token)).await;
        assert_eq!(ack.code, ConnectReturnCode::Success, "{what}");
        if !fits {
            is_refused(&mut device, "cam1", 401_000, "Unauthorized").await;
            Service::owner(&hub).get("/devices/cam1").await.refused(404, "DeviceNotFound");
            continue;
        }
        let result = register(&mut device, "cam1").await;
        assert_eq!(result["status"], "assigned");
        let state = &result["registrationState"];
        assert_eq!(state["assignedHub"], format!("localhost:{}", hub.mqtt_port));
        assert_eq!((&state["deviceId"], &state["substatus"]), (&json!("cam1"), &json!("initialAssignment")));
    }
    let twin = Service::owner(&hub).read("/twins/cam1").await;
    assert_eq!((&twin["tags"]["site"], &twin["properties"]["desired"]["interval"]), (&json!("x"), &json!(5)));
    // The hub knows the device by the derived key.
    let token = sas::sign("localhost/devices/cam1", &key.derived("cam1"), now() + 600, None);
    let mut connect = hello(&hub, "cam1");
    assert_eq!(connect.login.as_ref().unwrap().password.split("&sig").next(), token.split("&sig").next());
    connect.login.as_mut().unwrap().password = token;
    assert_eq!(Device::say_hello(&hub, connect).await.1.code, ConnectReturnCode::Success);
}

#[tokio::test]
async fn an_individual_has_its_own_key_and_name_and_keeps_its_twin() {
    let hub = Hub::start();
    let body = json!({"registrationId": "reg1", "deviceId": "gateway-7", "attestation": by_key()});
    enrol(&hub, "/enrollments/reg1", body).await;
    let token = token(&hub, "reg1", &KEY.parse().unwrap(), Some("registration"));
    let service = Service::owner(&hub);
    for substatus in ["initialAssignment", "reprovisionedToInitialAssignment"] {
        let (mut device, ack) = Device::say_hello(&hub, introduction(&hub, "reg1", &token)).await;
        assert_eq!(ack.code, ConnectReturnCode::Success);
        let state = register(&mut device, "reg1").await["registrationState"].clone();
        assert_eq!((&state["deviceId"], &state["substatus"]), (&json!("gateway-7"), &json!(substatus)));
        service.send("PATCH", "/twins/gateway-7", json!({"tags": {"seen": substatus}})).await;
    }
    let device = service.read("/devices/gateway-7").await;
    assert_eq!(device["authentication"]["symmetricKey"]["primaryKey"], KEY);
    assert_eq!(service.read("/twins/gateway-7").await["version"], 4);
    assert_eq!(owner(&hub).read("/registrations/reg1").await["status"], "assigned");

    // A renewed key reaches the hub with the next registration.
    let renewed = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";
    let mut attestation = by_key();
    attestation["symmetricKey"]["primaryKey"] = json!(renewed);
    let body = json!({"deviceId": "gateway-7", "attestation": attestation});
    enrol(&hub, "/enrollments/reg1", body).await;
    let token = self::token(&hub, "reg1", &renewed.parse().unwrap(), None);
    let (mut device, _) = Device::say_hello(&hub, introduction(&hub, "reg1", &token)).await;
    register(&mut device, "reg1").await;
    let device = service.read("/devices/gateway-7").await;
    assert_eq!(device["authentication"]["symmetricKey"]["primaryKey"], renewed);
}

#[tokio::test]
async fn certificates_of_individuals_and_groups() {
    let hub = Hub::start();
    let own = self_signed("cam1");
    enrol(&hub, "/enrollments/cam1", json!({"attestation": by_certificate(&own)})).await;
    let (ca, ca_key) = (authority(), KeyPair::generate().unwrap());
    let pem = ca.self_signed(&ca_key).unwrap().pem();
    let ca = Issuer::new(ca, ca_key);
    let x509 = json!({"type": "x509", "x509": {"signingCertificates": {"primary": {"certificate": pem}}}});
    enrol(&hub, "/enrollmentGroups/line", json!({"attestation": x509})).await;

    for (identity, id, fits) in [
        (&own, "cam1", true),
        (&self_signed("cam1"), "cam1", false),
        (&issued("cam2", &ca), "cam2", true),
        (&issued("cam2", &ca), "cam3", false),
        (&self_signed("cam2"), "cam2", false),
    ] {
        let mut device = Device::open_with(&hub, identity.tls(&hub)).await;
        let code = device.introduce(introduction(&hub, id, "")).await.code;
        assert_eq!(code, ConnectReturnCode::Success, "{id}");
        let hello = introduction(&hub, id, "");
        let (_, over_websocket) = introduce(&hub, identity.tls(&hub), hello).await;
        assert_eq!(over_websocket, ConnectReturnCode::Success, "{id}");
        if !fits {
            is_refused(&mut device, id, 401_002, "Invalid certificate.").await;
        } else {
            assert_eq!(register(&mut device, id).await["registrationState"]["deviceId"], id);
            assert_eq!(identity.connect(&hub, id).await, ConnectReturnCode::Success);
            assert_eq!(identity.connect_over_websocket(&hub, id).await, ConnectReturnCode::Success);
        }
    }
}

#[tokio::test]
async fn over_https_by_certificate() {
    let hub = Hub::start();
    let own = self_signed("cam1");
    enrol(&hub, "/enrollments/cam1", json!({"attestation": by_certificate(&own)})).await;
    let scope = hub.file("id-scope");
    let path = format!("/{}/registrations/cam1", scope.trim());
    for (identity, status) in [(&own, 202), (&self_signed("cam1"), 401)] {
        let device = Service::with_tls(&hub, identity.tls(&hub), String::new());
        let accepted =
            device.send("PUT", &format!("{path}/register"), json!({"registrationId": "cam1"})).await;
        match status {
            202 => is_assigned(&hub, &device, &path, &accepted).await,
            _ => accepted.refused_by_provisioning(401, 401_002, "Invalid certificate"),
        }
    }
    assert_eq!(own.connect(&hub, "cam1").await, ConnectReturnCode::Success);
    let nobody = Service::with_token(&hub, String::new());
    let refused = nobody.send("PUT", &format!("{path}/register"), json!({})).await;
    refused.refused_by_provisioning(401, 401_002, "Unauthorized");
}

#[tokio::test]
async fn over_https_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::start_in(dir.path(), &[]);
    enrol(&hub, "/enrollments/cam1", json!({"attestation": by_key()})).await;
    hub.kill();
    let hub = Hub::start_in(dir.path(), &[]);
    let scope = hub.file("id-scope");
    let path = format!("/{}/registrations/cam1", scope.trim());
    let key: SecretKey = KEY.parse().unwrap();
    let device = Service::with_token(&hub, token(&hub, "cam1", &key, None));
    let accepted = device.send("PUT", &format!("{path}/register"), json!({"registrationId": "cam1"})).await;
    is_assigned(&hub, &device, &path, &accepted).await;
    let other = device.get(&format!("{path}/operations/other")).await;
    other.refused_by_provisioning(404, 404_203, "other");
    let other = Service::with_token(&hub, token(&hub, "cam2", &key, None));
    let refused = other.send("PUT", &format!("{path}/register"), json!({})).await;
    refused.refused_by_provisioning(401, 401_002, "Unauthorized");
}

/// Asserts that a registration over HTTPS was accepted and has succeeded.
async fn is_assigned(hub: &Hub, device: &Service, path: &str, accepted: &HttpResponse) {
    assert_eq!((accepted.status, accepted.header("retry-after")), (202, Some("3")));
    let location = format!("https://localhost:{}{path}/register", hub.https_port);
    assert_eq!(accepted.header("location"), Some(location.as_str()));
    assert_eq!(accepted.body["status"], "assigning");
    let operation = accepted.body["operationId"].as_str().unwrap();
    assert_eq!(operation.split('.').map(str::len).collect::<Vec<_>>(), [1, 16, 36], "{operation}");
    let done = device.get(&format!("{path}/operations/{operation}")).await;
    assert_eq!((done.status, done.header("location"), done.header("retry-after")), (200, None, None));
    assert_eq!(done.header("transfer-encoding"), Some("chunked"));
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&done.body), ["operationId", "status", "registrationState"]);
    let state = &done.body["registrationState"];
    assert_eq!((&done.body["operationId"], &done.body["status"]), (&json!(operation), &json!("assigned")));
    assert_eq!(
        keys(state),
        [
            "registrationId",
            "createdDateTimeUtc",
            "assignedHub",
            "deviceId",
            "status",
            "substatus",
            "lastUpdatedDateTimeUtc",
            "etag",
        ]
    );
    assert_eq!((&state["deviceId"], &state["substatus"]), (&json!("cam1"), &json!("initialAssignment")));
}

#[tokio::test]
async fn an_enrolment_keeps_what_it_was_told_and_is_taken_as_it_was_returned() {
    let hub = Hub::start();
    let (ca, ca_key) = (authority(), KeyPair::generate().unwrap());
    let pem = ca.self_signed(&ca_key).unwrap().pem();
    let x509 = json!({"type": "x509", "x509": {"signingCertificates": {"primary": {"certificate": pem}}}});
    for (path, attestation) in [
        ("/enrollmentGroups/line", x509.clone()),
        ("/enrollmentGroups/fleet", by_key()),
        ("/enrollments/cam1", by_key()),
    ] {
        let body = json!({
            "attestation": attestation, "allocationPolicy": "static", "iotHubs": ["a.example"],
            "reprovisionPolicy": {"updateHubAssignment": true, "migrateDeviceData": false},
            "optionalDeviceInformation": {"a": 1},
        });
        let created = enrol(&hub, path, body.clone()).await;
        for key in ["allocationPolicy", "iotHubs", "reprovisionPolicy", "optionalDeviceInformation"] {
            assert_eq!(created[key], body[key], "{path} {key}");
        }
        let again = enrol(&hub, path, created.clone()).await;
        assert_ne!(again["etag"], created["etag"]);
        for key in ["attestation", "createdDateTimeUtc", "iotHubs", "enrollmentGroupId", "registrationId"] {
            assert_eq!(again[key], created[key], "{path} {key}");
        }
        let mechanism = owner(&hub).send("POST", &format!("{path}/attestationmechanism"), Value::Null).await;
        assert_eq!((mechanism.status, &mechanism.body), (200, &created["attestation"]));
    }
    let group = owner(&hub).read("/enrollmentGroups/line").await;
    let info = &group["attestation"]["x509"]["signingCertificates"]["primary"]["info"];
    let names = info.as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(
        names,
        [
            "subjectName",
            "sha1Thumbprint",
            "sha256Thumbprint",
            "issuerName",
            "notBeforeUtc",
            "notAfterUtc",
            "serialNumber",
            "version",
        ]
    );
    // A device of the group still registers.
    let ca = Issuer::new(ca, ca_key);
    let mut device = Device::open_with(&hub, issued("cam9", &ca).tls(&hub)).await;
    device.introduce(introduction(&hub, "cam9", "")).await;
    assert_eq!(register(&mut device, "cam9").await["status"], "assigned");
    for (key, value) in [
        ("allocationPolicy", json!("custom")),
        ("attestation", json!({"type": "tpm", "tpm": {"endorsementKey": "AAAA"}})),
    ] {
        let mut body = json!({"attestation": by_key()});
        body[key] = value;
        let refused = owner(&hub).send("PUT", "/enrollments/cam2", body).await;
        refused.refused_by_provisioning(501, 501_000, "not emulated");
    }
}

#[tokio::test]
async fn enrolments_are_read_changed_disabled_and_removed() {
    let hub = Hub::start();
    let owner = owner(&hub);
    let created = enrol(&hub, "/enrollments/cam1", json!({"attestation": by_key()})).await;
    assert_eq!(owner.read("/enrollments/cam1").await, created);
    // As the clients of Python and Node write it, the Azure CLI, and .NET.
    for all in ["*", "SELECT *", "select * from enrollments"] {
        let all = owner.send("POST", "/enrollments/query", json!({"Query": all})).await;
        assert_eq!(all.body, json!([created]));
    }
    for (query, (status, code), words) in [
        (
            json!("SELECT * FROM enrollments WHERE provisioningStatus = 'disabled'"),
            (501, 501_000),
            "not emulated",
        ),
        (json!("all"), (400, 400_004), "SELECT * FROM enrollments"),
        (json!(null), (400, 400_004), "SELECT * FROM enrollments"),
    ] {
        let refused = owner.send("POST", "/enrollments/query", json!({ "query": query })).await;
        refused.refused_by_provisioning(status, code, words);
    }
    let change = async |etag: &str| {
        let body = json!({"attestation": by_key(), "provisioningStatus": "disabled"});
        HttpResponse::to(owner.request("PUT", "/enrollments/cam1").header("If-Match", etag).json(&body)).await
    };
    change("\"other\"").await.refused_by_provisioning(412, 412_001, "");
    assert_eq!(change(created["etag"].as_str().unwrap()).await.body["provisioningStatus"], "disabled");
    let token = token(&hub, "cam1", &KEY.parse().unwrap(), None);
    let (mut device, _) = Device::say_hello(&hub, introduction(&hub, "cam1", &token)).await;
    assert_eq!(register(&mut device, "cam1").await["status"], "disabled");
    Service::owner(&hub).get("/devices/cam1").await.refused(404, "DeviceNotFound");

    assert_eq!(owner.send("DELETE", "/enrollments/cam1", Value::Null).await.status, 204);
    owner.get("/enrollments/cam1").await.refused_by_provisioning(404, 404_201, "cam1");
    let (mut device, ack) = Device::say_hello(&hub, introduction(&hub, "cam1", &token)).await;
    assert_eq!(ack.code, ConnectReturnCode::Success);
    is_refused(&mut device, "cam1", 401_000, "Unauthorized").await;
    let hub = Service::owner(&hub);
    hub.get("/enrollments/cam1").await.refused_by_provisioning(401, 401_002, "Unauthorized");
}
