//! A service manager on a [`Bus`] whose units are as a test wants them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::runtime::Runtime;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, OwnedObjectPath, connection, interface};

use crate::{Bus, Transcript};

/// The service manager, which keeps the names of the calls made to it.
pub struct Systemd {
    /// The calls, a line each.
    pub calls: Transcript,
    state: Arc<Mutex<State>>,
    limit: Limit,
    runtime: Runtime,
    connection: Connection,
}

/// What reboot.target has as `JobTimeoutUSec` and `JobTimeoutAction`.
type Limit = Arc<Mutex<(u64, String)>>;

#[derive(Default)]
struct State {
    system_state: String,
    /// The units by name, with their `ActiveState`.
    units: BTreeMap<String, String>,
}

struct Manager {
    calls: Transcript,
    state: Arc<Mutex<State>>,
}

struct Unit {
    name: String,
    state: Arc<Mutex<State>>,
}

struct RebootTarget {
    limit: Limit,
}

const MANAGER: &str = "/org/freedesktop/systemd1";

/// As `ListUnitsFiltered` gives it: name, description, load, active and sub state,
/// followed unit, path, job, its type, its path.
type Listed = (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl Manager {
    fn subscribe(&self) {
        self.calls.push("Subscribe".to_owned());
    }

    fn load_unit(&self, name: &str) -> OwnedObjectPath {
        self.calls.push(format!("LoadUnit({name})"));
        path(name)
    }

    fn list_units_filtered(&self, states: Vec<String>) -> Vec<Listed> {
        self.calls.push(format!("ListUnitsFiltered({})", states.join(",")));
        let state = self.state.lock().unwrap();
        let wanted = state.units.iter().filter(|(_, active)| states.contains(active));
        wanted.map(|(name, active)| listed(name, active)).collect()
    }

    #[zbus(property)]
    fn system_state(&self) -> String {
        self.calls.push("SystemState".to_owned());
        self.state.lock().unwrap().system_state.clone()
    }

    #[zbus(property, name = "RebootWatchdogUSec")]
    fn reboot_watchdog_usec(&self) -> u64 {
        600_000_000
    }

    #[zbus(property)]
    fn n_failed_units(&self) -> u32 {
        let state = self.state.lock().unwrap();
        state.units.values().filter(|active| *active == "failed").count().try_into().unwrap()
    }

    #[zbus(signal)]
    async fn startup_finished(
        emitter: &SignalEmitter<'_>,
        firmware: u64,
        loader: u64,
        kernel: u64,
        initrd: u64,
        userspace: u64,
        total: u64,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: OwnedObjectPath,
        unit: String,
        result: String,
    ) -> zbus::Result<()>;
}

#[interface(name = "org.freedesktop.systemd1.Unit")]
impl Unit {
    #[zbus(property)]
    fn active_state(&self) -> String {
        self.state.lock().unwrap().units.get(&self.name).map_or("inactive", String::as_str).to_owned()
    }
}

#[interface(name = "org.freedesktop.systemd1.Unit")]
impl RebootTarget {
    #[zbus(property, name = "JobTimeoutUSec")]
    fn job_timeout_usec(&self) -> u64 {
        self.limit.lock().unwrap().0
    }

    #[zbus(property)]
    fn job_timeout_action(&self) -> String {
        self.limit.lock().unwrap().1.clone()
    }
}

fn listed(name: &str, active: &str) -> Listed {
    let text = |text: &str| text.to_owned();
    let none = OwnedObjectPath::try_from("/").unwrap();
    let (load, sub) = (text("loaded"), text(active));
    (text(name), text("A unit"), load, text(active), sub, text(""), path(name), 0, text(""), none)
}

/// The unit's object path: what is neither letter nor digit becomes its code.
fn path(name: &str) -> OwnedObjectPath {
    let escaped: String = name
        .bytes()
        .map(|byte| match byte.is_ascii_alphanumeric() {
            true => char::from(byte).to_string(),
            false => format!("_{byte:02x}"),
        })
        .collect();
    OwnedObjectPath::try_from(format!("{MANAGER}/unit/{escaped}")).unwrap()
}

impl Bus {
    /// Puts a service manager on the bus whose boot is this far, and which knows
    /// these units.
    pub fn systemd(&self, system_state: &str, units: &[&str]) -> Systemd {
        let calls = Transcript::default();
        let state = Arc::new(Mutex::new(State {
            system_state: system_state.to_owned(),
            units: units.iter().map(|name| ((*name).to_owned(), "active".to_owned())).collect(),
        }));
        // As Debian has it.
        let limit = Arc::new(Mutex::new((1_800_000_000, "reboot-force".to_owned())));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let connection = runtime.block_on(async {
            let manager = Manager { calls: calls.clone(), state: state.clone() };
            let target = RebootTarget { limit: limit.clone() };
            let mut builder = connection::Builder::address(self.address().as_str())
                .name("org.freedesktop.systemd1")
                .serve_at(MANAGER, manager)
                .serve_at(path("reboot.target"), target);
            for name in units {
                let unit = Unit { name: (*name).to_owned(), state: state.clone() };
                builder = builder.serve_at(path(name), unit);
            }
            builder.build().await.unwrap()
        });
        Systemd { calls, state, limit, runtime, connection }
    }
}

impl Systemd {
    /// What limits the job of reboot.target, in microseconds, and what happens then.
    pub fn limit_reboots(&self, microseconds: u64, action: &str) {
        *self.limit.lock().unwrap() = (microseconds, action.to_owned());
    }

    /// The boot is over.
    pub fn startup_finished(&self, system_state: &str) {
        self.state.lock().unwrap().system_state = system_state.to_owned();
        self.runtime.block_on(async {
            let manager = self.manager().await;
            Manager::startup_finished(manager.signal_emitter(), 0, 0, 1, 0, 2, 3).await.unwrap();
        });
    }

    /// Units change their state, one after the other, and then systemd says so.
    pub fn set_units(&self, changes: &[(&str, &str)]) {
        for (name, active) in changes {
            self.state.lock().unwrap().units.insert((*name).to_owned(), (*active).to_owned());
        }
        self.runtime.block_on(async {
            for (name, _) in changes {
                let server = self.connection.object_server();
                let unit = server.interface::<_, Unit>(path(name)).await.unwrap();
                unit.get().await.active_state_changed(unit.signal_emitter()).await.unwrap();
            }
            let manager = self.manager().await;
            manager.get().await.n_failed_units_changed(manager.signal_emitter()).await.unwrap();
        });
    }

    /// What a timer brings about so many times: jobs that come and go, and a unit's
    /// states.
    pub fn timer_elapses(&self, service: &str, times: usize) {
        self.runtime.block_on(async {
            let manager = self.manager().await;
            let server = self.connection.object_server();
            let unit = server.interface::<_, Unit>(path(service)).await.unwrap();
            for number in 0..times {
                unit.get().await.active_state_changed(unit.signal_emitter()).await.unwrap();
                let job = OwnedObjectPath::try_from(format!("{MANAGER}/job/{number}")).unwrap();
                let (id, done) = (number.try_into().unwrap(), "done".to_owned());
                let emitter = manager.signal_emitter();
                Manager::job_removed(emitter, id, job, service.to_owned(), done).await.unwrap();
            }
        });
    }

    async fn manager(&self) -> zbus::object_server::InterfaceRef<Manager> {
        self.connection.object_server().interface(MANAGER).await.unwrap()
    }
}

impl std::fmt::Debug for Systemd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Systemd").field("calls", &self.calls).finish_non_exhaustive()
    }
}
