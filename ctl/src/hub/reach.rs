//! Whether the hub answers at all, and since when it does again.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// What is known of the hub's being there.
#[derive(Debug, Default)]
pub(super) struct Reach {
    /// Whether the hub has ever answered.
    answered: Cell<bool>,
    /// When the hub was last seen not to answer.
    last_away: Cell<Option<Instant>>,
}

impl Reach {
    /// The hub has answered, whatever it was.
    pub(super) fn answered(&self) {
        self.answered.set(true);
    }

    /// The hub could not be reached, broke a connection, did not answer or said
    /// that it cannot serve.
    pub(super) fn away(&self) {
        self.last_away.set(Some(Instant::now()));
    }

    /// Whether the hub has ever answered.
    pub(super) fn has_answered(&self) -> bool {
        self.answered.get()
    }

    /// When the hub, having been there before, was last seen not to answer.
    pub(super) fn last_away(&self) -> Option<Instant> {
        self.last_away.get().filter(|_| self.answered.get())
    }

    /// Whether that was within the last `time`.
    pub(super) fn was_away_within(&self, time: Duration) -> bool {
        self.last_away().is_some_and(|last| last.elapsed() < time)
    }
}
