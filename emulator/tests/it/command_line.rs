//! The program as a user starts, sees and stops it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use crate::support::command;
use crate::support::service::Service;
use iotdm_tests::{Hub, Signal};

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
        assert!(home.path().join(expected).join("ca.pem").exists(), "{expected}");
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
