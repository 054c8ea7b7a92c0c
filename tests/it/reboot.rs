//! `rebootDevice` from the operator's tool to the login manager and back.

use iotdm_tests::{Bus, Daemon, Hub, wait_until};
use serde_json::json;

/// What the daemon logs before it has the machine rebooted.
const GOES_DOWN: &str = "is about to be rebooted";

/// What the daemon logs when it asked for a lock and got none.
const NO_LOCK: &str = "gives no lock";

#[test]
fn the_operator_reboots_a_device_and_sees_it_back() {
    let hub = Hub::start();
    let mut daemon = Daemon::simulating(&hub);
    daemon.start_connected(&hub);
    let before = hub.reported();
    assert_eq!(before["boot"]["cause"], "unknown");
    assert_eq!(before.get("rebootTime"), None, "nothing is known to have rebooted yet");

    let ran = hub.ctl(&["reboot", "gw1", "--reason", "kernel update", "--id", "r-1", "--interval", "100ms"]);
    assert_eq!(ran.code, 0, "{ran:?}");

    let after = hub.reported();
    assert!(ran.stdout.contains(after["rebootTime"].as_str().unwrap()), "{ran:?}");
    assert_eq!(after["rebootTime"], after["boot"]["bootTime"]);
    assert_eq!(after["boot"]["cause"], "requested");
    let reboot = &after["reboot"];
    assert_eq!(
        json!([reboot["id"], reboot["status"], reboot["reason"], reboot["requestedBy"]]),
        json!(["r-1", "completed", "kernel update", "method"])
    );
    assert_eq!(reboot["previousBootId"], before["boot"]["bootId"]);
    assert_eq!(reboot["bootId"], after["boot"]["bootId"]);
    assert_ne!(reboot["previousBootId"], reboot["bootId"]);
    assert!(reboot["downSeconds"].as_f64().unwrap() >= 0.0);
    assert!(daemon.stop().success());
}

#[test]
fn the_same_id_again_gets_the_same_answer_and_no_second_reboot() {
    let hub = Hub::start();
    let mut daemon = Daemon::simulating(&hub);
    daemon.start_connected(&hub);
    let (status, first) = hub.invoke("rebootDevice", r#"{"id":"r-1"}"#);
    assert_eq!((status, first["status"].as_str()), (200, Some("accepted")));
    wait_until("the outcome", || hub.reported()["reboot"]["status"] == "completed");
    let boot = hub.reported()["boot"]["bootId"].clone();
    assert_eq!(hub.invoke("rebootDevice", r#"{"id":"r-1"}"#), (200, first.clone()));
    assert_eq!(daemon.log.count(GOES_DOWN), 1);
    daemon.stop();
    daemon.start_connected(&hub);
    daemon.notified.wait_for("STATUS=connected");
    assert_eq!(hub.invoke("rebootDevice", r#"{"id":"r-1"}"#), (200, first));
    assert_eq!(daemon.log.count(GOES_DOWN), 0);
    assert_eq!(hub.reported()["boot"]["bootId"], boot);
}

#[test]
fn logind_is_asked_after_the_reply_and_the_report() {
    let (hub, bus) = (Hub::start(), Bus::start());
    let logind = bus.logind();
    let mut daemon = Daemon::with_logind(&hub, &bus);
    daemon.configure("reboot.ack_timeout = \"5m\"\nlog.level = \"debug\"\n");
    daemon.start_connected(&hub);
    logind.calls.wait_for("Inhibit(shutdown, iotdm-agentd, delay): ");
    hub.fault(&["gw1", "withhold-twin-reply"]);
    let (status, answer) = hub.invoke("rebootDevice", r#"{"id":"r-1","method_number":"42"}"#);
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["bootId"], hub.reported()["boot"]["bootId"]);
    assert_eq!(answer["ignored"], json!(["method_number"]));
    // The hub has the report, but has not acknowledged it.
    wait_until("the report", || hub.reported()["reboot"]["status"] == "rebooting");
    assert_eq!(logind.calls.count("Reboot("), 0);
    // A new connection finds that the hub has it.
    hub.fault(&["gw1", "drop-link"]);
    logind.calls.wait_for("Reboot(false)");
    assert_eq!(logind.calls.count("Reboot("), 1);

    // The shutdown waits until it is noted as an orderly one.
    logind.prepare_for_shutdown(true);
    // The lock whose reason was another one may be let go as late as now; it is
    // replaced before that, so that there is no lock only once the shutdown is noted.
    wait_until("the lock is let go", || {
        logind.calls.count("lock released") == logind.calls.count("Inhibit(shutdown")
    });
    let record = std::fs::read_to_string(daemon.state_dir().join("state.json")).unwrap();
    // logind's yes and its signal come in either order.
    assert!(record.contains("\"asked\":") && record.contains("\"goingDown\":true"), "{record}");
}

#[test]
fn without_acknowledgements_the_deadlines_let_it_go_on() {
    let (hub, bus) = (Hub::start(), Bus::start());
    let logind = bus.logind();
    let mut daemon = Daemon::with_logind(&hub, &bus);
    daemon.configure("[reboot]\nack_timeout = \"200ms\"\n");
    daemon.start_connected(&hub);
    hub.fault(&["gw1", "withhold-puback", "--count", "100"]);
    hub.fault(&["gw1", "withhold-twin-reply", "--count", "100"]);
    assert_eq!(hub.invoke("rebootDevice", "{}").0, 200);
    logind.calls.wait_for("Reboot(false)");
}

#[test]
fn what_the_hub_has_acknowledged_is_not_sent_again() {
    let hub = Hub::start();
    let mut daemon = Daemon::simulating(&hub);
    daemon.start_connected(&hub);
    assert_eq!(hub.invoke("rebootDevice", r#"{"id":"r-1"}"#).0, 200);
    wait_until("the outcome", || hub.reported()["reboot"]["status"] == "completed");
    let version = hub.reported()["$version"].clone();
    daemon.stop();
    daemon.start_connected(&hub);
    assert_eq!(hub.invoke("rebootDevice", r#"{"check":true}"#).0, 200);
    assert_eq!(hub.reported()["$version"], version);
}

#[test]
fn an_outcome_that_no_hub_could_hear_is_told_when_it_is_back() {
    let hub = Hub::start();
    let mut daemon = Daemon::simulating(&hub);
    daemon.start_connected(&hub);
    assert_eq!(hub.invoke("rebootDevice", r#"{"id":"r-1"}"#).0, 200);
    daemon.log.wait_for("the simulated machine is down");
    let hub = hub.stop();
    daemon.log.wait_for("reboot r-1 completed");
    daemon.notified.wait_for("STATUS=not connected");
    // Nor does it depend on this run of the daemon.
    daemon.kill();
    daemon.start();
    let hub = hub.start();
    wait_until("the outcome", || hub.reported()["reboot"]["status"] == "completed");
    assert_eq!(hub.reported()["reboot"]["id"], "r-1");
}

#[test]
fn each_refusal_has_its_status_and_reboots_nothing() {
    let (hub, bus) = (Hub::start(), Bus::start());
    let logind = bus.logind();
    let mut daemon = Daemon::with_logind(&hub, &bus);
    daemon.start_connected(&hub);
    let refused = |method: &str, payload: &str| {
        let (status, payload) = hub.invoke(method, payload);
        (status, payload["error"]["code"].as_str().unwrap_or_default().to_owned(), payload["error"].clone())
    };

    let (status, code, error) = refused("selfDestruct", "{}");
    assert_eq!((status, code.as_str()), (404, "unknownMethod"));
    assert_eq!(
        error["methods"],
        json!(["rebootDevice", "cancelReboot", "getRebootStatus", "getBootHistory"])
    );

    for payload in ["[]", "5", "\"now\"", r#"{"id":"a b"}"#, r#"{"reason":7}"#] {
        let (status, code, error) = refused("rebootDevice", payload);
        assert_eq!((status, code.as_str()), (400, "invalidPayload"), "{payload}: {error}");
    }

    *logind.can_reboot.lock().unwrap() = "challenge".to_owned();
    let (status, code, error) = refused("rebootDevice", "{}");
    assert_eq!((status, code.as_str()), (503, "notAuthorized"), "{error}");
    *logind.can_reboot.lock().unwrap() = "yes".to_owned();

    let held = |what: &str, mode: &str| {
        (what.to_owned(), "backup".to_owned(), "nightly run".to_owned(), mode.to_owned(), 1000, 4711)
    };
    let harmless = [held("sleep:shutdown", "delay"), held("sleep:idle", "block")];
    let (status, code, _) = refused("rebootDevice", r#"{"onInhibitor":"override"}"#);
    assert_eq!((status, code.as_str()), (403, "forbidden"));
    let (status, code, _) = refused("cancelReboot", "{}");
    assert_eq!((status, code.as_str()), (404, "nothingPending"));
    logind.set_inhibitors(vec![held("sleep:shutdown", "block")]);
    let (status, code, error) = refused("rebootDevice", "{}");
    assert_eq!((status, code.as_str()), (423, "blockedByInhibitor"));
    let holder = json!([{"who": "backup", "why": "nightly run", "uid": 1000, "pid": 4711}]);
    assert_eq!(error["inhibitors"], holder);
    logind.set_inhibitors(harmless.to_vec());

    assert_eq!(logind.calls.count("Reboot("), 0);
    assert_eq!(hub.reported().get("reboot"), None);

    assert_eq!(hub.invoke("rebootDevice", r#"{"id":"first","delaySeconds":600}"#).0, 200);
    let (status, code, error) = refused("rebootDevice", r#"{"id":"second"}"#);
    assert_eq!((status, code.as_str()), (409, "rebootPending"));
    assert_eq!(error["id"], "first");
    assert_eq!(hub.invoke("cancelReboot", r#"{"id":"first"}"#).0, 200);
    assert_eq!(hub.invoke("rebootDevice", r#"{"id":"third"}"#).0, 200);
    logind.calls.wait_for("Reboot(");
    let (status, code, _) = refused("rebootDevice", r#"{"id":"fourth"}"#);
    assert_eq!((status, code.as_str()), (409, "shuttingDown"));
    assert_eq!(logind.calls.count("Reboot("), 1);
}

#[test]
fn without_a_bus_it_serves_and_finds_logind_when_it_appears() {
    let (hub, bus) = (Hub::start(), Bus::start());
    let mut daemon = Daemon::with_logind(&hub, &bus);
    daemon.start_connected(&hub);
    daemon.notified.wait_for("READY=1");
    let (status, answer) = hub.invoke("rebootDevice", "{}");
    assert_eq!((status, answer["error"]["code"].as_str()), (503, Some("logindUnavailable")), "{answer}");
    let ran = hub.ctl(&["reboot", "gw1", "--no-wait"]);
    assert_eq!(ran.code, 3, "the device refused: {ran:?}");

    let logind = bus.logind();
    assert_eq!(hub.invoke("rebootDevice", "{}").0, 200);
    logind.calls.wait_for("Reboot(false)");
    logind.calls.wait_for("Inhibit(shutdown, iotdm-agentd, delay): ");
    assert_eq!(daemon.log.count(NO_LOCK), 0, "a logind that is not there was asked for one");

    // On a hub of its own, whose twin remembers nothing.
    let hub = Hub::start();
    let mut nowhere = Daemon::new(&hub, None, "");
    nowhere.start();
    nowhere.notified.wait_for("READY=1");
    nowhere.notified.wait_for("STATUS=connected");
    let (status, answer) = hub.invoke("rebootDevice", "{}");
    assert_eq!((status, answer["error"]["code"].as_str()), (503, Some("logindUnavailable")), "{answer}");
}

#[test]
fn a_logind_that_gives_no_lock_is_complained_of_and_asked_all_the_same() {
    let (hub, bus) = (Hub::start(), Bus::start());
    let logind = bus.logind();
    *logind.gives_locks.lock().unwrap() = false;
    let mut daemon = Daemon::with_logind(&hub, &bus);
    daemon.start_connected(&hub);
    daemon.log.wait_for(NO_LOCK);
    assert_eq!(hub.invoke("rebootDevice", "{}").0, 200);
    logind.calls.wait_for("Reboot(false)");
}

#[test]
fn what_cannot_be_recorded_is_not_done() {
    let (hub, bus) = (Hub::start(), Bus::start());
    let logind = bus.logind();
    let mut daemon = Daemon::with_logind(&hub, &bus);
    daemon.start_connected(&hub);
    // A file in place of the directory: no privilege lets a record be written into that.
    std::fs::remove_dir_all(daemon.state_dir()).unwrap();
    std::fs::write(daemon.state_dir(), "").unwrap();
    let (status, answer) = hub.invoke("rebootDevice", "{}");
    assert_eq!((status, answer["error"]["code"].as_str()), (500, Some("storageFailed")), "{answer}");
    assert_eq!(logind.calls.count("Reboot("), 0);
    assert_eq!(hub.reported().get("reboot"), None);
    // Once a request can be recorded, it is done.
    std::fs::remove_file(daemon.state_dir()).unwrap();
    std::fs::create_dir(daemon.state_dir()).unwrap();
    assert_eq!(hub.invoke("rebootDevice", "{}").0, 200);
    logind.calls.wait_for("Reboot(false)");
}

#[test]
fn killed_right_after_the_reply_it_goes_on_at_the_next_start() {
    let (hub, bus) = (Hub::start(), Bus::start());
    let logind = bus.logind();
    let mut daemon = Daemon::with_logind(&hub, &bus);
    // Never acknowledged, so that the reply is all that happened.
    daemon.configure("[reboot]\nack_timeout = \"5m\"\n");
    daemon.start_connected(&hub);
    hub.fault(&["gw1", "withhold-puback", "--count", "1"]);
    assert_eq!(hub.invoke("rebootDevice", r#"{"id":"r-1"}"#).0, 200);
    daemon.kill();
    assert_eq!(logind.calls.count("Reboot("), 0);
    daemon.start();
    logind.calls.wait_for("Reboot(false)");
    assert_eq!(hub.reported()["reboot"]["id"], "r-1");
}

#[test]
fn a_scheduled_reboot_is_kept_over_a_crash_carried_out_and_explained() {
    let (hub, bus) = (Hub::start(), Bus::start());
    let logind = bus.logind();
    let mut daemon = Daemon::with_logind(&hub, &bus);
    daemon.start_connected(&hub);
    let (status, answer) =
        hub.invoke("rebootDevice", r#"{"id":"r-1","delaySeconds":2,"reason":"kernel update"}"#);
    assert_eq!((status, answer["status"].as_str()), (200, Some("scheduled")));
    wait_until("the twin to say so", || hub.reported()["reboot"]["status"] == "scheduled");
    assert_eq!(hub.reported()["reboot"]["notBefore"], answer["notBefore"]);
    daemon.kill();
    daemon.start();
    logind.calls.wait_for("Reboot(false)");
    assert_eq!(logind.calls.count("SetWallMessage(kernel update)"), 1);
    assert!(hub.reported()["reboot"]["startedAt"].as_str() >= answer["notBefore"].as_str());
}

#[test]
fn a_scheduled_reboot_can_be_cancelled_until_it_begins() {
    let (hub, bus) = (Hub::start(), Bus::start());
    let logind = bus.logind();
    let mut daemon = Daemon::with_logind(&hub, &bus);
    daemon.start_connected(&hub);
    assert_eq!(hub.invoke("rebootDevice", r#"{"id":"r-1","delaySeconds":3600}"#).0, 200);
    assert_eq!(hub.invoke("cancelReboot", r#"{"id":"other"}"#).0, 404);
    assert_eq!(hub.ctl(&["cancel", "gw1", "--id", "r-1"]).stdout, "gw1: reboot r-1 cancelled\n");
    wait_until("the twin to say so", || hub.reported()["reboot"]["status"] == "cancelled");
    assert_eq!(hub.invoke("rebootDevice", r#"{"id":"r-2"}"#).0, 200);
    logind.calls.wait_for("Reboot(false)");
    assert_eq!(hub.invoke("cancelReboot", "{}").0, 409);
    // What does not apply to the new request is gone from the twin.
    assert_eq!(hub.reported()["reboot"].get("notBefore"), None);
}

#[test]
fn waiting_ends_when_the_inhibitor_is_released() {
    let (hub, bus) = (Hub::start(), Bus::start());
    let logind = bus.logind();
    let mut daemon = Daemon::with_logind(&hub, &bus);
    daemon.start_connected(&hub);
    let backup =
        ("shutdown".to_owned(), "backup".to_owned(), "nightly run".to_owned(), "block".to_owned(), 0, 1);
    // From then on the daemon hears of changes.
    logind.calls.wait_for("Inhibit(");
    logind.set_inhibitors(vec![backup]);
    let (_, status) = hub.invoke("getRebootStatus", "{}");
    assert_eq!((&status["canReboot"], &status["inhibitors"][0]["who"]), (&json!(false), &json!("backup")));
    assert_eq!(hub.invoke("rebootDevice", r#"{"onInhibitor":"wait"}"#).0, 200);
    wait_until("the twin to say so", || hub.reported()["reboot"]["status"] == "waiting");
    assert_eq!(logind.calls.count("Reboot("), 0);
    logind.set_inhibitors(Vec::new());
    logind.calls.wait_for("Reboot(false)");
}

#[test]
fn a_daemon_that_dies_after_logind_agreed_does_not_ask_again() {
    let (hub, bus) = (Hub::start(), Bus::start());
    let logind = bus.logind();
    let mut daemon = Daemon::with_logind(&hub, &bus);
    daemon.configure("reboot.down_timeout = \"1s\"\n");
    daemon.start_connected(&hub);
    assert_eq!(hub.invoke("rebootDevice", "{}").0, 200);
    logind.calls.wait_for("Reboot(false)");
    wait_until("the record", || {
        std::fs::read_to_string(daemon.state_dir().join("state.json"))
            .unwrap()
            .contains("\"asked\":\"agreed\"")
    });
    daemon.kill();
    daemon.start();
    wait_until("the outcome", || hub.reported()["reboot"]["status"] == "failed");
    assert_eq!(hub.reported()["reboot"]["error"]["code"], "neverWentDown");
    assert_eq!(logind.calls.count("Reboot("), 1);
    assert_eq!(hub.invoke("rebootDevice", "{}").0, 200);
}

#[test]
fn talkative_inhibitors_do_not_break_the_reply() {
    let (hub, bus) = (Hub::start(), Bus::start());
    let logind = bus.logind();
    let mut daemon = Daemon::with_logind(&hub, &bus);
    daemon.start_connected(&hub);
    let lock = || ("shutdown".to_owned(), "x".repeat(10_000), "y".repeat(10_000), "block".to_owned(), 0, 1);
    logind.set_inhibitors((0..40).map(|_| lock()).collect());
    assert_eq!(hub.invoke("rebootDevice", "{}").0, 423);
}
