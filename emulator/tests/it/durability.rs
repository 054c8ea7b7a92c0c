//! The emulator is killed at random instants while devices and services write;
//! nothing that was acknowledged may be missing afterwards.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use iotdm_tests::Hub;
use rumqttc::mqttbytes::v4::Packet;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::support::DEADLINE;
use crate::support::device::{Device, TWIN_RESPONSES};
use crate::support::service::Service;

/// Whose reports are written together with each other's.
const REPORTERS: [&str; 6] = ["gw1", "gw2", "gw3", "gw4", "gw5", "gw6"];

/// How often the emulator is killed.
const ROUNDS: u64 = 12;

/// How many reports the emulator acknowledges at least before it is killed, two
/// by each device if they take turns; up to as many more are drawn, so that no
/// instant is left out.
const LEAST: u64 = 2 * REPORTERS.len() as u64;

/// What was acknowledged since the emulator's start.
#[derive(Default)]
struct Acknowledged {
    reports: u64,
    devices: u64,
}

/// Reports counting numbers until the connection breaks; the last one that
/// was acknowledged, by PUBACK or by the twin's reply.
async fn report(mut device: Device, mut number: u64, all: watch::Sender<Acknowledged>) -> u64 {
    let mut acknowledged = number;
    loop {
        number += 1;
        let topic = format!("$iothub/twin/PATCH/properties/reported/?$rid={number}");
        device.publish_without_waiting(&topic, &json!({ "number": number }).to_string()).await;
        let mut answers = 0;
        while answers < 2 {
            match device.read().await {
                Some(Packet::PubAck(_)) => answers += 1,
                Some(Packet::Publish(publish)) => {
                    assert!(
                        publish.topic.contains(&format!("/res/204/?$rid={number}&")),
                        "{}",
                        publish.topic
                    );
                    answers += 1;
                }
                Some(other) => panic!("{other:?}"),
                None => return acknowledged,
            }
            // Either answer is an acknowledgement.
            if acknowledged != number {
                acknowledged = number;
                all.send_modify(|all| all.reports += 1);
            }
        }
    }
}

/// Creates devices with a tag each until the service is gone; the last number
/// for which both were acknowledged.
async fn create(service: Service, mut number: u64, all: watch::Sender<Acknowledged>) -> u64 {
    loop {
        number += 1;
        let device = service.request("PUT", &format!("/devices/d{number}")).json(&json!({}));
        let tag = service.request("PATCH", &format!("/twins/d{number}"));
        for request in [device, tag.json(&json!({"tags": {"n": number}}))] {
            match request.send().await {
                // 409: created in the round before, just before the kill.
                Ok(response) => assert!(matches!(response.status().as_u16(), 200 | 409), "{response:?}"),
                Err(_) => return number - 1,
            }
        }
        all.send_modify(|all| all.devices += 1);
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let options: Vec<&str> = REPORTERS.iter().flat_map(|id| ["--device", id]).collect();
    let (mut reported, mut created) = ([0; REPORTERS.len()], 0);
    for round in 0..ROUNDS {
        let mut hub = Hub::start_in(dir.path(), &options);
        let service = Service::owner(&hub);
        let mut reports = Vec::new();
        for (id, reported) in REPORTERS.iter().zip(reported) {
            let twin = service.read(&format!("/twins/{id}")).await;
            let number = twin["properties"]["reported"]["number"].as_u64().unwrap_or(0);
            // What was in flight may have taken effect.
            assert!((reported..=reported + 1).contains(&number), "round {round}: {number}, not {reported}");
            let device = Device::listening(&hub, id, &[TWIN_RESPONSES]).await;
            reports.push((device, number));
        }
        for n in 1..=created {
            assert_eq!(
                service.read(&format!("/twins/d{n}")).await["tags"],
                json!({ "n": n }),
                "round {round}"
            );
            assert!(hub.file(&format!("devices/d{n}")).contains(&format!("DeviceId=d{n};")));
        }

        let (all, mut seen) = watch::channel(Acknowledged::default());
        let reports: Vec<_> = reports
            .into_iter()
            .map(|(device, number)| tokio::spawn(report(device, number, all.clone())))
            .collect();
        let creations = tokio::spawn(create(service, created, all));
        let wanted = LEAST + RandomState::new().build_hasher().finish() % LEAST;
        let enough = seen.wait_for(|all| all.reports >= wanted && all.devices > 0);
        drop(timeout(DEADLINE, enough).await.expect("too little is acknowledged").unwrap());
        hub.kill();
        for (reported, report) in reported.iter_mut().zip(reports) {
            *reported = report.await.unwrap();
        }
        created = creations.await.unwrap();
    }
    assert!(
        reported.iter().sum::<u64>() >= ROUNDS * LEAST && created >= ROUNDS,
        "{reported:?} reports, {created} devices: fewer than were acknowledged"
    );
}

#[tokio::test]
async fn a_deleted_device_stays_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::start_in(dir.path(), &["--device", "gw1", "--device", "gw2"]);
    let deleted = Service::owner(&hub).send("DELETE", "/devices/gw1", Value::Null).await;
    assert_eq!(deleted.status, 204);
    hub.kill();
    let hub = Hub::start_in(dir.path(), &[]);
    Service::owner(&hub).get("/devices/gw1").await.refused(404, "DeviceNotFound");
    Service::owner(&hub).read("/devices/gw2").await;
    assert!(!hub.data().join("devices/gw1").exists());
}

#[tokio::test]
async fn files_are_mended_after_a_kill_before_they_were_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::start_in(dir.path(), &["--device", "gw1", "--device", "gw2"]);
    let names = ["devices/gw1", "devices/gw2"];
    let before = names.map(|name| hub.file(name));
    hub.kill();
    std::fs::remove_file(dir.path().join(names[0])).unwrap();
    std::fs::write(dir.path().join(names[1]), "HostName=localhost;DeviceId=gw2;SharedAccessKey=b2xk")
        .unwrap();
    std::fs::write(dir.path().join("devices/gone"), "HostName=localhost;DeviceId=gone").unwrap();
    let hub = Hub::start_in(dir.path(), &["--mqtt-port", &hub.mqtt_port.to_string()]);
    let mended = async {
        for (name, before) in names.iter().zip(before) {
            while std::fs::read_to_string(dir.path().join(name)).ok().as_ref() != Some(&before) {
                tokio::task::yield_now().await;
            }
        }
    };
    timeout(DEADLINE, mended).await.expect("not mended");
    assert!(!hub.data().join("devices/gone").exists());
}
