//! What the daemon tells programs and people on its machine.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use iotdm_tests::{Bus, Daemon, Hub, wait_until};
use serde_json::{Value, json};

fn read(file: &Path) -> Value {
    fs::read(file).map_or(Value::Null, |bytes| serde_json::from_slice(&bytes).unwrap())
}

#[test]
fn the_status_file_follows_the_connection_and_the_request_and_goes_with_the_daemon() {
    let hub = Hub::start();
    let mut daemon = Daemon::simulating(&hub);
    let file = daemon.runtime_dir().join("status.json");
    let waits_for = |what: &str, condition: &dyn Fn(&Value) -> bool| {
        wait_until(what, || condition(&read(&file)));
        read(&file)
    };
    daemon.start_connected(&hub);
    let first = waits_for("an acknowledgement", &|status| status["lastAcknowledgement"].is_string());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o644);
    assert_eq!((&first["connected"], &first["deviceId"]), (&json!(true), &json!("gw1")));
    assert!(first["hub"].as_str().unwrap().starts_with("localhost"), "{first}");
    let reported = hub.reported();
    assert_eq!((&first["boot"], &first["agent"]), (&reported["boot"], &reported["agent"]));
    assert_eq!(first["bootId"], reported["boot"]["bootId"]);
    assert!(Path::new("/proc").join(first["pid"].to_string()).exists());
    assert!(first["status"].as_str().unwrap().ends_with("no reboot pending"), "{first}");
    assert_eq!((first.get("outage"), first.get("reboot")), (None, None));

    hub.invoke("rebootDevice", r#"{"id":"r-1","delaySeconds":3600,"reason":"kernel update"}"#);
    let scheduled = waits_for("the request", &|status| status["reboot"]["status"] == "scheduled");
    assert_eq!((&scheduled["reboot"]["id"], &scheduled["since"]), (&json!("r-1"), &first["since"]));
    wait_until("the report", || hub.reported()["reboot"]["id"] == "r-1");
    let told = waits_for("its acknowledgement", &|status| {
        status["lastAcknowledgement"].as_str() >= hub.reported()["reboot"]["$lastUpdated"].as_str()
    });
    assert!(!told.to_string().contains("SharedAccess"), "{told}");

    let stopped = hub.stop();
    let alone = waits_for("an outage", &|status| status["connected"] == false);
    assert!(alone["outage"].is_string() && alone["nextAttempt"].is_string(), "{alone}");
    assert_ne!(alone["since"], first["since"]);
    assert_eq!(alone["lastAcknowledgement"], told["lastAcknowledgement"]);
    let hub = stopped.start();
    let again = waits_for("the hub", &|status| status["connected"] == true);
    assert_eq!((again.get("outage"), again.get("nextAttempt")), (None, None));
    assert_eq!(hub.reported()["reboot"]["status"], "scheduled");

    assert!(daemon.stop().success());
    assert!(!file.exists());
}

#[test]
fn what_would_end_a_hang_is_systemds_word_and_is_told_by_dry_runs_and_the_status() {
    let (hub, bus) = (Hub::start(), Bus::start());
    let _logind = bus.logind();
    let mut daemon = Daemon::with_logind(&hub, &bus);
    daemon.start_connected(&hub);
    let status = || hub.invoke("getRebootStatus", "{}").1["ifItHangs"].clone();
    let forced = |seconds: Value| json!({"watchdog": null, "forcedAfterSeconds": seconds});
    // Nobody to ask.
    assert_eq!(status(), forced(Value::Null));
    let systemd = bus.systemd("running", &[]);
    let expected = forced(json!(1800));
    if Path::new("/sys/class/watchdog/watchdog0").exists() {
        assert_eq!(status()["watchdog"], 600);
    } else {
        assert_eq!(status(), expected);
    }
    let (code, checked) = hub.invoke("rebootDevice", r#"{"check":true}"#);
    assert_eq!((code, &checked["status"]), (200, &json!("checked")));
    assert_eq!(checked["ifItHangs"]["forcedAfterSeconds"], 1800);
    assert_eq!(checked["message"], "the device would reboot at once");
    for (limit, action, seconds) in [
        (90_500_000, "reboot-force", json!(91)),
        (u64::MAX, "reboot-force", Value::Null),
        (90_000_000, "none", Value::Null),
        (90_000_000, "poweroff-force", Value::Null),
    ] {
        systemd.limit_reboots(limit, action);
        assert_eq!(status()["forcedAfterSeconds"], seconds, "{limit} {action}");
    }
    // A real request says nothing of it.
    let (_, accepted) = hub.invoke("rebootDevice", r#"{"id":"r-1","delaySeconds":3600}"#);
    assert_eq!(accepted.get("ifItHangs"), None);
    assert!(daemon.stop().success());
}
