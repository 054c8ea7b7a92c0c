//! What the daemon remembers of earlier requests, and its files that are lost or
//! damaged while it runs or is away.

use std::fs;

use iotdm_tests::{Daemon, Hub, wait_until};
use serde_json::{Value, json};

/// Asks for a reboot in an hour and calls it off; the reply to the first.
fn asks_and_cancels(hub: &Hub, id: &str) -> (i64, Value) {
    let reply = asks(hub, id);
    if reply.0 == 200 {
        assert_eq!(hub.invoke("cancelReboot", "null").0, 200);
    }
    reply
}

fn asks(hub: &Hub, id: &str) -> (i64, Value) {
    hub.invoke("rebootDevice", &json!({"id": id, "delaySeconds": 3600, "mine": 1}).to_string())
}

#[test]
fn of_a_loop_of_asking_and_cancelling_thirty_are_granted_and_known_after_kills() {
    let hub = Hub::start();
    let mut daemon = Daemon::simulating(&hub);
    daemon.start_connected(&hub);
    let replies: Vec<Value> = (0..30)
        .map(|number| {
            if number % 7 == 6 {
                daemon.kill();
                daemon.start_connected(&hub);
            }
            let (status, body) = asks_and_cancels(&hub, &format!("r-{number}"));
            assert_eq!((status, &body["ignored"]), (200, &json!(["mine"])), "{number}: {body}");
            body
        })
        .collect();
    let (status, refused) = asks(&hub, "r-30");
    assert_eq!((status, &refused["error"]["code"]), (429, &json!("rateLimited")), "{refused}");
    let seconds = refused["error"]["retryAfterSeconds"].as_u64().unwrap();
    assert!((3000..=3600).contains(&seconds), "{seconds}");
    // Some are in the record, the rest in a file of their own; a line for each.
    let lines = |name: &str| fs::read_to_string(daemon.state_dir().join(name)).unwrap().lines().count();
    assert_eq!(lines("simulated-ids.jsonl"), 16);
    for (number, reply) in replies.iter().enumerate() {
        assert_eq!(asks(&hub, &format!("r-{number}")), (200, reply.clone()), "{number}");
    }

    daemon.stop();
    let file = daemon.state_dir().join("simulated-ids.jsonl");
    let mut bytes = fs::read(&file).unwrap();
    let half = bytes.len() / 2;
    bytes[half] ^= 1;
    bytes.truncate(bytes.len() - 20);
    fs::write(&file, bytes).unwrap();
    daemon.start();
    let aside = daemon.state_dir().join("simulated-ids.damaged-0");
    wait_until("the report of the damage", || hub.reported()["agent"]["damagedRecord"] == json!(aside));
    assert!(daemon.log.wait_for("was damaged").contains(aside.to_str().unwrap()));
    assert_eq!(fs::read_to_string(&aside).unwrap().lines().count(), 2);
    assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 14, "written anew");
    let known = replies.iter().enumerate().filter(|(number, _)| asks(&hub, &format!("r-{number}")).0 == 200);
    assert_eq!(known.count(), 28, "of two, nothing is known but that there have been too many");
}

#[test]
fn a_state_directory_that_is_removed_costs_neither_a_request_nor_an_outcome() {
    let hub = Hub::start();
    let mut daemon = Daemon::simulating(&hub);
    daemon.start_connected(&hub);
    for number in 0..18 {
        assert_eq!(asks_and_cancels(&hub, &format!("r-{number}")).0, 200);
    }
    fs::remove_dir_all(daemon.state_dir()).unwrap();
    let (status, body) = hub.invoke("rebootDevice", r#"{"id":"again"}"#);
    assert_eq!(status, 200, "{body}");
    wait_until("the outcome", || {
        let reboot = &hub.reported()["reboot"];
        (&reboot["id"], &reboot["status"]) == (&json!("again"), &json!("completed"))
    });
    assert!(daemon.log.wait_for("this is a new one").contains("state directory"));
    daemon.kill();
    daemon.start_connected(&hub);
    assert!((0..18).all(|number| asks(&hub, &format!("r-{number}")).0 == 200));
    assert_eq!(hub.invoke("rebootDevice", r#"{"id":"again"}"#), (200, body));

    // Where it cannot be made again, that is said, and nothing is promised.
    fs::remove_dir_all(daemon.state_dir()).unwrap();
    fs::write(daemon.state_dir(), "in the way").unwrap();
    let (status, refused) = hub.invoke("rebootDevice", r#"{"id":"third"}"#);
    assert_eq!((status, &refused["error"]["code"]), (500, &json!("storageFailed")), "{refused}");
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(message.contains("is gone and cannot be made again"), "{message}");
    // The start without a record takes nothing back that was told.
    daemon.kill();
    fs::remove_file(daemon.state_dir()).unwrap();
    daemon.start();
    let again = daemon.log.wait_for("remembers");
    assert!(again.contains("again"), "{again}");
    assert_eq!(hub.invoke("rebootDevice", r#"{"check":true}"#).0, 200);
    let reboot = hub.reported()["reboot"].clone();
    assert_eq!((&reboot["id"], &reboot["status"]), (&json!("again"), &json!("completed")), "{reboot}");
}
