//! Interactive shells complete ids of devices that are shell code: each becomes
//! one word, and nothing of it is executed.
//!
//! The shells run on a terminal of their own and ask a hub at the wire, as they do
//! for an operator. Which device a completed line then names, the hub tells.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use percent_encoding::percent_decode_str;
use serde_json::json;

use crate::common::{FakeHub, HttpResponse, KEY};

/// Ids of IoT Hub's own alphabet, each with what is typed of it before Tab.
/// `.pwned` is the file that would be made.
const IDS: [(&str, &str); 9] = [
    ("h00$(touch$IFS.pwned)", "h00"),
    ("h01;touch$IFS.pwned", "h01"),
    ("h02'$(touch$IFS.pwned)'", "h02"),
    ("h03!touch", "h03"),
    ("h04*?(.pwned)", "h04"),
    ("h05#x=y@z:w%1,+", "h05"),
    ("h06$((1))", "h06"),
    ("h07'*='", "h07"),
    ("h08!!", "h08"),
];

/// What a hub may call devices that is no device id, each with what is typed of
/// it. Nothing is added to that.
const NO_IDS: [(&str, &str); 5] = [
    ("i00`touch .pwned`", "i00"),
    ("i01 ;touch .pwned", "i01"),
    ("i02\ntouch .pwned", "i02"),
    ("i03\u{1b}[2J\rtouch .pwned\r", "i03"),
    ("i04|touch .pwned", "i04"),
];

/// A hub that has all these devices, and one that looks like an option.
fn hub() -> FakeHub {
    FakeHub::start(|request, _| {
        if request.path != "/devices/query" {
            let keys = json!({"primaryKey": KEY, "secondaryKey": KEY});
            return HttpResponse::ok(json!({"authentication": {"type": "sas", "symmetricKey": keys}}));
        }
        let ids = IDS.iter().chain(&NO_IDS).map(|(id, _)| *id).chain(["--yes"]);
        HttpResponse::ok(ids.map(|id| json!({"deviceId": id})).collect())
    })
}

/// Types `lines` into a shell that begins in `folder`, and returns what came to
/// its terminal. The shell's prompt is `READY> `.
fn typed(hub: &FakeHub, folder: &Path, command: &Command, lines: &[String]) -> String {
    let pty = nix::pty::openpty(None, None).unwrap();
    let end = || Stdio::from(pty.slave.try_clone().unwrap());
    let programs = Path::new(env!("CARGO_BIN_EXE_iotdm-ctl")).parent().unwrap().display().to_string();
    // With the terminal as its controlling one, without which fish does not start.
    let mut shell = Command::new("setsid");
    shell.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
    shell.env_clear().current_dir(folder);
    shell.env("PATH", format!("{programs}:/usr/bin:/bin")).env("TERM", "xterm").env("HOME", folder);
    shell.env("IOTHUB_CONNECTION_STRING", hub.connection_string().trim());
    shell.env("IOTDM_CA_FILE", hub.path("ca.pem"));
    let mut child = shell.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
    drop((shell, pty.slave));
    let mut terminal = fs::File::from(pty.master);
    let (mut screen, mut chunk) = (Vec::new(), [0; 4096]);
    // Before its first prompt a shell may throw away what is typed.
    while !String::from_utf8_lossy(&screen).contains("READY> ") {
        let length = terminal.read(&mut chunk).unwrap();
        screen.extend_from_slice(&chunk[..length]);
    }
    for line in lines {
        terminal.write_all(line.as_bytes()).unwrap();
        terminal.write_all(b"\r").unwrap();
    }
    terminal.write_all(b"exit\r").unwrap();
    while let Ok(length @ 1..) = terminal.read(&mut chunk) {
        screen.extend_from_slice(&chunk[..length]);
    }
    child.wait().unwrap();
    String::from_utf8_lossy(&screen).into_owned()
}

/// The script of a shell in a file of `folder`.
fn script(folder: &Path, shell: &str) -> String {
    let script = crate::common::ctl(&["completions", shell]).output().unwrap().stdout;
    let path = folder.join(format!("script.{shell}"));
    fs::write(&path, script).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A shell that has read its completion script.
fn shell(folder: &Path, name: &str) -> Command {
    let script = script(folder, name);
    let mut command = Command::new(name);
    match name {
        "bash" => {
            let rc = format!("PS1='READY> '\nsource {script}\nbind 'set enable-bracketed-paste off'\n");
            fs::write(folder.join("bashrc"), rc).unwrap();
            command.arg("--rcfile").arg(folder.join("bashrc")).arg("-i");
        }
        "zsh" => {
            let rc = format!("PS1='READY> '\nautoload -U compinit\ncompinit -u -D\nsource {script}\n");
            fs::write(folder.join(".zshrc"), rc).unwrap();
            command.arg("-i");
        }
        _ => {
            let rc = format!("source {script}; function fish_prompt; echo -n 'READY> '; end");
            command.args(["--no-config", "-i", "-C"]).arg(rc);
        }
    }
    command
}

/// The devices whose twins were read.
fn shown(hub: &FakeHub) -> Vec<String> {
    let requests = hub.requests();
    let paths = requests.iter().filter_map(|request| request.path.strip_prefix("/twins/"));
    paths.map(|path| percent_decode_str(path).decode_utf8().unwrap().into_owned()).collect()
}

/// Lets a shell complete `iotdm-ctl twin show WORD` for each of the ids, where the
/// word is opened with `open`.
fn completes(name: &str, open: &str) {
    let (hub, folder) = (hub(), tempfile::tempdir().unwrap());
    let lines: Vec<String> =
        IDS.iter().chain(&NO_IDS).map(|(_, typed)| format!("iotdm-ctl twin show {open}{typed}\t")).collect();
    // What is left open where nothing is completed is closed by hand.
    let closed = |(n, line): (usize, String)| if n < IDS.len() { line } else { line + open };
    let lines: Vec<String> = lines.into_iter().enumerate().map(closed).collect();
    let screen = typed(&hub, folder.path(), &shell(folder.path(), name), &lines);
    assert!(!folder.path().join(".pwned").exists(), "{name} executed an id: {screen}");
    let expected: Vec<&str> =
        IDS.iter().map(|(id, _)| *id).chain(NO_IDS.iter().map(|(_, typed)| *typed)).collect();
    assert_eq!(shown(&hub), expected, "{name}: {screen}");
}

#[test]
fn bash_completes_hostile_ids_as_one_word() {
    completes("bash", "");
}

#[test]
fn bash_completes_hostile_ids_in_single_quotes() {
    completes("bash", "'");
}

#[test]
fn bash_completes_hostile_ids_in_double_quotes() {
    completes("bash", "\"");
}

#[test]
fn zsh_completes_hostile_ids_as_one_word() {
    completes("zsh", "");
}

#[test]
fn fish_completes_hostile_ids_as_one_word() {
    completes("fish", "");
}

#[test]
fn bash_goes_on_where_it_broke_the_word() {
    let (hub, folder) = (hub(), tempfile::tempdir().unwrap());
    let line = "iotdm-ctl --hub none twin show h05\\#x=y@\t".to_owned();
    let screen = typed(&hub, folder.path(), &shell(folder.path(), "bash"), &[line]);
    assert_eq!(shown(&hub), ["h05#x=y@z:w%1,+"], "{screen}");
}

#[test]
fn an_id_that_begins_like_an_expansion_is_one_word() {
    for name in ["bash", "zsh", "fish"] {
        for id in ["=ls", "#x", "%1", "*", "?", "@x", ";x", "!!", "$HOME", "'", "(x)"] {
            let hub = FakeHub::start(move |request, _| match request.path.as_str() {
                "/devices/query" => HttpResponse::ok(json!([{"deviceId": id}])),
                _ => HttpResponse::twin(json!({})),
            });
            let folder = tempfile::tempdir().unwrap();
            let line = "iotdm-ctl twin show -- \t".to_owned();
            let screen = typed(&hub, folder.path(), &shell(folder.path(), name), &[line]);
            assert_eq!(shown(&hub), [id], "{name}: {screen}");
        }
    }
}

#[test]
fn names_of_files_are_completed_as_one_word() {
    for name in ["bash", "zsh", "fish"] {
        let (hub, folder) = (hub(), tempfile::tempdir().unwrap());
        fs::write(folder.path().join("payload$(touch .pwned);touch .pwned"), "x").unwrap();
        let line = "iotdm-ctl device create gw1 --auth x509-thumbprint --certificate payl\t".to_owned();
        let screen = typed(&hub, folder.path(), &shell(folder.path(), name), &[line]);
        assert!(!folder.path().join(".pwned").exists(), "{name}: {screen}");
        assert!(screen.contains("no certificate in it"), "{name}: {screen}");
    }
}

#[test]
fn printed_lines_can_be_pasted() {
    for name in ["bash", "zsh", "fish"] {
        let (hub, folder) = (hub(), tempfile::tempdir().unwrap());
        for (id, _) in IDS {
            let hint = hub.run(&["device", "renew-key", id]).stderr;
            let (_, line) = hint.trim_end().split_once("its new connection string: ").unwrap();
            let before = hub.requests().len();
            let line = line.replace("FILE", "key");
            typed(&hub, folder.path(), &shell(folder.path(), name), &[line]);
            assert!(!folder.path().join(".pwned").exists(), "{name}: {hint}");
            let request = hub.requests().get(before).unwrap().clone();
            let named = percent_decode_str(request.path.strip_prefix("/devices/").unwrap());
            assert_eq!(named.decode_utf8().unwrap(), id, "{name}: {hint}");
        }
    }
}
