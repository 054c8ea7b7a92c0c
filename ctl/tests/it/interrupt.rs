//! Ctrl-C wherever the program can be: it exits 130 and says what is true
//! then.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver};

use crate::common::{FakeHub, HttpRequest, HttpResponse, Ran, ctl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

/// A hub that says when it gets to a request that `answer` has no answer for,
/// and then keeps the client waiting.
fn hub(
    answer: impl Fn(&HttpRequest, usize) -> Option<HttpResponse> + Send + Sync + 'static,
) -> (FakeHub, Receiver<()>) {
    let (reached, waits) = mpsc::channel();
    let reached = Mutex::new(reached);
    let hub = FakeHub::start(move |request, before| {
        answer(request, before).unwrap_or_else(|| {
            reached.lock().unwrap().send(()).unwrap();
            loop {
                std::thread::park();
            }
        })
    });
    (hub, waits)
}

fn spawn(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn interrupted(child: Child) -> Ran {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    Ran::from(child.wait_with_output().unwrap())
}

/// Runs `arguments` until the hub has no answer.
fn stuck(hub: &FakeHub, waits: &Receiver<()>, arguments: &[&str]) -> Ran {
    let child = spawn(hub.command(arguments));
    waits.recv().unwrap();
    interrupted(child)
}

const FLEET: [&str; 6] = ["reboot", "--where", "tags.a = 1", "--yes", "--id", "r-1"];

fn devices(count: usize) -> HttpResponse {
    HttpResponse::ok((1..=count).map(|n| json!({"deviceId": format!("gw{n}")})).collect())
}

fn accepted() -> HttpResponse {
    HttpResponse::reply(200, json!({"id": "r-1", "status": "accepted"}))
}

fn completed() -> HttpResponse {
    HttpResponse::twin(json!({"reboot": {"id": "r-1", "status": "completed"}, "rebootTime": "T"}))
}

#[test]
fn while_connecting() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let string = format!("HostName=localhost:{port};SharedAccessKeyName=s;SharedAccessKey=c2VjcmV0");
    let mut command = ctl(&["twin", "show", "gw1"]);
    let child = spawn({
        command.env("IOTHUB_CONNECTION_STRING", string);
        command
    });
    // Whoever accepts and says nothing is no hub yet.
    let connection = listener.accept().unwrap();
    let run = interrupted(child);
    drop(connection);
    run.ends(130, &[]);
    assert_eq!(run.stderr, "iotdm-ctl: interrupted: nothing was changed\n");
}

/// The twin that shows the request is the module's.
#[test]
fn while_many_modules_are_rebooted() {
    let called = Mutex::new(BTreeSet::new());
    let (hub, waits) = hub(move |request, _| {
        let (mut called, device) = (called.lock().unwrap(), request.path.split('/').nth(2)?.to_owned());
        match request.path.as_str() {
            "/devices/query" => Some(devices(6)),
            _ if request.is_call() => {
                called.insert(device);
                Some(accepted())
            }
            _ => (!called.contains(&device)).then(|| HttpResponse::twin(json!({"agent": {}}))),
        }
    });
    let options = ["--module", "m", "--canary", "0", "--interval", "10ms"];
    let child = spawn(hub.command(&[&FLEET[..], &options].concat()));
    // Of the six each was called whose twin is read again.
    (0..6).for_each(|_| waits.recv().unwrap());
    let hint = "iotdm-ctl status --module m --where-module \"properties.reported.reboot.id = 'r-1'\"";
    interrupted(child).ends(130, &[hint]);
}

#[test]
fn while_something_is_changed() {
    let (hub, waits) = hub(|request, _| (request.method == "GET").then(|| HttpResponse::twin(json!({}))));
    let truth = ["interrupted: what was sent may be carried out all the same"];
    stuck(&hub, &waits, &["twin", "update", "gw1", "--tags", "{}"]).ends(130, &truth);
    stuck(&hub, &waits, &["device", "disable", "gw1"]).ends(130, &truth);
    stuck(&hub, &waits, &["device", "delete", "gw1", "--yes"]).ends(130, &truth);
}

#[test]
fn while_many_are_created() {
    let (hub, waits) = hub(|_, before| {
        let result = || HttpResponse::ok(json!({"isSuccessful": true, "errors": [], "warnings": []}));
        (before == 0).then(result)
    });
    let (list, out) = (hub.path("list"), hub.path("out"));
    let rows: String = (1..=130).map(|n| format!("gw{n}\n")).collect();
    fs::write(&list, format!("deviceId\n{rows}")).unwrap();
    let arguments = ["device", "create", "--from", list.to_str().unwrap(), "--out", out.to_str().unwrap()];
    let run = stuck(&hub, &waits, &arguments);
    run.ends(130, &["100 devices were created", "interrupted: 30 more may have been created, too"]);
    assert_eq!(fs::read_to_string(&out).unwrap().lines().count(), 100, "their keys are not lost");
}

#[test]
fn while_a_device_is_called() {
    let (hub, waits) = hub(|_, _| None);
    let truth = ["interrupted: stopped waiting; the call of m stays in force if gw1 has received it"];
    stuck(&hub, &waits, &["invoke", "gw1", "m"]).ends(130, &truth);
    let (hub, waits) = self::hub(|request, _| (!request.is_call()).then(|| HttpResponse::twin(json!({}))));
    stuck(&hub, &waits, &["reboot", "gw1", "--id", "r-1"])
        .ends(130, &["the request r-1 stays in force, see iotdm-ctl status gw1"]);
}

#[test]
fn while_the_twin_is_waited_for() {
    let (polled, poll) = mpsc::channel();
    let polled = Mutex::new(polled);
    let (hub, _) = hub(move |request, before| {
        if before == 2 {
            polled.lock().unwrap().send(()).unwrap();
        }
        Some(if request.is_call() { accepted() } else { HttpResponse::twin(json!({})) })
    });
    let child = spawn(hub.command(&["reboot", "gw1", "--id", "r-1", "--interval", "1h"]));
    poll.recv().unwrap();
    interrupted(child).ends(130, &["the request r-1 stays in force, see iotdm-ctl status gw1"]);
}

#[test]
fn before_the_devices_are_known_nothing_was_sent() {
    let (hub, waits) = hub(|_, _| None);
    stuck(&hub, &waits, &FLEET).ends(130, &["interrupted: nothing was sent"]);
}

#[test]
fn with_many_devices_in_force() {
    let (hub, waits) = hub(|request, _| match request.path.as_str() {
        "/devices/query" => Some(devices(9)),
        _ if request.is_call() => None,
        _ => Some(HttpResponse::twin(json!({}))),
    });
    let child = spawn(hub.command(&[&FLEET[..], &["--canary", "0"]].concat()));
    (0..9).for_each(|_| waits.recv().unwrap());
    interrupted(child)
        .ends(130, &["the request r-1 stays in force on 9 devices", "reboot.id = 'r-1'", "reboot --resume "]);
}

#[test]
fn between_two_devices_no_request_is_in_force() {
    let (hub, waits) = hub(|request, _| match (request.path.as_str(), request.is_call()) {
        ("/devices/query", _) => Some(devices(2)),
        (path, true) if path.contains("gw1") => Some(accepted()),
        (path, false) if path.contains("gw1") => Some(completed()),
        _ => None,
    });
    let run = stuck(&hub, &waits, &[&FLEET[..], &["--max-in-flight", "1"]].concat());
    run.ends(130, &["gw1: completed", "no request is in force; to go on: iotdm-ctl reboot --resume "]);
}

#[test]
fn between_two_pages_what_has_come_is_there() {
    let (hub, waits) = hub(|_, before| (before == 0).then(|| devices(2).with("x-ms-continuation", "2")));
    let run = stuck(&hub, &waits, &["query", "SELECT deviceId FROM devices", "-o", "jsonl"]);
    run.ends(130, &["interrupted: nothing was changed"]);
    assert_eq!(run.stdout, "{\"deviceId\":\"gw1\"}\n{\"deviceId\":\"gw2\"}\n");
}

#[test]
fn while_a_job_is_followed_it_stays_in_force() {
    let (hub, waits) = hub(|request, _| match (request.method.as_str(), request.path.as_str()) {
        ("PUT", _) => Some(HttpResponse::ok(json!({"jobId": "r-1", "status": "queued"}))),
        ("POST", _) => Some(devices(2)),
        _ => None,
    });
    stuck(&hub, &waits, &[&FLEET[..], &["--job"]].concat())
        .ends(130, &["the job stays in force, see iotdm-ctl job show r-1"]);
}

#[test]
fn while_the_hub_throttles() {
    let (hub, _) =
        hub(|_, _| Some(HttpResponse::classic(429, "ThrottlingException").with("retry-after", "50")));
    let mut child = spawn(hub.command(&["reboot", "gw1", "--id", "r-1", "--when-online"]));
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    stderr.read_line(&mut said).unwrap();
    assert!(said.contains("throttles, trying again in 50 s"), "{said}");
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    stderr.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(said.contains("no request is in force"), "{said}");
}

#[test]
fn once_it_is_asked_nothing_was_sent() {
    let (hub, _) = hub(|_, _| Some(devices(2)));
    let pty = nix::pty::openpty(None, None).unwrap();
    let mut command = hub.command(&["reboot", "--where", "tags.a = 1"]);
    command.stdin(Stdio::from(pty.slave.try_clone().unwrap()));
    let mut child = spawn(command);
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut asked = Vec::new();
    stderr.read_until(b']', &mut asked).unwrap();
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    let said: Vec<String> = stderr.lines().map(Result::unwrap).collect();
    assert!(said.last().unwrap().ends_with("interrupted: nothing was sent"), "{said:?}");
    assert_eq!(child.wait().unwrap().code(), Some(130));
}
