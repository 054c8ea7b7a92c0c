//! Whether an emulator serves: `health`, for whoever runs it in a container.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::Method;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::client::{Emulator, directory};
use crate::data_dir::DataDir;
use crate::output::print_line;

/// How long each of the two listeners may take; a container is asked every few
/// seconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// A CONNECT of another version of MQTT, which is refused before anything else is
/// looked at, and its answer.
const CONNECT: [u8; 10] = [0x10, 8, 0, 4, b'M', b'Q', b'T', b'T', 0, 0];
const CONNACK: [u8; 4] = [0x20, 2, 0, 1];

/// Where an emulator listens, as its data directory says.
#[derive(Debug, PartialEq)]
struct Listening {
    mqtts: SocketAddr,
    https: SocketAddr,
}

/// Fails unless the emulator that runs on `dir`, or on the default directory, answers
/// on both of its ports. The name in its connection strings need not resolve here.
pub async fn run(dir: Option<PathBuf>) -> Result<()> {
    let dir = directory(dir)?;
    let file = dir.listening();
    let text = std::fs::read_to_string(&file).with_context(|| {
        format!("cannot read {}; does an emulator run on this directory?", file.display())
    })?;
    let listening = Listening::parse(&text).with_context(|| format!("{} is damaged", file.display()))?;
    let emulator = Emulator::open_at(&dir, listening.https, PATIENCE)?;
    let silent = |port: &str, address| format!("no answer to {port} at {address} in {PATIENCE:?}");
    let answer = emulator.request("/emulator/faults", Method::GET, &[], None);
    timeout(PATIENCE, answer).await.with_context(|| silent("HTTPS", listening.https))??;
    let answer = ask_mqtt(&dir, &emulator, listening.mqtts);
    timeout(PATIENCE, answer).await.with_context(|| silent("MQTT", listening.mqtts))??;
    print_line(&format!("serving mqtts={} https={}", listening.mqtts, listening.https)).map(drop)
}

async fn ask_mqtt(dir: &DataDir, emulator: &Emulator, address: SocketAddr) -> Result<()> {
    let what = || format!("MQTT does not answer at {address}");
    let name = ServerName::try_from(emulator.host().to_owned()).with_context(what)?;
    let stream = TcpStream::connect(address).await.with_context(what)?;
    let tls = TlsConnector::from(Arc::new(crate::client::tls(dir)?));
    let mut stream = tls.connect(name, stream).await.with_context(what)?;
    stream.write_all(&CONNECT).await.with_context(what)?;
    let mut answer = [0; CONNACK.len()];
    stream.read_exact(&mut answer).await.with_context(what)?;
    if answer != CONNACK {
        bail!("{} is no MQTT server of an emulator", address);
    }
    Ok(())
}

impl Listening {
    /// Reads `mqtts=ADDRESS https=ADDRESS`. Where an emulator listens on all of a
    /// machine's addresses, it is asked on the loopback one.
    fn parse(text: &str) -> Option<Self> {
        let address = |key: &str| {
            let value = text.split_whitespace().find_map(|pair| pair.strip_prefix(key))?;
            let mut address: SocketAddr = value.parse().ok()?;
            match address.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
                IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
                _ => {}
            }
            Some(address)
        };
        Some(Listening { mqtts: address("mqtts=")?, https: address("https=")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_addresses_are_asked_for_on_one_of_them() {
        let parse = |text| Listening::parse(text).map(|all| (all.mqtts.to_string(), all.https.to_string()));
        for (text, mqtts, https) in [
            ("mqtts=127.0.0.1:8883 https=127.0.0.1:8443\n", "127.0.0.1:8883", "127.0.0.1:8443"),
            ("mqtts=0.0.0.0:1 https=[::]:2", "127.0.0.1:1", "[::1]:2"),
        ] {
            assert_eq!(parse(text), Some((mqtts.to_owned(), https.to_owned())));
        }
        for bad in ["", "mqtts=127.0.0.1:1", "mqtts=localhost:1 https=127.0.0.1:2"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
