//! `reboot` of devices that tell how they are, and whether they need a reboot.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common::{FakeHub, HttpRequest, HttpResponse, Ran};
use crate::fleet::{ALL, journal, spawn};
use serde_json::{Value, json};

/// What a device reports after its call: the last one stays.
type After = Vec<fn(&Value) -> Value>;

/// Devices that tell their health, each with a script.
#[derive(Clone)]
struct Scripted {
    after: Arc<BTreeMap<&'static str, After>>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// The request that each device got last, and how often it was looked at since.
    asked: BTreeMap<String, (Value, usize)>,
    calls: Vec<String>,
    /// What a device reports in place of its script.
    instead: BTreeMap<String, fn(&Value) -> Value>,
    disconnected: Vec<String>,
}

fn well(id: &Value) -> Value {
    with_health(id, json!({"bootId": "b", "state": "running", "failedCount": 0}))
}

fn starting(id: &Value) -> Value {
    with_health(id, json!({"bootId": "b", "state": "starting", "failedCount": 0}))
}

fn unwell(id: &Value) -> Value {
    let health =
        json!({"bootId": "b", "state": "degraded", "failedUnits": ["gateway-app.service"], "failedCount": 1});
    with_health(id, health)
}

fn as_before(id: &Value) -> Value {
    let health =
        json!({"bootId": "b", "state": "degraded", "failedUnits": ["old.service"], "failedCount": 1});
    with_health(id, health)
}

fn with_health(id: &Value, health: Value) -> Value {
    json!({
        "rebootTime": "2026-11-22T18:36:07.412Z",
        "reboot": {"id": id, "status": "completed", "bootId": "b", "failedBefore": ["old.service"]},
        "boot": {"bootId": "b", "cause": "requested"}, "health": health,
        "agent": {"version": "1", "features": ["health", "onlyIfRequired"]},
    })
}

fn not_needed(id: &Value) -> Value {
    json!({"reboot": {"id": id, "status": "notNeeded"}, "agent": {"features": ["health", "onlyIfRequired"]}})
}

fn rebooting(id: &Value) -> Value {
    json!({"reboot": {"id": id, "status": "rebooting", "waitingFor": ["docker.service"], "waitingForCount": 1}})
}

impl Scripted {
    fn new(devices: &[(&'static str, After)]) -> Self {
        Scripted { after: Arc::new(devices.iter().cloned().collect()), state: Arc::default() }
    }

    fn hub(&self) -> FakeHub {
        let this = self.clone();
        FakeHub::start(move |request, _| this.answer(request))
    }

    fn answer(&self, request: &HttpRequest) -> HttpResponse {
        let mut state = self.state.lock().unwrap();
        if request.path == "/devices/query" {
            return HttpResponse::ok(self.after.keys().map(|id| json!({"deviceId": id})).collect());
        }
        let device = request.path.split('/').nth(2).unwrap().to_owned();
        let script = &self.after[device.as_str()];
        if request.is_call() {
            state.calls.push(device.clone());
            let id = request.reboot_id();
            if request.body["payload"]["onlyIfRequired"] == true
                && script[0](&Value::Null)["reboot"]["status"] == "notNeeded"
            {
                let message = "the machine needs no reboot";
                return HttpResponse::reply(
                    200,
                    json!({"id": id, "status": "notNeeded", "message": message, "bootId": "a"}),
                );
            }
            state.asked.insert(device, (id.clone(), 0));
            return HttpResponse::reply(200, json!({"id": id, "status": "accepted", "bootId": "a"}));
        }
        if request.method == "PATCH" {
            if let Some(id) = request.body.pointer("/properties/desired/reboot/id") {
                state.asked.insert(device, (id.clone(), 0));
            }
            return HttpResponse::twin(json!({}));
        }
        let mut reported = json!({
            "agent": {"version": "1", "features": ["health", "onlyIfRequired"]},
            "health": {"bootId": "a", "state": "running", "failedCount": 0},
        });
        let instead = state.instead.get(&device).copied();
        if let Some((id, looks)) = state.asked.get_mut(&device) {
            let show = instead.unwrap_or(script[(*looks).min(script.len() - 1)]);
            *looks += 1;
            reported = show(id);
        }
        let connection = match state.disconnected.contains(&device) {
            true => "Disconnected",
            false => "Connected",
        };
        HttpResponse::ok(json!({
            "deviceId": device, "etag": "AAA=", "connectionState": connection,
            "properties": {"desired": {}, "reported": reported},
        }))
    }

    fn calls(&self) -> Vec<String> {
        self.state.lock().unwrap().calls.clone()
    }

    fn wait_for_looks(&self, device: &str, wanted: usize) {
        let patience = Instant::now() + Duration::from_secs(60);
        while self.state.lock().unwrap().asked.get(device).is_none_or(|(_, looks)| *looks < wanted) {
            assert!(Instant::now() < patience, "{device} is not looked at");
            std::thread::yield_now();
        }
    }
}

fn one(script: After, more: &[&str]) -> Ran {
    let hub = Scripted::new(&[("gw1", script)]).hub();
    hub.run(&[&["reboot", "gw1", "--interval", "10ms"][..], more].concat())
}

fn resume(hub: &FakeHub, more: &[&str]) -> Ran {
    let path = journal(hub);
    hub.run(&[&["reboot", "--resume", path.to_str().unwrap(), "--interval", "10ms"], more].concat())
}

#[test]
fn a_device_that_tells_its_health_is_waited_for_until_it_is_healthy() {
    let run = one(vec![starting, starting, well], &[]);
    run.ends(0, &["gw1: up, and still starting", "gw1: completed in ", " s, boot id changed\n"]);
    let other_boot: fn(&Value) -> Value = |id| {
        with_health(id, json!({"bootId": "a", "state": "degraded", "failedUnits": ["x"], "failedCount": 1}))
    };
    one(vec![other_boot, well], &[]).ends(0, &["its health is not known yet"]);

    let run = one(vec![starting, unwell], &["-o", "json"]);
    run.ends(7, &["iotdm-ctl: gw1: the device came back unhealthy: gateway-app.service\n"]);
    let outcome = run.json();
    assert_eq!((&outcome["outcome"], &outcome["health"]["state"]), (&json!("unhealthy"), &json!("degraded")));
    assert_eq!(outcome["error"], "the device came back unhealthy: gateway-app.service");

    let run = one(vec![as_before], &["-o", "json"]);
    run.ends(0, &["completed in ", " s, boot id changed; degraded as before: old.service\n"]);
    assert_eq!(run.json()["note"], "degraded as before: old.service");
    one(vec![as_before], &["--until", "healthy=strict"]).ends(7, &["came back unhealthy: old.service"]);
    one(vec![unwell], &["--until", "booted"]).ends(0, &["completed"]);

    let late = one(vec![starting], &["--wait-timeout", "50ms", "-o", "jsonl"]);
    late.ends(6, &["no outcome of request", "in 50ms, it is up, and still starting; it stays in force"]);
    assert_eq!(late.json()["outcome"], "timedOut");
    let csv = one(vec![unwell], &["-o", "csv"]).stdout;
    assert!(csv.contains(",unhealthy,") && csv.contains("came back unhealthy: gateway-app.service"), "{csv}");
}

#[test]
fn what_cannot_be_kept_is_refused_before_the_call() {
    let hub = FakeHub::start(|_, _| HttpResponse::twin(json!({"agent": {"version": "1"}})));
    for until in ["healthy", "healthy=strict"] {
        for how in [&[][..], &["--when-online"], &["--check"]] {
            let run = hub.run(&[&["reboot", "gw1", "--until", until][..], how].concat());
            run.ends(3, &["the device does not report its health (--until); nothing was sent"]);
        }
    }
    assert!(hub.requests().iter().all(|request| request.method == "GET"));
    for (options, part) in [
        (&["--until", "well"][..], "booted, healthy, healthy=strict"),
        (&["--until", "healthy", "--no-wait"], "--no-wait"),
        (&["--until", "booted", "--job"], "--job"),
        (&["--soak", "0s"], "--soak"),
        (&["--soak", "5m"], "--canary"),
        (&["--resume", "x", "--if-required"], "cannot be used with"),
    ] {
        let devices = if options[0] == "--resume" { &[][..] } else { &["gw1"] };
        hub.run(&[&["reboot"], devices, options].concat()).ends(2, &[part]);
    }
}

/// Its time is over while it stops something, and only then it is seen to be unwell.
#[test]
fn a_canary_is_not_let_go_while_it_cannot_be_said_how_it_is() {
    let stopping: fn(&Value) -> Value = |id| with_health(id, json!({"bootId": "b", "state": "stopping"}));
    let mut script: After = vec![well, well];
    script.extend([stopping; 40]);
    script.push(unwell);
    let fleet = Scripted::new(&[("gw1", script), ("gw2", vec![well])]);
    let run = fleet.hub().run(&[&ALL[..], &["--soak", "100ms"]].concat());
    run.ends(7, &["the canary has become unhealthy while it was watched (--soak): gateway-app.service"]);
    assert_eq!(fleet.calls(), ["gw1"]);
    // It is not waited for without an end.
    let fleet = Scripted::new(&[("gw1", vec![well, stopping]), ("gw2", vec![well])]);
    let run = fleet.hub().run(&[&ALL[..], &["--soak", "100ms", "--wait-timeout", "200ms"]].concat());
    run.ends(7, &["the canary has not settled while it was watched (--soak): it is up, and stopping"]);
}

/// A daemon that says that it can tell its health, on a machine where nobody can.
#[test]
fn a_device_that_says_nothing_of_its_health_is_not_waited_for_for_ever() {
    let hub = || {
        FakeHub::start(|request, before| match (request.is_call(), before) {
            (true, _) => HttpResponse::reply(200, json!({"id": "r-1", "status": "accepted"})),
            (false, 0) => HttpResponse::twin(json!({"agent": {"features": ["health"]}})),
            _ => HttpResponse::twin(json!({"reboot": {"id": "r-1", "status": "completed", "bootId": "b"}})),
        })
    };
    let reboot = ["reboot", "gw1", "--id", "r-1", "--interval", "10ms"];
    hub().run(&reboot).ends(0, &["completed in ", "; it says nothing of its health\n"]);
    let asked_for = hub().run(&[&reboot[..], &["--until", "healthy", "--wait-timeout", "100ms"]].concat());
    assert_eq!(asked_for.code, 6, "{asked_for:#?}");
}

#[test]
fn an_unhealthy_canary_stops_the_run_and_one_that_holds_its_group_as_well() {
    let fleet = Scripted::new(&[("gw1", vec![starting, unwell]), ("gw2", vec![well]), ("gw3", vec![well])]);
    let hub = fleet.hub();
    let page = hub.path("run.html");
    let report = ["--report", page.to_str().unwrap()];
    let run = hub.run(&[&ALL[..], &["--canary", "1"], &report].concat());
    run.ends(7, &["stopped: one of those that went first failed (--canary)"]);
    assert!(run.stdout.contains("3 devices: 1 unhealthy, 2 not started\n"), "{run:#?}");
    assert!(run.stdout.contains("gw1") && run.stdout.contains("gateway-app.service"), "{run:#?}");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("<td>unhealthy</td><td>the device came back unhealthy: gateway-app.service</td>"));
    resume(&hub, &[]).ends(7, &["stopped: one of those that went first failed"]);
    assert_eq!(fleet.calls(), ["gw1"], "nobody else is touched");

    // All are of one group, of which gw1 is not well. Mended, it frees its place.
    let fleet = Scripted::new(&[("gw1", vec![unwell]), ("gw2", vec![well])]);
    let hub = fleet.hub();
    let grouped =
        |device: &str| json!({"deviceId": device, "tags": {"site": "a"}, "connectionState": "Connected"});
    let answered = fleet.clone();
    drop(hub);
    let hub = FakeHub::start(move |request, _| match request.path.as_str() {
        "/devices/query" => HttpResponse::ok(json!([grouped("gw1"), grouped("gw2")])),
        _ => answered.answer(request),
    });
    let per = ["--canary", "0", "--max-failures", "all", "--at-most", "1", "--per", "tags.site"];
    let held = hub.run(&[&ALL[..], &per].concat());
    held.ends(7, &["stopped: 1 devices wait for others of their groups that are not back (--at-most)"]);
    resume(&hub, &[]).ends(7, &["stopped: 1 devices wait for others"]);
    assert_eq!(fleet.calls(), ["gw1"]);
    fleet.state.lock().unwrap().instead.insert("gw1".to_owned(), well);
    let mended = resume(&hub, &[]);
    assert!(mended.stdout.contains("2 devices: 1 completed, 1 unhealthy\n"), "{mended:#?}");
    assert_eq!(fleet.calls(), ["gw1", "gw2"]);
}

#[test]
fn canaries_are_watched_also_over_resume() {
    let soaking = ["--canary", "1", "--soak", "1h"];
    for how in ["unhealthy", "gone", "killed"] {
        let fleet = Scripted::new(&[("gw1", vec![well]), ("gw2", vec![well])]);
        let hub = fleet.hub();
        let mut run = spawn(hub.command(&[&ALL[..], &soaking].concat()));
        fleet.wait_for_looks("gw1", 3);
        if how == "killed" {
            run.kill().unwrap();
            run.wait().unwrap();
            let path = journal(&hub);
            assert!(std::fs::read_to_string(&path).unwrap().contains("{\"soak\":{\"device\":\"gw1\""));
            run = spawn(hub.command(&["reboot", "--resume", path.to_str().unwrap(), "--interval", "10ms"]));
            let looks = fleet.state.lock().unwrap().asked["gw1"].1;
            fleet.wait_for_looks("gw1", looks + 3);
        }
        assert_eq!(fleet.calls(), ["gw1"]);
        match how {
            "gone" => fleet.state.lock().unwrap().disconnected.push("gw1".to_owned()),
            _ => drop(fleet.state.lock().unwrap().instead.insert("gw1".to_owned(), unwell)),
        }
        let ran = Ran::from(run.wait_with_output().unwrap());
        let part = match how {
            "gone" => "gw1: the canary has gone away while it was watched (--soak)\n",
            _ => "gw1: the canary has become unhealthy while it was watched (--soak): gateway-app.service\n",
        };
        ran.ends(7, &[part, "stopped: one of those that went first failed"]);
        assert!(ran.stdout.contains("2 devices: 1 unhealthy, 1 not started\n"), "{ran:#?}");
        resume(&hub, &[]).ends(7, &["stopped: one of those that went first failed"]);
        assert_eq!(fleet.calls(), ["gw1"], "{how}");
    }
    let fleet = Scripted::new(&[("gw1", vec![well]), ("gw2", vec![well])]);
    let hub = fleet.hub();
    let began = Instant::now();
    hub.run(&[&ALL[..], &["--soak", "300ms"]].concat()).ends(0, &["gw1: completed, watched for"]);
    assert!(began.elapsed() >= Duration::from_millis(300) && fleet.calls() == ["gw1", "gw2"]);
}

#[test]
fn who_needs_no_reboot_is_left_alone_and_is_no_canary() {
    let fleet = Scripted::new(&[
        ("gw1", vec![not_needed]),
        ("gw2", vec![unwell]),
        ("gw3", vec![well]),
        ("gw4", vec![not_needed]),
    ]);
    let hub = fleet.hub();
    let required = [&ALL[..], &["--if-required"]].concat();
    let stopped = hub.run(&[&required[..], &["--canary", "1"]].concat());
    stopped.ends(7, &["gw1: not needed; the machine needs no reboot\n", "(--canary)"]);
    assert!(stopped.stdout.contains("4 devices: 1 not needed, 1 unhealthy, 2 not started\n"), "{stopped:#?}");
    assert_eq!(fleet.calls(), ["gw1", "gw2"]);
    let payload = &hub.requests().into_iter().find(HttpRequest::is_call).unwrap().body["payload"];
    assert_eq!(payload["onlyIfRequired"], true);
    // The next invocation knows who the canary was, and asks nobody twice.
    resume(&hub, &[]).ends(7, &["(--canary)"]);
    let rest = resume(&hub, &["--canary", "0"]);
    assert!(rest.stdout.contains("4 devices: 1 completed, 2 not needed, 1 unhealthy\n"), "{rest:#?}");
    let mut calls = fleet.calls();
    // The last two were under way at the same time.
    calls.sort();
    assert_eq!(calls, ["gw1", "gw2", "gw3", "gw4"]);

    let none = one(vec![not_needed], &["--if-required", "-o", "json"]);
    none.ends(0, &["gw1: not needed; the machine needs no reboot\n"]);
    assert_eq!((&none.json()["outcome"], none.json().get("error")), (&json!("notNeeded"), None));
    for how in [&["--no-wait"][..], &["--check"], &["--when-online"]] {
        let run = one(vec![not_needed], &[&["--if-required"], how].concat());
        let is_wish_alone = how == ["--when-online"];
        assert_eq!(run.code, 0, "{run:#?}");
        assert!(
            run.stderr.contains("not needed") || is_wish_alone && run.stderr.contains("wished"),
            "{run:#?}"
        );
    }
}

#[test]
fn who_does_not_know_what_a_need_is_gets_no_such_request_by_any_way() {
    let hub = FakeHub::start(|request, _| match request.path.as_str() {
        "/devices/query" => HttpResponse::ok(json!([{"deviceId": "gw1"}])),
        _ => HttpResponse::twin(json!({"agent": {"version": "1", "features": ["health"]}})),
    });
    for how in [&[][..], &["--no-wait"], &["--when-online"], &["--check"], &["--job"]] {
        let run = hub.run(&[&["reboot", "gw1", "--if-required"][..], how].concat());
        run.ends(3, &[]);
        let said = format!("{}{}", run.stdout, run.stderr);
        assert!(said.contains("agent too old for onlyIfRequired; nothing was sent"), "{how:?} {run:#?}");
    }
    let read = |request: &HttpRequest| request.method == "GET" || request.path == "/devices/query";
    assert!(hub.requests().iter().all(read), "{:?}", hub.lines());
}

#[test]
fn a_job_goes_to_those_who_know_and_tells_who_needed_nothing() {
    let hub = FakeHub::start(|request, _| {
        let twin = |features: Value| HttpResponse::twin(json!({"agent": {"features": features}}));
        match (request.method.as_str(), request.path.as_str()) {
            (_, "/twins/gw2") => twin(json!(["health"])),
            ("GET", path) if path.starts_with("/twins/") => twin(json!(["onlyIfRequired"])),
            (_, "/devices/query") if request.body["query"].as_str().unwrap().contains("devices.jobs") => {
                let payload = json!({"id": "r-1", "status": "notNeeded", "message": "it needs none"});
                let outcome = json!({"deviceMethodResponse": {"status": 200, "payload": payload}});
                HttpResponse::ok(
                    json!([{"deviceId": "gw1", "jobId": "r-1", "status": "completed", "outcome": outcome}]),
                )
            }
            (_, "/devices/query") => HttpResponse::ok(json!([{"deviceId": "gw1"}, {"deviceId": "gw2"}])),
            _ => HttpResponse::ok(json!({"jobId": "r-1", "status": "completed",
                "deviceJobStatistics": {"deviceCount": 1}})),
        }
    });
    let job = ["reboot", "--where", "tags.site = 'a'", "--yes", "--job", "--id", "r-1", "--if-required"];
    let run = hub.run(&[&job[..], &["-o", "csv"]].concat());
    run.ends(7, &["gw2: agent too old for onlyIfRequired; nothing was sent"]);
    assert!(run.stdout.contains("gw1,r-1,notNeeded,,,it needs none\n"), "{run:#?}");
    let made = hub.requests().into_iter().find(|request| request.method == "PUT").unwrap();
    assert_eq!(made.body["queryCondition"], "deviceId IN ['gw1']");
}

#[test]
fn what_holds_a_shutdown_up_is_shown() {
    let run = one(vec![rebooting, rebooting, well], &[]);
    run.ends(0, &["gw1: rebooting, held up by docker.service (0 s)\n", "gw1: completed"]);
    assert_eq!(run.stderr.matches("docker.service").count(), 1, "{run:#?}");
    one(vec![rebooting], &["--wait-timeout", "50ms"])
        .ends(6, &["it is rebooting, held up by docker.service;"]);
}
