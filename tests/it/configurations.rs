//! A reboot by one of the hub's automatic device configurations.

use std::process::{Child, Stdio};

use iotdm_tests::{Daemon, Hub, Ran, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// What the daemon logs before it has the machine rebooted.
const GOES_DOWN: &str = "is about to be rebooted";

fn tag(hub: &Hub, device: &str, site: &str) {
    let ran = hub.ctl(&["twin", "update", device, "--tags", &json!({ "site": site }).to_string()]);
    assert_eq!(ran.code, 0, "{ran:?}");
}

fn desired(hub: &Hub, device: &str) -> Value {
    hub.ctl(&["-o", "json", "twin", "show", device]).json()["properties"]["desired"]["reboot"].clone()
}

fn counts(hub: &Hub, name: &str) -> (Value, Value) {
    let ran = hub.ctl(&["-o", "json", "configuration", "show", name]);
    let shown = if ran.code == 0 { ran.json() } else { Value::Null };
    (shown["systemMetrics"]["results"].clone(), shown["metrics"]["results"].clone())
}

/// A run that goes on while the test does.
fn begin(hub: &Hub, arguments: &[&str]) -> Child {
    let mut command = hub.ctl_command(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn end(child: Child) -> Ran {
    child.wait_with_output().unwrap().into()
}

const WHERE: &str = "tags.site = 'north'";

/// Has the hub reboot those that a condition selects, without a question.
fn by_configuration<'a>(condition: &'a str, name: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["reboot", "--where", condition, "--as-configuration", name, "--yes"], more].concat()
}

#[test]
fn a_wish_reaches_the_device_that_connects_afterwards_once_and_is_counted() {
    let hub = Hub::start();
    tag(&hub, "gw1", "north");
    let made = hub.ctl(&by_configuration(
        WHERE,
        "wave-1",
        &["--id", "r-1", "--reason", "kernel update", "--deadline", "2099-01-01T00:00:00Z", "--no-wait"],
    ));
    made.ends(0, &["configuration wave-1 was created", "iotdm-ctl configuration delete wave-1"]);
    assert_eq!(made.stdout, "wave-1: created, id r-1\n");
    let wish = json!({"id": "r-1", "reason": "kernel update", "deadline": "2099-01-01T00:00:00.000Z"});
    wait_until("the wish", || {
        let desired = desired(&hub, "gw1");
        ["id", "reason", "deadline"].iter().all(|key| desired[key] == wish[key])
    });
    hub.ctl(&["configuration", "delete", "wave-1", "--yes"]).ends(0, &[]);

    let made = hub.ctl(&by_configuration(
        WHERE,
        "wave-2",
        &["-o", "json", "--id", "r-2", "--no-wait", "--priority", "7"],
    ));
    made.ends(0, &[]);
    let made = made.json();
    assert_eq!((&made["id"], &made["priority"]), (&json!("wave-2"), &json!(7)));
    wait_until("the wish", || desired(&hub, "gw1")["id"] == "r-2");
    let (system, metrics) = counts(&hub, "wave-2");
    assert_eq!(system, json!({"targetedCount": 1, "appliedCount": 1}));
    assert_eq!(metrics, json!({"completed": 0, "failed": 0, "pending": 1, "superseded": 0}));

    // The device comes only now.
    let mut daemon = Daemon::simulating(&hub);
    daemon.start_connected(&hub);
    wait_until("the outcome", || hub.reported()["reboot"]["status"] == "completed");
    let done = hub.reported()["reboot"].clone();
    assert_eq!(json!([done["id"], done["requestedBy"]]), json!(["r-2", "twin"]));
    let counted = json!({"completed": 1, "failed": 0, "pending": 0, "superseded": 0});
    wait_until("the count", || counts(&hub, "wave-2").1 == counted);
    // Once: over a new connection, and where the operator does it again under the id.
    hub.fault(&["gw1", "drop-link"]);
    assert_eq!(daemon.log.count(GOES_DOWN), 1);
    daemon.stop();
    daemon.start_connected(&hub);
    assert_eq!(hub.invoke("rebootDevice", r#"{"id":"r-2"}"#).1["id"], "r-2");
    assert_eq!(daemon.log.count(GOES_DOWN), 0);

    // A later request is another's: the configuration's is counted as done no more.
    assert_eq!(hub.invoke("rebootDevice", r#"{"id":"r-3"}"#).0, 200);
    wait_until("the other outcome", || hub.reported()["reboot"]["id"] == "r-3");
    let counted = json!({"completed": 0, "failed": 0, "pending": 0, "superseded": 1});
    wait_until("the count", || counts(&hub, "wave-2").1 == counted);

    // What it has set goes with the configuration.
    let list = hub.ctl(&["configuration", "list"]);
    list.ends(0, &[]);
    assert!(list.stdout.contains("wave-2") && list.stdout.contains(WHERE), "{}", list.stdout);
    let unasked = hub.ctl(&["configuration", "delete", "wave-2"]);
    unasked.ends(2, &["nobody to ask", "--yes"]);
    assert_eq!(hub.ctl(&["configuration", "delete", "wave-2", "--yes"]).stdout, "deleted wave-2\n");
    wait_until("the end of the wish", || desired(&hub, "gw1").is_null());
    hub.ctl(&["configuration", "show", "wave-2"]).ends(1, &["see iotdm-ctl configuration list"]);
}

#[test]
fn it_is_followed_to_the_last_device_and_ctrl_c_leaves_it_in_force() {
    let hub = Hub::start_with(&["--device", "gw2"]);
    tag(&hub, "gw1", "north");
    tag(&hub, "gw2", "north");
    let mut daemon = Daemon::simulating(&hub);
    daemon.start_connected(&hub);
    let arguments =
        by_configuration(WHERE, "wave", &["--id", "r-1", "--interval", "1s", "--wait-timeout", "10m"]);
    let run = begin(&hub, &arguments);
    wait_until("the first outcome", || counts(&hub, "wave").1["completed"] == 1);
    // The other device is away.
    kill(Pid::from_raw(run.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    end(run).ends(
        130,
        &["stopped waiting for configuration wave; it stays in force", "configuration delete wave"],
    );
    assert_eq!(desired(&hub, "gw2")["id"], "r-1");
    let taken = hub.ctl(&arguments);
    taken.ends(1, &["configuration wave: choose another name", "iotdm-ctl configuration delete wave"]);
    hub.ctl(&["configuration", "delete", "wave", "--yes"]).ends(0, &[]);

    tag(&hub, "gw2", "south");
    let ran = hub.ctl(&by_configuration(WHERE, "wave-2", &["--id", "r-2", "--interval", "1s"]));
    ran.ends(0, &["configuration wave-2: 1 targeted, 1 applied, 1 completed, 0 failed, 0 pending"]);
    assert_eq!(ran.stdout, "wave-2: 1 targeted, 1 applied, 1 completed, 0 failed, 0 pending\n");
    assert_eq!(daemon.log.count(GOES_DOWN), 2);
    hub.ctl(&["configuration", "delete", "wave-2", "--yes"]).ends(0, &[]);

    // A wish that fails is a failure, and one that is late is not waited for.
    let ran = hub.ctl(&by_configuration(
        WHERE,
        "late",
        &["--deadline", "2026-01-01T00:00:00Z", "--interval", "1s"],
    ));
    ran.ends(7, &["0 completed, 1 failed"]);
    hub.ctl(&["configuration", "delete", "late", "--yes"]).ends(0, &[]);
    let ran = hub.ctl(&by_configuration(
        "tags.site = 'south'",
        "away",
        &["--interval", "1s", "--wait-timeout", "1s"],
    ));
    ran.ends(6, &["has not reached all in time", "it stays in force"]);
}

#[test]
fn a_restraining_key_reaches_no_agent_that_does_not_know_it() {
    let hub = Hub::start_with(&["--device", "old"]);
    tag(&hub, "gw1", "north");
    tag(&hub, "old", "north");
    let mut daemon = Daemon::simulating(&hub);
    daemon.start_connected(&hub);
    let ran = hub.ctl(&by_configuration(
        "tags.site = 'south' OR tags.site = 'north'",
        "wave",
        &["--on-preflight", "wait", "--id", "r-1", "--interval", "1s"],
    ));
    ran.ends(
        0,
        &["1 of 2 devices are left out: agent too old for onPreflight", "1 targeted, 1 applied, 1 completed"],
    );
    assert_eq!(desired(&hub, "gw1")["onPreflight"], "wait");
    assert!(desired(&hub, "old").is_null());
    // Half a condition is none, and what is put around it does not mend that.
    let half = "tags.site = 'north') OR (tags.site = 'north'";
    let ran =
        hub.ctl(&["reboot", "--where", half, "--on-preflight", "wait", "--as-configuration", "x", "--yes"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(hub.ctl(&["-o", "json", "configuration", "list"]).json().as_array().unwrap().len() == 1);
}

#[test]
fn what_makes_no_sense_with_a_configuration_is_refused() {
    let hub = Hub::start();
    let line = ["reboot", "--where", WHERE, "--as-configuration"];
    for (more, says) in [
        (&["Wave"][..], "a-z, 0-9 and - + % _ * !"),
        (&["a]]b"], "a-z, 0-9 and - + % _ * !"),
        (&["wave", "--canary", "1"], "--canary"),
        (&["wave", "--check"], "--check"),
        (&["wave", "--when-online"], "--when-online"),
        (&["wave", "-o", "csv", "--yes"], "csv"),
        (&["wave"], "give --yes"),
    ] {
        hub.ctl(&[&line[..], more].concat()).ends(2, &[says]);
    }
    hub.ctl(&["reboot", "gw1", "--as-configuration", "wave", "--yes"]).ends(2, &["--where"]);
    hub.ctl(&["reboot", "gw1", "--priority", "1"]).ends(2, &["--as-configuration"]);
    hub.ctl(&["reboot", "gw1", "--deadline", "2026-12-01T00:00:00Z"]).ends(2, &["--when-online"]);
    hub.ctl(&["reboot", "--resume", "x", "--as-configuration", "wave"]).ends(2, &["--resume"]);
    assert_eq!(hub.ctl(&["-o", "json", "configuration", "list"]).json(), json!([]));
}
