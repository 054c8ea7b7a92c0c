//! What a program said, line by line, and waiting for a line.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// How long a line may take: enough for a loaded machine, as it only passes
/// when something is wrong, and less than the runner's limit for a test, so
/// that the test itself says what it has waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Lines that grow while a program runs.
#[derive(Debug, Clone, Default)]
pub struct Transcript(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    said: Mutex<Said>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Said {
    lines: Vec<String>,
    /// No further line comes.
    ended: bool,
}

impl Transcript {
    /// What `source` says until it ends.
    pub fn of(source: impl Read + Send + 'static) -> Self {
        let transcript = Transcript::default();
        let writer = transcript.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(source).lines().map_while(Result::ok) {
                writer.push(line);
            }
            writer.change(|said| said.ended = true);
        });
        transcript
    }

    /// Adds a line.
    pub fn push(&self, line: String) {
        self.change(|said| said.lines.push(line));
    }

    fn change(&self, change: impl FnOnce(&mut Said)) {
        change(&mut self.0.said.lock().unwrap());
        self.0.changed.notify_all();
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.0.said.lock().unwrap().lines.clone()
    }

    /// How many lines so far have `needle` in them.
    pub fn count(&self, needle: &str) -> usize {
        self.lines().iter().filter(|line| line.contains(needle)).count()
    }

    /// Waits for a line with `needle` in it, and returns the line.
    #[track_caller]
    pub fn wait_for(&self, needle: &str) -> String {
        self.wait_for_nth(needle, 1)
    }

    /// Waits for the `nth` line with `needle` in it, and returns the line.
    #[track_caller]
    pub fn wait_for_nth(&self, needle: &str, nth: usize) -> String {
        let has_it = |said: &Said| said.lines.iter().filter(|line| line.contains(needle)).count() >= nth;
        let (said, _) = self
            .0
            .changed
            .wait_timeout_while(self.0.said.lock().unwrap(), PATIENCE, |said| !said.ended && !has_it(said))
            .unwrap();
        let found = said.lines.iter().filter(|line| line.contains(needle)).nth(nth - 1).cloned();
        let (lines, ended) = (said.lines.clone(), said.ended);
        // Not held while this panics: whoever clears up may want the lines.
        drop(said);
        found.unwrap_or_else(|| {
            let why = if ended { "it ended" } else { "time is up" };
            panic!("no {nth}. line with {needle:?}, {why}: {lines:#?}")
        })
    }
}
