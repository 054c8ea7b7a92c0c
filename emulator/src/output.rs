//! What the small commands print, for readers that may leave at any time.

use std::io::{self, ErrorKind, Write as _};

use anyhow::{Context as _, Result};

/// Prints a line at once, also into a pipe, where somebody waits for it; `false` when
/// the reader has gone, which is its good right (`| head`).
pub fn print_line(line: &str) -> Result<bool> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        done => done.map(|()| true).context("cannot write to standard output"),
    }
}
