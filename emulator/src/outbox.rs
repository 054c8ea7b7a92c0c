//! The messages that a session has to send: a bounded queue between the hub and one
//! connection, which takes no memory while nothing is in it. (A channel of tokio's has
//! room for 32 messages from the beginning, and ten thousand connections are idle most
//! of the time.)

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// How many messages an empty queue keeps room for once it had some.
const KEPT: usize = 4;

/// The hub's end.
#[derive(Debug)]
pub struct Sender<T>(Arc<Shared<T>>);

/// The session's end; nothing can be sent once it is dropped.
#[derive(Debug)]
pub struct Receiver<T>(Arc<Shared<T>>);

#[derive(Debug)]
struct Shared<T> {
    most: usize,
    queue: Mutex<Queue<T>>,
    /// Tells the session that a message came.
    came: Notify,
    /// Tells who waits for room that a message went.
    went: Notify,
}

#[derive(Debug)]
struct Queue<T> {
    messages: VecDeque<T>,
    closed: bool,
}

/// A queue for `most` messages.
pub fn outbox<T>(most: usize) -> (Sender<T>, Receiver<T>) {
    let queue = Mutex::new(Queue { messages: VecDeque::new(), closed: false });
    let shared = Shared { most, queue, came: Notify::new(), went: Notify::new() };
    let shared = Arc::new(shared);
    (Sender(shared.clone()), Receiver(shared))
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Sender(self.0.clone())
    }
}

impl<T> Sender<T> {
    /// Queues a message; `false` when there is no room, or nobody who sends it.
    pub fn try_send(&self, message: T) -> bool {
        self.push(message).is_ok()
    }

    /// Queues a message as soon as there is room; without effect when nobody sends it
    /// any more.
    pub async fn send(&self, mut message: T) {
        while let Err(refused) = self.push(message) {
            if self.0.lock().closed {
                // For whoever else waits.
                return self.0.went.notify_one();
            }
            message = refused;
            self.0.went.notified().await;
        }
    }

    fn push(&self, message: T) -> Result<(), T> {
        let mut queue = self.0.lock();
        if queue.closed || queue.messages.len() >= self.0.most {
            return Err(message);
        }
        queue.messages.push_back(message);
        drop(queue);
        self.0.came.notify_one();
        Ok(())
    }
}

impl<T> Receiver<T> {
    /// The next message, as soon as there is one. Nothing is lost when the future is
    /// dropped.
    pub async fn recv(&mut self) -> T {
        loop {
            if let Some(message) = self.try_recv() {
                return message;
            }
            self.0.came.notified().await;
        }
    }

    /// The next message, if there is one.
    pub fn try_recv(&mut self) -> Option<T> {
        let mut queue = self.0.lock();
        let message = queue.messages.pop_front()?;
        if queue.messages.is_empty() && queue.messages.capacity() > KEPT {
            queue.messages.shrink_to(KEPT);
        }
        drop(queue);
        self.0.went.notify_one();
        Some(message)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.closed = true;
        queue.messages.clear();
        drop(queue);
        // Remembered where nobody waits yet.
        self.0.went.notify_one();
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn messages_come_in_their_order_and_wait_for_room() {
        let (sender, mut receiver) = outbox(2);
        assert!(sender.try_send("a") && sender.try_send("b"));
        assert!(!sender.try_send("x"), "no room");
        let third = tokio::spawn({
            let sender = sender.clone();
            async move { sender.send("c").await }
        });
        for topic in ["a", "b", "c"] {
            assert_eq!(receiver.recv().await, topic);
        }
        third.await.unwrap();
        assert!(receiver.recv().now_or_never().is_none() && receiver.try_recv().is_none());
        assert!(sender.try_send("d"));
        assert_eq!(receiver.recv().await, "d", "also after a future that was dropped");
    }

    #[tokio::test]
    async fn nothing_is_sent_to_a_session_that_has_ended() {
        let (sender, receiver) = outbox(1);
        assert!(sender.try_send("a"));
        let waiting = tokio::spawn({
            let sender = sender.clone();
            async move { sender.send("b").await }
        });
        tokio::task::yield_now().await;
        drop(receiver);
        waiting.await.unwrap();
        assert!(!sender.try_send("c"));
    }
}
