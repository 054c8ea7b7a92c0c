//! Each exit code that `--help` names, by one run that ends with it, and none
//! besides; what leads to which in detail is in the files of the commands.

use std::sync::Mutex;
use std::sync::mpsc;

use crate::common::{Answer, FakeHub, Run, ctl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

/// How `iotdm-ctl reboot gw1` ends where calls are answered so.
fn reboot(call: Answer) -> i32 {
    let hub = FakeHub::start(move |request, _| {
        let failed = json!({"agent": {}, "reboot": {"id": "r-1", "status": "failed"}});
        if request.is_call() { call.clone().with("retry-after", "0") } else { Answer::twin(failed) }
    });
    hub.run(&["reboot", "gw1", "--id", "r-1", "--no-wait"]).code
}

#[test]
fn each_exit_code() {
    let id = || json!({"id": "r-1"});
    assert_eq!(reboot(Answer::reply(200, id())), 0, "done");
    assert_eq!(reboot(Answer::classic(500, "ServerError")), 1, "network, hub or internal");
    assert_eq!(Run::from(ctl(&["reboot"]).output().unwrap()).code, 2, "usage");
    assert_eq!(reboot(Answer::reply(403, json!({}))), 3, "the device refused");
    assert_eq!(reboot(Answer::nested(404, 404_103)), 4, "the device is offline");
    assert_eq!(reboot(Answer::nested(404, 404_001)), 5, "no such device");
    assert_eq!(reboot(Answer::nested(504, 504_101)), 6, "timed out: no reply");
    assert_eq!(reboot(Answer::classic(401, "IotHubUnauthorized")), 8, "not authorised");
    assert_eq!(reboot(Answer::nested(429, 429_001)), 9, "throttled after retries");

    let hub = FakeHub::start(move |request, _| {
        let failed = json!({"reboot": {"id": "r-1", "status": "failed"}});
        if request.is_call() { Answer::reply(200, id()) } else { Answer::twin(failed) }
    });
    assert_eq!(hub.run(&["reboot", "gw1", "--id", "r-1"]).code, 7, "the reboot failed");

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
    assert_eq!(child.wait().unwrap().code(), Some(130), "Ctrl-C");

    let help = Run::from(ctl(&["--help"]).output().unwrap()).stdout;
    let named = [
        "0 done",
        "1 network",
        "2 usage",
        "3 the device refused",
        "4 the device is offline",
        "5 no such device",
        "6 timed out",
        "7 the reboot failed",
        "8 not authorised",
        "9 throttled",
        "130 Ctrl-C",
    ];
    for code in named {
        assert!(help.contains(&format!("  {code}")), "{code}: {help}");
    }
}
