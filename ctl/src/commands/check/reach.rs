//! Checks the way to the hub: the name, TCP, the proxy where the environment names
//! one, and TLS with the hub's certificate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::line::Lines;
use crate::exit::Exit;
use crate::hub::{HubClient, Proxy, certificate_remedy};

/// How long each step on the way to the hub may take, as long as the other
/// commands' connections may.
const PATIENCE: Duration = Duration::from_secs(15);

/// The most bytes that a proxy's answer to CONNECT may have.
const MOST_BYTES: usize = 16 * 1024;

/// Checks each step, and returns whether all went well. What comes after a failure
/// is not tried.
pub(super) async fn reach(hub: &HubClient, lines: &mut Lines) -> bool {
    let host = hub.endpoint().host.as_str();
    let port = hub.endpoint().port_or(443);
    let proxy = hub.proxy();
    let (first, first_port) = proxy.map_or((host, port), |proxy| (proxy.host.as_str(), proxy.port));
    let (remedy, is) = match proxy {
        None => ("check HostName and the network's DNS", String::new()),
        Some(proxy) => ("check HTTPS_PROXY", format!(", the proxy {proxy}, which looks {host} up")),
    };
    let addresses = match timeout(PATIENCE, lookup_host((first, first_port))).await {
        Ok(Ok(addresses)) => addresses.collect::<Vec<_>>(),
        Ok(Err(error)) => return failed(lines, "name", format!("{first}: {error}; {remedy}")),
        Err(_) => return failed(lines, "name", format!("{first}: no answer in {} s", PATIENCE.as_secs())),
    };
    let shown = addresses.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>().join(", ");
    lines.ok("name", format!("{first} is {shown}{is}"));
    let stream = match connect(&addresses).await {
        Ok((stream, address)) => {
            let is = proxy.map_or("", |_| ", the proxy");
            lines.ok("tcp", format!("connected to {address}{is}"));
            stream
        }
        Err(why) => {
            let remedy = match proxy {
                None => "check the firewall, or the port in HostName".to_owned(),
                Some(proxy) => format!("check the proxy {proxy}, HTTPS_PROXY and NO_PROXY"),
            };
            return failed(lines, "tcp", format!("{why}; {remedy}"));
        }
    };
    let handshaken = match proxy {
        None => handshake(hub, host, stream).await,
        Some(proxy) => match tunnel(hub, proxy, stream, &format!("{host}:{port}")).await {
            Ok(tunnel) => {
                lines.ok("proxy", format!("{proxy} connects to {host}:{port}"));
                handshake(hub, host, tunnel).await
            }
            Err(error) => return failed(lines, "proxy", format!("{proxy}: {error:#}")),
        },
    };
    match handshaken {
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

/// A connection, whatever it leads through.
trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// Has the proxy connect to `target`, a host with its port.
async fn tunnel(
    hub: &HubClient,
    proxy: &Proxy,
    stream: TcpStream,
    target: &str,
) -> anyhow::Result<Box<dyn Stream>> {
    let mut stream: Box<dyn Stream> = match proxy.is_tls {
        false => Box::new(stream),
        true => Box::new(tls(hub, &proxy.host, stream).await?),
    };
    let authorization = proxy.authorization.as_ref();
    let authorization =
        authorization.map_or_else(String::new, |value| format!("Proxy-Authorization: {value}\r\n"));
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{authorization}\r\n");
    let exchange = async {
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            ensure!(answer.len() < MOST_BYTES, "its answer is none of a proxy");
            // Byte by byte, so that nothing of what comes through the tunnel is taken.
            match stream.read_u8().await {
                Ok(byte) => answer.push(byte),
                Err(_) => bail!("it closed the connection; is it an HTTP proxy?"),
            }
        }
        Ok(answer)
    };
    let answer = timeout(PATIENCE, exchange).await.context("no answer")??;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.lines().next().and_then(|line| line.split_once(' '));
    let Some((_, status)) = status.filter(|(version, _)| version.starts_with("HTTP/1.")) else {
        bail!("its answer is none of an HTTP proxy");
    };
    match status.split(' ').next() {
        Some("200") => Ok(stream),
        Some("407") => {
            bail!("it wants other credentials ({status}); write HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT")
        }
        _ => {
            bail!("it does not connect to {target} ({status}); have it allowed, or name the hub in NO_PROXY")
        }
    }
}

/// Speaks TLS with `host`.
async fn tls<S: Stream>(hub: &HubClient, host: &str, stream: S) -> anyhow::Result<TlsStream<S>> {
    let name = ServerName::try_from(host.to_owned()).context("the host's name")?;
    let connector = TlsConnector::from(Arc::new(hub.tls().clone()));
    let stream = timeout(PATIENCE, connector.connect(name, stream)).await.context("no answer")?;
    stream.map_err(|error| {
        let remedy = certificate_remedy(&error).unwrap_or_default();
        anyhow::anyhow!("{error}{remedy}")
    })
}

/// Speaks TLS with the hub, and returns its version and whose certificate the hub
/// has. A proxy that looks into TLS is found out by the CA of that certificate.
async fn handshake(hub: &HubClient, host: &str, stream: impl Stream) -> anyhow::Result<String> {
    let stream = tls(hub, host, stream).await?;
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
