//! How a program that ran to its end did.

use std::process::Output;

use serde_json::Value;

/// What a program printed, and its exit code.
#[derive(Debug)]
pub struct Ran {
    /// The exit code.
    pub code: i32,
    /// What came on standard output.
    pub stdout: String,
    /// What came on standard error.
    pub stderr: String,
}

impl From<Output> for Ran {
    /// A program that a signal ended has no exit code, and fails the test.
    fn from(output: Output) -> Self {
        let code = output.status.code().unwrap_or_else(|| panic!("ended by a signal: {output:?}"));
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Ran {
    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts the exit code, and that standard error has each of these parts.
    #[track_caller]
    pub fn ends(&self, code: i32, stderr_has: &[&str]) {
        assert_eq!(self.code, code, "{self:#?}");
        for part in stderr_has {
            assert!(self.stderr.contains(part), "no {part:?} in {self:#?}");
        }
    }
}
