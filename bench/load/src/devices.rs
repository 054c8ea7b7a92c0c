//! Devices of an emulator.

use std::path::Path;
use std::time::Duration;

use iotdm_proto::{DeviceAuth, DeviceConnectionString, sas};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::Connect;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::client::{Client, Tls, tls};
use crate::measure::make;
use crate::service::in_an_hour;

const METHODS: &str = "$iothub/methods/POST/#";
const TWIN: &str = "$iothub/twin/res/#";
const DESIRED: &str = "$iothub/twin/PATCH/properties/desired/#";
const REPORT: &str = "$iothub/twin/PATCH/properties/reported/?$rid=1";

/// The port where the emulator with this directory takes MQTT.
fn port(connection_string: &DeviceConnectionString) -> u16 {
    connection_string.gateway.as_ref().map_or(8883, |gateway| gateway.port_or(8883))
}

/// A connected device that listens to calls and to its twin.
pub async fn connect(data: &Path, device: &str, tls: Tls) -> Client {
    let text = std::fs::read_to_string(data.join("devices").join(device)).unwrap();
    let parsed: DeviceConnectionString = text.parse().unwrap();
    let DeviceAuth::Key(key) = &parsed.auth else { panic!("{text}") };
    let mut connect = Connect::new(device);
    (connect.clean_session, connect.keep_alive) = (false, 0);
    let host = &parsed.host_name;
    let password = sas::sign(&format!("{host}/devices/{device}"), key, in_an_hour(), None);
    connect.set_login(format!("{host}/{device}/?api-version=2021-04-12"), password);
    Client::connect(tls, port(&parsed), connect, &[METHODS, TWIN, DESIRED]).await
}

/// Reports, and waits for the acknowledgement.
pub async fn report(client: &mut Client, patch: &str) {
    client.publish(REPORT, QoS::AtLeastOnce, patch).await;
    let (answer, _) = client.message().await;
    assert!(answer.starts_with("$iothub/twin/res/204/"), "{answer}");
}

/// Replies to a call that came on `topic`.
pub async fn reply(client: &mut Client, topic: &str, payload: &str) {
    let rid = topic.rsplit('=').next().unwrap();
    client.publish(&format!("$iothub/methods/res/200/?$rid={rid}"), QoS::AtLeastOnce, payload).await;
}

/// Answers each call with an empty object, until it is killed.
pub async fn echo(data: &Path, device: &str) {
    let mut client = connect(data, device, tls(&data.join("ca.pem"))).await;
    println!("ready");
    answer(&mut client).await;
}

/// Answers each call on a connection that is there already.
pub async fn answer(client: &mut Client) {
    loop {
        let (topic, _) = client.message().await;
        reply(client, &topic, "{}").await;
    }
}

/// Devices that say that they have rebooted, when they are told to: at once, or after
/// they were `away`.
pub async fn fleet(data: &Path, count: usize, away: Option<Duration>) {
    let tls = tls(&data.join("ca.pem"));
    let one = |n: usize| {
        let (data, tls) = (data.to_owned(), tls.clone());
        async move {
            let mut client = connect(&data, &format!("d{n}"), tls).await;
            report(&mut client, r#"{"agent":{"version":"1.0.0","methods":["rebootDevice"]}}"#).await;
            client
        }
    };
    let clients = make("connections a second", count, one).await;
    println!("ready");
    let mut rebooting = JoinSet::new();
    for (n, mut client) in clients.into_iter().enumerate() {
        rebooting.spawn(async move {
            loop {
                let (topic, payload) = client.message().await;
                if !topic.starts_with("$iothub/methods/") {
                    continue;
                }
                let request: Value = serde_json::from_slice(&payload).unwrap();
                let accepted =
                    json!({"id": request["id"], "status": "accepted", "bootId": "one", "ignored": []});
                if away.is_some() {
                    println!("away d{n}");
                }
                reply(&mut client, &topic, &accepted.to_string()).await;
                if let Some(away) = away {
                    let rebooting = json!({"reboot": {"id": request["id"], "status": "rebooting"}});
                    report(&mut client, &rebooting.to_string()).await;
                    sleep(away).await;
                    // Said before the hub is told, who then lets the next one go.
                    println!("back d{n}");
                }
                let done = json!({
                    "rebootTime": "2026-11-22T18:36:07.412Z",
                    "reboot": {"id": request["id"], "status": "completed", "bootId": "two"},
                    "boot": {"bootId": "two", "cause": "requested", "clock": "synchronized"},
                });
                report(&mut client, &done.to_string()).await;
            }
        });
    }
    rebooting.join_all().await;
}
