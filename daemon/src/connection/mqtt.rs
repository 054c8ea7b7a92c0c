//! One MQTT 3.1.1 session: what is said to the hub and what it says, without
//! the packets that carry it.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use rumqttc::mqttbytes::v4::{
    Codec, ConnAck, Connect, ConnectReturnCode, Login, Packet, PubAck, Publish, Subscribe, SubscribeFilter,
    SubscribeReasonCode, Unsubscribe,
};
use rumqttc::mqttbytes::{self, QoS};
use tokio::io::AsyncWriteExt as _;
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use tokio_util::codec::Framed;

use crate::connection::dial::Stream;
use crate::connection::outage::Outage;

/// A session that the server has accepted.
pub struct Mqtt {
    packets: Framed<Stream, Codec>,
    target: String,
    certificate: Option<String>,
    goes_on: bool,
}

/// What CONNECT says, and what to say when the server refuses it.
#[derive(Clone)]
pub struct ConnectOptions {
    /// The client id, by which messages for people name the device, too.
    pub client_id: String,
    /// The user name.
    pub user: String,
    /// The password: a SAS token, unless a certificate was shown.
    pub password: Option<String>,
    /// The file of the certificate that was shown. Whether the server takes the
    /// certificate may show only after the handshake.
    pub certificate: Option<String>,
    /// What a person should look at when the server refuses.
    pub remedy: String,
}

/// What the server says.
#[derive(Debug)]
pub enum Incoming {
    /// A message.
    Message {
        /// Its topic.
        topic: String,
        /// Its payload.
        payload: Vec<u8>,
        /// The packet id to acknowledge the message by; none for QoS 0, which wants
        /// no acknowledgement.
        acknowledge: Option<u16>,
    },
    /// The message that was published with this id has arrived.
    Acknowledged(u16),
    /// A subscription was taken.
    Subscribed,
    /// A subscription was refused.
    SubscriptionRefused,
    /// A subscription was ended.
    Unsubscribed,
    /// The server is alive.
    Pong,
    /// Something that needs no answer.
    Other,
}

/// The largest packet, in bytes: the hub's limit for one message, and room for
/// its topic. Source: "IoT Hub quotas and throttling".
const MAX_PACKET: usize = 256 * 1024 + 4 * 1024;
/// The bytes that most packets fit in; the buffers grow for others.
const BUFFER: usize = 1024;
/// How long to wait for CONNACK, and for the network to take what is sent.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait until the stream is closed in good order, at an end or a renewal
/// that should not be felt.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

impl Mqtt {
    /// Sends CONNECT over `stream` and waits for CONNACK. The server is asked to keep
    /// the session over connections (clean session = 0).
    pub async fn connect(
        stream: Stream,
        target: String,
        options: &ConnectOptions,
        keep_alive: Duration,
    ) -> Result<Self, Outage> {
        let codec = Codec { max_incoming_size: MAX_PACKET, max_outgoing_size: MAX_PACKET };
        let packets = Framed::with_capacity(stream, codec, BUFFER);
        let mut mqtt = Mqtt { packets, target, certificate: options.certificate.clone(), goes_on: false };
        let mut connect = Connect::new(&options.client_id);
        connect.clean_session = false;
        connect.keep_alive = keep_alive.as_secs().try_into().unwrap_or(u16::MAX);
        let password = options.password.clone().unwrap_or_default();
        connect.login = Some(Login::new(&options.user, password));
        mqtt.send(Packet::Connect(connect)).await?;
        let who = &options.client_id;
        match timeout(PATIENCE, mqtt.receive()).await {
            Err(_) => Err(Outage::unreachable(format!("{} does not answer", mqtt.target))),
            Ok(Err(outage)) => Err(outage),
            Ok(Ok(Packet::ConnAck(ConnAck { code: ConnectReturnCode::Success, session_present }))) => {
                mqtt.goes_on = session_present;
                Ok(mqtt)
            }
            Ok(Ok(Packet::ConnAck(ConnAck { code, .. }))) => {
                let outage = match code {
                    ConnectReturnCode::ServiceUnavailable => {
                        Outage::busy(format!("{} is not available to {who} now", mqtt.target), None)
                    }
                    _ => Outage::refused(format!("{} refused {who}", mqtt.target))
                        .mended_by(format!("check {}", options.remedy)),
                };
                Err(outage.noting(spelled(code)))
            }
            Ok(Ok(_)) => Err(mqtt.not_mqtt("another packet than CONNACK came first")),
        }
    }

    /// Subscribes to `filters` with QoS 0, as the Node and C SDKs do: with QoS 1 the
    /// server would deliver a call a second time if its acknowledgement was lost.
    /// With `more` to be said at once the packet waits for that, and goes along with it.
    pub async fn subscribe(&mut self, packet_id: u16, filters: &[&str], more: bool) -> Result<(), Outage> {
        let filters =
            filters.iter().map(|filter| SubscribeFilter::new((*filter).to_owned(), QoS::AtMostOnce));
        let mut subscribe = Subscribe::new_many(filters);
        subscribe.pkid = packet_id;
        self.send_with(Packet::Subscribe(subscribe), more).await
    }

    /// Ends the subscription to `filter`.
    pub async fn unsubscribe(&mut self, packet_id: u16, filter: &str) -> Result<(), Outage> {
        let mut unsubscribe = Unsubscribe::new(filter);
        unsubscribe.pkid = packet_id;
        self.send(Packet::Unsubscribe(unsubscribe)).await
    }

    /// Publishes a message. With a `packet_id` the server has to acknowledge it
    /// (QoS 1, [`Incoming::Acknowledged`]); without one it need not (QoS 0). `more` is as
    /// in [`Mqtt::subscribe`].
    pub async fn publish(
        &mut self,
        packet_id: Option<u16>,
        topic: String,
        payload: Vec<u8>,
        more: bool,
    ) -> Result<(), Outage> {
        let qos = packet_id.map_or(QoS::AtMostOnce, |_| QoS::AtLeastOnce);
        let mut publish = Publish::new(topic, qos, payload);
        publish.pkid = packet_id.unwrap_or_default();
        self.send_with(Packet::Publish(publish), more).await
    }

    /// Acknowledges a message.
    pub async fn acknowledge(&mut self, packet_id: u16) -> Result<(), Outage> {
        self.send(Packet::PubAck(PubAck::new(packet_id))).await
    }

    /// Asks for a sign of life, [`Incoming::Pong`].
    pub async fn ping(&mut self) -> Result<(), Outage> {
        self.send(Packet::PingReq).await
    }

    /// What the server says next. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Incoming, Outage> {
        Ok(match self.receive().await? {
            Packet::Publish(Publish { qos, pkid, topic, payload, .. }) => {
                let acknowledge = (qos != QoS::AtMostOnce).then_some(pkid);
                Incoming::Message { topic, payload: payload.into(), acknowledge }
            }
            Packet::PubAck(ack) => Incoming::Acknowledged(ack.pkid),
            Packet::SubAck(ack) if ack.return_codes.contains(&SubscribeReasonCode::Failure) => {
                Incoming::SubscriptionRefused
            }
            Packet::SubAck(_) => Incoming::Subscribed,
            Packet::UnsubAck(_) => Incoming::Unsubscribed,
            Packet::PingResp => Incoming::Pong,
            _ => Incoming::Other,
        })
    }

    /// Sends what has waited for more to be said, if anything.
    pub async fn flush(&mut self) -> Result<(), Outage> {
        let flushed = timeout(PATIENCE, self.packets.flush()).await;
        self.sent(flushed)
    }

    async fn send(&mut self, packet: Packet) -> Result<(), Outage> {
        self.send_with(packet, false).await
    }

    async fn send_with(&mut self, packet: Packet, more: bool) -> Result<(), Outage> {
        let send = async {
            match more {
                true => self.packets.feed(packet).await,
                false => self.packets.send(packet).await,
            }
        };
        let sent = timeout(PATIENCE, send).await;
        self.sent(sent)
    }

    fn sent(&self, sent: Result<Result<(), mqttbytes::Error>, Elapsed>) -> Result<(), Outage> {
        match sent {
            Ok(sent) => sent.map_err(|error| self.broken(error)),
            Err(_) => Err(Outage::unreachable(format!("{} no longer answers", self.target))),
        }
    }

    async fn receive(&mut self) -> Result<Packet, Outage> {
        match self.packets.next().await {
            Some(packet) => packet.map_err(|error| self.broken(error)),
            None => Err(Outage::closed(&self.target)),
        }
    }

    /// Sends DISCONNECT and closes the stream, unless that takes longer than a
    /// second.
    pub async fn leave(mut self) {
        let leave = async {
            let _ = self.packets.send(Packet::Disconnect).await;
            let _ = self.packets.get_mut().shutdown().await;
        };
        let _ = timeout(CLOSE_PATIENCE, leave).await;
    }

    /// Whether the server has kept the session of an earlier connection, with
    /// its subscriptions.
    pub fn goes_on(&self) -> bool {
        self.goes_on
    }

    /// The server, for people.
    pub fn target(&self) -> &str {
        &self.target
    }

    fn broken(&self, error: mqttbytes::Error) -> Outage {
        match error {
            mqttbytes::Error::Io(error) => Outage::broken(&error, &self.target, self.certificate.as_deref()),
            other => self.not_mqtt(&other.to_string()),
        }
    }

    fn not_mqtt(&self, why: &str) -> Outage {
        Outage::unreachable(format!("{} sent what is no MQTT packet that a hub sends: {why}", self.target))
    }
}

/// The return code of CONNACK. Source: MQTT 3.1.1, table 3.1.
fn spelled(code: ConnectReturnCode) -> &'static str {
    match code {
        ConnectReturnCode::Success => "CONNACK 0, accepted",
        ConnectReturnCode::RefusedProtocolVersion => "CONNACK 1, protocol version refused",
        ConnectReturnCode::BadClientId => "CONNACK 2, client id refused",
        ConnectReturnCode::ServiceUnavailable => "CONNACK 3, server unavailable",
        ConnectReturnCode::BadUserNamePassword => "CONNACK 4, bad user name or password",
        ConnectReturnCode::NotAuthorized => "CONNACK 5, not authorized",
    }
}
