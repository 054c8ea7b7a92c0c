//! The device daemon as systemd starts it: with a socket to notify, a state
//! directory and a connection string in a file.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::transcript::PATIENCE;
use crate::{Bus, Hub, Ran, Transcript, program};

/// A daemon's home, and the daemon while it runs.
#[derive(Debug)]
pub struct Daemon {
    home: Arc<TempDir>,
    bus: Option<String>,
    environment: Vec<(&'static str, OsString)>,
    child: Option<Child>,
    /// What the daemon logs.
    pub log: Transcript,
    /// What the daemon tells systemd: `READY=1`, `STATUS=…`.
    pub notified: Transcript,
}

impl Daemon {
    /// A daemon for `gw1` of `hub` that pretends to reboot.
    pub fn simulating(hub: &Hub) -> Self {
        Self::new(hub, None, "[reboot]\nbackend = \"simulate\"\nsimulate_duration = \"100ms\"\n")
    }

    /// A daemon for `gw1` of `hub` that asks the login manager on `bus`.
    pub fn with_logind(hub: &Hub, bus: &Bus) -> Self {
        Self::new(hub, Some(bus.address()), "")
    }

    /// A daemon with these further lines of configuration, not yet started.
    pub fn new(hub: &Hub, bus: Option<String>, config: &str) -> Self {
        let home = Arc::new(tempfile::tempdir().unwrap());
        let daemon = Daemon {
            home,
            // An address where nobody is, so that the real system's bus is
            // never asked.
            bus,
            environment: Vec::new(),
            child: None,
            log: Transcript::default(),
            notified: Transcript::default(),
        };
        let secret = daemon.path("connection-string");
        daemon.write_connection_string(&hub.device_connection_string());
        let ca = hub.ca_file();
        let text = format!("[hub]\nconnection_string_file = {secret:?}\nca_file = {ca:?}\n{config}");
        fs::write(daemon.path("agentd.toml"), text).unwrap();
        daemon
    }

    /// Replaces the connection string.
    pub fn write_connection_string(&self, text: &str) {
        let secret = self.path("connection-string");
        fs::write(&secret, text).unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Leaves the daemon without a connection string.
    pub fn forget_connection_string(&self) {
        let file = self.path("agentd.toml");
        let text = fs::read_to_string(&file).unwrap();
        let rest: Vec<&str> =
            text.lines().filter(|line| !line.starts_with("connection_string_file")).collect();
        fs::write(file, rest.join("\n")).unwrap();
    }

    /// Adds a drop-in to the configuration.
    pub fn configure(&self, text: &str) {
        let dir = self.path("agentd.toml.d");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("50-test.toml"), text).unwrap();
    }

    /// Adds to the environment that the daemon is started with.
    pub fn environment(&mut self, more: impl IntoIterator<Item = (&'static str, OsString)>) {
        self.environment.extend(more);
    }

    /// The state directory.
    pub fn state_dir(&self) -> PathBuf {
        self.path("state")
    }

    /// The runtime directory, which outlives the daemon here: nobody removes it.
    pub fn runtime_dir(&self) -> PathBuf {
        self.path("runtime")
    }

    /// Starts the daemon, or starts it again, with new transcripts.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "the daemon runs already");
        let socket = self.path("notify");
        let _ = fs::remove_file(&socket);
        self.notified = listen(&socket);
        let mut command = self.command();
        let mut child = command.env("NOTIFY_SOCKET", &socket).stderr(Stdio::piped()).spawn().unwrap();
        self.log = Transcript::of(child.stderr.take().unwrap());
        self.child = Some(child);
    }

    /// Has the way to the hub tried, beside the daemon if that runs; what was printed.
    pub fn test(&self, options: &[&str]) -> Ran {
        self.command().arg("--test").args(options).output().unwrap().into()
    }

    fn command(&self) -> Command {
        let nobody = format!("unix:path={}", self.path("no-bus").display());
        fs::create_dir_all(self.runtime_dir()).unwrap();
        let mut command = Command::new(program("iotdm-agentd"));
        command
            .arg("--config")
            .arg(self.path("agentd.toml"))
            .arg("--state-dir")
            .arg(self.state_dir())
            .env("DBUS_SYSTEM_BUS_ADDRESS", self.bus.as_ref().unwrap_or(&nobody))
            .env("RUNTIME_DIRECTORY", self.runtime_dir())
            .env_remove("JOURNAL_STREAM")
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null());
        command
    }

    /// Starts the daemon and waits until the hub has its report.
    pub fn start_connected(&mut self, hub: &Hub) {
        self.start();
        self.notified.wait_for("STATUS=connected to");
        let connected = || hub.reported().get("boot").is_some();
        wait_until("the first report", connected);
    }

    /// Waits until the daemon ends by itself.
    pub fn ends(&mut self) -> ExitStatus {
        self.child.take().expect("the daemon does not run").wait().unwrap()
    }

    /// Sends SIGTERM and waits for the end.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM)
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&mut self) -> ExitStatus {
        self.signal(Signal::SIGKILL)
    }

    fn signal(&mut self, signal: Signal) -> ExitStatus {
        let mut child = self.child.take().expect("the daemon does not run");
        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
        child.wait().unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Asks again until `condition` holds; for what only a query can tell.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    // Each round is a whole run of a program, so this does not spin.
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if condition() {
            return;
        }
    }
    panic!("waited in vain for {what}");
}

fn listen(socket: &Path) -> Transcript {
    let socket = UnixDatagram::bind(socket).unwrap();
    let transcript = Transcript::default();
    let writer = transcript.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length) = socket.recv(&mut buffer) {
            String::from_utf8_lossy(&buffer[..length]).lines().for_each(|line| writer.push(line.to_owned()));
        }
    });
    transcript
}
