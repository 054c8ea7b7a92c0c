//! Which devices have changed, or have connected or left, since configurations were
//! last evaluated.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use iotdm_proto::Identity;

/// The devices that have changed. Nothing is noted while nobody wants to know.
#[derive(Debug, Default)]
pub struct Changes {
    since: Mutex<Since>,
    noted: Notify,
    /// Whether there are configurations, whose result the changes may change.
    matter: AtomicBool,
}

/// What has changed since it was last asked for.
#[derive(Debug, Default)]
pub struct Since {
    /// Whether configurations have changed, and so every device may be concerned.
    pub all: bool,
    /// The devices and modules that have changed.
    pub ids: BTreeSet<Identity>,
}

impl Changes {
    /// Takes note that a device or module has changed.
    pub fn note(&self, id: &Identity) {
        if self.matter.load(Ordering::Relaxed) {
            self.lock().ids.insert(id.clone());
            self.noted.notify_one();
        }
    }

    /// Takes note that configurations have changed.
    pub fn note_all(&self) {
        self.matter.store(true, Ordering::Relaxed);
        self.lock().all = true;
        self.noted.notify_one();
    }

    /// Says whether changes of devices matter from now on.
    pub fn matter(&self, matter: bool) {
        self.matter.store(matter, Ordering::Relaxed);
    }

    /// Waits until something has changed, and returns what.
    pub async fn next(&self) -> Since {
        loop {
            let since = std::mem::take(&mut *self.lock());
            if since.all || !since.ids.is_empty() {
                return since;
            }
            self.noted.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Since> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changes_are_noted_once_and_only_while_they_matter() {
        let changes = Changes::default();
        let (a, b): (Identity, Identity) = ("a".parse().unwrap(), "b/m".parse().unwrap());
        changes.note(&a);
        changes.note_all();
        let since = changes.next().await;
        assert!(since.all && since.ids.is_empty());
        for id in [&a, &b, &a] {
            changes.note(id);
        }
        let since = changes.next().await;
        assert!(!since.all);
        assert_eq!(since.ids.into_iter().collect::<Vec<_>>(), [a, b]);
    }
}
