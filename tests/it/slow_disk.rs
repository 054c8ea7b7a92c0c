//! A card that stalls while it writes, as worn ones do for many seconds.

use std::thread::scope;

use iotdm_tests::{Bus, Daemon, Disk, Hub, Transcript};
use serde_json::json;

/// A daemon whose disk can be held, which tells its watchdog twice a second that
/// it is alive, and whose connection ends after 3 s without a sign of life.
fn start(hub: &Hub, bus: &Bus, disk: &Disk) -> Daemon {
    let mut daemon = Daemon::with_logind(hub, bus);
    daemon.configure("[hub]\nkeep_alive = \"2s\"\n");
    daemon.environment(disk.environment());
    daemon.environment([("WATCHDOG_USEC", "1000000".into())]);
    daemon.start_connected(hub);
    daemon
}

#[test]
fn while_the_disk_stalls_the_connection_and_the_watchdog_are_served() {
    let (hub, bus, disk) = (Hub::start(), Bus::start(), Disk::new());
    let logind = bus.logind();
    let mut daemon = start(&hub, &bus, &disk);
    let answered = Transcript::default();
    let ask = |id: &str| {
        let answer = hub.invoke("rebootDevice", &json!({ "id": id }).to_string());
        answered.push(format!("answered {id}"));
        answer
    };
    disk.hold();
    scope(|scope| {
        let first = scope.spawn(|| ask("r-1"));
        let slow = daemon.notified.wait_for("waiting for the disk");
        assert!(slow.starts_with("STATUS=connected to "), "{slow}");
        // Neither is answered before the record is on disk: the second would hear
        // of a request that may not exist.
        let second = scope.spawn(|| ask("r-2"));
        let alive = daemon.notified.count("WATCHDOG=1");
        daemon.notified.wait_for_nth("WATCHDOG=1", alive + 16);
        assert_eq!((answered.lines(), logind.calls.count("Reboot(")), (Vec::new(), 0));
        disk.release();
        assert_eq!(first.join().unwrap().0, 200);
        let (status, refusal) = second.join().unwrap();
        assert_eq!(status, 409, "{refusal}");
    });
    logind.calls.wait_for("Reboot(false)");
    assert_eq!(daemon.log.count("connected to localhost as gw1"), 1, "{:?}", daemon.log.lines());
    daemon.kill();
    assert_eq!(logind.calls.count("Reboot("), 1);
}

#[test]
fn killed_while_the_disk_stalls_it_has_promised_nothing() {
    let (hub, bus, disk) = (Hub::start(), Bus::start(), Disk::new());
    let logind = bus.logind();
    let mut daemon = start(&hub, &bus, &disk);
    disk.hold();
    scope(|scope| {
        let call = scope.spawn(|| hub.ctl(&["invoke", "gw1", "rebootDevice", "--response-timeout", "15"]));
        daemon.notified.wait_for("waiting for the disk");
        daemon.kill();
        let ran = call.join().unwrap();
        assert!(matches!(ran.code, 1 | 4 | 6), "{ran:?}");
    });
    disk.release();
    daemon.start();
    daemon.notified.wait_for("STATUS=connected to");
    // What had not reached the disk whole is not carried out.
    assert_eq!(hub.invoke("rebootDevice", r#"{"id":"r-2"}"#).0, 200);
    logind.calls.wait_for("Reboot(false)");
    assert_eq!(hub.reported()["reboot"]["id"], "r-2");
}
