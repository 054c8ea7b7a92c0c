//! What a program said, line by line, and waiting for a line.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Long enough for a loaded machine; it only passes when something is wrong.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Lines that grow while a program runs.
#[derive(Debug, Clone, Default)]
pub struct Transcript(Arc<(Mutex<Vec<String>>, Condvar)>);

impl Transcript {
    /// What `source` says until it ends.
    pub fn of(source: impl Read + Send + 'static) -> Self {
        let transcript = Transcript::default();
        let writer = transcript.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(source).lines().map_while(Result::ok) {
                writer.push(line);
            }
        });
        transcript
    }

    /// Adds a line.
    pub fn push(&self, line: String) {
        self.0.0.lock().unwrap().push(line);
        self.0.1.notify_all();
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.0.0.lock().unwrap().clone()
    }

    /// How many lines so far have `needle` in them.
    pub fn count(&self, needle: &str) -> usize {
        self.lines().iter().filter(|line| line.contains(needle)).count()
    }

    /// Waits for a line with `needle` in it, and returns it.
    pub fn wait_for(&self, needle: &str) -> String {
        self.wait_for_nth(needle, 1)
    }

    /// Waits for the `nth` line with `needle` in it, and returns it.
    pub fn wait_for_nth(&self, needle: &str, nth: usize) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.0.0.lock().unwrap();
        loop {
            if let Some(line) = lines.iter().filter(|line| line.contains(needle)).nth(nth - 1) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {nth}. line with {needle:?} in {lines:#?}");
            lines = self.0.1.wait_timeout(lines, left).unwrap().0;
        }
    }
}
