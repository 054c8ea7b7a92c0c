//! MQTT over WebSocket on the HTTPS port.

use bytes::Bytes;
use futures_util::SinkExt;
use iotdm_tests::Hub;
use rumqttc::mqttbytes::v4::{ConnAck, ConnectReturnCode, Packet};
use tokio_tungstenite::tungstenite::Message;

use crate::support::device::hello;
use crate::support::service::Service;
use crate::support::tls;
use crate::support::websocket::{bytes, open, read};

#[tokio::test]
async fn packets_may_span_messages_and_share_them() {
    let hub = Hub::start();
    for (query, protocol) in [("", "mqtt"), ("?iothub-no-client-cert=true", "MQTT")] {
        let mut socket = open(&hub, tls(&hub), query, protocol).await;
        let mut connect = hello(&hub, "gw1");
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
        assert_eq!(Service::owner(&hub).read("/twins/gw1").await["connectionState"], "Connected");
        socket.send(Message::Binary(bytes(&Packet::Disconnect))).await.unwrap();
        assert!(matches!(read(&mut socket).await, Some(Message::Close(_)) | None));
    }
}

#[tokio::test]
async fn text_and_a_refused_connect_end_it() {
    let hub = Hub::start();
    let mut socket = open(&hub, tls(&hub), "", "mqtt").await;
    socket.send(Message::text("hello")).await.unwrap();
    assert!(!matches!(read(&mut socket).await, Some(Message::Binary(_) | Message::Text(_))));

    let mut socket = open(&hub, tls(&hub), "", "mqtt").await;
    let mut connect = hello(&hub, "gw1");
    connect.login.as_mut().unwrap().password.push('x');
    socket.send(Message::Binary(bytes(&Packet::Connect(connect)))).await.unwrap();
    let refused = bytes(&Packet::ConnAck(ConnAck::new(ConnectReturnCode::NotAuthorized, false)));
    assert_eq!(read(&mut socket).await, Some(Message::Binary(refused)));
    assert!(matches!(read(&mut socket).await, Some(Message::Close(_)) | None));
}
