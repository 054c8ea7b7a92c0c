//! The emulator's binary, and clients for it that share no code with its
//! server side but rumqttc's codec.

pub mod certificate;
pub mod device;
pub mod service;
pub mod websocket;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// What takes longer has failed.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A running emulator; killed when dropped.
pub struct Emulator {
    pub dir: PathBuf,
    pub mqtt_port: u16,
    pub https_port: u16,
    pub child: Child,
    _temporary: Option<tempfile::TempDir>,
}

impl Emulator {
    /// One with a directory of its own and the device `gw1`.
    pub async fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let mut emulator = Emulator::start(&temporary.path().join("hub"), &["--device", "gw1"]).await;
        emulator._temporary = Some(temporary);
        emulator
    }

    /// One on `dir`, on free ports.
    pub async fn start(dir: &Path, options: &[&str]) -> Self {
        Emulator::start_on(0, dir, options).await
    }

    /// The same on this port for MQTT.
    pub async fn start_on(port: u16, dir: &Path, options: &[&str]) -> Self {
        let mut command = command();
        command.args(["serve", "--mqtt-port", &port.to_string(), "--https-port", "0", "--data"]);
        command.arg(dir).args(options);
        let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap().expect("a ready line");
        let fields: Vec<&str> = line.split(' ').collect();
        let [ready, mqtts, https, data] = fields[..] else { panic!("{line}") };
        let port = |field: &str, key: &str| -> u16 {
            field.strip_prefix(key).unwrap().rsplit(':').next().unwrap().parse().unwrap()
        };
        assert_eq!(ready, "ready");
        assert_eq!(Path::new(data.strip_prefix("data=").unwrap()), dir);
        let (mqtt_port, https_port) = (port(mqtts, "mqtts="), port(https, "https="));
        Emulator { dir: dir.to_owned(), mqtt_port, https_port, child, _temporary: None }
    }

    /// Sends a signal and waits; the exit code.
    pub async fn stop(&mut self, signal: &str) -> Option<i32> {
        let id = self.child.id().expect("still running").to_string();
        assert!(Command::new("kill").args([signal, &id]).status().await.unwrap().success());
        timeout(DEADLINE, self.child.wait()).await.unwrap().unwrap().code()
    }

    /// Ends it at once, as a power cut would for the process.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// A file of its directory.
    pub fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.join(name)).unwrap()
    }

    /// Its CA.
    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.dir.join("ca.pem")).unwrap()).unwrap();
        roots
    }

    /// TLS that trusts its CA and nothing else.
    pub fn tls(&self) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().unwrap();
        Arc::new(config.with_root_certificates(self.roots()).with_no_client_auth())
    }
}

/// The built program.
pub fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_iotdm-emulator"))
}

/// Seconds since the Unix epoch.
pub fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}
