//! What the command finds out: a line for each check, and the exit code of all
//! of them.

use serde::{Serialize, Serializer};

use crate::exit::Exit;

/// The exit codes of failed checks, the worst first. Not reaching the hub is
/// worse than not being let in, and that is worse than having to wait.
const FROM_WORST: [Exit; 3] = [Exit::Failure, Exit::NotAuthorized, Exit::Throttled];

/// The result of one check.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    /// The check's name.
    pub(super) check: &'static str,
    pub(super) result: CheckResult,
    /// What was found, or why nothing was.
    pub(super) detail: String,
    #[serde(skip)]
    exit: Exit,
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CheckResult {
    /// All is well.
    Ok,
    /// Something is wrong.
    Failed,
    /// The check was not made, because another one failed.
    Skipped,
}

/// The lines of all checks so far, in their order.
#[derive(Debug, Default)]
pub(super) struct Lines(pub(super) Vec<Line>);

impl CheckResult {
    /// The result in one word, for people and in the JSON output.
    pub(super) fn word(self) -> &'static str {
        match self {
            CheckResult::Ok => "ok",
            CheckResult::Failed => "failed",
            CheckResult::Skipped => "skipped",
        }
    }
}

impl Serialize for CheckResult {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

impl Lines {
    pub(super) fn ok(&mut self, check: &'static str, detail: String) {
        self.0.push(Line { check, result: CheckResult::Ok, detail, exit: Exit::Done });
    }

    /// A check failed in a way that alone would lead to the exit code `exit`.
    pub(super) fn failed(&mut self, check: &'static str, detail: String, exit: Exit) {
        let exit = if FROM_WORST.contains(&exit) { exit } else { Exit::Failure };
        self.0.push(Line { check, result: CheckResult::Failed, detail, exit });
    }

    pub(super) fn skipped(&mut self, check: &'static str, why: &str) {
        self.0.push(Line { check, result: CheckResult::Skipped, detail: why.to_owned(), exit: Exit::Done });
    }

    /// The exit code of the worst line.
    pub(super) fn worst(&self) -> Exit {
        let found = |exit: &Exit| self.0.iter().any(|line| line.exit == *exit);
        FROM_WORST.into_iter().find(found).unwrap_or(Exit::Done)
    }
}
