//! `reboot` against canned hubs: every outcome, and what is sent for it.

use std::sync::Mutex;

use crate::common::{FakeHub, HttpRequest, HttpResponse, Ran};
use serde_json::{Value, json};

/// Polls fast; the default of ten minutes for the outcome is never reached.
const QUICK: [&str; 2] = ["--interval", "10ms"];

fn reboot(hub: &FakeHub, more: &[&str]) -> Ran {
    hub.run(&[&["reboot", "gw1"][..], &QUICK, more].concat())
}

/// A hub whose device accepts, and whose twin then shows `after`, in which
/// `"ID"` stands for the request's id; the last one stays.
fn accepting(before: Value, after: &'static [fn(&Value) -> Value]) -> FakeHub {
    let state: Mutex<(Value, usize)> = Mutex::new((Value::Null, 0));
    FakeHub::start(move |request, _| {
        let mut state = state.lock().unwrap();
        if request.is_call() {
            state.0 = request.reboot_id();
            return HttpResponse::reply(200, json!({"id": state.0, "status": "accepted", "bootId": "a"}));
        }
        if state.0.is_null() {
            return HttpResponse::twin(before.clone());
        }
        let show = after[state.1.min(after.len() - 1)];
        state.1 += 1;
        HttpResponse::twin(show(&state.0))
    })
}

fn agent() -> Value {
    json!({"agent": {"version": "1", "methods": ["rebootDevice"]}})
}

fn completed(id: &Value) -> Value {
    json!({
        "rebootTime": "2026-11-22T18:36:07.412Z",
        "reboot": {"id": id, "status": "completed", "bootId": "b"},
        "boot": {"bootId": "b", "cause": "requested"},
    })
}

fn rebooting(id: &Value) -> Value {
    json!({"reboot": {"id": id, "status": "rebooting"}})
}

#[test]
fn waits_for_this_id_and_prints_reply_and_reboot_time() {
    let hub = accepting(json!({}), &[|_| completed(&json!("another")), rebooting, rebooting, completed]);
    let run = reboot(&hub, &["--reason", "kernel update"]);
    run.ends(
        0,
        &[
            "gw1: sent rebootDevice, id ",
            "gw1: accepted",
            "gw1: rebooting",
            "gw1: completed in ",
            " s, boot id changed\n",
        ],
    );
    assert_eq!(run.stderr.matches("rebooting").count(), 1, "one line per change: {run:#?}");
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert!(lines[0].starts_with("gw1: reply 200 {"), "{run:#?}");
    assert_eq!(lines[1], "gw1: rebootTime 2026-11-22T18:36:07.412Z");

    let call = hub.requests().into_iter().find(HttpRequest::is_call).unwrap();
    assert_eq!(call.body["methodName"], "rebootDevice");
    assert_eq!(call.body["payload"]["reason"], "kernel update");
    assert_eq!(call.body["payload"].get("check"), None);
    assert_eq!(call.body["responseTimeoutInSeconds"], 60);
    assert_eq!(call.body["connectTimeoutInSeconds"], 0);
    assert_eq!(call.reboot_id().as_str().unwrap().len(), 36, "a UUID");
}

/// A daemon that does not know the key would reboot without heeding it.
#[test]
fn what_restrains_a_reboot_goes_to_no_device_that_does_not_know_it() {
    let knowing = json!({"agent": {"version": "1", "features": ["health", "preflight"]}});
    let hub = accepting(knowing, &[completed]);
    reboot(&hub, &["--on-preflight", "wait"]).ends(0, &["completed"]);
    let call = hub.requests().into_iter().find(HttpRequest::is_call).unwrap();
    assert_eq!(call.body["payload"]["onPreflight"], "wait");

    for before in [json!({}), agent(), json!({"agent": {"features": ["health"]}})] {
        for how in [&[][..], &["--no-wait"], &["--when-online"], &["--check"]] {
            let hub = accepting(before.clone(), &[completed]);
            let run = reboot(&hub, &[&["--on-preflight", "override"], how].concat());
            // Whatever else is said of a device without the daemon, nothing is sent.
            assert_ne!(run.code, 0, "{before} {how:?}");
            if *how != ["--check"] {
                run.ends(3, &["agent too old for onPreflight; nothing was sent"]);
            }
            let sent = |request: &HttpRequest| request.is_call() || request.method != "GET";
            assert!(!hub.requests().iter().any(sent), "{before} {how:?}");
        }
    }
}

#[test]
fn when_and_what_about_inhibitors_reach_the_device() {
    let sent = |options: &[&str]| {
        let hub = accepting(json!({}), &[completed]);
        reboot(&hub, options).ends(0, &[]);
        let mut payload =
            hub.requests().into_iter().find(HttpRequest::is_call).unwrap().body["payload"].clone();
        payload.as_object_mut().unwrap().remove("id");
        let operator = payload.as_object_mut().unwrap().remove("operator").unwrap();
        (payload, operator.as_str().unwrap().to_owned())
    };
    let (plain, operator) = sent(&[]);
    assert_eq!(plain, json!({}));
    let (user, host) = operator.split_once('@').unwrap();
    assert!(!user.is_empty() && !host.is_empty(), "{operator}");
    assert_eq!(sent(&["--operator", "Alice at night"]), (json!({}), "Alice at night".to_owned()));
    let sent = |options: &[&str]| sent(options).0;
    let options = ["--delay", "1h", "--on-inhibitor", "wait", "--wait-seconds", "60"];
    assert_eq!(sent(&options), json!({"delaySeconds": 3600, "onInhibitor": "wait", "waitSeconds": 60}));
    let at = ["--at", "2026-11-30T03:00:00+01:00", "--on-inhibitor", "override"];
    assert_eq!(sent(&at), json!({"at": "2026-11-30T02:00:00.000Z", "onInhibitor": "override"}));

    let hub = FakeHub::start(|_, _| HttpResponse::hang_up());
    for (options, named) in [
        (&["--on-preflight", "ask"][..], "fail, wait, override"),
        (&["--on-preflight", "wait", "--job"], "--job"),
        (&["--delay", "8d"], "--delay"),
        (&["--delay", "169h"], "at most 168h"),
        (&["--delay", "1500ms"], "only whole seconds"),
        (&["--at", "tomorrow"], "not an RFC 3339 time"),
        (&["--at", "2026-11-30T02:00:00Z", "--delay", "5s"], "cannot be used with"),
        (&["--wait-seconds", "0"], "--wait-seconds"),
        (&["--on-inhibitor", "ask"], "fail, wait, override"),
        (&["--operator", "a\u{1b}[2J"], "--operator"),
    ] {
        reboot(&hub, options).ends(2, &[named]);
    }
    assert!(hub.requests().is_empty());
}

#[test]
fn a_reboot_that_is_over_at_the_first_look() {
    let run = reboot(&accepting(json!({}), &[completed]), &["--id", "r-1", "-o", "json"]);
    run.ends(0, &[]);
    let outcome = run.json();
    assert_eq!(
        (&outcome["device"], &outcome["id"], &outcome["outcome"]),
        (&json!("gw1"), &json!("r-1"), &json!("completed"))
    );
    assert_eq!(outcome["reply"]["payload"]["id"], "r-1");
    assert_eq!(outcome["rebootTime"], "2026-11-22T18:36:07.412Z");
    assert_eq!(outcome["reboot"]["status"], "completed");
    assert!(outcome["seconds"].is_number() && outcome.get("error").is_none(), "{outcome}");
}

#[test]
fn failed_unclean_and_cancelled_are_exit_7() {
    let failed = accepting(
        json!({}),
        &[
            |id| json!({"reboot": {"id": id, "status": "failed", "error": {"code": "neverWentDown", "message": "still up"}}}),
        ],
    );
    reboot(&failed, &[]).ends(7, &["the reboot failed: neverWentDown, still up"]);
    let unclean = accepting(
        json!({}),
        &[|id| {
            let mut reported = completed(id);
            reported["boot"]["cause"] = json!("unclean");
            reported
        }],
    );
    reboot(&unclean, &[]).ends(7, &["without an orderly shutdown"]);
    let cancelled = accepting(json!({}), &[|id| json!({"reboot": {"id": id, "status": "cancelled"}})]);
    reboot(&cancelled, &[]).ends(7, &["cancelled"]);
}

#[test]
fn no_outcome_in_time_is_exit_6_and_says_how_far_it_is() {
    let run = reboot(&accepting(json!({}), &[rebooting]), &["--wait-timeout", "50ms", "-o", "json"]);
    run.ends(6, &["no outcome of request", "it is rebooting", "stays in force"]);
    assert_eq!(run.json()["outcome"], "timedOut");
}

#[test]
fn a_refusal_is_exit_3_with_the_devices_error() {
    let hub = FakeHub::start(|request, _| {
        if request.is_call() {
            return HttpResponse::reply(
                409,
                json!({"error": {"code": "rebootPending", "message": "r-0 is pending"}}),
            );
        }
        HttpResponse::twin(json!({}))
    });
    reboot(&hub, &[]).ends(3, &["status 409: rebootPending, r-0 is pending"]);
    let run = reboot(&hub, &["-o", "json"]);
    assert_eq!(run.json()["reply"]["status"], 409);
    assert_eq!(run.json()["outcome"], "refused");
}

/// A hub whose method calls end in `answer`; its twin shows the reboot of
/// that request as completed from then on.
fn reply_lost(answer: HttpResponse) -> FakeHub {
    let id = Mutex::new(Value::Null);
    FakeHub::start(move |request, _| {
        let mut id = id.lock().unwrap();
        if request.is_call() {
            *id = request.reboot_id();
            return answer.clone();
        }
        HttpResponse::twin(if id.is_null() { agent() } else { completed(&id) })
    })
}

#[test]
fn a_lost_reply_leaves_the_id_to_look_for() {
    for lost in
        [HttpResponse::nested(504, 504_101), HttpResponse::nested(404, 404_104), HttpResponse::hang_up()]
    {
        let hub = reply_lost(lost);
        reboot(&hub, &[]).ends(0, &["looking for its outcome in the twin", "completed"]);
        assert_eq!(hub.requests().iter().filter(|request| request.is_call()).count(), 1);
    }
    reboot(&reply_lost(HttpResponse::nested(504, 504_101)), &["--no-wait"]).ends(6, &["not known whether"]);
}

#[test]
fn neither_reply_nor_outcome_is_exit_6() {
    let hub = FakeHub::start(|request, _| {
        if request.is_call() { HttpResponse::nested(504, 504_101) } else { HttpResponse::twin(agent()) }
    });
    reboot(&hub, &["--wait-timeout", "50ms"]).ends(6, &["not known whether it was executed"]);
}

#[test]
fn trouble_while_polling_is_not_the_end() {
    let id = Mutex::new((Value::Null, 0));
    let hub = FakeHub::start(move |request, _| {
        let mut state = id.lock().unwrap();
        if request.is_call() {
            state.0 = request.reboot_id();
            return HttpResponse::reply(200, json!({"id": state.0, "status": "accepted"}));
        }
        if state.0.is_null() {
            return HttpResponse::twin(json!({}));
        }
        state.1 += 1;
        match state.1 {
            1 => HttpResponse::hang_up(),
            2..=6 => HttpResponse::classic(429, "ThrottlingException").with("retry-after", "0"),
            7..=11 => HttpResponse::classic(503, "ServiceUnavailable").with("retry-after", "0"),
            _ => HttpResponse::twin(completed(&state.0)),
        }
    });
    reboot(&hub, &[]).ends(0, &["trying again", "completed"]);
}

#[test]
fn a_device_deleted_while_waiting_is_exit_5() {
    let hub = FakeHub::start(|request, before| match (request.is_call(), before) {
        (true, _) => HttpResponse::reply(200, json!({"id": request.reboot_id()})),
        (false, 0) => HttpResponse::twin(json!({})),
        (false, _) => HttpResponse::classic(404, "DeviceNotFound"),
    });
    reboot(&hub, &[]).ends(5, &["its outcome cannot be read"]);
}

/// A device whose `rebootDevice` is not ours: it replies `reply` and later
/// changes `rebootTime`, in a form of its own.
fn foreign(reply: Value) -> FakeHub {
    let polls = Mutex::new(None);
    FakeHub::start(move |request, _| {
        let mut polls = polls.lock().unwrap();
        if request.is_call() {
            *polls = Some(0);
            return HttpResponse::reply(200, reply.clone());
        }
        if let Some(polls) = polls.as_mut() {
            *polls += 1;
        }
        let changed = polls.is_some_and(|polls| polls > 2);
        HttpResponse::twin(
            json!({"rebootTime": if changed { "2026-11-22 18:36:07.4" } else { "2026-11-21 10:00:00.0" }}),
        )
    })
}

#[test]
fn against_somebody_elses_method_a_changed_reboot_time_counts() {
    for reply in [json!("Reboot started"), json!({"Response": "ok"}), json!(null), json!({"id": 5})] {
        let hub = foreign(reply);
        let run = reboot(&hub, &[]);
        run.ends(0, &["waiting until rebootTime changes", "completed"]);
        assert!(run.stdout.ends_with("gw1: rebootTime 2026-11-22 18:36:07.4\n"), "{run:#?}");
    }
}

#[test]
fn a_dry_run_is_sent_to_our_agent_only() {
    let hub = FakeHub::start(|request, _| {
        if request.is_call() {
            return HttpResponse::reply(200, json!({"id": request.reboot_id(), "status": "checked"}));
        }
        HttpResponse::twin(agent())
    });
    let run = reboot(&hub, &["--check", "-o", "json"]);
    run.ends(0, &["gw1: checked"]);
    assert_eq!(run.json()["outcome"], "checked");
    assert_eq!(hub.requests().last().unwrap().body["payload"]["check"], true);
    assert_eq!(hub.lines(), ["GET /twins/gw1", "POST /twins/gw1/methods"]);

    let other = foreign(json!("Reboot started"));
    reboot(&other, &["--check"]).ends(1, &["no iotdm agent", "nothing was sent"]);
    assert_eq!(other.lines(), ["GET /twins/gw1"]);
}

#[test]
fn no_wait_asks_for_nothing_but_the_reboot() {
    let hub = accepting(json!({}), &[completed]);
    reboot(&hub, &["--no-wait"]).ends(0, &["accepted"]);
    assert_eq!(hub.lines(), ["POST /twins/gw1/methods"]);
}

/// `gw1` completes, `gw2` is offline, every other device does not exist.
fn three_kinds() -> FakeHub {
    FakeHub::start(|request, _| {
        let device = request.path.split('/').nth(2).unwrap();
        match (device, request.is_call()) {
            ("gw1", true) => HttpResponse::reply(200, json!({"id": request.reboot_id()})),
            ("gw1", false) => HttpResponse::twin(completed(&json!("r-1"))),
            ("gw2", true) => HttpResponse::nested(404, 404_103),
            ("gw2", false) => HttpResponse::twin(json!({})),
            _ => HttpResponse::classic(404, "DeviceNotFound"),
        }
    })
}

#[test]
fn several_devices_end_alike_or_mixed() {
    let hub = three_kinds();
    let run = hub.run(&["reboot", "gw1", "gw2", "gw3", "--id", "r-1", "-o", "jsonl"]);
    run.ends(7, &["gw2: the device is offline", "gw3: no such device"]);
    let outcomes: Vec<Value> = run
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["outcome"].clone())
        .collect();
    assert_eq!(outcomes.len(), 3);
    for outcome in ["completed", "offline", "noSuchDevice"] {
        assert!(outcomes.contains(&json!(outcome)), "no {outcome} in {outcomes:?}");
    }

    let run = hub.run(&["reboot", "gw3", "gw4", "-o", "json"]);
    run.ends(5, &[]);
    assert_eq!(run.json().as_array().unwrap().len(), 2);
    hub.run(&["reboot", "gw2", "--id", "r-1"]).ends(4, &["--connect-timeout"]);
}
