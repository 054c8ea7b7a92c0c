//! `iotdm-emulator fault`: a client of `/emulator/faults`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use iotdm_proto::{ServiceConnectionString, Time, sas};
use reqwest::{Client, Method, Response};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};

use crate::cli::{Fault, FaultKind};
use crate::data_dir::DataDir;

/// How long the token of one request is valid, in seconds.
const TOKEN_LIFE: u64 = 300;

/// Carries out the command against the emulator that runs on the directory.
pub async fn run(fault: Fault) -> Result<()> {
    match fault {
        Fault::Set { device, fault, count, code, delay, data } => {
            let fault = match fault {
                FaultKind::WithholdPuback => "withholdPuback",
                FaultKind::WithholdTwinReply => "withholdTwinReply",
                FaultKind::RefuseConnect => "refuseConnect",
                FaultKind::DropLink => "dropLink",
                FaultKind::ExpireToken => "expireToken",
                FaultKind::DelayMethod => "delayMethod",
                FaultKind::DuplicateMethod => "duplicateMethod",
                FaultKind::ThrottleDevice => "throttleDevice",
                FaultKind::ThrottleService => "throttleService",
            };
            let delay = Duration::try_from_secs_f64(delay).context("--delay is not a number of seconds")?;
            let body = json!({
                "deviceId": device.to_string(),
                "fault": fault,
                "count": count,
                "code": code,
                "milliseconds": u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
            });
            Emulator::open(data.dir)?.request(Method::POST, &[], Some(body)).await?;
        }
        Fault::Throttle { count, data } => {
            let body = json!({ "fault": "throttleService", "count": count });
            Emulator::open(data.dir)?.request(Method::POST, &[], Some(body)).await?;
        }
        Fault::List { data } => {
            let faults = Emulator::open(data.dir)?.request(Method::GET, &[], None).await?;
            println!("{}", faults.text().await.context("the answer broke off")?);
        }
        Fault::Clear { device, data } => {
            let device = device.map(|device| ("deviceId", device.to_string()));
            Emulator::open(data.dir)?.request(Method::DELETE, device.as_slice(), None).await?;
        }
    }
    Ok(())
}

struct Emulator {
    service: ServiceConnectionString,
    client: Client,
}

impl Emulator {
    fn open(dir: Option<PathBuf>) -> Result<Self> {
        let dir = match dir {
            Some(dir) => DataDir::existing(&dir),
            None => DataDir::existing(&DataDir::default_path()?),
        };
        let file = dir.service_connection_string();
        let text = std::fs::read_to_string(&file).with_context(|| {
            format!("cannot read {}; is --data the emulator's directory?", file.display())
        })?;
        let service = text.parse().with_context(|| format!("{} is damaged", file.display()))?;

        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(dir.ca())
            .with_context(|| format!("cannot read {}", dir.ca().display()))?;
        roots.add(ca).with_context(|| format!("{} is damaged", dir.ca().display()))?;
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .timeout(Duration::from_secs(10))
            .build()
            .context("cannot set up HTTPS")?;
        Ok(Emulator { service, client })
    }

    async fn request(
        &self,
        method: Method,
        query: &[(&str, String)],
        body: Option<Value>,
    ) -> Result<Response> {
        let host = self.service.host_name.to_string();
        let expiry = Time::from(SystemTime::now()).unix_seconds() + TOKEN_LIFE;
        let token = sas::sign(&host, &self.service.key, expiry, Some(&self.service.policy));
        let mut request = self
            .client
            .request(method, format!("https://{host}/emulator/faults"))
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
