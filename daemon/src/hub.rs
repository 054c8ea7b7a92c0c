//! The connection to the hub: made, kept, made again.
//!
//! Each connection has a client of its own, so nothing that was queued for an
//! earlier one is sent on a later: what to say is derived from state after
//! each connect. "Delivered" means that the hub acknowledged it.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use iotdm_proto::topic::{DESIRED_PATCHES, DeviceTopic, HubTopic, METHOD_CALLS, TWIN_RESPONSES};
use iotdm_proto::{API_VERSION, Time, sas};
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event as MqttEvent, MqttOptions, Outgoing, Packet, QoS,
    StateError, SubscribeFilter, SubscribeReasonCode, TlsConfiguration, Transport,
};
use rustls::{CertificateError, ClientConfig};
use tokio::sync::{Notify, mpsc};

use crate::backoff::Backoff;
use crate::credentials::Identity;

/// What the connection is made with.
#[derive(Debug, Clone)]
pub struct Options {
    /// Who connects, and where.
    pub identity: Identity,
    /// What the server is checked against.
    pub tls: Arc<ClientConfig>,
    /// How often an idle connection is shown to be alive.
    pub keep_alive: Duration,
    /// How long a token is valid.
    pub sas_ttl: Duration,
}

/// What the hub says, or what becomes of it.
#[derive(Debug)]
pub enum HubEvent {
    /// Connected; from here on calls may come.
    Connected(Link),
    /// All subscriptions are acknowledged; from here on responses arrive.
    Subscribed,
    /// A message.
    Message(HubTopic, Vec<u8>),
    /// The hub acknowledged the reply to this call.
    Delivered {
        /// The call.
        rid: String,
    },
    /// The connection ended; the next attempt follows by itself.
    Disconnected {
        /// Why, or nothing for a planned renewal of the token.
        outage: Option<Outage>,
        /// When it is tried again.
        retry_in: Duration,
    },
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    /// Whether the hub itself said no, which soon asking again will not mend.
    pub refused: bool,
    /// The cause and, where there is one, the remedy.
    pub message: String,
}

/// The sending side of one connection. What is sent over a connection that has
/// ended is dropped.
#[derive(Debug, Clone)]
pub struct Link {
    client: AsyncClient,
    /// The calls whose replies were queued, in their order.
    replies: mpsc::UnboundedSender<String>,
}

/// MQTT over TLS.
const MQTTS_PORT: u16 = 8883;
/// The hub's limit for one message.
const MAX_PACKET: usize = 256 * 1024;
/// Bounds both the queue of unsent publishes and that of unacknowledged ones,
/// each well above what an operator's burst of calls needs.
const QUEUE: usize = 128;
/// How long a due renewal waits for replies to be acknowledged.
const REPLIES: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT_SECONDS: u64 = 30;
/// A connection that lasted this long makes the next outage a new one.
const STABLE: Duration = Duration::from_secs(60);

impl Link {
    /// Answers a call. The acknowledgement is reported as
    /// [`HubEvent::Delivered`].
    pub fn reply(&self, rid: &str, status: u16, body: Vec<u8>) {
        let topic = DeviceTopic::MethodResponse { status: status.into(), rid: rid.to_owned() };
        if self.publish(topic, QoS::AtLeastOnce, body) {
            // Closed only together with the connection.
            let _ = self.replies.send(rid.to_owned());
        }
    }

    /// Asks for the twin. Its response is the acknowledgement, so QoS 0 does.
    pub fn get_twin(&self, rid: String) {
        self.publish(DeviceTopic::TwinGet { rid }, QoS::AtMostOnce, Vec::new());
    }

    /// Merges `patch` into the reported properties; acknowledged by its
    /// response.
    pub fn patch_reported(&self, rid: String, patch: Vec<u8>) {
        self.publish(DeviceTopic::ReportedPatch { rid, version: None }, QoS::AtMostOnce, patch);
    }

    /// Ends the connection in an orderly way.
    pub fn disconnect(&self) {
        let _ = self.client.try_disconnect();
    }

    fn publish(&self, topic: DeviceTopic, qos: QoS, body: Vec<u8>) -> bool {
        let sent = self.client.try_publish(topic.to_string(), qos, false, body);
        if let Err(error) = &sent {
            tracing::debug!("not sent, the connection is gone or its queue full: {error}");
        }
        sent.is_ok()
    }
}

/// Connects, and again whenever the connection ends, until nobody listens to
/// `events` any more. `hurry` tells that an attempt now may fare better than
/// the last one did.
pub async fn run(options: Options, hurry: Arc<Notify>, events: mpsc::Sender<HubEvent>) {
    let mut unreachable = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    let mut refused = Backoff::new(Duration::from_secs(20), Duration::from_secs(600));
    loop {
        let began = Instant::now();
        let Some(outage) = session(&options, &events).await else { return };
        if began.elapsed() >= STABLE {
            unreachable.reset();
            refused.reset();
        }
        let retry_in = match &outage {
            None => Duration::ZERO,
            Some(outage) if outage.refused => refused.next(fastrand::f64()),
            Some(_) => unreachable.next(fastrand::f64()),
        };
        if events.send(HubEvent::Disconnected { outage, retry_in }).await.is_err() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(retry_in) => {}
            () = hurry.notified() => {
                unreachable.reset();
                refused.reset();
            }
            () = events.closed() => return,
        }
    }
}

/// One connection from CONNECT to its end: `Some(None)` when it ended for
/// renewing the token, `None` when nobody listens any more.
async fn session(options: &Options, events: &mpsc::Sender<HubEvent>) -> Option<Option<Outage>> {
    let (client, mut eventloop) = AsyncClient::new(mqtt_options(options), QUEUE);
    let mut network = eventloop.network_options();
    network.set_connection_timeout(CONNECT_TIMEOUT_SECONDS).set_tcp_nodelay(true);
    eventloop.set_network_options(network);
    let (replies, queued) = mpsc::unbounded_channel();
    let mut delivery = Delivery { queued, unacknowledged: HashMap::new() };
    let link = Link { client: client.clone(), replies };

    // The same point of every token's life, which the hub counts from now.
    let renewal = tokio::time::sleep(options.sas_ttl.mul_f64(0.85));
    tokio::pin!(renewal);
    // Once it is due, replies under way are waited for, but not for long.
    let mut renew = false;
    loop {
        let event = tokio::select! {
            event = eventloop.poll() => event,
            () = &mut renewal => {
                if renew || delivery.is_idle() {
                    let _ = client.try_disconnect();
                }
                renew = true;
                renewal.as_mut().reset(tokio::time::Instant::now() + REPLIES);
                continue;
            }
        };
        let happened = match event {
            // Sent; the peer may be long gone and need not close as well.
            Ok(MqttEvent::Outgoing(Outgoing::Disconnect)) | Err(_) if renew => return Some(None),
            Err(error) => return Some(Some(explain(&error, options))),
            Ok(MqttEvent::Incoming(Packet::ConnAck(_))) => {
                let filters = [METHOD_CALLS, TWIN_RESPONSES, DESIRED_PATCHES];
                // A call that is delivered again after a lost acknowledgement
                // would be a second call: QoS 0, as in the Node and C SDKs.
                let filters = filters.map(|filter| SubscribeFilter::new(filter.to_owned(), QoS::AtMostOnce));
                let _ = client.try_subscribe_many(filters);
                HubEvent::Connected(link.clone())
            }
            Ok(MqttEvent::Incoming(Packet::SubAck(ack))) => {
                if ack.return_codes.contains(&SubscribeReasonCode::Failure) {
                    let message = "the hub refused a subscription".to_owned();
                    return Some(Some(Outage { refused: true, message }));
                }
                HubEvent::Subscribed
            }
            Ok(MqttEvent::Incoming(Packet::Publish(publish))) => match HubTopic::parse(&publish.topic) {
                Some(topic) => HubEvent::Message(topic, publish.payload.into()),
                None => continue,
            },
            Ok(MqttEvent::Outgoing(Outgoing::Publish(packet_id))) => {
                delivery.sent(packet_id);
                continue;
            }
            Ok(MqttEvent::Incoming(Packet::PubAck(ack))) => {
                let delivered = delivery.acknowledged(ack.pkid);
                if renew && delivery.is_idle() {
                    let _ = client.try_disconnect();
                }
                match delivered {
                    Some(rid) => HubEvent::Delivered { rid },
                    None => continue,
                }
            }
            Ok(_) => continue,
        };
        events.send(happened).await.ok()?;
    }
}

/// Which acknowledgement belongs to which reply. rumqttc tells the packet ids
/// of publishes in the order in which they were queued.
struct Delivery {
    queued: mpsc::UnboundedReceiver<String>,
    unacknowledged: HashMap<u16, String>,
}

impl Delivery {
    fn sent(&mut self, packet_id: u16) {
        // QoS 0 has no packet id and is not acknowledged.
        if packet_id != 0
            && let Ok(rid) = self.queued.try_recv()
        {
            self.unacknowledged.insert(packet_id, rid);
        }
    }

    fn acknowledged(&mut self, packet_id: u16) -> Option<String> {
        self.unacknowledged.remove(&packet_id)
    }

    fn is_idle(&self) -> bool {
        self.queued.is_empty() && self.unacknowledged.is_empty()
    }
}

fn mqtt_options(options: &Options) -> MqttOptions {
    let connection = &options.identity.connection;
    let (host, device) = (&connection.host_name.host, &connection.device_id);
    let target = connection.target();
    let mut mqtt = MqttOptions::new(device.as_str(), target.host.as_str(), target.port_or(MQTTS_PORT));
    let agent = concat!("iotdm-agentd%2F", env!("CARGO_PKG_VERSION"));
    let user = format!("{host}/{device}/?api-version={API_VERSION}&DeviceClientType={agent}");
    // Rounded up to whole seconds, lest a short life lose a good part of it.
    let expiry = Time::from(SystemTime::now()).unix_seconds() + options.sas_ttl.as_secs() + 1;
    mqtt.set_credentials(
        user,
        sas::sign(&format!("{host}/devices/{device}"), &options.identity.key, expiry, None),
    );
    mqtt.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(options.tls.clone())));
    mqtt.set_keep_alive(options.keep_alive);
    // As every SDK does; the subscriptions are made again all the same.
    mqtt.set_clean_session(false);
    mqtt.set_max_packet_size(MAX_PACKET, MAX_PACKET);
    mqtt.set_inflight(QUEUE as u16);
    mqtt
}

/// One sentence for people: what failed and what helps.
fn explain(error: &ConnectionError, options: &Options) -> Outage {
    let connection = &options.identity.connection;
    let (target, device) = (connection.target(), &connection.device_id);
    let unreachable = |message| Outage { refused: false, message };
    match error {
        ConnectionError::ConnectionRefused(ConnectReturnCode::ServiceUnavailable) => {
            Outage { refused: true, message: format!("{target} is not available to {device} now") }
        }
        ConnectionError::ConnectionRefused(_) => Outage {
            refused: true,
            message: format!(
                "{target} refused {device}: check its key in {}, that the device exists and is enabled there, \
                 and this machine's clock",
                options.identity.source.display()
            ),
        },
        ConnectionError::NetworkTimeout | ConnectionError::FlushTimeout => {
            unreachable(format!("{target} does not answer"))
        }
        ConnectionError::Tls(rumqttc::TlsError::Io(io)) | ConnectionError::Io(io) => {
            unreachable(explain_io(io, &target.to_string()))
        }
        ConnectionError::MqttState(StateError::ConnectionAborted) => {
            unreachable(format!("{target} closed the connection"))
        }
        ConnectionError::MqttState(
            StateError::Io(io) | StateError::Deserialization(rumqttc::mqttbytes::Error::Io(io)),
        ) => unreachable(explain_io(io, &target.to_string())),
        ConnectionError::MqttState(StateError::AwaitPingResp) => {
            unreachable(format!("{target} no longer answers"))
        }
        other => unreachable(format!("the connection to {target} failed: {other}")),
    }
}

fn explain_io(error: &std::io::Error, target: &str) -> String {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(tls) = tls else {
        return match error.kind() {
            ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::BrokenPipe
            | ErrorKind::UnexpectedEof => {
                format!("{target} closed the connection")
            }
            _ => format!("cannot reach {target}: {error}"),
        };
    };
    let rustls::Error::InvalidCertificate(why) = tls else {
        return format!("no secure connection to {target}: {tls}");
    };
    let why = match why {
        // The latter when a CA of the same name, but with another key, is trusted.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "is of a CA that this machine does not trust: if it should, name its certificate in hub.ca_file"
                .to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "is for another name: check HostName or GatewayHostName in the connection string".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "has expired, by this machine's clock: check the clock".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "is not valid yet, by this machine's clock: check the clock".to_owned()
        }
        other => format!("cannot be accepted: {other:?}"),
    };
    format!("the certificate of {target} {why}")
}
