//! The emulator as the hub, and the operator's tool pointed at it. Whatever
//! starts an emulator in Rust does it here, and its ready line is read here.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::{Ran, Transcript, program};

/// A running emulator; killed when it is dropped.
#[derive(Debug)]
pub struct Hub {
    child: Child,
    data: PathBuf,
    /// What `data` is in, unless the caller keeps that directory.
    home: Option<TempDir>,
    /// What the emulator logs, its ready line apart.
    pub log: Transcript,
    /// The port of MQTT over TLS, at 127.0.0.1.
    pub mqtt_port: u16,
    /// The port of REST and of MQTT over WebSocket, at 127.0.0.1.
    pub https_port: u16,
}

/// An emulator that was stopped, with its data.
#[derive(Debug)]
pub struct StoppedHub {
    data: PathBuf,
    home: Option<TempDir>,
    mqtt_port: u16,
    https_port: u16,
}

impl Hub {
    /// A new hub with the device `gw1`, on free ports, in a directory that goes
    /// when the hub does.
    pub fn start() -> Self {
        Hub::start_with(&[])
    }

    /// A new hub as [`Hub::start`] makes it, with these further options of
    /// `iotdm-emulator serve`.
    pub fn start_with(options: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut hub = Hub::start_in(&home.path().join("hub"), &[&["--device", "gw1"], options].concat());
        hub.home = Some(home);
        hub
    }

    /// A hub on `data`, a directory that the caller keeps, with only these
    /// options; on free ports unless they name others.
    pub fn start_in(data: &Path, options: &[&str]) -> Self {
        Hub::serve(&program("iotdm-emulator"), data, options, Stdio::piped())
    }

    /// A hub of the build `program`, to be measured: nobody reads its log, so
    /// that reading is no part of the measurement.
    pub fn measured(program: &Path, data: &Path, options: &[&str]) -> Self {
        Hub::serve(program, data, options, Stdio::null())
    }

    fn serve(program: &Path, data: &Path, options: &[&str], log: Stdio) -> Self {
        let mut command = Command::new(program);
        command.arg("serve").arg("--data").arg(data).args(options);
        for port in ["--mqtt-port", "--https-port"] {
            if !options.contains(&port) {
                command.args([port, "0"]);
            }
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let stdout = Transcript::of(child.stdout.take().unwrap());
        let log = child.stderr.take().map(Transcript::of).unwrap_or_default();
        let mut hub = Hub { child, data: data.to_owned(), home: None, log, mqtt_port: 0, https_port: 0 };
        // An emulator that ends instead fails this at once, with its log.
        let ready = stdout.wait_for("ready ");
        let words: Vec<&str> = ready.split(' ').collect();
        let ["ready", mqtt, https, place] = words[..] else { panic!("no ready line: {ready:?}") };
        assert_eq!(place.strip_prefix("data=").map(Path::new), Some(data), "{ready:?}");
        (hub.mqtt_port, hub.https_port) = (port(mqtt, "mqtts="), port(https, "https="));
        hub
    }

    /// Ends the hub without giving it time to do anything more, and keeps its
    /// data and its ports.
    pub fn stop(mut self) -> StoppedHub {
        self.kill();
        let (mqtt_port, https_port) = (self.mqtt_port, self.https_port);
        StoppedHub { data: std::mem::take(&mut self.data), home: self.home.take(), mqtt_port, https_port }
    }

    /// Ends the hub at once, as a power cut would end the process.
    pub fn kill(&mut self) {
        assert_eq!(self.signal(Signal::SIGKILL), None, "the emulator had ended before");
    }

    /// Sends a signal that ends the hub and waits for its end; the exit code, or
    /// none where the signal itself ended the process.
    pub fn signal(&mut self, signal: Signal) -> Option<i32> {
        kill(Pid::from_raw(self.pid().try_into().unwrap()), signal).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.signal().is_none_or(|by| by == signal as i32), "{status}");
        status.code()
    }

    /// The id of the emulator's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The emulator's data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The text of a file in the data directory.
    pub fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.data.join(name)).unwrap()
    }

    /// The hub's CA.
    pub fn ca_file(&self) -> PathBuf {
        self.data.join("ca.pem")
    }

    /// The connection string of `gw1`.
    pub fn device_connection_string(&self) -> String {
        self.file("devices/gw1").trim().to_owned()
    }

    /// `iotdm-ctl` with this hub, not yet started.
    pub fn ctl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("iotdm-ctl"));
        command
            .arg("--connection-string-file")
            .arg(self.data.join("service-connection-string"))
            .arg("--ca-file")
            .arg(self.ca_file())
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// Runs `iotdm-ctl` to its end.
    pub fn ctl(&self, arguments: &[&str]) -> Ran {
        self.ctl_command(arguments).output().unwrap().into()
    }

    /// Calls a method of `gw1` with a raw JSON payload; status and payload of
    /// the reply.
    pub fn invoke(&self, method: &str, payload: &str) -> (i64, Value) {
        let reply = self.ctl(&["-o", "json", "invoke", "gw1", method, "--payload", payload]).json();
        (reply["status"].as_i64().unwrap(), reply["payload"].clone())
    }

    /// The twin of `gw1` as the service shows it.
    pub fn twin(&self) -> Value {
        self.ctl(&["-o", "json", "twin", "show", "gw1"]).json()
    }

    /// The reported properties of `gw1`.
    pub fn reported(&self) -> Value {
        self.twin()["properties"]["reported"].clone()
    }

    /// Switches a fault on: `iotdm-emulator fault set`.
    pub fn fault(&self, arguments: &[&str]) {
        self.emulator(&[&["fault", "set"], arguments].concat());
    }

    /// Runs a command of `iotdm-emulator` on this hub, which has to succeed;
    /// what it printed.
    pub fn emulator(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(program("iotdm-emulator"));
        let ran: Ran = command.args(arguments).arg("--data").arg(&self.data).output().unwrap().into();
        ran.ends(0, &[]);
        ran.stdout
    }
}

impl StoppedHub {
    /// The same hub again, on the same ports.
    pub fn start(self) -> Hub {
        let [mqtt, https] = [self.mqtt_port, self.https_port].map(|port| port.to_string());
        let mut hub = Hub::start_in(&self.data, &["--mqtt-port", &mqtt, "--https-port", &https]);
        hub.home = self.home;
        hub
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        // The emulator's end may have been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the emulator's log: {:#?}", self.log.lines());
        }
    }
}

/// The port of an address in the ready line, such as `mqtts=127.0.0.1:8883`.
fn port(word: &str, name: &str) -> u16 {
    let address = word.strip_prefix(name).unwrap_or_else(|| panic!("{word:?} in place of {name}"));
    address.rsplit(':').next().unwrap().parse().unwrap()
}
