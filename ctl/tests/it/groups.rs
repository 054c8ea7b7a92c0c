//! `reboot` of many devices with care: canaries and failures over `--resume`, groups,
//! the order, the gate, a second try.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex};

use crate::common::{FakeHub, HttpResponse, Ran, ctl, on_terminal_of};
use crate::fleet::{ALL, Fleet, journal, refused, spawn};
use serde_json::{Value, json};

fn resume(hub: &FakeHub, more: &[&str]) -> Ran {
    let path = journal(hub);
    hub.run(&[&["reboot", "--resume", path.to_str().unwrap(), "--interval", "10ms"], more].concat())
}

#[test]
fn devices_of_a_condition_are_rebooted_with_care() {
    let fleet = Fleet::default();
    let hub = fleet.hub(30, refused);
    let ran = hub.run(&ALL);
    ran.ends(
        7,
        &["stopped: one of those that went first failed (--canary); --canary 0 goes on all the same"],
    );
    assert!(ran.stdout.contains("30 devices: 1 refused, 29 not started\n"), "{ran:#?}");
    // The threshold holds over --resume: nobody else is asked.
    let calls = || hub.requests().iter().filter(|request| request.is_call()).count();
    assert_eq!(calls(), 1);
    resume(&hub, &[]).ends(7, &["stopped: one of those that went first failed"]);
    assert_eq!(calls(), 1);
    // More than a tenth of thirty are four.
    resume(&hub, &["--canary", "0", "--max-in-flight", "1"])
        .ends(7, &["more than 3 devices failed (--max-failures)"]);
    assert_eq!(calls(), 4);
    resume(&hub, &["--canary", "0"]).ends(7, &["more than 3 devices failed"]);
    assert_eq!(calls(), 4);
    let all = resume(&hub, &["--canary", "0", "--max-failures", "all"]);
    assert!(all.stdout.contains("30 devices: 30 refused\n"), "{all:#?}");
    assert_eq!((all.code, calls()), (3, 30));
}

#[test]
fn devices_that_were_named_are_left_to_their_operator() {
    let fleet = Fleet::default();
    let hub = fleet.hub(0, refused);
    let named = hub.run(&["reboot", "gw1", "gw2", "gw3", "gw4"]);
    assert!(named.stdout.contains("4 devices: 4 refused\n"), "{named:#?}");
    let hub = Fleet::default().hub(5, refused);
    let dry = hub.run(&[&ALL[..], &["--dry-run"]].concat());
    assert!(dry.stdout.contains("5 devices: 5 refused\n"), "nobody is harmed: {dry:#?}");
}

#[test]
fn the_natural_order_and_any_other() {
    let hub = FakeHub::start(|request, _| {
        if request.path == "/devices/query" {
            let rows = [("gw10", json!(2)), ("gw2", json!(10)), ("gw1", Value::Null), ("gw3", json!(2))];
            let row = |(id, ring): &(&str, Value)| json!({"deviceId": id, "tags": {"ring": ring}});
            return HttpResponse::ok(rows.iter().map(row).collect());
        }
        refused("").unwrap()
    });
    let order = |more: &[&str]| {
        let options = ["--canary", "0", "--max-failures", "all", "-o", "json"];
        let ran = hub.run(&[&ALL[..], &options, more].concat());
        let outcomes = ran.json();
        outcomes
            .as_array()
            .unwrap()
            .iter()
            .map(|on| on["device"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(order(&[]), ["gw1", "gw2", "gw3", "gw10"]);
    assert_eq!(order(&["--order-by", "tags.ring"]), ["gw3", "gw10", "gw2", "gw1"]);
    let queries: Vec<Value> = hub.requests().iter().map(|request| request.body["query"].clone()).collect();
    // Of the twins only what makes the order, and what is to be known before a call.
    let sql = "SELECT deviceId, tags, properties.reported.agent AS agent, properties.reported.reboot.id AS newest, \
               properties.reported.rebootTime AS rebootTime, properties.reported.health.state AS health \
               FROM devices WHERE tags.site = 'north'";
    assert!(queries.contains(&json!(sql)), "{queries:?}");
    // A condition that leaves no room for that goes out all the same, up to the hub's limit.
    let long = |length: usize| format!("tags.site = '{}'", "x".repeat(length));
    let alone = "SELECT deviceId FROM devices WHERE tags.site = ''".len();
    for (length, code) in [(8192 - alone, 3), (8193 - alone, 2)] {
        let all = ["reboot", "--where", &long(length), "--yes", "--canary", "0", "--max-failures", "all"];
        hub.run(&all).ends(code, &[]);
    }
}

/// Devices in sites, each of which is away from its call until it was looked at
/// a few times.
#[derive(Clone, Default)]
struct Sites(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// The id of the request, and how often each device was looked at since.
    looks: BTreeMap<String, (Value, usize)>,
    /// How often each device was called.
    calls: BTreeMap<String, usize>,
    /// Devices that do not come back.
    lost: Vec<String>,
    /// The most of one site that were away at once.
    most: usize,
}

impl State {
    fn is_away(&self, device: &str) -> bool {
        let is_lost = self.lost.iter().any(|lost| lost == device);
        self.looks.get(device).is_some_and(|(_, looks)| *looks < 3 || is_lost)
    }
}

fn site(n: usize, sites: usize) -> String {
    format!("site-{}", n % sites)
}

impl Sites {
    /// `gw0` to `gw{devices}`, of which the last has no site.
    fn hub(&self, devices: usize, sites: usize) -> FakeHub {
        let known = self.clone();
        let row = move |n: usize| match n {
            _ if n + 1 == devices => json!({"deviceId": format!("gw{n}"), "connectionState": "Connected"}),
            _ => {
                json!({"deviceId": format!("gw{n}"), "connectionState": "Connected", "tags": {"site": site(n, sites)}})
            }
        };
        FakeHub::start(move |request, _| {
            if request.path == "/devices/query" {
                return HttpResponse::ok((0..devices).map(row).collect());
            }
            let device = request.path.split('/').nth(2).unwrap().to_owned();
            let mut state = known.0.lock().unwrap();
            if request.is_call() {
                let id = request.reboot_id();
                state.looks.insert(device.clone(), (id.clone(), 0));
                *state.calls.entry(device.clone()).or_default() += 1;
                let number: usize = device[2..].parse().unwrap();
                let of_site = |n: &usize| n % sites == number % sites && n + 1 != devices;
                let away = (0..devices).filter(of_site).filter(|n| state.is_away(&format!("gw{n}"))).count();
                state.most = state.most.max(away);
                return HttpResponse::reply(200, json!({"id": id, "status": "accepted"}));
            }
            let mut reported = json!({"agent": {"version": "1"}});
            if let Some((id, looks)) = state.looks.get_mut(&device) {
                *looks += 1;
                let id = id.clone();
                let status = if state.is_away(&device) { "rebooting" } else { "completed" };
                reported["reboot"] = json!({"id": id, "status": status});
            }
            HttpResponse::twin(reported)
        })
    }
}

const PER: [&str; 8] = ["--at-most", "1", "--per", "tags.site", "--max-in-flight", "20", "--canary", "1"];

#[test]
fn never_two_of_a_site_are_away_also_over_kills() {
    let sites = Sites::default();
    let hub = sites.hub(61, 10);
    let mut run = spawn(hub.command(&[&ALL[..], &PER].concat()));
    for kills in 1..=3 {
        loop {
            if sites.0.lock().unwrap().calls.len() >= kills * 15 {
                break;
            }
            assert!(run.try_wait().unwrap().is_none(), "it has ended already");
            std::thread::yield_now();
        }
        run.kill().unwrap();
        run.wait().unwrap();
        let path = journal(&hub);
        run = spawn(hub.command(&["reboot", "--resume", path.to_str().unwrap(), "--interval", "10ms"]));
    }
    let ran = Ran::from(run.wait_with_output().unwrap());
    ran.ends(0, &[]);
    assert!(ran.stdout.contains("61 devices: 61 completed\n"), "{ran:#?}");
    let state = sites.0.lock().unwrap();
    assert_eq!(state.most, 1, "of a site");
    assert!(state.calls.len() == 61 && state.calls.values().all(|times| *times == 1), "{:?}", state.calls);
}

#[test]
fn who_does_not_come_back_holds_its_own_site_only() {
    let sites = Sites::default();
    sites.0.lock().unwrap().lost = vec!["gw13".to_owned()];
    let hub = sites.hub(51, 10);
    let options = ["--max-failures", "all", "--wait-timeout", "3s"];
    let ran = hub.run(&[&ALL[..], &PER, &options].concat());
    // Of the five of site 3, gw3 came before, and gw23, gw33 and gw43 would come after.
    ran.ends(7, &["stopped: 3 devices wait for others of their groups that are not back (--at-most)"]);
    assert!(ran.stdout.contains("51 devices: 47 completed, 1 timed out, 3 not started\n"), "{ran:#?}");
    resume(&hub, &["--wait-timeout", "100ms"]).ends(7, &["3 devices wait for others"]);
    sites.0.lock().unwrap().lost.clear();
    resume(&hub, &[]).ends(0, &[]);
    assert_eq!(sites.0.lock().unwrap().most, 1);
    for (options, part) in [
        (&["--at-most", "1"][..], "--per"),
        (&["--per", "tags.site"], "--at-most"),
        (&["--per", "tags site", "--at-most", "1"], "a path in the twin"),
        (&["--per", "tags.site", "--at-most", "1", "--no-wait"], "--no-wait"),
        (&["--per", "tags.site", "--at-most", "1", "--when-online"], "--when-online"),
        (&["--retry-failed"], "--resume"),
    ] {
        hub.run(&[&ALL[..], options].concat()).ends(2, &[part]);
    }
}

#[test]
fn a_closed_gate_holds_the_run() {
    let fleet = Fleet::default();
    let hub = fleet.hub(3, |_| None);
    let gate = format!("echo asked for $IOTDM_DEVICE; ls {:?}", hub.path("open"));
    let with =
        |more: &[&str]| hub.run(&[&ALL[..], &["--gate", &gate, "--gate-timeout", "0s"], more].concat());
    let held = with(&[]);
    held.ends(7, &["gate: asked for gw1\n", "stopped: the gate held for too long (--gate-timeout)"]);
    assert!(held.stdout.contains("3 devices: 3 not started\n"), "{held:#?}");
    assert!(fleet.got().is_empty());
    fs::write(hub.path("open"), "").unwrap();
    // The journal remembers the gate.
    let opened = resume(&hub, &[]);
    opened.ends(0, &["gate: asked for gw1\n", "gate: asked for gw2\n", "gate: asked for gw3\n"]);
    assert!(!opened.stdout.contains("asked for"), "{opened:#?}");
    assert_eq!(fleet.got().len(), 3);
}

#[test]
fn those_that_failed_are_asked_again_by_another_id() {
    let fleet = Fleet::default();
    let state = Arc::new(Mutex::new(true));
    let refuses = state.clone();
    let hub = fleet.hub(3, move |device| match device {
        "gw2" if *refuses.lock().unwrap() => refused(device),
        _ => None,
    });
    let care = ["--canary", "0", "--max-failures", "all", "--id", "r-1"];
    hub.run(&[&ALL[..], &care].concat()).ends(7, &[]);
    *state.lock().unwrap() = false;
    let resumed = resume(&hub, &[]);
    assert!(resumed.stdout.contains("3 devices: 2 completed, 1 refused\n"), "not without --retry-failed");
    resume(&hub, &["--retry-failed"]).ends(0, &["1 devices are asked again, id ", "gw2: completed in"]);
    let ids = fleet.0.0.lock().unwrap().got.clone();
    assert_eq!((&ids["gw1"][..], &ids["gw3"][..]), (&[json!("r-1")][..], &[json!("r-1")][..]));
    assert!(ids["gw2"].len() == 1 && ids["gw2"][0] != "r-1", "{ids:?}");
}

#[test]
fn what_is_still_pending_is_not_asked_again() {
    let hub = FakeHub::start(|request, _| match (request.path.as_str(), request.is_call()) {
        ("/devices/query", _) => HttpResponse::ok(json!([{"deviceId": "gw1"}])),
        (_, true) => refused("").unwrap(),
        _ => HttpResponse::twin(json!({"agent": {}, "reboot": {"id": "r-1", "status": "waiting"}})),
    });
    hub.run(&[&ALL[..], &["--id", "r-1"]].concat()).ends(3, &[]);
    resume(&hub, &["--retry-failed"])
        .ends(3, &["gw1: request r-1 is still pending there, it is not asked again"]);
    assert_eq!(hub.requests().iter().filter(|request| request.is_call()).count(), 1);
}

#[test]
fn the_overall_line_stays_on_the_screen() {
    let fleet = Fleet::default();
    let hub = fleet.hub(40, |_| None);
    let lost: Vec<String> = (4..=40).map(|n| format!("gw{n}")).collect();
    fleet.lose(&lost.iter().map(String::as_str).collect::<Vec<_>>());
    let options = ["--canary", "0", "--max-failures", "all", "--max-in-flight", "40", "--wait-timeout", "3s"];
    let shown = on_terminal_of(100, hub.command(&[&ALL[..], &options].concat()), "");
    assert_eq!(shown.code, 7);
    assert!(shown.screen.contains("3 of 40 done"), "{shown:#?}");
    // Colour is for terminals, and only where nobody minds.
    assert!(shown.screen.contains("\u{1b}[32mgw1: completed in"), "{shown:#?}");
    let mut plain = hub.command(&["reboot", "gw1", "--interval", "10ms"]);
    plain.env("NO_COLOR", "1");
    let plain = on_terminal_of(100, plain, "");
    assert!(plain.screen.contains("gw1: completed in") && !plain.screen.contains("\u{1b}[32m"), "{plain:#?}");
}

#[test]
fn a_report_of_the_run_is_one_page() {
    let hub = Fleet::default().hub(3, |device| if device == "gw2" { refused(device) } else { None });
    let page = hub.path("run.html");
    let options = ["--canary", "0", "--operator", "<alice>", "--report", page.to_str().unwrap()];
    hub.run(&[&ALL[..], &options].concat()).ends(7, &["report "]);
    let page = fs::read_to_string(page).unwrap();
    let title = "<h1>Reboot of 3 devices: 2 completed, 1 refused</h1>";
    assert!(page.contains(title) && page.contains("<dd>&lt;alice&gt;</dd>"), "{page}");
    assert!(
        page.contains("<td>gw2</td><td></td><td>refused</td><td>the device refused with status 423"),
        "{page}"
    );
    // Afterwards as well, and without a hub.
    let path = journal(&hub);
    let later = Ran::from(ctl(&["report", path.to_str().unwrap()]).output().unwrap());
    later.ends(0, &[]);
    assert_eq!(later.stdout, page);
    Ran::from(ctl(&["report", "/nonexistent"]).output().unwrap()).ends(2, &["/nonexistent: No such file"]);
    // A report that cannot be written takes nothing from the run.
    let again = resume(&hub, &["--report", "/nonexistent/run.html"]);
    again.ends(7, &["--report /nonexistent/run.html: No such file"]);
    hub.run(&["reboot", "gw1", "--report", "x.html"]).ends(2, &["--report"]);
}
