//! A hub and devices that mean harm: nothing that they say steers a terminal,
//! poses as another line or device, or goes on for ever.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fs, thread};

use clap::CommandFactory as _;
use iotdm_ctl::cli::Cli;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::termios::{LocalFlags, tcgetattr};
use serde_json::{Value, json};

use crate::common::{FakeHub, HttpRequest, HttpResponse, KEY, Ran, ctl};

/// Everything that a word may try: escape sequences of both kinds, line ends of all
/// kinds, and characters that turn or hide what stands around them.
const EVIL: &str = "=x\u{1b}[2J\u{1b}]0;t\u{7}\u{9b}2J\u{9d}0;t\u{9c}\0\u{8}\t\u{7f}\u{85}\u{202e}\u{2066}\u{200f}\
    \u{61c}\u{200b}\u{200d}\u{2060}\u{feff}\u{ad}\u{2028}\u{2029}\u{e0041}\r\ngw10: completed in 6 s, boot id changed";

/// The commands, each with arguments with which it asks the hub or prints
/// something.
const COMMANDS: [&[&str]; 41] = [
    &["reboot", "gw1", "--id", "r-1"],
    &["reboot", "gw1", "--id", "r-1", "--no-wait"],
    &["reboot", "gw1", "--id", "r-1", "--check"],
    &["reboot", "gw1", "--id", "r-1", "--when-online"],
    &["reboot", "gw1", "gw2", "--id", "r-1", "--max-in-flight", "1"],
    &["reboot", "--where", "a = 1", "--yes", "--id", "r-1"],
    &["reboot", "gw1", "gw2", "--id", "r-1", "--job"],
    &["cancel", "gw1"],
    &["cancel", "gw1", "--id", "r-9"],
    &["cancel", "gw1", "gw2"],
    &["cancel", "--where", "a = 1"],
    &["invoke", "gw1", "m"],
    &["twin", "show", "gw1"],
    &["twin", "update", "gw1", "--tags", "{}"],
    &["twin", "replace", "gw1", "--tags", "{}"],
    &["query", "SELECT * FROM devices"],
    &["query", "SELECT deviceId FROM devices"],
    &["query", "--ready-made", "last-reboots"],
    &["status"],
    &["status", "gw1", "gw2"],
    &["status", "gw1"],
    &["history", "gw1"],
    &["device", "create", "gw1"],
    &["device", "create", "--from", "FOLDER/list"],
    &["device", "show", "gw1"],
    &["device", "list"],
    &["device", "enable", "gw1"],
    &["device", "disable", "gw1"],
    &["device", "delete", "gw1", "--yes"],
    &["device", "delete", "gw1", "gw2", "--yes"],
    &["device", "disable", "--from", "FOLDER/list", "--yes"],
    &["device", "renew-key", "gw1"],
    &["device", "connection-string", "gw1"],
    &["job", "list"],
    &["job", "show", "r-1"],
    &["job", "cancel", "r-1"],
    &["configuration", "list"],
    &["configuration", "show", "r-1"],
    &["configuration", "delete", "r-1", "--yes"],
    &["check"],
    &["sas-token", "--device", "gw1"],
];

/// The commands that ask no hub, and so have nothing to say that it said.
const WITHOUT_HUB: [&str; 3] = ["report", "completions", "device derive-key"];

/// An answer in which every text, and every key that may be any, is [`EVIL`].
fn evil(request: &HttpRequest) -> HttpResponse {
    let key = format!("k{EVIL}");
    let reboot = json!({
        "id": "r-1", "status": EVIL, "reason": EVIL, "previousBootId": EVIL, "bootId": EVIL,
        "error": {"code": EVIL, "message": EVIL},
    });
    // The outcome is that of the request, so that a run comes to its end.
    let mut ended = reboot.clone();
    ended["status"] = json!("failed");
    let reported = json!({
        "rebootTime": EVIL, "reboot": ended, "boot": {"cause": EVIL, "bootId": EVIL},
        "agent": {"version": EVIL, "methods": [EVIL]}, "key": EVIL,
    });
    let twin = json!({
        "deviceId": EVIL, "etag": EVIL, "status": EVIL, "connectionState": EVIL, "lastActivityTime": EVIL,
        "version": EVIL, "tags": {key.as_str(): EVIL},
        "properties": {"desired": {key.as_str(): EVIL, "$version": 1}, "reported": reported},
    });
    let job = json!({
        "jobId": EVIL, "type": EVIL, "status": "completed", "statusMessage": EVIL, "queryCondition": EVIL,
        "startTime": EVIL, "deviceJobStatistics": {"deviceCount": EVIL, "succeededCount": EVIL},
    });
    let device_job = json!({
        "deviceId": "gw1", "status": EVIL, "error": {"code": EVIL, "description": EVIL},
        "outcome": {"deviceMethodResponse": {"status": 409, "payload": {"error": {"code": EVIL, "message": EVIL}}}},
    });
    let configuration = json!({
        "id": EVIL, "priority": EVIL, "createdTimeUtc": EVIL, "targetCondition": EVIL, "content": {key.as_str(): EVIL},
        "systemMetrics": {"results": {"targetedCount": EVIL}}, "metrics": {"results": {key.as_str(): EVIL}},
    });
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/configurations") => HttpResponse::ok(json!([configuration])),
        (_, path) if path.starts_with("/configurations/") => HttpResponse::ok(configuration),
        ("POST", "/devices/query") => match request.body["query"].as_str().unwrap() {
            sql if sql.contains("devices.jobs") => HttpResponse::ok(json!([device_job])),
            sql if sql.contains("WHERE a = 1") => {
                HttpResponse::ok(json!([{"deviceId": "gw1"}, {"deviceId": "gw2"}, {"deviceId": "gw10"}]))
            }
            sql if sql.starts_with("SELECT * ") => HttpResponse::ok(json!([twin, twin])),
            _ => HttpResponse::ok(json!([{"deviceId": EVIL, key.as_str(): EVIL, "n": [EVIL]}])),
        },
        ("POST", "/devices") => HttpResponse::ok(json!({
            "isSuccessful": false,
            "errors": [{"deviceId": EVIL, "errorCode": EVIL, "errorStatus": EVIL}],
        })),
        ("GET", "/jobs/v2/query") => HttpResponse::ok(json!([job])),
        (_, path) if path.starts_with("/jobs/") => HttpResponse::ok(job),
        (_, path) if path.starts_with("/statistics") => HttpResponse::ok(json!({"totalDeviceCount": EVIL})),
        (_, path) if path.starts_with("/devices/") => HttpResponse::ok(json!({
            "deviceId": EVIL, "etag": EVIL, "status": EVIL, "statusReason": EVIL, "connectionState": EVIL,
            "authentication": {"type": EVIL, "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY}},
        })),
        (_, "/twins/gw10/methods") => HttpResponse::nested(404, 404_103),
        (_, "/twins/gw1/methods") if request.body["methodName"] == "rebootDevice" => HttpResponse::reply(
            200,
            json!({"id": "r-1", "status": EVIL, "message": EVIL, key.as_str(): EVIL}),
        ),
        (_, path) if path.ends_with("/methods") => {
            HttpResponse::reply(423, json!({"error": {"code": EVIL, "message": EVIL}, key.as_str(): EVIL}))
        }
        _ => HttpResponse::ok(twin),
    }
}

/// A refusal in which every text is [`EVIL`], in one of the hub's two forms.
fn refusal(request: &HttpRequest) -> HttpResponse {
    let message = match request.method.as_str() {
        "GET" => format!("ErrorCode:{EVIL};{EVIL}"),
        _ => json!({"errorCode": 400_004, "message": EVIL}).to_string(),
    };
    HttpResponse::ok(json!({ "Message": message, "ExceptionMessage": EVIL })).status(400)
}

/// Whether a character steers a terminal, or is not seen.
fn is_harmful(c: char) -> bool {
    (c.is_control() && c != '\n')
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}')
}

/// Asserts that a run says nothing harmful, and that no line of it is made by
/// somebody else.
#[track_caller]
fn harmless(arguments: &[&str], run: &Ran) {
    for text in [&run.stdout, &run.stderr] {
        assert_eq!(text.chars().find(|c| is_harmful(*c)), None, "{arguments:?}: {run:#?}");
        let posing = text.lines().find(|line| line.trim_start().starts_with("gw10: completed"));
        assert_eq!(posing, None, "{arguments:?}: {run:#?}");
    }
}

/// Runs every command in every form.
fn in_all_forms(answer: fn(&HttpRequest) -> HttpResponse) {
    let hub = FakeHub::start(move |request, _| answer(request));
    fs::write(hub.path("list"), "deviceId\ngw1\n").unwrap();
    let list = hub.path("list").display().to_string();
    let forms = ["text", "json", "jsonl", "csv"];
    let runs: Vec<(&[&str], &str)> =
        COMMANDS.iter().flat_map(|command| forms.iter().map(|form| (*command, *form))).collect();
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((command, form)) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let tables = ["query", "status", "history", "reboot", "cancel"].contains(&command[0])
                        || command.starts_with(&["device", "list"])
                        || command.starts_with(&["job", "list"])
                        || command.starts_with(&["configuration", "list"]);
                    let words =
                        command.iter().map(|word| if *word == "FOLDER/list" { list.as_str() } else { word });
                    let arguments: Vec<&str> = words.chain(["-o", form]).collect();
                    let run = hub.run(&arguments);
                    harmless(&arguments, &run);
                    assert_eq!(run.code == 2, *form == "csv" && !tables, "{arguments:?}: {run:#?}");
                    if *form == "json" && run.code != 2 && !run.stdout.is_empty() {
                        run.json();
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(done.into_inner(), runs.len());
}

#[test]
fn what_devices_and_the_hub_say_is_harmless_in_every_form() {
    in_all_forms(evil);
}

#[test]
fn what_the_hub_refuses_with_is_harmless_in_every_form() {
    in_all_forms(refusal);
}

#[test]
fn what_is_no_hubs_answer_is_harmless_in_every_form() {
    in_all_forms(|_| HttpResponse::text(EVIL));
}

#[test]
fn every_command_is_among_these() {
    fn leaves(command: &clap::Command, path: &str, all: &mut BTreeSet<String>) {
        let path = format!("{path} {}", command.get_name()).trim_start().to_owned();
        let children: Vec<_> = command.get_subcommands().filter(|child| child.get_name() != "help").collect();
        if children.is_empty() {
            all.insert(path.clone());
        }
        children.into_iter().for_each(|child| leaves(child, &path, all));
    }
    let mut all = BTreeSet::new();
    for command in Cli::command().get_subcommands().filter(|command| command.get_name() != "help") {
        leaves(command, "", &mut all);
    }
    let tried = |name: &String| {
        let words: Vec<&str> = name.split(' ').collect();
        COMMANDS.iter().any(|command| command.starts_with(&words)) || WITHOUT_HUB.contains(&name.as_str())
    };
    let untried: Vec<&String> = all.iter().filter(|name| !tried(name)).collect();
    assert!(untried.is_empty() && all.len() > 15, "{untried:?}");
}

#[test]
fn a_message_poses_as_no_other_device() {
    let hub = FakeHub::start(|request, _| evil(request));
    let run = hub.run(&["reboot", "gw1", "gw2", "gw10", "--id", "r-1", "--max-in-flight", "1"]);
    let own = "iotdm-ctl: gw10: the device is offline";
    assert!(run.stderr.lines().any(|line| line.starts_with(own)), "{run:#?}");
    let ids = ["gw1", "gw2", "gw10"];
    for line in run.stderr.lines().chain(run.stdout.lines()) {
        let begin = line.trim_start_matches("iotdm-ctl: ");
        let id = ids.iter().find(|id| begin.starts_with(&format!("{id}:")));
        // What a device has said stands after its own id.
        assert!(!line.contains("=x") || id.is_some() || begin.starts_with("gw"), "{line:?} in {run:#?}");
        assert!(id != Some(&"gw10") || !line.contains("completed"), "{line:?} in {run:#?}");
    }
}

#[test]
fn cells_of_csv_are_no_formulas() {
    let cells = ["=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1"];
    let hub = FakeHub::start(move |_, _| {
        HttpResponse::ok(json!([cells
            .iter()
            .enumerate()
            .map(|(n, cell)| (format!("c{n}"), json!(cell)))
            .collect::<serde_json::Map<String, Value>>()]))
    });
    let run = hub.run(&["query", "SELECT x FROM devices", "-o", "csv"]);
    run.ends(0, &[]);
    let expected = "x,c0,c1,c2,c3,c4,c5\n,'=cmd|' /C calc'!A0,'+1+1,'-1+1,'@SUM(A1),'\\u0009=1,'\\u000d=1\n";
    assert_eq!(run.stdout, expected);
}

#[test]
fn what_an_argument_or_a_file_says_is_harmless() {
    // Without NUL, which no argument can have.
    let evil = EVIL.replace('\0', "");
    let hub = FakeHub::start(|request, _| refusal(request));
    let (file, option) = (format!("@{evil}"), format!("--{evil}"));
    for arguments in [
        &["twin", "show", &evil][..],
        &["twin", "show", "gw1", "-o", &evil],
        &["twin", "show", "gw1", "--hub", &evil],
        &["twin", "show", "gw1", &option],
        &["twin", &evil],
        &["invoke", "gw1", &evil],
        &["invoke", "gw1", "m", "--payload", &evil],
        &["invoke", "gw1", "m", "--payload", &file],
        &["query", &evil],
        &["status", "--where", &evil],
        &["reboot", "--where", &evil],
        &["reboot", "--resume", &evil],
        &["reboot", "--devices-from", &evil],
        &["device", "create", "--from", &evil],
        &["device", "create", "gw1", "--auth", "x509-thumbprint", "--certificate", &evil],
        &["device", "derive-key", "r", "--group-key-file", &evil],
        &["job", "show", &evil],
        &["completions", &evil],
    ] {
        let run = hub.run(arguments);
        assert_ne!(run.code, 0, "{arguments:?}: {run:#?}");
        harmless(arguments, &run);
    }
    let list = hub.path("list");
    for (option, text) in [("--devices-from", evil.clone()), ("--from", format!("deviceId\n\"{evil}\"\n"))] {
        fs::write(&list, text).unwrap();
        let command = if option == "--from" { &["device", "create"][..] } else { &["reboot"] };
        let arguments = [command, &[option, list.to_str().unwrap()]].concat();
        let run = hub.run(&arguments);
        assert_eq!(run.code, 2, "{run:#?}");
        harmless(&arguments, &run);
    }
    let home = tempfile::tempdir().unwrap();
    fs::create_dir_all(home.path().join(".config/iotdm")).unwrap();
    let name = json!(evil.trim_end()).to_string().replace("\\b", "\\u0008").replace("\u{7f}", "\\u007f");
    for profiles in
        [format!("[hub.{name}]\nhost_name = {name}\nazure_cli = true\n"), format!("{name} = \n{name}")]
    {
        fs::write(home.path().join(".config/iotdm/ctl.toml"), &profiles).unwrap();
        for hub in [&["--hub", "x"][..], &[], &["--hub", &evil]] {
            let arguments = [&["twin", "show", "gw1"], hub].concat();
            let run = Ran::from(ctl(&arguments).env("HOME", home.path()).output().unwrap());
            assert_eq!(run.code, 2, "{run:#?}");
            harmless(&arguments, &run);
        }
    }
}

#[test]
fn a_secret_in_place_of_a_file_or_a_name_is_not_repeated() {
    let hub = FakeHub::start(|_, _| HttpResponse::twin(json!({})));
    let secret = hub.connection_string().trim().to_owned();
    let (pasted, token) = (format!("@{secret}"), "eyJ0eXAiOiJKV1Qi.eyJhdWQiOiJ4.c2lnbmF0dXJl");
    let option = format!("--{secret}");
    let files = "takes the name of a file";
    let shown = ["twin", "show", "gw1"];
    for (arguments, says) in [
        ([&shown[..], &["--connection-string-file", &secret]].concat(), files),
        ([&shown[..], &["--connection-string-file", KEY]].concat(), files),
        ([&shown[..], &["--connection-string-file", token]].concat(), files),
        ([&shown[..], &["--hub", &secret]].concat(), "--hub"),
        ([&shown[..], &["--ca-file", &secret]].concat(), "no hub given"),
        (vec!["twin", "show", &secret], "no hub given"),
        (vec!["twin", "show", &option], "unexpected argument"),
        (vec![&secret], "unrecognized subcommand"),
        (vec!["invoke", "gw1", "m", "--payload", &secret], "not JSON"),
        (vec!["invoke", "gw1", "m", "--payload", &pasted], "No such file"),
        (vec!["device", "derive-key", "r", "--group-key-file", KEY], files),
        (vec!["completions", KEY], "invalid value"),
    ] {
        let run = Ran::from(ctl(&arguments).env("HOME", hub.path("home")).output().unwrap());
        run.ends(2, &[says]);
        for part in [KEY, token] {
            assert!(!run.stderr.contains(part) && !run.stdout.contains(part), "{arguments:?}: {run:#?}");
        }
    }
    let run = hub.run(&[&shown[..], &["--hub", &secret]].concat());
    run.ends(0, &["is not used"]);
    assert!(!run.stderr.contains(KEY), "{run:#?}");
    fs::create_dir_all(hub.path("home/.config/iotdm")).unwrap();
    for value in ["connection_string_file", "token_file", "host_name"] {
        let more = if value == "token_file" { "host_name = 'h'\n" } else { "" };
        let profiles = format!("[hub.x]\n{more}{value} = '{secret}'\n");
        fs::write(hub.path("home/.config/iotdm/ctl.toml"), profiles).unwrap();
        let mut command = ctl(&[&shown[..], &["--hub", "x"]].concat());
        let run = Ran::from(command.env("HOME", hub.path("home")).output().unwrap());
        assert!(run.code == 2 && !run.stderr.contains(KEY), "{value}: {run:#?}");
    }
}

#[test]
fn an_endless_answer_is_left() {
    // In forms that take the most memory: text, and values that are small in JSON.
    let values = format!("[{}[]]", "[],".repeat(249_000));
    for (answer, says) in [
        (HttpResponse::text(&" ".repeat(16384)).endless(), "more than 16 MiB"),
        (HttpResponse::text(&"[[],".repeat(4096)).endless(), "more than 16 MiB"),
        (HttpResponse::text(&values.replace("[],", "[],[],")), "more than 500000 values"),
        (HttpResponse::text(&values), ""),
        (HttpResponse::classic(400, "ArgumentInvalid").endless(), "more than 16 MiB"),
    ] {
        let hub = FakeHub::start(move |_, _| answer.clone());
        for arguments in
            [&["twin", "show", "gw1"][..], &["query", "SELECT * FROM devices"], &["invoke", "gw1", "m"]]
        {
            let run = hub.run(arguments);
            assert!(
                says.is_empty() || (run.code == 1 && run.stderr.contains(says)),
                "{arguments:?} {}",
                run.stderr
            );
        }
    }
    // What a process has taken before it became the program counts as well, which is
    // why the answers are small here.
    let most = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss();
    println!("at most {most} KiB");
    assert!(most < 128 * 1024, "it took {most} KiB");
}

#[test]
fn endless_pages_are_left() {
    let page = |rows: Value, token: String| HttpResponse::ok(rows).with("x-ms-continuation", &token);
    for (says, hub) in [
        ("the same page", FakeHub::start(move |_, _| page(json!([{"deviceId": "gw1"}]), "1".to_owned()))),
        (
            "the same page",
            FakeHub::start(move |_, n| page(json!([{"deviceId": "gw1"}]), (n % 3).to_string())),
        ),
    ] {
        for arguments in [
            &["query", "SELECT deviceId FROM devices"][..],
            &["query", "SELECT deviceId FROM devices", "-o", "jsonl"],
            &["query", "SELECT deviceId FROM devices", "-o", "csv"],
            &["status"],
            &["job", "list"],
            &["reboot", "--where", "a = 1", "--yes"],
        ] {
            hub.run(arguments).ends(1, &["sends too much", says]);
        }
    }
    let hub = FakeHub::start(move |_, n| page(json!([]), n.to_string()));
    hub.run(&["query", "SELECT deviceId FROM devices"]).ends(1, &["1000 pages without a row"]);
    assert_eq!(hub.requests().len(), 1000);
}

/// Reads a connection string from a terminal into which `keys` are typed once it is
/// asked for; returns the exit code, what came to the terminal, and whether the
/// terminal shows again what is typed.
fn pasted(hub: &FakeHub, keys: &str) -> (Option<i32>, String, bool) {
    let pty = nix::pty::openpty(None, None).unwrap();
    let end = || Stdio::from(pty.slave.try_clone().unwrap());
    let mut command = ctl(&["twin", "show", "gw1", "--connection-string-file", "/dev/stdin"]);
    command.arg("--ca-file").arg(hub.path("ca.pem")).stdin(end()).stdout(end()).stderr(end());
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut terminal = fs::File::from(pty.master);
    let (mut screen, mut chunk) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&screen).contains("not shown): ") {
        let length = terminal.read(&mut chunk).unwrap();
        screen.extend_from_slice(&chunk[..length]);
    }
    terminal.write_all(keys.as_bytes()).unwrap();
    let code = child.wait().unwrap().code();
    let shows = tcgetattr(&pty.slave).unwrap().local_flags.contains(LocalFlags::ECHO);
    drop(pty.slave);
    let _ = terminal.read_to_end(&mut screen);
    (code, String::from_utf8_lossy(&screen).into_owned(), shows)
}

#[test]
fn a_pasted_secret_is_not_shown() {
    let hub = FakeHub::start(|_, _| HttpResponse::twin(json!({})));
    let (code, screen, shows) = pasted(&hub, &hub.connection_string());
    assert!(code == Some(0) && shows && screen.contains("\"gw1\""), "{screen}");
    assert!(!screen.contains(KEY) && !screen.contains("HostName"), "{screen}");
    let (code, screen, shows) = pasted(&hub, "HostName=x\u{3}");
    assert!(code == Some(2) && shows && screen.contains("interrupted"), "{screen}");
}
