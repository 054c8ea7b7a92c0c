//! What the query that selects devices tells of them, and what has to be read before a
//! call all the same.

use std::sync::{Arc, Mutex};

use crate::common::{FakeHub, HttpRequest, HttpResponse};
use crate::fleet::{ALL, CARELESS};
use serde_json::{Value, json};

/// A hub with `gw1`, of which a query tells this row, and which answers what is no query
/// as `answer` says: by whether `gw1` has been called.
fn hub(
    row: impl Fn(&str) -> HttpResponse + Send + Sync + 'static,
    reply: fn(&HttpRequest) -> Value,
    reported: fn(bool, &Value) -> Value,
) -> FakeHub {
    let id = Arc::new(Mutex::new(None));
    FakeHub::start(move |request, _| {
        let mut id = id.lock().unwrap();
        if request.path == "/devices/query" {
            return row(request.body["query"].as_str().unwrap());
        }
        if request.is_call() {
            *id = Some(request.reboot_id());
            return HttpResponse::reply(200, reply(request));
        }
        HttpResponse::twin(reported(id.is_some(), id.as_ref().unwrap_or(&Value::Null)))
    })
}

fn described() -> Value {
    json!({"deviceId": "gw1", "agent": {"version": "1"}, "rebootTime": "before"})
}

/// The daemon's report outlives it: somebody else's `rebootDevice`, which knows no ids and
/// reboots at once, is watched by the `rebootTime` of before the call.
#[test]
fn another_program_that_has_rebooted_before_its_reply_has_rebooted() {
    let hub = hub(
        |_| HttpResponse::ok(json!([described()])),
        |_| json!({"rebooting": true}),
        |called, _| json!({"agent": {"version": "1"}, "rebootTime": if called { "after" } else { "before" }}),
    );
    hub.run(&[&ALL[..], &CARELESS, &["--wait-timeout", "2s"]].concat())
        .ends(0, &["its rebootDevice knows no ids", "gw1: completed in"]);
    let paths: Vec<String> = hub.requests().iter().map(|request| request.path.clone()).collect();
    assert_eq!(paths[..2], ["/devices/query", "/twins/gw1/methods"], "no twin is read for nothing");
}

#[test]
fn a_hub_that_tells_no_more_than_ids_is_asked_for_no_more() {
    let by_id = |request: &HttpRequest| json!({"id": request.reboot_id(), "status": "accepted"});
    let hub = hub(
        |sql| match sql.contains(" AS ") {
            true => HttpResponse::classic(400, "ArgumentInvalid"),
            false => HttpResponse::ok(json!([{"deviceId": "gw1"}])),
        },
        by_id,
        |called, id| match called {
            true => json!({"agent": {"version": "1"}, "reboot": {"id": id, "status": "completed"}}),
            false => json!({"agent": {"version": "1"}}),
        },
    );
    hub.run(&[&ALL[..], &CARELESS].concat()).ends(0, &["gw1: completed in"]);
    let paths: Vec<String> = hub.requests().iter().map(|request| request.path.clone()).collect();
    assert_eq!(paths[..4], ["/devices/query", "/devices/query", "/twins/gw1", "/twins/gw1/methods"]);
    // A condition that the hub does not understand is the operator's to mend.
    let hub = FakeHub::start(|_, _| HttpResponse::classic(400, "ArgumentInvalid"));
    hub.run(&ALL)
        .ends(1, &["--where: the query \"SELECT deviceId FROM devices WHERE tags.site = 'north'\" failed"]);
}
