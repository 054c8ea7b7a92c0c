//! MQTT over WebSocket on the HTTPS port.

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use rumqttc::mqttbytes::v4::{ConnAck, ConnectReturnCode, Packet};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::support::device::hello;
use crate::support::service::Service;
use crate::support::{DEADLINE, Emulator};

type Socket = WebSocketStream<TlsStream<TcpStream>>;

async fn open(emulator: &Emulator, query: &str, protocol: &str) -> Socket {
    let stream = TcpStream::connect(("127.0.0.1", emulator.https_port)).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(emulator.tls()).connect(name, stream).await.unwrap();
    let url = format!("wss://localhost/$iothub/websocket{query}");
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", protocol.parse().unwrap());
    let (socket, response) = client_async(request, stream).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], protocol);
    socket
}

fn bytes(packet: &Packet) -> Bytes {
    let mut bytes = BytesMut::new();
    packet.write(&mut bytes, usize::MAX).unwrap();
    bytes.freeze()
}

async fn read(socket: &mut Socket) -> Option<Message> {
    timeout(DEADLINE, socket.next()).await.expect("nothing came").and_then(Result::ok)
}

#[tokio::test]
async fn packets_may_span_messages_and_share_them() {
    let emulator = Emulator::new().await;
    for (query, protocol) in [("", "mqtt"), ("?iothub-no-client-cert=true", "MQTT")] {
        let mut socket = open(&emulator, query, protocol).await;
        let mut connect = hello(&emulator, "gw1");
        connect.clean_session = true;
        let hello = bytes(&Packet::Connect(connect));
        let ping = bytes(&Packet::PingReq);
        let (start, rest) = hello.split_at(1);
        let (middle, end) = rest.split_at(40);
        for part in [start, middle, &[], &[end, &ping, &ping[..1]].concat(), &ping[1..]] {
            socket.send(Message::Binary(Bytes::copy_from_slice(part))).await.unwrap();
        }
        let ack = bytes(&Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, false)));
        for expected in [ack, bytes(&Packet::PingResp), bytes(&Packet::PingResp)] {
            assert_eq!(read(&mut socket).await, Some(Message::Binary(expected)));
        }
        assert_eq!(Service::owner(&emulator).read("/twins/gw1").await["connectionState"], "Connected");
        socket.send(Message::Binary(bytes(&Packet::Disconnect))).await.unwrap();
        assert!(matches!(read(&mut socket).await, Some(Message::Close(_)) | None));
    }
}

#[tokio::test]
async fn text_and_a_refused_connect_end_it() {
    let emulator = Emulator::new().await;
    let mut socket = open(&emulator, "", "mqtt").await;
    socket.send(Message::text("hello")).await.unwrap();
    assert!(!matches!(read(&mut socket).await, Some(Message::Binary(_) | Message::Text(_))));

    let mut socket = open(&emulator, "", "mqtt").await;
    let mut connect = hello(&emulator, "gw1");
    connect.login.as_mut().unwrap().password.push('x');
    socket.send(Message::Binary(bytes(&Packet::Connect(connect)))).await.unwrap();
    let refused = bytes(&Packet::ConnAck(ConnAck::new(ConnectReturnCode::NotAuthorized, false)));
    assert_eq!(read(&mut socket).await, Some(Message::Binary(refused)));
    assert!(matches!(read(&mut socket).await, Some(Message::Close(_)) | None));
}
