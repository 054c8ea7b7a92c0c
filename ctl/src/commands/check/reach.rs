//! The way to the hub: its name, TCP, and TLS with the hub's certificate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::Report;
use crate::error::Exit;
use crate::hub::Hub;
use crate::hub_error::certificate_remedy;

/// How long each step to the hub may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Name, TCP and TLS; whether all went well.
pub(super) async fn reach(hub: &Hub, report: &mut Report) -> bool {
    let host = hub.endpoint().host.as_str();
    let addresses = match timeout(PATIENCE, lookup_host((host, hub.endpoint().port_or(443)))).await {
        Ok(Ok(addresses)) => addresses.collect::<Vec<_>>(),
        Ok(Err(error)) => {
            return failed(report, "name", format!("{host}: {error}; check HostName and the network's DNS"));
        }
        Err(_) => return failed(report, "name", format!("{host}: no answer in {} s", PATIENCE.as_secs())),
    };
    let shown = addresses.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>().join(", ");
    report.ok("name", format!("{host} is {shown}"));
    let stream = match connect(&addresses).await {
        Ok((stream, address)) => {
            report.ok("tcp", format!("connected to {address}"));
            stream
        }
        Err(why) => {
            return failed(report, "tcp", format!("{why}; check the firewall, or the port in HostName"));
        }
    };
    match handshake(hub, host, stream).await {
        Ok(certified) => report.ok("tls", certified),
        Err(error) => return failed(report, "tls", format!("{error:#}")),
    }
    true
}

fn failed(report: &mut Report, check: &'static str, detail: String) -> bool {
    report.failed(check, detail, Exit::Failure);
    false
}

async fn connect(addresses: &[SocketAddr]) -> Result<(TcpStream, SocketAddr), String> {
    let mut why = "no address".to_owned();
    for address in addresses {
        match timeout(PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok((stream, *address)),
            Ok(Err(error)) => why = format!("{address}: {error}"),
            Err(_) => why = format!("{address}: no answer in {} s", PATIENCE.as_secs()),
        }
    }
    Err(why)
}

/// The version, and whose certificate it is. A proxy that looks into TLS is
/// told by the CA that it names.
async fn handshake(hub: &Hub, host: &str, stream: TcpStream) -> anyhow::Result<String> {
    let name = ServerName::try_from(host.to_owned()).context("HostName")?;
    let connector = TlsConnector::from(Arc::new(hub.tls().clone()));
    let stream = timeout(PATIENCE, connector.connect(name, stream)).await.context("no answer")?;
    let stream = stream.map_err(|error| {
        let remedy = certificate_remedy(&error).unwrap_or_default();
        anyhow::anyhow!("{error}{remedy}")
    })?;
    let connection = stream.get_ref().1;
    let version = connection.protocol_version().and_then(|version| version.as_str()).unwrap_or("TLS");
    let certificates = connection.peer_certificates().unwrap_or_default();
    let issuer = certificates.first().and_then(|certificate| {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        Some(format!(", its CA: {}", certificate.issuer()))
    });
    let version = version.replace("TLSv1_", "TLS 1.");
    Ok(format!("{version}, the certificate is for {host} and trusted{}", issuer.unwrap_or_default()))
}
