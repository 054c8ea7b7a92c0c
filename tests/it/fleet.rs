//! A fleet of real daemons, some of which refuse, some of which stay away:
//! the tool is killed half-way, goes on, and reboots nobody twice.
//!
//! `IOTDM_FLEET` is the number of devices; a thousand need about 3 GB of
//! memory, `ulimit -n 4096` and seven to nine minutes.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use iotdm_tests::{Hub, program, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// A device, by what it is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Reboots when it is told to.
    Good,
    /// Refuses, for want of a login manager.
    Refusing,
    /// Goes down and does not come back.
    Lost,
    /// Is not connected.
    Offline,
}

struct Fleet {
    home: tempfile::TempDir,
    kinds: Vec<Kind>,
    daemons: Vec<Child>,
    /// How often each device went down, by its daemon's log.
    downs: Arc<Mutex<Vec<usize>>>,
}

/// What a daemon logs when its pretended machine goes down.
const GOES_DOWN: &str = "the simulated machine is down for";

/// The last ones are the bad ones: 2 % refuse, 1 % are lost, 1 % offline.
fn kinds(count: usize) -> Vec<Kind> {
    let percent = |share: usize| (count * share).div_ceil(100);
    let (refusing, lost, offline) = (percent(2), percent(1), percent(1));
    let mut kinds = vec![Kind::Good; count - refusing - lost - offline];
    kinds.resize(count - lost - offline, Kind::Refusing);
    kinds.resize(count - offline, Kind::Lost);
    kinds.resize(count, Kind::Offline);
    kinds
}

impl Fleet {
    fn start(hub: &Hub, kinds: Vec<Kind>) -> Self {
        let (home, count) = (tempfile::tempdir().unwrap(), kinds.len());
        let downs = Arc::new(Mutex::new(vec![0; count]));
        let mut fleet = Fleet { home, kinds, daemons: Vec::new(), downs };
        let rows: String = (0..count).map(|n| format!("{},fleet\n", name(n))).collect();
        let (list, strings) = (fleet.path("list"), fleet.path("strings"));
        fs::write(&list, format!("deviceId,tags.group\n{rows}")).unwrap();
        let gateway = format!("localhost:{}", hub.mqtt_port);
        let (list, out) = (list.to_str().unwrap(), strings.to_str().unwrap());
        let made = hub.ctl(&["device", "create", "--from", list, "--gateway", &gateway, "--out", out]);
        assert_eq!(made.code, 0, "{made:?}");
        for (n, string) in fs::read_to_string(&strings).unwrap().lines().enumerate() {
            if fleet.kinds[n] != Kind::Offline {
                let daemon = fleet.daemon(hub, n, string);
                fleet.daemons.push(daemon);
            }
            // Not all at once, so that each part is there in good time.
            if n % 50 == 49 || n + 1 == count {
                wait_until("the fleet", || connected(hub) == fleet.daemons.len());
            }
        }
        fleet
    }

    fn daemon(&self, hub: &Hub, n: usize, string: &str) -> Child {
        let folder = self.path(&name(n));
        fs::create_dir(&folder).unwrap();
        let secret = folder.join("connection-string");
        fs::write(&secret, string).unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let reboot = match self.kinds[n] {
            Kind::Good => "backend = \"simulate\"\nsimulate_duration = \"1s\"",
            // Longer than the test needs to kill the daemon while its machine is down.
            Kind::Lost => "backend = \"simulate\"\nsimulate_duration = \"60s\"",
            Kind::Refusing | Kind::Offline => "backend = \"logind\"",
        };
        let ca = hub.ca_file();
        let config = format!(
            "[hub]\nconnection_string_file = {secret:?}\nca_file = {ca:?}\nkeep_alive = \"19m\"\n[reboot]\n{reboot}\n"
        );
        let file = folder.join("agentd.toml");
        fs::write(&file, config).unwrap();
        let mut child = Command::new(program("iotdm-agentd"))
            .arg("--config")
            .arg(&file)
            .arg("--state-dir")
            .arg(folder.join("state"))
            .env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={}", self.path("no-bus").display()))
            .env_remove("NOTIFY_SOCKET")
            .env_remove("JOURNAL_STREAM")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (log, pid) = (BufReader::new(child.stderr.take().unwrap()), child.id());
        let (downs, lost) = (Arc::clone(&self.downs), self.kinds[n] == Kind::Lost);
        thread::spawn(move || {
            for _ in log.lines().map_while(Result::ok).filter(|line| line.contains(GOES_DOWN)) {
                downs.lock().unwrap()[n] += 1;
                if lost {
                    kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGKILL).unwrap();
                }
            }
        });
        child
    }

    /// How many devices are of a kind.
    fn count(&self, kind: Kind) -> usize {
        self.kinds.iter().filter(|other| **other == kind).count()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for daemon in &mut self.daemons {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// How many devices are connected and have reported.
fn connected(hub: &Hub) -> usize {
    let sql = "SELECT COUNT() AS n FROM devices WHERE tags.group = 'fleet' AND connectionState = 'Connected' AND \
               IS_DEFINED(properties.reported.boot)";
    let row = hub.ctl(&["query", sql, "-o", "jsonl"]).json();
    row["n"].as_u64().unwrap().try_into().unwrap()
}

fn name(n: usize) -> String {
    format!("fleet-{n:04}")
}

/// The most memory that a running program has had, in KiB.
fn peak_memory(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Starts `iotdm-ctl`, and hands each line of its output to `line` while it
/// runs; its exit code, if `line` lets it end, and its peak of memory in KiB.
fn watch(mut command: Command, mut line: impl FnMut(&str) -> bool) -> (Option<i32>, u64) {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let (pid, mut peak) = (child.id(), 0);
    for text in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
        peak = peak_memory(pid).unwrap_or(peak).max(peak);
        if !line(&text) {
            child.kill().unwrap();
        }
    }
    (child.wait().unwrap().code(), peak)
}

fn only_file(folder: &Path) -> PathBuf {
    let mut files = fs::read_dir(folder).unwrap();
    files.next().unwrap().unwrap().path()
}

#[test]
fn a_killed_run_goes_on_and_reboots_nobody_twice() {
    let count: usize = std::env::var("IOTDM_FLEET").map_or(50, |count| count.parse().unwrap());
    let hub = Hub::start();
    let fleet = Fleet::start(&hub, kinds(count));
    let state = fleet.path("ctl-state");
    let (patience, in_flight) = if count > 100 { ("300s", "100") } else { ("60s", "25") };
    let waiting = ["--wait-timeout", patience, "--interval", "1s", "-o", "jsonl"];
    let with = |arguments: &[&str]| {
        let mut command = hub.ctl_command(&[arguments, &waiting].concat());
        command.env("XDG_STATE_HOME", &state).stderr(fs::File::create(fleet.path("ctl-log")).unwrap());
        command
    };
    let mut ended = 0;
    let all = [
        "reboot",
        "--where",
        "tags.group = 'fleet'",
        "--yes",
        "--max-in-flight",
        in_flight,
        "--canary",
        "5",
        "--max-failures",
        "all",
    ];
    let (killed, first_peak) = watch(with(&all), |_| {
        ended += 1;
        ended < count / 2
    });
    assert_eq!(killed, None, "killed by a signal");

    let journal = only_file(&state.join("iotdm/reboots"));
    let (code, peak) = watch(with(&["reboot", "--resume", journal.to_str().unwrap()]), |_| true);
    let log = fs::read_to_string(fleet.path("ctl-log")).unwrap();
    assert_eq!(code, Some(7), "{log}");
    let outcomes = outcomes(&journal);
    for (kind, outcome) in [
        (Kind::Good, "completed"),
        (Kind::Refusing, "refused"),
        (Kind::Lost, "timedOut"),
        (Kind::Offline, "offline"),
    ] {
        let found = outcomes.iter().filter(|other| *other == outcome).count();
        assert_eq!(found, fleet.count(kind), "{outcome}: {log}");
    }
    for (n, times) in fleet.downs.lock().unwrap().iter().enumerate() {
        let expected = usize::from(matches!(fleet.kinds[n], Kind::Good | Kind::Lost));
        assert_eq!(*times, expected, "{} ({:?})", name(n), fleet.kinds[n]);
    }
    let peak = peak.max(first_peak);
    println!("{count} devices; iotdm-ctl had at most {peak} KiB");
    assert!(peak > 0 && peak < 64 * 1024, "iotdm-ctl had {peak} KiB");
}

/// `IOTDM_OUTAGE` is for how many seconds the hub is away.
#[test]
fn a_hub_that_is_killed_half_way_costs_no_device() {
    let seconds = std::env::var("IOTDM_OUTAGE").map_or(15, |seconds| seconds.parse().unwrap());
    let mut hub = Some(Hub::start());
    let fleet = Fleet::start(hub.as_ref().unwrap(), vec![Kind::Good; 30]);
    let all = ["reboot", "--where", "tags.group = 'fleet'", "--yes", "--interval", "1s", "-o", "jsonl"];
    let mut command = hub.as_ref().unwrap().ctl_command(&all);
    let log = fleet.path("ctl-log");
    command.env("XDG_STATE_HOME", fleet.path("ctl-state")).stderr(fs::File::create(&log).unwrap());
    let mut completed = 0;
    let (code, _) = watch(command, |line| {
        assert_eq!(serde_json::from_str::<Value>(line).unwrap()["outcome"], "completed", "{line}");
        completed += 1;
        if completed == 8 {
            let stopped = hub.take().unwrap().stop();
            // The outage itself, and not something that is waited for.
            thread::sleep(std::time::Duration::from_secs(seconds));
            hub = Some(stopped.start());
        }
        true
    });
    let log = fs::read_to_string(log).unwrap();
    assert_eq!((code, completed), (Some(0), 30), "{log}");
    assert!(log.contains("trying again"), "{log}");
    assert!(fleet.downs.lock().unwrap().iter().all(|downs| *downs == 1), "{:?}", fleet.downs);
}

/// The last outcome that a journal has of each device.
fn outcomes(journal: &Path) -> Vec<String> {
    let mut last = std::collections::BTreeMap::new();
    for line in fs::read_to_string(journal).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        if let Some(ended) = line.get("ended") {
            let text = |key: &str| ended[key].as_str().unwrap().to_owned();
            last.insert(text("device"), text("outcome"));
        }
    }
    last.into_values().collect()
}
