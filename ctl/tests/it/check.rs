//! `check`: a line for each, and the exit code of the worst.

use std::net::TcpListener;

use crate::common::{FakeHub, HttpRequest, HttpResponse, Ran, ctl};
use iotdm_tests::proxy;
use serde_json::{Value, json};

/// A hub that allows everything but what `otherwise` answers differently.
fn hub(otherwise: impl Fn(&HttpRequest, usize) -> Option<HttpResponse> + Send + Sync + 'static) -> FakeHub {
    FakeHub::start(move |request, before| {
        otherwise(request, before).unwrap_or_else(|| match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/statistics/devices") => HttpResponse::ok(
                json!({"totalDeviceCount": 3, "enabledDeviceCount": 2, "disabledDeviceCount": 1}),
            ),
            ("DELETE", _) => HttpResponse::classic(404, "DeviceNotFound"),
            _ if request.is_call() => HttpResponse::nested(404, 404_001),
            _ => HttpResponse::ok(json!([])),
        })
    })
}

/// The lines of a kind, by their names.
fn which(run: &Ran, result: &str) -> Vec<String> {
    let lines = run.json();
    let lines = lines.as_array().unwrap().iter().filter(|line| line["result"] == result);
    lines.map(|line| line["check"].as_str().unwrap().to_owned()).collect()
}

fn detail(run: &Ran, check: &str) -> String {
    let lines: Vec<Value> = run.json().as_array().unwrap().clone();
    let line = lines.into_iter().find(|line| line["check"] == check).unwrap();
    line["detail"].as_str().unwrap().to_owned()
}

const CHECK: [&str; 3] = ["check", "-o", "json"];

#[test]
fn a_line_for_each() {
    let hub = hub(|_, _| None);
    let run = hub.run(&["check"]);
    run.ends(0, &[]);
    let lines: Vec<Vec<&str>> = run.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    let names: Vec<&str> = lines.iter().map(|line| line[0]).collect();
    let expected = [
        "name",
        "tcp",
        "tls",
        "clock",
        "service",
        "registry-read",
        "registry-write",
        "methods",
        "jobs",
        "devices",
        "throttling",
    ];
    assert_eq!(names, expected);
    let tls = "TLS 1.3, the certificate is for localhost and trusted, its CA: CN=";
    assert!(run.stdout.contains(tls), "{run:#?}");
    assert!(run.stdout.contains("3 registered, 1 of them disabled"), "{run:#?}");
    // The checks delete and call only what does not exist.
    let paths: Vec<String> = hub.requests().iter().map(HttpRequest::line).collect();
    let (deleted, called) = (&paths[2], &paths[3]);
    assert!(deleted.starts_with("DELETE /devices/") && called.starts_with("POST /twins/"), "{paths:?}");
}

#[test]
fn missing_rights_are_exit_8() {
    let refused = || Some(HttpResponse::classic(401, "IotHubUnauthorizedAccess"));
    let run = hub(move |request, _| match request.method.as_str() {
        "GET" if request.path.starts_with("/statistics") => refused(),
        "DELETE" => refused(),
        _ => None,
    })
    .run(&CHECK);
    run.ends(8, &[]);
    assert_eq!(which(&run, "failed"), ["registry-read", "registry-write"]);
    assert_eq!(which(&run, "skipped"), ["clock", "devices"]);

    let run = hub(move |_, _| refused()).run(&CHECK);
    run.ends(8, &[]);
    assert_eq!(which(&run, "skipped"), ["clock", "methods", "jobs", "devices"], "nothing is tried in vain");
}

#[test]
fn what_the_tier_lacks_is_no_matter_of_rights() {
    let run = hub(|request, _| match request.path.as_str() {
        "/jobs/v2/query" => Some(HttpResponse::nested(403, 403_010)),
        _ if request.is_call() => Some(HttpResponse::nested(403, 403_010)),
        _ => None,
    })
    .run(&CHECK);
    run.ends(1, &[]);
    assert_eq!(which(&run, "failed"), ["methods", "jobs"]);
    assert!(detail(&run, "methods").starts_with("the hub's tier does not have this"), "{run:#?}");
    // Whatever else fails is no success either.
    let odd = |request: &HttpRequest, _| {
        request.is_call().then(|| HttpResponse::nested(504, 504_101).with("retry-after", "0"))
    };
    let run = hub(odd).run(&CHECK);
    run.ends(1, &[]);
    assert_eq!(which(&run, "failed"), ["methods"]);
}

#[test]
fn throttling_is_told_and_exit_9() {
    let throttled = || Some(HttpResponse::classic(429, "ThrottlingException").with("retry-after", "0"));
    let run = hub(move |_, before| throttled().filter(|_| before < 2)).run(&CHECK);
    run.ends(9, &[]);
    assert_eq!(which(&run, "failed"), ["throttling"], "it went through at last");
    assert!(detail(&run, "throttling").contains("throttled 2 requests"), "{run:#?}");
    let run = hub(move |request, _| throttled().filter(|_| request.is_call())).run(&CHECK);
    run.ends(9, &[]);
    assert_eq!(which(&run, "failed"), ["methods", "throttling"]);
}

#[test]
fn a_wrong_clock_is_exit_1() {
    let late =
        |_: &HttpRequest, _| Some(HttpResponse::ok(json!([])).with("date", "Sun, 06 Nov 1994 08:49:37 GMT"));
    let run = hub(late).run(&CHECK);
    run.ends(1, &[]);
    assert_eq!(which(&run, "failed"), ["clock"]);
    assert!(detail(&run, "clock").ends_with(" s ahead of the hub's; set it right"), "{run:#?}");
}

#[test]
fn a_hub_that_is_not_reached_is_exit_1_at_the_step_that_fails() {
    let (hub, other) = (hub(|_, _| None), hub(|_, _| None));
    let mut untrusting = ctl(&CHECK);
    untrusting.arg("--connection-string-file").arg(hub.path("connection-string"));
    let run = Ran::from(untrusting.arg("--ca-file").arg(other.path("ca.pem")).output().unwrap());
    run.ends(1, &[]);
    assert_eq!(which(&run, "failed"), ["tls"]);
    assert!(detail(&run, "tls").contains("name that CA with --ca-file"), "{run:#?}");

    let check = |host: &str| {
        let string = format!("HostName={host};SharedAccessKeyName=s;SharedAccessKey=c2VjcmV0");
        let mut command = ctl(&CHECK);
        command.env("IOTHUB_CONNECTION_STRING", string).env("IOTDM_CA_FILE", hub.path("ca.pem"));
        Ran::from(command.output().unwrap())
    };
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let run = check(&format!("localhost:{port}"));
    run.ends(1, &[]);
    assert_eq!(which(&run, "failed"), ["tcp"]);
    assert!(detail(&run, "tcp").contains("Connection refused"), "{run:#?}");
    assert_eq!(which(&run, "skipped").len(), 8);
    // A name of those that never exist.
    let run = check("hub.invalid");
    run.ends(1, &[]);
    assert_eq!(which(&run, "failed"), ["name"]);
}

/// `check` with a proxy in the environment.
fn check_through(hub: &FakeHub, proxy: &str, more: &[(&str, &str)]) -> Ran {
    let mut command = hub.command(&CHECK);
    command.env("HTTPS_PROXY", proxy).envs(more.iter().copied());
    Ran::from(command.output().unwrap())
}

#[test]
fn the_proxy_is_on_the_way() {
    let hub = hub(|_, _| None);
    let port = hub.connection_string().split([';', '=', ':']).nth(2).unwrap().to_owned();
    let open = proxy(None);
    let address = format!("http://{}", open.address);
    let run = check_through(&hub, &address, &[]);
    run.ends(0, &[]);
    assert_eq!(which(&run, "ok")[..4], ["name", "tcp", "proxy", "tls"]);
    assert_eq!(detail(&run, "proxy"), format!("{address} connects to localhost:{port}"));
    assert!(detail(&run, "tcp").contains(&open.address.to_string()), "{run:#?}");
    open.asked.wait_for("CONNECT localhost");
    let run = check_through(&hub, &address, &[("NO_PROXY", "localhost")]);
    run.ends(0, &[]);
    assert_eq!(which(&run, "ok")[..3], ["name", "tcp", "tls"]);

    let locked = proxy(Some("user:word"));
    let with = |user: &str| format!("http://{user}{}", locked.address);
    check_through(&hub, &with("user:word@"), &[]).ends(0, &[]);
    let run = check_through(&hub, &with("user:wrong@"), &[]);
    run.ends(1, &[]);
    assert_eq!(which(&run, "failed"), ["proxy"]);
    assert!(detail(&run, "proxy").contains("407 Proxy Authentication Required"), "{run:#?}");
    assert!(!run.stdout.contains("wrong") && !run.stderr.contains("wrong"), "{run:#?}");

    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let run = check_through(&hub, &format!("http://{nobody}"), &[]);
    run.ends(1, &[]);
    assert_eq!(which(&run, "failed"), ["tcp"]);
    assert!(detail(&run, "tcp").contains(&format!("check the proxy http://{nobody}")), "{run:#?}");

    // Every other command names the proxy, too.
    let command = |proxy: &str| {
        let mut command = hub.command(&["device", "show", "gw1"]);
        Ran::from(command.env("HTTPS_PROXY", proxy).output().unwrap())
    };
    let refused = command(&format!("http://{nobody}"));
    refused.ends(
        1,
        &["through the proxy http://", "Connection refused", "check the proxy, HTTPS_PROXY and NO_PROXY"],
    );
    let run = command(&with("user:wrong@"));
    run.ends(1, &["through the proxy http://", "check the proxy"]);
    assert!(!run.stderr.contains("wrong"), "{run:#?}");
}
