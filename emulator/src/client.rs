//! A client of a running emulator's REST interface, for the emulator's own
//! commands.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use iotdm_proto::{ServiceConnectionString, Time, sas};
use reqwest::{Client, Method, Response};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;

use crate::data_dir::DataDir;

/// How long a token is valid: each request gets a token of its own,
/// so that some minutes allow for clocks that differ.
const TOKEN_LIFE: Duration = Duration::from_secs(300);

/// How long the emulator may be silent before a command gives up.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// The directory of a running emulator: `dir`, or the default one.
pub fn directory(dir: Option<PathBuf>) -> Result<DataDir> {
    let path = match dir {
        Some(dir) => dir,
        None => DataDir::default_path()?,
    };
    DataDir::named(&path)
}

/// TLS that trusts the emulator's CA and nothing else.
pub fn tls(dir: &DataDir) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(dir.ca())
        .with_context(|| format!("cannot read {}", dir.ca().display()))?;
    roots.add(ca).with_context(|| format!("{} is damaged", dir.ca().display()))?;
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(tls)
}

/// A running emulator, as one of its policies.
pub struct Emulator {
    service: ServiceConnectionString,
    client: Client,
    token_life: Duration,
}

impl Emulator {
    /// The emulator that runs on `dir`, or on the default directory.
    pub fn open(dir: Option<PathBuf>) -> Result<Self> {
        Emulator::open_for(dir, READ_TIMEOUT)
    }

    /// The emulator that runs on `dir` or on the default directory, which may be
    /// silent for `read_timeout` in its answers.
    pub fn open_for(dir: Option<PathBuf>, read_timeout: Duration) -> Result<Self> {
        let dir = directory(dir)?;
        let file = dir.service_connection_string();
        Emulator::with(&dir, &file, read_timeout)
    }

    /// The provisioning service of the emulator that runs on `dir`.
    pub fn open_provisioning(dir: &DataDir) -> Result<Self> {
        Emulator::with(dir, &dir.policy("provisioningserviceowner"), READ_TIMEOUT)
    }

    /// The emulator that runs on `dir`, as one policy and with tokens of this life.
    pub fn open_as(dir: &DataDir, policy: &str, token_life: Duration) -> Result<Self> {
        Ok(Emulator { token_life, ..Emulator::with(dir, &dir.policy(policy), READ_TIMEOUT)? })
    }

    /// The emulator that runs on `dir` and listens for HTTPS at `https`, whatever its
    /// name resolves to.
    pub fn open_at(dir: &DataDir, https: SocketAddr, read_timeout: Duration) -> Result<Self> {
        Emulator::with_address(dir, &dir.service_connection_string(), Some(https), read_timeout)
    }

    fn with(dir: &DataDir, file: &Path, read_timeout: Duration) -> Result<Self> {
        Emulator::with_address(dir, file, None, read_timeout)
    }

    fn with_address(
        dir: &DataDir,
        file: &Path,
        address: Option<SocketAddr>,
        read_timeout: Duration,
    ) -> Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| {
            format!("cannot read {}; is --data the emulator's directory?", file.display())
        })?;
        let service: ServiceConnectionString =
            text.parse().with_context(|| format!("{} is damaged", file.display()))?;
        let client = match address {
            Some(address) => Client::builder().resolve(service.host_name.host.as_str(), address),
            None => Client::builder(),
        };
        let client = client
            .tls_backend_preconfigured(tls(dir)?)
            .no_proxy()
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(read_timeout)
            .build()
            .context("cannot set up HTTPS")?;
        Ok(Emulator { service, client, token_life: TOKEN_LIFE })
    }

    /// The emulator's name, without a port.
    pub fn host(&self) -> &str {
        self.service.host_name.host.as_str()
    }

    /// Sends a request, with JSON in `body`, and returns the response; a refusal
    /// is an error.
    pub async fn request(
        &self,
        path: &str,
        method: Method,
        query: &[(&str, String)],
        body: Option<Value>,
    ) -> Result<Response> {
        let host = self.service.host_name.to_string();
        let expiry = Time::from(SystemTime::now()).unix_seconds() + self.token_life.as_secs();
        let token = sas::sign(&host, &self.service.key, expiry, Some(&self.service.policy));
        let mut request = self
            .client
            .request(method, format!("https://{host}{path}"))
            .query(query)
            .header("Authorization", token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.with_context(|| format!("no emulator answers at {host}"))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let refusal: Value = response.json().await.unwrap_or_default();
        let message = refusal.get("Message").and_then(Value::as_str).unwrap_or("no reason given");
        bail!("the emulator refused with {status}: {message}")
    }
}
