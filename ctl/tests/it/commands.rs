//! The other commands against canned hubs: what is sent, what is printed.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;
use std::sync::{Mutex, mpsc};

use crate::common::{FakeHub, HttpResponse, Ran, on_terminal};
use serde_json::{Value, json};

#[test]
fn invoke_prints_hub_json_and_exits_3_when_refused() {
    let hub = FakeHub::start(|request, _| {
        let refused = request.body["methodName"] == "unknown";
        HttpResponse::reply(if refused { 404 } else { 200 }, json!({"echo": request.body.get("payload")}))
    });
    let run = hub.run(&["invoke", "gw1", "m", "--payload", "-5", "-o", "json"]);
    run.ends(0, &[]);
    assert_eq!(run.json(), json!({"status": 200, "payload": {"echo": -5}}));
    let run = hub.run(&[
        "invoke",
        "gw1",
        "unknown",
        "-o",
        "jsonl",
        "--response-timeout",
        "5",
        "--connect-timeout",
        "1m",
    ]);
    run.ends(3, &["gw1: the device refused unknown with status 404"]);
    assert_eq!(run.stdout, "{\"status\":404,\"payload\":{\"echo\":null}}\n");

    let sent = hub.requests();
    assert_eq!(
        sent[0].body,
        json!({"methodName": "m", "payload": -5, "responseTimeoutInSeconds": 60, "connectTimeoutInSeconds": 0})
    );
    assert_eq!(
        sent[1].body,
        json!({"methodName": "unknown", "responseTimeoutInSeconds": 65, "connectTimeoutInSeconds": 60})
    );
}

#[test]
fn a_payload_from_a_file_and_from_stdin() {
    let hub = FakeHub::start(|request, _| HttpResponse::reply(200, request.body["payload"].clone()));
    let file = hub.path("payload.json");
    fs::write(&file, "{\"from\": \"file\"}").unwrap();
    let argument = format!("@{}", file.display());
    assert_eq!(
        hub.run(&["invoke", "gw1", "m", "--payload", &argument]).stdout,
        "status 200\n{\n  \"from\": \"file\"\n}\n"
    );
    let mut command = hub.command(&["invoke", "gw1", "m", "--payload", "-", "-o", "json"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"[\"stdin\"]").unwrap();
    assert_eq!(Ran::from(child.wait_with_output().unwrap()).json()["payload"], json!(["stdin"]));
}

#[test]
fn twin_show_prints_the_twin_and_update_sends_a_patch() {
    let hub = FakeHub::start(|_, _| HttpResponse::twin(json!({"x": 1})));
    let run = hub.run(&["twin", "show", "gw#1"]);
    assert_eq!(run.json()["properties"]["reported"]["x"], 1);
    hub.run(&["twin", "update", "gw1", "--tags", "{\"a\":null}"]).ends(0, &[]);
    let run = hub.run(&["twin", "update", "gw1", "--desired", "{\"b\":1}", "--etag", "AAA="]);
    assert_eq!(run.stdout, "gw1: twin updated, etag AAA=, desired version 3\n");
    hub.run(&["twin", "update", "gw1"]).ends(2, &["--desired", "--tags"]);
    hub.run(&["twin", "update", "gw1", "--tags", "[1]"]).ends(2, &["--tags", "JSON object"]);

    assert_eq!(hub.lines(), ["GET /twins/gw%231", "PATCH /twins/gw1", "PATCH /twins/gw1"]);
    let sent = hub.requests();
    assert_eq!((&sent[1].body, sent[1].header("if-match")), (&json!({"tags": {"a": null}}), Some("\"*\"")));
    let expected = json!({"properties": {"desired": {"b": 1}}});
    assert_eq!((&sent[2].body, sent[2].header("if-match")), (&expected, Some("\"AAA=\"")));
}

#[test]
fn twin_replace_keeps_what_is_not_given() {
    let hub = FakeHub::start(|_, _| {
        HttpResponse::ok(json!({
            "deviceId": "gw1", "etag": "AAA=", "tags": {"site": "north"},
            "properties": {"desired": {"a": 1, "$version": 3, "$metadata": {}}, "reported": {}},
        }))
    });
    let run = hub.run(&["twin", "replace", "gw1", "--tags", "{\"site\":\"south\"}"]);
    run.ends(0, &[]);
    assert_eq!(run.stdout, "gw1: twin replaced, etag AAA=, desired version 3\n");
    hub.run(&["twin", "replace", "gw1", "--desired", "{}", "--tags", "{}", "--etag", "B="]).ends(0, &[]);
    hub.run(&["twin", "replace", "gw1", "--desired", "{\"b\":2}"]).ends(0, &[]);
    hub.run(&["twin", "replace", "gw1", "--tags", "{}", "--etag", "B="]).ends(0, &[]);
    hub.run(&["twin", "replace", "gw1"]).ends(2, &["--desired", "--tags"]);
    let (get, put, patch) = ("GET /twins/gw1", "PUT /twins/gw1", "PATCH /twins/gw1");
    assert_eq!(hub.lines(), [get, patch, put, get, put, get, patch]);
    let sent = |n: usize| {
        let request = hub.requests()[n].clone();
        (request.body.clone(), request.header("if-match").unwrap().to_owned())
    };
    let (read, given) = ("\"AAA=\"".to_owned(), "\"B=\"".to_owned());
    assert_eq!(sent(1), (json!({"tags": {"site": "south"}}), read.clone()), "the desired properties stay");
    assert_eq!(sent(2), (json!({"tags": {}, "properties": {"desired": {}}}), given.clone()));
    let kept = json!({"tags": {"site": "north"}, "properties": {"desired": {"b": 2}}});
    assert_eq!(sent(4), (kept, read));
    assert_eq!(sent(6), (json!({"tags": {"site": null}}), given));
}

/// Pages of two rows, an empty one among them.
fn paged() -> FakeHub {
    FakeHub::start(|request, _| {
        let row = |n: u32| json!({"deviceId": format!("gw{n}"), "n": n});
        match request.header("x-ms-continuation") {
            None => HttpResponse::ok(json!([row(1), row(2)])).with("x-ms-continuation", "p2"),
            Some("p2") => HttpResponse::ok(json!([])).with("x-ms-continuation", "p3"),
            Some("p3") => HttpResponse::ok(json!([row(3)])),
            Some(other) => panic!("unexpected page {other}"),
        }
    })
}

#[test]
fn query_follows_all_pages_and_stops_at_top() {
    let hub = paged();
    let sql = "SELECT deviceId, n FROM devices";
    let run = hub.run(&["query", sql, "-o", "json"]);
    run.ends(0, &[]);
    assert_eq!(run.json().as_array().unwrap().len(), 3);
    assert_eq!(hub.run(&["query", sql]).stdout, "deviceId  n\ngw1       1\ngw2       2\ngw3       3\n");
    assert_eq!(
        hub.run(&["query", sql, "-o", "jsonl", "--top", "1"]).stdout,
        "{\"deviceId\":\"gw1\",\"n\":1}\n"
    );

    let sent = hub.requests();
    assert_eq!(sent.len(), 7, "the last run needs one page only");
    assert_eq!(sent[0].body, json!({ "query": sql }));
    assert_eq!(sent[0].header("x-ms-max-item-count"), Some("100"));
    assert_eq!(sent[6].header("x-ms-max-item-count"), Some("1"));
}

#[test]
fn a_closed_pipe_is_success() {
    let (closed, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let hub = FakeHub::start(move |_, _| {
        wait.lock().unwrap().recv().unwrap();
        HttpResponse::ok(json!([{"deviceId": "gw1"}]))
    });
    for form in ["text", "json", "jsonl", "csv"] {
        let mut command = hub.command(&["query", "SELECT * FROM devices", "-o", form]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        closed.send(()).unwrap();
        let run = Ran::from(child.wait_with_output().unwrap());
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{form}");
    }
}

/// A hub with these devices; each look sees the next one of their states, and the
/// look after the last one is not allowed.
fn changing(looks: Vec<Vec<Value>>) -> FakeHub {
    FakeHub::start(move |_, before| match looks.get(before) {
        Some(devices) => HttpResponse::ok(devices.clone().into()),
        None => HttpResponse::classic(401, "IotHubUnauthorizedAccess"),
    })
}

fn row(device: &str, connection: &str, status: &str) -> Value {
    json!({"deviceId": device, "connectionState": connection, "properties": {"reported": {
        "rebootTime": "2026-11-22T11:59:59Z", "reboot": {"id": "r", "status": status, "startedAt": "2026-11-22T12:00:00Z"},
        "boot": {"cause": "requested"}, "agent": {"version": "1.0.0"},
    }}})
}

#[test]
fn watching_prints_what_changes() {
    let (up, down) = ("Connected", "Disconnected");
    let looks = || {
        vec![
            vec![row("gw1", up, "completed"), row("gw2", up, "failed"), row("gw10", down, "completed")],
            vec![row("gw1", up, "completed"), row("gw2", up, "failed"), row("gw10", down, "completed")],
            vec![row("gw1", up, "rebooting"), row("gw2", up, "failed"), row("gw10", up, "completed")],
            vec![row("gw1", up, "completed"), row("gw10", up, "completed")],
        ]
    };
    let watch = ["status", "--watch", "--interval", "10ms"];
    let run = changing(looks()).run(&watch);
    run.ends(8, &["not authorised"]);
    let lines: Vec<&str> = run.stdout.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!(lines[0], "3 devices: 1 in trouble, 1 disconnected, 1 fine");
    let begins = |n: usize, text: &str| assert!(lines[n].starts_with(text), "{n}: {lines:#?}");
    begins(1, "gw2: connection Connected, last reboot 2026-");
    begins(2, "gw10: connection Disconnected");
    begins(3, "gw1: connection Connected");
    assert!(lines[3].contains("outcome rebooting since 2026-11-22"), "{lines:#?}");
    begins(4, "gw10: connection Connected");
    begins(5, "gw1: ");
    begins(6, "gw2: not there any more");
    assert_eq!(lines.len(), 7, "nothing is said twice: {lines:#?}");

    let run = changing(looks()).run(&[&watch[..], &["-o", "jsonl"]].concat());
    let ids: Vec<Value> = run
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["deviceId"].clone())
        .collect();
    assert_eq!(ids, ["gw2", "gw10", "gw1", "gw1", "gw10", "gw1"], "all at first, then changes");
    changing(looks())
        .run(&[&watch[..], &["-o", "json"]].concat())
        .ends(2, &["--watch never comes to an end"]);
    changing(looks()).run(&["status", "--interval", "1s"]).ends(2, &["--watch"]);
}

#[test]
fn that_a_watched_device_is_not_there_is_said_once_until_it_is() {
    let hub = FakeHub::start(|request, before| match (request.path.as_str(), before) {
        (_, 8..) => HttpResponse::classic(401, "IotHubUnauthorizedAccess"),
        // The third of four looks.
        ("/twins/gw2", 5) => HttpResponse::twin(json!({})),
        ("/twins/gw2", _) => HttpResponse::classic(404, "DeviceNotFound"),
        _ => HttpResponse::twin(json!({})),
    });
    let run = hub.run(&["status", "gw1", "gw2", "--watch", "--interval", "10ms"]);
    run.ends(8, &["gw2: no such device"]);
    assert_eq!(run.stderr.matches("gw2: ").count(), 2, "at first, and when it is gone again: {run:#?}");
}

#[test]
fn a_hub_that_is_away_does_not_end_the_watching() {
    let hub = FakeHub::start(|_, before| match before {
        0 => HttpResponse::ok(json!([row("gw1", "Connected", "failed")])),
        1 => HttpResponse::hang_up(),
        2 => HttpResponse::ok(json!([row("gw1", "Connected", "completed")])),
        _ => HttpResponse::classic(401, "IotHubUnauthorizedAccess"),
    });
    let run = hub.run(&["status", "--watch", "--interval", "10ms"]);
    run.ends(8, &["lost the connection to hub", "not authorised"]);
    assert!(run.stdout.lines().last().unwrap().contains("gw1: connection Connected"), "{run:#?}");
    FakeHub::start(|_, _| HttpResponse::hang_up())
        .run(&["status", "--watch"])
        .ends(1, &["lost the connection"]);
}

#[test]
fn the_devices_on_a_screen() {
    let many: Vec<Value> = (0..60).map(|n| row(&format!("gw{n}"), "Connected", "completed")).collect();
    let mut worse = many.clone();
    worse[59] = row("gw59", "Connected", "failed");
    let hub = changing(vec![many.clone(), worse]);
    let shown = on_terminal(hub.command(&["status", "--watch", "--interval", "10ms"]), "");
    assert_eq!(shown.code, 8, "{shown:?}");
    let pictures: Vec<&str> = shown.screen.split("\u{1b}[H").filter(|part| part.contains("DEVICE")).collect();
    let lines = |picture: &str| -> Vec<String> {
        let picture = picture.split("\u{1b}[J").next().unwrap();
        let bare = console::strip_ansi_codes(picture).replace('\r', "");
        bare.lines().map(str::to_owned).collect()
    };
    for picture in &pictures {
        let lines = lines(picture);
        assert!(lines.len() <= 24 + 1, "{lines:#?}");
        assert!(lines.iter().all(|line| console::measure_text_width(line) <= 40), "{lines:#?}");
    }
    assert_eq!(lines(pictures[0])[3].split_whitespace().next(), Some("gw0"));
    assert_eq!(
        lines(pictures[1])[3].split_whitespace().next(),
        Some("gw59"),
        "what needs attention comes first"
    );
    assert!(lines(pictures[1])[22].starts_with("… and "), "{:#?}", lines(pictures[1]));
    assert!(shown.screen.contains("\u{1b}[?25h"), "the cursor is there again");

    // And without --watch each device has one line.
    let hub = FakeHub::start(move |_, _| HttpResponse::ok(many.clone().into()));
    let table = on_terminal(hub.command(&["status"]), "");
    let table = lines(&table.screen);
    assert_eq!(table.len(), 61, "{table:#?}");
    assert!(table.iter().all(|line| console::measure_text_width(line) <= 40), "{table:#?}");
    assert!(table[0].contains("DEVICE") && table[0].contains("OUTCOME"), "{table:#?}");
    let piped = hub.run(&["status"]).stdout;
    assert!(piped.lines().nth(1).unwrap().contains("2026-11-22"), "nothing is left out in a pipe: {piped}");
}

#[test]
fn status_of_named_devices_and_of_a_condition() {
    let hub = FakeHub::start(|request, _| match request.path.as_str() {
        "/twins/gone" => HttpResponse::classic(404, "DeviceNotFound"),
        "/devices/query" => HttpResponse::ok(json!([])),
        _ => HttpResponse::twin(
            json!({"rebootTime": "T", "agent": {"version": "1.0.0"}, "boot": {"cause": "local"}}),
        ),
    });
    let run = hub.run(&["status", "gone", "gw1"]);
    run.ends(5, &["gone: no such device"]);
    assert_eq!(
        run.stdout,
        "DEVICE  CONNECTION  LAST REBOOT  OUTCOME  CAUSE  AGENT\ngw1     Connected   T            -        local  1.0.0\n"
    );
    let run = hub.run(&["status", "gw1", "-o", "json"]);
    assert_eq!(run.json()["rebootTime"], "T");
    assert_eq!(hub.run(&["status", "--where", "tags.a = 1", "-o", "json"]).stdout, "[]\n");
    assert_eq!(hub.requests().last().unwrap().body["query"], "SELECT * FROM devices WHERE tags.a = 1");
    hub.run(&["status", "gw1", "--where", "x"]).ends(2, &["--where"]);
}
