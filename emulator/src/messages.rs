//! Cloud-to-device messages, each kept until its device acknowledges it.
//!
//! Over MQTT a device can only accept a message (PUBACK); a message that is not
//! acknowledged is sent again when the device connects the next time, in the same
//! session with the same packet id. Source of
//! this and of the limits: "Understand cloud-to-device messaging".

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use iotdm_proto::Time;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::task::block_in_place;

use crate::clock::now;
use crate::link::Message;
use crate::random;
use crate::refusal::{ErrorCode, HubRefusal};
use crate::store::{Batch, MESSAGES, Store};
use iotdm_proto::Identity;

/// How many messages may wait for one device.
const MAX_WAITING: usize = 50;
/// The largest body of a message, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// The characters that are encoded in properties: all but RFC 3986's unreserved
/// ones.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The messages that wait for devices.
pub struct Messages(Mutex<Inner>);

struct Inner {
    store: Store,
    /// By device, and within a device by number: the oldest first.
    waiting: BTreeMap<Identity, BTreeMap<u64, Stored>>,
    /// The number of the next message.
    next: u64,
}

/// A message as the store keeps it.
#[derive(Clone, Serialize, Deserialize)]
struct Stored {
    /// The properties, encoded as they stand in the topic.
    bag: String,
    body: String,
    enqueued: Time,
    /// The packet id that the message went out with in the device's session.
    #[serde(default)]
    packet_id: Option<u16>,
}

impl Messages {
    /// The messages in the store.
    pub fn open(store: Store) -> Result<Self> {
        let (mut waiting, mut next) = (BTreeMap::<Identity, BTreeMap<u64, Stored>>::new(), 1);
        for (name, message) in store.all::<Stored>(MESSAGES)? {
            let (id, number) = name.rsplit_once('/').context("a stored message names no device")?;
            let number: u64 = number.parse().context("a stored message has no number")?;
            waiting.entry(id.parse()?).or_default().insert(number, message);
            next = next.max(number + 1);
        }
        Ok(Messages(Mutex::new(Inner { store, waiting, next })))
    }

    /// Keeps a message `{"body","properties"?}` for a device that exists.
    pub fn add(&self, id: &Identity, message: &Value) -> Result<Message, HubRefusal> {
        let stored = Stored::parse(id, message)?;
        let mut inner = self.lock();
        if inner.waiting.get(id).is_some_and(|waiting| waiting.len() >= MAX_WAITING) {
            let why = format!("{MAX_WAITING} messages wait for {id} already");
            return Err(ErrorCode::DeviceMaximumQueueDepthExceeded.because(why));
        }
        let number = inner.next;
        block_in_place(|| inner.store.put(MESSAGES, &name(id, number), &stored))
            .map_err(HubRefusal::internal)?;
        inner.next += 1;
        let message = stored.message(id, number);
        inner.waiting.entry(id.clone()).or_default().insert(number, stored);
        Ok(message)
    }

    /// The messages that wait for a device and have not gone out in its session, the
    /// oldest first.
    pub fn pending(&self, id: &Identity) -> Vec<Message> {
        let inner = self.lock();
        let waiting = inner.waiting.get(id).into_iter().flatten();
        let waiting = waiting.filter(|(_, stored)| stored.packet_id.is_none());
        waiting.map(|(number, stored)| stored.message(id, *number)).collect()
    }

    /// The messages that have gone out in the device's session without being
    /// acknowledged, each with its packet id, the oldest first.
    pub fn unacknowledged(&self, id: &Identity) -> Vec<(u16, Message)> {
        let inner = self.lock();
        let waiting = inner.waiting.get(id).into_iter().flatten();
        waiting
            .filter_map(|(number, stored)| Some((stored.packet_id?, stored.message(id, *number))))
            .collect()
    }

    /// Takes note that a message goes out with this packet id, which it keeps as
    /// long as the device's session; `false` when the message does not wait any more,
    /// or has gone out already.
    pub fn sends(&self, id: &Identity, number: u64, packet_id: u16) -> Result<bool, HubRefusal> {
        let mut inner = self.lock();
        let waiting = inner.waiting.get(id).and_then(|waiting| waiting.get(&number));
        let Some(stored) = waiting.filter(|stored| stored.packet_id.is_none()) else { return Ok(false) };
        let stored = Stored { packet_id: Some(packet_id), ..stored.clone() };
        block_in_place(|| inner.store.put(MESSAGES, &name(id, number), &stored))
            .map_err(HubRefusal::internal)?;
        if let Some(waiting) = inner.waiting.get_mut(id) {
            waiting.insert(number, stored);
        }
        Ok(true)
    }

    /// Forgets the packet ids of the messages that wait for a device: a new session
    /// begins.
    pub fn begin_session(&self, id: &Identity) -> Result<(), HubRefusal> {
        let mut inner = self.lock();
        let waiting = inner.waiting.get(id).into_iter().flatten();
        let sent: Vec<(u64, Stored)> = waiting
            .filter(|(_, stored)| stored.packet_id.is_some())
            .map(|(number, stored)| (*number, Stored { packet_id: None, ..stored.clone() }))
            .collect();
        if sent.is_empty() {
            return Ok(());
        }
        let write = || -> Result<()> {
            let mut batch = Batch::default();
            for (number, stored) in &sent {
                batch.put(MESSAGES, &name(id, *number), stored)?;
            }
            inner.store.write(batch)
        };
        block_in_place(write).map_err(HubRefusal::internal)?;
        if let Some(waiting) = inner.waiting.get_mut(id) {
            waiting.extend(sent);
        }
        Ok(())
    }

    /// How many messages wait for a device.
    pub fn count(&self, id: &Identity) -> usize {
        self.lock().waiting.get(id).map_or(0, BTreeMap::len)
    }

    /// Forgets a message that the device has acknowledged, or that goes out without;
    /// `false` when it did not wait any more.
    pub fn complete(&self, id: &Identity, number: u64) -> Result<bool, HubRefusal> {
        let mut inner = self.lock();
        if inner.waiting.get(id).is_none_or(|waiting| !waiting.contains_key(&number)) {
            return Ok(false);
        }
        block_in_place(|| inner.store.remove(MESSAGES, &name(id, number))).map_err(HubRefusal::internal)?;
        if let Some(waiting) = inner.waiting.get_mut(id) {
            waiting.remove(&number);
        }
        Ok(true)
    }

    /// Forgets all messages that wait for a device and returns how many there
    /// were.
    pub fn purge(&self, id: &Identity) -> Result<usize, HubRefusal> {
        let mut inner = self.lock();
        let Some(waiting) = inner.waiting.get(id).filter(|waiting| !waiting.is_empty()) else { return Ok(0) };
        let remove = || -> Result<()> {
            let mut batch = Batch::default();
            for number in waiting.keys() {
                batch.remove(MESSAGES, &name(id, *number));
            }
            inner.store.write(batch)
        };
        block_in_place(remove).map_err(HubRefusal::internal)?;
        Ok(inner.waiting.remove(id).map_or(0, |waiting| waiting.len()))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stored {
    fn parse(id: &Identity, message: &Value) -> Result<Self, HubRefusal> {
        let invalid = |why: &str| ErrorCode::ArgumentInvalid.because(why);
        let body = match message.get("body") {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => return Err(invalid("body is missing")),
        };
        if body.len() > MAX_BODY {
            return Err(
                ErrorCode::MessageTooLarge.because(format!("the body has more than {MAX_BODY} bytes"))
            );
        }
        let empty = Map::new();
        let properties = match message.get("properties") {
            None | Some(Value::Null) => &empty,
            Some(Value::Object(properties)) => properties,
            Some(_) => return Err(invalid("properties is not an object")),
        };
        let mut bag = vec![
            pair("$.mid", &random::hex_id()?),
            pair("$.to", &format!("/{}/messages/devicebound", id.path())),
        ];
        for (key, value) in properties {
            let value = value.as_str().ok_or_else(|| invalid("properties have strings as values"))?;
            bag.push(pair(key, value));
        }
        Ok(Stored { bag: bag.join("&"), body, enqueued: now(), packet_id: None })
    }

    fn message(&self, id: &Identity, number: u64) -> Message {
        let topic = format!("{}/messages/devicebound/{}", id.path(), self.bag);
        Message { topic, payload: self.body.clone().into(), number: Some(number) }
    }
}

/// A message's name in the store.
fn name(id: &Identity, number: u64) -> String {
    // Zeros in front, so that the store's order is that of the numbers.
    format!("{id}/{number:020}")
}

/// A property as it stands in a topic.
fn pair(key: &str, value: &str) -> String {
    format!("{}={}", utf8_percent_encode(key, ENCODED), utf8_percent_encode(value, ENCODED))
}
