//! The program's exit codes, and which of them an error leads to.

use std::future::Future;
use std::io;
use std::process::ExitCode;

use crate::hub_error::HubError;

/// How the program ends. The numbers are fixed: scripts rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All that was asked for is done.
    Done = 0,
    /// The network, the hub or something here failed.
    Failure = 1,
    /// The command line, or a file it names, is wrong.
    Usage = 2,
    /// The device refused: its own status is 400 or more.
    Refused = 3,
    /// The device is offline.
    Offline = 4,
    /// The hub has no such device.
    NoSuchDevice = 5,
    /// No reply, or no outcome, in time.
    TimedOut = 6,
    /// The reboot failed, or the devices' ends differ.
    RebootFailed = 7,
    /// The hub does not accept who we are, or what we may do.
    NotAuthorized = 8,
    /// The hub still throttles after the retries.
    Throttled = 9,
    /// Ctrl-C.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// What the user gave is wrong; says which flag or file, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Ctrl-C; says what stays in force.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Interrupted(pub String);

/// The exit code that `error` leads to. Output that nobody reads any more
/// (`iotdm-ctl … | head -1`) is no failure.
pub fn exit_of(error: &anyhow::Error) -> Exit {
    for cause in error.chain() {
        if let Some(error) = cause.downcast_ref::<HubError>() {
            return error.exit();
        }
        if cause.is::<Usage>() {
            return Exit::Usage;
        }
        if cause.is::<Interrupted>() {
            return Exit::Interrupted;
        }
        if cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            return Exit::Done;
        }
    }
    Exit::Failure
}

/// Runs `work` until it ends or Ctrl-C is pressed, which becomes an error with
/// the sentence of `notice`. Of nested ones the innermost speaks.
pub async fn or_interrupt<T>(
    work: impl Future<Output = anyhow::Result<T>>,
    notice: impl FnOnce() -> String,
) -> anyhow::Result<T> {
    tokio::select! {
        biased;
        result = work => result,
        signal = tokio::signal::ctrl_c() => {
            signal?;
            Err(Interrupted(notice()).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn the_cause_decides_under_any_context() {
        let cases: [(anyhow::Error, Exit); 5] = [
            (Usage("--top".into()).into(), Exit::Usage),
            (Interrupted("stopped".into()).into(), Exit::Interrupted),
            (io::Error::from(io::ErrorKind::BrokenPipe).into(), Exit::Done),
            (io::Error::from(io::ErrorKind::NotFound).into(), Exit::Failure),
            (anyhow::anyhow!("else"), Exit::Failure),
        ];
        for (error, exit) in cases {
            let wrapped = Err::<(), _>(error).context("outer").context("outermost").unwrap_err();
            assert_eq!(exit_of(&wrapped), exit, "{wrapped:#}");
        }
    }
}
