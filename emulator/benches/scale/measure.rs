//! Times, rates and memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// How long a rate is measured.
const SPAN: Duration = Duration::from_secs(10);

/// Requests under way while a rate is measured.
pub const AT_ONCE: usize = 64;

/// Connections that are being made at the same time.
const CONNECTING: usize = 100;

/// The resident memory of a process, in KiB.
pub fn memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Makes `count` things, some at the same time; prints how long it took.
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
    let took = start.elapsed().as_secs_f64();
    println!("  {what}: {took:.1} s, {:.0} a second", count as f64 / took);
    made.into_iter().map(|(_, made)| made).collect()
}

/// Has each of `workers` do `once` again and again for a while; prints how
/// often that was in a second, and how long one took.
pub async fn rate<W: Send + 'static, F: Future<Output = W> + Send>(
    what: &str,
    workers: Vec<W>,
    once: impl Fn(W) -> F + Clone + Send + Sync + 'static,
) {
    let (start, mut running) = (Instant::now(), JoinSet::new());
    for mut worker in workers {
        let once = once.clone();
        running.spawn(async move {
            let mut times = Vec::new();
            while start.elapsed() < SPAN {
                let began = Instant::now();
                worker = once(worker).await;
                times.push(began.elapsed());
            }
            times
        });
    }
    let mut times = running.join_all().await.concat();
    let took = start.elapsed().as_secs_f64();
    times.sort();
    let [least, middle, most] = [0, times.len() / 2, times.len() - 1].map(|n| times[n].as_secs_f64() * 1e3);
    let rate = times.len() as f64 / took;
    println!("  {what}: {rate:.0} a second; each {least:.1} / {middle:.1} / {most:.1} ms (min, median, max)");
}
