//! An MQTT client that does just what the benchmarks need.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{
    Codec, Connect, ConnectReturnCode, Packet, PubAck, Publish, Subscribe, SubscribeFilter,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::codec::Framed;

/// What to trust.
pub type Tls = Arc<ClientConfig>;

/// A connection.
pub struct Client {
    packets: Framed<TlsStream<TcpStream>, Codec>,
    /// A message may come before the subscription that it belongs to is
    /// acknowledged.
    early: VecDeque<Packet>,
}

const MAX_PACKET: usize = 256 * 1024;
/// Ten thousand of these are in one process.
const BUFFER: usize = 1024;

impl Client {
    /// An accepted connection with these subscriptions.
    pub async fn connect(tls: Tls, port: u16, connect: Connect, filters: &[&str]) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(tls).connect(name, stream).await.unwrap();
        let codec = Codec { max_incoming_size: MAX_PACKET, max_outgoing_size: MAX_PACKET };
        let mut client =
            Client { packets: Framed::with_capacity(stream, codec, BUFFER), early: VecDeque::new() };
        client.send(Packet::Connect(connect)).await;
        match client.read().await {
            Packet::ConnAck(ack) => assert_eq!(ack.code, ConnectReturnCode::Success),
            other => panic!("{other:?}"),
        }
        let filters =
            filters.iter().map(|filter| SubscribeFilter::new((*filter).to_owned(), QoS::AtMostOnce));
        let mut subscribe = Subscribe::new_many(filters);
        subscribe.pkid = 1;
        client.send(Packet::Subscribe(subscribe)).await;
        loop {
            match client.read().await {
                Packet::SubAck(_) => return client,
                other => client.early.push_back(other),
            }
        }
    }

    /// Publishes.
    pub async fn publish(&mut self, topic: &str, qos: QoS, payload: &str) {
        let mut publish = Publish::from_bytes(topic, qos, Bytes::copy_from_slice(payload.as_bytes()));
        publish.pkid = 1;
        self.send(Packet::Publish(publish)).await;
    }

    /// The next message's topic and payload; takes acknowledgements along.
    pub async fn message(&mut self) -> (String, Bytes) {
        loop {
            let packet = match self.early.pop_front() {
                Some(packet) => packet,
                None => self.read().await,
            };
            if let Packet::Publish(publish) = packet {
                if publish.qos == QoS::AtLeastOnce {
                    self.send(Packet::PubAck(PubAck::new(publish.pkid))).await;
                }
                return (publish.topic, publish.payload);
            }
        }
    }

    async fn send(&mut self, packet: Packet) {
        self.packets.send(packet).await.unwrap();
    }

    async fn read(&mut self) -> Packet {
        self.packets.next().await.expect("closed").unwrap()
    }
}

/// TLS that trusts the CA in this file alone.
pub fn tls(ca: &Path) -> Tls {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}
