//! Root's side: runs the checks and writes down what each says.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use iotdm_proto::reply::PreflightCheck;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, geteuid};

use super::{ANSWER, Answer, DIRECTORY, QUESTION, Question, checks};
use crate::durable::{self, Readers};

/// The daemon's runtime directory.
const RUNTIME_DIR: &str = "/run/iotdm";
/// The longest that all checks together may take, whatever the daemon asks for.
const MAX_TIMEOUT: Duration = Duration::from_secs(60);
/// The part of that time that one check may take: 5 s of the usual 15 s.
const PART: u32 = 3;
/// How long a check that has ended may leave its output open to others.
const OUTPUT: Duration = Duration::from_millis(500);
/// How much of the end of a check's output is kept, in bytes: a line of it is told.
const MAX_OUTPUT: usize = 4096;

/// Answers the daemon's question, if there is one, and a further one that the daemon
/// asks meanwhile, of which the unit that runs already would not be told; for
/// `iotdm-preflight.service`.
pub fn answer() -> anyhow::Result<()> {
    let file = Path::new(RUNTIME_DIR).join(QUESTION);
    let mut answered = None;
    loop {
        let question = match durable::read(&file) {
            // The daemon has stopped.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            read => read.with_context(|| format!("cannot read {}", file.display()))?,
        };
        let question: Question = serde_json::from_slice(&question)?;
        if answered.as_ref() == Some(&question.id) {
            return Ok(());
        }
        answer_one(&question)?;
        answered = Some(question.id);
    }
}

fn answer_one(question: &Question) -> anyhow::Result<()> {
    let timeout = Duration::from_secs(question.timeout_seconds).min(MAX_TIMEOUT);
    let checks = run(&checks::DIRECTORIES.map(PathBuf::from), timeout);
    for PreflightCheck { name, passed, reason } in &checks {
        match reason.as_deref().filter(|_| !passed) {
            None => println!("{name}: fine"),
            Some(reason) => println!("{name}: objects: {reason}"),
        }
    }
    let invocation_id = std::env::var("INVOCATION_ID").ok();
    let answer = serde_json::to_vec(&Answer { question: question.id.clone(), invocation_id, checks })?;
    let file = Path::new(DIRECTORY).join(ANSWER);
    durable::replace_for_now(&file, &answer, Readers::All)
        .with_context(|| format!("cannot write {}", file.display()))
}

/// Runs the checks one after the other. One that does not end is ended, and one for
/// which no time is left is not begun; both object.
fn run(directories: &[PathBuf], timeout: Duration) -> Vec<PreflightCheck> {
    let (end, patience) = (Instant::now() + timeout, timeout / PART);
    let said = |check: PathBuf| {
        let name = check.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let left = end.saturating_duration_since(Instant::now()).min(patience);
        match run_one(&check, left) {
            Ok(()) => PreflightCheck::passing(&name),
            Err(reason) => PreflightCheck::objecting(&name, &reason),
        }
    };
    checks::find(directories).into_iter().map(said).collect()
}

/// Runs one check; an error says why it objects.
fn run_one(check: &Path, patience: Duration) -> Result<(), String> {
    if patience.is_zero() {
        return Err("timed out: the checks before it took all the time".to_owned());
    }
    trusted(check)?;
    let spawned = Command::new(check)
        .env_clear()
        .envs([("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), ("LC_ALL", "C.UTF-8")])
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.map_err(|error| format!("it cannot be run: {error}"))?;
    let group = Pid::from_raw(child.id().cast_signed());
    let output = last_line(&mut child);
    let ended = ends(child, patience);
    if ended.is_none() {
        // With whatever it has started.
        let _ = killpg(group, Signal::SIGKILL);
    }
    let line = output.recv_timeout(OUTPUT).unwrap_or_default();
    match ended {
        None => Err(format!("timed out: it did not end within {:.0} s", patience.as_secs_f64())),
        Some(Err(error)) => Err(format!("its end is not known: {error}")),
        Some(Ok(status)) if status.success() => Ok(()),
        Some(Ok(_)) if !line.is_empty() => Err(line),
        Some(Ok(status)) => Err(match (status.code(), status.signal()) {
            (_, Some(signal)) => format!("it was ended by signal {signal}"),
            (code, None) => format!("it ended with status {}", code.unwrap_or_default()),
        }),
    }
}

/// Whether only root can have written what root is about to run.
fn trusted(check: &Path) -> Result<(), String> {
    let metadata = fs::metadata(check).map_err(|error| format!("it cannot be run: {error}"))?;
    let ours = metadata.uid() == geteuid().as_raw() || metadata.uid() == 0;
    if ours && metadata.permissions().mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(format!(
        "it is not run, as others than root may write to it: chown root and chmod go-w {}",
        check.display()
    ))
}

/// The last line that is not empty of what the check prints, once it prints no more.
fn last_line(child: &mut Child) -> mpsc::Receiver<String> {
    let (sender, last) = mpsc::channel();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    thread::spawn(move || {
        // What it complains of, if it does, else what it says.
        let complaints = thread::spawn(move || stderr.map(tail).unwrap_or_default());
        let said = stdout.map(tail).unwrap_or_default();
        let complained = complaints.join().unwrap_or_default();
        let line = [said, complained].iter().find_map(|text| last_line_of(text)).unwrap_or_default();
        // Sending fails when nobody waits any more.
        let _ = sender.send(line);
    });
    last
}

fn last_line_of(text: &str) -> Option<String> {
    text.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned)
}

/// The end of what can be read.
fn tail(mut source: impl Read) -> String {
    let (mut kept, mut buffer) = (Vec::new(), [0; MAX_OUTPUT]);
    while let Ok(length @ 1..) = source.read(&mut buffer) {
        kept.extend(buffer.get(..length).unwrap_or_default());
        kept.drain(..kept.len().saturating_sub(MAX_OUTPUT));
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// How the check ended; `None` if it did not in time.
fn ends(mut child: Child, patience: Duration) -> Option<std::io::Result<ExitStatus>> {
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || {
        // Sending fails when nobody waits any more.
        let _ = sender.send(child.wait());
    });
    ended.recv_timeout(patience).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new() -> Self {
            Machine(tempfile::tempdir().unwrap())
        }

        /// By a program of its own: what this one had open for writing, another test's
        /// child could still have, and then it cannot be run.
        fn check(&self, name: &str, script: &str) {
            let write = r#"printf '#!/bin/sh\n%s\n' "$1" > "$0" && chmod 755 "$0""#;
            let mut shell = Command::new("sh");
            shell.args(["-c", write]).arg(self.0.path().join(name)).arg(script);
            assert!(shell.status().unwrap().success());
        }

        fn write(&self, name: &str, text: &str, mode: u32) {
            let file = self.0.path().join(name);
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        }

        fn run(&self, timeout: Duration) -> Vec<(String, Option<String>)> {
            let checks = run(&[self.0.path().to_owned()], timeout);
            checks
                .into_iter()
                .map(|PreflightCheck { name, passed, reason }| {
                    assert_eq!(passed, reason.is_none(), "{name}");
                    (name, reason)
                })
                .collect()
        }
    }

    #[test]
    fn a_check_objects_with_its_last_line_or_its_end() {
        let machine = Machine::new();
        machine.check("a-fine", "echo all is well");
        machine.check("b-line", "echo first; echo the disk is gone; echo; exit 3");
        machine.check("c-stderr", "echo 'no such disk' >&2; exit 1");
        machine.check("d-status", "exit 7");
        machine.check("e-signal", "kill -SEGV $$");
        machine.write("f-garbage", "\u{0}\u{1}", 0o755);
        machine.check("g-evil", "printf '\\033[2Jcleared\\n'; exit 1");
        machine.check("h-long", "head -c 100000 /dev/zero | tr '\\0' x; exit 1");
        machine.write("i-others", "#!/bin/sh\n", 0o777);
        let said = machine.run(Duration::from_secs(60));
        let reason = |name: &str| said.iter().find(|(said, _)| said == name).unwrap().1.as_deref();
        assert_eq!(said.len(), 9);
        assert_eq!(reason("a-fine"), None);
        assert_eq!(reason("b-line"), Some("the disk is gone"));
        assert_eq!(reason("c-stderr"), Some("no such disk"));
        assert_eq!(reason("d-status"), Some("it ended with status 7"));
        assert_eq!(reason("e-signal"), Some("it was ended by signal 11"));
        assert!(reason("f-garbage").unwrap().starts_with("it cannot be run: Exec format error"), "{said:?}");
        assert!(!reason("g-evil").unwrap().contains('\u{1b}'), "{said:?}");
        assert_eq!(reason("h-long").unwrap().chars().count(), 250);
        assert!(reason("i-others").unwrap().contains("chmod go-w"), "{said:?}");
    }

    #[test]
    fn a_check_that_hangs_is_ended_and_named_with_all_it_started() {
        let machine = Machine::new();
        let pipe = machine.0.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // Neither ends before somebody writes to the pipe, which nobody does.
        machine.check("a-hangs", &format!("cat {0} & echo waiting; cat {0}", pipe.display()));
        machine.check("b-fine", "true");
        let began = Instant::now();
        let said = machine.run(Duration::from_secs(3));
        assert_eq!(said[0], ("a-hangs".into(), Some("timed out: it did not end within 1 s".into())));
        assert_eq!(said[1], ("b-fine".into(), None));
        assert!(began.elapsed() < Duration::from_secs(3), "the group was not ended");
    }

    #[test]
    fn a_check_for_which_no_time_is_left_objects() {
        let machine = Machine::new();
        machine.check("fine", "true");
        let said = machine.run(Duration::ZERO);
        assert_eq!(said, [("fine".into(), Some("timed out: the checks before it took all the time".into()))]);
    }
}
