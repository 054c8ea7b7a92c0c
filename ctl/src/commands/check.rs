//! `check`: whether the hub is reached, and what it lets us do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustls::pki_types::ServerName;
use serde::Serialize;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::error::Exit;
use crate::hub::{Hub, Right};
use crate::hub_error::certificate_remedy;
use crate::output::Output;
use crate::refusal::SKEW_LIMIT;

/// How long each step to the hub may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// The result of one check.
#[derive(Debug, Serialize)]
struct Line {
    check: &'static str,
    result: Verdict,
    detail: String,
    #[serde(skip)]
    exit: Exit,
}

/// All lines.
#[derive(Debug, Default)]
struct Report(Vec<Line>);

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
enum Verdict {
    Ok,
    Failed,
    Skipped,
}

/// Checks one thing after the other, and prints a line for each.
pub async fn run(hub: &Hub, output: Output) -> anyhow::Result<Exit> {
    let mut lines = Report::default();
    let reached = reach(hub, &mut lines).await;
    rights(hub, reached, &mut lines).await;
    if output.is_text() {
        let word = |result| match result {
            Verdict::Ok => "ok",
            Verdict::Failed => "failed",
            Verdict::Skipped => "skipped",
        };
        let row =
            |line: &Line| vec![line.check.to_owned(), word(line.result).to_owned(), line.detail.clone()];
        output.table(&[], &lines.0.iter().map(row).collect::<Vec<_>>())?;
    } else {
        output.array(&lines.0)?;
    }
    // Not reaching the hub is worse than what it does not let us do.
    let worst = |exit: Exit| lines.0.iter().any(|line| line.exit == exit).then_some(exit);
    Ok(worst(Exit::Failure).or(worst(Exit::NotAuthorized)).unwrap_or(Exit::Done))
}

/// Name, TCP and TLS; whether all went well.
async fn reach(hub: &Hub, lines: &mut Report) -> bool {
    let host = hub.endpoint().host.as_str();
    let addresses = match timeout(PATIENCE, lookup_host((host, hub.endpoint().port_or(443)))).await {
        Ok(Ok(addresses)) => addresses.collect::<Vec<_>>(),
        Ok(Err(error)) => {
            return lines.failed("name", format!("{host}: {error}; check HostName and the network's DNS"));
        }
        Err(_) => return lines.failed("name", format!("{host}: no answer in {} s", PATIENCE.as_secs())),
    };
    let shown = addresses.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>().join(", ");
    lines.ok("name", format!("{host} is {shown}"));
    let stream = match connect(&addresses).await {
        Ok((stream, address)) => {
            lines.ok("tcp", format!("connected to {address}"));
            stream
        }
        Err(why) => {
            return lines.failed("tcp", format!("{why}; check the firewall, or the port in HostName"));
        }
    };
    match handshake(hub, host, stream).await {
        Ok(version) => lines.ok("tls", format!("{version}, the certificate is for {host} and trusted")),
        Err(error) => return lines.failed("tls", format!("{error:#}")),
    }
    true
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

async fn handshake(hub: &Hub, host: &str, stream: TcpStream) -> anyhow::Result<String> {
    let name = ServerName::try_from(host.to_owned()).context("HostName")?;
    let connector = TlsConnector::from(Arc::new(hub.tls().clone()));
    let stream = timeout(PATIENCE, connector.connect(name, stream)).await.context("no answer")?;
    let stream = stream.map_err(|error| {
        let remedy = certificate_remedy(&error).unwrap_or_default();
        anyhow::anyhow!("{error}{remedy}")
    })?;
    let version = stream.get_ref().1.protocol_version();
    Ok(version.and_then(|version| version.as_str()).unwrap_or("TLS").replace("TLSv1_", "TLS 1."))
}

/// The clock and each right.
async fn rights(hub: &Hub, reached: bool, lines: &mut Report) {
    let rights = [
        ("service", Right::Service),
        ("registry-read", Right::RegistryRead),
        ("registry-write", Right::RegistryWrite),
    ];
    if !reached {
        let names = ["clock"].into_iter().chain(rights.map(|(name, _)| name));
        return names.for_each(|name| lines.skipped(name));
    }
    let mut clock_ahead = None;
    let mut found = Vec::new();
    for (name, right) in rights {
        let probed = hub.probe(right).await;
        if let Ok(probed) = &probed {
            clock_ahead = clock_ahead.or(probed.clock_ahead);
        }
        found.push((name, probed));
    }
    match clock_ahead {
        None => lines.skipped("clock"),
        Some(ahead) if ahead.abs() > SKEW_LIMIT => {
            let side = if ahead > 0 { "ahead of" } else { "behind" };
            lines.failed("clock", format!("{} s {side} the hub's; set it right", ahead.abs()));
        }
        Some(ahead) => lines.ok("clock", format!("{} s from the hub's", ahead.abs())),
    }
    for (name, probed) in found {
        match probed {
            Ok(probed) => match probed.refusal {
                None => lines.ok(name, "allowed".to_owned()),
                Some(refusal) => {
                    lines.add(name, Verdict::Failed, refusal.to_string(), Exit::NotAuthorized);
                }
            },
            Err(error) => {
                lines.failed(name, error.to_string());
            }
        }
    }
}

impl Report {
    fn add(&mut self, check: &'static str, result: Verdict, detail: String, exit: Exit) {
        self.0.push(Line { check, result, detail, exit });
    }

    fn ok(&mut self, check: &'static str, detail: String) {
        self.add(check, Verdict::Ok, detail, Exit::Done);
    }

    /// Returns false, which is what the caller then has to say.
    fn failed(&mut self, check: &'static str, detail: String) -> bool {
        self.add(check, Verdict::Failed, detail, Exit::Failure);
        false
    }

    fn skipped(&mut self, check: &'static str) {
        self.add(check, Verdict::Skipped, "the hub is not reached".to_owned(), Exit::Done);
    }
}
