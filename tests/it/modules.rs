//! The daemon as a module of a device, beside whatever else is the device.

use std::fs;

use iotdm_tests::{Daemon, Hub, program, wait_until};
use serde_json::{Value, json};

const MODULE: [&str; 2] = ["--module", "iotdm"];

/// The daemon as the module `iotdm` of `device`, which it creates if it is not there.
fn module(hub: &Hub, device: &str) -> Daemon {
    if device != "gw1" {
        hub.ctl(&["device", "create", device]).ends(0, &[]);
    }
    let created = hub.ctl(&["device", "create", device, "--module", "iotdm"]);
    created.ends(0, &[]);
    assert!(created.stderr.contains(&format!("--out FILE --module=iotdm {device}")), "{created:?}");
    let daemon = Daemon::simulating(hub);
    daemon.write_connection_string(hub.file(&format!("devices/{device}~iotdm")).trim());
    daemon
}

fn start(daemon: &mut Daemon, device: &str) {
    daemon.start();
    daemon.notified.wait_for(&format!("STATUS=connected to localhost as {device}/iotdm; no reboot pending"));
}

/// Runs `iotdm-ctl` with `--module iotdm`.
fn ctl(hub: &Hub, arguments: &[&str]) -> iotdm_tests::Ran {
    hub.ctl(&[&MODULE, arguments].concat())
}

fn twin(hub: &Hub) -> Value {
    ctl(hub, &["-o", "json", "twin", "show", "gw1"]).json()
}

#[test]
fn a_module_is_rebooted_beside_the_devices_own_application() {
    let hub = Hub::start();
    // Another daemon, as the device itself, is the application.
    let mut application = Daemon::simulating(&hub);
    application.start_connected(&hub);
    let of_application = hub.reported();
    let mut daemon = module(&hub, "gw1");
    start(&mut daemon, "gw1");

    let rebooted = ctl(&hub, &["reboot", "gw1", "--reason", "kernel", "--interval", "1s", "-o", "json"]);
    rebooted.ends(0, &[]);
    assert_eq!(rebooted.json()["outcome"], "completed", "{rebooted:?}");
    let reported = twin(&hub)["properties"]["reported"].clone();
    assert_eq!(
        (&reported["reboot"]["reason"], &reported["reboot"]["status"]),
        (&json!("kernel"), &json!("completed"))
    );

    // A wish in the module's twin, and one that is taken back.
    ctl(&hub, &["reboot", "gw1", "--when-online", "--interval", "1s"]).ends(0, &[]);
    assert_eq!(twin(&hub)["properties"]["reported"]["reboot"]["requestedBy"], "twin");
    let later = ["reboot", "gw1", "--delay", "1h", "--no-wait"];
    ctl(&hub, &later).ends(0, &[]);
    ctl(&hub, &["cancel", "gw1"]).ends(0, &[]);
    ctl(&hub, &[&later[..], &["--when-online"]].concat()).ends(0, &[]);
    wait_until("the wish is scheduled", || {
        twin(&hub)["properties"]["reported"]["reboot"]["status"] == "scheduled"
    });
    ctl(&hub, &["cancel", "gw1"]).ends(0, &[]);
    wait_until("the wish is cancelled", || {
        twin(&hub)["properties"]["reported"]["reboot"]["status"] == "cancelled"
    });

    let invoked = ctl(&hub, &["-o", "json", "invoke", "gw1", "getRebootStatus"]).json();
    assert_eq!(invoked["payload"]["reboot"]["status"], "cancelled");
    let status = ctl(&hub, &["-o", "json", "status", "gw1"]).json();
    assert_eq!((&status["deviceId"], &status["moduleId"]), (&json!("gw1"), &json!("iotdm")));
    assert_eq!(
        (&status["connectionState"], &status["reboot"]["status"]),
        (&json!("Connected"), &json!("cancelled"))
    );

    // The application was asked for nothing, and stayed connected.
    assert_eq!(hub.reported(), of_application);
    for daemon in [&application, &daemon] {
        assert_eq!(daemon.notified.count("STATUS=not connected"), 0);
    }
    assert_eq!(hub.log.count("disconnected"), 2, "the module's two simulated reboots");
    assert!(daemon.stop().success() && application.stop().success());
}

#[test]
fn fleets_of_modules_are_selected_by_what_their_devices_are() {
    let hub = Hub::start();
    let mut daemons = Vec::new();
    for (device, site) in [("gw1", "north"), ("gw2", "north"), ("gw3", "south")] {
        let mut daemon = module(&hub, device);
        start(&mut daemon, device);
        daemons.push(daemon);
        hub.ctl(&["twin", "update", device, "--tags", &format!("{{\"site\":\"{site}\"}}")]).ends(0, &[]);
    }
    // A device of that site without the module.
    hub.ctl(&["device", "create", "gw4"]).ends(0, &[]);
    hub.ctl(&["twin", "update", "gw4", "--tags", "{\"site\":\"north\"}"]).ends(0, &[]);

    let state = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = hub.ctl_command(arguments);
        iotdm_tests::Ran::from(command.env("XDG_STATE_HOME", state.path()).output().unwrap())
    };
    let fleet = [
        "--module",
        "iotdm",
        "reboot",
        "--where",
        "tags.site = 'north'",
        "--at-most",
        "1",
        "--per",
        "tags.site",
    ];
    let ran = run(&[&fleet[..], &["--yes", "--interval", "1s", "-o", "jsonl"]].concat());
    ran.ends(0, &["1 of 3 devices are left out: they have no module iotdm"]);
    let mut devices: Vec<String> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .inspect(|row| assert_eq!(row["outcome"], "completed", "{row}"))
        .map(|row| row["device"].as_str().unwrap().to_owned())
        .collect();
    devices.sort();
    assert_eq!(devices, ["gw1", "gw2"]);

    // The journal knows the module, and another one is refused.
    let journal = fs::read_dir(state.path().join("iotdm/reboots")).unwrap().next().unwrap().unwrap().path();
    let journal = journal.to_str().unwrap();
    assert_eq!(
        fs::read_to_string(journal).unwrap().lines().next().unwrap().matches("\"module\":\"iotdm\"").count(),
        1
    );
    run(&["reboot", "--resume", journal]).ends(0, &[]);
    run(&["--module", "other", "reboot", "--resume", journal]).ends(2, &["the run is for module iotdm"]);

    let condition = "properties.reported.reboot.status = 'completed'";
    let status = |more: &[&str]| {
        let rows = hub.ctl(&[&["--module", "iotdm", "-o", "json", "status"], more].concat()).json();
        rows.as_array()
            .unwrap()
            .iter()
            .map(|row| row["deviceId"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(status(&[]), ["gw1", "gw2", "gw3"]);
    assert_eq!(status(&["--where", "tags.site = 'south'"]), ["gw3"]);
    assert_eq!(status(&["--where-module", condition]), ["gw1", "gw2"]);
    assert_eq!(status(&["--where", "tags.site = 'south'", "--where-module", condition]), [""; 0]);

    let query = [
        "--module",
        "iotdm",
        "-o",
        "json",
        "query",
        "SELECT deviceId, moduleId FROM devices WHERE connectionState = 'Connected'",
    ];
    let rows = hub.ctl(&query).json();
    assert_eq!(rows.as_array().unwrap().len(), 3, "{rows}");
    assert_eq!(rows[0], json!({"deviceId": "gw1", "moduleId": "iotdm"}));

    run(&["--module", "iotdm", "reboot", "--where", "tags.site = 'south'", "--job", "--yes"])
        .ends(2, &["--job: IoT Hub's jobs are for devices, not for modules"]);
    run(&["reboot", "--where-module", condition, "--yes"]).ends(2, &["say which module with --module NAME"]);
    let cancelled = ctl(
        &hub,
        &[
            "cancel",
            "--where",
            "tags.site = 'south'",
            "--where-module",
            "is_defined(properties.reported.boot)",
        ],
    );
    cancelled.ends(3, &[]);
    assert!(
        cancelled.stdout.contains("1 devices: 1 nothing pending") || cancelled.stdout.contains("gw3"),
        "{cancelled:?}"
    );
}

#[test]
fn identities_of_modules_are_managed_beside_those_of_devices() {
    let hub = Hub::start();
    let mut daemon = module(&hub, "gw1");
    start(&mut daemon, "gw1");
    ctl(&hub, &["device", "create", "gw1"]).ends(1, &["it exists already"]);
    ctl(&hub, &["device", "create", "gw9"]).ends(5, &["no such device"]);
    let shown = ctl(&hub, &["-o", "json", "device", "show", "gw1"]).json();
    assert_eq!((&shown["moduleId"], shown["authentication"].get("symmetricKey")), (&json!("iotdm"), None));
    let listed = ctl(&hub, &["-o", "json", "device", "list"]).json();
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["moduleId"]), (1, &json!("iotdm")));
    let string = ctl(&hub, &["device", "connection-string", "gw1"]).stdout;
    assert!(
        string.starts_with("HostName=localhost;DeviceId=gw1;ModuleId=iotdm;SharedAccessKey="),
        "{string}"
    );

    // The old key goes on as the secondary one, so that the daemon stays.
    ctl(&hub, &["device", "renew-key", "gw1", "--yes"]).ends(0, &[]);
    assert_ne!(ctl(&hub, &["device", "connection-string", "gw1"]).stdout, string);
    for verb in ["enable", "disable"] {
        ctl(&hub, &["device", verb, "gw1"]).ends(2, &["a module has no status of its own"]);
    }
    ctl(&hub, &["device", "delete", "gw1", "--yes"]).ends(0, &[]);
    let status = daemon.notified.wait_for("STATUS=not connected");
    assert!(!status.contains("rebooted"), "{status}");
    let refused = daemon.notified.wait_for("refused gw1/iotdm");
    assert!(refused.contains("that the device exists, is enabled and has a module iotdm there"), "{refused}");
    ctl(&hub, &["device", "show", "gw1"]).ends(5, &["no such module"]);
    hub.ctl(&["device", "show", "gw1"]).ends(0, &[]);

    // Many at once.
    let dir = tempfile::tempdir().unwrap();
    let (list, out) = (dir.path().join("list"), dir.path().join("out"));
    fs::write(&list, "gw1\ngw2\n").unwrap();
    let (list, out) = (list.to_str().unwrap(), out.to_str().unwrap());
    hub.ctl(&["device", "create", "gw2"]).ends(0, &[]);
    let created = ctl(&hub, &["device", "create", "--from", list, "--out", out]);
    created.ends(0, &[]);
    assert!(created.stdout.contains("created 2 modules"), "{created:?}");
    assert_eq!(fs::read_to_string(out).unwrap().matches(";ModuleId=iotdm;").count(), 2);
    let deleted = ctl(&hub, &["device", "delete", "--from", list, "--yes"]);
    deleted.ends(0, &[]);
    assert!(deleted.stdout.contains("2 modules deleted"), "{deleted:?}");
    assert_eq!(hub.ctl(&["-o", "json", "device", "list"]).json().as_array().unwrap().len(), 2);
}

#[test]
fn a_gateway_of_iot_edge_stands_between_a_module_and_its_hub() {
    // As IoT Edge's $edgeHub does, it answers under a name of its own for a hub of another.
    let hub = Hub::start_with(&["--host", "localhost", "--host", "myhub.example"]);
    let mut daemon = module(&hub, "gw1");
    let string = hub.file("devices/gw1~iotdm");
    daemon.write_connection_string(
        &string.trim().replace("HostName=localhost;Dev", "HostName=myhub.example;Dev"),
    );
    let checked = std::process::Command::new(program("iotdm-agentd"))
        .args(["--check-config", "--config"])
        .arg(daemon.state_dir().with_file_name("agentd.toml"))
        .output()
        .unwrap();
    let text = String::from_utf8(checked.stdout).unwrap();
    let hub_line = format!("hub              myhub.example through localhost:{}\n", hub.mqtt_port);
    assert!(text.contains(&hub_line) && text.contains("\nmodule           iotdm\n"), "{text}");
    daemon.start();
    daemon.notified.wait_for("STATUS=connected to myhub.example as gw1/iotdm");
    ctl(&hub, &["reboot", "gw1", "--interval", "1s"]).ends(0, &[]);
    assert!(daemon.stop().success());
    // By WebSocket, where only its port is open.
    let by_port = |port: u16| format!("GatewayHostName=localhost:{port}");
    let string = string.trim().replace("HostName=localhost;Dev", "HostName=myhub.example;Dev");
    daemon.write_connection_string(&string.replace(&by_port(hub.mqtt_port), &by_port(hub.https_port)));
    daemon.configure("hub.transport = \"websocket\"\n");
    daemon.start();
    daemon.notified.wait_for("STATUS=connected to myhub.example as gw1/iotdm");
    ctl(&hub, &["reboot", "gw1", "--interval", "1s"]).ends(0, &[]);
}

#[test]
fn a_configuration_of_modules_reaches_those_that_their_own_twins_select() {
    let hub = Hub::start();
    let mut daemon = module(&hub, "gw1");
    start(&mut daemon, "gw1");
    ctl(&hub, &["twin", "update", "gw1", "--tags", r#"{"ring":"a"}"#]).ends(0, &[]);
    let line = ["reboot", "--as-configuration", "wave", "--id", "r-1", "--yes", "--interval", "1s"];
    let refused = ctl(&hub, &[&line[..], &["--where", "tags.ring = 'a'"]].concat());
    refused.ends(2, &["--where-module"]);
    let which = ["--where-module", "tags.ring = 'a'", "--on-preflight", "wait"];
    ctl(&hub, &[&line[..], &which].concat()).ends(0, &["1 targeted, 1 applied, 1 completed"]);
    assert_eq!(twin(&hub)["properties"]["desired"]["reboot"]["onPreflight"], "wait");
    assert_eq!(twin(&hub)["properties"]["reported"]["reboot"]["id"], "r-1");
    assert!(hub.twin()["properties"]["desired"].get("reboot").is_none());
    let made = hub.ctl(&["-o", "json", "configuration", "show", "wave"]).json();
    assert_eq!(made["content"]["moduleContent"]["properties.desired.reboot"]["id"], "r-1");
    assert_eq!(
        made["targetCondition"],
        "FROM devices.modules WHERE moduleId = 'iotdm' AND ((tags.ring = 'a') \
         AND ARRAY_CONTAINS(properties.reported.agent.features, 'preflight'))"
    );
    assert!(daemon.stop().success());
}
