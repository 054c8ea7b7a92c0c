//! `reboot` of many devices: the order, the stops, the journal, the terminal.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Barrier, Condvar, Mutex, mpsc};
use std::time::{Duration, Instant};

use crate::common::{FakeHub, HttpRequest, HttpResponse, Ran, on_terminal};
use iotdm_tests::{Disk, wait_until};
use serde_json::{Value, json};

/// Devices whose twins show `completed` once they have accepted.
#[derive(Clone, Default)]
pub struct Fleet(pub Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
pub struct State {
    /// The ids of the requests that each device got, in order.
    pub got: BTreeMap<String, Vec<Value>>,
    /// Devices that never come to an end.
    pub lost: Vec<String>,
}

impl Fleet {
    /// A hub with `gw1` to `gw{n}`, and what those answer to calls.
    pub fn hub(
        &self,
        n: usize,
        reply: impl Fn(&str) -> Option<HttpResponse> + Send + Sync + 'static,
    ) -> FakeHub {
        let fleet = self.clone();
        FakeHub::start(move |request, _| {
            if request.path == "/devices/query" {
                return HttpResponse::ok((1..=n).map(|n| json!({"deviceId": format!("gw{n}")})).collect());
            }
            let device = request.path.split('/').nth(2).unwrap();
            if request.is_call() { fleet.call(device, request, &reply) } else { fleet.twin(device) }
        })
    }

    fn call(
        &self,
        device: &str,
        request: &HttpRequest,
        reply: &dyn Fn(&str) -> Option<HttpResponse>,
    ) -> HttpResponse {
        if let Some(answer) = reply(device) {
            return answer;
        }
        let id = request.reboot_id();
        let (state, changed) = &*self.0;
        state.lock().unwrap().got.entry(device.to_owned()).or_default().push(id.clone());
        changed.notify_all();
        let status = if request.body["payload"]["check"] == true { "checked" } else { "accepted" };
        HttpResponse::reply(200, json!({"id": id, "status": status}))
    }

    fn twin(&self, device: &str) -> HttpResponse {
        let state = self.0.0.lock().unwrap();
        let mut reported = json!({"agent": {"version": "1"}});
        if let Some(id) = state.got.get(device).and_then(|ids| ids.last()) {
            let status = if state.lost.iter().any(|lost| lost == device) { "rebooting" } else { "completed" };
            reported["reboot"] = json!({"id": id, "status": status});
        }
        HttpResponse::twin(reported)
    }

    pub fn lose(&self, devices: &[&str]) {
        self.0.0.lock().unwrap().lost = devices.iter().map(ToString::to_string).collect();
    }

    /// Which devices got how many requests.
    pub fn got(&self) -> Vec<(String, usize)> {
        self.0.0.lock().unwrap().got.iter().map(|(device, ids)| (device.clone(), ids.len())).collect()
    }

    /// Waits until so many devices got a request.
    pub fn wait_for(&self, devices: usize) {
        let (state, changed) = &*self.0;
        let few = |state: &mut State| state.got.len() < devices;
        // This time only passes when something is wrong.
        let patience = std::time::Duration::from_secs(60);
        let (state, waited) = changed.wait_timeout_while(state.lock().unwrap(), patience, few).unwrap();
        assert!(!waited.timed_out(), "only {:?} were asked", state.got);
    }
}

pub const ALL: [&str; 6] = ["reboot", "--where", "tags.site = 'north'", "--yes", "--interval", "10ms"];
/// No care is taken that is not asked for.
pub const CARELESS: [&str; 4] = ["--canary", "0", "--max-failures", "all"];

fn run(hub: &FakeHub, more: &[&str]) -> Ran {
    let mut arguments = ALL.to_vec();
    for option in CARELESS.chunks(2).filter(|option| !more.contains(&option[0])) {
        arguments.extend(option);
    }
    hub.run(&[&arguments, more].concat())
}

pub fn refused(_: &str) -> Option<HttpResponse> {
    Some(HttpResponse::reply(
        423,
        json!({"error": {"code": "blockedByInhibitor", "message": "apt holds it"}}),
    ))
}

pub fn journal(hub: &FakeHub) -> PathBuf {
    let mut files = fs::read_dir(hub.path("state/iotdm/reboots")).unwrap();
    files.next().unwrap().unwrap().path()
}

pub fn spawn(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_mixed_end_is_summed_up_and_exit_7() {
    let fleet = Fleet::default();
    let hub = fleet.hub(12, |device| match device {
        "gw3" | "gw7" => refused(device),
        "gw9" => Some(HttpResponse::nested(404, 404_103)),
        _ => None,
    });
    fleet.lose(&["gw5"]);
    let result = run(&hub, &["--wait-timeout", "300ms"]);
    result.ends(7, &["journal ", "to go on: iotdm-ctl reboot --resume "]);
    let query = hub.requests()[0].body["query"].as_str().unwrap().to_owned();
    assert!(query.starts_with("SELECT deviceId, properties.reported.agent AS agent, "), "{query}");
    assert!(query.ends_with(" FROM devices WHERE tags.site = 'north'"), "{query}");
    let (before, table) = result.stdout.split_once("12 devices: ").unwrap();
    assert_eq!(before.matches("rebootTime").count(), 8);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0], "8 completed, 2 refused, 1 timed out, 1 offline");
    assert_eq!(lines[1], "DEVICE  OUTCOME    WHY");
    assert_eq!(
        lines[2],
        "gw3     refused    the device refused with status 423: blockedByInhibitor, apt holds it"
    );
    assert!(lines[3].starts_with("gw5     timed out  no outcome of request "), "{table}");
    assert_eq!(lines.len(), 6);
}

#[test]
fn outcomes_as_json_and_as_lines() {
    let hub = Fleet::default().hub(3, |device| if device == "gw2" { refused(device) } else { None });
    let run_as = |form| run(&hub, &["-o", form, "--id", "r-1"]);
    let json = run_as("json");
    json.ends(7, &[]);
    let outcomes = json.json();
    let of = |key: &str| outcomes.as_array().unwrap().iter().map(|e| e[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("device"), ["gw1", "gw2", "gw3"], "in the order selected");
    assert_eq!(of("outcome"), ["completed", "refused", "completed"]);
    assert_eq!(of("id"), ["r-1"; 3]);
    assert_eq!(outcomes[1]["reply"]["status"], 423);
    let lines = run_as("jsonl");
    assert_eq!(lines.stdout.lines().count(), 3);
    lines.stdout.lines().for_each(|line| drop(serde_json::from_str::<Value>(line).unwrap()));
}

#[test]
fn devices_that_were_not_named_need_yes() {
    let fleet = Fleet::default();
    let hub = fleet.hub(2, |_| None);
    hub.run(&["reboot", "--where", "tags.a = 1"]).ends(2, &["nobody to ask", "--yes"]);
    assert!(fleet.got().is_empty());
    hub.run(&["reboot", "gw1", "gw2", "--interval", "10ms"]).ends(0, &[]);
    assert_eq!(fleet.got().len(), 2);
}

#[test]
fn a_file_or_stdin_names_the_devices() {
    let fleet = Fleet::default();
    let hub = fleet.hub(0, |_| None);
    let list = hub.path("list");
    fs::write(&list, "gw1\n# spare\ngw2\ngw1\n").unwrap();
    let from = |file| ["reboot", "--devices-from", file, "--yes", "--interval", "10ms"];
    hub.run(&from(list.to_str().unwrap())).ends(0, &[]);
    assert_eq!(fleet.got(), [("gw1".to_owned(), 1), ("gw2".to_owned(), 1)]);
    let mut command = hub.command(&from("-"));
    command.stdin(Stdio::piped());
    let mut child = spawn(command);
    child.stdin.take().unwrap().write_all(b"gw3\ngw 4\n").unwrap();
    Ran::from(child.wait_with_output().unwrap()).ends(2, &["--devices-from -: line 2", "gw 4"]);
    hub.run(&ALL).ends(5, &["no device is selected"]);
    hub.run(&["reboot", "gw1", "--where", "x"]).ends(2, &["--where"]);
}

#[test]
fn a_failing_canary_stops_it_and_so_does_the_budget() {
    let fleet = Fleet::default();
    let others = fleet.clone();
    let hub = fleet.hub(9, move |device| {
        // By then all canaries have been called.
        (device == "gw2").then(|| others.wait_for(2)).and_then(|()| refused(device))
    });
    let result = run(&hub, &["--canary", "3"]);
    result.ends(7, &["stopped: one of those that went first failed (--canary)", "--resume"]);
    assert!(result.stdout.contains("9 devices: 2 completed, 1 refused, 6 not started\n"), "{result:#?}");
    assert_eq!(fleet.got().len(), 2, "gw1 and gw3");
    let result = run(&hub, &["--max-in-flight", "1", "--max-failures", "0", "-o", "json"]);
    result.ends(7, &["more than 0 devices failed (--max-failures)"]);
    assert_eq!(result.json()[2]["outcome"], "notStarted");
}

#[test]
fn a_hub_that_does_not_let_us_in_is_asked_no_further() {
    let both = Barrier::new(2);
    let hub = Fleet::default().hub(9, move |_| {
        both.wait();
        Some(HttpResponse::classic(401, "IotHubUnauthorizedAccess"))
    });
    let result = run(&hub, &["--max-in-flight", "2"]);
    result.ends(8, &["stopped: the hub fails", "check the connection string"]);
    assert!(result.stdout.contains("2 not authorised, 7 not started"), "{result:#?}");
}

#[test]
fn a_dry_run_tells_who_would_refuse() {
    let fleet = Fleet::default();
    let hub = fleet.hub(3, |device| if device == "gw2" { refused(device) } else { None });
    let result = hub.run(&["reboot", "--where", "tags.a = 1", "--dry-run"]);
    result.ends(7, &["gw1: checked", "gw2: the device refused with status 423"]);
    assert!(result.stdout.contains("3 devices: 2 checked, 1 refused\n"), "{result:#?}");
    assert!(!hub.path("state").exists(), "nothing to resume");
    let calls: Vec<_> = hub.requests().into_iter().filter(HttpRequest::is_call).collect();
    assert_eq!(calls.len(), 3);
    assert!(calls.iter().all(|call| call.body["payload"]["check"] == true), "{calls:#?}");
    // Also where none has said what it would do.
    let away = Fleet::default().hub(2, |_| Some(HttpResponse::classic(404, "DeviceNotOnline")));
    let result = away.run(&["reboot", "--where", "tags.a = 1", "--dry-run"]);
    result.ends(4, &[]);
    assert!(
        result.stdout.starts_with("dry run, nothing was rebooted: 2 devices: 2 offline\n"),
        "{result:#?}"
    );
}

#[test]
fn after_a_kill_the_rest_is_done_and_nobody_is_rebooted_twice() {
    let fleet = Fleet::default();
    let hub = fleet.hub(6, |_| None);
    fleet.lose(&["gw2", "gw3"]);
    // gw2 and gw3 keep the two places busy, so gw4 is not begun.
    let mut first = spawn(hub.command(&[&ALL[..], &CARELESS, &["--max-in-flight", "2"]].concat()));
    fleet.wait_for(3);
    let path = journal(&hub);
    let resume = ["reboot", "--resume", path.to_str().unwrap(), "--interval", "10ms"];
    hub.run(&resume).ends(1, &["another iotdm-ctl is at work on "]);
    first.kill().unwrap();
    first.wait().unwrap();
    fleet.lose(&[]);
    let result = hub.run(&[&resume[..], &["-o", "json"]].concat());
    result.ends(0, &[]);
    let outcomes = result.json();
    let completed = outcomes.as_array().unwrap().iter().filter(|outcome| outcome["outcome"] == "completed");
    assert_eq!(completed.count(), 6, "{outcomes}");
    assert!(fleet.got().iter().all(|(_, times)| *times == 1), "{:?}", fleet.got());
    assert_eq!(fleet.got().len(), 6);
    hub.run(&resume).ends(0, &[]);
    assert_eq!(fleet.got().iter().map(|(_, times)| times).sum::<usize>(), 6, "nothing was left to do");
}

#[test]
fn nothing_goes_out_before_its_line_is_on_the_disk() {
    let (fleet, disk) = (Fleet::default(), Arc::new(Disk::new()));
    let held = disk.clone();
    // The disk is held while the canary is called, when nobody else has begun.
    let hub = fleet.hub(5, move |device| {
        if device == "gw1" {
            held.hold();
        }
        None
    });
    let mut command = hub.command(&[&ALL[..], &["--canary", "1", "--max-in-flight", "4"]].concat());
    command.envs(disk.environment());
    let run = spawn(command);
    fleet.wait_for(1);
    let path = journal(&hub);
    let lines = || fs::read_to_string(&path).unwrap().matches("{\"sent\":").count();
    wait_until("a line of each device", || {
        // Who only reads a journal waits for no disk.
        hub.run(&["report", path.to_str().unwrap()]).ends(0, &[]);
        lines() == 5
    });
    assert_eq!(fleet.got().len(), 1, "four lines are written, and none of them is on the disk");
    disk.release();
    Ran::from(run.wait_with_output().unwrap()).ends(0, &[]);
    assert_eq!(fleet.got().iter().map(|(_, times)| *times).collect::<Vec<_>>(), [1; 5]);
}

/// A hub with `gw1` to `gw3`, of which a query tells that they run the daemon, and who
/// answer calls with this id, or the request's.
fn described(id: Option<&'static str>) -> FakeHub {
    let called = Arc::new(Mutex::new(BTreeMap::<String, Value>::new()));
    FakeHub::start(move |request, _| {
        if request.path == "/devices/query" {
            let row = |n| json!({"deviceId": format!("gw{n}"), "agent": {"version": "1"}, "newest": "r-0"});
            return HttpResponse::ok((1..=3).map(row).collect());
        }
        let device = request.path.split('/').nth(2).unwrap().to_owned();
        let mut called = called.lock().unwrap();
        if request.is_call() {
            called.insert(device, request.reboot_id());
            let reply = id.map_or_else(|| request.reboot_id(), Value::from);
            return HttpResponse::reply(200, json!({"id": reply, "status": "accepted"}));
        }
        let newest = called.get(&device).cloned().unwrap_or(json!("r-0"));
        HttpResponse::twin(json!({
            "agent": {"version": "1", "features": ["onlyIfRequired"]},
            "rebootTime": "T",
            "reboot": {"id": newest, "status": "completed"},
        }))
    })
}

/// The requests that are about `gw1`, by their methods.
fn about_gw1(hub: &FakeHub) -> Vec<String> {
    let requests = hub.requests();
    let of = requests.iter().filter(|request| request.path.starts_with("/twins/gw1"));
    of.map(|request| request.method.clone()).collect()
}

#[test]
fn of_whom_a_query_has_told_enough_is_not_read_before_the_call() {
    let hub = described(None);
    let result = run(&hub, &[]);
    result.ends(0, &[]);
    assert!(result.stdout.ends_with("3 devices: 3 completed\n"), "{result:#?}");
    let query = &hub.requests()[0].body["query"];
    assert!(query.as_str().unwrap().contains("properties.reported.agent AS agent"), "{query}");
    assert_eq!(about_gw1(&hub), ["POST", "GET"]);
    let written = fs::read_to_string(journal(&hub)).unwrap();
    assert_eq!(written.matches(r#""before":{"agent":true,"rebootId":"r-0"}"#).count(), 3, "{written}");
}

#[test]
fn what_may_have_changed_since_the_query_is_read_where_it_matters() {
    // What restrains a reboot goes only to who knows it now.
    let hub = described(None);
    run(&hub, &["--if-required"]).ends(0, &[]);
    assert_eq!(about_gw1(&hub), ["GET", "POST", "GET"]);
    // A dry run must not reach a program that would reboot at once.
    let hub = described(None);
    run(&hub, &["--dry-run"]).ends(0, &[]);
    assert_eq!(about_gw1(&hub), ["GET", "POST"]);
    // Who does not repeat the id is somebody else by now: its rebootTime of before the
    // query proves nothing.
    let hub = described(Some("another"));
    run(&hub, &["--wait-timeout", "100ms"]).ends(0, &["knows no ids"]);
    assert_eq!(about_gw1(&hub)[..2], ["POST", "GET"]);
}

/// A journal of `gw1`, to which the request was about to go.
fn about_to_send(hub: &FakeHub, before: Value) -> String {
    let host = hub.connection_string().split([';', '=']).nth(1).unwrap().to_owned();
    let run = json!({"run": {
        "version": 1, "at": "2026-11-22T18:36:07.412Z", "hub": host, "request": {"id": "r-1"}, "way": "method",
        "rules": {"maxInFlight": 10, "canary": 0, "maxFailures": null}, "devices": ["gw1"],
    }});
    let path = hub.path("journal");
    fs::write(&path, format!("{run}\n{}\n", json!({"sent": {"device": "gw1", "before": before}}))).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn what_may_have_been_sent_is_sent_again_only_where_ids_are_known() {
    let resume = |hub: &FakeHub, before| {
        let path = about_to_send(hub, before);
        hub.run(&["reboot", "--resume", &path, "--interval", "10ms", "--wait-timeout", "100ms", "-o", "json"])
    };
    let fleet = Fleet::default();
    let hub = fleet.hub(0, |_| None);
    resume(&hub, json!({"agent": true})).ends(0, &[]);
    assert_eq!(fleet.got(), [("gw1".to_owned(), 1)], "our agent was asked again, with the same id");

    let fleet = Fleet::default();
    resume(&fleet.hub(0, |_| None), json!({"agent": false, "rebootTime": "T"})).ends(0, &[]);
    assert!(fleet.got().is_empty(), "another's device is only looked at, and its rebootTime has changed");

    let asked_by_another = FakeHub::start(|request, _| {
        assert!(!request.is_call());
        HttpResponse::twin(json!({"agent": {}, "reboot": {"id": "other", "status": "completed"}}))
    });
    let result = resume(&asked_by_another, json!({"agent": true}));
    result.ends(1, &["not known whether request r-1 was executed", "asked for other"]);

    let elsewhere = Fleet::default().hub(0, |_| None);
    let path = about_to_send(&hub, json!({"agent": true}));
    elsewhere.run(&["reboot", "--resume", &path]).ends(2, &["it is about hub localhost:"]);
    elsewhere.run(&["reboot", "--resume", "/nonexistent"]).ends(2, &["--resume /nonexistent: No such file"]);
    elsewhere.run(&["reboot", "--resume", &path, "--reason", "x"]).ends(2, &["--reason"]);
}

#[test]
fn throttled_calls_wait_for_their_turn() {
    let fleet = Fleet::default();
    let throttled = Mutex::new(6);
    let hub = fleet.hub(8, move |_| {
        let mut left = throttled.lock().unwrap();
        *left -= i32::from(*left > 0);
        (*left > 0).then(|| HttpResponse::classic(429, "ThrottlingException").with("retry-after", "0"))
    });
    run(&hub, &[]).ends(0, &[]);
    assert_eq!(fleet.got().len(), 8);
    assert!(fleet.got().iter().all(|(_, times)| *times == 1), "{:?}", fleet.got());
}

#[test]
fn no_more_are_called_in_a_second_than_was_said() {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let noted = calls.clone();
    let hub = Fleet::default().hub(5, move |_| {
        noted.lock().unwrap().push(Instant::now());
        None
    });
    let began = Instant::now();
    let ran = run(&hub, &["--max-per-second", "2"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let calls = calls.lock().unwrap();
    assert_eq!(calls.len(), 5);
    // From the program's start, since on a loaded machine the first call itself may be seen late.
    let last = calls[4] - began;
    assert!(
        last >= Duration::from_secs(2),
        "the fifth call after {last:?}, four halves of a second were due"
    );
}

#[test]
fn without_a_place_for_the_journal_nothing_is_sent() {
    let fleet = Fleet::default();
    let hub = fleet.hub(2, |_| None);
    let mut command = hub.command(&ALL);
    Ran::from(command.env_remove("XDG_STATE_HOME").output().unwrap())
        .ends(2, &["set HOME or XDG_STATE_HOME"]);
    fs::write(hub.path("state"), "a file").unwrap();
    run(&hub, &[]).ends(1, &["cannot begin a journal in "]);
    assert!(fleet.got().is_empty());
}

#[test]
fn on_a_terminal_it_asks_and_has_a_line_per_device() {
    let fleet = Fleet::default();
    let hub = fleet.hub(3, |_| None);
    let ask = ["reboot", "--where", "tags.a = 1", "--interval", "10ms"];
    let refused = on_terminal(hub.command(&ask), "n\n");
    assert_eq!(refused.code, 1);
    assert!(refused.screen.contains("(gw1, gw2, gw3)? [y/N]"), "{refused:#?}");
    assert!(refused.screen.contains("nothing was sent") && fleet.got().is_empty(), "{refused:#?}");
    let agreed = on_terminal(hub.command(&ask), "y\n");
    assert_eq!(agreed.code, 0, "{agreed:#?}");
    assert!(agreed.screen.contains("gw2: completed in "), "{agreed:#?}");
    let names = ["gw1", "gw2", "gw3"];
    fleet.lose(&names);
    let more = [&CARELESS[..], &["--wait-timeout", "2s"]].concat();
    let lost = on_terminal(hub.command(&[&ask[..], &more].concat()), "y\n");
    assert_eq!(lost.code, 6, "{lost:#?}");
    // What moves is as wide as the terminal; what stays is the terminal's to wrap.
    for name in names {
        let line = format!("{:40}", format!("{name}: sent → accepted → rebooting"));
        assert!(lost.screen.contains(&line), "no {line:?} in {lost:#?}");
    }
}

#[test]
fn tables_are_as_wide_as_the_terminal() {
    let hub = FakeHub::start(|_, _| {
        let reported = json!({"rebootTime": "T", "agent": {"version": "1.0.0"}, "boot": {"cause": "local"}});
        HttpResponse::twin(reported)
    });
    // Carriage returns are the terminal's own.
    let screen = on_terminal(hub.command(&["status", "gw1"]), "").screen.replace('\r', "");
    let expected = "DEVICE  CONNECTION  LAST REBOOT  OUTCOME\ngw1     Connected   T            -\n";
    assert_eq!(screen, expected, "each device has one line");
    let help = on_terminal(hub.command(&["reboot", "--help"]), "").screen;
    assert!(help.contains("With -o json, one DEVICE gives an object\r\n"), "{help}");
}

/// Whoever waits for a turn when the run stops is not asked any more, by neither way.
#[test]
fn who_waits_for_its_turn_is_left_alone_once_the_run_stops() {
    for way in [&[][..], &["--when-online"]] {
        let fleet = Fleet::default();
        let fails = Arc::new(Mutex::new(true));
        let state = fails.clone();
        let answers = fleet.hub(9, move |device| match device {
            "gw1" if *state.lock().unwrap() => refused(device),
            _ => None,
        });
        let asks = |request: &HttpRequest| request.is_call() || request.method == "PATCH";
        let options = ["--max-failures", "0", "--max-in-flight", "9", "--max-per-second", "1"];
        // A wish is taken up at once, and fails.
        let wishes = FakeHub::start(move |request, _| match request.path.as_str() {
            "/devices/query" => {
                HttpResponse::ok((1..=9).map(|n| json!({"deviceId": format!("gw{n}")})).collect())
            }
            _ if request.method == "PATCH" => HttpResponse::classic(404, "DeviceNotFound"),
            _ => HttpResponse::twin(json!({"agent": {"version": "1"}})),
        });
        let hub = if way.is_empty() { &answers } else { &wishes };
        let ran = run(hub, &[&options[..], way].concat());
        ran.ends(7, &["stopped: more than 0 devices failed", "gw9: not started"]);
        assert!(ran.stdout.contains(", 8 not started\n"), "{ran:#?}");
        assert_eq!(hub.requests().iter().filter(|request| asks(request)).count(), 1);
        if !way.is_empty() {
            continue;
        }
        // None of them counts as one that may have been asked.
        let path = journal(hub);
        let again = ["reboot", "--resume", path.to_str().unwrap(), "--max-failures", "all"];
        let again = hub.run(&[&again[..], &["--max-per-second", "40", "--interval", "10ms"]].concat());
        again.ends(7, &["gw2: completed in", "gw9: completed in"]);
        assert!(!again.stderr.contains("sent before"), "{again:#?}");
        assert_eq!(fleet.got().len(), 8);
    }
}

/// So it is with one of which the line in the journal is not on the disk yet.
#[test]
fn who_waits_for_the_disk_is_left_alone_once_the_run_stops() {
    let (fleet, disk) = (Fleet::default(), Arc::new(Disk::new()));
    let (refuse, may_refuse) = mpsc::channel::<()>();
    let (held, may_refuse) = (disk.clone(), Mutex::new(may_refuse));
    let hub = fleet.hub(2, move |device| {
        if device != "gw1" {
            return None;
        }
        held.hold();
        may_refuse.lock().unwrap().recv().unwrap();
        refused(device)
    });
    let options = ["--canary", "0", "--max-failures", "0", "--max-per-second", "1"];
    let mut command = hub.command(&[&ALL[..], &options].concat());
    command.envs(disk.environment());
    let run = spawn(command);
    wait_until("the call of gw1", || hub.requests().iter().any(HttpRequest::is_call));
    let path = journal(&hub);
    let has = |line: &str| fs::read_to_string(&path).unwrap().contains(line);
    wait_until("the line of gw2", || has("{\"sent\":{\"device\":\"gw2\""));
    refuse.send(()).unwrap();
    wait_until("the outcome of gw1", || has("{\"ended\":{\"device\":\"gw1\""));
    disk.release();
    Ran::from(run.wait_with_output().unwrap()).ends(7, &["gw2: not started", "stopped: more than 0"]);
    assert!(fleet.got().is_empty() && has("{\"unsent\":{\"device\":\"gw2\"}}"));
}
