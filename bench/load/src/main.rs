//! What the benchmarks put programs under, and what they compare them with:
//! an echo client, many devices, calls, a login manager. Values are printed as
//! lines of JSON; `bench/bench.py` starts this and reads them.

#![allow(unreachable_pub, reason = "a program has no outside")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark may fail loudly"
)]

mod client;
mod devices;
mod hub;
mod measure;
mod mosquitto;
mod pretended;
mod service;

use std::path::PathBuf;
use std::process::{self, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::TimeValLike as _;

use crate::measure::say;

/// What to do.
#[derive(Parser)]
enum Command {
    /// Be a device that answers each call with nothing, on the same codec as
    /// the daemon and without any of its work
    Echo {
        /// Its emulator's directory
        data: PathBuf,
        /// Its name
        device: String,
    },
    /// Call a method again and again
    Calls(service::Calls),
    /// Be devices that "reboot" at once when they are told to
    Devices {
        /// Their emulator's directory
        data: PathBuf,
        /// How many: d0, d1 and so on, which have to exist
        count: usize,
        /// For how many milliseconds each is away; a line says when it goes, another
        /// when it is back
        #[arg(long)]
        away: Option<u64>,
    },
    /// Start an emulator and give it devices
    Emulator(hub::Emulator),
    /// Start mosquitto and give it devices
    Mosquitto {
        /// How many
        devices: usize,
    },
    /// Be a hub of pretended devices that have rebooted as soon as they are called, for
    /// fleets that are too large for the emulator
    Pretended {
        /// Where its CA and its connection string go
        data: PathBuf,
        /// How many devices: d0, d1 and so on
        count: usize,
    },
    /// Run a program and say its time, its CPU and its peak of memory, which are
    /// not those of the large interpreter that would start it otherwise
    Run {
        /// The program and its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<std::ffi::OsString>,
    },
    /// Be a bus with a login manager; prints the bus's address, then its calls
    Logind {
        /// With a service manager, too, that has so many units; each line of the input
        /// makes one of them fail, or all be well again
        #[arg(long)]
        units: Option<usize>,
    },
}

fn main() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let command = match Command::parse() {
        Command::Run { command } => return run(&command),
        Command::Logind { units } => return logind(units),
        Command::Pretended { data, count } => return pretended::serve(&data, count),
        command => command,
    };
    // The echo client has one thread, as the daemon has.
    let mut runtime = match command {
        Command::Echo { .. } => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = runtime.enable_all().build().unwrap();
    match command {
        Command::Echo { data, device } => runtime.block_on(devices::echo(&data, &device)),
        Command::Calls(calls) => runtime.block_on(calls.run()),
        Command::Devices { data, count, away } => {
            runtime.block_on(devices::fleet(&data, count, away.map(Duration::from_millis)));
        }
        Command::Emulator(emulator) => runtime.block_on(emulator.run()),
        Command::Mosquitto { devices } => runtime.block_on(mosquitto::run(devices)),
        Command::Run { .. } | Command::Logind { .. } | Command::Pretended { .. } => {}
    }
}

fn run(command: &[std::ffi::OsString]) {
    let began = Instant::now();
    let status =
        process::Command::new(&command[0]).args(&command[1..]).stdout(Stdio::null()).status().unwrap();
    let took = began.elapsed();
    let used = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let cpu = used.user_time() + used.system_time();
    say("ms", took.as_secs_f64() * 1e3);
    say("CPU, ms", cpu.num_microseconds() as f64 / 1e3);
    say("peak of memory, KiB", used.max_rss() as f64);
    process::exit(status.code().unwrap_or(1));
}

fn logind(units: Option<usize>) {
    let bus = iotdm_tests::Bus::start();
    let logind = bus.logind();
    let systemd = units.map(|units| {
        let names: Vec<String> = (0..units).map(|n| format!("unit{n}.service")).collect();
        bus.systemd("running", &names.iter().map(String::as_str).collect::<Vec<_>>())
    });
    println!("{}", bus.address());
    if let Some(systemd) = systemd {
        std::thread::spawn(move || {
            for (nth, _) in std::io::stdin().lines().map_while(Result::ok).enumerate() {
                systemd.set_units(&[("unit0.service", if nth % 2 == 0 { "failed" } else { "active" })]);
            }
        });
    }
    for nth in 1.. {
        println!("{}", logind.calls.wait_for_nth("", nth));
    }
}
