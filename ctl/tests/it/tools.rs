//! `sas-token`, `completions`, jobs and tables.

use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::common::{FakeHub, HttpRequest, HttpResponse, KEY, Ran, ctl};
use iotdm_proto::SecretKey;
use iotdm_proto::sas::SasToken;
use serde_json::{Value, json};

#[test]
fn tokens_of_the_policy_and_of_a_device() {
    let device_key = "b2xkIHByaW1hcnkga2V5";
    let hub = FakeHub::start(move |_, _| {
        HttpResponse::ok(
            json!({"authentication": {"type": "sas", "symmetricKey": {"primaryKey": device_key}}}),
        )
    });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let policys: SasToken = hub.run(&["sas-token", "--ttl", "10m"]).stdout.trim().parse().unwrap();
    let host = hub.connection_string().split([';', '=']).nth(1).unwrap().to_owned();
    assert!(policys.verify(&KEY.parse::<SecretKey>().unwrap(), now, &host).is_ok());
    assert_eq!(policys.policy(), Some("service"));
    assert!((now + 590..now + 660).contains(&policys.expiry()), "{}", policys.expiry());
    assert!(hub.requests().is_empty());
    let devices = hub.run(&["sas-token", "--device", "gw1", "-o", "json"]).json();
    let devices: SasToken = devices["sasToken"].as_str().unwrap().parse().unwrap();
    assert!(devices.verify(&device_key.parse::<SecretKey>().unwrap(), now, "localhost/devices/gw1").is_ok());
    assert_eq!(devices.policy(), None);
}

#[test]
fn scripts_need_no_hub_and_ask_the_program() {
    for shell in ["bash", "zsh", "fish"] {
        let run = Ran::from(ctl(&["completions", shell]).output().unwrap());
        run.ends(0, &[]);
        assert!(run.stdout.contains("COMPLETE=") && run.stdout.contains("iotdm-ctl"), "{shell}");
    }
    Ran::from(ctl(&["completions", "tcsh"]).output().unwrap()).ends(2, &["tcsh", "bash"]);
    Ran::from(ctl(&["rebot"]).output().unwrap()).ends(2, &["a similar subcommand exists: 'reboot'"]);
}

/// A scheduler with one job, which ends at the second look. The hub has the
/// devices `gw1`, `gw2` and `gw3`, of which queries know the first two.
fn scheduler() -> FakeHub {
    let looks = Mutex::new(0);
    FakeHub::start(move |request, _| {
        let mut looks = looks.lock().unwrap();
        let status = if *looks > 0 { "completed" } else { "running" };
        let counts = json!({"deviceCount": 3, "succeededCount": 1, "failedCount": 2});
        let job = json!({"jobId": "r-1", "type": "scheduleDeviceMethod", "status": status, "deviceJobStatistics": counts});
        let reply = |status: u16, payload: Value| json!({"deviceMethodResponse": {"status": status, "payload": payload}});
        match (request.method.as_str(), request.path.as_str()) {
            ("PUT", _) => HttpResponse::ok(json!({"jobId": "r-1", "status": "queued"})),
            ("GET", "/twins/gw3") => HttpResponse::twin(json!({})),
            ("GET", path) if path.starts_with("/twins/") => HttpResponse::classic(404, "DeviceNotFound"),
            (_, path) if path.starts_with("/jobs/v2/nojob") => {
                HttpResponse::ok(json!({"jobId": "nojob", "type": "unknown", "status": "unknown"}))
            }
            ("POST", "/jobs/v2/r-1/cancel") => {
                HttpResponse::ok(json!({"jobId": "r-1", "status": "cancelled"}))
            }
            ("GET", "/jobs/v2/query") => HttpResponse::ok(json!([job])),
            ("GET", "/jobs/v2/r-1") => {
                *looks += 1;
                HttpResponse::ok(job)
            }
            _ if request.body["query"].as_str().unwrap().contains("FROM devices.jobs") => {
                HttpResponse::ok(json!([
                    {"deviceId": "gw1", "status": "completed", "outcome": reply(200, json!({"id": "r-1"}))},
                    {"deviceId": "gw2", "status": "completed",
                     "outcome": reply(409, json!({"error": {"code": "rebootPending", "message": "r-0 is"}}))},
                    {"deviceId": "gw3", "status": "failed",
                     "error": {"code": "404103-DeviceNotOnline", "description": "it is offline"}},
                ]))
            }
            _ if request.body["query"].as_str().unwrap().contains(" IN ") => {
                HttpResponse::ok(json!([{"deviceId": "gw1"}, {"deviceId": "gw2"}]))
            }
            _ => HttpResponse::ok(json!([{"deviceId": "gw1"}, {"deviceId": "gw2"}, {"deviceId": "gw3"}])),
        }
    })
}

#[test]
fn the_hubs_scheduler_calls_and_is_followed() {
    let hub = scheduler();
    let arguments = [
        "reboot",
        "--where",
        "tags.a = 1",
        "--yes",
        "--job",
        "--id",
        "r-1",
        "--interval",
        "10ms",
        "--operator",
        "me",
    ];
    let run = hub.run(&arguments);
    run.ends(7, &["job r-1: queued", "3 devices, 1 done, 2 failed", "reboot.id = 'r-1'"]);
    assert_eq!(run.stdout.lines().next(), Some("3 devices: 1 accepted, 1 refused, 1 offline"));
    let sent = hub.requests().into_iter().find(|request| request.method == "PUT").unwrap();
    assert_eq!(sent.path, "/jobs/v2/r-1");
    assert_eq!(sent.body["queryCondition"], "tags.a = 1");
    assert_eq!(sent.body["cloudToDeviceMethod"]["payload"], json!({"id": "r-1", "operator": "me"}));
    assert_eq!(sent.body["cloudToDeviceMethod"]["methodName"], "rebootDevice");
    assert!(!hub.path("state").exists(), "the hub remembers");

    let hub = scheduler();
    hub.run(&["reboot", "gw1", "gw3", "--job", "--no-wait", "--id", "r-1"]).ends(0, &["job r-1: queued"]);
    let sent: Vec<HttpRequest> = hub.requests();
    assert_eq!(sent.last().unwrap().body["queryCondition"], "deviceId IN ['gw1', 'gw3']");
}

#[test]
fn the_scheduler_drops_no_device_without_a_word() {
    let job = |hub: &FakeHub, more: &[&str]| {
        hub.run(&[&["reboot", "--job", "--id", "r-1", "--interval", "10ms"], more].concat())
    };
    let hub = scheduler();
    let run = job(&hub, &["gw1", "no'such", "-o", "json"]);
    run.ends(7, &["iotdm-ctl: no'such: no such device"]);
    let outcomes = run.json();
    let of = |device: &str| {
        outcomes.as_array().unwrap().iter().find(|on| on["device"] == device).unwrap()["outcome"].clone()
    };
    assert_eq!((of("gw1"), of("no'such")), (json!("accepted"), json!("noSuchDevice")));
    let sent = hub.requests().into_iter().find(|request| request.method == "PUT").unwrap();
    assert_eq!(sent.body["queryCondition"], "deviceId IN ['gw1']");
    job(&scheduler(), &["gw1", "nosuch", "--no-wait"]).ends(7, &["nosuch: no such device", "job r-1"]);

    let hub = scheduler();
    let run = job(&hub, &["nosuch", "neither"]);
    run.ends(5, &["nosuch: no such device", "neither: no such device"]);
    assert!(run.stdout.starts_with("2 devices: 2 no such device\n"), "{run:#?}");
    assert!(hub.requests().iter().all(|request| request.method != "PUT"), "no job is made");

    // What the condition selected and the job then said nothing about.
    let hub = FakeHub::start(|request, _| match (request.method.as_str(), request.path.as_str()) {
        ("PUT", _) => HttpResponse::ok(json!({"jobId": "r-1", "status": "queued"})),
        ("GET", _) => {
            HttpResponse::ok(json!({"jobId": "r-1", "type": "scheduleDeviceMethod", "status": "completed",
            "deviceJobStatistics": {"deviceCount": 1}}))
        }
        _ if request.body["query"].as_str().unwrap().contains("FROM devices.jobs") => {
            HttpResponse::ok(json!([{"deviceId": "gw1", "status": "completed",
                "outcome": {"deviceMethodResponse": {"status": 200, "payload": {}}}}]))
        }
        _ => HttpResponse::ok(json!([{"deviceId": "gw1"}, {"deviceId": "gw2"}])),
    });
    let run = job(&hub, &["--where", "tags.a = 1", "--yes", "-o", "json"]);
    run.ends(7, &[]);
    assert_eq!(run.json()[1]["outcome"], "notStarted");
    assert_eq!(run.json()[1]["error"], "the hub's job did not come to it");
}

#[test]
fn ids_and_answers_that_are_no_jobs() {
    let hub = scheduler();
    for id in ["Reboot_1", "r.1", "r:1"] {
        hub.run(&["reboot", "gw1", "--job", "--id", id]).ends(2, &["--job with --id", "a-z, 0-9, - and '"]);
        hub.run(&["job", "show", id]).ends(2, &["a-z, 0-9, - and '"]);
        hub.run(&["job", "cancel", id]).ends(2, &["a-z, 0-9, - and '"]);
    }
    assert!(hub.requests().is_empty());
    for command in ["show", "cancel"] {
        let run = hub.run(&["job", command, "nojob"]);
        run.ends(1, &["job nojob", "404 JobNotFound, \"it has no job nojob\"", "; see iotdm-ctl job list"]);
        assert_eq!(run.stdout, "");
    }
}

#[test]
fn what_is_too_long_for_a_hub_is_not_sent() {
    let hub = scheduler();
    let list = hub.path("list");
    std::fs::write(&list, (0..1000).map(|n| format!("gw{n:04}\n")).collect::<String>()).unwrap();
    let arguments = ["reboot", "--devices-from", list.to_str().unwrap(), "--yes", "--job"];
    hub.run(&arguments)
        .ends(2, &["--job: the query or condition has 10012 characters, and a hub takes 8192"]);
    let long = format!("SELECT * FROM devices WHERE deviceId = '{}'", "x".repeat(8192));
    hub.run(&["query", &long]).ends(2, &["select by a tag"]);
    assert!(hub.requests().is_empty());
}

#[test]
fn jobs_are_listed_shown_and_cancelled() {
    let hub = scheduler();
    let list = hub.run(&["job", "list"]).stdout;
    assert_eq!(
        list,
        "JOB  TYPE                  STATUS   START  DEVICES  SUCCEEDED  FAILED\n\
         r-1  scheduleDeviceMethod  running  -      3        1          2\n"
    );
    let show = hub.run(&["job", "show", "r-1"]).stdout;
    assert!(show.contains("gw3     failed     -      it is offline\n"), "{show}");
    assert!(show.contains("gw2     completed  409    r-0 is\n"), "{show}");
    assert_eq!(hub.run(&["job", "show", "r-1", "-o", "json"]).json()["devices"][0]["deviceId"], "gw1");
    assert_eq!(hub.run(&["job", "cancel", "r-1"]).stdout, "r-1: cancelled\n");
}

#[test]
fn the_newest_jobs_come_first() {
    let hub = FakeHub::start(|request, _| {
        let job = |id: &str, status: &str, made: &str| json!({"jobId": id, "type": "scheduleDeviceMethod", "status": status, "createdTime": made});
        match request.header("x-ms-continuation") {
            None => HttpResponse::ok(json!([
                job("a", "completed", "2026-11-20T10:00:00Z"),
                job("b", "running", "2026-11-22T10:00:00.5Z"),
            ]))
            .with("x-ms-continuation", "2"),
            Some(_) => HttpResponse::ok(json!([
                {"jobId": "c", "type": "scheduleUpdateTwin", "status": "queued", "startTime": "2026-11-22T12:00:00+01:00"},
                job("d", "completed", "2026-11-21T10:00:00Z"), {"jobId": "e", "type": "export", "status": "completed"},
            ])),
        }
    });
    let ids = |more: &[&str]| {
        let jobs = hub.run(&[&["job", "list", "-o", "json"], more].concat()).json();
        jobs.as_array()
            .unwrap()
            .iter()
            .map(|job| job["jobId"].as_str().unwrap().to_owned())
            .collect::<String>()
    };
    assert_eq!(ids(&[]), "cbdae");
    assert_eq!(ids(&["--top", "2"]), "cb");
    assert_eq!(ids(&["--status", "completed"]), "dae");
    assert_eq!(ids(&["--status", "Completed", "--type", "scheduleDeviceMethod", "--top", "1"]), "d");
    let csv = hub.run(&["job", "list", "-o", "csv", "--top", "1", "--status", "running"]).stdout;
    assert_eq!(csv.lines().next(), Some("JOB,TYPE,STATUS,START,DEVICES,SUCCEEDED,FAILED"));
    assert!(csv.lines().nth(1).unwrap().starts_with("b,scheduleDeviceMethod,running,"), "{csv}");
}

#[test]
fn tables_as_csv_in_the_order_selected() {
    let hub = FakeHub::start(|request, _| match request.header("x-ms-continuation") {
        None => HttpResponse::ok(json!([{"b": "x,\"y\"", "a": 1}])).with("x-ms-continuation", "2"),
        Some(_) => HttpResponse::ok(json!([{"a": null}])),
    });
    let run = hub.run(&["query", "SELECT b, tags.a FROM devices", "-o", "csv"]);
    run.ends(0, &[]);
    assert_eq!(run.stdout, "b,a\n\"x,\"\"y\"\"\",1\n,\n");
    let none = FakeHub::start(|_, _| HttpResponse::ok(json!([])));
    assert_eq!(none.run(&["query", "SELECT b, tags.a FROM devices", "-o", "csv"]).stdout, "b,a\n");
    assert_eq!(none.run(&["query", "SELECT * FROM devices", "-o", "csv"]).stdout, "");
    hub.run(&["twin", "show", "gw1", "-o", "csv"]).ends(2, &["--output csv is for query"]);
    hub.run(&["query", "--ready-made", "unclean"]).ends(0, &[]);
    assert!(hub.requests().last().unwrap().body["query"].as_str().unwrap().contains("cause = 'unclean'"));
    hub.run(&["query"]).ends(2, &["--ready-made", "SQL"]);
}

#[test]
fn device_ids_are_completed_from_the_hub() {
    let hub = FakeHub::start(|_, _| {
        HttpResponse::ok(json!([{"deviceId": "gw1"}, {"deviceId": "gw2"}, {"deviceId": "pi"}]))
    });
    let complete = |line: &[&str], string: &str| {
        let typed = format!("iotdm-ctl {}", line.join(" "));
        let mut shell = ctl(&["--", &typed, line.last().unwrap()]);
        shell.env("COMPLETE", "bash");
        shell.env("IOTHUB_CONNECTION_STRING", string).env("IOTDM_CA_FILE", hub.path("ca.pem"));
        let run = Ran::from(shell.output().unwrap());
        run.ends(0, &[]);
        run.stdout.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let string = hub.connection_string();
    assert_eq!(complete(&["reboot", "--reason", "x", "pi", "gw"], &string), ["gw1", "gw2"]);
    assert_eq!(complete(&["twin", "show", "p"], &string), ["pi"]);
    assert_eq!(hub.lines(), ["POST /devices/query"; 2]);
    // What the user's files have needs no hub.
    let home = tempfile::tempdir().unwrap();
    let at_home = |line: &[&str]| {
        let typed = format!("iotdm-ctl {}", line.join(" "));
        let mut shell = ctl(&["--", &typed, line.last().unwrap()]);
        let run = Ran::from(shell.env("COMPLETE", "bash").env("HOME", home.path()).output().unwrap());
        run.stdout.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let (config, journals) =
        (home.path().join(".config/iotdm"), home.path().join(".local/state/iotdm/reboots"));
    std::fs::create_dir_all(&config).unwrap();
    std::fs::create_dir_all(&journals).unwrap();
    let profile = |name: &str| format!("[hub.{name}]\nconnection_string_file = 'x'\n");
    std::fs::write(config.join("ctl.toml"), ["lab", "prod", "lake"].map(profile).concat()).unwrap();
    assert_eq!(at_home(&["--hub", "la"]), ["lab", "lake"]);
    let names =
        ["20261122T180000-123Z-a.jsonl", "20261123T180000-123Z-b.jsonl"].map(|name| journals.join(name));
    names.iter().for_each(|name| std::fs::write(name, "").unwrap());
    let [older, newer] = names.map(|name| name.display().to_string());
    let begin = format!("{}/", journals.display());
    for command in [&["reboot", "--resume"][..], &["cancel", "--journal"]] {
        assert_eq!(
            at_home(&[command, &[&begin]].concat()),
            [newer.clone(), older.clone()],
            "the newest first"
        );
    }
    // What the program knows itself needs no hub.
    assert_eq!(complete(&["device", "renew"], "nonsense"), ["renew-key"]);
    assert_eq!(complete(&["reboot", "--max-in"], "nonsense"), ["--max-in-flight"]);
    // Whatever is wrong, the line that is being typed stays as it is.
    assert_eq!(complete(&["reboot", "gw"], "nonsense"), [""; 0]);
    // The device that is to be created is not there yet.
    assert_eq!(complete(&["device", "create", "gw"], &string), [""; 0]);
}
