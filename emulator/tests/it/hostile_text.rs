//! Text of strangers reaches no terminal, shell or log as it came.

use std::os::unix::fs::FileTypeExt;
use std::process::Stdio;

use iotdm_proto::sas;
use iotdm_tests::Hub;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::time::timeout;

use crate::support::device::{Device, hello_with};
use crate::support::service::Service;
use crate::support::{DEADLINE, command};

/// A title for a terminal, its C1 twin, a colour, words from right to left, a
/// space without width, and a line that poses as another one.
const HOSTILE: &str = "a\u{1b}]0;x\u{7}\u{9b}2J\u{7f}\u{202e}b\u{200b}\u{feff}\nready mqtts=c\r";

fn is_harmless(text: &str) {
    for c in text.chars() {
        let hidden = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        assert!(!hidden && (c == '\n' || !c.is_control()), "{c:?} in {text:?}");
    }
}

#[tokio::test]
async fn events_shows_what_devices_send_without_their_control_characters() {
    let hub = Hub::start();
    let mut events = command();
    events.args(["events", "--count", "2", "--data"]).arg(hub.data());
    let mut events = events.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(events.stderr.take().unwrap()).lines();
    timeout(DEADLINE, stderr.next_line()).await.unwrap().unwrap().expect("it listens");
    let mut device = Device::connect(&hub, "gw1").await;
    device.publish("devices/gw1/messages/events/", &json!({ "said": HOSTILE }).to_string()).await;
    device.publish(&format!("devices/gw1/messages/events/k={}", sas::encoded(HOSTILE)), HOSTILE).await;
    let mut shown = String::new();
    let stdout = events.stdout.as_mut().unwrap();
    timeout(DEADLINE, stdout.read_to_string(&mut shown)).await.unwrap().unwrap();
    is_harmless(&shown);
    let lines: Vec<Value> = shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [first, second] = &lines[..] else { panic!("{shown}") };
    assert_eq!(first["body"]["said"], HOSTILE, "it is still what was said");
    assert_eq!((&second["body"], &second["properties"]["k"]), (&json!(HOSTILE), &json!(HOSTILE)));
}

#[tokio::test]
async fn the_log_has_one_line_for_each_event_whoever_speaks() {
    let mut hub = Hub::start_with(&["-v"]);

    // Who it says it is, and what it says.
    Device::say_hello(&hub, hello_with(HOSTILE, HOSTILE)).await;
    let mut connect = hello_with("gw1", "x");
    connect.login.as_mut().unwrap().username = HOSTILE.to_owned();
    Device::say_hello(&hub, connect).await;
    let scope = hub.file("id-scope").trim().to_owned();
    let mut connect = hello_with("gw1", "x");
    connect.login.as_mut().unwrap().username = format!("{scope}/registrations/{HOSTILE}/api-version=1");
    Device::say_hello(&hub, connect).await;
    let mut device = Device::connect(&hub, "gw1").await;
    device.publish("devices/gw1/messages/events/", HOSTILE).await;
    device.publish("$iothub/twin/PATCH/properties/reported/?$rid=1", HOSTILE).await;
    device.publish_without_waiting(&format!("x/{HOSTILE}"), "").await;
    device.expect_close().await;
    let service = Service::owner(&hub);
    service.get(&format!("/twins/{}", sas::encoded(HOSTILE))).await;
    service.get("/nowhere/\u{9b}2J\u{202e}").await;

    assert_eq!(hub.signal(Signal::SIGTERM), Some(0));
    hub.log.wait_for("stopping on SIGTERM");
    let log = hub.log.lines();
    for line in &log {
        is_harmless(line);
        assert!(line.starts_with("20"), "no instant, so part of another line: {line:?}");
    }
    for expected in ["refused a CONNECT", "device -> hub", "service -> hub", "device disconnected"] {
        assert!(log.iter().any(|line| line.contains(expected)), "no {expected:?} in {log:#?}");
    }
}

#[tokio::test]
async fn what_a_hub_says_is_printed_without_its_control_characters() {
    let hub = Hub::start();
    let data = hub.data().to_str().unwrap();
    for arguments in [
        &["fault", "set", HOSTILE, "drop-link"][..],
        &["env", "--device", HOSTILE],
        &["serve", "--host", HOSTILE],
        &["events", HOSTILE],
        &["send", "gw1", "x", "--property", HOSTILE],
        &["enrol", "gw2", "--out", HOSTILE],
        &["enrol", "gw2", "--certificate", HOSTILE],
        &["serve", "--x509-ca", HOSTILE],
        &[HOSTILE],
    ] {
        let mut command = command();
        command.args(arguments);
        if arguments.len() > 1 {
            command.args(["--data", data]);
        }
        command.current_dir(hub.data());
        let output = command.output().await.unwrap();
        is_harmless(&String::from_utf8(output.stderr).unwrap());
        is_harmless(&String::from_utf8(output.stdout).unwrap());
    }
}

#[tokio::test]
async fn a_key_is_written_over_no_device_pipe_or_link() {
    let hub = Hub::start();
    let dir = tempfile::tempdir().unwrap();
    let data = hub.data().to_str().unwrap();
    let (pipe, link, target) = (dir.path().join("pipe"), dir.path().join("link"), dir.path().join("target"));
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    std::os::unix::fs::symlink(&target, &link).unwrap();
    for out in [pipe.as_path(), &link, dir.path(), "-".as_ref()] {
        let mut command = command();
        command.args(["enrol", "gw2", "--data", data, "--out"]).arg(out).current_dir(dir.path());
        let output = command.output().await.unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{out:?}: {error}");
        assert!(error.contains("--out"), "{error}");
    }
    assert!(std::fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
    assert!(std::fs::symlink_metadata(&link).unwrap().file_type().is_symlink() && !target.exists());
    // Nothing was enrolled whose key would be lost.
    let owner = Service::with_policy(&hub, "provisioningserviceowner");
    owner.get("/enrollments/gw2").await.refused_by_provisioning(404, 404_201, "gw2");
}
