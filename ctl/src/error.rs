//! The errors that come from the user: a wrong command line, and Ctrl-C.

use std::future::Future;

/// What the user gave is wrong. The sentence says which option or file it is
/// about, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Ctrl-C was pressed. The sentence says what stays in force.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Interrupted(pub String);

/// Runs `work` until it is done or Ctrl-C is pressed, which becomes an error
/// with the sentence of `notice`. Where one call runs inside another, the inner
/// one's notice is the error's.
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
