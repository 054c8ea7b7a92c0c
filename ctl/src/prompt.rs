//! Asks a person before something is done that cannot be taken back.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::thread;

use tokio::sync::oneshot;

use crate::error::{Usage, or_interrupt};

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
    io::stderr().write_all(format!("{question} [y/N] ").as_bytes())?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
