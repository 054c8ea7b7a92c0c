//! The device's own limits on reboots.

use iotdm_proto::Time;
use iotdm_tests::{Daemon, Hub, wait_until};

#[test]
fn too_many_reboots_are_refused_also_after_the_reboot() {
    let hub = Hub::start();
    let mut daemon = Daemon::simulating(&hub);
    daemon.configure("reboot.max_per_hour = 1\n");
    daemon.start_connected(&hub);
    assert_eq!(hub.invoke("rebootDevice", r#"{"id":"r-1"}"#).0, 200);
    wait_until("the outcome", || hub.reported()["reboot"]["status"] == "completed");
    let refused = hub.ctl(&["reboot", "gw1", "--id", "r-2"]);
    assert_eq!(refused.code, 3, "{refused:?}");
    let (status, body) = hub.invoke("rebootDevice", r#"{"id":"r-2"}"#);
    assert_eq!((status, body["error"]["code"].as_str()), (429, Some("rateLimited")));
    let seconds = body["error"]["retryAfterSeconds"].as_u64().unwrap();
    assert!((1..=3600).contains(&seconds), "{body}");
    // The first one still has its answer.
    assert_eq!(hub.invoke("rebootDevice", r#"{"id":"r-1"}"#).0, 200);
}

#[test]
fn outside_the_windows_it_is_scheduled() {
    let hub = Hub::start();
    let mut daemon = Daemon::simulating(&hub);
    // The minute 12 hours from now, so that the window is not open while this runs.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let minute = |seconds: u64| format!("{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60);
    let window = format!("{}-{}", minute(now + 12 * 3600), minute(now + 12 * 3600 + 60));
    daemon.configure(&format!("reboot.windows = [\"{window}\"]\n"));
    daemon.start_connected(&hub);
    let (status, body) = hub.invoke("rebootDevice", r#"{"id":"r-1"}"#);
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["status"], "scheduled");
    assert!(body["message"].as_str().unwrap().contains("when its next window opens"), "{body}");
    wait_until("the schedule", || hub.reported()["reboot"]["status"] == "scheduled");
    assert_eq!(hub.reported()["reboot"]["notBefore"], body["notBefore"]);
}

#[test]
fn a_device_has_its_own_turn_in_a_window_always_the_same() {
    let hub = Hub::start();
    let mut daemon = Daemon::simulating(&hub);
    let hour = 3600 * 1000;
    // Two hours from the full hour on that is at least 11 hours away.
    let now = Time::from(std::time::SystemTime::now()).unix_millis();
    let opens = (now / hour + 12) * hour;
    let time = |millis: i64| format!("{:02}:00", millis / hour % 24);
    let window = format!("{}-{}", time(opens), time(opens + 2 * hour));
    daemon.configure(&format!("reboot.windows = [\"{window}\"]\n"));
    daemon.start_connected(&hub);
    let mut turns = Vec::new();
    for id in ["r-1", "r-2"] {
        let (status, body) = hub.invoke("rebootDevice", &format!(r#"{{"id":"{id}"}}"#));
        assert_eq!((status, &body["status"]), (200, &"scheduled".into()), "{body}");
        let turn: Time = body["notBefore"].as_str().unwrap().parse().unwrap();
        let after = turn.unix_millis() - opens;
        assert!((0..hour / 2).contains(&after), "{body}");
        turns.push(turn);
        // Over a restart the request keeps its turn.
        daemon.kill();
        daemon.start_connected(&hub);
        let (_, status) = hub.invoke("getRebootStatus", "null");
        assert_eq!(status["reboot"]["notBefore"], body["notBefore"]);
        assert_eq!(hub.invoke("cancelReboot", "null").0, 200);
    }
    assert_eq!(turns[0], turns[1]);
    // Asked for in the middle of a window, it has not waited for that.
    let middle = Time::from_unix_millis(opens + hour).to_string();
    let (_, body) = hub.invoke("rebootDevice", &format!(r#"{{"id":"r-3","at":"{middle}"}}"#));
    assert_eq!(body["notBefore"], middle);
    assert_eq!(hub.invoke("cancelReboot", "null").0, 200);
    // And what falls into the reserve waits for the next day.
    let late = Time::from_unix_millis(opens + 2 * hour - 9 * 60_000);
    let (_, body) = hub.invoke("rebootDevice", &format!(r#"{{"id":"r-4","at":"{late}"}}"#));
    let next = turns[0].unix_millis() + 24 * hour;
    assert_eq!(body["notBefore"], Time::from_unix_millis(next).to_string(), "{body}");
}

#[test]
fn a_reboot_only_where_it_is_needed_is_none_where_nobody_can_tell() {
    let hub = Hub::start();
    let mut daemon = Daemon::simulating(&hub);
    daemon.start_connected(&hub);
    assert_eq!(hub.reported()["agent"]["features"], serde_json::json!(["onlyIfRequired", "preflight"]));
    let (status, body) = hub.invoke("rebootDevice", r#"{"id":"r-1","onlyIfRequired":true}"#);
    assert_eq!((status, &body["status"], &body["id"]), (200, &"notNeeded".into(), &"r-1".into()), "{body}");
    let (status, body) = hub.invoke("rebootDevice", r#"{"id":"r-1","onlyOnSundays":true}"#);
    assert_eq!((status, body["error"]["code"].as_str()), (400, Some("invalidPayload")));
    assert!(body["error"]["message"].as_str().unwrap().starts_with("onlyOnSundays: "), "{body}");
    hub.ctl(&["twin", "update", "gw1", "--desired", r#"{"reboot":{"id":"w","onlyIfRequired":true}}"#])
        .ends(0, &[]);
    wait_until("the wish's outcome", || hub.reported()["reboot"]["status"] == "notNeeded");
    assert_eq!(hub.reported()["agent"]["lastWish"], "w");
    // A request that holds nothing back is none of that.
    assert_eq!(hub.invoke("rebootDevice", r#"{"id":"r-1"}"#).0, 200);
    wait_until("the outcome", || hub.reported()["reboot"]["id"] == "r-1");
}
