//! What the daemon tells programs and people on its machine.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use iotdm_tests::{Daemon, Hub, wait_until};
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
