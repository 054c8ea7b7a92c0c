//! One device's session with the hub, from its CONNECT to its end.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;

use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{ConnAck, Connect, ConnectReturnCode, Packet, PubAck, Publish, UnsubAck};
use serde_json::json;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info};

use super::connect::{self, ConnectRefusal};
use super::connection::{Connection, MAX_PAYLOAD};
use super::session_end::{LONGEST, SessionEnd, max_silence};
use super::{publish, subscribe};
use crate::clock::now;
use crate::faults::FaultKind;
use crate::hub::Hub;
use crate::link::{Closed, Link, Message};
use crate::notifications::About;
use crate::refusal::HubRefusal;
use crate::subscriptions::Granted;
use iotdm_proto::Identity;

/// Serves a connection whose CONNECT is for the hub until it ends.
pub async fn serve(hub: &Hub, mut connection: Connection, connect: Connect) {
    // Boxed, as all that is not needed while a session is idle: there may be ten
    // thousand of them.
    match Box::pin(connect::accept(hub, &connect, connection.certificate())).await {
        Ok(accepted) => {
            let device = accepted.link.device.clone();
            let number = accepted.link.number;
            connection.becomes_known();
            info!(%device, session_present = accepted.session_present, "device connected");
            note_connection(hub, &device, true);
            let mut session = HubSession {
                hub,
                connection,
                persistent: !connect.clean_session,
                max_silence: max_silence(&connect),
                link: accepted.link,
                unacknowledged: HashMap::new(),
                next_packet_id: 1,
            };
            // It has the device's token.
            drop(connect);
            let Err(end) = session.run(accepted.session_present, accepted.expiry).await;
            if let Some(will) = accepted.will.filter(|_| !matches!(end, SessionEnd::Disconnect)) {
                will.send(&device, &hub.telemetry);
            }
            hub.links.detach(&device, number);
            info!(%device, why = %end, "device disconnected");
            note_connection(hub, &device, false);
            session.connection.close().await;
        }
        Err(ConnectRefusal { code, why }) => {
            info!(client_id = connect.client_id, ?code, why, "refused a CONNECT");
            let _ = connection.write(&Packet::ConnAck(ConnAck::new(code, false))).await;
            connection.close().await;
        }
    }
}

/// A session after its CONNECT was accepted.
struct HubSession<'a> {
    hub: &'a Hub,
    connection: Connection,
    /// Whether the subscriptions are kept beyond the connection.
    persistent: bool,
    /// How long the device may be silent; `None` is for ever.
    max_silence: Option<Duration>,
    link: Link,
    /// The messages that the device has not acknowledged: the number of each by
    /// the packet id that it was sent with.
    unacknowledged: HashMap<u16, u64>,
    next_packet_id: u16,
}

impl HubSession<'_> {
    /// Exchanges packets until there is a reason to stop. `expiry` is the end
    /// of the device's token in seconds since the Unix epoch.
    async fn run(&mut self, session_present: bool, expiry: Option<u64>) -> Result<Infallible, SessionEnd> {
        let accepted = ConnAck::new(ConnectReturnCode::Success, session_present);
        self.connection.write(&Packet::ConnAck(accepted)).await?;
        // What was not acknowledged in earlier connections of the session goes out
        // first and as it was [MQTT-4.4.0-1], whatever the device is subscribed to now.
        for (packet_id, message) in self.hub.messages.unacknowledged(&self.link.device) {
            self.send_numbered(message, packet_id, true).await?;
        }
        // A stored session may be subscribed to messages; to any other session
        // this sends nothing.
        self.hub.deliver_pending(&self.link.device);
        let left = |expiry: u64| expiry.saturating_sub(now().unix_seconds());
        let left = expiry.map_or(LONGEST, |expiry| Duration::from_secs(left(expiry)).min(LONGEST));
        let expires = sleep_until(Instant::now() + left);
        tokio::pin!(expires);
        let max_silence = self.max_silence.unwrap_or(LONGEST);
        let mut heard = Instant::now();
        let silent = sleep_until(heard + max_silence);
        tokio::pin!(silent);
        loop {
            tokio::select! {
                biased;
                closed = &mut self.link.closed => return Err(closed.unwrap_or(Closed::Shutdown).into()),
                () = &mut expires => return Err(SessionEnd::Expired),
                // Before reading, so that the outbox of a talkative device does
                // not fill.
                message = self.link.outbox.recv() => self.send(message).await?,
                packet = self.connection.read() => {
                    heard = Instant::now();
                    self.hub.links.touch(&self.link.device);
                    self.receive(packet?).await?;
                }
                // The timer is not set anew for each packet, but when it has run down.
                () = &mut silent => match heard + max_silence {
                    end if end <= Instant::now() => return Err(SessionEnd::Silent),
                    later => silent.as_mut().reset(later),
                },
            }
        }
    }

    async fn receive(&mut self, packet: Packet) -> Result<(), SessionEnd> {
        match packet {
            Packet::Publish(published) => self.publish(&published).await,
            Packet::Subscribe(asked) => {
                let before = self.granted_messages();
                let subscribed = subscribe::subscribe(self.hub, &self.link, self.persistent, &asked);
                let ack = Box::pin(subscribed).await?;
                self.write(Packet::SubAck(ack)).await?;
                if before.is_none() && self.granted_messages().is_some() {
                    self.hub.deliver_pending(&self.link.device);
                }
                Ok(())
            }
            Packet::Unsubscribe(asked) => {
                Box::pin(subscribe::unsubscribe(self.hub, &self.link, self.persistent, &asked)).await?;
                // The messages in the outbox go out first, so that a client
                // that has the acknowledgement knows that none comes after it.
                while let Some(message) = self.link.outbox.try_recv() {
                    self.send(message).await?;
                }
                self.write(Packet::UnsubAck(UnsubAck::new(asked.pkid))).await
            }
            Packet::PingReq => self.write(Packet::PingResp).await,
            Packet::PubAck(ack) => {
                if let Some(number) = self.unacknowledged.remove(&ack.pkid) {
                    let done = self.hub.messages.complete(&self.link.device, number);
                    done.map_err(|error| SessionEnd::Violation(error.to_string()))?;
                }
                Ok(())
            }
            Packet::Disconnect => Err(SessionEnd::Disconnect),
            other => Err(SessionEnd::Violation(format!("the client sent {}", name(&other)))),
        }
    }

    /// Lets a publish take effect, acknowledges it, then sends the reply to it:
    /// a publish that has been acknowledged is durable.
    async fn publish(&mut self, published: &Publish) -> Result<(), SessionEnd> {
        debug!(
            device = %self.link.device, topic = published.topic, payload = %shown(&published.payload),
            "device -> hub"
        );
        if published.qos == QoS::ExactlyOnce {
            return Err(SessionEnd::Violation("the client published at QoS 2".to_owned()));
        }
        if published.payload.len() > MAX_PAYLOAD {
            return Err(SessionEnd::Violation(format!("the client published more than {MAX_PAYLOAD} bytes")));
        }
        let reply = publish::handle(self.hub, &self.link, published).await.map_err(SessionEnd::Violation)?;
        if published.qos == QoS::AtLeastOnce {
            if self.hub.faults.happens(&self.link.device, FaultKind::WithholdPuback) {
                debug!(device = %self.link.device, "a fault withholds the PUBACK");
            } else {
                self.write(Packet::PubAck(PubAck::new(published.pkid))).await?;
            }
        }
        let Some(reply) = reply else { return Ok(()) };
        if self.hub.faults.happens(&self.link.device, FaultKind::WithholdTwinReply) {
            debug!(device = %self.link.device, "a fault withholds the twin's reply");
            return Ok(());
        }
        self.send(reply).await
    }

    /// Sends a message to the device at the lesser of the QoS that it is published
    /// at, 1 for one with a number and 0 for others, and the one that the device was
    /// granted [MQTT-3.8.4-6]. The official clients take twin messages and method
    /// calls at QoS 0, whatever they asked for.
    async fn send(&mut self, message: Message) -> Result<(), SessionEnd> {
        let Some(number) = message.number else {
            return self
                .send_publish(Publish::from_bytes(message.topic, QoS::AtMostOnce, message.payload))
                .await;
        };
        let failed = |error: HubRefusal| SessionEnd::Violation(error.to_string());
        if self.granted_messages() == Some(Granted::AtMostOnce) {
            if self.hub.messages.complete(&self.link.device, number).map_err(failed)? {
                let publish = Publish::from_bytes(message.topic, QoS::AtMostOnce, message.payload);
                self.send_publish(publish).await?;
            }
            return Ok(());
        }
        // The id is kept before the message goes out, so that it is the same after a
        // kill as well.
        let packet_id = self.free_packet_id();
        if self.hub.messages.sends(&self.link.device, number, packet_id).map_err(failed)? {
            self.send_numbered(message, packet_id, false).await?;
        }
        Ok(())
    }

    /// Sends a message with a number at QoS 1; `again` where it went out in an earlier
    /// connection of the session [MQTT-3.3.1-1].
    async fn send_numbered(
        &mut self,
        message: Message,
        packet_id: u16,
        again: bool,
    ) -> Result<(), SessionEnd> {
        self.unacknowledged.extend(message.number.map(|number| (packet_id, number)));
        let mut publish = Publish::from_bytes(message.topic, QoS::AtLeastOnce, message.payload);
        (publish.pkid, publish.dup) = (packet_id, again);
        self.send_publish(publish).await
    }

    async fn send_publish(&mut self, publish: Publish) -> Result<(), SessionEnd> {
        debug!(
            device = %self.link.device, topic = publish.topic, payload = %shown(&publish.payload),
            "hub -> device"
        );
        self.write(Packet::Publish(publish)).await
    }

    /// A packet id that no message has that the device has not acknowledged
    /// [MQTT-2.3.1-4]. There are far fewer such messages than ids.
    fn free_packet_id(&mut self) -> u16 {
        loop {
            let id = self.next_packet_id;
            self.next_packet_id = id.checked_add(1).unwrap_or(1);
            if !self.unacknowledged.contains_key(&id) {
                return id;
            }
        }
    }

    fn granted_messages(&self) -> Option<Granted> {
        self.hub.links.subscriptions(&self.link.device, self.link.number)?.messages
    }

    async fn write(&mut self, packet: Packet) -> Result<(), SessionEnd> {
        Ok(self.connection.write(&packet).await?)
    }
}

/// Tells whoever looks on that a device has connected or gone.
fn note_connection(hub: &Hub, device: &Identity, connected: bool) {
    let operation = match (&device.module, connected) {
        (None, true) => "deviceConnected",
        (None, false) => "deviceDisconnected",
        (Some(_), true) => "moduleConnected",
        (Some(_), false) => "moduleDisconnected",
    };
    hub.note(About::Connection, device, operation, || json!({}));
}

/// A payload for the log: its beginning, as text.
fn shown(payload: &[u8]) -> String {
    /// In bytes: enough for what a device of ours sends, and not a screenful.
    const LIMIT: usize = 2048;
    let text = String::from_utf8_lossy(payload.get(..LIMIT).unwrap_or(payload));
    if payload.len() > LIMIT { format!("{text}… ({} bytes)", payload.len()) } else { text.into_owned() }
}

/// What a client did wrong by sending `packet`, for the log.
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
    fn long_payloads_are_cut_for_the_log() {
        assert_eq!(shown(b"{}"), "{}");
        assert!(shown(&[b'x'; 5000]).ends_with("… (5000 bytes)"));
    }
}
