//! `iotdm-agentd --test`: on a way that is open, and on each that is not, the step
//! that fails is the right one, its remedy helps, and a daemon that runs meanwhile
//! keeps its connection.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::time::{Duration, Instant};

use iotdm_tests::{Bus, Client, Daemon, Hub, Ran, Server, proxy};
use serde_json::Value;

/// The steps in their order.
const STEPS: [&str; 14] = [
    "configuration",
    "provisioning",
    "name",
    "tcp",
    "proxy",
    "tls",
    "websocket",
    "clock",
    "connack",
    "twin",
    "logind",
    "polkit",
    "state-directory",
    "watchdog",
];
/// No test takes longer, whatever is silent.
const AT_MOST: Duration = Duration::from_secs(60);

/// What a test found.
struct Tested {
    ran: Ran,
    found: Value,
}

impl Tested {
    /// Tests the way of this daemon.
    fn of(daemon: &Daemon) -> Self {
        let began = Instant::now();
        let ran = daemon.test(&["--json"]);
        assert!(began.elapsed() < AT_MOST, "took {:?}: {ran:#?}", began.elapsed());
        assert_eq!(ran.stderr, "");
        let found = ran.json();
        let steps: Vec<&str> =
            found["steps"].as_array().unwrap().iter().map(|step| text(&step["step"])).collect();
        assert_eq!(steps, STEPS, "each step has its line, in order");
        assert_eq!(found["exitCode"], ran.code);
        for step in found["steps"].as_array().unwrap() {
            let wants_remedy = ["failed", "warning"].contains(&text(&step["result"]));
            assert_eq!(wants_remedy, step["remedy"].is_string(), "{step}");
            assert!(!text(&step["detail"]).is_empty(), "{step}");
        }
        Tested { ran, found }
    }

    fn step(&self, name: &str) -> &Value {
        let steps = self.found["steps"].as_array().unwrap();
        steps.iter().find(|step| step["step"] == name).unwrap()
    }

    /// The step went like this, and says this with its remedy.
    #[track_caller]
    fn is(&self, step: &str, result: &str, words: &str) {
        let found = self.step(step);
        assert_eq!(found["result"], result, "{step}: {:#?}", self.ran.stdout);
        let said = format!("{}: {}", text(&found["detail"]), found["remedy"].as_str().unwrap_or_default());
        assert!(said.contains(words), "no {words:?} in {said:?}");
    }

    /// Of the steps to the twin this one failed, with these words, those before are
    /// fine and those after were not tried.
    #[track_caller]
    fn fails_at(&self, step: &str, words: &str) {
        self.is(step, "failed", words);
        let way = &STEPS[..10];
        let at = way.iter().position(|name| *name == step).unwrap();
        for (place, name) in way.iter().enumerate().filter(|(place, name)| *place != at && **name != "clock")
        {
            let result = text(&self.step(name)["result"]);
            assert!(result == "skipped" || (place < at && result == "ok"), "{name}: {:#?}", self.ran);
        }
        assert_eq!((self.ran.code, text(&self.found["result"])), (1, "failed"));
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// Sends the daemon to this host and port, in place of its hub's.
fn send_to(daemon: &Daemon, hub: &Hub, place: &str) {
    let string = hub.device_connection_string();
    let (rest, _) = string.split_once(";GatewayHostName=").unwrap();
    daemon.write_connection_string(&format!("{rest};GatewayHostName={place}"));
}

/// The test of a daemon that is sent to `server`.
fn tested_with(hub: &Hub, server: &Server) -> Tested {
    let daemon = Daemon::simulating(hub);
    send_to(&daemon, hub, &format!("localhost:{}", server.port));
    if server.ca_file().exists() {
        daemon.configure(&format!("hub.ca_file = {:?}\n", server.ca_file()));
    }
    Tested::of(&daemon)
}

#[test]
fn an_open_way_is_found_open_and_nothing_is_left_behind() {
    let hub = Hub::start();
    let daemon = Daemon::simulating(&hub);
    let tested = Tested::of(&daemon);
    assert_eq!(tested.ran.code, 0, "{:#?}", tested.ran);
    assert_eq!(tested.found["daemonRuns"], false);
    assert_eq!((text(&tested.found["hub"]), text(&tested.found["device"])), ("localhost", "gw1"));
    for step in ["configuration", "name", "tcp", "tls", "connack", "twin", "state-directory"] {
        assert_eq!(tested.step(step)["result"], "ok", "{step}: {:#?}", tested.ran);
    }
    tested.is("proxy", "skipped", "none is configured");
    tested.is("logind", "skipped", "simulate");
    tested.is("tls", "ok", "TLS 1.3 with localhost:");
    let chain = tested.step("tls")["chain"].as_array().unwrap();
    assert_eq!(chain[0]["subject"], "CN=localhost");
    assert!(text(&chain[0]["issuer"]).starts_with("CN=iotdm-emulator CA"), "{chain:?}");
    assert!(chain[0]["daysLeft"].as_i64().unwrap() > 300, "{chain:?}");
    assert_eq!(tested.step("tcp")["connections"][0]["connects"], true);
    // Over MQTT the hub tells no time.
    tested.is("clock", "warning", "it lies within the validity of the hub's certificate");
    assert!(!daemon.state_dir().exists(), "nothing is made");
    assert_eq!(hub.twin()["connectionState"], "Disconnected");
    assert_eq!(hub.reported().get("agent"), None, "nothing is reported");

    // For people: a line for each step, and nothing else.
    let lines = daemon.test(&[]);
    lines.ends(0, &[]);
    let steps: Vec<&str> = lines.stdout.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(steps, STEPS);
    assert!(
        lines.stdout.contains("connack          ok       localhost takes gw1, with its key in "),
        "{lines:#?}"
    );
}

#[test]
fn a_websocket_through_a_proxy_is_tried_and_tells_the_hubs_time() {
    let hub = Hub::start();
    let daemon = Daemon::simulating(&hub);
    let proxy = proxy(Some("me:secret"));
    send_to(&daemon, &hub, &format!("localhost:{}", hub.https_port));
    let configure = |user: &str| {
        daemon.configure(&format!(
            "hub.transport = \"websocket\"\nhub.proxy = \"http://{user}{}\"\n",
            proxy.address
        ));
    };
    configure("me:secret@");
    let tested = Tested::of(&daemon);
    assert_eq!(tested.ran.code, 0, "{:#?}", tested.ran);
    tested.is("name", "ok", "127.0.0.1, the proxy, is 127.0.0.1");
    tested.is("proxy", "ok", &format!("{} connects to localhost:{}", proxy.address, hub.https_port));
    for step in ["tcp", "tls", "websocket", "clock", "connack", "twin"] {
        assert_eq!(tested.step(step)["result"], "ok", "{step}: {:#?}", tested.ran);
    }
    assert!(tested.step("clock")["aheadSeconds"].as_i64().unwrap().abs() < 30);
    assert!(!tested.ran.stdout.contains("secret"));

    configure("");
    Tested::of(&daemon)
        .fails_at("proxy", "wants a user and a password (407 Proxy Authentication Required): give those");
    assert_eq!(proxy.asked.lines().len(), 2, "each test asks once");
}

#[test]
fn what_has_to_be_mended_in_a_text_is_78_and_what_is_missing_is_1() {
    let hub = Hub::start();
    let daemon = Daemon::simulating(&hub);
    daemon.configure("hub.keep_alife = \"4m\"\n");
    let tested = Tested::of(&daemon);
    tested.is("configuration", "failed", "keep_alife");
    assert_eq!((tested.ran.code, text(&tested.step("tcp")["result"])), (78, "skipped"));
    daemon.configure("");
    daemon.write_connection_string("HostName=hub;SharedAccessKey=a2V5");
    let tested = Tested::of(&daemon);
    tested.is("configuration", "failed", "lacks DeviceId");
    assert_eq!(tested.ran.code, 78);
    daemon.configure("hub.connection_string_file = \"/nowhere\"\n");
    let tested = Tested::of(&daemon);
    tested.is("configuration", "failed", "/nowhere");
    assert_eq!(tested.ran.code, 1);

    // The daemon would go on without these, and so does the test.
    send_to(&daemon, &hub, &format!("localhost:{}", hub.mqtt_port));
    daemon.configure("hub.ca_file = \"/no-ca\"\n");
    let tested = Tested::of(&daemon);
    tested.is("configuration", "failed", "cannot read ca_file /no-ca");
    tested.is("tls", "failed", "of a CA that this machine does not trust");
    assert_eq!(tested.ran.code, 1);
    daemon.test(&["--check-config"]).ends(2, &["--check-config"]);
}

#[test]
fn a_name_that_nobody_knows_and_a_port_that_refuses() {
    let hub = Hub::start();
    let daemon = Daemon::simulating(&hub);
    send_to(&daemon, &hub, "no-such-hub.invalid:8883");
    Tested::of(&daemon).fails_at("name", "no-such-hub.invalid");
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    send_to(&daemon, &hub, &format!("localhost:{free}"));
    let tested = Tested::of(&daemon);
    tested.fails_at("tcp", "refuses it: check the port in the connection string");
    assert_eq!(tested.step("tcp")["connections"][0]["connects"], false);
    send_to(&daemon, &hub, &format!("localhost:{}", hub.mqtt_port));
    daemon.configure(&format!("hub.proxy = \"http://127.0.0.1:{free}\"\n"));
    Tested::of(&daemon).fails_at("tcp", "refuses it: check hub.proxy, and that the proxy runs");
    // A proxy that is none, and one that cannot reach the hub.
    daemon.configure(&format!("hub.proxy = \"http://localhost:{}\"\n", hub.mqtt_port));
    Tested::of(&daemon).fails_at("proxy", "");
    send_to(&daemon, &hub, &format!("localhost:{free}"));
    daemon.configure(&format!("hub.proxy = \"http://{}\"\n", proxy(None).address));
    Tested::of(&daemon).fails_at("proxy", "cannot reach localhost:");
}

#[test]
fn a_server_that_cannot_be_trusted_fails_at_tls_and_shows_its_certificate() {
    let hub = Hub::start();
    let expired = Server::start(
        |params| params.not_after = rcgen::date_time_ymd(2020, 1, 2),
        |mut client| client.listen(),
    );
    let tested = tested_with(&hub, &expired);
    tested.fails_at("tls", "has expired, by this machine's clock; it showed ");
    tested.is("tls", "failed", "expired on 2020-01-02T00:00:00.000Z");
    tested.is("tls", "failed", ": check the clock");
    tested.is("clock", "warning", "one of the two is wrong");
    assert!(tested.step("tls")["chain"][0]["daysLeft"].as_i64().unwrap() < -2000);
    let future = Server::start(
        |params| {
            params.not_before = rcgen::date_time_ymd(2090, 1, 1);
            params.not_after = rcgen::date_time_ymd(2091, 1, 1);
        },
        |mut client| client.listen(),
    );
    tested_with(&hub, &future).fails_at("tls", "valid only from 2090-01-01");
    let other = Server::named("other", |mut client| client.listen());
    tested_with(&hub, &other).fails_at("tls", ": check the hub's name in the connection string");
    let stranger = Server::start(|_| {}, |mut client| client.listen());
    std::fs::copy(hub.ca_file(), stranger.ca_file()).unwrap();
    let tested = tested_with(&hub, &stranger);
    tested.fails_at("tls", ": if it should, name the CA's certificate in hub.ca_file");
    tested.is("tls", "failed", &format!("signed by CN={}", stranger.ca_file().parent().unwrap().display()));
    // As OpenSSL ends the handshake of a client that wants 1.2 or 1.3.
    let old = Server::plain(|mut stream| {
        let _ = stream.read(&mut [0; 2048]);
        let _ = stream.write_all(&[21, 3, 2, 0, 2, 2, 70]);
    });
    tested_with(&hub, &old).fails_at("tls", "it does not speak TLS 1.2 or 1.3");
    let web = Server::plain(|mut stream| {
        let _ = stream.read(&mut [0; 2048]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    tested_with(&hub, &web)
        .fails_at("tls", "what answers there does not speak TLS: check that this is the hub's TLS port");
    // One that is accepted, but not for long.
    let soon = Server::start(
        |params| {
            let day = Duration::from_secs(24 * 60 * 60);
            params.not_after = (std::time::SystemTime::now() + day * 3).into();
        },
        |mut client| client.answer(&[0x20, 2, 0, 5]),
    );
    tested_with(&hub, &soon).is("tls", "warning", "2 days left");
}

#[test]
fn a_hub_that_says_no_fails_at_connack_with_its_code() {
    let hub = Hub::start();
    for (talk, words) in [
        (
            (|mut client: Client| client.answer(&[0x20, 2, 0, 1])) as fn(Client),
            "(CONNACK 1, protocol version refused)",
        ),
        (|mut client| client.answer(&[0x20, 2, 0, 2]), "(CONNACK 2, client id refused)"),
        (|mut client| client.answer(&[0x20, 2, 0, 3]), "(CONNACK 3, server unavailable): wait"),
        (
            |mut client| client.answer(&[0x20, 2, 0, 4]),
            "(CONNACK 4, bad user name or password): check its key in ",
        ),
        (|mut client| client.answer(&[0x20, 2, 0, 5]), "(CONNACK 5, not authorized): check its key in "),
        (|mut client| client.answer(&[b'H'; 200]), "sent what is no MQTT packet that a hub sends"),
        (|client| client.close(), "closed the connection: check that this is a hub"),
    ] {
        let server = Server::start(|_| {}, talk);
        tested_with(&hub, &server).fails_at("connack", words);
    }
    // A wrong key is refused by a hub as well.
    let daemon = Daemon::simulating(&hub);
    let right = hub.device_connection_string();
    let (before, rest) = right.split_once("SharedAccessKey=").unwrap();
    let after = rest.split_once(';').map_or("", |(_, after)| after);
    daemon.write_connection_string(&format!("{before}SharedAccessKey=d3Jvbmc=;{after}"));
    let tested = Tested::of(&daemon);
    tested.fails_at("connack", "CONNACK 5, not authorized): check its key in ");
    assert!(!tested.ran.stdout.contains("d3Jvbmc="));
}

#[test]
fn a_twin_that_is_not_given_fails_at_the_twin() {
    let hub = Hub::start();
    let server = Server::start(
        |_| {},
        |mut client| {
            let _ = client.packet();
            client.say(&[0x20, 2, 0, 0]);
            let Some((_, subscribe)) = client.packet() else { return };
            client.say(&[0x90, 3, subscribe[0], subscribe[1], 0x80]);
            client.listen();
        },
    );
    tested_with(&hub, &server).fails_at("twin", "refused a subscription");
    let server = Server::start(
        |_| {},
        |mut client| {
            if client.accept().is_some() {
                client.close();
            }
        },
    );
    tested_with(&hub, &server).fails_at("twin", "closed the connection: try again");
}

#[test]
fn whoever_is_silent_is_given_up_in_time() {
    let hub = Hub::start();
    let silent = || Server::plain(|mut stream| while matches!(stream.read(&mut [0; 2048]), Ok(1..)) {});
    std::thread::scope(|scope| {
        scope.spawn(|| tested_with(&hub, &silent()).fails_at("tls", "does not answer"));
        scope.spawn(|| {
            let daemon = Daemon::simulating(&hub);
            let proxy = silent();
            daemon.configure(&format!("hub.proxy = \"http://localhost:{}\"\n", proxy.port));
            Tested::of(&daemon)
                .fails_at("proxy", "does not answer: check hub.proxy, and what the proxy's log says");
        });
        scope.spawn(|| {
            let server = Server::start(|_| {}, |mut client| client.listen());
            tested_with(&hub, &server).fails_at("connack", "does not answer: check that this is a hub");
        });
        scope.spawn(|| {
            let server = Server::start(
                |_| {},
                |mut client| {
                    client.accept();
                    client.listen();
                },
            );
            tested_with(&hub, &server).fails_at("twin", "does not answer about the twin");
        });
    });
}

#[test]
fn a_running_daemon_keeps_its_connection_and_is_asked_for_the_rest() {
    let hub = Hub::start();
    let mut daemon = Daemon::simulating(&hub);
    daemon.start_connected(&hub);
    for _ in 0..3 {
        let tested = Tested::of(&daemon);
        assert_eq!(tested.ran.code, 0, "{:#?}", tested.ran);
        assert_eq!(tested.found["daemonRuns"], true);
        tested.is("tls", "ok", "TLS 1.3");
        tested.is("connack", "ok", "is connected to localhost as gw1 since ");
        tested.is("twin", "ok", "the hub last acknowledged the daemon at ");
    }
    assert_eq!(hub.invoke("rebootDevice", r#"{"check":true}"#).0, 200);
    assert_eq!(daemon.notified.count("STATUS=not connected"), 0, "{:?}", daemon.notified.lines());
    // Another way for the test alone: the daemon has read its settings before.
    send_to(&daemon, &hub, "localhost:1");
    let tested = Tested::of(&daemon);
    tested.is("tcp", "failed", "refuses it");
    tested.is("connack", "ok", "is connected to localhost as gw1 since ");
    assert_eq!(tested.ran.code, 1);

    // A daemon that was killed has left its word behind.
    send_to(&daemon, &hub, &format!("localhost:{}", hub.mqtt_port));
    daemon.kill();
    assert!(daemon.runtime_dir().join("status.json").exists());
    let tested = Tested::of(&daemon);
    assert_eq!((tested.ran.code, &tested.found["daemonRuns"]), (0, &Value::Bool(false)));
    tested.is("connack", "ok", "localhost takes gw1");
}

#[test]
fn the_way_of_a_module_is_tried_beside_its_device() {
    let hub = Hub::start();
    let mut application = Daemon::simulating(&hub);
    application.start_connected(&hub);
    let mut daemon = Daemon::simulating(&hub);
    hub.ctl(&["device", "create", "gw1", "--module", "iotdm"]).ends(0, &[]);
    let string = hub.file("devices/gw1~iotdm");
    daemon.write_connection_string(string.trim());
    let tested = Tested::of(&daemon);
    assert_eq!(tested.ran.code, 0, "{:#?}", tested.ran);
    assert_eq!((text(&tested.found["device"]), text(&tested.found["module"])), ("gw1", "iotdm"));
    tested.is("connack", "ok", "localhost takes gw1/iotdm, with its key in ");
    tested.is("twin", "ok", "read");

    // A module's daemon keeps its connection as well, and so do all others.
    daemon.start();
    daemon.notified.wait_for("STATUS=connected to localhost as gw1/iotdm");
    let connected = hub.log.count("device connected");
    let tested = Tested::of(&daemon);
    assert_eq!(tested.ran.code, 0, "{:#?}", tested.ran);
    assert_eq!(tested.found["daemonRuns"], true);
    tested.is("connack", "ok", "is connected to localhost as gw1/iotdm since ");
    // A test of the device asks the device's daemon, and none of a module's.
    let tested = Tested::of(&application);
    tested.is("connack", "ok", "is connected to localhost as gw1 since ");
    assert_eq!(hub.log.count("device connected"), connected);
    for daemon in [&application, &daemon] {
        assert_eq!(daemon.notified.count("STATUS=not connected"), 0, "{:?}", daemon.notified.lines());
    }
    assert!(daemon.stop().success());

    // One that the hub does not have.
    daemon.write_connection_string(&string.trim().replace("ModuleId=iotdm", "ModuleId=other"));
    let tested = Tested::of(&daemon);
    tested.fails_at("connack", "has a module other there");
    assert_eq!(application.notified.count("STATUS=not connected"), 0);
}

#[test]
fn a_running_daemon_that_is_not_connected_says_why_in_place_of_the_test() {
    let hub = Hub::start();
    let mut daemon = Daemon::simulating(&hub);
    hub.ctl(&["device", "disable", "gw1"]).ends(0, &[]);
    daemon.start();
    daemon.notified.wait_for("STATUS=not connected");
    let tested = Tested::of(&daemon);
    tested.fails_at("connack", "is not connected: localhost:");
    tested.is("connack", "failed", "(CONNACK 5, not authorized): it tries again at ");
    assert!(daemon.stop().success());

    // One that says nothing, as of an earlier version: the test does not log in.
    hub.ctl(&["device", "enable", "gw1"]).ends(0, &[]);
    daemon.start_connected(&hub);
    std::fs::remove_file(daemon.runtime_dir().join("status.json")).unwrap();
    let tested = Tested::of(&daemon);
    assert_eq!(tested.found["daemonRuns"], true);
    tested.is("connack", "skipped", "whose connection this test would take");
    assert_eq!(tested.ran.code, 0);
    assert_eq!(daemon.notified.count("STATUS=not connected"), 0, "{:?}", daemon.notified.lines());
}

#[test]
fn a_provisioned_device_is_told_from_a_configured_one() {
    let hub = Hub::start();
    let mut daemon = Daemon::simulating(&hub);
    daemon.forget_connection_string();
    let key = daemon.runtime_dir().with_file_name("device.key");
    let scope = hub.emulator(&["enrol", "gw1", "--out", key.to_str().unwrap()]);
    let configure = |id: &str| {
        daemon.configure(&format!(
            "[provisioning]\nid_scope = {:?}\nregistration_id = {id:?}\nglobal_endpoint = \"localhost:{}\"\n\
             symmetric_key_file = {key:?}\n",
            scope.trim(),
            hub.mqtt_port
        ));
    };
    configure("gw2");
    Tested::of(&daemon).fails_at("provisioning", "refused gw2");
    configure("gw1");
    let tested = Tested::of(&daemon);
    tested.is("provisioning", "ok", "the service assigns it to localhost");
    tested.is("twin", "ok", "read");
    assert!(!daemon.state_dir().join("assignment.json").exists(), "nothing is kept");
    // A daemon that has no hub yet asks the service itself.
    std::fs::create_dir_all(daemon.state_dir()).unwrap();
    let held = std::fs::File::open(daemon.state_dir()).unwrap();
    held.try_lock().unwrap();
    let tested = Tested::of(&daemon);
    tested.is("provisioning", "skipped", "a daemon runs with this state directory and asks");
    tested.is("connack", "skipped", "has to be known first");
    drop(held);
    daemon.start_connected(&hub);
    let tested = Tested::of(&daemon);
    tested.is("provisioning", "ok", "assignment.json says");
    tested.is("connack", "ok", "is connected to localhost");
    assert!(daemon.stop().success());
}

#[test]
fn what_stands_between_the_daemon_and_a_reboot_is_told() {
    let hub = Hub::start();
    let bus = Bus::start();
    let daemon = Daemon::with_logind(&hub, &bus);
    let tested = Tested::of(&daemon);
    tested.is("logind", "failed", "see systemctl status dbus systemd-logind");
    tested.is("polkit", "skipped", "cannot be asked");
    assert_eq!(tested.ran.code, 1);
    let logind = bus.logind();
    let tested = Tested::of(&daemon);
    tested.is("logind", "ok", "CanReboot says \"yes\"");
    tested.is("polkit", "ok", "may reboot the machine");
    tested.is("clock", "warning", "systemd-timedated does not call it synchronised");
    assert_eq!(tested.ran.code, 0);
    for answer in ["challenge", "no"] {
        *logind.can_reboot.lock().unwrap() = answer.to_owned();
        let tested = Tested::of(&daemon);
        tested.is("logind", "ok", answer);
        tested.is("polkit", "failed", "/usr/share/polkit-1/rules.d/50-iotdm.rules");
        assert_eq!(tested.ran.code, 1);
    }
    *logind.can_reboot.lock().unwrap() = "na".to_owned();
    Tested::of(&daemon).is("logind", "failed", "cannot be rebooted");
    *logind.can_reboot.lock().unwrap() = "yes".to_owned();
    let lock = |who: &str| {
        ("shutdown".to_owned(), who.to_owned(), "an upgrade".to_owned(), "block".to_owned(), 0, 1)
    };
    logind.set_inhibitors(vec![lock("apt\u{1b}[2J")]);
    let tested = Tested::of(&daemon);
    tested.is("logind", "warning", "held up by apt\u{fffd}[2J (an upgrade)");
    assert_eq!(tested.ran.code, 0);
    assert_eq!(logind.calls.count("Reboot("), 0);
}

#[test]
fn a_state_directory_that_cannot_be_used_is_told() {
    let hub = Hub::start();
    let mut daemon = Daemon::simulating(&hub);
    daemon.start_connected(&hub);
    assert!(daemon.stop().success());
    let dir = daemon.state_dir();
    let files = || std::fs::read_dir(&dir).unwrap().count();
    let before = files();
    let tested = Tested::of(&daemon);
    assert_eq!((tested.ran.code, files()), (0, before));
    assert!(tested.step("state-directory")["freeBytes"].as_u64().unwrap() > 0);
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o707)).unwrap();
    let tested = Tested::of(&daemon);
    tested.is("state-directory", "failed", "every user may write to it");
    assert_eq!(tested.ran.code, 1);
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).unwrap();
    if chown(&dir, Some(65534), None).is_ok() {
        Tested::of(&daemon).is(
            "state-directory",
            "failed",
            "it is the directory of the user with the number 65534",
        );
        chown(&dir, Some(0), None).unwrap();
    }
    std::fs::remove_dir_all(&dir).unwrap();
    std::fs::write(&dir, "").unwrap();
    Tested::of(&daemon).is("state-directory", "failed", "");
}
