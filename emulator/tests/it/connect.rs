//! Who is let in over MQTT, and who is not.

use iotdm_proto::{SecretKey, ServiceConnectionString, sas};
use iotdm_tests::Hub;
use rumqttc::mqttbytes::v4::{Connect, ConnectReturnCode};
use serde_json::json;
use tokio::net::TcpStream;

use crate::support::device::{Device, hello, hello_until, hello_with};
use crate::support::now;
use crate::support::service::Service;

async fn code(hub: &Hub, connect: Connect) -> ConnectReturnCode {
    let (mut device, ack) = Device::say_hello(hub, connect).await;
    if ack.code != ConnectReturnCode::Success {
        device.expect_close().await;
    }
    ack.code
}

fn with_password(mut connect: Connect, password: &str) -> Connect {
    connect.login.as_mut().unwrap().password = password.to_owned();
    connect
}

#[tokio::test]
async fn every_refusal_is_code_5() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    for id in ["disabled", "gone", "a+b"] {
        assert_eq!(service.send("PUT", &format!("/devices/{id}"), json!({})).await.status, 200);
    }
    let disabled = hello(&hub, "disabled");
    let gone = hello(&hub, "gone");
    service.change("/devices/disabled", json!({"status": "disabled"})).await;
    assert_eq!(service.send("DELETE", "/devices/gone", json!(null)).await.status, 204);

    let good = || hello(&hub, "gw1");
    let other_key = SecretKey::from_bytes(vec![7; 32]);
    let wrong_key = sas::sign("localhost/devices/gw1", &other_key, now() + 60, None);
    let mut no_login = good();
    no_login.login = None;
    let mut other_client_id = good();
    other_client_id.client_id = "gw2".to_owned();
    let mut other_host = good();
    other_host.login.as_mut().unwrap().username = "elsewhere/gw1/?api-version=2021-04-12".to_owned();
    let token = good().login.unwrap().password;
    let module = hello_with("gw1/m", &token);
    for (what, connect) in [
        ("a wrong key", with_password(good(), &wrong_key)),
        ("no token", with_password(good(), "secret")),
        ("an expired token", hello_until(&hub, "gw1", now() - 1)),
        ("no login", no_login),
        ("another client id", other_client_id),
        ("another host", other_host),
        ("a module that is not registered", module),
        ("a disabled device", disabled),
        ("a deleted device", gone),
        ("an id that fits no topic", hello(&hub, "a+b")),
    ] {
        assert_eq!(code(&hub, connect).await, ConnectReturnCode::NotAuthorized, "{what}");
    }
    assert_eq!(code(&hub, good()).await, ConnectReturnCode::Success);
}

#[tokio::test]
async fn both_keys_and_a_device_policy_let_in() {
    let hub = Hub::start();
    let device = Service::owner(&hub).read("/devices/gw1").await;
    let secondary: SecretKey =
        device["authentication"]["symmetricKey"]["secondaryKey"].as_str().unwrap().parse().unwrap();
    let token = sas::sign("localhost/devices/gw1", &secondary, now() + 60, None);
    let connect = with_password(hello(&hub, "gw1"), &token);
    assert_eq!(code(&hub, connect).await, ConnectReturnCode::Success);

    for (policy, expected) in
        [("device", ConnectReturnCode::Success), ("service", ConnectReturnCode::NotAuthorized)]
    {
        let text: ServiceConnectionString = hub.file(&format!("policies/{policy}")).parse().unwrap();
        let token = sas::sign("localhost/devices/gw1", &text.key, now() + 60, Some(policy));
        let connect = with_password(hello(&hub, "gw1"), &token);
        assert_eq!(code(&hub, connect).await, expected, "{policy}");
    }
}

#[tokio::test]
async fn a_token_for_another_device_does_not_let_in() {
    let hub = Hub::start();
    Service::owner(&hub).send("PUT", "/devices/gw10", json!({})).await;
    let other = hello(&hub, "gw10").login.unwrap().password;
    let connect = with_password(hello(&hub, "gw1"), &other);
    assert_eq!(code(&hub, connect).await, ConnectReturnCode::NotAuthorized);
}

#[tokio::test]
async fn the_newest_connection_wins() {
    let hub = Hub::start();
    let mut old = Device::connect(&hub, "gw1").await;
    let mut new = Device::connect(&hub, "gw1").await;
    old.expect_close().await;
    new.ping().await;
    assert_eq!(Service::owner(&hub).read("/twins/gw1").await["connectionState"], "Connected");
}

#[tokio::test]
async fn disabling_and_deleting_drop_the_connection() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    let mut device = Device::connect(&hub, "gw1").await;
    for (status, dropped) in [("enabled", false), ("disabled", true)] {
        service.change("/devices/gw1", json!({ "status": status })).await;
        if dropped {
            device.expect_close().await;
        } else {
            device.ping().await;
        }
    }
    service.send("PUT", "/devices/gw2", json!({})).await;
    let mut device = Device::connect(&hub, "gw2").await;
    assert_eq!(service.send("DELETE", "/devices/gw2", json!(null)).await.status, 204);
    device.expect_close().await;
}

#[tokio::test]
async fn a_connection_ends_with_its_token() {
    let hub = Hub::start();
    let expiry = now() + 4;
    let (mut device, ack) = Device::say_hello(&hub, hello_until(&hub, "gw1", expiry)).await;
    assert_eq!(ack.code, ConnectReturnCode::Success);
    device.expect_close().await;
    assert!((expiry..expiry + 10).contains(&now()), "closed at the token's end, not before");
}

#[tokio::test]
async fn a_connection_ends_after_one_and_a_half_keep_alives_of_silence() {
    let hub = Hub::start();
    let mut connect = hello(&hub, "gw1");
    connect.keep_alive = 1;
    let start = std::time::Instant::now();
    let (mut device, _) = Device::say_hello(&hub, connect).await;
    device.expect_close().await;
    assert!(start.elapsed().as_millis() >= 1500, "{:?}", start.elapsed());
}

#[tokio::test]
async fn clients_that_say_nothing_hold_up_nobody() {
    let hub = Hub::start();
    let mut silent = Vec::new();
    for port in [hub.mqtt_port, hub.https_port] {
        for _ in 0..50 {
            silent.push(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
        }
    }
    let mut without_connect = Device::open(&hub).await;
    let start = std::time::Instant::now();
    Device::connect(&hub, "gw1").await.ping().await;
    Service::owner(&hub).read("/twins/gw1").await;
    // The silent clients are cut off after 10 s; this one is let in before.
    assert!(start.elapsed().as_secs() < 9, "{:?}", start.elapsed());
    without_connect.expect_close().await;
}
