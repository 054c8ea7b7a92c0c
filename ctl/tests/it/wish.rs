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
    let run = reboot(
        &hub,
        &["--reason", "why", "--deadline", "2026-12-01T00:00:00Z", "--id", "r-1", "--operator", "me"],
    );
    run.ends(0, &["gw1: wished for in the twin, id r-1", "gw1: rebooting", "gw1: completed in"]);
    assert_eq!(run.stdout, "gw1: rebootTime T\n");
    let line = ["GET", "PATCH", "GET", "GET", "PATCH"].map(|method| format!("{method} /twins/gw1"));
    assert_eq!(hub.lines(), line);
    let sent = hub.requests();
    let wish = json!({
        "id": "r-1", "reason": "why", "operator": "me", "deadline": "2026-12-01T00:00:00.000Z",
        "notBefore": null, "onInhibitor": null, "onPreflight": null, "waitSeconds": null, "onlyIfRequired": null,
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

/// A hub of six devices: the reboots of `gw1` and `gw2` can be called off, that of
/// `gw3` has begun, `gw4` has nothing pending, `gw5` is offline and its twin says
/// that nothing is pending, and `gw6` is offline and has a wish in its twin.
fn six() -> FakeHub {
    FakeHub::start(|request, _| {
        let device = request.path.split('/').nth(2).unwrap().to_owned();
        if request.path == "/devices/query" {
            return HttpResponse::ok((1..=6).map(|n| json!({"deviceId": format!("gw{n}")})).collect());
        }
        if !request.is_call() {
            let wish = if device == "gw6" { json!({"id": "w"}) } else { Value::Null };
            return HttpResponse::ok(
                json!({"etag": "E=", "properties": {"desired": {"reboot": wish}, "reported": {}}}),
            );
        }
        let refused =
            |status, code| HttpResponse::reply(status, json!({"error": {"code": code, "message": "m"}}));
        match device.as_str() {
            "gw3" => refused(409, "tooLate"),
            "gw4" => refused(404, "nothingPending"),
            "gw5" => HttpResponse::nested(404, 404_103),
            _ => HttpResponse::reply(200, json!({"id": "r", "status": "cancelled"})),
        }
    })
}

#[test]
fn cancelling_for_many_counts_what_was_too_late() {
    let hub = six();
    let run = hub.run(&["cancel", "--where", "tags.site = 'north'"]);
    run.ends(7, &["iotdm-ctl: gw3: the device refused with status 409: tooLate, m"]);
    let last = "6 devices: 3 cancelled, 2 nothing pending, 1 too late";
    assert_eq!(run.stdout.lines().last(), Some(last));
    assert!(run.stdout.contains("gw6: reboot w cancelled\n"), "{run:#?}");
    assert!(hub.lines().contains(&"PATCH /twins/gw6".to_owned()), "{:?}", hub.lines());

    let run = hub.run(&["cancel", "gw1", "gw4", "gw1", "-o", "json"]);
    run.ends(0, &[]);
    let found = run.json();
    let found: Vec<(&Value, &Value)> =
        found.as_array().unwrap().iter().map(|on| (&on["device"], &on["outcome"])).collect();
    assert_eq!(found.len(), 2, "each once");
    assert!(found.contains(&(&json!("gw1"), &json!("cancelled"))), "{found:?}");
    assert!(found.contains(&(&json!("gw4"), &json!("nothingPending"))), "{found:?}");
    hub.run(&["cancel", "gw3", "gw4"]).ends(3, &[]);
    let csv = hub.run_on("deviceId\ngw1\n", &["cancel", "--devices-from", "-", "-o", "csv"]);
    assert_eq!(csv.stdout, "DEVICE,OUTCOME,ID,WHY\ngw1,cancelled,r,\n");
    hub.run(&["cancel"]).ends(2, &["--where", "--journal"]);
}

#[test]
fn the_requests_of_a_run_are_called_off() {
    // A hub on which every device grants and nothing is over.
    let hub = FakeHub::start(|request, _| match (request.is_call(), request.body["methodName"].as_str()) {
        (true, Some("rebootDevice")) if request.path.contains("gw3") => HttpResponse::reply(
            423,
            json!({"error": {"code": "blockedByInhibitor", "message": "apt holds it"}}),
        ),
        (true, Some("rebootDevice")) => {
            HttpResponse::reply(200, json!({"id": request.reboot_id(), "status": "scheduled"}))
        }
        (true, _) => {
            HttpResponse::reply(200, json!({"id": request.body["payload"]["id"], "status": "cancelled"}))
        }
        _ => HttpResponse::twin(json!({"agent": {"version": "1"}})),
    });
    let reboot = ["reboot", "gw1", "gw2", "gw3", "--id", "r-1", "--delay", "1h", "--no-wait"];
    hub.run(&reboot).ends(7, &["journal "]);
    let folder = hub.path("state").join("iotdm/reboots");
    let journal = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let run = hub.run(&["cancel", "--journal", journal.to_str().unwrap()]);
    run.ends(0, &[]);
    assert_eq!(run.stdout.lines().last(), Some("2 devices: 2 cancelled"), "gw3 has refused: {run:#?}");
    let cancelled: Vec<Value> = hub
        .requests()
        .into_iter()
        .filter(|request| request.body["methodName"] == "cancelReboot")
        .map(|request| request.body["payload"].clone())
        .collect();
    assert_eq!(cancelled, [json!({"id": "r-1"}), json!({"id": "r-1"})], "and no other request");

    // Of a run whose devices are all through.
    let lines = std::fs::read_to_string(&journal).unwrap();
    let is_of_gw3 = |line: &&str| line.contains("\"run\"") || line.contains("gw3");
    let over = hub.path("over");
    std::fs::write(
        &over,
        lines.lines().filter(is_of_gw3).map(|line| format!("{line}\n")).collect::<String>(),
    )
    .unwrap();
    let before = hub.requests().len();
    let run = hub.run(&["cancel", "--journal", over.to_str().unwrap(), "-o", "json"]);
    run.ends(3, &["over: nothing is pending of what this run asked for, nothing was sent"]);
    assert_eq!((run.json(), hub.requests().len()), (json!([]), before));

    let other = six();
    let string = hub.path("connection-string");
    let ca = hub.path("ca.pem");
    let run = other.run(&["cancel", "--journal", journal.to_str().unwrap()]);
    run.ends(2, &["--journal ", "it is about hub localhost:"]);
    assert!(other.requests().is_empty() && string.exists() && ca.exists());
    other.run(&["cancel", "--journal", "/dev/null"]).ends(2, &["/dev/null: this is no regular file"]);
}
