//! What is wrong on the machine, and what becomes of it once that is mended while the
//! daemon runs, or tries to.

use std::fs;
use std::process::Command;

use iotdm_tests::{Bus, Daemon, Hub, program, wait_until};
use rcgen::{CertificateParams, KeyPair};

/// A CA of which no server here has a certificate, in PEM.
fn other_ca() -> String {
    let key = KeyPair::generate().unwrap();
    CertificateParams::new(["other".to_owned()]).unwrap().self_signed(&key).unwrap().pem()
}

#[test]
fn a_ca_file_that_comes_late_or_is_renewed_needs_no_restart() {
    let hub = Hub::start();
    let place = tempfile::tempdir().unwrap();
    let ca_file = place.path().join("mounted/ca.pem");
    let mut daemon = Daemon::simulating(&hub);
    daemon.configure(&format!("hub.ca_file = {ca_file:?}\n"));
    daemon.start();
    daemon.notified.wait_for("READY=1");
    let status = daemon.notified.wait_for("STATUS=not connected: the certificate of localhost");
    let missing = format!("cannot read ca_file {}: No such file", ca_file.display());
    assert!(
        status.contains("of a CA that this machine does not trust") && status.contains(&missing),
        "{status}"
    );

    fs::create_dir(ca_file.parent().unwrap()).unwrap();
    fs::write(&ca_file, other_ca()).unwrap();
    // What was missing is there, but it is not yet what is needed.
    wait_until("an attempt with the other CA", || {
        daemon.notified.lines().iter().any(|line| line.contains("does not trust") && !line.contains(&missing))
    });
    let both = [other_ca(), fs::read_to_string(hub.ca_file()).unwrap()].concat();
    fs::write(&ca_file, both).unwrap();
    daemon.notified.wait_for("STATUS=connected to localhost as gw1");
    assert_eq!(daemon.notified.count("READY=1"), 1);
    assert!(daemon.stop().success());
}

#[test]
fn a_second_daemon_on_the_state_directory_says_so_and_changes_nothing() {
    let hub = Hub::start();
    let mut first = Daemon::simulating(&hub);
    first.start_connected(&hub);
    let (status, body) = hub.invoke("rebootDevice", r#"{"id":"later","delaySeconds":3600}"#);
    assert_eq!(status, 200, "{body}");
    let state = first.state_dir();
    let files = || {
        let entries = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap());
        let mut files: Vec<_> =
            entries.map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap())).collect();
        files.sort();
        files
    };
    let before = files();
    assert!(!before.is_empty());

    let config = state.parent().unwrap().join("agentd.toml");
    let mut second = Command::new(program("iotdm-agentd"));
    second.arg("--config").arg(&config).arg("--state-dir").arg(&state).env_remove("JOURNAL_STREAM");
    let second = second.output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains("another iotdm-agentd runs already with the state directory "), "{said}");
    assert_eq!(files(), before);
    assert_eq!(first.notified.count("STATUS=not connected"), 0, "the hub was left alone");
    assert_eq!(hub.invoke("cancelReboot", "{}").0, 200);

    // The lock goes with its holder, however that ends.
    first.kill();
    first.start_connected(&hub);
    assert!(first.stop().success());
}

#[test]
fn a_second_client_with_the_same_identity_is_named() {
    let hub = Hub::start();
    let (mut one, mut clone) = (Daemon::simulating(&hub), Daemon::simulating(&hub));
    one.start_connected(&hub);
    clone.start();
    let status =
        one.notified.wait_for("STATUS=not connected: another client connects with this identity, gw1: ");
    assert!(status.contains("closed the connection, without an error"), "{status}");
    let named = clone.log.wait_for("another client connects with this identity, gw1: ");
    assert!(named.contains("iotdm-ctl device create gw1 --module iotdm --out FILE"), "{named}");
    clone.stop();
}

#[test]
fn so_is_one_with_the_identity_of_a_module() {
    let hub = Hub::start();
    hub.ctl(&["device", "create", "gw1", "--module", "iotdm"]).ends(0, &[]);
    let string = hub.file("devices/gw1~iotdm");
    let (mut one, mut clone) = (Daemon::simulating(&hub), Daemon::simulating(&hub));
    for daemon in [&one, &clone] {
        daemon.write_connection_string(string.trim());
    }
    one.start();
    one.notified.wait_for("STATUS=connected to localhost as gw1/iotdm");
    clone.start();
    let named = "another client connects with this identity, gw1/iotdm: ";
    one.notified.wait_for(&format!("STATUS=not connected: {named}"));
    // Within three disconnections.
    assert!(one.notified.count("STATUS=connected to localhost as gw1/iotdm") <= 3);
    let said = clone.log.wait_for(named);
    assert!(said.contains("give that a module identity of its own"), "{said}");
    clone.stop();
}

#[test]
fn a_fatal_mistake_stands_in_the_status_with_its_remedy() {
    let hub = Hub::start();
    let mut daemon = Daemon::simulating(&hub);
    let ends = |daemon: &mut Daemon, words: &str, code: i32| {
        daemon.start();
        let status = daemon.notified.wait_for("STATUS=");
        assert!(status.contains(words), "{status}");
        daemon.log.wait_for(words);
        assert_eq!(daemon.ends().code(), Some(code), "{status}");
        assert_eq!(daemon.notified.count("READY=1"), 0);
    };
    let secret = daemon.state_dir().with_file_name("connection-string");
    let right = fs::read_to_string(&secret).unwrap();
    daemon.configure("hub.keepalive = 4\n");
    ends(&mut daemon, "50-test.toml:1: unknown field `keepalive`", 78);
    daemon.configure("");
    daemon.write_connection_string(&format!("\"{right}\""));
    ends(&mut daemon, "connection-string cannot be used: quotes stand around the connection string", 78);
    daemon.write_connection_string("");
    ends(&mut daemon, "connection-string is empty: write the device's connection string into it", 78);
    // A file that is late is no mistake of a text, and is tried again by systemd.
    fs::remove_file(&secret).unwrap();
    ends(&mut daemon, "connection-string: No such file or directory", 1);
    fs::create_dir_all(daemon.state_dir().with_file_name("agentd.toml.d/60-late.toml")).unwrap();
    daemon.write_connection_string(&right);
    ends(&mut daemon, "60-late.toml: Is a directory", 1);
}

#[test]
fn without_a_bus_calls_are_refused_until_it_appears() {
    let hub = Hub::start();
    let place = tempfile::tempdir().unwrap();
    let address = format!("unix:path={}", place.path().join("bus").display());
    let mut daemon = Daemon::new(&hub, Some(address.clone()), "");
    daemon.start();
    daemon.notified.wait_for("READY=1");
    let status = daemon
        .notified
        .wait_for("STATUS=connected to localhost as gw1; no reboot pending; a reboot would be refused");
    let (refused, body) = hub.invoke("rebootDevice", "{}");
    assert_eq!((refused, body["error"]["code"].as_str()), (503, Some("logindUnavailable")), "{status}");

    let bus = Bus::at(&address, place);
    let logind = bus.logind();
    // logind's word that no shutdown is under way shows that it was found.
    logind.calls.wait_for("Inhibit(shutdown, iotdm-agentd, delay)");
    wait_until("the status without the obstacle", || {
        daemon.notified.lines().iter().rfind(|line| line.starts_with("STATUS="))
            == Some(&"STATUS=connected to localhost as gw1; no reboot pending".to_owned())
    });
    assert_eq!(hub.invoke("rebootDevice", r#"{"check":true}"#).0, 200);
    assert!(daemon.stop().success());
}

#[test]
fn what_would_have_a_reboot_refused_shows_in_the_status() {
    let (hub, bus) = (Hub::start(), Bus::start());
    let logind = bus.logind();
    "challenge".clone_into(&mut logind.can_reboot.lock().unwrap());
    let mut daemon = Daemon::with_logind(&hub, &bus);
    daemon.start_connected(&hub);
    let status =
        daemon.notified.wait_for("; no reboot pending; a reboot would be refused: polkit does not let");
    assert!(status.contains("check the rule that the package installs"), "{status}");

    "yes".clone_into(&mut logind.can_reboot.lock().unwrap());
    assert_eq!(hub.invoke("rebootDevice", r#"{"check":true}"#).0, 200);
    let last =
        |daemon: &Daemon| daemon.notified.lines().into_iter().rfind(|line| line.starts_with("STATUS="));
    wait_until("the status without the obstacle", || last(&daemon).unwrap().ends_with("; no reboot pending"));

    fs::remove_dir_all(daemon.state_dir()).unwrap();
    fs::write(daemon.state_dir(), "in the way").unwrap();
    let (status, _) = hub.invoke("rebootDevice", r#"{"delaySeconds":3600}"#);
    assert_eq!(status, 500);
    daemon
        .notified
        .wait_for("a reboot would be refused: the record cannot be saved in the state directory: ");
    assert!(daemon.stop().success());
}
