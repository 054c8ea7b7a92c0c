//! `reboot` taken up again, and what must not be lost between two invocations: who may
//! have been rebooted, who may not be well, and under which rules the run goes on.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::common::{FakeHub, HttpResponse, Ran};
use crate::fleet::{ALL, CARELESS, Fleet, journal, refused};
use serde_json::{Value, json};

fn resume(hub: &FakeHub, more: &[&str]) -> Ran {
    let path = journal(hub);
    hub.run(&[&["reboot", "--resume", path.to_str().unwrap(), "--interval", "10ms"], more].concat())
}

/// A journal of `gw1` and `gw2` under these rules, of which none was asked yet.
fn under_rules(hub: &FakeHub, rules: Value) -> String {
    let host = hub.connection_string().split([';', '=']).nth(1).unwrap().to_owned();
    let mut all = json!({"maxInFlight": 10, "canary": 0, "maxFailures": null});
    all.as_object_mut().unwrap().extend(rules.as_object().unwrap().clone());
    let run = json!({"run": {
        "version": 2, "at": "2026-11-22T18:36:07.412Z", "hub": host, "request": {"id": "r-1"}, "way": "method",
        "rules": all, "devices": ["gw1", "gw2"],
    }});
    let path = hub.path("journal");
    fs::write(&path, format!("{run}\n")).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Two devices of one site. `gw1` replies and reports, once it was called, what a test
/// says, and `gw2` completes.
#[derive(Clone, Default)]
struct Site(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    calls: Vec<String>,
    id: Value,
    /// What `gw1` replies, if not that it accepts.
    reply: Option<HttpResponse>,
    /// What `gw1` reports after its call, without the request's id.
    reported: Value,
}

impl Site {
    fn hub(&self) -> FakeHub {
        let site = self.clone();
        FakeHub::start(move |request, _| {
            let mut state = site.0.lock().unwrap();
            let row = |device: &str| json!({"deviceId": device, "tags": {"site": "a"}, "connectionState": "Connected"});
            let device = request.path.split('/').nth(2).unwrap().to_owned();
            match device.as_str() {
                "query" => HttpResponse::ok(json!([row("gw1"), row("gw2")])),
                _ if request.is_call() && request.body["methodName"] == "rebootDevice" => {
                    state.calls.push(device.clone());
                    let id = request.reboot_id();
                    let accepted = HttpResponse::reply(200, json!({"id": id, "status": "accepted"}));
                    state.id = id;
                    if device == "gw1" { state.reply.clone().unwrap_or(accepted) } else { accepted }
                }
                _ if !state.calls.contains(&device) => HttpResponse::twin(json!({"agent": {"version": "1"}})),
                "gw1" => {
                    let mut reported = state.reported.clone();
                    reported["agent"] = json!({"version": "1"});
                    if let Some(reboot) = reported.get_mut("reboot") {
                        reboot["id"] = state.id.clone();
                    }
                    HttpResponse::twin(reported)
                }
                _ => HttpResponse::twin(json!({"reboot": {"id": state.id, "status": "completed"}})),
            }
        })
    }

    fn reports(&self, reported: Value) {
        self.0.lock().unwrap().reported = reported;
    }

    fn calls(&self) -> Vec<String> {
        self.0.lock().unwrap().calls.clone()
    }
}

fn grouped(hub: &FakeHub) -> Ran {
    hub.run(&[&ALL[..], &CARELESS, &["--at-most", "1", "--per", "tags.site"]].concat())
}

const HELD: &str = "stopped: 1 devices wait for others of their groups that are not back (--at-most)";

/// Somebody else's `rebootDevice`, which reboots at once, so that the link breaks in the
/// middle of the call.
#[test]
fn who_went_away_during_the_call_is_not_called_again() {
    let called = Arc::new(Mutex::new(0));
    let calls = called.clone();
    let hub = FakeHub::start(move |request, _| {
        let mut calls = calls.lock().unwrap();
        if request.path == "/devices/query" {
            return HttpResponse::ok(json!([{"deviceId": "gw1"}]));
        }
        if request.is_call() && request.body["methodName"] == "rebootDevice" {
            *calls += 1;
            return HttpResponse::nested(404, 404_104);
        }
        HttpResponse::twin(json!({"rebootTime": if *calls > 0 { "after" } else { "before" }}))
    });
    hub.run(&[&ALL[..], &["--no-wait"]].concat()).ends(4, &["connection broke during the call"]);
    // Whoever cancels the run has to know that it may have been asked.
    let path = journal(&hub);
    let _ = hub.run(&["cancel", "--journal", path.to_str().unwrap()]);
    assert!(hub.requests().iter().any(|request| request.body["methodName"] == "cancelReboot"));
    resume(&hub, &[]).ends(0, &["gw1: sent before, looking for its outcome", "gw1: completed in"]);
    assert_eq!(*called.lock().unwrap(), 1);
}

#[test]
fn rules_of_the_journal_are_not_given_up_by_not_waiting() {
    let hub = Fleet::default().hub(0, |_| None);
    for (rules, part) in [
        (json!({"soak": 60_000, "canary": 1}), "--no-wait: canaries are watched (--soak)"),
        (json!({"until": "healthy"}), "--no-wait: that a device is healthy (--until)"),
        (json!({"until": "healthy=strict"}), "--no-wait: that a device is healthy (--until)"),
    ] {
        let path = under_rules(&hub, rules);
        hub.run(&["reboot", "--resume", &path, "--no-wait"]).ends(2, &[part]);
    }
    assert_eq!(hub.lines(), [""; 0]);
    let path = under_rules(&hub, json!({"until": "booted"}));
    hub.run(&["reboot", "--resume", &path, "--no-wait"]).ends(0, &[]);
}

#[test]
fn a_run_with_a_soak_goes_on_without_canaries() {
    let fleet = Fleet::default();
    let hub = fleet.hub(3, |_| None);
    let path = under_rules(&hub, json!({"soak": 3_600_000, "canary": 1}));
    hub.run(&["reboot", "--resume", &path, "--canary", "0", "--interval", "10ms"]).ends(0, &[]);
    assert_eq!(fleet.got().len(), 2);
    // Who asks for it now has to say of how many; before that, nothing is done.
    let path = under_rules(&hub, json!({}));
    let before = fs::read_to_string(&path).unwrap();
    hub.run(&["reboot", "--resume", &path, "--soak", "5m", "--retry-failed"]).ends(2, &["--canary N"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), before);
    for which in [&["gw1", "gw2"][..], &["--where", "tags.a = 1", "--yes", "--canary", "0"]] {
        hub.run(&[&["reboot"], which, &["--soak", "5m"]].concat()).ends(2, &["--canary N"]);
    }
    assert!(!hub.path("state").exists(), "there is no journal of a run that never was");
    assert_eq!(fleet.got().len(), 2);
}

#[test]
fn a_canary_that_was_not_watched_to_the_end_is_watched_again() {
    let refuses = Arc::new(Mutex::new(true));
    let state = refuses.clone();
    let fleet = Fleet::default();
    let called = fleet.clone();
    let hub = fleet.hub(3, move |device| match device {
        "gw2" if *state.lock().unwrap() => {
            // By then the other one that goes first is called.
            called.wait_for(1);
            refused(device)
        }
        _ => None,
    });
    let soaking = ["--canary", "2", "--soak", "1h"];
    hub.run(&[&ALL[..], &soaking].concat()).ends(7, &["stopped: one of those that went first failed"]);
    let ended = fs::read_to_string(journal(&hub)).unwrap();
    assert!(!ended.contains("{\"ended\":{\"device\":\"gw1\""), "{ended}");
    *refuses.lock().unwrap() = false;
    let again = resume(&hub, &["--retry-failed", "--soak", "300ms"]);
    again.ends(0, &["gw1: completed, watched for", "gw2: completed, watched for"]);
    assert!(fleet.got().iter().all(|(_, times)| *times == 1), "{:?}", fleet.got());
}

#[test]
fn who_may_not_be_well_holds_its_group_until_it_is() {
    let boot = |cause: &str| json!({"bootId": "b", "cause": cause});
    let reboot = |status: &str| json!({"status": status, "previousBootId": "a", "bootId": "b"});
    let unclean = json!({"reboot": reboot("completed"), "boot": boot("unclean")});
    let mut failed = json!({"reboot": reboot("failed"), "boot": boot("unclean")});
    failed["reboot"]["error"] = json!({"code": "uncleanBoot", "message": "m"});
    let going = json!({"error": {"code": "shuttingDown", "message": "the machine is going down already"}});
    let going = HttpResponse::reply(409, going);
    let stopping = json!({"boot": boot("local"), "health": {"bootId": "b", "state": "stopping"}});
    for (reply, reported) in [(None, unclean), (None, failed), (Some(going), stopping)] {
        let site = Site::default();
        site.0.lock().unwrap().reply = reply;
        site.reports(reported.clone());
        let hub = site.hub();
        grouped(&hub).ends(7, &[HELD]);
        let mut now = reported.clone();
        now["health"] = json!({"bootId": "b", "state": "starting"});
        site.reports(now.clone());
        resume(&hub, &[]).ends(7, &[HELD]);
        assert_eq!(site.calls(), ["gw1"], "{reported}");
        now["health"]["state"] = json!("running");
        site.reports(now);
        resume(&hub, &[]).ends(7, &["gw2: completed in"]);
        assert_eq!(site.calls(), ["gw1", "gw2"], "{reported}");
    }
}

/// What a device has to be is what the run asks for.
#[test]
fn who_only_has_to_be_up_holds_its_group_until_it_is() {
    let site = Site::default();
    let boot = json!({"bootId": "b", "cause": "unclean"});
    let reboot = json!({"status": "completed", "previousBootId": "a", "bootId": "b"});
    let health = |state: &str| json!({"bootId": "b", "state": state, "failedUnits": ["x"], "failedCount": 1});
    site.reports(json!({"reboot": reboot, "boot": boot, "health": health("starting")}));
    let hub = site.hub();
    let until = ["--at-most", "1", "--per", "tags.site", "--until", "booted"];
    hub.run(&[&ALL[..], &CARELESS, &until].concat()).ends(7, &[HELD]);
    resume(&hub, &[]).ends(7, &[HELD]);
    site.reports(json!({"reboot": reboot, "boot": boot, "health": health("degraded")}));
    resume(&hub, &["--until", "healthy"]).ends(7, &[HELD]);
    resume(&hub, &[]).ends(7, &["gw2: completed in"]);
}

#[test]
fn a_mended_device_holds_its_group_no_longer() {
    let unwell = json!({
        "reboot": {"status": "completed", "previousBootId": "a", "bootId": "b"}, "boot": {"bootId": "b"},
        "health": {"bootId": "b", "state": "degraded", "failedUnits": ["x"], "failedCount": 1},
    });
    // It was rebooted by hand, or tells nothing of its health any more.
    for health in [json!({"bootId": "c", "state": "running"}), Value::Null] {
        let site = Site::default();
        site.reports(unwell.clone());
        let hub = site.hub();
        grouped(&hub).ends(7, &[HELD]);
        let mut now = unwell.clone();
        (now["boot"]["bootId"], now["health"]) = (json!("c"), health);
        site.reports(now);
        resume(&hub, &[]).ends(7, &["gw2: completed in"]);
        assert_eq!(site.calls(), ["gw1", "gw2"]);
    }
    // So it is with one that was not well in time.
    let site = Site::default();
    let starting = json!({"bootId": "b", "state": "starting"});
    let starting = json!({"reboot": unwell["reboot"], "boot": {"bootId": "b"}, "health": starting});
    site.reports(starting.clone());
    let hub = site.hub();
    hub.run(
        &[&ALL[..], &CARELESS, &["--at-most", "1", "--per", "tags.site", "--wait-timeout", "100ms"]].concat(),
    )
    .ends(7, &[HELD]);
    let mut now = starting;
    (now["boot"]["bootId"], now["health"]) = (json!("c"), json!({"bootId": "c", "state": "running"}));
    site.reports(now);
    resume(&hub, &["--wait-timeout", "10s"]).ends(0, &["; it has booted again since\n", "gw2: completed in"]);
}

#[test]
fn who_was_not_reached_waits_for_the_gate_as_everybody() {
    let site = Site::default();
    site.0.lock().unwrap().reply = Some(HttpResponse::nested(404, 404_103));
    let hub = site.hub();
    grouped(&hub).ends(7, &["gw1: the device is offline", HELD]);
    assert_eq!(site.calls(), ["gw1"]);
    let gate = ["--gate", "echo asked for $IOTDM_DEVICE; exit 1", "--gate-timeout", "0s"];
    let ran = resume(&hub, &gate);
    ran.ends(7, &["gate: asked for gw1\n", "stopped: the gate held for too long"]);
    assert!(ran.stdout.contains("2 devices: 2 not started\n"), "{ran:#?}");
    assert_eq!(site.calls(), ["gw1"], "behind the gate");
    site.0.lock().unwrap().reply = None;
    site.reports(json!({"reboot": {"status": "completed"}}));
    resume(&hub, &["--gate", "true"]).ends(0, &["gw1: completed in", "gw2: completed in"]);
    assert_eq!(site.calls(), ["gw1", "gw1", "gw2"]);
}

#[test]
fn who_failed_and_has_booted_since_is_not_asked_again() {
    for (code, running, times) in
        [("uncleanBoot", "b", 1), ("neverWentDown", "c", 1), ("neverWentDown", "a", 2), ("expired", "a", 2)]
    {
        let site = Site::default();
        let reboot =
            json!({"status": "failed", "previousBootId": "a", "error": {"code": code, "message": "m"}});
        site.reports(json!({"reboot": reboot, "boot": {"bootId": running}}));
        let hub = site.hub();
        hub.run(&[&ALL[..], &CARELESS].concat()).ends(7, &[]);
        let again = resume(&hub, &["--retry-failed"]);
        let said = again.stderr.contains("gw1: it has booted since, it is not asked again\n");
        assert_eq!(said, times == 1, "{again:#?}");
        assert_eq!(site.calls().iter().filter(|device| *device == "gw1").count(), times, "{code} {running}");
    }
}

/// The reply to the first call gets lost, and the device is going down when it is asked
/// again.
#[test]
fn who_may_be_rebooting_is_not_told_to_be_offline() {
    let state = Arc::new(Mutex::new((0, 0)));
    let hub = FakeHub::start(move |request, _| {
        let (calls, looks) = &mut *state.lock().unwrap();
        if request.is_call() {
            *calls += 1;
            return if *calls == 1 {
                HttpResponse::nested(504, 504_101)
            } else {
                HttpResponse::nested(404, 404_103)
            };
        }
        *looks += usize::from(*calls > 1);
        let mut reported = json!({"agent": {"features": ["onlyIfRequired"]}});
        if *looks > 5 {
            reported["reboot"] = json!({"id": "r-1", "status": "completed"});
        }
        HttpResponse::twin(reported)
    });
    let run = hub.run(&["reboot", "gw1", "--if-required", "--id", "r-1", "--interval", "10ms"]);
    run.ends(
        0,
        &["asking again", "the device is offline", "looking for its outcome in the twin", "completed in"],
    );
}

/// A limit to the size of files is what a full disk is to a write.
#[test]
fn a_canary_of_which_the_journal_takes_nothing_more_has_completed() {
    let options = ["--canary", "1", "--soak", "1h", "--id", "r-1", "--operator", "o"];
    // Until the canary is complete the journal has two lines, as in a run that it fails.
    let failing = Fleet::default().hub(2, refused);
    failing.run(&[&ALL[..], &options].concat()).ends(7, &[]);
    let text = fs::read_to_string(journal(&failing)).unwrap();
    let two_lines: usize = text.split_inclusive('\n').take(2).map(str::len).sum();

    let hub = Fleet::default().hub(2, |_| None);
    let command = hub.command(&[&ALL[..], &options].concat());
    let mut shell = Command::new("sh");
    shell.arg("-c").arg("trap '' XFSZ; exec prlimit --fsize=\"$0\" \"$@\"").arg((two_lines + 20).to_string());
    shell.arg(command.get_program()).args(command.get_args());
    shell.env_clear().env("XDG_STATE_HOME", hub.path("state")).env("PATH", "/usr/bin:/bin");
    let ran = Ran::from(shell.stdin(Stdio::null()).output().unwrap());
    ran.ends(1, &["cannot write the journal", "stopped: nothing can be sent that is not in the journal"]);
    assert!(ran.stdout.contains("2 devices: 1 completed, 1 not started\n"), "{ran:#?}");
}

/// A run was killed after the line that it was about to ask `gw1`. What the line has of
/// the device may have been read a while before, so that the device had got another
/// request in between.
#[test]
fn a_request_of_before_the_call_keeps_no_device_from_being_asked() {
    for (granted, calls) in [("2026-11-22T18:39:00.000Z", 1), ("2026-11-22T18:41:00.000Z", 0)] {
        let called = Arc::new(Mutex::new(Vec::new()));
        let state = called.clone();
        let hub = FakeHub::start(move |request, _| {
            let mut called = state.lock().unwrap();
            if request.is_call() {
                called.push(request.reboot_id());
                return HttpResponse::reply(200, json!({"id": request.reboot_id(), "status": "accepted"}));
            }
            let id = called.last().cloned().unwrap_or_else(|| json!("r-9"));
            let reboot = json!({"id": id, "status": "completed", "requestedAt": granted});
            HttpResponse::twin(json!({"agent": {"version": "1"}, "reboot": reboot}))
        });
        let path = under_rules(&hub, json!({}));
        let before = json!({"agent": true, "rebootId": "r-0"});
        let sent = json!({"sent": {"device": "gw1", "before": before, "at": "2026-11-22T18:40:00.000Z"}});
        let gone = json!({"ended": {"device": "gw2", "id": "r-1", "outcome": "completed"}});
        fs::write(&path, format!("{}{sent}\n{gone}\n", fs::read_to_string(&path).unwrap())).unwrap();
        let ran = hub.run(&["reboot", "--resume", &path, "--interval", "10ms"]);
        match calls {
            1 => ran.ends(0, &["gw1: completed in"]),
            _ => ran.ends(7, &["the device has since been asked for r-9"]),
        }
        assert_eq!(called.lock().unwrap().len(), calls);
    }
}
