//! However often a request is delivered, and however many come at once: one
//! reboot.

use std::thread::{ScopedJoinHandle, scope};

use iotdm_tests::{Bus, Daemon, Hub, Transcript};
use serde_json::{Value, json};

const REQUESTS: usize = 50;

/// Asks until there is an answer, as an operator whose call was cut off does.
fn ask(hub: &Hub, id: &str) -> (i64, Value) {
    let payload = json!({"id": id, "reason": "kernel update"}).to_string();
    let call =
        ["-o", "json", "invoke", "gw1", "rebootDevice", "--connect-timeout", "60", "--payload", &payload];
    loop {
        let ran = hub.ctl(&call);
        if matches!(ran.code, 0 | 3) {
            let reply = ran.json();
            return (reply["status"].as_i64().unwrap(), reply["payload"].clone());
        }
        // The connection ended before the answer, or was replaced.
        assert!(matches!(ran.code, 1 | 4), "{ran:?}");
    }
}

fn join<T>(calls: Vec<ScopedJoinHandle<'_, T>>) -> Vec<T> {
    calls.into_iter().map(|call| call.join().unwrap()).collect()
}

#[test]
fn the_same_request_many_times_at_once_and_over_reconnects() {
    let (hub, bus) = (Hub::start(), Bus::start());
    let logind = bus.logind();
    let mut daemon = Daemon::with_logind(&hub, &bus);
    daemon.start_connected(&hub);
    let answered = Transcript::default();
    let answers = scope(|scope| {
        let call = || {
            let answer = ask(&hub, "r-1");
            answered.push("answered".to_owned());
            answer
        };
        let calls = (0..REQUESTS).map(|_| scope.spawn(call)).collect();
        for drop in 1..=3 {
            answered.wait_for_nth("answered", drop * 10);
            hub.fault(&["gw1", "drop-link"]);
            daemon.log.wait_for_nth("connected to localhost as gw1", drop + 1);
        }
        join(calls)
    });
    assert_eq!(answers.len(), REQUESTS);
    let (status, first) = &answers[0];
    assert_eq!((*status, &first["id"], &first["status"]), (200, &json!("r-1"), &json!("accepted")));
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    logind.calls.wait_for("Reboot(false)");
    assert_eq!(ask(&hub, "r-1"), answers[0]);
    assert_eq!(logind.calls.count("Reboot("), 1);
}

#[test]
fn of_many_requests_at_once_one_is_accepted() {
    let (hub, bus) = (Hub::start(), Bus::start());
    let logind = bus.logind();
    let mut daemon = Daemon::with_logind(&hub, &bus);
    daemon.start_connected(&hub);
    let hub = &hub;
    let answers = scope(|scope| {
        join((0..REQUESTS).map(|n| scope.spawn(move || ask(hub, &format!("r-{n}")))).collect())
    });
    let (accepted, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|(status, _)| *status == 200);
    let [(_, accepted)] = &accepted[..] else { panic!("{accepted:#?}") };
    assert_eq!(refused.len(), REQUESTS - 1);
    for (status, answer) in refused {
        let error = &answer["error"];
        // A call that comes after logind was asked is told of the shutdown instead.
        if (*status, &error["code"]) == (409, &json!("shuttingDown")) {
            continue;
        }
        assert_eq!((*status, &error["code"], &error["id"]), (409, &json!("rebootPending"), &accepted["id"]));
        assert!(error["message"].as_str().unwrap().contains(accepted["id"].as_str().unwrap()), "{error}");
    }
    logind.calls.wait_for("Reboot(false)");
    assert_eq!(logind.calls.count("Reboot("), 1);
    assert_eq!(hub.reported()["reboot"]["id"], accepted["id"]);
}
