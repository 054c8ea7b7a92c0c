//! What the provisioning service takes for a registration id and for a body.

use iotdm_proto::{SecretKey, sas};
use iotdm_tests::Hub;
use rumqttc::mqttbytes::v4::{Connect, ConnectReturnCode};
use serde_json::{Value, json};

use crate::support::device::Device;
use crate::support::now;
use crate::support::service::{HttpResponse, Service};

const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

async fn enrol(hub: &Hub, kind: &str, id: &str, more: Value) -> HttpResponse {
    let encoded = sas::encoded(id);
    let mut body = json!({"attestation": {"type": "symmetricKey", "symmetricKey": {"primaryKey": KEY}}});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let owner = Service::with_policy(hub, "provisioningserviceowner");
    owner.send("PUT", &format!("/{kind}/{encoded}"), body).await
}

/// The id scope, and a token of a device of the group with the key.
fn credentials(hub: &Hub, id: &str) -> (String, String) {
    let scope = hub.file("id-scope").trim().to_owned();
    let key: SecretKey = KEY.parse().unwrap();
    let resource = format!("{scope}/registrations/{id}");
    let token = sas::sign(&resource, &key.derived(id), now() + 600, Some("registration"));
    (scope, token)
}

#[tokio::test]
async fn only_registration_ids_are_enrolled_and_registered() {
    let hub = Hub::start();
    for kind in ["enrollments", "enrollmentGroups"] {
        for id in ["a;$(id)", "a'b", "a=b", "a b", "ends.", "a#", "\u{1b}[2J"] {
            enrol(&hub, kind, id, json!({})).await.refused_by_provisioning(400, 400_004, "");
        }
    }
    assert_eq!(enrol(&hub, "enrollmentGroups", "A.b_c:d-1", json!({})).await.status, 200);
    for (id, status) in [("a;$(id)", 400), ("ends.", 400), ("cam-1", 202)] {
        let (scope, token) = credentials(&hub, id);
        let device = Service::with_token(&hub, token.clone());
        let path = format!("/{scope}/registrations/{}/register", sas::encoded(id));
        assert_eq!(device.send("PUT", &path, json!({})).await.status, status, "{id}");

        let mut connect = Connect::new(id);
        connect.set_login(format!("{scope}/registrations/{id}/api-version=2019-03-31"), token);
        let expected =
            if status == 202 { ConnectReturnCode::Success } else { ConnectReturnCode::NotAuthorized };
        assert_eq!(Device::say_hello(&hub, connect).await.1.code, expected, "{id}");
    }
}

#[tokio::test]
async fn an_enrolment_is_what_its_path_and_types_say() {
    let hub = Hub::start();
    for more in [
        json!({"registrationId": "other"}),
        json!({"registrationId": 7}),
        json!({"deviceId": 7}),
        json!({"deviceId": "a b"}),
        json!({"provisioningStatus": 1}),
    ] {
        enrol(&hub, "enrollments", "cam1", more).await.refused_by_provisioning(400, 400_004, "");
    }
    let same = json!({"registrationId": "cam1", "deviceId": null, "provisioningStatus": null});
    assert_eq!(enrol(&hub, "enrollments", "cam1", same).await.status, 200);
}

#[tokio::test]
async fn a_registration_is_of_the_device_in_its_path() {
    let hub = Hub::start();
    assert_eq!(enrol(&hub, "enrollmentGroups", "fleet", json!({})).await.status, 200);
    let (scope, token) = credentials(&hub, "cam1");
    let https = Service::with_token(&hub, token.clone());
    let mut connect = Connect::new("cam1");
    connect.set_login(format!("{scope}/registrations/cam1/api-version=2019-03-31"), token);
    let (mut mqtt, ack) = Device::say_hello(&hub, connect).await;
    assert_eq!(ack.code, ConnectReturnCode::Success);
    mqtt.subscribe("$dps/registrations/res/#").await;
    for (body, status) in [
        (r#"{"registrationId":"cam2"}"#, 400),
        (r#"{"registrationId":7}"#, 400),
        (r#"["cam1"]"#, 400),
        ("cam1", 400),
        ("{", 400),
        (r#"{"registrationId":"cam1","payload":null}"#, 202),
        ("{}", 202),
        ("", 202),
        (" ", 202),
    ] {
        let request = https.request("PUT", &format!("/{scope}/registrations/cam1/register"));
        let answer = HttpResponse::to(request.body(body)).await;
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        mqtt.publish("$dps/registrations/PUT/iotdps-register/?$rid=1", body).await;
        let (topic, _) = mqtt.message().await;
        assert!(topic.starts_with(&format!("$dps/registrations/res/{status}/?$rid=1")), "{body}: {topic}");
    }
    // Whoever has not shown who it is hears nothing of its body.
    let stranger = Service::with_token(&hub, String::new());
    let request = stranger.request("PUT", &format!("/{scope}/registrations/cam1/register"));
    HttpResponse::to(request.body("{")).await.refused_by_provisioning(401, 401_002, "Unauthorized");
}
