//! What the manual page says beside the help texts, held against the program.

use std::fs;
use std::path::Path;
use std::process::Command;

use clap::ValueEnum as _;
use iotdm_ctl::exit::Exit;
use serde_json::{Value, json};

use crate::common::{FakeHub, HttpResponse};

fn page() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/manual/iotdm-ctl.txt");
    fs::read_to_string(file).unwrap()
}

/// The lines below a heading of the page.
fn section(page: &str, heading: &str) -> String {
    let (_, rest) = page.split_once(&format!("{heading}:\n")).unwrap();
    let is_heading = |line: &&str| !line.starts_with(' ') && line.ends_with(':');
    rest.lines().take_while(|line| !is_heading(line)).map(|line| format!("{line}\n")).collect()
}

#[test]
fn each_exit_code_has_its_troubleshooting() {
    let troubleshooting = section(&page(), "Troubleshooting");
    for exit in Exit::value_variants().iter().filter(|exit| **exit != Exit::Done) {
        let begin = format!("  {:<5}", exit.code());
        assert!(troubleshooting.lines().any(|line| line.starts_with(&begin)), "{exit:?}");
    }
}

#[test]
fn each_variable_is_on_the_page() {
    let environment = section(&page(), "Environment");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/target/environment.rs");
    let source = fs::read_to_string(source).unwrap();
    let heeded: Vec<&str> = ["text(\"", "path(\""]
        .iter()
        .flat_map(|call| source.split(call).skip(1))
        .filter_map(|rest| rest.split('"').next())
        .collect();
    assert!(heeded.len() >= 10, "{heeded:?}");
    for name in heeded.into_iter().chain(["HTTPS_PROXY", "NO_PROXY", "NO_COLOR", "COMPLETE"]) {
        assert!(environment.contains(name), "{name}");
    }
}

/// Two devices, of which one has rebooted and one has failed to.
fn hub() -> FakeHub {
    let twin = |id: &str, connection: &str, reboot: Value| {
        json!({
            "deviceId": id, "connectionState": connection, "tags": {"site": "north"}, "etag": "E=",
            "properties": {"desired": {}, "reported": {
                "rebootTime": "T", "reboot": reboot, "boot": {"cause": "requested"}, "agent": {"version": "1.0.0"},
            }},
        })
    };
    let done = twin("gw1", "Connected", json!({"id": "r", "status": "completed"}));
    let failed =
        json!({"id": "r", "status": "failed", "error": {"code": "neverWentDown", "message": "it stayed up"}});
    let failed = twin("gw2", "Disconnected", failed);
    FakeHub::start(move |request, _| match request.path.as_str() {
        "/devices/query" => HttpResponse::ok(json!([done, failed])),
        "/twins/gw1" => HttpResponse::ok(done.clone()),
        "/twins/gw2" => HttpResponse::ok(failed.clone()),
        _ => HttpResponse::reply(
            423,
            json!({"error": {"code": "blockedByInhibitor", "message": "apt holds it"}}),
        ),
    })
}

#[test]
fn the_questions_with_jq_have_their_answers() {
    let hub = hub();
    let program = env!("CARGO_BIN_EXE_iotdm-ctl");
    let options = format!(
        "{program} --connection-string-file {} --ca-file {}",
        hub.path("connection-string").display(),
        hub.path("ca.pem").display()
    );
    let page = page();
    let questions = section(&page, "Questions with jq");
    let lines: Vec<&str> = questions.lines().filter(|line| line.contains("| jq ")).collect();
    let answers = [
        "gw2\n",
        "{\n  \"completed\": 1,\n  \"failed\": 1\n}\n",
        "gw2\tneverWentDown\tit stayed up\n",
        "T\t1.0.0\n",
        "gw1\ngw2\n",
        "gw1\tnorth\ngw2\tnorth\n",
    ];
    assert_eq!(lines.len(), answers.len(), "{lines:#?}");
    for (line, answer) in lines.into_iter().zip(answers) {
        let line = line.trim().replacen("iotdm-ctl", &options, 1);
        let run = Command::new("bash")
            .args(["-c", &line])
            .env("XDG_STATE_HOME", hub.path("state"))
            .output()
            .unwrap();
        let mut found: Vec<&str> = std::str::from_utf8(&run.stdout).unwrap().lines().collect();
        if line.contains(" reboot ") {
            found.sort_unstable();
        }
        assert_eq!(found.join("\n") + "\n", answer, "{line}: {}", String::from_utf8_lossy(&run.stderr));
    }
}
