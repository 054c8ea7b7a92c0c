//! What `docs/azure.md` says of policies and of routes, tried.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use iotdm_tests::{Daemon, Hub, Ran, program, wait_until};
use serde_json::Value;

fn page() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/azure.md");
    fs::read_to_string(page).unwrap()
}

/// The rows of the table with this head.
fn rows(page: &str, head: &str) -> Vec<Vec<String>> {
    let table = page.lines().skip_while(|line| !line.starts_with(head)).skip(2);
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    table.take_while(|line| line.starts_with('|')).map(cells).collect()
}

/// The words of a command line; what stands in double quotes is one word.
fn words(line: &str) -> Vec<String> {
    let pieces = line.split('"').enumerate();
    let words = pieces.flat_map(|(n, piece)| match n % 2 {
        0 => piece.split_whitespace().map(str::to_owned).collect(),
        _ => vec![piece.to_owned()],
    });
    words.collect()
}

#[test]
fn each_command_needs_the_policy_that_the_page_names_and_no_other() {
    const POLICIES: [&str; 3] = ["service", "registryRead", "registryReadWrite"];
    let page = page();
    let head = format!("| example | `{}` |", POLICIES.join("` | `"));
    let rows = rows(&page, &head);
    assert!(rows.len() > 15, "{rows:?}");
    for row in rows {
        // Each has a hub of its own, which an earlier one has not changed.
        let hub = Hub::start();
        for (policy, cell) in POLICIES.iter().zip(&row[1..]) {
            let line = words(row[0].trim_matches('`'));
            let ran: Ran = Command::new(program("iotdm-ctl"))
                .arg("--connection-string-file")
                .arg(hub.data().join("policies").join(policy))
                .arg("--ca-file")
                .arg(hub.ca_file())
                .args(&line)
                .stdin(Stdio::null())
                .output()
                .unwrap()
                .into();
            assert_ne!(ran.code, 2, "{line:?}: {ran:#?}");
            assert_eq!(ran.code != 8, cell == "yes", "{line:?} with {policy}: {ran:#?}");
        }
    }
}

/// Lets the pretended machine lose its power: the next boot is another, and none was
/// shut down for it.
fn lose_power(daemon: &mut Daemon, boot: &str) {
    daemon.kill();
    let file = daemon.state_dir().join("simulated-boot.json");
    fs::write(file, format!(r#"{{"bootId":"{boot}","bootTime":null}}"#)).unwrap();
}

#[test]
fn the_second_power_loss_in_a_row_is_an_event_like_the_first() {
    let page = page();
    let queries = rows(&page, "| alert | routing query |");
    assert!(queries.iter().any(|row| row[1] == "`$body.properties.reported.boot.cause = 'unclean'`"));
    let hub = Hub::start();
    let mut daemon = Daemon::simulating(&hub);
    daemon.start_connected(&hub);
    let mut events = Command::new(program("iotdm-emulator"));
    events.args(["events", "gw1", "--twin-changes", "--data"]).arg(hub.data());
    let mut events = events.stdout(Stdio::piped()).spawn().unwrap();
    let mut bodies = BufReader::new(events.stdout.take().unwrap())
        .lines()
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap_or_default());
    for boot in ["a1111111", "a2222222"] {
        lose_power(&mut daemon, boot);
        daemon.start();
        wait_until("the boot", || hub.reported()["boot"]["bootId"] == boot);
        let event = bodies.find(|event| event.to_string().contains(boot)).unwrap();
        assert!(event.to_string().contains(r#""cause":"unclean""#), "{event}");
    }
    events.kill().unwrap();
    events.wait().unwrap();
    let sql = "SELECT deviceId FROM devices WHERE properties.reported.boot.cause = 'unclean'";
    assert!(page.contains(sql));
    assert!(hub.ctl(&["query", sql]).stdout.contains("gw1"));
}
