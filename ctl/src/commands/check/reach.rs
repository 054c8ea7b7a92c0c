//! Checks the way to the hub: its name, TCP, and TLS with the hub's certificate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::line::Lines;
use crate::exit::Exit;
use crate::hub::{HubClient, certificate_remedy};

/// How long each step on the way to the hub may take, as long as the other
/// commands' connections may.
const PATIENCE: Duration = Duration::from_secs(15);

/// Checks name, TCP and TLS, and returns whether all went well. What comes after
/// a failure is not tried.
pub(super) async fn reach(hub: &HubClient, lines: &mut Lines) -> bool {
    let host = hub.endpoint().host.as_str();
    let addresses = match timeout(PATIENCE, lookup_host((host, hub.endpoint().port_or(443)))).await {
        Ok(Ok(addresses)) => addresses.collect::<Vec<_>>(),
        Ok(Err(error)) => {
            return failed(lines, "name", format!("{host}: {error}; check HostName and the network's DNS"));
        }
        Err(_) => return failed(lines, "name", format!("{host}: no answer in {} s", PATIENCE.as_secs())),
    };
    let shown = addresses.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>().join(", ");
    lines.ok("name", format!("{host} is {shown}"));
    let stream = match connect(&addresses).await {
        Ok((stream, address)) => {
            lines.ok("tcp", format!("connected to {address}"));
            stream
        }
        Err(why) => {
            return failed(lines, "tcp", format!("{why}; check the firewall, or the port in HostName"));
        }
    };
    match handshake(hub, host, stream).await {
        Ok(certified) => lines.ok("tls", certified),
        Err(error) => return failed(lines, "tls", format!("{error:#}")),
    }
    true
}

/// Notes a failed check; the way to the hub then ends.
fn failed(lines: &mut Lines, check: &'static str, detail: String) -> bool {
    lines.failed(check, detail, Exit::Failure);
    false
}

/// Connects to the first of the addresses that takes a connection, or says why the
/// last one did not.
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

/// Speaks TLS, and returns its version and whose certificate the hub has. A proxy
/// that looks into TLS is found out by the CA of that certificate.
async fn handshake(hub: &HubClient, host: &str, stream: TcpStream) -> anyhow::Result<String> {
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
