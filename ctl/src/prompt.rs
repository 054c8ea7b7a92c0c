//! Asking a person before something that cannot be taken back.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::thread;

use tokio::sync::oneshot;

use crate::error::{Usage, or_interrupt};

/// Asks on the terminal, and returns whether the answer is yes. Without a
/// terminal on stdin it is an error that names `what` and `--yes`.
pub async fn confirm(what: &str, question: String) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        let message = format!("{what}: nobody to ask, stdin is no terminal; give --yes");
        return Err(Usage(message).into());
    }
    let (answered, answer) = oneshot::channel();
    // A read of stdin cannot be given up; in a thread it need not be.
    thread::spawn(move || answered.send(read(&question)));
    let yes = or_interrupt(async { Ok(answer.await??) }, || "interrupted: nothing was sent".to_owned());
    yes.await
}

fn read(question: &str) -> io::Result<bool> {
    // Without a lock that lasts: whoever is interrupted here says so there.
    io::stderr().write_all(format!("{question} [y/N] ").as_bytes())?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
