//! The emulator as the hub, and the operator's tool pointed at it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;

use crate::{Transcript, program};

/// A running emulator with the device `gw1`.
#[derive(Debug)]
pub struct Hub {
    child: Child,
    data: Arc<TempDir>,
    /// What it logs.
    pub log: Transcript,
    /// The port of MQTT.
    pub mqtt_port: u16,
    /// The port of REST and of MQTT over WebSocket.
    pub https_port: u16,
}

/// An emulator that was stopped.
#[derive(Debug)]
pub struct StoppedHub {
    data: Arc<TempDir>,
    mqtt_port: u16,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it said besides.
    pub stderr: String,
}

impl Hub {
    /// A new hub on free ports.
    pub fn start() -> Self {
        Self::serve(Arc::new(tempfile::tempdir().unwrap()), 0, &[])
    }

    /// A new hub that lets in devices with certificates of the CA in this file.
    pub fn trusting(ca_file: &Path) -> Self {
        let ca_file = ca_file.to_str().unwrap();
        Self::serve(Arc::new(tempfile::tempdir().unwrap()), 0, &["--x509-ca", ca_file])
    }

    /// Ends it, keeping its data and its port for MQTT.
    pub fn stop(self) -> StoppedHub {
        StoppedHub { data: self.data.clone(), mqtt_port: self.mqtt_port }
    }

    fn serve(data: Arc<TempDir>, mqtt_port: u16, options: &[&str]) -> Self {
        let mut child = Command::new(program("iotdm-emulator"))
            .args(["serve", "--https-port", "0", "--device", "gw1"])
            .args(["--mqtt-port", &mqtt_port.to_string()])
            .args(options)
            .arg("--data")
            .arg(data.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let ready = Transcript::of(child.stdout.take().unwrap());
        let log = Transcript::of(child.stderr.take().unwrap());
        let ready = ready.wait_for("ready mqtts=");
        let port = |name| {
            let address = ready.split_whitespace().find_map(|word| word.strip_prefix(name)).unwrap();
            address.rsplit(':').next().unwrap().parse().unwrap()
        };
        let (mqtt_port, https_port) = (port("mqtts="), port("https="));
        Hub { child, data, log, mqtt_port, https_port }
    }

    /// The emulator's data directory.
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// The hub's CA.
    pub fn ca_file(&self) -> PathBuf {
        self.data().join("ca.pem")
    }

    /// The connection string of `gw1`.
    pub fn device_connection_string(&self) -> String {
        std::fs::read_to_string(self.data().join("devices/gw1")).unwrap().trim().to_owned()
    }

    /// `iotdm-ctl` with this hub, not yet started.
    pub fn ctl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("iotdm-ctl"));
        command
            .arg("--connection-string-file")
            .arg(self.data().join("service-connection-string"))
            .arg("--ca-file")
            .arg(self.ca_file())
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// Runs `iotdm-ctl` to its end.
    pub fn ctl(&self, arguments: &[&str]) -> Ran {
        ran(self.ctl_command(arguments).output().unwrap())
    }

    /// Calls a method of `gw1` with a raw JSON payload; status and payload of
    /// the answer.
    pub fn invoke(&self, method: &str, payload: &str) -> (i64, Value) {
        let ran = self.ctl(&["-o", "json", "invoke", "gw1", method, "--payload", payload]);
        let answer: Value =
            serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("no answer: {ran:?}"));
        (answer["status"].as_i64().unwrap(), answer["payload"].clone())
    }

    /// The twin of `gw1` as the service shows it.
    pub fn twin(&self) -> Value {
        let ran = self.ctl(&["-o", "json", "twin", "show", "gw1"]);
        serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("no twin: {ran:?}"))
    }

    /// Its reported properties.
    pub fn reported(&self) -> Value {
        self.twin()["properties"]["reported"].clone()
    }

    /// Runs `iotdm-emulator fault` on this hub.
    pub fn fault(&self, arguments: &[&str]) {
        self.emulator(&[&["fault", "set"], arguments].concat());
    }

    /// Runs a command of `iotdm-emulator` on this hub; what it printed.
    pub fn emulator(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(program("iotdm-emulator"));
        let ran = ran(command.args(arguments).arg("--data").arg(self.data()).output().unwrap());
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.stdout
    }
}

impl StoppedHub {
    /// The same hub again, on the same port for MQTT.
    pub fn start(self) -> Hub {
        Hub::serve(self.data, self.mqtt_port, &[])
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ran(output: Output) -> Ran {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    }
}
