//! Preflight: would the machine come back from a reboot?
//!
//! The daemon may neither read disks nor run programs, so root's
//! `iotdm-preflight.service` has the checks run. The daemon asks for that by a
//! file in its runtime directory, which `iotdm-preflight.path` watches, and finds
//! the verdict in root's file. A right to start the unit would be a right to start
//! it in a way that cancels every other job of the machine.

pub mod checks;
pub mod initrd;
pub mod runner;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use iotdm_proto::reply::PreflightCheck;
use rustix::fd::OwnedFd;
use rustix::fs::inotify;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use crate::durable::{self, Readers};

/// The daemon's question, in its runtime directory.
const QUESTION: &str = "preflight.json";
/// The directory of the unit, with root's answer in it. A directory of its own,
/// which stays when the unit ends: in the daemon's directory root would follow
/// what the daemon puts there.
const DIRECTORY: &str = "/run/iotdm-preflight";
/// The answer in that directory.
const ANSWER: &str = "result.json";
/// After how long the question is put again. A unit that is about to end after an
/// earlier question is not started for this one.
const UNHEARD: Duration = Duration::from_millis(200);
/// The longest time between two of these.
const LONGEST_UNHEARD: Duration = Duration::from_secs(2);
/// How long the unit may take to begin and to end, besides the checks' own time.
const SLACK: Duration = Duration::from_secs(4);

/// What the daemon asks root's side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Question {
    /// Another one each time; the answer repeats it, so that an earlier answer is
    /// not taken for this one.
    id: String,
    /// How long all checks together may take.
    timeout_seconds: u64,
}

/// What root's side answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    /// [`Question::id`].
    question: String,
    /// systemd's id of this run of the unit, by which its journal is found.
    invocation_id: Option<String>,
    /// What each check says, in the order in which they ran.
    checks: Vec<PreflightCheck>,
}

/// When the checks were asked, and what they said.
type Said = (Instant, Vec<PreflightCheck>);

/// Asks for the checks.
#[derive(Debug, Clone)]
pub struct Preflight {
    /// The daemon's own directory; without one nobody can be asked.
    runtime_dir: Option<PathBuf>,
    /// The directories of the checks.
    checks: [PathBuf; 2],
    /// The unit's directory.
    answers: PathBuf,
    /// How long all checks together may take.
    timeout: Duration,
    /// What the checks said last, and when they were asked.
    last: Arc<Mutex<Option<Said>>>,
}

impl Preflight {
    /// The checks of this machine, asked for in `runtime_dir`, which systemd has
    /// made for the daemon if it was started as a service.
    pub fn new(runtime_dir: Option<&Path>, timeout: Duration) -> Self {
        Preflight {
            runtime_dir: runtime_dir.map(Path::to_owned),
            checks: checks::DIRECTORIES.map(PathBuf::from),
            answers: PathBuf::from(DIRECTORY),
            timeout,
            last: Arc::default(),
        }
    }

    /// What each check says now; nothing where there are none. Checks that nobody
    /// could be asked for object, since what would be refused must not pass only
    /// because somebody has stopped the unit that refuses it.
    pub async fn run(&self) -> Vec<PreflightCheck> {
        let Some(runtime_dir) = &self.runtime_dir else { return Vec::new() };
        if checks::find(&self.checks).is_empty() {
            return Vec::new();
        }
        let came = Instant::now();
        // One question at a time. All who have waited meanwhile share the next
        // answer, so that many calls at once do not queue for minutes.
        let mut last = self.last.lock().await;
        if let Some((asked, checks)) = &*last
            && *asked >= came
        {
            return checks.clone();
        }
        let asked = Instant::now();
        let objection = |reason: String| vec![PreflightCheck::objecting("preflight", &reason)];
        let checks = match timeout(self.timeout + SLACK, self.ask(runtime_dir)).await {
            Ok(Ok(checks)) => checks,
            Ok(Err(error)) => objection(format!("the checks could not be asked for: {error}")),
            Err(_) => objection(format!(
                "the checks did not answer within {} s: see systemctl status iotdm-preflight.path \
                 iotdm-preflight.service",
                (self.timeout + SLACK).as_secs()
            )),
        };
        *last = Some((asked, checks.clone()));
        checks
    }

    async fn ask(&self, runtime_dir: &Path) -> io::Result<Vec<PreflightCheck>> {
        let question =
            Question { id: uuid::Uuid::new_v4().to_string(), timeout_seconds: self.timeout.as_secs() };
        // Watched from before the question, so that no answer is missed.
        let replaced = Replaced::watch(&self.answers)?;
        let file = runtime_dir.join(QUESTION);
        let bytes = serde_json::to_vec(&question)?;
        durable::replace_for_now(&file, &bytes, Readers::None)?;
        let mut unheard = UNHEARD;
        loop {
            if let Some(answer) = self.answer().filter(|answer| answer.question == question.id) {
                return Ok(answer.checks);
            }
            tokio::select! {
                replaced = replaced.wait() => replaced?,
                () = sleep(unheard) => {
                    durable::replace_for_now(&file, &bytes, Readers::None)?;
                    unheard = (unheard * 2).min(LONGEST_UNHEARD);
                }
            }
        }
    }

    fn answer(&self) -> Option<Answer> {
        serde_json::from_slice(&durable::read(&self.answers.join(ANSWER)).ok()?).ok()
    }
}

/// Notices when a file in a directory is replaced.
struct Replaced(AsyncFd<OwnedFd>);

impl Replaced {
    fn watch(directory: &Path) -> io::Result<Self> {
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        inotify::add_watch(&watch, directory, inotify::WatchFlags::MOVED_TO)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", directory.display())))?;
        #[expect(deprecated, reason = "what its unsafe successor wants promised, OwnedFd promises")]
        let watch = AsyncFd::with_interest(watch, Interest::READABLE)?;
        Ok(Replaced(watch))
    }

    async fn wait(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            // Which file it was does not matter: whoever waits looks.
            let mut events = [0; 1024];
            match ready.try_io(|watch| Ok(rustix::io::read(watch, &mut events)?)) {
                Ok(read) => return read.map(|_| ()),
                Err(_would_block) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A machine with one check, and nobody who runs it.
    fn machine() -> (tempfile::TempDir, Preflight) {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for directory in ["runtime", "answers", "checks", "own"] {
            fs::create_dir(path(directory)).unwrap();
        }
        fs::write(path("checks/fstab"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(path("checks/fstab"), fs::Permissions::from_mode(0o755)).unwrap();
        let preflight = Preflight {
            runtime_dir: Some(path("runtime")),
            checks: [path("checks"), path("own")],
            answers: path("answers"),
            timeout: Duration::from_secs(15),
            last: Arc::default(),
        };
        (dir, preflight)
    }

    fn question(preflight: &Preflight) -> Question {
        let file = preflight.runtime_dir.as_ref().unwrap().join(QUESTION);
        serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
    }

    fn answer(preflight: &Preflight, question: &str, name: &str) {
        let checks = vec![PreflightCheck::objecting(name, "no device")];
        let answer = Answer { question: question.to_owned(), invocation_id: None, checks };
        let file = preflight.answers.join(ANSWER);
        durable::replace_for_now(&file, &serde_json::to_vec(&answer).unwrap(), Readers::All).unwrap();
    }

    #[tokio::test]
    async fn the_answer_to_this_question_is_taken_and_no_earlier_one() {
        let (_dir, preflight) = machine();
        answer(&preflight, "earlier", "stale");
        let asked = Replaced::watch(preflight.runtime_dir.as_ref().unwrap()).unwrap();
        let (checks, ()) = tokio::join!(preflight.run(), async {
            asked.wait().await.unwrap();
            let Question { id, timeout_seconds } = question(&preflight);
            assert_eq!(timeout_seconds, 15);
            answer(&preflight, "another", "another");
            answer(&preflight, &id, "fstab");
        });
        assert_eq!(checks, [PreflightCheck::objecting("fstab", "no device")]);
    }

    #[tokio::test]
    async fn who_comes_meanwhile_shares_the_next_answer() {
        let (_dir, preflight) = machine();
        let asked = Replaced::watch(preflight.runtime_dir.as_ref().unwrap()).unwrap();
        let run = || {
            tokio::spawn({
                let preflight = preflight.clone();
                async move { preflight.run().await }
            })
        };
        let first = run();
        asked.wait().await.unwrap();
        let (second, third) = (run(), run());
        tokio::task::yield_now().await;
        answer(&preflight, &question(&preflight).id, "one");
        assert_eq!(first.await.unwrap()[0].name, "one");
        asked.wait().await.unwrap();
        answer(&preflight, &question(&preflight).id, "two");
        for later in [second, third] {
            assert_eq!(later.await.unwrap()[0].name, "two");
        }
    }

    #[tokio::test]
    async fn a_question_that_nobody_heard_is_put_again() {
        let (_dir, preflight) = machine();
        let asked = Replaced::watch(preflight.runtime_dir.as_ref().unwrap()).unwrap();
        let (checks, ()) = tokio::join!(preflight.run(), async {
            asked.wait().await.unwrap();
            let Question { id, .. } = question(&preflight);
            asked.wait().await.unwrap();
            assert_eq!(question(&preflight).id, id, "the same question");
            answer(&preflight, &id, "fstab");
        });
        assert_eq!(checks[0].name, "fstab");
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_answer_it_objects_in_time() {
        let (_dir, preflight) = machine();
        let began = tokio::time::Instant::now();
        let checks = preflight.run().await;
        let [PreflightCheck { name, passed: false, reason: Some(reason) }] = &checks[..] else {
            panic!("{checks:?}")
        };
        assert_eq!(name, "preflight");
        assert!(reason.contains("within 19 s: see systemctl status iotdm-preflight.path"), "{reason}");
        assert!(began.elapsed() < Duration::from_secs(20), "the whole decision takes no more");
    }

    #[tokio::test]
    async fn where_nobody_can_be_asked_it_objects_and_where_there_is_nothing_to_ask_it_costs_nothing() {
        let (dir, preflight) = machine();
        fs::remove_dir(dir.path().join("answers")).unwrap();
        let checks = preflight.run().await;
        assert!(checks[0].reason.as_ref().unwrap().contains("answers: No such file"), "{checks:?}");
        fs::remove_file(dir.path().join("checks/fstab")).unwrap();
        assert_eq!(preflight.run().await, []);
        assert!(!dir.path().join("runtime").join(QUESTION).exists());
    }
}
