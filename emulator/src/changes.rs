//! Which devices have changed, or have connected or left: since configurations were
//! last evaluated, and from now on for whoever looks on.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, broadcast};

use iotdm_proto::Identity;

/// How many changes a slow reader may be behind before it misses some.
const BACKLOG: usize = 4096;

/// The devices that have changed. Nothing is noted while nobody wants to know.
#[derive(Debug)]
pub struct Changes {
    since: Mutex<Since>,
    noted: Notify,
    /// Whether there are configurations, whose result the changes may change.
    matter: AtomicBool,
    told: broadcast::Sender<Identity>,
}

impl Default for Changes {
    fn default() -> Self {
        let told = broadcast::channel(BACKLOG).0;
        Changes { since: Mutex::default(), noted: Notify::new(), matter: AtomicBool::default(), told }
    }
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
    /// Takes note that a device or module has changed, or is gone.
    pub fn note(&self, id: &Identity) {
        if self.told.receiver_count() > 0 {
            // An error only means that the last reader has gone since.
            let _ = self.told.send(id.clone());
        }
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

    /// The devices and modules that change from now on.
    pub fn listen(&self) -> broadcast::Receiver<Identity> {
        self.told.subscribe()
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
