//! The program as a user starts, sees and stops it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Arc;

use crate::support::device::Device;
use crate::support::raw::{expect, packet, string};
use crate::support::service::Service;
use crate::support::{DEADLINE, command, now};
use iotdm_proto::{DeviceAuth, DeviceConnectionString, ServiceConnectionString, sas};
use iotdm_tests::{Hub, Signal};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

async fn run(arguments: &[&str]) -> Output {
    command().args(arguments).output().await.unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test]
async fn a_reader_that_leaves_is_no_failure() {
    let hub = Hub::start();
    for arguments in [&["trust"][..], &["env"], &["health"], &["browse"], &["fault", "list"], &["events"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = command();
        command.args(arguments).arg("--data").arg(hub.data()).stdout(writer).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        // The copy of the pipe that this process has, and what `events` waits for.
        drop(command);
        let happens = async {
            loop {
                let mut device = Device::connect(&hub, "gw1").await;
                device.publish("devices/gw1/messages/events/", "x").await;
            }
        };
        let output = tokio::select! {
            output = timeout(DEADLINE, child.wait_with_output()) => output.unwrap().unwrap(),
            () = happens => unreachable!(),
        };
        let said = stderr(&output);
        assert!(output.status.success() && !said.contains("panicked"), "{arguments:?}: {said}");
    }
}

#[tokio::test]
async fn a_place_that_cannot_be_written_to_is_named_with_the_remedy() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let below = |name: &str| file.path().join(name);
    for (variable, value) in
        [("HOME", below("")), ("XDG_STATE_HOME", below("state")), ("HOME", "relative".into())]
    {
        let mut command = command();
        command.env_remove("HOME").env_remove("XDG_STATE_HOME").env(variable, value);
        let output = command.args(["serve", "--mqtt-port", "0", "--https-port", "0"]).output().await.unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("--data") && said.lines().count() == 1, "{said}");
    }
}

#[tokio::test]
async fn nothing_in_the_directory_is_readable_by_others() {
    let hub = Hub::start();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(hub.data()), 0o700);
    let files =
        ["ca.pem", "id-scope", "service-connection-string", "store.redb", "devices/gw1", "policies/service"];
    for file in files {
        assert_eq!(mode(&hub.data().join(file)), 0o600, "{file}");
    }
}

#[tokio::test]
async fn the_strings_have_the_ports_and_keep_their_keys_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::start_in(dir.path(), &["--device", "gw1", "--device", "gw2"]);
    let (device, service, ca) =
        (hub.file("devices/gw1"), hub.file("service-connection-string"), hub.file("ca.pem"));
    assert!(device.starts_with("HostName=localhost;DeviceId=gw1;SharedAccessKey="), "{device}");
    assert!(device.ends_with(&format!(";GatewayHostName=localhost:{}\n", hub.mqtt_port)), "{device}");
    let start = format!("HostName=localhost:{};SharedAccessKeyName=iothubowner;", hub.https_port);
    assert!(service.starts_with(&start), "{service}");
    assert_eq!(hub.signal(Signal::SIGTERM), Some(0));

    // A file as a kill between two writes leaves behind.
    std::fs::write(dir.path().join("devices/stranger"), "HostName=x\n").unwrap();
    let old_ports = (hub.mqtt_port, hub.https_port);
    let mut hub = Hub::start_in(dir.path(), &["--device", "gw1"]);
    let with_new_ports = |text: &str| {
        text.replace(&format!(":{}", old_ports.0), &format!(":{}", hub.mqtt_port))
            .replace(&format!(":{}", old_ports.1), &format!(":{}", hub.https_port))
    };
    assert_eq!(hub.file("devices/gw1"), with_new_ports(&device));
    assert_eq!(hub.file("service-connection-string"), with_new_ports(&service));
    assert_eq!(hub.file("ca.pem"), ca);
    assert!(dir.path().join("devices/gw2").exists());
    assert!(!dir.path().join("devices/stranger").exists());
    Service::owner(&hub).read("/twins/gw1").await;
    assert_eq!(hub.signal(Signal::SIGINT), Some(0));
}

#[tokio::test]
async fn a_second_emulator_on_the_same_directory_is_told_so() {
    let hub = Hub::start();
    let second = ["serve", "--mqtt-port", "0", "--https-port", "0", "--data", text(hub.data())];
    let output = run(&second).await;
    assert_eq!(output.status.code(), Some(1));
    let error = stderr(&output);
    assert!(error.contains("another emulator") && error.contains("--data"), "{error}");
    assert!(output.stdout.is_empty());
    Service::owner(&hub).read("/twins/gw1").await;
}

#[tokio::test]
async fn a_port_in_use_is_named_with_its_option() {
    let hub = Hub::start();
    let dir = tempfile::tempdir().unwrap();
    let port = hub.mqtt_port.to_string();
    for option in ["--mqtt-port", "--https-port"] {
        let mut arguments =
            vec!["serve", "--mqtt-port", "0", "--https-port", "0", "--data", text(dir.path())];
        let place = arguments.iter().position(|argument| *argument == option).unwrap();
        arguments[place + 1] = &port;
        let output = run(&arguments).await;
        assert_eq!(output.status.code(), Some(1));
        let error = stderr(&output);
        assert!(error.contains(&format!("127.0.0.1:{port}")) && error.contains(option), "{error}");
    }
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let output = run(&["serve", "--data", text(&file.join("hub"))]).await;
    assert_eq!(output.status.code(), Some(1));
    let error = stderr(&output);
    assert!(error.contains(text(&file)) && error.contains("--data"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[tokio::test]
async fn usage_errors_exit_with_2() {
    for arguments in [
        &[][..],
        &["serve", "--mqtt-port", "70000"],
        &["serve", "--device", "a/b"],
        &["serve", "--host", "a b"],
        &["serve", "--nonsense"],
        &["fault", "set", "gw1", "explode"],
        &["fault", "set", "gw1", "refuse-connect", "--code", "6"],
    ] {
        assert_eq!(run(arguments).await.status.code(), Some(2), "{arguments:?}");
    }
}

#[tokio::test]
async fn help_opens_with_what_is_not_emulated() {
    let output = run(&["--help"]).await;
    assert_eq!(output.status.code(), Some(0));
    let help = String::from_utf8(output.stdout).unwrap();
    let (before, after) = help.split_once("NOT emulate").unwrap();
    assert!(before.len() < 120, "{help}");
    for missing in ["AMQP", "TPM", "routes", "cloud-to-device", "Event Hubs", "file upload", "export"] {
        assert!(after.contains(missing), "{missing}");
    }
}

#[tokio::test]
async fn the_environment_makes_other_programs_find_and_trust_it() {
    let hub = Hub::start();
    let data = text(hub.data());
    let output = run(&["env", "--device", "gw1", "--data", data]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let script =
        format!("{lines}\nprintf '%s\\n' \"$IOTHUB_CONNECTION_STRING\" \"$IOTHUB_DEVICE_CONNECTION_STRING\"");
    let shell = tokio::process::Command::new("sh").args(["-c", &script]).output().await.unwrap();
    let expected = hub.file("service-connection-string") + &hub.file("devices/gw1");
    assert_eq!(String::from_utf8(shell.stdout).unwrap(), expected);

    let trust = run(&["trust", "--data", data]).await;
    assert!(String::from_utf8(trust.stdout).unwrap().contains(&format!("curl --cacert '{data}/ca.pem'")));
    for arguments in [&["env", "--data", "/nonexistent"][..], &["trust", "--data", "/nonexistent"]] {
        let error = run(arguments).await;
        assert_eq!(error.status.code(), Some(1));
        assert!(stderr(&error).contains("/nonexistent/ca.pem"), "{error:?}");
    }
    let unknown = run(&["env", "--device", "nobody", "--data", data]).await;
    assert!(unknown.status.code() == Some(1) && stderr(&unknown).contains("nobody"), "{unknown:?}");
}

#[tokio::test]
async fn the_default_directory_is_the_users_state_directory() {
    let home = tempfile::tempdir().unwrap();
    for (variable, value, expected) in [
        ("XDG_STATE_HOME", home.path().join("state"), "state/iotdm-emulator"),
        ("XDG_STATE_HOME", "relative".into(), ".local/state/iotdm-emulator"),
    ] {
        // The port is refused before the emulator serves, but after the directory is made.
        let blocker = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = blocker.local_addr().unwrap().port().to_string();
        let mut command = command();
        command.args(["serve", "--mqtt-port", &port]).env("HOME", home.path()).env(variable, value);
        assert_eq!(command.output().await.unwrap().status.code(), Some(1));
        assert!(home.path().join(expected).join("store.redb").exists(), "{expected}");
    }
}

#[tokio::test]
async fn faults_are_set_listed_and_cleared_from_the_command_line() {
    let hub = Hub::start();
    let data = text(hub.data());
    let fault = async |arguments: &[&str]| {
        let output = run(&[&["fault"], arguments, &["--data", data]].concat()).await;
        (output.status.code(), String::from_utf8(output.stdout.clone()).unwrap(), stderr(&output))
    };
    let done = (Some(0), String::new(), String::new());
    assert_eq!(fault(&["set", "gw1", "withhold-puback", "--count", "3"]).await, done);
    assert_eq!(fault(&["set", "gw1", "refuse-connect", "--code", "3"]).await, done);
    assert_eq!(fault(&["set", "gw1", "delay-method", "--delay", "0.5"]).await, done);
    assert_eq!(fault(&["throttle", "--count", "2"]).await, done);
    let (code, list, _) = fault(&["list"]).await;
    assert_eq!(code, Some(0));
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let expected = serde_json::json!([
        {"deviceId": "gw1", "fault": "withholdPuback", "count": 3},
        {"deviceId": "gw1", "fault": "refuseConnect", "count": 1, "code": 3},
        {"deviceId": "gw1", "fault": "delayMethod", "count": 1, "milliseconds": 500},
        {"fault": "throttleService", "count": 2},
    ]);
    assert_eq!(list, expected);
    assert_eq!(fault(&["clear", "gw1"]).await, done);
    assert_eq!(fault(&["list"]).await.1, "[{\"fault\":\"throttleService\",\"count\":2}]\n");
    assert_eq!(fault(&["clear"]).await, done);
    assert_eq!(fault(&["list"]).await.1, "[]\n");

    let (code, _, error) = fault(&["set", "nobody", "drop-link"]).await;
    assert!(code == Some(1) && error.contains("DeviceNotFound"), "{error}");
    let (code, _, error) = fault(&["set", "gw1", "drop-link"]).await;
    assert!(code == Some(1) && error.contains("not connected"), "{error}");
    let elsewhere = run(&["fault", "list", "--data", "/nonexistent"]).await;
    assert!(stderr(&elsewhere).contains("/nonexistent/service-connection-string"));
}

#[tokio::test]
async fn events_also_tells_of_twins_identities_and_connections() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    let arguments = ["events", "--twin-changes", "--lifecycle", "--count", "9", "--data"];
    let mut events = command();
    events.args(arguments).arg(hub.data()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut events = events.spawn().unwrap();
    let mut said = BufReader::new(events.stderr.take().unwrap()).lines();
    assert_eq!(said.next_line().await.unwrap().unwrap(), "waiting for what devices send");

    let mut device = Device::connect(&hub, "gw1").await;
    device.publish("$iothub/twin/PATCH/properties/reported/?$rid=1", r#"{"a":1}"#).await;
    device.publish("devices/gw1/messages/events/", "hello").await;
    let change = json!({"tags": {"site": "x"}, "properties": {"desired": {"b": 2}}});
    assert_eq!(service.send("PATCH", "/twins/gw1", change).await.status, 200);
    assert_eq!(service.send("PUT", "/devices/gw2", json!({})).await.status, 200);
    assert_eq!(service.send("PUT", "/devices/gw2/modules/m", json!({})).await.status, 200);
    assert_eq!(service.send("DELETE", "/devices/gw2", Value::Null).await.status, 204);
    device.send_bytes(&[0xE0, 0]).await;
    device.expect_close().await;

    let output = timeout(DEADLINE, events.wait_with_output()).await.expect("too few events").unwrap();
    let lines: Vec<Value> = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect();
    let seen: Vec<(&str, &str)> = lines
        .iter()
        .map(|event| {
            (event["deviceId"].as_str().unwrap(), event["properties"]["opType"].as_str().unwrap_or("-"))
        })
        .collect();
    let mut sorted = seen.clone();
    sorted.sort_unstable();
    let mut expected = [
        ("gw1", "deviceConnected"),
        ("gw1", "updateTwin"),
        ("gw1", "-"),
        ("gw1", "updateTwin"),
        ("gw2", "createDeviceIdentity"),
        ("gw2", "createModuleIdentity"),
        ("gw2", "deleteDeviceIdentity"),
        ("gw2", "deleteModuleIdentity"),
        ("gw1", "deviceDisconnected"),
    ];
    expected.sort_unstable();
    assert_eq!(sorted, expected, "{seen:?}");
    let twins: Vec<&Value> = lines
        .iter()
        .filter(|event| event["properties"]["opType"] == "updateTwin")
        .map(|event| &event["body"])
        .collect();
    assert_eq!(twins[0]["properties"], json!({"reported": {"a": 1, "$version": 2}}));
    assert_eq!(twins[1]["properties"], json!({"desired": {"b": 2, "$version": 2}}));
    assert_eq!(twins[1]["tags"], json!({"site": "x"}));
    assert_eq!(lines[0]["systemProperties"]["iothub-message-source"], "deviceConnectionStateEvents");
}

#[tokio::test]
async fn health_is_good_while_it_serves_and_bad_otherwise() {
    // A name that does not resolve here, as that of a container to itself may not.
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("hub");
    let mut hub = Hub::start_in(&data, &["--host", "hub.invalid", "--bind", "0.0.0.0"]);
    let health = async || run(&["health", "--data", text(&data)]).await;
    let good = health().await;
    assert_eq!((good.status.code(), stderr(&good).as_str()), (Some(0), ""));
    let expected = format!("serving mqtts=127.0.0.1:{} https=127.0.0.1:{}\n", hub.mqtt_port, hub.https_port);
    assert_eq!(String::from_utf8(good.stdout).unwrap(), expected);
    hub.kill();
    let bad = health().await;
    assert_eq!(bad.status.code(), Some(1), "{bad:?}");
    let never = run(&["health", "--data", text(dir.path())]).await;
    assert!(never.status.code() == Some(1) && stderr(&never).contains("does an emulator run"), "{never:?}");
}

#[tokio::test]
async fn a_hub_may_have_several_names_and_needs_no_home() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = command();
    command.args(["serve", "--mqtt-port", "0", "--https-port", "0", "--host", "hub", "--host", "localhost"]);
    command.args(["--device", "gw1", "--data"]).arg(dir.path().join("data")).current_dir("/");
    command.env_clear().env("HOME", "/nonexistent").env("TMPDIR", "/nonexistent");
    let mut serving = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(serving.stdout.take().unwrap()).lines();
    let ready = timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap().expect("it ended");
    let port = |key: &str| {
        let address = ready.split_whitespace().find_map(|pair| pair.strip_prefix(key)).unwrap();
        address.rsplit_once(':').unwrap().1.parse::<u16>().unwrap()
    };
    let file = |name: &str| std::fs::read_to_string(dir.path().join("data").join(name)).unwrap();
    assert!(file("devices/gw1").starts_with("HostName=hub;DeviceId=gw1;"));
    // Clients that know it by its other name are let in, by TLS, token and user name.
    let service: ServiceConnectionString = file("service-connection-string").parse().unwrap();
    assert_eq!(service.host_name.to_string(), format!("hub:{}", port("https=")));
    let pem = CertificateDer::from_pem_file(dir.path().join("data/ca.pem")).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(pem).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let tls = tls.with_root_certificates(roots).with_no_client_auth();
    let client =
        reqwest::Client::builder().tls_backend_preconfigured(tls.clone()).no_proxy().build().unwrap();
    for (resource, status) in [("localhost", 200), ("hub", 200), ("other", 401)] {
        let token = sas::sign(resource, &service.key, now() + 60, Some(&service.policy));
        let url = format!("https://localhost:{}/devices/gw1?api-version=2021-04-12", port("https="));
        let answer = client.get(url).header("Authorization", token).send().await.unwrap();
        assert_eq!(answer.status(), status, "{resource}");
    }
    let device: DeviceConnectionString = file("devices/gw1").parse().unwrap();
    let DeviceAuth::Key(key) = device.auth else { panic!("no key") };
    for (name, code) in [("localhost", 0), ("hub", 0), ("other", 5)] {
        let stream = TcpStream::connect(("127.0.0.1", port("mqtts="))).await.unwrap();
        let server = ServerName::try_from(if name == "other" { "hub" } else { name }).unwrap();
        let mut stream = TlsConnector::from(Arc::new(tls.clone())).connect(server, stream).await.unwrap();
        let token = sas::sign(&format!("{name}/devices/gw1"), &key, now() + 60, None);
        let user = format!("{name}/gw1/?api-version=2021-04-12");
        let head = [&string("MQTT")[..], &[4, 0xC2, 0, 60]].concat();
        let connect = packet(0x10, &[&head, &string("gw1"), &string(&user), &string(&token)]);
        stream.write_all(&connect).await.unwrap();
        expect(&mut stream, &[0x20, 2, 0, code]).await;
    }
}
