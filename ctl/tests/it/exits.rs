//! Each exit code by one run that ends with it; what leads to which in detail is
//! in the files of the commands. A code that is added does not compile until it
//! has its run here, and fails until `--help`, of which the manual page is made,
//! names it.

use std::sync::Mutex;
use std::sync::mpsc;

use crate::common::{FakeHub, HttpResponse, Ran, ctl};
use clap::ValueEnum as _;
use iotdm_ctl::exit::Exit;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

/// How `iotdm-ctl reboot gw1` ends where calls are answered so.
fn reboot(call: HttpResponse) -> i32 {
    let hub = FakeHub::start(move |request, _| {
        let failed = json!({"agent": {}, "reboot": {"id": "r-1", "status": "failed"}});
        if request.is_call() { call.clone().with("retry-after", "0") } else { HttpResponse::twin(failed) }
    });
    hub.run(&["reboot", "gw1", "--id", "r-1", "--no-wait"]).code
}

/// How a reboot ends that the device accepts and then reports as failed.
fn failed_reboot() -> i32 {
    let hub = FakeHub::start(move |request, _| {
        let failed = json!({"reboot": {"id": "r-1", "status": "failed"}});
        if request.is_call() {
            HttpResponse::reply(200, json!({"id": "r-1"}))
        } else {
            HttpResponse::twin(failed)
        }
    });
    hub.run(&["reboot", "gw1", "--id", "r-1"]).code
}

/// How a reboot ends that is interrupted while the hub does not answer.
fn interrupted_reboot() -> i32 {
    let (asked, asking) = mpsc::channel();
    let asked = Mutex::new(asked);
    let hub = FakeHub::start(move |_, _| {
        asked.lock().unwrap().send(()).unwrap();
        loop {
            std::thread::park();
        }
    });
    let mut child = hub.command(&["reboot", "gw1"]).spawn().unwrap();
    asking.recv().unwrap();
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    child.wait().unwrap().code().unwrap()
}

/// The exit code of a run that is to end with `exit`.
fn run_that_ends_with(exit: Exit) -> i32 {
    match exit {
        Exit::Done => reboot(HttpResponse::reply(200, json!({"id": "r-1"}))),
        Exit::Failure => reboot(HttpResponse::classic(500, "ServerError")),
        Exit::Usage => Ran::from(ctl(&["reboot"]).output().unwrap()).code,
        Exit::Refused => reboot(HttpResponse::reply(403, json!({}))),
        Exit::Offline => reboot(HttpResponse::nested(404, 404_103)),
        Exit::NoSuchDevice => reboot(HttpResponse::nested(404, 404_001)),
        Exit::TimedOut => reboot(HttpResponse::nested(504, 504_101)),
        Exit::RebootFailed => failed_reboot(),
        Exit::NotAuthorized => reboot(HttpResponse::classic(401, "IotHubUnauthorized")),
        Exit::Throttled => reboot(HttpResponse::nested(429, 429_001)),
        Exit::Interrupted => interrupted_reboot(),
    }
}

#[test]
fn each_exit_code() {
    for exit in Exit::value_variants() {
        assert_eq!(run_that_ends_with(*exit), i32::from(exit.code()), "{exit:?}");
    }
}

#[test]
fn the_help_names_each_exit_code_and_no_other() {
    let help = Ran::from(ctl(&["--help"]).output().unwrap()).stdout;
    let (_, codes) = help.split_once("\nExit codes:\n").unwrap();
    let (codes, _) = codes.split_once("\n\n").unwrap();
    for exit in Exit::value_variants() {
        assert!(codes.contains(&format!("  {} {}", exit.code(), exit.meaning())), "{exit:?}: {codes}");
    }
    let numbers = codes.split_whitespace().filter(|word| word.parse::<u8>().is_ok()).count();
    assert_eq!(numbers, Exit::value_variants().len(), "{codes}");
}

/// The numbers that scripts rely on.
#[test]
fn the_numbers_stay() {
    let numbers: Vec<u8> = Exit::value_variants().iter().map(|exit| exit.code()).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 130]);
}
