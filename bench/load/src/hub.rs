//! The emulator under load.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use iotdm_tests::Hub;
use serde_json::json;
use tokio::task::JoinSet;

use crate::client::{Client, tls};
use crate::devices::{answer, connect, report};
use crate::measure::{AT_ONCE, cpu, make, memory, rate, say};
use crate::service::{Connection, Service};

/// `emulator`
#[derive(Args)]
pub struct Emulator {
    /// The emulator
    program: PathBuf,
    /// How many devices
    devices: usize,
    /// How large the reported properties of each are, in KB
    #[arg(long, default_value = "1")]
    twin: usize,
}

/// At ports that stay the same, as they stand in the devices' files.
const PORTS: [&str; 4] = ["--mqtt-port", "8883", "--https-port", "8443"];

impl Emulator {
    /// Measures everything.
    pub async fn run(self) {
        let temporary = tempfile::tempdir().unwrap();
        let (dir, count) = (temporary.path().join("hub"), self.devices);
        let hub = Hub::measured(&self.program, &dir, &PORTS);
        let service = Service::new(&dir);
        make("creating requests a second", count.div_ceil(100), |request| {
            let service = service.clone();
            async move { service.create(request * 100..count.min(request * 100 + 100)).await }
        })
        .await;

        let before = memory(hub.pid());
        let tls = tls(&dir.join("ca.pem"));
        let connect = |n: usize| {
            let (tls, dir) = (tls.clone(), dir.clone());
            async move { connect(&dir, &format!("d{n}"), tls).await }
        };
        let clients = make("connections a second", count, connect).await;
        let after = memory(hub.pid());
        say("memory for each connection, KiB", after.saturating_sub(before) as f64 / count as f64);

        // In pieces, since a value is 4 KB at most.
        let filling: serde_json::Map<_, _> =
            (0..self.twin).map(|n| (format!("k{n}"), json!("x".repeat(1000)))).collect();
        let filling: Arc<str> = json!(filling).to_string().into();
        let mut clients = make("first reports a second", count, {
            let clients: Vec<_> =
                clients.into_iter().map(|client| std::sync::Mutex::new(Some(client))).collect();
            move |n: usize| {
                let mut client = clients[n].lock().unwrap().take().unwrap();
                let filling = filling.clone();
                async move {
                    report(&mut client, &filling).await;
                    client
                }
            }
        })
        .await;

        let some = AT_ONCE.min(count / 2).max(1);
        let reporters = clients.drain(..some).map(|client| (client, 0u32)).collect();
        rate("durable reports a second", reporters, |(mut client, n): (Client, u32)| async move {
            report(&mut client, &format!(r#"{{"n":{n}}}"#)).await;
            (client, n + 1)
        })
        .await;
        let answering = clients.len();
        let mut devices = JoinSet::new();
        for mut client in clients {
            devices.spawn(async move { answer(&mut client).await });
        }
        let body: Arc<str> = json!({"methodName": "m", "payload": {"n": 1}}).to_string().into();
        let callers = make("callers a second", AT_ONCE, |_| {
            let service = service.clone();
            async move { service.connect().await }
        })
        .await;
        let before = cpu(hub.pid());
        let trips = rate("method round trips a second", callers, move |mut caller: Connection| {
            let (device, body) = (some + any(answering), body.clone());
            async move {
                caller.call(&format!("d{device}"), &body).await;
                caller
            }
        })
        .await;
        say("CPU for each method, µs", 1e6 * (cpu(hub.pid()) - before) / trips);
        devices.shutdown().await;
        drop(hub);
        let size = dir.join("store.redb").metadata().unwrap().len();
        say("store for each device, KiB", size as f64 / 1024.0 / count as f64);
        let start = Instant::now();
        let _hub = Hub::measured(&self.program, &dir, &PORTS);
        say("exec to ready with these devices, ms", start.elapsed().as_secs_f64() * 1e3);
    }
}

/// Any number below `most`.
pub fn any(most: usize) -> usize {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    usize::try_from(RandomState::new().build_hasher().finish()).unwrap() % most
}
