//! The connections whose client has not proved yet who it is.
//!
//! A listener takes a further connection only while it has room for one more
//! stranger; until then, new connections wait in the kernel. Where there is no
//! room, the stranger that came first gives way, once it has had [`PATIENCE`]:
//! so those that only hold their places keep nobody out for long, and what all
//! of them hold together is bounded. A client that has proved who it is, by a
//! CONNECT or by a request, is no stranger any more.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

/// How many strangers one listener has room for. Each may hold some 64 KiB: what
/// TLS and HTTP buffer, or half a CONNECT.
const ROOM: usize = 128;

/// How long a stranger keeps its place while others wait: TLS and a CONNECT
/// take far less, also by a slow device.
const PATIENCE: Duration = Duration::from_secs(2);

/// The strangers of one listener.
#[derive(Default)]
pub struct Strangers {
    inner: Mutex<Inner>,
    /// Tells the listener that a place became free.
    left: Notify,
}

#[derive(Default)]
struct Inner {
    /// The strangers by number, and so in the order in which they came.
    places: BTreeMap<u64, Place>,
    next: u64,
}

struct Place {
    since: Instant,
    /// Tells whoever serves the connection now that it has to give way.
    give_way: Option<oneshot::Sender<()>>,
}

/// A connection whose client has yet to prove who it is.
pub struct Stranger {
    strangers: Arc<Strangers>,
    number: u64,
    is_known: AtomicBool,
    /// How many bytes the client may still send until it has proved who it is.
    allowance: AtomicUsize,
}

impl Strangers {
    /// Waits until there is room for one more, and makes some where a stranger
    /// has had its time.
    pub async fn room(&self) {
        loop {
            let patience = {
                let mut inner = self.lock();
                if inner.places.len() < ROOM {
                    return;
                }
                let Some(oldest) = inner.places.first_entry() else { return };
                let patience = PATIENCE.saturating_sub(oldest.get().since.elapsed());
                if patience.is_zero() {
                    if let Some(give_way) = oldest.remove().give_way {
                        // An error only means that the connection just ended.
                        let _ = give_way.send(());
                    }
                    return;
                }
                patience
            };
            let _ = timeout(patience, self.left.notified()).await;
        }
    }

    /// Gives a new connection a place.
    pub fn enter(self: &Arc<Self>) -> Arc<Stranger> {
        let mut inner = self.lock();
        let number = inner.next;
        inner.next += 1;
        inner.places.insert(number, Place { since: Instant::now(), give_way: None });
        drop(inner);
        let (is_known, allowance) = (AtomicBool::new(false), AtomicUsize::new(usize::MAX));
        Arc::new(Stranger { strangers: self.clone(), number, is_known, allowance })
    }

    fn leave(&self, number: u64) {
        if self.lock().places.remove(&number).is_some() {
            self.left.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stranger {
    /// Carries out what serves the connection; `None` when the connection has to
    /// give way meanwhile. Who serves it next calls this anew.
    pub async fn unless_in_the_way<T>(&self, serving: impl Future<Output = T>) -> Option<T> {
        let (give_way, told) = oneshot::channel();
        match self.strangers.lock().places.get_mut(&self.number) {
            Some(place) => place.give_way = Some(give_way),
            None if self.is_known() => {}
            None => return None,
        }
        tokio::select! {
            biased;
            output = serving => Some(output),
            // The sender is dropped, without a word, once the client is known.
            Ok(()) = told => None,
        }
    }

    /// Takes note that the client has proved who it is.
    pub fn becomes_known(&self) {
        // Most requests come by a connection whose client was known before.
        if !self.is_known.swap(true, Ordering::Relaxed) {
            self.strangers.leave(self.number);
        }
    }

    /// Allows the client so many bytes more until it has proved who it is.
    pub fn allow(&self, bytes: usize) {
        self.allowance.store(bytes, Ordering::Relaxed);
    }

    /// Counts what the client sent; whether it was allowed to.
    pub fn sends(&self, bytes: usize) -> bool {
        let spend = |left: usize| left.checked_sub(bytes);
        self.is_known() || self.allowance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok()
    }

    fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Relaxed)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.strangers.leave(self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::pin::pin;

    use futures_util::FutureExt as _;
    use tokio::task::yield_now;

    use super::*;

    fn full() -> (Arc<Strangers>, Vec<Arc<Stranger>>) {
        let strangers = Arc::new(Strangers::default());
        let all = (0..ROOM).map(|_| {
            strangers.room().now_or_never().expect("room");
            strangers.enter()
        });
        let all = all.collect();
        (strangers, all)
    }

    /// Makes the stranger one that has been here for as long as it may.
    fn age(strangers: &Strangers, stranger: &Stranger) {
        let since = Instant::now().checked_sub(PATIENCE).unwrap();
        strangers.lock().places.get_mut(&stranger.number).unwrap().since = since;
    }

    #[tokio::test]
    async fn there_is_room_again_when_one_leaves_or_is_known() {
        let (strangers, mut all) = full();
        for leaves in [true, false] {
            {
                let mut room = pin!(strangers.room());
                assert!(room.as_mut().now_or_never().is_none());
                if leaves {
                    all.pop();
                } else {
                    all[0].becomes_known();
                }
                room.await;
            }
            all.push(strangers.enter());
        }
        assert!(strangers.room().now_or_never().is_none());
    }

    #[tokio::test]
    async fn the_one_that_came_first_gives_way_in_time_and_only_then() {
        let (strangers, all) = full();
        let first = all[0].clone();
        let serving = tokio::spawn(async move { first.unless_in_the_way(pending::<()>()).await });
        yield_now().await;
        assert!(strangers.room().now_or_never().is_none(), "it has its time");
        age(&strangers, &all[0]);
        strangers.room().await;
        assert_eq!(serving.await.unwrap(), None);
        assert_eq!(all[0].unless_in_the_way(async {}).await, None, "nobody serves it on");
        assert_eq!(all[1].unless_in_the_way(async {}).await, Some(()));
    }

    #[tokio::test]
    async fn one_that_is_known_never_gives_way() {
        let (strangers, all) = full();
        age(&strangers, &all[0]);
        let (end, ended) = oneshot::channel();
        let first = all[0].clone();
        let serving = tokio::spawn(async move { first.unless_in_the_way(ended).await });
        yield_now().await;
        all[0].becomes_known();
        let _another = strangers.enter();
        age(&strangers, &all[1]);
        strangers.room().await;
        yield_now().await;
        assert!(!serving.is_finished());
        end.send(7).unwrap();
        assert_eq!(serving.await.unwrap(), Some(Ok(7)));
        assert_eq!(all[0].unless_in_the_way(async {}).await, Some(()));
    }

    #[test]
    fn an_allowance_is_for_strangers() {
        let stranger = Arc::new(Strangers::default()).enter();
        assert!(stranger.sends(usize::MAX / 2));
        stranger.allow(100);
        assert!(stranger.sends(60) && !stranger.sends(41) && stranger.sends(40) && !stranger.sends(1));
        stranger.becomes_known();
        assert!(stranger.sends(1000));
    }
}
