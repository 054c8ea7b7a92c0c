//! Clients for the emulator that share no code with its server side but
//! rumqttc's codec.

pub mod certificate;
pub mod device;
pub mod raw;
pub mod service;
pub mod websocket;

use std::sync::Arc;
use std::time::Duration;

use iotdm_tests::{Hub, program};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::process::Command;

/// What takes longer has failed: enough for a loaded machine, and less than the
/// runner's limit for a test.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The hub's CA.
pub fn roots(hub: &Hub) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(hub.ca_file()).unwrap()).unwrap();
    roots
}

/// TLS that trusts the hub's CA and nothing else.
pub fn tls(hub: &Hub) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_root_certificates(roots(hub)).with_no_client_auth())
}

/// The built program.
pub fn command() -> Command {
    Command::new(program("iotdm-emulator"))
}

/// Seconds since the Unix epoch.
pub fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}
