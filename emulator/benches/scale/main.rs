//! How the emulator does with many devices: time to be ready, memory for each
//! connection, durable reports and method round trips a second; beside it,
//! mosquitto carrying the same two messages for each round trip.
//!
//! `cargo bench -p iotdm-emulator --bench scale [-- DEVICES]`. The programs run
//! in processes of their own, so that their memory is theirs alone.

#![allow(unreachable_pub, reason = "a benchmark has no outside")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark may fail loudly"
)]

mod client;
mod hub;
mod measure;
mod mosquitto;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Devices that connect unless the command line says otherwise.
const DEVICES: usize = 10_000;

#[tokio::main]
async fn main() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    // cargo itself passes --bench.
    let devices = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(DEVICES);
    println!("{devices} devices, {} processors", std::thread::available_parallelism().unwrap());
    hub::run(devices).await;
    mosquitto::run(devices).await;
}
