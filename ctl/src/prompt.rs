//! Asks a person at the terminal: before something is done that cannot be taken
//! back, and for a secret.

use std::fs::File;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::thread;

use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr};
use tokio::sync::oneshot;

use crate::error::{Usage, or_interrupt};
use crate::output::sayable;

/// What Ctrl-C types.
const CTRL_C: u8 = 3;

/// Asks `question` on the terminal, and returns whether the answer is yes.
/// Without a terminal on stdin that is an error, which begins with `command` and
/// names `--yes`.
pub async fn confirm(command: &str, question: String) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        let message = format!("{command}: nobody to ask, stdin is no terminal; give --yes");
        return Err(Usage(message).into());
    }
    let (answered, answer) = oneshot::channel();
    // A read of stdin cannot be broken off. In a thread it can be left alone when
    // Ctrl-C comes.
    thread::spawn(move || answered.send(read(&question)));
    let yes = or_interrupt(async { Ok(answer.await??) }, || "interrupted: nothing was sent".to_owned());
    yes.await
}

/// Writes the question and reads the answer.
fn read(question: &str) -> io::Result<bool> {
    // stderr is not kept locked while waiting for the answer: after Ctrl-C
    // another thread writes to it.
    io::stderr().write_all(format!("{} [y/N] ", sayable(question)).as_bytes())?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Writes `question` and reads a line from a terminal that does not show what is
/// typed. Ctrl-C is an error.
pub(crate) fn unseen(terminal: &File, question: &str) -> io::Result<String> {
    let before = tcgetattr(terminal)?;
    let mut silent = before.clone();
    silent.local_flags.remove(LocalFlags::ECHO);
    // Ctrl-C would end the process before the terminal shows again what is typed;
    // here it ends the line.
    silent.local_flags.remove(LocalFlags::ISIG);
    if let Some(end) = silent.control_chars.get_mut(SpecialCharacterIndices::VEOL as usize) {
        *end = CTRL_C;
    }
    tcsetattr(terminal, SetArg::TCSANOW, &silent)?;
    let again = ShownAgain { terminal, before };
    io::stderr().write_all(question.as_bytes())?;
    let mut line = Vec::new();
    let read = read_line(terminal, &mut line);
    drop(again);
    io::stderr().write_all(b"\n")?;
    read?;
    if line.contains(&CTRL_C) {
        return Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted: nothing was sent"));
    }
    String::from_utf8(line).map_err(io::Error::other)
}

/// Reads a line, or what comes before Ctrl-C.
fn read_line(mut terminal: &File, line: &mut Vec<u8>) -> io::Result<()> {
    let mut chunk = [0; 4096];
    loop {
        let length = terminal.read(&mut chunk)?;
        line.extend(chunk.iter().take(length));
        if length == 0 || line.ends_with(b"\n") || line.contains(&CTRL_C) {
            return Ok(());
        }
    }
}

/// Lets the terminal show again what is typed, however the reading ends.
struct ShownAgain<'a> {
    terminal: &'a File,
    before: Termios,
}

impl Drop for ShownAgain<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, SetArg::TCSANOW, &self.before);
    }
}
