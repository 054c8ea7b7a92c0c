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
    assert_eq!(topic, "$dps/registrations/res/202/?$rid=r1&retry-after=1");
    assert_eq!(accepted["status"], "assigning");
    let operation = accepted["operationId"].as_str().unwrap();
    let topic = format!("$dps/registrations/GET/iotdps-get-operationstatus/?$rid=r2&operationId={operation}");
    device.publish(&topic, " ").await;
    let (topic, result) = device.message().await;
    assert_eq!(topic, "$dps/registrations/res/200/?$rid=r2");
    // As the official clients do before they disconnect.
    device.unsubscribe(RESPONSES).await;
    result
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
    for (what, key, code) in [
        ("the group's own key", key.clone(), ConnectReturnCode::NotAuthorized),
        ("another device's", key.derived("cam2"), ConnectReturnCode::NotAuthorized),
        ("its own", key.derived("cam1"), ConnectReturnCode::Success),
    ] {
        let token = token(&hub, "cam1", &key, None);
        let (mut device, ack) = Device::say_hello(&hub, introduction(&hub, "cam1", &token)).await;
        assert_eq!(ack.code, code, "{what}");
        if code != ConnectReturnCode::Success {
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

    for (identity, id, code) in [
        (&own, "cam1", ConnectReturnCode::Success),
        (&self_signed("cam1"), "cam1", ConnectReturnCode::NotAuthorized),
        (&issued("cam2", &ca), "cam2", ConnectReturnCode::Success),
        (&issued("cam2", &ca), "cam3", ConnectReturnCode::NotAuthorized),
        (&self_signed("cam2"), "cam2", ConnectReturnCode::NotAuthorized),
    ] {
        let mut device = Device::open_with(&hub, identity.tls(&hub)).await;
        assert_eq!(device.introduce(introduction(&hub, id, "")).await.code, code, "{id}");
        let hello = introduction(&hub, id, "");
        let (_, over_websocket) = introduce(&hub, identity.tls(&hub), hello).await;
        assert_eq!(over_websocket, code, "{id}");
        if code == ConnectReturnCode::Success {
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
        assert_eq!(accepted.status, status);
        if status == 202 {
            let location = accepted.header("location").unwrap();
            assert_eq!(device.read(location).await["registrationState"]["deviceId"], "cam1");
        }
    }
    assert_eq!(own.connect(&hub, "cam1").await, ConnectReturnCode::Success);
    let nobody = Service::with_token(&hub, String::new());
    nobody.send("PUT", &format!("{path}/register"), json!({})).await.refused(401, "IotHubUnauthorized");
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
    assert_eq!((accepted.status, accepted.header("retry-after")), (202, Some("1")));
    let location = accepted.header("location").unwrap();
    assert_eq!(device.read(location).await["registrationState"]["deviceId"], "cam1");
    device.get(&format!("{path}/operations/other")).await.refused(404, "AsyncOperationNotFound");
    let other = Service::with_token(&hub, token(&hub, "cam2", &key, None));
    let refused = other.send("PUT", &format!("{path}/register"), json!({})).await;
    refused.refused(401, "IotHubUnauthorized");
}

#[tokio::test]
async fn enrolments_are_read_changed_disabled_and_removed() {
    let hub = Hub::start();
    let owner = owner(&hub);
    let created = enrol(&hub, "/enrollments/cam1", json!({"attestation": by_key()})).await;
    assert_eq!(owner.read("/enrollments/cam1").await, created);
    let all = owner.send("POST", "/enrollments/query", json!({"query": "*"})).await;
    assert_eq!(all.body, json!([created]));
    let change = async |etag: &str| {
        let body = json!({"attestation": by_key(), "provisioningStatus": "disabled"});
        HttpResponse::to(owner.request("PUT", "/enrollments/cam1").header("If-Match", etag).json(&body)).await
    };
    change("\"other\"").await.refused(412, "PreconditionFailed");
    assert_eq!(change(created["etag"].as_str().unwrap()).await.body["provisioningStatus"], "disabled");
    let token = token(&hub, "cam1", &KEY.parse().unwrap(), None);
    let (mut device, _) = Device::say_hello(&hub, introduction(&hub, "cam1", &token)).await;
    assert_eq!(register(&mut device, "cam1").await["status"], "disabled");
    Service::owner(&hub).get("/devices/cam1").await.refused(404, "DeviceNotFound");

    assert_eq!(owner.send("DELETE", "/enrollments/cam1", Value::Null).await.status, 204);
    owner.get("/enrollments/cam1").await.refused(404, "EnrollmentNotFound");
    let (_, ack) = Device::say_hello(&hub, introduction(&hub, "cam1", &token)).await;
    assert_eq!(ack.code, ConnectReturnCode::NotAuthorized);
    let hub = Service::owner(&hub);
    hub.get("/enrollments/cam1").await.refused(401, "IotHubUnauthorizedAccess");
}
