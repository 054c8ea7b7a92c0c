//! How the program deals with hubs: which one, whom it trusts, what it signs,
//! when it tries again, and what an error becomes.

use std::fs;
use std::net::TcpListener;

use crate::common::{FakeHub, HttpResponse, Ran, ctl};
use serde_json::json;

const SHOW: [&str; 3] = ["twin", "show", "gw1"];
const INVOKE: [&str; 3] = ["invoke", "gw1", "m"];

#[test]
fn every_request_is_signed_for_the_host_with_its_port() {
    let hub = FakeHub::start(|_, _| HttpResponse::twin(json!({})));
    hub.run(&SHOW).ends(0, &[]);
    let request = &hub.requests()[0];
    assert!(request.is_signed(), "{request:?}");
    assert_eq!(request.query, "api-version=2021-04-12");
}

#[test]
fn throttled_requests_are_repeated_and_then_succeed() {
    let hub = FakeHub::start(|request, before| match before {
        0..=2 => HttpResponse::classic(429, "ThrottlingException").with("retry-after", "0"),
        _ if request.is_call() => HttpResponse::reply(200, json!(null)),
        _ => HttpResponse::twin(json!({})),
    });
    hub.run(&INVOKE).ends(0, &[]);
    assert_eq!(hub.requests().len(), 4);
}

#[test]
fn after_the_hubs_own_failure_reads_are_repeated_and_calls_are_not() {
    let failing =
        || FakeHub::start(|_, _| HttpResponse::classic(503, "ServiceUnavailable").with("retry-after", "0"));
    let hub = failing();
    hub.run(&SHOW).ends(1, &["ServiceUnavailable"]);
    assert_eq!(hub.requests().len(), 5);
    let hub = failing();
    hub.run(&["query", "SELECT * FROM devices"]).ends(1, &[]);
    assert_eq!(hub.requests().len(), 5);
    for arguments in [&INVOKE[..], &["device", "create", "gw1"], &["twin", "update", "gw1", "--tags", "{}"]] {
        let hub = failing();
        hub.run(arguments).ends(1, &["ServiceUnavailable"]);
        assert_eq!(hub.requests().len(), 1, "{arguments:?}");
    }
}

#[test]
fn a_hub_that_wants_a_long_pause_is_left_alone() {
    for pause in ["3600", "18446744073709551615"] {
        let hub = FakeHub::start(|_, _| {
            HttpResponse::classic(429, "ThrottlingException").with("retry-after", pause)
        });
        hub.run(&SHOW).ends(9, &["throttled", "later"]);
        assert_eq!(hub.requests().len(), 1);
    }
}

#[test]
fn a_wrong_clock_is_named_when_the_hub_does_not_let_us_in() {
    let hub = FakeHub::start(|_, _| {
        HttpResponse::classic(401, "IotHubUnauthorizedAccess").with("date", "Sun, 06 Nov 1994 08:49:37 GMT")
    });
    hub.run(&SHOW).ends(8, &["this machine's clock is", "ahead of the hub's"]);
}

#[test]
fn a_certificate_of_another_ca_or_another_name_is_refused() {
    let hub = FakeHub::start(|_, _| HttpResponse::twin(json!({})));
    let other = FakeHub::start(|_, _| HttpResponse::twin(json!({})));
    let run = |hub: &FakeHub, ca: &FakeHub| {
        let mut command = ctl(&SHOW);
        command.arg("--connection-string-file").arg(hub.path("connection-string"));
        Ran::from(command.env("IOTDM_CA_FILE", ca.path("ca.pem")).output().unwrap())
    };
    run(&hub, &hub).ends(0, &[]);
    run(&hub, &other).ends(1, &["invalid peer certificate: UnknownIssuer", "--ca-file"]);
    let misnamed = FakeHub::start_as("other.example", |_, _| HttpResponse::twin(json!({})));
    run(&misnamed, &misnamed).ends(1, &["not valid for name", "check HostName"]);
    assert_eq!((other.requests().len(), misnamed.requests().len()), (0, 0));
}

#[test]
fn an_unreachable_hub_and_one_that_is_none() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let string = format!("HostName=localhost:{port};SharedAccessKeyName=s;SharedAccessKey=c2VjcmV0");
    let hub = FakeHub::start(|_, _| HttpResponse::ok(json!({"surprise": true})));
    let mut command = ctl(&SHOW);
    command.env("IOTHUB_CONNECTION_STRING", string).arg("--ca-file").arg(hub.path("ca.pem"));
    Ran::from(command.output().unwrap()).ends(1, &["cannot reach hub localhost:", "Connection refused"]);
    hub.run(&INVOKE).ends(1, &["is not IoT Hub's", "is it a hub?"]);
    hub.run(&["query", "x"]).ends(1, &["is it a hub?"]);
}

#[test]
fn a_profile_is_a_hub_with_its_ca() {
    let hub = FakeHub::start(|_, _| HttpResponse::twin(json!({})));
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join(".config/iotdm");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("lab.txt"), hub.connection_string()).unwrap();
    fs::copy(hub.path("ca.pem"), folder.join("lab.pem")).unwrap();
    let profile = "default = 'lab'\n[hub.lab]\nconnection_string_file = 'lab.txt'\nca_file = 'lab.pem'\n";
    fs::write(folder.join("ctl.toml"), profile).unwrap();
    let run =
        |more: &[&str]| Ran::from(ctl(&[&SHOW, more].concat()).env("HOME", home.path()).output().unwrap());
    run(&[]).ends(0, &["chmod 600"]);
    run(&["--hub", "lab"]).ends(0, &[]);
    run(&["--hub", "prod"]).ends(2, &["no [hub.prod]; there are: lab"]);
}

#[test]
fn usage_errors_name_what_is_wrong() {
    let hub = FakeHub::start(|_, _| HttpResponse::twin(json!({})));
    for (arguments, parts) in [
        (&["reboot"][..], ["DEVICE", "--where"]),
        (&["reboot", "gw 1"], ["gw 1", "not a device id"]),
        (&["reboot", "gw1", "--id", "a b"], ["--id", "1 to 128"]),
        (&["reboot", "gw1", "--frob"], ["--frob", "--help"]),
        (&["reboot", "gw1", "--wait-timeout", "soon"], ["--wait-timeout", "10m"]),
        (&["reboot", "gw1", "--response-timeout", "4"], ["--response-timeout", "5 to 300"]),
        (&["invoke", "gw1", "m", "--payload", "{"], ["--payload", "not JSON"]),
        (&["invoke", "gw1", "m", "--payload", "@/nonexistent"], ["--payload", "No such file"]),
        (&["invoke", "gw1", "m", "--payload", "{\"a\": 1,\n \"b\": tru}"], ["--payload", "line 2 column 10"]),
        (&["query", "x", "--top", "few"], ["--top", "a whole number"]),
        (&["sas-token", "--ttl", "0"], ["--ttl", "longer than nothing"]),
        (&["twin", "show", ".."], ["..", "URL"]),
        (&["twin", "show", "gw1", "-o", "yaml"], ["--output", "jsonl"]),
    ] {
        hub.run(arguments).ends(2, &parts);
    }
    assert!(hub.requests().is_empty());
    Ran::from(ctl(&SHOW).output().unwrap()).ends(2, &["no hub given", "--connection-string-file"]);
    let mut command = ctl(&[&SHOW[..], &["--connection-string-file", "/nonexistent"]].concat());
    Ran::from(command.output().unwrap()).ends(2, &["--connection-string-file /nonexistent: No such file"]);
    let missing_ca = ctl(&[&SHOW[..], &["--ca-file", "/nonexistent"]].concat())
        .env("IOTHUB_CONNECTION_STRING", hub.connection_string())
        .output();
    Ran::from(missing_ca.unwrap()).ends(2, &["CA file /nonexistent"]);
}

#[test]
fn the_key_is_in_no_error() {
    let hub = FakeHub::start(|_, _| HttpResponse::classic(401, "IotHubUnauthorizedAccess"));
    let run = hub.run(&SHOW);
    run.ends(8, &[]);
    assert!(!run.stderr.contains(crate::common::KEY) && !run.stderr.contains("sig="), "{run:#?}");
}
