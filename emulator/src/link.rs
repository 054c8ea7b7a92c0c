//! One device's connection, as the hub's other parts see it.

use bytes::Bytes;
use iotdm_proto::Time;
use iotdm_proto::topic::HubTopic;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::identity::Identity;

/// A message to a device.
#[derive(Debug, Clone)]
pub struct Message {
    /// Where to.
    pub topic: String,
    /// What.
    pub payload: Bytes,
    /// For one that the device has to acknowledge: its number, by which the
    /// hub knows it.
    pub number: Option<u64>,
}

impl Message {
    /// A message that need not be acknowledged.
    pub fn new(topic: HubTopic, payload: String) -> Self {
        Message { topic: topic.to_string(), payload: payload.into(), number: None }
    }
}

/// The connection's end of a link. It is removed from [`Links`](crate::links::Links) with
/// [`Links::detach`](crate::links::Links::detach).
#[derive(Debug)]
pub struct Link {
    /// The device.
    pub device: Identity,
    /// Tells it from other links of the device.
    pub number: u64,
    /// What to send.
    pub outbox: mpsc::Receiver<Message>,
    /// Resolves when the connection has to be closed.
    pub closed: oneshot::Receiver<Closed>,
}

/// Why the hub closes a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// The device connected again.
    #[error("the device opened a newer connection")]
    Replaced,
    /// The identity was disabled or deleted.
    #[error("the device was disabled or deleted")]
    Refused,
    /// A fault asked for it.
    #[error("a fault dropped the link")]
    Fault,
    /// A fault made the token expire.
    #[error("a fault made the token expire")]
    Expired,
    /// The device does not read what it is sent.
    #[error("the device does not read what it is sent")]
    Slow,
    /// The emulator stops.
    #[error("the emulator stops")]
    Shutdown,
}

/// How a call that reached its device ended.
#[derive(Debug, PartialEq)]
pub enum CallEnd {
    /// The device answered: its status, and its payload or `null`.
    Reply(i64, Value),
    /// A newer connection took over.
    Replaced,
}

/// A call on its way.
#[derive(Debug)]
pub struct Call {
    /// Its `$rid`.
    pub rid: String,
    /// Resolves with its end; an error means that the connection ended.
    pub end: oneshot::Receiver<CallEnd>,
}

/// What is known about a device's connection. It is not kept over restarts.
#[derive(Debug, Clone, Default)]
pub struct Presence {
    /// Whether it is connected.
    pub connected: bool,
    /// When that last changed.
    pub changed: Option<Time>,
    /// When it last sent something.
    pub last_activity: Option<Time>,
    /// How many messages wait for it.
    pub messages: usize,
}

impl Presence {
    /// `Connected` or `Disconnected`.
    pub fn state(&self) -> &'static str {
        if self.connected { "Connected" } else { "Disconnected" }
    }
}
