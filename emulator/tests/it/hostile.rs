//! Clients that mean harm cost bounded memory and disturb nobody.

use futures_util::SinkExt;
use iotdm_tests::Hub;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{Packet, Subscribe, SubscribeFilter};
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;

use crate::support::device::{Device, METHOD_CALLS, hello};
use crate::support::service::Service;
use crate::support::{DEADLINE, tls, websocket};

/// What the emulator may grow by in each of these tests, in KiB. A debug build
/// with its allocator's slack needs some; the attacks would need hundreds.
const ALLOWED_GROWTH: u64 = 48 * 1024;

/// The emulator's resident memory, in KiB.
fn memory(hub: &Hub) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", hub.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn is_unimpressed(hub: &Hub, before: u64) {
    Device::connect(hub, "gw1").await.ping().await;
    Service::owner(hub).read("/twins/gw1").await;
    let after = memory(hub);
    assert!(after < before + ALLOWED_GROWTH, "{before} KiB, then {after} KiB");
}

/// The first byte and the length of a packet of `length` bytes.
fn header(first: u8, mut length: usize) -> Vec<u8> {
    let mut bytes = vec![first];
    loop {
        let digit = u8::try_from(length % 128).unwrap();
        length /= 128;
        bytes.push(if length > 0 { digit | 0x80 } else { digit });
        if length == 0 {
            return bytes;
        }
    }
}

#[tokio::test]
async fn strangers_with_half_a_connect_get_little_memory() {
    let hub = Hub::start();
    Device::connect(&hub, "gw1").await.ping().await;
    let before = memory(&hub);
    let mut strangers = Vec::new();
    for _ in 0..300 {
        let mut stranger = Device::open(&hub).await;
        // A length that is allowed for a device's message, not for a CONNECT.
        stranger.send_bytes(&header(0x10, 256 * 1024)).await;
        stranger.send_bytes(&vec![b'x'; 64 * 1024]).await;
        strangers.push(stranger);
    }
    is_unimpressed(&hub, before).await;
    for mut stranger in strangers.into_iter().take(10) {
        stranger.expect_close().await;
    }
}

#[tokio::test]
async fn a_packet_of_256_megabytes_is_refused_by_its_length() {
    let hub = Hub::start();
    Device::connect(&hub, "gw1").await.ping().await;
    let before = memory(&hub);
    for known in [false, true] {
        let mut device = if known { Device::connect(&hub, "gw1").await } else { Device::open(&hub).await };
        device.send_bytes(&header(if known { 0x32 } else { 0x10 }, 268_435_455)).await;
        for _ in 0..64 {
            device.send_bytes(&[b'x'; 4096]).await;
        }
        device.expect_close().await;
    }
    is_unimpressed(&hub, before).await;
}

#[tokio::test]
async fn a_hundred_thousand_subscriptions_are_four() {
    let hub = Hub::start();
    let mut device = Device::connect(&hub, "gw1").await;
    device.ping().await;
    let before = memory(&hub);
    for pkid in 1..=20 {
        let filter = SubscribeFilter::new(METHOD_CALLS.to_owned(), QoS::AtLeastOnce);
        let mut subscribe = Subscribe::new_many(vec![filter; 5000]);
        subscribe.pkid = pkid;
        device.send(&Packet::Subscribe(subscribe)).await;
        assert!(matches!(device.read().await, Some(Packet::SubAck(ack)) if ack.pkid == pkid));
    }
    device.ping().await;
    is_unimpressed(&hub, before).await;
}

/// Bytes of a client that never gets as far as TLS.
async fn open_tcp(hub: &Hub) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for port in [hub.mqtt_port, hub.https_port] {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        // The head of a TLS record that is never sent.
        stream.write_all(&[0x16, 3, 1, 0x40, 0]).await.unwrap();
        streams.push(stream);
    }
    streams
}

async fn open_https(hub: &Hub) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", hub.https_port)).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(tls(hub)).connect(name, stream).await.unwrap()
}

#[tokio::test]
async fn silent_clients_and_half_handshakes_hold_up_nobody() {
    let hub = Hub::start();
    Device::connect(&hub, "gw1").await.ping().await;
    let before = memory(&hub);
    let (mut strangers, mut silent) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        strangers.extend(open_tcp(&hub).await);
    }
    for _ in 0..200 {
        silent.push(Device::open(&hub).await);
    }
    is_unimpressed(&hub, before).await;
    // The emulator cuts them off after 10 seconds, long before this test gives up.
    silent.truncate(5);
    for device in &mut silent {
        device.expect_close().await;
    }
    for mut stream in strangers.drain(..4) {
        let mut rest = Vec::new();
        // The emulator sends a TLS alert, or nothing.
        let _ = timeout(DEADLINE, stream.read_to_end(&mut rest)).await.expect("still open");
    }
}

#[tokio::test]
async fn endless_heads_and_bodies_get_little_memory() {
    let hub = Hub::start();
    let service = Service::owner(&hub);
    service.read("/twins/gw1").await;
    let before = memory(&hub);
    let mut slow = Vec::new();
    for _ in 0..100 {
        let mut stream = open_https(&hub).await;
        stream.write_all(b"GET /twins/gw1 HTTP/1.1\r\nHost: localhost\r\nX-").await.unwrap();
        slow.push(stream);
    }
    for _ in 0..20 {
        let mut stream = open_https(&hub).await;
        let _ = stream.write_all(b"GET /twins/gw1 HTTP/1.1\r\nHost: localhost\r\nX-Long: ").await;
        for _ in 0..64 {
            let _ = stream.write_all(&[b'x'; 16 * 1024]).await;
        }
        let mut answer = Vec::new();
        let _ = timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("still open");
        let text = String::from_utf8_lossy(&answer);
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 431"), "{text}");
    }
    let endless = json!("x".repeat(16 * 1024 * 1024));
    for path in ["/twins/gw1", "/devices/gw3"] {
        service.send("PUT", path, endless.clone()).await.refused(413, "MessageTooLarge");
    }
    is_unimpressed(&hub, before).await;
}

#[tokio::test]
async fn strangers_with_a_websocket_get_little_memory() {
    let hub = Hub::start();
    Device::connect(&hub, "gw1").await.ping().await;
    let before = memory(&hub);
    let mut strangers = Vec::new();
    for _ in 0..200 {
        let mut socket = websocket::open(&hub, tls(&hub), "", "mqtt").await;
        // A CONNECT of 256 MB, and text of the largest size.
        let _ = socket.send(Message::Binary(header(0x10, 268_435_455).into())).await;
        let _ = socket.send(Message::Binary(vec![b'x'; 256 * 1024].into())).await;
        strangers.push(socket);
    }
    is_unimpressed(&hub, before).await;
    for mut socket in strangers.into_iter().take(5) {
        while let Some(message) = websocket::read(&mut socket).await {
            assert!(matches!(message, Message::Close(_)), "{message:?}");
        }
    }
}

#[tokio::test]
async fn half_a_message_waits_without_holding_up_others() {
    let hub = Hub::start();
    let (mut device, _) = Device::say_hello(&hub, hello(&hub, "gw1")).await;
    device.send_bytes(&header(0x32, 200 * 1024)).await;
    device.send_bytes(&vec![0; 100 * 1024]).await;
    let service = Service::owner(&hub);
    service.send("PUT", "/devices/gw2", serde_json::json!({})).await;
    Device::connect(&hub, "gw2").await.ping().await;
    assert_eq!(service.read("/twins/gw1").await["connectionState"], "Connected");
}
