//! One MQTT 3.1.1 connection: packets in and out.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use rumqttc::mqttbytes::v4::{
    Codec, ConnAck, Connect, ConnectReturnCode, Login, Packet, Subscribe, SubscribeFilter,
};
use rumqttc::mqttbytes::{self, QoS};
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;
use tokio_util::codec::Framed;

use crate::dial::Stream;
use crate::outage::{Class, Outage};

/// A connection that the server has accepted.
pub struct Mqtt {
    packets: Framed<Stream, Codec>,
    target: String,
    certificate: Option<String>,
    goes_on: bool,
}

/// As whom to connect.
#[derive(Clone)]
pub struct Credentials {
    /// The name at the server, also for people.
    pub client_id: String,
    /// The user.
    pub user: String,
    /// A token, unless a certificate was shown.
    pub password: Option<String>,
    /// The file of that certificate. Whether it is taken shows only after the
    /// handshake.
    pub certificate: Option<String>,
    /// What to look at when the server refuses.
    pub remedy: String,
}

/// The hub's limit for one message, and room for its topic.
const MAX_PACKET: usize = 256 * 1024 + 4 * 1024;
/// What most packets fit in; the buffers grow for others.
const BUFFER: usize = 1024;
/// For CONNACK, for what is sent to be taken, for a close.
const PATIENCE: Duration = Duration::from_secs(30);
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

impl Mqtt {
    /// Sends CONNECT over `stream` and waits for its answer. The session is
    /// one that goes on over connections.
    pub async fn connect(
        stream: Stream,
        target: String,
        credentials: &Credentials,
        keep_alive: Duration,
    ) -> Result<Self, Outage> {
        let codec = Codec { max_incoming_size: MAX_PACKET, max_outgoing_size: MAX_PACKET };
        let packets = Framed::with_capacity(stream, codec, BUFFER);
        let mut mqtt = Mqtt { packets, target, certificate: credentials.certificate.clone(), goes_on: false };
        let mut connect = Connect::new(&credentials.client_id);
        connect.clean_session = false;
        connect.keep_alive = keep_alive.as_secs().try_into().unwrap_or(u16::MAX);
        let password = credentials.password.clone().unwrap_or_default();
        connect.login = Some(Login::new(&credentials.user, password));
        mqtt.send(Packet::Connect(connect)).await?;
        let who = &credentials.client_id;
        match timeout(PATIENCE, mqtt.next()).await {
            Err(_) => Err(Outage::unreachable(format!("{} does not answer", mqtt.target))),
            Ok(Err(outage)) => Err(outage),
            Ok(Ok(Packet::ConnAck(ConnAck { code: ConnectReturnCode::Success, session_present }))) => {
                mqtt.goes_on = session_present;
                Ok(mqtt)
            }
            Ok(Ok(Packet::ConnAck(ConnAck { code: ConnectReturnCode::ServiceUnavailable, .. }))) => {
                Err(Outage {
                    class: Class::Busy { retry_after: None },
                    message: format!("{} is not available to {who} now", mqtt.target),
                })
            }
            Ok(Ok(Packet::ConnAck(_))) => {
                Err(Outage::refused(format!("{} refused {who}: check {}", mqtt.target, credentials.remedy)))
            }
            Ok(Ok(_)) => Err(mqtt.not_mqtt("another packet than CONNACK came first")),
        }
    }

    /// Subscribes to `filters`. A message that is delivered again after a lost
    /// acknowledgement would be a second one: QoS 0, as in the Node and C SDKs.
    pub async fn subscribe(&mut self, packet_id: u16, filters: &[&str]) -> Result<(), Outage> {
        let filters =
            filters.iter().map(|filter| SubscribeFilter::new((*filter).to_owned(), QoS::AtMostOnce));
        let mut subscribe = Subscribe::new_many(filters);
        subscribe.pkid = packet_id;
        self.send(Packet::Subscribe(subscribe)).await
    }

    /// Sends a packet.
    pub async fn send(&mut self, packet: Packet) -> Result<(), Outage> {
        match timeout(PATIENCE, self.packets.send(packet)).await {
            Ok(sent) => sent.map_err(|error| self.broken(error)),
            Err(_) => Err(Outage::unreachable(format!("{} no longer answers", self.target))),
        }
    }

    /// The next packet. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Packet, Outage> {
        match self.packets.next().await {
            Some(packet) => packet.map_err(|error| self.broken(error)),
            None => Err(Outage::unreachable(format!("{} closed the connection", self.target))),
        }
    }

    /// Leaves in good order, as far as the server lets.
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
