//! Reboots wished for in the twin, and cancelling in both ways.

use std::sync::Mutex;

use crate::common::{FakeHub, HttpResponse, Ran};
use serde_json::{Value, json};

/// A device that carries out a wish at the second look; the twin is kept as
/// the hub keeps it.
fn wishing(agent: bool) -> FakeHub {
    let twin = Mutex::new((json!({}), 0));
    FakeHub::start(move |request, _| {
        let (twin, looks) = &mut *twin.lock().unwrap();
        let mut reported = if agent { json!({"agent": {}}) } else { json!({}) };
        if request.method == "PATCH" {
            *twin = request.body["properties"]["desired"].clone();
        } else if !twin["reboot"].is_null() {
            *looks += 1;
            let status = if *looks > 1 { "completed" } else { "rebooting" };
            reported["reboot"] = json!({"id": twin["reboot"]["id"], "status": status, "requestedBy": "twin"});
            reported["rebootTime"] = json!("T");
        }
        HttpResponse::ok(json!({"etag": "E=", "properties": {"desired": twin.clone(), "reported": reported}}))
    })
}

fn reboot(hub: &FakeHub, more: &[&str]) -> Ran {
    hub.run(&[&["reboot", "gw1", "--when-online", "--interval", "10ms"][..], more].concat())
}

#[test]
fn a_wish_is_followed_and_taken_out_once_it_came_true() {
    let hub = wishing(true);
    let run = reboot(&hub, &["--reason", "why", "--deadline", "2026-12-01T00:00:00Z", "--id", "r-1"]);
    run.ends(0, &["gw1: wished for in the twin, id r-1", "gw1: rebooting", "gw1: completed in"]);
    assert_eq!(run.stdout, "gw1: rebootTime T\n");
    let line = ["GET", "PATCH", "GET", "GET", "PATCH"].map(|method| format!("{method} /twins/gw1"));
    assert_eq!(hub.lines(), line);
    let sent = hub.requests();
    let wish = json!({
        "id": "r-1", "reason": "why", "deadline": "2026-12-01T00:00:00.000Z",
        "notBefore": null, "onInhibitor": null, "waitSeconds": null,
    });
    assert_eq!(sent[1].body, json!({"properties": {"desired": {"reboot": wish}}}));
    assert_eq!(sent[4].body, json!({"properties": {"desired": {"reboot": null}}}));
    assert_eq!(sent[4].header("if-match"), Some("\"E=\""), "nobody else's wish is taken out");
}

#[test]
fn a_wish_that_is_not_waited_for_stays() {
    let hub = wishing(false);
    let options = ["--no-wait", "--at", "2026-11-30T02:00:00Z", "--on-inhibitor", "wait", "-o", "json"];
    let run = reboot(&hub, &options);
    run.ends(0, &["reports no iotdm agent", "the wish waits in the twin"]);
    assert_eq!(run.json()["outcome"], "accepted");
    let wish = &hub.requests()[1].body["properties"]["desired"]["reboot"];
    assert_eq!(
        (&wish["notBefore"], &wish["onInhibitor"]),
        (&json!("2026-11-30T02:00:00.000Z"), &json!("wait"))
    );
    assert_eq!(hub.lines().len(), 2);
    let unheard = FakeHub::start(|_, _| HttpResponse::twin(json!({"agent": {}})));
    reboot(&unheard, &["--wait-timeout", "50ms"]).ends(6, &["has not taken up the wish", "stays in force"]);
    for (options, named) in [
        (&["--check"][..], "--check"),
        (&["--connect-timeout", "5"], "--connect-timeout"),
        (&["--deadline", "soon"], "RFC 3339"),
    ] {
        reboot(&hub, options).ends(2, &[named]);
    }
    hub.run(&["reboot", "gw1", "--deadline", "2026-12-01T00:00:00Z"]).ends(2, &["--when-online"]);
}

/// A device with this wish and this report; it knows of nothing to cancel
/// but `m`.
fn pending(wish: Value, reboot: Value) -> FakeHub {
    FakeHub::start(move |request, _| {
        if !request.is_call() {
            return HttpResponse::ok(json!({
                "etag": "E=", "properties": {"desired": {"reboot": wish}, "reported": {"reboot": reboot}},
            }));
        }
        match request.body["payload"]["id"].as_str() {
            None | Some("m") => HttpResponse::reply(200, json!({"id": "m", "status": "cancelled"})),
            _ => HttpResponse::reply(404, json!({"error": {"code": "nothingPending", "message": "none"}})),
        }
    })
}

#[test]
fn cancelling_asks_the_device() {
    let hub = pending(Value::Null, json!({"id": "m", "status": "scheduled"}));
    let run = hub.run(&["cancel", "gw1"]);
    run.ends(0, &[]);
    assert_eq!(run.stdout, "gw1: reboot m cancelled\n");
    assert_eq!(hub.requests()[1].body["methodName"], "cancelReboot");
    hub.run(&["cancel", "gw1", "--id", "r-2"]).ends(3, &["status 404: nothingPending, none"]);
    assert_eq!(hub.requests()[3].body["payload"], json!({"id": "r-2"}));
}

#[test]
fn cancelling_a_wish_takes_it_out_of_the_twin() {
    let hub = pending(json!({"id": "w"}), json!({"id": "w", "status": "waiting"}));
    let run = hub.run(&["cancel", "gw1", "-o", "json"]);
    run.ends(0, &[]);
    let payload = json!({"id": "w", "status": "cancelled", "requestedBy": "twin"});
    assert_eq!(run.json(), json!({"status": 200, "payload": payload}));
    assert_eq!(hub.lines(), ["GET /twins/gw1", "PATCH /twins/gw1"]);
    assert_eq!(hub.requests()[1].body, json!({"properties": {"desired": {"reboot": null}}}));
    assert_eq!(hub.requests()[1].header("if-match"), Some("\"E=\""));

    let begun = pending(json!({"id": "w"}), json!({"id": "w", "status": "rebooting"}));
    begun.run(&["cancel", "gw1"]).ends(3, &["reboot w has begun, it is too late"]);
    assert_eq!(begun.lines().len(), 1);
    let both = pending(json!({"id": "w"}), json!({"id": "m", "status": "waiting"}));
    both.run(&["cancel", "gw1"]).ends(0, &["the wish for reboot w is out of the twin"]);
    assert_eq!(both.lines()[2], "POST /twins/gw1/methods");
    let only_the_method = pending(json!({"id": "w"}), json!({"id": "m", "status": "waiting"}));
    only_the_method.run(&["cancel", "gw1", "--id", "m"]).ends(0, &[]);
    assert_eq!(only_the_method.lines(), ["GET /twins/gw1", "POST /twins/gw1/methods"]);
}
