//! A private message bus with a login manager that does as it is told.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::runtime::Runtime;
use zbus::wire::OwnedFd;
use zbus::{Connection, connection, fdo, interface};

use crate::Transcript;

/// A `dbus-daemon` of its own.
#[derive(Debug)]
pub struct Bus {
    child: Child,
    address: String,
    _dir: TempDir,
}

/// A login manager on a [`Bus`], which keeps the names of the calls made to it.
pub struct Logind {
    /// The calls, a line each.
    pub calls: Transcript,
    /// What `CanReboot` answers.
    pub can_reboot: Arc<Mutex<String>>,
    /// Whether `Inhibit` gives a lock.
    pub gives_locks: Arc<Mutex<bool>>,
    /// A shutdown in its schedule: its kind, and when in µs since 1970.
    pub scheduled: Arc<Mutex<(String, u64)>>,
    /// What it shows with a shutdown.
    pub wall_message: Arc<Mutex<String>>,
    inhibitors: Arc<Mutex<Vec<Inhibitor>>>,
    runtime: Runtime,
    connection: Connection,
}

/// A lock as `ListInhibitors` gives it: what, who, why, mode, uid, pid.
pub type Inhibitor = (String, String, String, String, u32, u32);

struct Manager {
    calls: Transcript,
    can_reboot: Arc<Mutex<String>>,
    gives_locks: Arc<Mutex<bool>>,
    inhibitors: Arc<Mutex<Vec<Inhibitor>>>,
    scheduled: Arc<Mutex<(String, u64)>>,
    wall_message: Arc<Mutex<String>>,
}

#[interface(name = "org.freedesktop.login1.Manager")]
impl Manager {
    fn can_reboot(&self) -> String {
        self.calls.push("CanReboot".to_owned());
        self.can_reboot.lock().unwrap().clone()
    }

    fn reboot(&self, interactive: bool) -> fdo::Result<()> {
        self.calls.push(format!("Reboot({interactive})"));
        match self.can_reboot.lock().unwrap().as_str() {
            "yes" => Ok(()),
            other => Err(fdo::Error::AccessDenied(format!("polkit says {other}"))),
        }
    }

    fn inhibit(&self, what: String, who: String, why: String, mode: String) -> fdo::Result<OwnedFd> {
        self.calls.push(format!("Inhibit({what}, {who}, {mode}): {why}"));
        if !*self.gives_locks.lock().unwrap() {
            return Err(fdo::Error::AccessDenied("no locks are given".to_owned()));
        }
        let (lock, held) =
            std::os::unix::net::UnixStream::pair().map_err(|error| fdo::Error::Failed(error.to_string()))?;
        let calls = self.calls.clone();
        std::thread::spawn(move || {
            // Returns when the other side lets the lock go.
            let _ = std::io::Read::read(&mut &held, &mut [0]);
            calls.push("lock released".to_owned());
        });
        Ok(std::os::fd::OwnedFd::from(lock).into())
    }

    fn set_wall_message(&self, message: String, _enable: bool) {
        self.calls.push(format!("SetWallMessage({message})"));
        *self.wall_message.lock().unwrap() = message;
    }

    #[zbus(property)]
    fn wall_message(&self) -> String {
        self.wall_message.lock().unwrap().clone()
    }

    fn cancel_scheduled_shutdown(&self) -> bool {
        let (_, usec) = std::mem::take(&mut *self.scheduled.lock().unwrap());
        self.calls.push("CancelScheduledShutdown".to_owned());
        usec != 0
    }

    #[zbus(property)]
    fn scheduled_shutdown(&self) -> (String, u64) {
        self.scheduled.lock().unwrap().clone()
    }

    fn list_inhibitors(&self) -> Vec<Inhibitor> {
        self.inhibitors.lock().unwrap().clone()
    }

    #[zbus(property)]
    fn block_inhibited(&self) -> String {
        let blocks = |(what, _, _, mode, ..): &Inhibitor| (mode == "block").then(|| what.clone());
        self.inhibitors.lock().unwrap().iter().filter_map(blocks).collect::<Vec<_>>().join(":")
    }

    #[zbus(property)]
    fn preparing_for_shutdown(&self) -> bool {
        false
    }

    #[zbus(signal)]
    async fn prepare_for_shutdown(
        emitter: &zbus::object_server::SignalEmitter<'_>,
        start: bool,
    ) -> zbus::Result<()>;
}

impl Bus {
    /// A bus without anybody on it.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::at(&format!("unix:path={}", dir.path().join("bus").display()), dir)
    }

    /// The same at this address, which is in `dir`.
    pub fn at(address: &str, dir: TempDir) -> Self {
        let mut child = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--print-address", "--address", address])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("dbus-daemon is needed: apt-get install dbus-daemon");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Bus { child, address: line.trim().to_owned(), _dir: dir }
    }

    /// The address where the bus listens.
    pub fn address(&self) -> String {
        self.address.clone()
    }

    /// Puts a login manager on the bus that is willing and has no locks.
    pub fn logind(&self) -> Logind {
        let calls = Transcript::default();
        let can_reboot = Arc::new(Mutex::new("yes".to_owned()));
        let gives_locks = Arc::new(Mutex::new(true));
        let inhibitors = Arc::new(Mutex::new(Vec::new()));
        let scheduled = Arc::new(Mutex::new((String::new(), 0)));
        let wall_message = Arc::new(Mutex::new(String::new()));
        let manager = Manager {
            calls: calls.clone(),
            can_reboot: can_reboot.clone(),
            gives_locks: gives_locks.clone(),
            inhibitors: inhibitors.clone(),
            scheduled: scheduled.clone(),
            wall_message: wall_message.clone(),
        };
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let connection = runtime.block_on(async {
            connection::Builder::address(self.address.as_str())
                .name("org.freedesktop.login1")
                .serve_at("/org/freedesktop/login1", manager)
                .build()
                .await
                .unwrap()
        });
        Logind { calls, can_reboot, gives_locks, scheduled, wall_message, inhibitors, runtime, connection }
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Logind {
    /// Replaces the locks that others hold, and says so.
    pub fn set_inhibitors(&self, inhibitors: Vec<Inhibitor>) {
        *self.inhibitors.lock().unwrap() = inhibitors;
        self.runtime.block_on(async {
            let server = self.connection.object_server();
            let manager = server.interface::<_, Manager>("/org/freedesktop/login1").await.unwrap();
            manager.get().await.block_inhibited_changed(manager.signal_emitter()).await.unwrap();
        });
    }

    /// Says that a shutdown begins, or that it was called off.
    pub fn prepare_for_shutdown(&self, start: bool) {
        self.runtime.block_on(async {
            let server = self.connection.object_server();
            let manager = server.interface::<_, Manager>("/org/freedesktop/login1").await.unwrap();
            Manager::prepare_for_shutdown(manager.signal_emitter(), start).await.unwrap();
        });
    }
}

impl std::fmt::Debug for Logind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Logind").field("calls", &self.calls).finish_non_exhaustive()
    }
}
