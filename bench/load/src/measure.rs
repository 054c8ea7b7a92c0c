//! Times, rates and memory, each said as a line of JSON.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// How long a rate is measured.
const SPAN: Duration = Duration::from_secs(5);

/// Requests that are under way at the same time while a rate is measured.
pub const AT_ONCE: usize = 64;

/// Connections that are being made at the same time.
const CONNECTING: usize = 100;

/// Prints a value.
pub fn say(what: &str, value: f64) {
    println!("{}", json!({"what": what, "value": value}));
}

/// The resident memory of a process, in KiB.
pub fn memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Makes `count` things, some at the same time; says how many in a second.
pub async fn make<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    what: &str,
    count: usize,
    make: impl Fn(usize) -> F,
) -> Vec<T> {
    let (start, limit) = (Instant::now(), Arc::new(Semaphore::new(CONNECTING)));
    let mut making = JoinSet::new();
    for n in 0..count {
        let permit = limit.clone().acquire_owned().await.unwrap();
        let one = make(n);
        making.spawn(async move {
            let made = one.await;
            drop(permit);
            (n, made)
        });
    }
    let mut made = making.join_all().await;
    made.sort_by_key(|(n, _)| *n);
    say(what, count as f64 / start.elapsed().as_secs_f64());
    made.into_iter().map(|(_, made)| made).collect()
}

/// The processor time that a process has had, in seconds.
pub fn cpu(process: u32) -> f64 {
    let process = Pid::from_raw(process.try_into().unwrap());
    let time = clock_getcpuclockid(process).and_then(clock_gettime).unwrap();
    Duration::from(time).as_secs_f64()
}

/// Has each of `workers` do `once` again and again for a while; says how often
/// that was in a second, and returns how often it was.
pub async fn rate<W: Send + 'static, F: Future<Output = W> + Send>(
    what: &str,
    workers: Vec<W>,
    once: impl Fn(W) -> F + Clone + Send + Sync + 'static,
) -> f64 {
    let (start, mut running) = (Instant::now(), JoinSet::new());
    for mut worker in workers {
        let once = once.clone();
        running.spawn(async move {
            let mut count = 0u32;
            while start.elapsed() < SPAN {
                worker = once(worker).await;
                count += 1;
            }
            count
        });
    }
    let count: u32 = running.join_all().await.into_iter().sum();
    say(what, f64::from(count) / start.elapsed().as_secs_f64());
    count.into()
}

/// Says the median and the 99th percentile of `times`, in milliseconds.
pub fn percentiles(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1e3;
    say(&format!("{what}, median"), at(0.5));
    say(&format!("{what}, 99th percentile"), at(0.99));
}
