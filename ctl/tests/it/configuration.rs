//! `reboot --as-configuration` and `--job`, followed while the hub has trouble, and
//! configurations of other tools.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::{FakeHub, HttpRequest, HttpResponse};
use serde_json::{Value, json};

const WAVE: [&str; 9] = [
    "reboot",
    "--where",
    "tags.ring = 2",
    "--as-configuration",
    "wave",
    "--id",
    "r-1",
    "--yes",
    "--interval=10ms",
];
const STAYS: &str =
    "it stays in force, also for devices that come later, until iotdm-ctl configuration delete wave";

/// A hub of one device that answers so when the configuration is read the n-th time.
fn hub(read: impl Fn(usize) -> HttpResponse + Send + Sync + 'static) -> FakeHub {
    let reads = AtomicUsize::new(0);
    FakeHub::start(move |request: &HttpRequest, _| match (request.method.as_str(), request.path.as_str()) {
        (_, "/devices/query") => HttpResponse::ok(json!([{"deviceId": "gw1"}])),
        ("PUT", "/configurations/wave") => HttpResponse::ok(wave(0)),
        _ => read(reads.fetch_add(1, Ordering::SeqCst)),
    })
}

fn wave(completed: u64) -> Value {
    json!({
        "id": "wave", "systemMetrics": {"results": {"targetedCount": 1, "appliedCount": 1}},
        "metrics": {"results": {"completed": completed, "failed": 0, "pending": 1 - completed}},
    })
}

#[test]
fn what_is_due_later_is_waited_for_from_then_on() {
    let hub = hub(|reads| HttpResponse::ok(wave(u64::from(reads > 30))));
    let run = hub.run(&[&WAVE[..], &["--delay", "1h", "--wait-timeout", "50ms"]].concat());
    run.ends(0, &["1 targeted, 1 applied, 1 completed, 0 failed, 0 pending\n"]);
}

#[test]
fn a_hub_in_trouble_is_asked_again() {
    let failing = || HttpResponse::classic(503, "ServiceUnavailable").with("retry-after", "0");
    let followed = hub(move |reads| if reads < 12 { failing() } else { HttpResponse::ok(wave(1)) });
    let run = followed.run(&WAVE);
    run.ends(0, &["configuration wave: the hub failed", "; trying again\n", STAYS]);
    assert_eq!(run.stderr.matches("trying again\n").count(), 1, "{run:#?}");
    // Not for ever; and what was made is still there.
    let never = hub(move |_| failing());
    never.run(&[&WAVE[..], &["--wait-timeout", "50ms"]].concat()).ends(1, &["ServiceUnavailable", STAYS]);
    let denied = hub(|_| HttpResponse::classic(401, "IotHubUnauthorizedAccess"));
    denied.run(&WAVE).ends(8, &[STAYS]);
}

#[test]
fn a_job_is_followed_through_trouble_as_well() {
    let reads = AtomicUsize::new(0);
    let hub = FakeHub::start(move |request, _| match (request.method.as_str(), request.path.as_str()) {
        (_, "/devices/query") if request.body["query"].as_str().unwrap().contains("devices.jobs") => {
            let outcome = json!({"deviceMethodResponse": {"status": 200, "payload": {"id": "r-1"}}});
            HttpResponse::ok(
                json!([{"deviceId": "gw1", "jobId": "r-1", "status": "completed", "outcome": outcome}]),
            )
        }
        (_, "/devices/query") => HttpResponse::ok(json!([{"deviceId": "gw1"}])),
        ("GET", "/jobs/v2/r-1") if reads.fetch_add(1, Ordering::SeqCst) < 12 => {
            HttpResponse::classic(503, "ServiceUnavailable").with("retry-after", "0")
        }
        _ => HttpResponse::ok(
            json!({"jobId": "r-1", "status": "completed", "deviceJobStatistics": {"deviceCount": 1}}),
        ),
    });
    let job = ["reboot", "--where", "tags.a = 1", "--yes", "--job", "--id", "r-1", "--interval=10ms"];
    hub.run(&job).ends(0, &["job r-1: the hub failed", "; trying again\n"]);
    let denied = FakeHub::start(|request, _| match (request.method.as_str(), request.path.as_str()) {
        (_, "/devices/query") => HttpResponse::ok(json!([{"deviceId": "gw1"}])),
        ("PUT", _) => HttpResponse::ok(json!({"jobId": "r-1", "status": "queued"})),
        _ => HttpResponse::classic(401, "IotHubUnauthorizedAccess"),
    });
    denied.run(&job).ends(8, &["it stays in force, see iotdm-ctl job show r-1"]);
}

#[test]
fn a_configuration_of_another_tool_is_shown_and_deleted() {
    let hub = FakeHub::start(|_, _| HttpResponse::ok(json!({"id": "Wave.1:a"})));
    hub.run(&["configuration", "show", "Wave.1:a"]).ends(0, &[]);
    hub.run(&["configuration", "delete", "Wave.1:a", "--yes"]).ends(0, &[]);
    assert_eq!(hub.lines(), ["GET /configurations/Wave.1%3Aa", "DELETE /configurations/Wave.1%3Aa"]);
    for name in ["", "..", "a\nb"] {
        hub.run(&["configuration", "show", name]).ends(2, &["cannot be named in a URL"]);
    }
    let named = ["reboot", "--where", "x", "--as-configuration", "Wave", "--yes"];
    hub.run(&named).ends(2, &["the name of a configuration has 1 to 128"]);
}
