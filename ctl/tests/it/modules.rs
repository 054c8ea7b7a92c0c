//! `--module`: which commands are about the module of a device, and which are not.

use std::fs;

use serde_json::{Value, json};

use crate::common::{FakeHub, HttpResponse, Ran, ctl};

const TWIN: &str = "/twins/gw1/modules/iotdm";
const IDENTITY: &str = "/devices/gw1/modules/iotdm";

/// A hub with one device, which has a module, and with whatever keys are asked for.
fn hub() -> FakeHub {
    FakeHub::start(|request, _| match request.path.as_str() {
        "/devices/query" => HttpResponse::ok(json!([{"deviceId": "gw1", "connectionState": "Connected"}])),
        "/jobs/v2/query" => HttpResponse::ok(json!([])),
        path if path.starts_with("/devices") => HttpResponse::ok(json!({
            "deviceId": "gw1", "etag": "AAA=", "status": "enabled",
            "authentication": {"type": "sas", "symmetricKey": {"primaryKey": "YQ==", "secondaryKey": "Yg=="}},
        })),
        _ if request.is_call() => HttpResponse::reply(200, json!({"status": "accepted", "boots": []})),
        _ => HttpResponse::twin(json!({})),
    })
}

#[test]
fn what_is_sent_is_about_the_module() {
    for (arguments, line) in [
        (&["reboot", "gw1", "--no-wait"][..], format!("POST {TWIN}/methods")),
        (&["reboot", "gw1", "--no-wait", "--when-online"], format!("PATCH {TWIN}")),
        (&["cancel", "gw1"], format!("POST {TWIN}/methods")),
        (&["invoke", "gw1", "m"], format!("POST {TWIN}/methods")),
        (&["history", "gw1"], format!("POST {TWIN}/methods")),
        (&["status", "gw1"], format!("GET {TWIN}")),
        (&["twin", "show", "gw1"], format!("GET {TWIN}")),
        (&["twin", "update", "gw1", "--tags", "{}"], format!("PATCH {TWIN}")),
        (&["twin", "replace", "gw1", "--tags", "{}", "--desired", "{}"], format!("PUT {TWIN}")),
        (&["device", "create", "gw1"], format!("PUT {IDENTITY}")),
        (&["device", "show", "gw1"], format!("GET {IDENTITY}")),
        (&["device", "delete", "gw1", "--yes"], format!("DELETE {IDENTITY}")),
        (&["device", "renew-key", "gw1", "--yes"], format!("PUT {IDENTITY}")),
        (&["device", "connection-string", "gw1"], format!("GET {IDENTITY}")),
        (&["sas-token", "--device", "gw1"], format!("GET {IDENTITY}")),
    ] {
        let hub = hub();
        hub.run(&[&["--module", "iotdm"], arguments].concat()).ends(0, &[]);
        let lines = hub.lines();
        assert_eq!(lines.last(), Some(&line), "{arguments:?}");
        assert!(lines.iter().all(|line| line.contains("/modules/iotdm")), "{lines:?}");
    }
}

#[test]
fn queries_are_about_the_modules_of_the_name() {
    let of = |condition: &str| format!("FROM devices.modules WHERE moduleId = 'iotdm'{condition}");
    let at = "deviceId, connectionState";
    let alone = || "SELECT deviceId FROM devices.modules WHERE version > 1".to_owned();
    for (arguments, queries) in [
        (
            &["query", "SELECT deviceId FROM devices WHERE version > 1"][..],
            vec![format!("SELECT deviceId {}", of(" AND (version > 1)"))],
        ),
        (&["device", "list"], vec![format!("SELECT * {}", of(""))]),
        (&["status"], vec![format!("SELECT * {}", of(""))]),
        (
            &["status", "--where-module", "version > 1"],
            vec![alone(), format!("SELECT * {}", of(" AND (version > 1)"))],
        ),
        (
            &["status", "--where", "tags.a = 1", "--where-module", "version > 1"],
            vec![
                "SELECT deviceId FROM devices WHERE tags.a = 1".to_owned(),
                alone(),
                format!("SELECT * {}", of(" AND (version > 1) AND deviceId IN ['gw1']")),
            ],
        ),
        (
            &[
                "reboot",
                "--where",
                "tags.a = 1",
                "--at-most",
                "1",
                "--per",
                "tags.site",
                "--yes",
                "--dry-run",
            ],
            vec![
                "SELECT deviceId, connectionState, tags FROM devices WHERE tags.a = 1".to_owned(),
                format!("SELECT {at} {}", of(" AND deviceId IN ['gw1']")),
            ],
        ),
        (
            &["cancel", "--where-module", "version > 1"],
            vec![alone(), format!("SELECT {at} {}", of(" AND (version > 1)"))],
        ),
    ] {
        let hub = hub();
        let _ = hub.run(&[&["--module", "iotdm"], arguments].concat());
        let asked: Vec<String> = hub
            .requests()
            .iter()
            .filter_map(|request| Some(request.body.get("query")?.as_str()?.to_owned()))
            .collect();
        assert_eq!(asked, queries, "{arguments:?}");
    }
}

/// In parentheses beside another condition it would make sense, of the wrong modules.
#[test]
fn half_a_condition_is_none() {
    let half = "a = 1) OR (b = 2";
    let hub = FakeHub::start(move |request, _| {
        let query = request.body["query"].as_str().unwrap_or_default();
        match query.strip_prefix("SELECT deviceId FROM devices.modules WHERE ") {
            Some(condition) if condition == half => HttpResponse::classic(400, "ArgumentInvalid"),
            _ => HttpResponse::ok(json!([{"deviceId": "gw1"}])),
        }
    });
    for arguments in [
        &["reboot", "--yes", "--no-wait"][..],
        &["reboot", "--yes", "--no-wait", "--where", "tags.a = 1"],
        &["reboot", "--yes", "--no-wait", "--as-configuration", "wave"],
        &["cancel"],
        &["status"],
        &["device", "delete", "--yes"],
    ] {
        let run = hub.run(&[&["--module", "m"], arguments, &["--where-module", half]].concat());
        run.ends(1, &["--where-module", "ArgumentInvalid"]);
    }
    let changes = |request: &crate::common::HttpRequest| request.path != "/devices/query";
    assert!(!hub.requests().iter().any(changes), "{:?}", hub.lines());
}

/// What is told to be typed is about the module as well.
#[test]
fn hints_name_the_module() {
    let hub = FakeHub::start(|request, _| match request.is_call() {
        true => HttpResponse::reply(200, json!({"id": request.reboot_id(), "status": "accepted"})),
        false => HttpResponse::twin(json!({"agent": {}})),
    });
    hub.run(&["--module", "m", "reboot", "gw1", "--interval", "10ms", "--wait-timeout", "50ms"])
        .ends(6, &["see iotdm-ctl status --module m gw1"]);
}

#[test]
fn a_profile_says_it_for_the_commands_that_speak_of_the_daemon() {
    let hub = hub();
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join(".config/iotdm");
    fs::create_dir_all(&folder).unwrap();
    fs::copy(hub.path("connection-string"), folder.join("lab.txt")).unwrap();
    fs::copy(hub.path("ca.pem"), folder.join("lab.pem")).unwrap();
    let profile = "[hub.lab]\nconnection_string_file = 'lab.txt'\nca_file = 'lab.pem'\nmodule = 'iotdm'\n";
    fs::write(folder.join("ctl.toml"), profile).unwrap();
    let run = |arguments: &[&str]| {
        Ran::from(ctl(arguments).env("HOME", home.path()).output().unwrap()).ends(0, &[]);
        hub.lines().pop().unwrap()
    };
    assert_eq!(run(&["twin", "show", "gw1"]), format!("GET {TWIN}"));
    assert_eq!(run(&["invoke", "gw1", "m"]), format!("POST {TWIN}/methods"));
    assert_eq!(run(&["--module", "other", "twin", "show", "gw1"]), "GET /twins/gw1/modules/other");
    assert_eq!(run(&["--module", "", "twin", "show", "gw1"]), "GET /twins/gw1");
    assert_eq!(run(&["device", "show", "gw1"]), "GET /devices/gw1");
    assert_eq!(run(&["device", "show", "gw1", "--module", "iotdm"]), format!("GET {IDENTITY}"));
    assert_eq!(run(&["job", "list"]), "GET /jobs/v2/query");
}

#[test]
fn what_is_not_for_modules_is_refused_with_the_reason() {
    let hub = hub();
    for (arguments, why) in [
        (&["reboot", "gw1", "--job"][..], "--job: IoT Hub's jobs are for devices"),
        (&["job", "list"], "--module: IoT Hub's jobs are for devices"),
        (&["query", "SELECT * FROM devices.jobs"], "--module: IoT Hub's jobs are for devices"),
        (&["query", "--ready-made", "agents"], "IoT Hub groups devices only"),
        (&["configuration", "list"], "--module: configurations are the hub's"),
        (&["configuration", "delete", "wave", "--yes"], "--module: configurations are the hub's"),
        (&["check"], "--module: check asks about the hub"),
        (&["sas-token"], "--module: say of which device with --device"),
        (&["device", "disable", "gw1"], "a module has no status of its own"),
        (&["device", "enable", "gw1"], "a module has no status of its own"),
        (&["device", "create", "gw1", "--disabled"], "a module has no status of its own"),
    ] {
        hub.run(&[&["--module", "iotdm"], arguments].concat()).ends(2, &[why]);
    }
    hub.run(&["--module", "a b", "status"]).ends(2, &["\"a b\" is not a module id"]);
    hub.run(&["--module", "..", "status"]).ends(2, &["such a module cannot be named in a URL"]);
    hub.run(&["--module", "a+b", "device", "create", "gw1"])
        .ends(2, &["--module: a module called a+b could never connect"]);
    hub.run(&["status", "--where-module", "version > 1"]).ends(2, &["say which module with --module NAME"]);
    hub.run(&["--module", "m", "status", "gw1", "--where-module", "version > 1"])
        .ends(2, &["cannot be used with"]);
    assert_eq!(hub.lines(), [""; 0]);
}

#[test]
fn the_body_of_a_new_module_names_it() {
    let hub = hub();
    hub.run(&["--module", "iotdm", "device", "create", "gw1"]).ends(0, &["--out FILE --module=iotdm gw1"]);
    let body = &hub.requests()[0].body;
    assert_eq!(
        (&body["deviceId"], &body["moduleId"], body.get("status")),
        (&json!("gw1"), &json!("iotdm"), None)
    );
    assert_eq!(body["authentication"]["type"], Value::from("sas"));
}

#[test]
fn a_module_that_is_not_there_is_said() {
    let hub = FakeHub::start(|_, _| HttpResponse::classic(404, "ModuleNotFound"));
    hub.run(&["--module", "iotdm", "twin", "show", "gw1"])
        .ends(5, &["no such module", "device create --module"]);
}
