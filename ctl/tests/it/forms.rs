//! What each command prints in each form: the transcript in `forms.txt` was
//! written by people and is compared, never made anew by the test.

use std::path::Path;

use crate::common::{FakeHub, HttpRequest, HttpResponse};
use serde_json::{Value, json};

/// Two devices, of which `gw1` does as it is told, and `gw2` refuses.
fn hub() -> FakeHub {
    let identity = json!({
        "deviceId": "gw1", "etag": "AAA=", "status": "enabled", "connectionState": "Connected",
        "lastActivityTime": "0001-01-01T00:00:00Z", "authentication": {"type": "sas", "symmetricKey": {}},
    });
    FakeHub::start(move |request, _| match (request.method.as_str(), request.path.as_str()) {
        ("POST", "/devices/query") => HttpResponse::ok(rows(request.body["query"].as_str().unwrap())),
        ("GET", "/jobs/v2/query") => HttpResponse::ok(json!([job()])),
        (_, "/jobs/v2/r-1" | "/jobs/v2/r-1/cancel") => HttpResponse::ok(job()),
        ("GET", "/configurations") => HttpResponse::ok(json!([configuration()])),
        ("DELETE", "/configurations/wave") => HttpResponse::ok(Value::Null).status(204),
        (_, "/configurations/wave") => HttpResponse::ok(configuration()),
        ("GET", "/statistics/devices") => {
            HttpResponse::ok(json!({"totalDeviceCount": 2, "disabledDeviceCount": 0}))
        }
        ("DELETE", "/devices/gw1") => HttpResponse::ok(Value::Null).status(204),
        ("DELETE", _) => HttpResponse::classic(404, "DeviceNotFound"),
        (_, path) if path.starts_with("/devices/gw1") => HttpResponse::ok(identity.clone()),
        (_, path) if path.starts_with("/twins/gw1") || path.starts_with("/twins/gw2") => device(request),
        _ => HttpResponse::nested(404, 404_001),
    })
}

fn device(request: &HttpRequest) -> HttpResponse {
    let id = request.path.split('/').nth(2).unwrap();
    if !request.is_call() {
        return HttpResponse::ok(twin(id));
    }
    match (id, request.body["methodName"].as_str().unwrap()) {
        ("gw2", _) => {
            let error = json!({"code": "blockedByInhibitor", "message": "apt holds it"});
            HttpResponse::reply(423, json!({ "error": error }))
        }
        (_, "cancelReboot") => HttpResponse::reply(200, json!({"id": "r-1", "status": "cancelled"})),
        _ => HttpResponse::reply(200, json!({"id": "r-1", "status": "accepted"})),
    }
}

fn twin(id: &str) -> Value {
    json!({
        "deviceId": id, "etag": "AAA=", "version": 7, "status": "enabled", "connectionState": "Connected",
        "tags": {"site": "north"},
        "properties": {"desired": {"$version": 3}, "reported": {
            "rebootTime": "T", "reboot": {"id": "r-1", "status": "completed"},
            "boot": {"cause": "requested"}, "agent": {"version": "1.0.0"},
        }},
    })
}

fn job() -> Value {
    json!({
        "jobId": "r-1", "type": "scheduleDeviceMethod", "status": "completed",
        "deviceJobStatistics": {"deviceCount": 2, "succeededCount": 1, "failedCount": 1},
    })
}

fn configuration() -> Value {
    json!({
        "id": "wave", "priority": 7, "targetCondition": "tags.ring = 2",
        "content": {"deviceContent": {"properties.desired.reboot": {"id": "r-1"}}},
        "systemMetrics": {"results": {"targetedCount": 2, "appliedCount": 2}},
        "metrics": {"results": {"completed": 1, "failed": 1, "pending": 0}},
    })
}

fn rows(sql: &str) -> Value {
    match sql {
        _ if sql.contains("devices.jobs") => {
            json!([{"deviceId": "gw1", "jobId": "r-1", "status": "completed",
            "outcome": {"deviceMethodResponse": {"status": 200, "payload": {"id": "r-1"}}}}])
        }
        _ if sql.starts_with("SELECT *") => json!([twin("gw1"), twin("gw2")]),
        _ => json!([{"deviceId": "gw1", "site": "north, by the lake"}, {"deviceId": "gw2"}]),
    }
}

/// The commands of the transcript, each with what it prints and how it exits.
fn cases(text: &str) -> Vec<(&str, &str)> {
    let (_, transcript) = text.split_once("\n$ ").unwrap();
    transcript.split("\n$ ").map(|case| case.split_once('\n').unwrap()).collect()
}

/// The words of a command without its program; what stands in quotes is one word.
fn words(command: &str) -> Vec<&str> {
    let parts = command.split('\'').enumerate();
    let words = parts.flat_map(|(n, part)| match n % 2 {
        0 => part.split_whitespace().collect(),
        _ => vec![part],
    });
    words.skip(1).collect()
}

/// What was printed without the seconds that it took, which differ each time.
fn timeless(printed: &str) -> String {
    let line = |line: &str| match line.split_once("\"seconds\":") {
        Some((before, after)) => {
            let digits = |c: char| c.is_ascii_digit() || c == '.' || c == ' ';
            format!("{before}\"seconds\": …{}\n", after.trim_start_matches(digits))
        }
        None => format!("{line}\n"),
    };
    printed.lines().map(line).collect()
}

#[test]
fn each_command_in_each_form() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/forms.txt");
    let text = std::fs::read_to_string(file).unwrap();
    let hub = hub();
    let (mut expected, mut found) = (String::new(), String::new());
    for (command, output) in cases(&text) {
        let run = hub.run(&words(command));
        let exit = if run.code == 0 { String::new() } else { format!("(exit {})\n", run.code) };
        expected.push_str(&format!("$ {command}\n{}\n\n", output.trim_end()));
        found.push_str(&format!("$ {command}\n{}\n\n", (timeless(&run.stdout) + &exit).trim_end()));
    }
    assert!(found == expected, "this is printed now:\n{found}");
}
