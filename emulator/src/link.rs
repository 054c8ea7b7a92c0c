//! A link: the handle by which the hub's other parts speak through a device's
//! session.

use bytes::Bytes;
use iotdm_proto::Time;
use iotdm_proto::topic::HubTopic;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::outbox::Receiver;
use iotdm_proto::Identity;

/// A message to a device.
#[derive(Debug, Clone)]
pub struct Message {
    /// The topic.
    pub topic: String,
    /// The body.
    pub payload: Bytes,
    /// The number by which the hub knows a message that the device has to
    /// acknowledge; `None` for any other message.
    pub number: Option<u64>,
}

impl Message {
    /// A message that need not be acknowledged.
    pub fn new(topic: HubTopic, payload: String) -> Self {
        Message { topic: topic.to_string(), payload: payload.into(), number: None }
    }
}

/// The session's end of a link. The hub keeps the other end until the session
/// detaches the link or the hub closes it.
#[derive(Debug)]
pub struct Link {
    /// The device or module.
    pub device: Identity,
    /// Tells the link from earlier and later ones of the device.
    pub number: u64,
    /// The messages that the session has to send.
    pub outbox: Receiver<Message>,
    /// Resolves when the session has to close its connection.
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
    /// A fault dropped the connection.
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

/// What became of a call that was sent to its device.
#[derive(Debug, PartialEq)]
pub enum CallOutcome {
    /// The device replied with this status, and this payload or `null`.
    Reply(i64, Value),
    /// The device opened a newer connection before it replied.
    Replaced,
}

/// A call that was sent to its device and not replied to yet.
#[derive(Debug)]
pub struct PendingCall {
    /// The `$rid` that tells the call from the device's other calls.
    pub rid: String,
    /// Resolves with what became of the call; an error means that the
    /// connection ended without a newer one.
    pub outcome: oneshot::Receiver<CallOutcome>,
}

/// What is known about a device's connection. None of it is kept over
/// restarts of the emulator.
#[derive(Debug, Clone, Default)]
pub struct Presence {
    /// Whether the device is connected.
    pub connected: bool,
    /// When the device last connected or disconnected.
    pub changed: Option<Time>,
    /// When the device last sent something.
    pub last_activity: Option<Time>,
    /// How many cloud-to-device messages wait for the device.
    pub messages: usize,
}

impl Presence {
    /// `Connected` or `Disconnected`.
    pub fn state(&self) -> &'static str {
        if self.connected { "Connected" } else { "Disconnected" }
    }
}
