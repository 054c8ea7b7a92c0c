//! The links of all devices that are connected: what each is subscribed to,
//! and which method calls it has not replied to yet.
//!
//! There is at most one link per device: the newest wins. Everything meant for
//! a device goes through the bounded outbox of its link; a device that does not
//! read is cut off, so that it holds up nobody else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use iotdm_proto::DeviceId;
use iotdm_proto::topic::HubTopic;
use iotdm_proto::twin::Object;
use serde_json::Value;
use tokio::sync::{oneshot, watch};

use crate::changes::Changes;
use crate::clock::now;
use crate::faults::Delivery;
use crate::link::{CallOutcome, Closed, Link, Message, PendingCall, Presence};
use crate::outbox::{Sender, outbox};
use crate::subscriptions::Subscriptions;
use iotdm_proto::Identity;

/// How many messages may wait for a slow device before it is cut off: the 50
/// cloud-to-device messages that are queued at once when a device subscribes,
/// and some room for others.
const OUTBOX: usize = 64;

/// All links.
#[derive(Debug)]
pub struct Links {
    inner: Mutex<Inner>,
    /// Changes whenever a device connects or subscribes.
    changed: watch::Sender<()>,
    /// Who wants to know of devices that connect and leave.
    changes: Arc<Changes>,
}

#[derive(Debug, Default)]
struct Inner {
    links: HashMap<Identity, Slot>,
    presences: HashMap<Identity, Presence>,
    next_link: u64,
    next_call: u64,
    changes: Arc<Changes>,
}

/// The hub's end of a link.
#[derive(Debug)]
struct Slot {
    number: u64,
    outbox: Sender<Message>,
    close: oneshot::Sender<Closed>,
    subscriptions: Subscriptions,
    /// The end of the device's token, in seconds since the Unix epoch.
    expiry: Option<u64>,
    /// Who waits for a reply, by the call's `$rid`.
    calls: HashMap<String, oneshot::Sender<CallOutcome>>,
}

impl Default for Links {
    fn default() -> Self {
        Links::new(Arc::default())
    }
}

impl Links {
    /// No link yet; `changes` is told which devices connect and leave.
    pub fn new(changes: Arc<Changes>) -> Self {
        let inner = Mutex::new(Inner { changes: changes.clone(), ..Inner::default() });
        Links { inner, changed: watch::channel(()).0, changes }
    }

    /// Opens the link of a new session of `device`, which may be a module, and
    /// closes the previous one. `expiry` is the end of the device's token, if it
    /// has one, in seconds since the Unix epoch.
    pub fn attach(&self, device: &Identity, subscriptions: Subscriptions, expiry: Option<u64>) -> Link {
        let mut inner = self.lock();
        inner.remove(device, Closed::Replaced);
        inner.next_link += 1;
        let number = inner.next_link;
        let (outbox, messages) = outbox(OUTBOX);
        let (close, closed) = oneshot::channel();
        let slot = Slot { number, outbox, close, subscriptions, expiry, calls: HashMap::new() };
        inner.links.insert(device.clone(), slot);
        let presence = inner.presences.entry(device.clone()).or_default();
        *presence =
            Presence { connected: true, changed: Some(now()), last_activity: Some(now()), messages: 0 };
        drop(inner);
        self.changes.note(device);
        self.changed.send_replace(());
        Link { device: device.clone(), number, outbox: messages, closed }
    }

    /// Forgets the link of a session that has ended; without effect when a
    /// newer link has taken its place.
    pub fn detach(&self, device: &Identity, number: u64) {
        let mut inner = self.lock();
        if inner.links.get(device).is_some_and(|slot| slot.number == number) {
            inner.links.remove(device);
            inner.note_gone(device);
        }
    }

    /// Closes the device's connection; `false` when it has none.
    pub fn close(&self, device: &Identity, why: Closed) -> bool {
        self.lock().remove(device, why)
    }

    /// Closes the connections of a device and of its modules.
    pub fn close_device(&self, device: &DeviceId, why: Closed) {
        let mut inner = self.lock();
        let ids: Vec<Identity> = inner.links.keys().filter(|id| id.device == *device).cloned().collect();
        for id in ids {
            inner.remove(&id, why);
        }
    }

    /// Closes every connection.
    pub fn close_all(&self, why: Closed) {
        let mut inner = self.lock();
        let ids: Vec<Identity> = inner.links.keys().cloned().collect();
        for id in ids {
            inner.remove(&id, why);
        }
    }

    /// What the session with this link is subscribed to; `None` when a newer
    /// link has taken its place.
    pub fn subscriptions(&self, device: &Identity, number: u64) -> Option<Subscriptions> {
        let inner = self.lock();
        inner.links.get(device).filter(|slot| slot.number == number).map(|slot| slot.subscriptions)
    }

    /// Changes what the session with this link is subscribed to and returns the
    /// result; `None` when a newer link has taken its place.
    pub fn subscribe(
        &self,
        device: &Identity,
        number: u64,
        change: impl FnOnce(&mut Subscriptions),
    ) -> Option<Subscriptions> {
        let mut inner = self.lock();
        let slot = inner.links.get_mut(device).filter(|slot| slot.number == number)?;
        change(&mut slot.subscriptions);
        let subscriptions = slot.subscriptions;
        drop(inner);
        self.changed.send_replace(());
        Some(subscriptions)
    }

    /// Tells a device about a `patch` of its desired properties, if the device
    /// is connected and subscribed to them. The new `version` goes into the body
    /// as `$version`.
    pub fn notify(&self, device: &Identity, mut patch: Object, version: u64) {
        patch.insert("$version".into(), version.into());
        let mut inner = self.lock();
        if inner.links.get(device).is_some_and(|slot| slot.subscriptions.desired_patches.is_some()) {
            let payload = Value::Object(patch).to_string();
            inner.send(device, Message::new(HubTopic::DesiredPatch { version }, payload));
        }
    }

    /// When the token ends that the device is connected with, in seconds since
    /// the Unix epoch; `None` without a connection or a token.
    pub fn token_expiry(&self, device: &Identity) -> Option<u64> {
        self.lock().links.get(device)?.expiry
    }

    /// Sends a cloud-to-device message; `false` when the device is not connected
    /// or not subscribed to such messages.
    pub fn deliver(&self, device: &Identity, message: Message) -> bool {
        let mut inner = self.lock();
        let listens = inner.links.get(device).is_some_and(|slot| slot.subscriptions.messages.is_some());
        listens && inner.send(device, message)
    }

    /// Sends a method call, whose `payload` is JSON, in the way that `delivery` says, which is only asked
    /// when the call is sent; `None` when the device is not connected or not
    /// subscribed to calls.
    pub fn call(
        &self,
        device: &Identity,
        method: &str,
        payload: &str,
        delivery: impl FnOnce() -> Delivery,
    ) -> Option<PendingCall> {
        let mut inner = self.lock();
        let Inner { links, next_call, .. } = &mut *inner;
        let slot = links.get_mut(device)?;
        slot.subscriptions.method_calls?;
        *next_call += 1;
        let rid = format!("{next_call:x}");
        let (reply, outcome) = oneshot::channel();
        let topic = HubTopic::MethodCall { name: method.to_owned(), rid: rid.clone() };
        let message = Message::new(topic, payload.to_owned());
        let Delivery { delay, twice } = delivery();
        for message in twice.then(|| message.clone()).into_iter().chain([message]) {
            if !delay.is_zero() {
                let outbox = slot.outbox.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    outbox.send(message).await;
                });
            } else if !slot.outbox.try_send(message) {
                inner.remove(device, Closed::Slow);
                return None;
            }
        }
        // A caller whose request was dropped has not said that it is gone.
        slot.calls.retain(|_, waiting| !waiting.is_closed());
        slot.calls.insert(rid.clone(), reply);
        Some(PendingCall { rid, outcome })
    }

    /// Hands a device's reply to whoever waits for it; `false` for late, repeated
    /// and invented replies, which nobody waits for.
    pub fn reply(&self, device: &Identity, rid: &str, status: i64, payload: Value) -> bool {
        let mut inner = self.lock();
        let waiting = inner.links.get_mut(device).and_then(|slot| slot.calls.remove(rid));
        waiting.is_some_and(|waiting| waiting.send(CallOutcome::Reply(status, payload)).is_ok())
    }

    /// Stops waiting for the reply to a call.
    pub fn forget_call(&self, device: &Identity, rid: &str) {
        if let Some(slot) = self.lock().links.get_mut(device) {
            slot.calls.remove(rid);
        }
    }

    /// Notes that the device sent something.
    pub fn touch(&self, device: &Identity) {
        if let Some(presence) = self.lock().presences.get_mut(device) {
            presence.last_activity = Some(now());
        }
    }

    /// What is known about the device's connection.
    pub fn presence(&self, device: &Identity) -> Presence {
        self.lock().presences.get(device).cloned().unwrap_or_default()
    }

    /// How many devices are connected.
    pub fn connected(&self) -> usize {
        self.lock().links.len()
    }

    /// Changes whenever a device connects or subscribes.
    pub fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Queues a message, or cuts the device off when its outbox is full.
    fn send(&mut self, device: &Identity, message: Message) -> bool {
        let sent = self.links.get(device).is_some_and(|slot| slot.outbox.try_send(message));
        if !sent {
            self.remove(device, Closed::Slow);
        }
        sent
    }

    /// Closes the device's link; `false` when there is none.
    fn remove(&mut self, device: &Identity, why: Closed) -> bool {
        let Some(slot) = self.links.remove(device) else { return false };
        // Without a receiver the session has ended by itself.
        let _ = slot.close.send(why);
        if why == Closed::Replaced {
            for (_, call) in slot.calls {
                let _ = call.send(CallOutcome::Replaced);
            }
        }
        self.note_gone(device);
        true
    }

    /// Notes that the device is not connected any more.
    fn note_gone(&mut self, device: &Identity) {
        if let Some(presence) = self.presences.get_mut(device) {
            (presence.connected, presence.changed) = (false, Some(now()));
        }
        self.changes.note(device);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::subscriptions::Granted;

    fn gw1() -> Identity {
        "gw1".parse().unwrap()
    }

    fn at_once() -> Delivery {
        Delivery { delay: std::time::Duration::ZERO, twice: false }
    }

    fn listening() -> Subscriptions {
        let granted = Some(Granted::AtLeastOnce);
        Subscriptions { method_calls: granted, desired_patches: granted, ..Subscriptions::default() }
    }

    #[test]
    fn the_newest_connection_wins_and_ends_the_olds_calls() {
        let links = Links::default();
        let mut old = links.attach(&gw1(), listening(), None);
        let mut call = links.call(&gw1(), "m", "null", at_once).unwrap();
        let new = links.attach(&gw1(), listening(), None);
        assert_eq!(old.closed.try_recv(), Ok(Closed::Replaced));
        assert_eq!(call.outcome.try_recv(), Ok(CallOutcome::Replaced));
        assert!(!links.reply(&gw1(), &call.rid, 200, Value::Null));
        links.detach(&gw1(), old.number);
        assert_eq!(links.connected(), 1, "the old one's end does not take the new one along");
        links.detach(&gw1(), new.number);
        assert!(!links.presence(&gw1()).connected);
    }

    #[test]
    fn only_one_reply_counts() {
        let links = Links::default();
        let mut link = links.attach(&gw1(), listening(), None);
        let mut call = links.call(&gw1(), "m", r#"{"a":1}"#, at_once).unwrap();
        let message = link.outbox.try_recv().unwrap();
        assert_eq!(&*message.payload, br#"{"a":1}"#);
        assert!(links.reply(&gw1(), &call.rid, 200, json!(1)));
        assert!(!links.reply(&gw1(), &call.rid, 500, json!(2)));
        assert_eq!(call.outcome.try_recv(), Ok(CallOutcome::Reply(200, json!(1))));
        let late = links.call(&gw1(), "m", "null", at_once).unwrap();
        links.forget_call(&gw1(), &late.rid);
        assert!(!links.reply(&gw1(), &late.rid, 200, Value::Null));
    }

    #[test]
    fn nothing_reaches_a_device_that_does_not_listen() {
        let links = Links::default();
        let mut link = links.attach(&gw1(), Subscriptions::default(), None);
        assert!(links.call(&gw1(), "m", "null", at_once).is_none());
        links.notify(&gw1(), Object::new(), 2);
        assert!(link.outbox.try_recv().is_none());
        links.subscribe(&gw1(), link.number, |subscriptions| *subscriptions = listening()).unwrap();
        assert!(links.subscribe(&gw1(), link.number + 1, |_| panic!("not this link")).is_none());
        links.notify(&gw1(), Object::new(), 3);
        assert_eq!(&*link.outbox.try_recv().unwrap().payload, br#"{"$version":3}"#);
    }

    #[test]
    fn a_device_that_does_not_read_is_cut_off() {
        let links = Links::default();
        let mut link = links.attach(&gw1(), listening(), None);
        for version in 0..=OUTBOX as u64 {
            links.notify(&gw1(), Object::new(), version);
        }
        assert_eq!(link.closed.try_recv(), Ok(Closed::Slow));
        assert_eq!(links.connected(), 0);
    }
}
