//! An MQTT client that does just what the benchmark needs.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::v4::{Connect, ConnectReturnCode, Packet, PubAck, Publish, Subscribe};
use rumqttc::mqttbytes::{self, QoS};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A connection.
pub struct Client {
    stream: TlsStream<TcpStream>,
    received: BytesMut,
}

impl Client {
    /// An accepted connection with these subscriptions.
    pub async fn connect(tls: Arc<ClientConfig>, port: u16, connect: Connect, filters: &[&str]) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(tls).connect(name, stream).await.unwrap();
        let mut client = Client { stream, received: BytesMut::new() };
        client.send(&Packet::Connect(connect)).await;
        match client.read().await {
            Packet::ConnAck(ack) => assert_eq!(ack.code, ConnectReturnCode::Success),
            other => panic!("{other:?}"),
        }
        for filter in filters {
            let mut subscribe = Subscribe::new(*filter, QoS::AtMostOnce);
            subscribe.pkid = 1;
            client.send(&Packet::Subscribe(subscribe)).await;
            while !matches!(client.read().await, Packet::SubAck(_)) {}
        }
        client
    }

    /// Publishes.
    pub async fn publish(&mut self, topic: &str, qos: QoS, payload: &str) {
        let mut publish = Publish::from_bytes(topic, qos, Bytes::copy_from_slice(payload.as_bytes()));
        publish.pkid = 1;
        self.send(&Packet::Publish(publish)).await;
    }

    /// The next message's topic; takes acknowledgements along.
    pub async fn message(&mut self) -> String {
        loop {
            if let Packet::Publish(publish) = self.read().await {
                if publish.qos == QoS::AtLeastOnce {
                    self.send(&Packet::PubAck(PubAck::new(publish.pkid))).await;
                }
                return publish.topic;
            }
        }
    }

    async fn send(&mut self, packet: &Packet) {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, usize::MAX).unwrap();
        self.stream.write_all(&bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    async fn read(&mut self) -> Packet {
        loop {
            match Packet::read(&mut self.received, usize::MAX) {
                Ok(packet) => return packet,
                Err(mqttbytes::Error::InsufficientBytes(_)) => {}
                Err(error) => panic!("{error}"),
            }
            assert_ne!(self.stream.read_buf(&mut self.received).await.unwrap(), 0, "closed");
        }
    }
}

/// TLS that trusts the CA in this file alone.
pub fn tls(ca: &std::path::Path) -> Arc<ClientConfig> {
    use rustls::pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}
