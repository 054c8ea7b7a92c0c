//! The way to the hub: absent, wrong, renewed, left.

use iotdm_tests::{Daemon, Hub, relay, wait_until};

#[test]
fn an_unreachable_hub_is_said_and_connected_to_when_it_appears() {
    let hub = Hub::start();
    let mut daemon = Daemon::simulating(&hub);
    let port = hub.mqtt_port;
    let hub = hub.stop();
    daemon.start();
    daemon.notified.wait_for("READY=1");
    let status = daemon.notified.wait_for("STATUS=not connected");
    assert!(status.contains(&format!("cannot reach localhost:{port}: ")), "{status}");
    assert!(status.contains("next attempt at "), "{status}");
    let _hub = hub.start();
    daemon.notified.wait_for("STATUS=connected to localhost as gw1; no reboot pending");
    assert!(daemon.stop().success());
}

#[test]
fn a_wrong_key_is_said() {
    let hub = Hub::start();
    let mut daemon = Daemon::simulating(&hub);
    let right = hub.device_connection_string();
    let wrong = |part: &str| match part.split_once('=') {
        Some(("SharedAccessKey", _)) => "SharedAccessKey=d3Jvbmc=".to_owned(),
        _ => part.to_owned(),
    };
    let parts: Vec<String> = right.split(';').map(wrong).collect();
    daemon.write_connection_string(&parts.join(";"));
    daemon.start();
    daemon.notified.wait_for("READY=1");
    let status = daemon.notified.wait_for("STATUS=not connected");
    assert!(status.contains("refused gw1: check its key in "), "{status}");
    assert!(!daemon.log.lines().concat().contains("d3Jvbmc="));
    assert_eq!(hub.ctl(&["reboot", "gw1", "--no-wait"]).code, 4, "the device is offline");
    assert!(daemon.stop().success());
}

#[test]
fn a_server_of_an_unknown_ca_or_another_name_is_refused() {
    let hub = Hub::start();
    let stranger = Hub::start();
    let mut daemon = Daemon::simulating(&hub);
    daemon.configure(&format!("hub.ca_file = {:?}\n", stranger.ca_file()));
    daemon.start();
    let status = daemon.notified.wait_for("STATUS=not connected");
    assert!(status.contains("of a CA that this machine does not trust"), "{status}");
    daemon.stop();

    // The right server, but reached by an address that its certificate lacks.
    let relay = relay("127.0.0.2:0", hub.mqtt_port);
    let string = hub.device_connection_string();
    let (rest, _) = string.split_once(";GatewayHostName=").unwrap();
    daemon.write_connection_string(&format!("{rest};GatewayHostName={relay}"));
    daemon.configure(&format!("hub.ca_file = {:?}\n", hub.ca_file()));
    daemon.start();
    let status = daemon.notified.wait_for("STATUS=not connected");
    assert!(status.contains("is for another name"), "{status}");
    assert_eq!(hub.twin()["connectionState"], "Disconnected");
}

#[test]
fn a_stopped_daemon_leaves_the_hub() {
    let hub = Hub::start();
    let mut daemon = Daemon::simulating(&hub);
    daemon.start_connected(&hub);
    assert_eq!(hub.twin()["connectionState"], "Connected");
    let ended = daemon.stop();
    assert!(ended.success());
    daemon.notified.wait_for("STOPPING=1");
    assert_eq!(hub.twin()["connectionState"], "Disconnected");
}

#[test]
fn a_token_is_renewed_before_it_ends() {
    let hub = Hub::start();
    let mut daemon = Daemon::simulating(&hub);
    daemon.configure("hub.sas_ttl = \"8s\"\nlog.level = \"debug\"\n");
    daemon.start_connected(&hub);
    daemon.log.wait_for("reconnecting with a new token");
    daemon.log.wait_for_nth("connected to localhost as gw1", 2);
    assert_eq!(hub.invoke("rebootDevice", r#"{"check":true}"#).0, 200);
    assert_eq!(daemon.notified.count("STATUS=not connected"), 0, "{:?}", daemon.notified.lines());
}

#[test]
fn a_dropped_link_is_made_again() {
    let hub = Hub::start();
    let mut daemon = Daemon::simulating(&hub);
    daemon.start_connected(&hub);
    hub.fault(&["gw1", "drop-link"]);
    daemon.log.wait_for_nth("connected to localhost as gw1", 2);
    wait_until("a call gets through", || hub.invoke("rebootDevice", r#"{"check":true}"#).0 == 200);
}

#[test]
fn a_hub_that_dies_is_said_in_words() {
    let hub = Hub::start();
    let mut daemon = Daemon::simulating(&hub);
    daemon.start_connected(&hub);
    let port = hub.mqtt_port;
    let _stopped = hub.stop();
    let status = daemon.notified.wait_for("STATUS=not connected");
    let said = format!("not connected: localhost:{port} closed the connection; next attempt at ");
    assert!(status.contains(&said), "{status}");
}
