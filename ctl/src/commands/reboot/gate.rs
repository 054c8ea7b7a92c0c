//! `--gate`: a command of the operator's that is asked before each start, such as
//! a question to the monitoring.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use iotdm_proto::DeviceId;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::unix::pipe::Receiver;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use crate::output::say;

/// How long one run of the command may take.
const ONE_RUN: Duration = Duration::from_secs(60);
/// How long after a run that held the start the command is asked again.
const PAUSE: Duration = Duration::from_secs(30);
/// How much of what a run of the command prints is shown, in bytes.
const MOST_SHOWN: u64 = 16 << 10;

/// The command, and how long it may hold a start.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    /// The command, for the shell.
    command: String,
    /// How long it may hold a start.
    patience: Duration,
    /// How long after a run that held the start the command is asked again.
    pause: Duration,
}

/// What a run of the command came to.
enum Verdict {
    Open,
    Held(String),
}

impl Gate {
    /// A gate that may hold each start for `patience`.
    pub(super) fn new(command: String, patience: Duration) -> Self {
        Gate { command, patience, pause: PAUSE }
    }

    /// Asks until the command lets `device` be started; `false` if it did not in
    /// time.
    pub(super) async fn opens_for(&self, device: &DeviceId) -> bool {
        let deadline = Instant::now() + self.patience;
        let mut is_first = true;
        loop {
            let why = match self.verdict(device).await {
                Verdict::Open => return true,
                Verdict::Held(why) => why,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            if is_first {
                say(format_args!(
                    "iotdm-ctl: the gate holds {device} ({why}); it is asked again every {} s",
                    self.pause.as_secs()
                ));
                is_first = false;
            }
            sleep(self.pause.min(left)).await;
        }
    }

    async fn verdict(&self, device: &DeviceId) -> Verdict {
        match timeout(ONE_RUN, self.run(device)).await {
            Ok(Ok(status)) if status.success() => Verdict::Open,
            Ok(Ok(status)) => Verdict::Held(status.to_string()),
            Ok(Err(error)) => Verdict::Held(format!("it cannot be run: {error}")),
            Err(_) => Verdict::Held(format!("it did not end in {} s", ONE_RUN.as_secs())),
        }
    }

    /// Runs the command once, in a process group of its own that ends with this
    /// future, and shows what it prints.
    async fn run(&self, device: &DeviceId) -> io::Result<ExitStatus> {
        let (reader, writer) = io::pipe()?;
        let mut command = Command::new("sh");
        command.arg("-c").arg(&self.command).env("IOTDM_DEVICE", device.as_str()).process_group(0);
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).kill_on_drop(true);
        let mut child = command.spawn()?;
        // Its own ends of the pipe, so that reading comes to an end.
        drop(command);
        let _group = Group(child.id());
        let shown = show(Receiver::from_owned_fd(reader.into())?);
        let (status, ()) = tokio::join!(child.wait(), shown);
        status
    }
}

/// Shows on stderr what comes through a pipe, line by line, up to a limit.
async fn show(pipe: Receiver) {
    let mut lines = BufReader::new(pipe);
    let mut text = Vec::new();
    let mut left = MOST_SHOWN;
    while left > 0 {
        text.clear();
        match (&mut lines).take(left).read_until(b'\n', &mut text).await {
            Ok(length) if length > 0 => left = left.saturating_sub(u64::try_from(length).unwrap_or(left)),
            _ => return,
        }
        say(format_args!("gate: {}", String::from_utf8_lossy(&text).trim_end()));
    }
    // A command that prints more is not stopped by a full pipe.
    let mut rest = [0; 4096];
    while lines.read(&mut rest).await.is_ok_and(|length| length > 0) {}
}

/// A process group that is ended when this is dropped.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0.and_then(|id| i32::try_from(id).ok()) {
            // Most often nobody is left in it.
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: &str = "gw1";

    fn in_time<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    fn asked(command: &str) -> bool {
        let gate = Gate::new(command.to_owned(), Duration::ZERO);
        in_time(gate.opens_for(&DEVICE.parse().unwrap()))
    }

    #[test]
    fn only_success_opens_it() {
        assert!(asked("test $IOTDM_DEVICE = gw1"));
        assert!(!asked("exit 3"));
        assert!(!asked("kill -9 $$"));
        assert!(!asked("/nonexistent/command"));
        // More than a pipe holds, and than is shown.
        assert!(asked("head -c 300000 /dev/zero"));
    }

    #[test]
    fn it_is_asked_again_until_it_opens() {
        let folder = tempfile::tempdir().unwrap();
        let runs = folder.path().join("runs");
        let command = format!("echo x >> {runs:?}; test $(wc -l < {runs:?}) -ge 3");
        let patience = Duration::from_secs(3600);
        let gate = Gate { pause: Duration::from_millis(1), ..Gate::new(command, patience) };
        assert!(in_time(gate.opens_for(&DEVICE.parse().unwrap())));
        assert_eq!(std::fs::read_to_string(&runs).unwrap(), "x\nx\nx\n");
    }

    #[test]
    fn nothing_of_it_stays_behind() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let gate = Gate::new(format!("sleep 1000 & echo $! > {file:?}; wait"), Duration::ZERO);
        let pid = in_time(async {
            let device = DEVICE.parse().unwrap();
            let mut asked = std::pin::pin!(gate.opens_for(&device));
            loop {
                let text = std::fs::read_to_string(&file).unwrap_or_default();
                match text.strip_suffix('\n') {
                    Some(pid) => return pid.to_owned(),
                    None => drop(timeout(Duration::from_millis(5), &mut asked).await),
                }
            }
        });
        // A process that has ended is a zombie until somebody waits for it.
        let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        while !state().is_empty() && !state().contains(") Z ") {
            std::thread::yield_now();
        }
    }
}
