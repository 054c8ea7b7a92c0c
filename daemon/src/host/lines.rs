//! The way of log lines out of the daemon, which never makes the daemon wait.
//!
//! A journal that hangs, or a terminal or pipe that nobody reads, blocks whoever
//! writes to it. So a thread of its own writes, and a queue lies before it; what
//! the full queue does not take is counted, and told once lines flow again.
//! Lines of one kind are limited, since each call of a stranger makes one.
//!
//! No crate did for this: `tracing-journald` writes from the thread that logs, to
//! a socket that cannot be made non-blocking from outside, and is ten datagrams
//! ahead of the journal at most; `tracing-appender` has such a thread, but for
//! text only, and without the count.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::Level;

/// How many lines wait for the writer. At the length that lines have, some 200
/// bytes, that is a minute of a busy daemon; at the longest it is 1 MiB.
const QUEUE: usize = 256;

/// How many lines of one kind are written within [`WINDOW`]; more of them tell an
/// administrator nothing new.
const BURST: u32 = 20;
const WINDOW: Duration = Duration::from_secs(60);

/// How long the end of the daemon waits for the last lines to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What one line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) level: Level,
    /// The sentence.
    pub(super) message: String,
    /// What goes with it for a search in the journal: name and value.
    pub(super) fields: Vec<(&'static str, String)>,
    /// Where in the source it was logged.
    pub(super) place: Option<Place>,
}

/// A file of the source, and a line of it.
pub(super) type Place = (&'static str, u32);

/// Which lines are of one kind: those of one place in the source and, where they
/// have a code, with one code.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    pub(super) place: Option<Place>,
    pub(super) code: Option<String>,
}

/// The queue, and the thread that empties it.
#[derive(Debug, Clone, Default)]
pub(super) struct Lines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Told of each change that the writer, or who waits for it, may wait for.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Line>,
    /// The writer has taken a line out and is not done with it.
    writing: bool,
    /// How many lines the queue did not take, or could not be written.
    lost: u64,
    kinds: HashMap<Kind, Count>,
}

/// How often lines of one kind came.
#[derive(Debug)]
struct Count {
    since: Instant,
    written: u32,
    left_out: u64,
    /// The last that was left out.
    last: Option<Line>,
}

impl Lines {
    /// Starts the thread that has `write` write each line.
    pub(super) fn start(write: impl FnMut(&Line) -> io::Result<()> + Send + 'static) -> io::Result<Self> {
        let lines = Lines::default();
        let shared = lines.0.clone();
        std::thread::Builder::new().name("log".to_owned()).spawn(move || shared.empty(write))?;
        Ok(lines)
    }

    /// Takes a line, whose kind is limited if it has one. Never waits.
    pub(super) fn send(&self, kind: Option<Kind>, line: Line) {
        let mut state = self.0.lock();
        if let Some(line) = state.limit(kind, line, Instant::now()) {
            state.push(line);
        }
        self.0.changed.notify_all();
    }

    /// Waits until all lines are written, but not long.
    pub(super) fn flush(&self) {
        let mut state = self.0.lock();
        state.tell_left_out(None);
        self.0.changed.notify_all();
        let unfinished = |state: &mut State| state.writing || !state.lines.is_empty();
        let waited = self.0.changed.wait_timeout_while(state, LAST_WORDS, unfinished);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn empty(&self, mut write: impl FnMut(&Line) -> io::Result<()>) {
        loop {
            let line = self.next();
            let written = write(&line);
            let mut state = self.lock();
            state.writing = false;
            match written {
                Ok(()) => state.tell_lost(),
                Err(_) => state.lost += 1,
            }
            self.changed.notify_all();
        }
    }

    /// Waits for a line and takes it out of the queue.
    fn next(&self) -> Line {
        let mut state = self.lock();
        loop {
            state.tell_left_out(Some(Instant::now()));
            if let Some(line) = state.lines.pop_front() {
                state.writing = true;
                return line;
            }
            state = match state.kinds.values().map(|count| count.since + WINDOW).min() {
                Some(end) => {
                    let left = end.saturating_duration_since(Instant::now());
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

impl State {
    fn push(&mut self, line: Line) {
        if self.lines.len() < QUEUE { self.lines.push_back(line) } else { self.lost += 1 }
    }

    /// The line, unless there were enough of its kind.
    fn limit(&mut self, kind: Option<Kind>, line: Line, now: Instant) -> Option<Line> {
        let Some(kind) = kind else { return Some(line) };
        let count =
            self.kinds.entry(kind).or_insert(Count { since: now, written: 0, left_out: 0, last: None });
        if count.written < BURST {
            count.written += 1;
            return Some(line);
        }
        count.left_out += 1;
        count.last = Some(line);
        None
    }

    /// Forgets the kinds whose window is over at `now`, or all, and has the last
    /// line that was left out of each say how many there were.
    fn tell_left_out(&mut self, now: Option<Instant>) {
        let over = |count: &Count| now.is_none_or(|now| now.duration_since(count.since) >= WINDOW);
        let told: Vec<Count> =
            self.kinds.extract_if(|_, count| over(count)).map(|(_, count)| count).collect();
        for Count { left_out, last, .. } in told {
            let Some(mut line) = last else { continue };
            line.message.push_str(&format!(" (and {} more lines like this one, left out)", left_out - 1));
            self.push(line);
        }
    }

    /// Says how many lines were lost before the ones that come next.
    fn tell_lost(&mut self) {
        if self.lost > 0 && self.lines.len() < QUEUE {
            let message = format!("{} log lines were lost here, as nobody took them in time", self.lost);
            self.lost = 0;
            self.push(Line { level: Level::WARN, message, fields: Vec::new(), place: None });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn line(message: impl ToString) -> Line {
        Line { level: Level::INFO, message: message.to_string(), fields: Vec::new(), place: None }
    }

    fn kind(code: &str) -> Option<Kind> {
        Some(Kind { place: Some(("f.rs", 1)), code: Some(code.to_owned()) })
    }

    /// What a writer that hangs until `resume` is dropped has written in the end.
    fn with_a_writer_that_hangs(log: impl FnOnce(&Lines)) -> Vec<String> {
        let (resume, resumed) = mpsc::channel::<()>();
        let (hangs, hung) = mpsc::channel();
        let (written, all) = mpsc::channel();
        let lines = Lines::start(move |line| {
            // Fails from the second time on, when nobody waits for it any more.
            let _ = hangs.send(());
            // An error: it may write.
            let _ = resumed.recv();
            written.send(line.message.clone()).map_err(io::Error::other)
        });
        let lines = lines.unwrap();
        lines.send(None, line("first"));
        hung.recv().unwrap();
        log(&lines);
        drop(resume);
        lines.flush();
        all.try_iter().collect()
    }

    #[test]
    fn a_writer_that_hangs_holds_up_nobody_and_what_is_lost_is_told_in_its_place() {
        let written = with_a_writer_that_hangs(|lines| {
            for number in 0..QUEUE + 7 {
                lines.send(None, line(number));
            }
        });
        let mut expected = vec!["first".to_owned()];
        expected.extend((0..QUEUE).map(|number| number.to_string()));
        expected.push("7 log lines were lost here, as nobody took them in time".to_owned());
        assert_eq!(written, expected);
    }

    #[test]
    fn a_flood_of_one_kind_is_counted_and_leaves_the_others_alone() {
        let written = with_a_writer_that_hangs(|lines| {
            for number in 0..7800 {
                lines.send(kind("invalidPayload"), line(format!("refused {number}")));
            }
            lines.send(kind("notAuthorized"), line("another"));
        });
        assert_eq!(written.len(), 1 + 20 + 1 + 1);
        assert_eq!(written.iter().filter(|message| *message == "another").count(), 1);
        let last = written.last().unwrap();
        assert_eq!(last, "refused 7799 (and 7779 more lines like this one, left out)");
    }

    #[test]
    fn a_window_ends_by_itself() {
        let mut state = State::default();
        let now = Instant::now();
        for number in 0..22 {
            if let Some(line) = state.limit(kind("a"), line(number), now) {
                state.push(line);
            }
        }
        state.tell_left_out(Some(now + WINDOW - Duration::from_millis(1)));
        assert_eq!(state.lines.len(), 20);
        state.tell_left_out(Some(now + WINDOW));
        assert_eq!(state.lines.len(), 21);
        assert_eq!(state.limit(kind("a"), line("next"), now + WINDOW), Some(line("next")));
    }

    #[test]
    fn what_cannot_be_written_is_lost_and_told_by_the_first_that_can() {
        let (written, all) = mpsc::channel();
        let mut failures = 3;
        let lines = Lines::start(move |line| {
            if failures > 0 {
                failures -= 1;
                return Err(io::Error::other("no journal"));
            }
            written.send(line.message.clone()).map_err(io::Error::other)
        });
        let lines = lines.unwrap();
        for number in 0..4 {
            lines.send(None, line(number));
        }
        lines.flush();
        let written: Vec<String> = all.try_iter().collect();
        assert_eq!(written, ["3", "3 log lines were lost here, as nobody took them in time"]);
    }
}
