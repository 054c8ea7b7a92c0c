//! One client connection from CONNECT to its end.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use iotdm_proto::Time;
use rumqttc::mqttbytes::v4::{ConnAck, Connect, ConnectReturnCode, Packet, PubAck, Publish, UnsubAck};
use rumqttc::mqttbytes::{self, QoS};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info};

use super::connect::{self, Refusal};
use super::connection::{Connection, Error};
use super::{publish, subscribe};
use crate::faults::Kind;
use crate::hub::Hub;
use crate::link::{Closed, Link, Message};
use crate::provisioning;

/// A client that has not sent its CONNECT by then is cut off.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Keep-alives above this are cut to it: the hub's documented cap of 1767 s
/// for one and a half times the keep-alive.
const MAX_SILENCE: Duration = Duration::from_secs(1767);

/// Far enough for a token's end, and not too far for a timer.
pub(crate) const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Why the hub ends a connection, or sees it end.
#[derive(Debug, thiserror::Error)]
pub enum End {
    /// The client sent DISCONNECT.
    #[error("the client disconnected")]
    Disconnect,
    /// Its connection.
    #[error(transparent)]
    Connection(#[from] Error),
    /// The hub closed it.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// Nothing came for one and a half keep-alives.
    #[error("nothing came for one and a half keep-alives")]
    Silent,
    /// The token's time is over.
    #[error("the token expired")]
    Expired,
    /// The client did something that the hub answers by closing.
    #[error("{0}")]
    Violation(String),
}

/// Serves a connection until it ends.
pub async fn serve(hub: Arc<Hub>, mut connection: Connection) {
    let connect = match timeout(CONNECT_DEADLINE, connection.read_connect()).await {
        Ok(Ok(Packet::Connect(connect))) => connect,
        Ok(Ok(_)) => return debug!("closed a client whose first packet was no CONNECT"),
        Ok(Err(Error::Malformed(mqttbytes::Error::InvalidProtocolLevel(_)))) => {
            let code = ConnectReturnCode::RefusedProtocolVersion;
            let _ = connection.write(&Packet::ConnAck(ConnAck::new(code, false))).await;
            return connection.close().await;
        }
        Ok(Err(error)) => return debug!(%error, "a client left before CONNECT"),
        Err(_) => return debug!("closed a client that sent no CONNECT in time"),
    };
    if let Some(id) = provisioning::session::registration_id(&hub, &connect) {
        return provisioning::session::serve(hub.clone(), connection, &connect, id).await;
    }
    match connect::accept(&hub, &connect, connection.certificate()).await {
        Ok(accepted) => {
            let device = accepted.link.device.clone();
            let number = accepted.link.number;
            info!(%device, session_present = accepted.session_present, "device connected");
            let mut session = Session {
                hub: &hub,
                connection,
                persistent: !connect.clean_session,
                max_silence: max_silence(&connect),
                link: accepted.link,
                unacknowledged: HashMap::new(),
                next_packet_id: 1,
            };
            let Err(end) = session.run(accepted.session_present, accepted.expiry).await;
            if let Some(will) = accepted.will.filter(|_| !matches!(end, End::Disconnect)) {
                will.send(&device, &hub.events);
            }
            hub.links.detach(&device, number);
            info!(%device, why = %end, "device disconnected");
            session.connection.close().await;
        }
        Err(Refusal { code, why }) => {
            info!(client_id = connect.client_id, ?code, why, "refused a CONNECT");
            let _ = connection.write(&Packet::ConnAck(ConnAck::new(code, false))).await;
            connection.close().await;
        }
    }
}

struct Session<'a> {
    hub: &'a Hub,
    connection: Connection,
    persistent: bool,
    max_silence: Option<Duration>,
    link: Link,
    /// Messages that the device has not acknowledged, by packet id.
    unacknowledged: HashMap<u16, u64>,
    next_packet_id: u16,
}

impl Session<'_> {
    /// Exchanges packets until there is a reason to stop.
    async fn run(&mut self, session_present: bool, expiry: Option<u64>) -> Result<Infallible, End> {
        let accepted = ConnAck::new(ConnectReturnCode::Success, session_present);
        self.connection.write(&Packet::ConnAck(accepted)).await?;
        // A stored subscription counts at once; without one nothing is sent.
        self.hub.deliver_pending(&self.link.device);
        let left = |expiry: u64| expiry.saturating_sub(Time::from(SystemTime::now()).unix_seconds());
        let left = expiry.map_or(LONGEST, |expiry| Duration::from_secs(left(expiry)).min(LONGEST));
        let expires = sleep_until(Instant::now() + left);
        tokio::pin!(expires);
        let mut heard = Instant::now();
        loop {
            let silent = sleep_until(heard + self.max_silence.unwrap_or(LONGEST));
            tokio::select! {
                biased;
                closed = &mut self.link.closed => return Err(closed.unwrap_or(Closed::Shutdown).into()),
                () = &mut expires => return Err(End::Expired),
                // Before reading, so that the queue of a talkative device does
                // not fill. It ends together with the link, which says why.
                Some(message) = self.link.outbox.recv() => self.send(message).await?,
                packet = self.connection.read() => {
                    heard = Instant::now();
                    self.hub.links.touch(&self.link.device);
                    self.receive(packet?).await?;
                }
                () = silent => return Err(End::Silent),
            }
        }
    }

    async fn receive(&mut self, packet: Packet) -> Result<(), End> {
        match packet {
            Packet::Publish(published) => self.publish(&published).await,
            Packet::Subscribe(asked) => {
                let before = self.receives_messages();
                let ack = subscribe::subscribe(self.hub, &self.link, self.persistent, &asked).await?;
                self.write(Packet::SubAck(ack)).await?;
                if !before && self.receives_messages() {
                    self.hub.deliver_pending(&self.link.device);
                }
                Ok(())
            }
            Packet::Unsubscribe(asked) => {
                subscribe::unsubscribe(self.hub, &self.link, self.persistent, &asked).await?;
                // What was on its way goes out first, so that a client that
                // has the acknowledgement knows that nothing more comes.
                while let Ok(message) = self.link.outbox.try_recv() {
                    self.send(message).await?;
                }
                self.write(Packet::UnsubAck(UnsubAck::new(asked.pkid))).await
            }
            Packet::PingReq => self.write(Packet::PingResp).await,
            Packet::PubAck(ack) => {
                if let Some(number) = self.unacknowledged.remove(&ack.pkid) {
                    let done = self.hub.messages.complete(&self.link.device, number);
                    done.map_err(|error| End::Violation(error.to_string()))?;
                }
                Ok(())
            }
            Packet::Disconnect => Err(End::Disconnect),
            other => Err(End::Violation(format!("the client sent {}", name(&other)))),
        }
    }

    /// Lets a publish take effect, acknowledges it, then answers it: what has
    /// been acknowledged is durable.
    async fn publish(&mut self, published: &Publish) -> Result<(), End> {
        debug!(
            device = %self.link.device, topic = published.topic, payload = %shown(&published.payload),
            "device -> hub"
        );
        if published.qos == QoS::ExactlyOnce {
            return Err(End::Violation("the client published at QoS 2".to_owned()));
        }
        let answer = publish::handle(self.hub, &self.link, published).await.map_err(End::Violation)?;
        if published.qos == QoS::AtLeastOnce {
            if self.hub.faults.happens(&self.link.device, Kind::WithholdPuback) {
                debug!(device = %self.link.device, "a fault withholds the PUBACK");
            } else {
                self.write(Packet::PubAck(PubAck::new(published.pkid))).await?;
            }
        }
        let Some(answer) = answer else { return Ok(()) };
        if self.hub.faults.happens(&self.link.device, Kind::WithholdTwinReply) {
            debug!(device = %self.link.device, "a fault withholds the twin's reply");
            return Ok(());
        }
        self.send(answer).await
    }

    async fn send(&mut self, message: Message) -> Result<(), End> {
        let Message { topic, payload, number } = message;
        debug!(device = %self.link.device, topic, payload = %shown(&payload), "hub -> device");
        let mut publish = Publish::from_bytes(topic, QoS::AtMostOnce, payload);
        // Twins and methods go out at QoS 0, which the official clients accept
        // whatever they asked for.
        if let Some(number) = number {
            (publish.qos, publish.pkid) = (QoS::AtLeastOnce, self.next_packet_id);
            self.next_packet_id = self.next_packet_id.checked_add(1).unwrap_or(1);
            self.unacknowledged.insert(publish.pkid, number);
        }
        self.write(Packet::Publish(publish)).await
    }

    fn receives_messages(&self) -> bool {
        let subscriptions = self.hub.links.subscriptions(&self.link.device, self.link.number);
        subscriptions.is_some_and(|subscriptions| subscriptions.messages)
    }

    async fn write(&mut self, packet: Packet) -> Result<(), End> {
        Ok(self.connection.write(&packet).await?)
    }
}

/// How long the client may be silent; without a keep-alive, for ever.
pub(crate) fn max_silence(connect: &Connect) -> Option<Duration> {
    let keep_alive = Duration::from_secs(connect.keep_alive.into());
    (!keep_alive.is_zero()).then(|| (keep_alive * 3 / 2).min(MAX_SILENCE))
}

/// A payload for the log: its beginning, as text.
fn shown(payload: &[u8]) -> String {
    const LIMIT: usize = 2048;
    let text = String::from_utf8_lossy(payload.get(..LIMIT).unwrap_or(payload));
    if payload.len() > LIMIT { format!("{text}… ({} bytes)", payload.len()) } else { text.into_owned() }
}

fn name(packet: &Packet) -> &'static str {
    match packet {
        Packet::Connect(_) => "a second CONNECT",
        Packet::PubRec(_) | Packet::PubRel(_) | Packet::PubComp(_) => "a packet of QoS 2",
        _ => "a packet that only servers send",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_one_and_a_half_keep_alives_up_to_the_cap() {
        let silence = |keep_alive| {
            let mut connect = Connect::new("gw1");
            connect.keep_alive = keep_alive;
            max_silence(&connect).map(|silence| silence.as_millis())
        };
        assert_eq!(silence(0), None);
        assert_eq!(silence(1), Some(1500));
        assert_eq!(silence(60), Some(90_000));
        assert_eq!(silence(u16::MAX), Some(1_767_000));
    }

    #[test]
    fn long_payloads_are_cut_for_the_log() {
        assert_eq!(shown(b"{}"), "{}");
        assert!(shown(&[b'x'; 5000]).ends_with("… (5000 bytes)"));
    }
}
