//! A device at the level of packets.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::BytesMut;
use iotdm_proto::{DeviceAuth, DeviceConnectionString, sas};
use iotdm_tests::Hub;
use rumqttc::mqttbytes::v4::{
    ConnAck, Connect, ConnectReturnCode, Packet, PubAck, Publish, Subscribe, Unsubscribe,
};
use rumqttc::mqttbytes::{self, QoS};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{DEADLINE, now, tls};

pub const TWIN_RESPONSES: &str = "$iothub/twin/res/#";
pub const DESIRED_PATCHES: &str = "$iothub/twin/PATCH/properties/desired/#";
pub const METHOD_CALLS: &str = "$iothub/methods/POST/#";

/// A connection to the MQTT port.
pub struct Device {
    stream: TlsStream<TcpStream>,
    received: BytesMut,
    /// Publishes that came while something else was waited for.
    inbox: VecDeque<Publish>,
    next_pkid: u16,
}

/// A CONNECT as the official clients send it, for an hour.
pub fn hello(hub: &Hub, id: &str) -> Connect {
    hello_until(hub, id, now() + 3600)
}

/// A CONNECT as [`hello`] makes it, with a token that ends at `expiry`, in
/// seconds since the Unix epoch.
pub fn hello_until(hub: &Hub, id: &str, expiry: u64) -> Connect {
    let text = hub.file(&format!("devices/{id}"));
    let parsed: DeviceConnectionString = text.parse().unwrap();
    let DeviceAuth::Key(key) = parsed.auth else { panic!("no key in {text}") };
    let host = parsed.host_name.to_string();
    hello_with(id, &sas::sign(&format!("{host}/devices/{id}"), &key, expiry, None))
}

/// A CONNECT as `id`, which may be `device/module`, with that password; none
/// when it is empty.
pub fn hello_with(id: &str, password: &str) -> Connect {
    let mut connect = Connect::new(id);
    connect.clean_session = false;
    connect.keep_alive = 60;
    connect.set_login(format!("localhost/{id}/?api-version=2021-04-12&DeviceClientType=test"), password);
    connect
}

impl Device {
    /// TLS, and nothing said yet.
    pub async fn open(hub: &Hub) -> Self {
        Device::open_with(hub, tls(hub)).await
    }

    /// TLS with a configuration of its own, and nothing said yet.
    pub async fn open_with(hub: &Hub, tls: Arc<ClientConfig>) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", hub.mqtt_port)).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(tls).connect(name, stream).await.unwrap();
        Device { stream, received: BytesMut::new(), inbox: VecDeque::new(), next_pkid: 1 }
    }

    /// An accepted connection.
    pub async fn connect(hub: &Hub, id: &str) -> Self {
        let (device, ack) = Device::say_hello(hub, hello(hub, id)).await;
        assert_eq!(ack.code, ConnectReturnCode::Success);
        device
    }

    /// An accepted connection with these subscriptions.
    pub async fn listening(hub: &Hub, id: &str, filters: &[&str]) -> Self {
        let mut device = Device::connect(hub, id).await;
        for filter in filters {
            device.subscribe(filter).await;
        }
        device
    }

    /// A connection and how its CONNECT was answered.
    pub async fn say_hello(hub: &Hub, connect: Connect) -> (Self, ConnAck) {
        let mut device = Device::open(hub).await;
        let ack = device.introduce(connect).await;
        (device, ack)
    }

    /// Sends the CONNECT and returns its answer.
    pub async fn introduce(&mut self, connect: Connect) -> ConnAck {
        self.send(&Packet::Connect(connect)).await;
        match self.read().await {
            Some(Packet::ConnAck(ack)) => ack,
            other => panic!("{other:?}"),
        }
    }

    pub async fn send(&mut self, packet: &Packet) {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, usize::MAX).unwrap();
        self.send_bytes(&bytes).await;
    }

    /// Sends bytes. Errors are left to the next read: a hub that closes may do so early.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    /// The next packet; `None` when the hub has closed.
    pub async fn read(&mut self) -> Option<Packet> {
        loop {
            match Packet::read(&mut self.received, usize::MAX) {
                Ok(packet) => return Some(packet),
                Err(mqttbytes::Error::InsufficientBytes(_)) => {}
                Err(error) => panic!("{error}"),
            }
            match timeout(DEADLINE, self.stream.read_buf(&mut self.received)).await.expect("nothing came") {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Waits for the hub to close, passing over what it still sends.
    pub async fn expect_close(&mut self) {
        while self.read().await.is_some() {}
    }

    /// Shows that the connection is alive and that nothing else is on its way
    /// but what is in the inbox.
    pub async fn ping(&mut self) {
        self.send(&Packet::PingReq).await;
        self.wait_for(|packet| matches!(packet, Packet::PingResp)).await;
    }

    pub async fn subscribe(&mut self, filter: &str) {
        let mut subscribe = Subscribe::new(filter, QoS::AtLeastOnce);
        subscribe.pkid = self.pkid();
        let pkid = subscribe.pkid;
        self.send(&Packet::Subscribe(subscribe)).await;
        self.wait_for(|packet| matches!(packet, Packet::SubAck(ack) if ack.pkid == pkid)).await;
    }

    pub async fn unsubscribe(&mut self, filter: &str) {
        let mut unsubscribe = Unsubscribe::new(filter);
        unsubscribe.pkid = self.pkid();
        let pkid = unsubscribe.pkid;
        self.send(&Packet::Unsubscribe(unsubscribe)).await;
        self.wait_for(|packet| matches!(packet, Packet::UnsubAck(ack) if ack.pkid == pkid)).await;
    }

    /// Publishes at QoS 1 and waits for the PUBACK.
    pub async fn publish(&mut self, topic: &str, payload: &str) {
        let pkid = self.publish_without_waiting(topic, payload).await;
        self.wait_for(|packet| matches!(packet, Packet::PubAck(ack) if ack.pkid == pkid)).await;
    }

    pub async fn publish_without_waiting(&mut self, topic: &str, payload: &str) -> u16 {
        let mut publish = Publish::new(topic, QoS::AtLeastOnce, payload);
        publish.pkid = self.pkid();
        let pkid = publish.pkid;
        self.send(&Packet::Publish(publish)).await;
        pkid
    }

    /// The next message: its topic and its body (`null` when empty).
    pub async fn message(&mut self) -> (String, Value) {
        let publish = loop {
            if let Some(publish) = self.inbox.pop_front() {
                break publish;
            }
            match self.read().await {
                Some(Packet::Publish(publish)) => break publish,
                Some(_) => {}
                None => panic!("the hub closed the connection"),
            }
        };
        let body = match &publish.payload[..] {
            b"" => Value::Null,
            json => serde_json::from_slice(json).unwrap(),
        };
        (publish.topic, body)
    }

    /// The next message that has to be acknowledged: its topic, text and
    /// packet id.
    pub async fn unacknowledged(&mut self) -> (String, String, u16) {
        loop {
            let publish = match self.inbox.pop_front() {
                Some(publish) => publish,
                None => match self.read().await {
                    Some(Packet::Publish(publish)) => publish,
                    Some(_) => continue,
                    None => panic!("the hub closed the connection"),
                },
            };
            assert_eq!(publish.qos, QoS::AtLeastOnce);
            let text = String::from_utf8(publish.payload.to_vec()).unwrap();
            return (publish.topic, text, publish.pkid);
        }
    }

    /// Acknowledges a message.
    pub async fn acknowledge(&mut self, pkid: u16) {
        self.send(&Packet::PubAck(PubAck::new(pkid))).await;
        self.ping().await;
    }

    /// The next method call, with its name, `$rid` and payload.
    pub async fn method(&mut self) -> (String, String, Value) {
        let (topic, payload) = self.message().await;
        let rest = topic.strip_prefix("$iothub/methods/POST/").expect("a method call");
        let (name, rid) = rest.split_once("/?$rid=").unwrap();
        (name.to_owned(), rid.to_owned(), payload)
    }

    /// Whether messages are waiting, once everything sent so far is here.
    pub async fn is_idle(&mut self) -> bool {
        self.ping().await;
        self.inbox.is_empty()
    }

    async fn wait_for(&mut self, expected: impl Fn(&Packet) -> bool) {
        loop {
            match self.read().await {
                Some(packet) if expected(&packet) => return,
                Some(Packet::Publish(publish)) => self.inbox.push_back(publish),
                Some(packet) => panic!("unexpected {packet:?}"),
                None => panic!("the hub closed the connection"),
            }
        }
    }

    fn pkid(&mut self) -> u16 {
        self.next_pkid += 1;
        self.next_pkid
    }
}
