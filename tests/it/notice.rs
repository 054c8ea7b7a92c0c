//! What people on the machine are told of a reboot, as the daemon leaves it for
//! root and for logind.

use iotdm_tests::{Bus, Daemon, Hub, wait_until};
use serde_json::json;

#[test]
fn a_scheduled_reboot_is_the_why_of_the_lock_and_in_a_file_and_never_in_the_schedule() {
    let (hub, bus) = (Hub::start(), Bus::start());
    let logind = bus.logind();
    let mut daemon = Daemon::with_logind(&hub, &bus);
    daemon.start_connected(&hub);
    let file = daemon.runtime_dir().join("notice.json");
    let notice = || std::fs::read_to_string(&file).unwrap_or_default();
    wait_until("no notice", || notice() == "null");
    let (_, body) =
        hub.invoke("rebootDevice", r#"{"id":"r-1","delaySeconds":3600,"reason":"kernel update"}"#);
    assert_eq!(body["status"], "scheduled");
    logind.calls.wait_for("delay): reboots this machine at ");
    assert_eq!(logind.calls.count(": kernel update"), 1);
    wait_until("a notice", || {
        notice().contains(r#""id":"r-1""#) && notice().contains(r#""reason":"kernel update""#)
    });
    // A new start says the same.
    daemon.kill();
    daemon.start_connected(&hub);
    logind.calls.wait_for_nth("delay): reboots this machine at ", 2);
    assert_eq!(hub.invoke("cancelReboot", "{}").0, 200);
    wait_until("no notice", || notice() == "null");
    logind.calls.wait_for_nth("records that the shutdown is an orderly one", 2);
    for never in ["ScheduleShutdown", "CancelScheduledShutdown", "SetWallMessage"] {
        assert_eq!(logind.calls.count(never), 0, "{never}");
    }
}

#[test]
fn a_notice_of_an_earlier_version_is_taken_off_the_schedule_and_nobody_elses() {
    let (hub, bus) = (Hub::start(), Bus::start());
    let logind = bus.logind();
    let mut daemon = Daemon::with_logind(&hub, &bus);
    let schedule = |words: &str| {
        *logind.scheduled.lock().unwrap() = ("reboot".to_owned(), 4_000_000_000_000_000);
        words.clone_into(&mut logind.wall_message.lock().unwrap());
    };
    schedule("scheduled by the administrator");
    daemon.start_connected(&hub);
    assert_eq!(hub.invoke("getRebootStatus", "{}").0, 200);
    assert_eq!(logind.scheduled.lock().unwrap().0, "reboot");
    assert_eq!(logind.calls.count("CancelScheduledShutdown"), 0);
    daemon.kill();
    schedule("scheduled by iotdm-agentd: kernel update");
    daemon.start_connected(&hub);
    logind.calls.wait_for("CancelScheduledShutdown");
    logind.calls.wait_for("SetWallMessage()");
    assert_eq!(logind.scheduled.lock().unwrap().1, 0);

    // Without the words it is known by the time of the request in the record.
    let (_, body) = hub.invoke("rebootDevice", r#"{"id":"r-1","delaySeconds":3600}"#);
    let at: iotdm_proto::Time = body["notBefore"].as_str().unwrap().parse().unwrap();
    daemon.kill();
    let micros = u64::try_from(at.unix_millis()).unwrap() * 1000;
    *logind.scheduled.lock().unwrap() = ("reboot".to_owned(), micros);
    daemon.start_connected(&hub);
    logind.calls.wait_for_nth("CancelScheduledShutdown", 2);
}

#[test]
fn the_reason_of_a_reboot_that_does_not_come_is_forgotten() {
    let (hub, bus) = (Hub::start(), Bus::start());
    let logind = bus.logind();
    let mut daemon = Daemon::with_logind(&hub, &bus);
    daemon.configure("reboot.down_timeout = \"1s\"\n");
    daemon.start_connected(&hub);
    assert_eq!(hub.invoke("rebootDevice", r#"{"id":"r-1","reason":"kernel update"}"#).0, 200);
    logind.calls.wait_for("SetWallMessage(kernel update)");
    wait_until("the outcome", || hub.reported()["reboot"]["status"] == "failed");
    logind.calls.wait_for("SetWallMessage()");
    // Somebody else's words stay, and one without a reason shows none.
    assert_eq!(hub.invoke("rebootDevice", r#"{"id":"r-2"}"#).0, 200);
    logind.calls.wait_for_nth("Reboot(false)", 2);
    assert_eq!(*logind.wall_message.lock().unwrap(), "");
    assert_eq!(logind.calls.count("SetWallMessage()"), 2);
}

#[test]
fn a_reason_that_a_terminal_or_the_journal_would_obey_is_refused_by_name() {
    let (hub, bus) = (Hub::start(), Bus::start());
    let logind = bus.logind();
    let mut daemon = Daemon::with_logind(&hub, &bus);
    daemon.start_connected(&hub);
    for reason in
        ["\\u0000", "\\u001b]0;x\\u0007", "x)\\nMESSAGE=Accepted publickey for root", "\\u009b2J", "\\u202e"]
    {
        let (status, body) = hub.invoke("rebootDevice", &format!(r#"{{"reason":"{reason}"}}"#));
        assert_eq!((status, &body["error"]["code"]), (400, &json!("invalidPayload")), "{reason}");
        assert!(body["error"]["message"].as_str().unwrap().starts_with("reason: must be one line"), "{body}");
    }
    assert_eq!(logind.calls.count("SetWallMessage"), 0);
    assert_eq!(hub.invoke("rebootDevice", r#"{"reason":"ok"}"#).0, 200);
    logind.calls.wait_for("Reboot(false)");
}

#[test]
fn who_asks_is_told_to_the_machine_and_to_the_twin() {
    let (hub, bus) = (Hub::start(), Bus::start());
    let logind = bus.logind();
    let mut daemon = Daemon::with_logind(&hub, &bus);
    daemon.start_connected(&hub);
    for hostile in [r#"{"operator":"a\u001b[2J"}"#, r#"{"operator":"a\nb"}"#, r#"{"operator":7}"#] {
        let (status, answer) = hub.invoke("rebootDevice", hostile);
        assert_eq!((status, &answer["error"]["code"]), (400, &"invalidPayload".into()), "{hostile}");
    }
    let payload = r#"{"id":"r-1","reason":"kernel update","operator":"alice@ops"}"#;
    assert_eq!(hub.invoke("rebootDevice", payload).0, 200);
    logind.calls.wait_for("SetWallMessage(kernel update (asked for by alice@ops))");
    wait_until("the twin to say so", || hub.reported()["reboot"]["operator"] == "alice@ops");
    daemon.log.wait_for("asked for by \"alice@ops\"");
}
