//! A device at the level of WebSocket messages.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use iotdm_tests::Hub;
use rumqttc::mqttbytes::v4::{Connect, ConnectReturnCode, Packet};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::DEADLINE;

/// A connection.
pub type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// A WebSocket, whose TLS handshake showed `tls`'s certificate if it has one.
pub async fn open(hub: &Hub, tls: Arc<ClientConfig>, query: &str, protocol: &str) -> Socket {
    let stream = TcpStream::connect(("127.0.0.1", hub.https_port)).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(tls).connect(name, stream).await.unwrap();
    let url = format!("wss://localhost/$iothub/websocket{query}");
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", protocol.parse().unwrap());
    let (socket, response) = client_async(request, stream).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], protocol);
    socket
}

/// A packet as it is on the wire.
pub fn bytes(packet: &Packet) -> Bytes {
    let mut bytes = BytesMut::new();
    packet.write(&mut bytes, usize::MAX).unwrap();
    bytes.freeze()
}

/// The next message; `None` when the hub has closed.
pub async fn read(socket: &mut Socket) -> Option<Message> {
    timeout(DEADLINE, socket.next()).await.expect("nothing came").and_then(Result::ok)
}

/// Sends one packet in one message.
pub async fn send(socket: &mut Socket, packet: &Packet) {
    socket.send(Message::Binary(bytes(packet))).await.unwrap();
}

/// The next packet, which comes in one message.
pub async fn packet(socket: &mut Socket) -> Packet {
    match read(socket).await {
        Some(Message::Binary(bytes)) => Packet::read(&mut BytesMut::from(bytes), usize::MAX).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Says hello on a connection of its own; how that was answered.
pub async fn introduce(hub: &Hub, tls: Arc<ClientConfig>, connect: Connect) -> (Socket, ConnectReturnCode) {
    let mut socket = open(hub, tls, "", "mqtt").await;
    send(&mut socket, &Packet::Connect(connect)).await;
    match packet(&mut socket).await {
        Packet::ConnAck(ack) => (socket, ack.code),
        other => panic!("{other:?}"),
    }
}
