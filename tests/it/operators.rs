//! What operators do with several devices, against the emulator: lists, bulk
//! changes, jobs, scheduled reboots that are called off, and the status of it all.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use iotdm_tests::{Daemon, Hub, Signal, wait_until};
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde_json::{Value, json};

fn reboot(hub: &Hub) -> Value {
    hub.reported().get("reboot").cloned().unwrap_or_default()
}

/// The devices of the hub, by the registry's query.
fn devices(hub: &Hub) -> Vec<(String, String)> {
    let rows = hub.ctl(&["query", "SELECT deviceId, status FROM devices", "-o", "json"]).json();
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    let mut rows: Vec<_> =
        rows.as_array().unwrap().iter().map(|row| (text(row, "deviceId"), text(row, "status"))).collect();
    rows.sort();
    rows
}

#[test]
fn lists_come_back_as_they_were_printed() {
    let hub = Hub::start();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::write(path("new"), "[{\"deviceId\":\"gw2\",\"tags\":{\"site\":\"north\"}},\"gw3\",\"-gw4\"]")
        .unwrap();
    let strings = path("strings");
    hub.ctl(&["device", "create", "--from", &path("new"), "--out", &strings]).ends(0, &["wrote "]);
    assert_eq!(fs::read_to_string(&strings).unwrap().lines().count(), 3);
    let north = hub.ctl(&["device", "disable", "--where", "tags.site = 'north'", "--yes", "-o", "json"]);
    assert_eq!(north.json(), json!({"disabled": ["gw2"], "errors": []}));

    for form in ["status", "device list", "query"] {
        let mut arguments: Vec<&str> = form.split(' ').collect();
        if form == "query" {
            arguments.push("SELECT deviceId FROM devices");
        }
        arguments.extend(["-o", "csv"]);
        fs::write(path("list"), hub.ctl(&arguments).stdout).unwrap();
        let run = hub.ctl(&["device", "enable", "--from", &path("list"), "--yes", "-o", "json"]);
        run.ends(0, &[]);
        assert_eq!(run.json()["enabled"].as_array().unwrap().len(), 4, "{form}: {run:#?}");
        // None of them has a daemon, which a dry run needs.
        let run = hub.ctl(&["reboot", "--devices-from", &path("list"), "--yes", "--dry-run", "-o", "csv"]);
        assert_eq!(run.stdout.lines().filter(|line| line.contains(",error,")).count(), 4, "{form}: {run:#?}");
    }

    // One string is that of a key that is renewed, and the second renewal is asked about.
    hub.ctl(&["device", "renew-key", "gw2"]).ends(0, &[]);
    hub.ctl(&["device", "renew-key", "gw2"]).ends(2, &["gw2: its key was renewed before"]);
    hub.ctl(&["device", "renew-key", "gw2", "--yes"]).ends(0, &[]);
    fs::write(path("list"), "gw2\ngw3\n-gw4\nnosuch\n").unwrap();
    let run = hub.ctl(&["device", "delete", "--from", &path("list"), "--yes"]);
    run.ends(7, &["nosuch: no such device"]);
    assert_eq!(run.stdout, "3 devices deleted, 1 failed\n");
    assert_eq!(devices(&hub), [("gw1".to_owned(), "enabled".to_owned())]);
}

#[test]
fn a_job_names_whom_the_hub_does_not_have() {
    let hub = Hub::start();
    let mut daemon = Daemon::simulating(&hub);
    daemon.start_connected(&hub);
    let job = |more: &[&str]| {
        hub.ctl(&[&["reboot", "--job", "--interval", "100ms", "--delay", "1h"], more].concat())
    };
    job(&["nosuch", "neither"]).ends(5, &["nosuch: no such device", "neither: no such device"]);
    let run = job(&["gw1", "nosuch", "--id", "job-1", "-o", "json"]);
    run.ends(7, &["nosuch: no such device"]);
    let outcomes: Vec<Value> =
        run.json().as_array().unwrap().iter().map(|on| on["outcome"].clone()).collect();
    assert_eq!(outcomes, ["accepted", "noSuchDevice"]);
    assert_eq!(reboot(&hub)["status"], "scheduled");
    hub.ctl(&["job", "show", "job-1"]).ends(0, &[]);
    for command in ["show", "cancel"] {
        hub.ctl(&["job", command, "nojob"]).ends(1, &["nojob", "JobNotFound"]);
    }
}

#[test]
fn scheduled_reboots_are_seen_and_called_off() {
    let hub = Hub::start();
    hub.ctl(&["device", "create", "gw2"]).ends(0, &[]);
    let mut daemon = Daemon::simulating(&hub);
    daemon.start_connected(&hub);
    let home = tempfile::tempdir().unwrap();
    let ctl = |arguments: &[&str]| {
        let mut command = hub.ctl_command(arguments);
        iotdm_tests::Ran::from(command.env("XDG_STATE_HOME", home.path()).output().unwrap())
    };
    // Of the two devices gw2 is offline: a wish reaches it later.
    ctl(&["reboot", "gw1", "gw2", "--id", "w-1", "--delay", "2h", "--when-online", "--no-wait"])
        .ends(0, &["journal "]);
    wait_until("the schedule", || reboot(&hub)["status"] == "scheduled");
    let status = ctl(&["status"]).stdout;
    let line = |device: &str| status.lines().find(|line| line.starts_with(device)).unwrap().to_owned();
    assert!(line("gw1").contains("scheduled for ") && line("gw1").contains("(in 1 h)"), "{status}");
    assert!(line("gw2").contains("wished for, not before "), "{status}");
    assert_eq!(ctl(&["status", "gw2", "-o", "json"]).json()["wish"]["id"], "w-1");
    let wishes = ctl(&["query", "--ready-made", "wishes", "-o", "json"]).json();
    assert_eq!(wishes.as_array().unwrap().len(), 2, "{wishes}");
    let scheduled = ctl(&["query", "--ready-made", "scheduled", "-o", "json"]).json();
    assert_eq!(json!([scheduled[0]["deviceId"], scheduled[0]["id"]]), json!(["gw1", "w-1"]));

    let journals = home.path().join("iotdm/reboots");
    let journal = fs::read_dir(journals).unwrap().next().unwrap().unwrap().path().display().to_string();
    let run = ctl(&["cancel", "--journal", &journal]);
    run.ends(0, &[]);
    assert_eq!(run.stdout.lines().last(), Some("2 devices: 2 cancelled"));
    wait_until("the cancellation", || reboot(&hub)["status"] == "cancelled");
    let run = ctl(&["cancel", "--where", "IS_DEFINED(deviceId)"]);
    run.ends(3, &["gw1: the device refused with status 404: nothingPending"]);
    assert_eq!(run.stdout.lines().last(), Some("2 devices: 2 nothing pending"));
    assert!(!ctl(&["status"]).stdout.contains("wished for"));
}

#[test]
fn watching_ends_with_ctrl_c() {
    let hub = Hub::start();
    let mut daemon = Daemon::simulating(&hub);
    let mut watch = hub.ctl_command(&["status", "--watch", "--interval", "100ms"]);
    let mut child = watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut next = |what: &str| lines.by_ref().find(|line| line.contains(what)).unwrap();
    next("1 device: 1 disconnected");
    next("gw1: connection Disconnected");
    daemon.start_connected(&hub);
    next("gw1: connection Connected");
    hub.ctl(&["reboot", "gw1", "--interval", "100ms"]).ends(0, &[]);
    next("outcome completed");
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    let ran = iotdm_tests::Ran::from(child.wait_with_output().unwrap());
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (130, "iotdm-ctl: interrupted: stopped watching; nothing was changed\n")
    );
}
