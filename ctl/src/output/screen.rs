//! The lines that are redrawn on the terminal while a command runs, and how any
//! other text gets past them.

use std::cell::RefCell;

use indicatif::MultiProgress;

thread_local! {
    /// The lines that are redrawn, while there are any.
    static REDRAWN: RefCell<Option<MultiProgress>> = const { RefCell::new(None) };
}

/// From now on, these lines are redrawn; `None` says that none are any more.
pub(crate) fn redraws(screen: Option<MultiProgress>) {
    REDRAWN.set(screen);
}

/// Calls `write`, which writes to the terminal, while the redrawn lines are out of
/// the way.
pub(super) fn aside<T>(write: impl FnOnce() -> T) -> T {
    match REDRAWN.with_borrow(Clone::clone) {
        Some(screen) => screen.suspend(write),
        None => write(),
    }
}
