//! Reboots wished for in the twin's desired properties.

use iotdm_tests::{Daemon, Hub, wait_until};
use serde_json::{Value, json};

/// What the daemon logs before it has the machine rebooted.
const GOES_DOWN: &str = "is about to be rebooted";

fn wish(hub: &Hub, wish: Value) {
    let desired = json!({ "reboot": wish }).to_string();
    let ran = hub.ctl(&["twin", "update", "gw1", "--desired", &desired]);
    assert_eq!(ran.code, 0, "{ran:?}");
}

fn reboot(hub: &Hub) -> Value {
    hub.reported().get("reboot").cloned().unwrap_or_default()
}

#[test]
fn a_device_that_was_away_reboots_once_when_it_is_back() {
    let hub = Hub::start();
    wish(&hub, json!({"id": "w-1", "reason": "kernel update"}));
    let mut daemon = Daemon::simulating(&hub);
    daemon.start_connected(&hub);
    wait_until("the outcome", || reboot(&hub)["status"] == "completed");
    let done = reboot(&hub);
    assert_eq!(
        json!([done["id"], done["requestedBy"], done["reason"]]),
        json!(["w-1", "twin", "kernel update"])
    );
    let boot = hub.reported()["boot"].clone();
    assert_eq!(boot["cause"], "requested");
    assert!(done["previousBootId"].is_string());
    assert_ne!(boot["bootId"], done["previousBootId"]);

    // The wish still stands; neither a new connection, nor a new start, nor a
    // call with its id carries it out again.
    hub.fault(&["gw1", "drop-link"]);
    assert_eq!(daemon.log.count(GOES_DOWN), 1);
    daemon.stop();
    daemon.start_connected(&hub);
    assert_eq!(hub.invoke("rebootDevice", r#"{"id":"w-1"}"#).1["id"], "w-1");
    assert_eq!(daemon.log.count(GOES_DOWN), 0);
    // Nor does a daemon that has lost its record.
    daemon.stop();
    std::fs::write(daemon.state_dir().join("simulated-state.json"), "damaged").unwrap();
    daemon.start();
    wait_until("the report of the damage", || hub.reported()["agent"].get("damagedRecord").is_some());
    assert_eq!(hub.invoke("rebootDevice", r#"{"id":"w-1"}"#).0, 200);
    assert_eq!(daemon.log.count(GOES_DOWN), 0);
    assert_eq!(hub.reported()["boot"]["bootId"], boot["bootId"]);
}

#[test]
fn a_wish_is_scheduled_changed_and_taken_back() {
    let hub = Hub::start();
    let mut daemon = Daemon::simulating(&hub);
    daemon.start_connected(&hub);
    wish(&hub, json!({"id": "w-1", "notBefore": "2099-01-01T00:00:00Z"}));
    wait_until("the schedule", || reboot(&hub)["status"] == "scheduled");
    wish(&hub, json!({"notBefore": "2099-01-02T00:00:00Z"}));
    wait_until("the change", || reboot(&hub)["notBefore"] == "2099-01-02T00:00:00.000Z");
    let (status, body) = hub.invoke("rebootDevice", r#"{"id":"r-1"}"#);
    assert_eq!((status, &body["error"]["id"]), (409, &json!("w-1")));
    wish(&hub, Value::Null);
    wait_until("the cancellation", || reboot(&hub)["status"] == "cancelled");

    // A wish that is taken back while the device is away.
    wish(&hub, json!({"id": "w-2", "notBefore": "2099-01-01T00:00:00Z"}));
    wait_until("the schedule", || reboot(&hub)["status"] == "scheduled");
    daemon.kill();
    wish(&hub, Value::Null);
    daemon.start();
    wait_until("the cancellation", || reboot(&hub)["status"] == "cancelled");
    assert_eq!(reboot(&hub)["id"], "w-2");
}

#[test]
fn a_wish_too_late_or_without_sense_is_reported_and_leaves_the_daemon_alone() {
    let hub = Hub::start();
    let mut daemon = Daemon::simulating(&hub);
    daemon.start_connected(&hub);
    wish(&hub, json!({"id": "w-1", "deadline": "2026-01-01T00:00:00Z"}));
    wait_until("the first outcome", || reboot(&hub)["error"]["code"] == "expired");
    wish(&hub, json!({"id": "w-2", "deadline": null, "notBefore": "tomorrow"}));
    wait_until("the second outcome", || reboot(&hub)["error"]["code"] == "invalidPayload");
    assert_eq!(reboot(&hub)["error"]["message"], "notBefore: must be an RFC 3339 time, not \"tomorrow\"");
    wish(&hub, json!("now"));
    let wish_error = || hub.reported()["agent"].get("wishError").cloned();
    wait_until("the complaint", || wish_error().is_some());
    assert_eq!(wish_error().unwrap(), "reboot: must be an object, not \"now\"");
    wish(&hub, Value::Null);
    wait_until("the end of the complaint", || wish_error().is_none());
    assert_eq!(hub.invoke("rebootDevice", "{}").0, 200);
}
