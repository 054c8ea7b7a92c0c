//! The device's model, and what the machine says of itself.

use std::fs;
use std::path::Path;
use std::process::Command;

use iotdm_tests::{Daemon, Hub, program};
use serde_json::{Value, json};

fn information(hub: &Hub) -> (Value, Value) {
    let reported = hub.reported();
    (reported["deviceInformation"].clone(), reported["$metadata"]["deviceInformation"].clone())
}

#[test]
fn the_hub_is_told_the_model_and_once_what_the_machine_is() {
    let hub = Hub::start();
    let mut daemon = Daemon::simulating(&hub);
    daemon.start_connected(&hub);
    assert_eq!(hub.twin()["modelId"], "dtmi:iotdm:gateway;1");
    let (told, written) = information(&hub);
    assert_eq!(told["__t"], "c", "{told}");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(told["swVersion"], kernel.trim());
    for (key, there) in [
        ("osName", told["osName"].is_string()),
        ("processorArchitecture", told["processorArchitecture"].is_string()),
        ("totalMemory", told["totalMemory"].as_u64().is_some_and(|size| size > 1024)),
        ("totalStorage", told["totalStorage"].as_u64().is_some_and(|size| size > 1024)),
    ] {
        assert!(there, "{key}: {told}");
    }
    // Neither a new connection nor a new start writes any of it again.
    hub.fault(&["gw1", "drop-link"]);
    daemon.notified.wait_for("STATUS=not connected");
    daemon.notified.wait_for("STATUS=connected to");
    daemon.stop();
    daemon.start_connected(&hub);
    assert_eq!(hub.invoke("rebootDevice", r#"{"id":"r-1"}"#).0, 200);
    iotdm_tests::wait_until("the reboot", || hub.reported()["reboot"]["status"] == "completed");
    assert_eq!(information(&hub), (told, written));
}

#[test]
fn no_model_is_said_where_none_is_wanted() {
    let hub = Hub::start();
    let mut daemon = Daemon::simulating(&hub);
    daemon.configure("hub.model_id = \"\"\n");
    daemon.start_connected(&hub);
    assert!(hub.twin().get("modelId").is_none_or(|model| model == ""), "{}", hub.twin());
    assert_eq!(hub.reported()["deviceInformation"]["__t"], json!("c"));
}

#[test]
fn the_program_prints_the_model_that_the_package_installs() {
    let printed = Command::new(program("iotdm-agentd")).arg("--print-model").output().unwrap();
    assert!(printed.status.success() && printed.stderr.is_empty(), "{printed:?}");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let install = fs::read_to_string(root.join("debian/iotdm-agentd.install")).unwrap();
    let line = install.lines().find(|line| line.contains("usr/share/iotdm/dtmi/iotdm")).unwrap();
    let file = root.join(line.split_whitespace().next().unwrap());
    assert_eq!(printed.stdout, fs::read(file).unwrap());
}
