//! `reboot` of many devices while something else goes wrong: nobody reads the
//! results, a disk is full, the hub is away or wants us to wait.

use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::common::{FakeHub, HttpRequest, HttpResponse, Ran};
use crate::fleet::{ALL, CARELESS, Fleet, journal, spawn};
use serde_json::{Value, json};

fn arguments<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&ALL[..], &CARELESS, more].concat()
}

#[test]
fn a_reader_that_has_enough_ends_no_run() {
    for form in ["text", "jsonl"] {
        let fleet = Fleet::default();
        let hub = fleet.hub(12, |_| None);
        let mut child = spawn(hub.command(&arguments(&["--max-in-flight", "2", "-o", form])));
        let mut first = String::new();
        // As `grep -m1` does.
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        assert!(first.contains("gw"), "{first}");
        let ran = Ran::from(child.wait_with_output().unwrap());
        ran.ends(0, &["standard output takes no more results (Broken pipe", "the run goes on"]);
        assert_eq!(ran.stderr.matches("takes no more").count(), 1, "{ran:#?}");
        assert_eq!(fleet.got().len(), 12);
    }
}

#[test]
fn the_exit_code_is_that_of_the_run_whoever_reads_it() {
    let hub =
        Fleet::default().hub(2, |device| (device == "gw2").then(|| HttpResponse::reply(423, json!({}))));
    let closed = |more: &[&str]| {
        let mut child = spawn(hub.command(&arguments(more)));
        drop(child.stdout.take());
        Ran::from(child.wait_with_output().unwrap()).ends(7, &[]);
    };
    closed(&[]);
    closed(&["-o", "json"]);
    // Nobody reads anything any more.
    let mut child = spawn(hub.command(&arguments(&[])));
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(child.wait().unwrap().code(), Some(7));
    let mut one = spawn(hub.command(&["reboot", "gw1", "--interval", "10ms"]));
    drop(one.stdout.take());
    Ran::from(one.wait_with_output().unwrap()).ends(0, &["gw1: completed in"]);
    let mut refused = spawn(hub.command(&["reboot", "gw2"]));
    drop(refused.stdout.take());
    Ran::from(refused.wait_with_output().unwrap()).ends(3, &["status 423"]);
}

#[test]
fn a_full_disk_under_the_results_ends_no_run_either() {
    let fleet = Fleet::default();
    let hub = fleet.hub(5, |_| None);
    let mut command = hub.command(&arguments(&["-o", "jsonl", "--max-in-flight", "1"]));
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let ran = Ran::from(command.stdout(full).stderr(Stdio::piped()).output().unwrap());
    // All is done, but the results are nowhere.
    ran.ends(1, &["No space left on device", "the run goes on", "gw5: completed in"]);
    assert_eq!(fleet.got().len(), 5);
}

/// How many more requests the hub does not answer.
fn takes(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

#[test]
fn a_hub_that_was_away_makes_no_device_a_failure() {
    let fleet = Fleet::default();
    // While it is away, it breaks every connection; then no device is connected yet.
    let away = AtomicUsize::new(0);
    let calls = AtomicUsize::new(0);
    let (offline, known) = (Mutex::new(std::collections::BTreeMap::<String, usize>::new()), fleet.clone());
    let hub = FakeHub::start(move |request, _| {
        if request.path == "/devices/query" {
            return HttpResponse::ok((1..=30).map(|n| json!({"deviceId": format!("gw{n}")})).collect());
        }
        let device = request.path.split('/').nth(2).unwrap();
        if request.is_call() && calls.fetch_add(1, Ordering::SeqCst) == 11 {
            away.store(40, Ordering::SeqCst);
        }
        if takes(&away) {
            return HttpResponse::hang_up();
        }
        let is_back = away.load(Ordering::SeqCst) == 0 && calls.load(Ordering::SeqCst) > 11;
        let mut offline = offline.lock().unwrap();
        let seen = offline.entry(device.to_owned()).or_default();
        if request.is_call() && is_back && *seen < 2 {
            *seen += 1;
            return HttpResponse::nested(404, 404_103);
        }
        answer(&known, device, request)
    });
    let ran = hub.run(&arguments(&[]));
    ran.ends(0, &["trying again", "the hub was away, the device is given time to connect"]);
    assert!(ran.stdout.contains("30 devices: 30 completed\n"), "{ran:#?}");
    assert!(fleet.got().len() == 30 && fleet.got().iter().all(|(_, times)| *times == 1), "{:?}", fleet.got());
}

/// What a fleet answers that always accepts.
fn answer(fleet: &Fleet, device: &str, request: &HttpRequest) -> HttpResponse {
    let mut state = fleet.0.0.lock().unwrap();
    let mut reported = json!({"agent": {"version": "1"}});
    if request.is_call() {
        let id = request.reboot_id();
        state.got.entry(device.to_owned()).or_default().push(id.clone());
        return HttpResponse::reply(200, json!({"id": id, "status": "accepted"}));
    }
    if let Some(id) = state.got.get(device).and_then(|ids| ids.last()) {
        reported["reboot"] = json!({"id": id, "status": "completed"});
    }
    HttpResponse::twin(reported)
}

#[test]
fn without_an_outage_offline_counts_at_once_and_resume_asks_again() {
    let fleet = Fleet::default();
    let is_offline = std::sync::Arc::new(AtomicUsize::new(1));
    let state = is_offline.clone();
    let hub = fleet.hub(3, move |device| {
        (device == "gw2" && state.load(Ordering::SeqCst) == 1).then(|| HttpResponse::nested(404, 404_103))
    });
    hub.run(&arguments(&[])).ends(7, &["gw2: the device is offline", "to go on: iotdm-ctl reboot --resume"]);
    is_offline.store(0, Ordering::SeqCst);
    let path = journal(&hub);
    let resumed = hub.run(&["reboot", "--resume", path.to_str().unwrap(), "--interval", "10ms"]);
    resumed.ends(0, &["gw2: completed in"]);
    assert!(resumed.stdout.contains("3 devices: 3 completed\n"), "{resumed:#?}");
    assert_eq!(fleet.got().iter().map(|(_, times)| times).sum::<usize>(), 3);
}

#[test]
fn a_hub_that_throttles_says_how_long_to_wait_in_words() {
    let sentence = "ErrorCode:ThrottlingException;Too many requests. Wait 2 seconds and try again";
    let throttled = move || {
        HttpResponse::ok(json!({"Message": sentence}))
            .status(429)
            .with("iothub-errorcode", "ThrottlingException")
    };
    let hub = FakeHub::start(move |_, before| match before {
        0 => throttled(),
        _ => HttpResponse::twin(json!({})),
    });
    let began = Instant::now();
    hub.run(&["twin", "show", "gw1"])
        .ends(0, &["iotdm-ctl: hub localhost:", "throttles, trying again in 2 s"]);
    assert!(began.elapsed() >= Duration::from_secs(2));
    // A single request is as patient as a run.
    let hub = FakeHub::start(|_, before| match before {
        0..=12 => HttpResponse::nested(429, 429_001).with("retry-after", "0"),
        _ => HttpResponse::reply(200, Value::Null),
    });
    hub.run(&["invoke", "gw1", "m"]).ends(0, &[]);
    assert_eq!(hub.requests().len(), 14);
}

/// A journal of `gw1`, to which the request `r-1` went an hour ago.
fn sent_an_hour_ago(hub: &FakeHub) -> String {
    let host = hub.connection_string().split([';', '=']).nth(1).unwrap().to_owned();
    let then = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(1);
    let then = then.to_string();
    let run = json!({"run": {
        "version": 2, "at": then, "hub": host, "request": {"id": "r-1"}, "way": "method",
        "rules": {"maxInFlight": 10, "canary": 0, "maxFailures": null}, "devices": ["gw1"],
    }});
    let sent = json!({"sent": {"device": "gw1", "before": {"agent": true}, "at": then}});
    let path = hub.path("journal");
    fs::write(&path, format!("{run}\n{sent}\n")).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn after_resume_the_time_is_from_the_call_to_the_outcome() {
    let resume = |reboot: Value| {
        let hub = FakeHub::start(move |_, _| HttpResponse::twin(json!({"agent": {}, "reboot": reboot})));
        let path = sent_an_hour_ago(&hub);
        let ran = hub.run(&["reboot", "--resume", &path, "--interval", "10ms", "-o", "jsonl"]);
        ran.ends(0, &["gw1: completed in"]);
        ran.json()["seconds"].as_f64().unwrap()
    };
    let seconds = resume(json!({"id": "r-1", "status": "completed"}));
    assert!((3600.0..3700.0).contains(&seconds), "{seconds}");
    let after = |minutes: i64| jiff::Timestamp::now() - jiff::SignedDuration::from_mins(60 - minutes);
    let seconds = resume(json!({"id": "r-1", "status": "completed", "completedAt": after(2).to_string()}));
    assert!((110.0..130.0).contains(&seconds), "{seconds}");
    // A device whose clock is wrong tells nothing.
    let seconds = resume(json!({"id": "r-1", "status": "completed", "completedAt": "2020-01-01T00:00:00Z"}));
    assert!((3600.0..3700.0).contains(&seconds), "{seconds}");
}

#[test]
fn a_journal_that_takes_nothing_more_stops_the_run_and_loses_no_outcome() {
    // A limit to the size of files is what a full disk is to a write.
    let fleet = Fleet::default();
    let hub = fleet.hub(40, |_| None);
    let command = hub.command(&arguments(&["--max-in-flight", "2"]));
    let limited = command.get_args().map(|argument| argument.to_owned()).collect::<Vec<_>>();
    let mut shell = std::process::Command::new("sh");
    shell
        .args(["-c", "trap '' XFSZ; ulimit -f 4; exec \"$0\" \"$@\""])
        .arg(command.get_program())
        .args(limited);
    shell.env_clear().env("XDG_STATE_HOME", hub.path("state")).env("PATH", "/usr/bin:/bin");
    let child = shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let ran = Ran::from(child.wait_with_output().unwrap());
    ran.ends(
        1,
        &["cannot write the journal", "stopped: nothing can be sent that is not in the journal", "--resume"],
    );
    let asked = fleet.got().len();
    assert!(asked < 40 && asked > 0, "{asked}");
    assert!(ran.stdout.contains(&format!("{asked} completed")), "{ran:#?}");
    let path = journal(&hub);
    let resumed = hub.run(&["reboot", "--resume", path.to_str().unwrap(), "--interval", "10ms"]);
    resumed.ends(0, &[]);
    assert!(fleet.got().len() == 40 && fleet.got().iter().all(|(_, times)| *times == 1), "{:?}", fleet.got());
    let mut text = String::new();
    fs::File::open(path).unwrap().read_to_string(&mut text).unwrap();
    assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{text}");
}
