//! `status -o prometheus`, as Prometheus's own `promtool` judges it.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::common::{FakeHub, HttpResponse, Ran};
use serde_json::{Value, json};

/// Devices that are well, not well, hostile, and unknown.
fn hub() -> FakeHub {
    let twin = |id: &str, connection: &str, reported: Value| json!({"deviceId": id, "connectionState": connection, "properties": {"desired": {}, "reported": reported}});
    let rows = json!([
        twin(
            "gw1",
            "Connected",
            json!({
                "rebootTime": "2026-11-22T18:36:07.500Z",
                "reboot": {"id": "r", "status": "failed", "error": {"code": "neverWentDown"}},
                "boot": {"bootId": "b", "cause": "unclean", "detail": "watchdog", "count": 41, "uncleanCount": 3},
                "health": {"bootId": "b", "state": "degraded", "failedUnits": ["app.service"], "failedCount": 2},
                "rebootRequired": {"required": true, "reasonCount": 1}, "agent": {"version": "1.0.0"},
            })
        ),
        twin(
            "gw2",
            "Disconnected",
            json!({
                "reboot": {"id": "r", "status": "x\"} 1\nforged 1 \\"}, "boot": {"cause": "\u{1b}[2J\u{202e}"},
                "health": {"state": "from the future"}, "agent": {"version": "2\\\"\n"}, "rebootTime": 7,
            })
        ),
        twin("gw'3", "Connected", json!({})),
    ]);
    FakeHub::start(move |request, _| match request.path.as_str() {
        "/devices/query" => HttpResponse::ok(rows.clone()),
        _ => HttpResponse::ok(rows[0].clone()),
    })
}

#[test]
fn a_device_that_is_named_twice_is_told_once() {
    let run = hub().run(&["status", "gw1", "gw1", "-o", "prometheus"]);
    run.ends(0, &[]);
    assert_eq!(run.stdout.matches("iotdm_device_connected{device=\"gw1\"} 1\n").count(), 1, "{run:#?}");
}

#[test]
fn the_numbers_of_the_devices() {
    let hub = hub();
    let run = hub.run(&["status", "-o", "prometheus"]);
    run.ends(0, &[]);
    let lines: Vec<&str> = run.stdout.lines().collect();
    for line in [
        "# TYPE iotdm_device_connected gauge",
        "iotdm_device_connected{device=\"gw1\"} 1",
        "iotdm_device_connected{device=\"gw2\"} 0",
        "iotdm_device_connected{device=\"gw'3\"} 1",
        "iotdm_device_last_reboot_timestamp_seconds{device=\"gw1\"} 1795372567.5",
        "iotdm_device_reboot_pending{device=\"gw1\"} 0",
        "iotdm_device_reboot_status{device=\"gw1\",status=\"failed\",error=\"neverWentDown\"} 1",
        "iotdm_device_reboot_required{device=\"gw1\"} 1",
        "iotdm_device_health{device=\"gw1\",state=\"degraded\"} 1",
        "iotdm_device_health{device=\"gw1\",state=\"running\"} 0",
        "iotdm_device_health{device=\"gw2\",state=\"running\"} 0",
        "iotdm_device_failed_units{device=\"gw1\"} 2",
        "iotdm_device_boots{device=\"gw1\"} 41",
        "iotdm_device_unclean_boots{device=\"gw1\"} 3",
        "iotdm_device_boot_info{device=\"gw1\",cause=\"unclean\",detail=\"watchdog\"} 1",
        "iotdm_device_agent_info{device=\"gw1\",version=\"1.0.0\"} 1",
        "iotdm_device_agent_info{device=\"gw2\",version=\"2\\\\\\\"\\\\u000a\"} 1",
    ] {
        assert!(lines.contains(&line), "no {line} in {run:#?}");
    }
    assert!(lines.iter().all(|line| line.starts_with("# ") || line.starts_with("iotdm_device_")), "{run:#?}");
    assert!(!run.stdout.contains('\u{1b}') && !run.stdout.contains('\u{202e}'), "{run:#?}");
    hub.run(&["status", "gw1", "-o", "prometheus"]).ends(0, &[]);
    hub.run(&["status", "--watch", "-o", "prometheus"]).ends(2, &["--watch"]);
    hub.run(&["query", "SELECT * FROM devices", "-o", "prometheus"]).ends(2, &["prometheus is for status"]);
    promtool_takes(&run.stdout);
}

/// Has promtool judge the numbers; where it is not installed, which the script that
/// runs all tests sees to, this is said.
fn promtool_takes(numbers: &str) {
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match promtool.spawn() {
        Ok(child) => child,
        Err(error) => return eprintln!("not judged by promtool (package prometheus): {error}"),
    };
    child.stdin.take().unwrap().write_all(numbers.as_bytes()).unwrap();
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!((ran.code, &*ran.stdout, &*ran.stderr), (0, "", ""), "{numbers}");
}
