//! MQTT by hand: what the hub sends and takes, byte for byte, with no codec
//! that both sides could have wrong. Source: the MQTT 3.1.1 specification.

use std::sync::Arc;

use iotdm_tests::Hub;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::support::raw::{connect, expect, expect_close, open, packet, string};
use crate::support::{DEADLINE, roots, tls};

#[tokio::test]
async fn a_whole_conversation() {
    let hub = Hub::start();
    let mut stream = open(&hub).await;
    stream.write_all(&connect(&hub, 4)).await.unwrap();
    expect(&mut stream, &[0x20, 2, 0, 0]).await;

    // QoS 2 is granted as QoS 1.
    let filter = string("$iothub/twin/res/#");
    stream.write_all(&packet(0x82, &[&[0, 1], &filter, &[2]])).await.unwrap();
    expect(&mut stream, &[0x90, 3, 0, 1, 1]).await;

    // In one piece with a ping, cut in the middle of the topic.
    let patch = packet(
        0x32,
        &[&string("$iothub/twin/PATCH/properties/reported/?$rid=7"), &[0x12, 0x34], br#"{"a":1}"#],
    );
    let bytes = [patch, vec![0xC0, 0]].concat();
    let (start, rest) = bytes.split_at(20);
    for part in [start, rest] {
        stream.write_all(part).await.unwrap();
        stream.flush().await.unwrap();
    }
    expect(&mut stream, &[0x40, 2, 0x12, 0x34]).await;
    expect(&mut stream, &packet(0x30, &[&string("$iothub/twin/res/204/?$rid=7&$version=2")])).await;
    expect(&mut stream, &[0xD0, 0]).await;

    stream.write_all(&packet(0x30, &[&string("$iothub/twin/GET/?$rid=8")])).await.unwrap();
    let twin = br#"{"desired":{"$version":1},"reported":{"$version":2,"a":1}}"#;
    let same_twin = br#"{"desired":{"$version":1},"reported":{"a":1,"$version":2}}"#;
    let answer = |twin| packet(0x30, &[&string("$iothub/twin/res/200/?$rid=8"), twin]);
    let mut received = vec![0; answer(twin).len()];
    timeout(DEADLINE, stream.read_exact(&mut received)).await.unwrap().unwrap();
    assert!(received == answer(twin) || received == answer(same_twin), "{received:?}");

    stream.write_all(&packet(0xA2, &[&[0, 2], &filter])).await.unwrap();
    expect(&mut stream, &[0xB0, 2, 0, 2]).await;
    stream.write_all(&[0xE0, 0]).await.unwrap();
    expect_close(&mut stream).await;

    // The session is still there.
    let mut stream = open(&hub).await;
    stream.write_all(&connect(&hub, 4)).await.unwrap();
    expect(&mut stream, &[0x20, 2, 1, 0]).await;
}

#[tokio::test]
async fn what_is_not_mqtt_3_1_1_is_closed() {
    let hub = Hub::start();
    let five = connect(&hub, 5);
    let three = connect(&hub, 3);
    for bytes in [&five[..], &three[..]] {
        let mut stream = open(&hub).await;
        stream.write_all(bytes).await.unwrap();
        expect(&mut stream, &[0x20, 2, 0, 1]).await;
        expect_close(&mut stream).await;
    }
    let http = b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: text/html, application/json, */*\r\n\r\n";
    let first_ping = [0xC0, 0];
    let endless = [0x10, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];
    let huge = [0x10, 0xFF, 0xFF, 0xFF, 0x7F];
    let no_name = packet(0x10, &[&[0xFF, 0xFF], b"MQ"]);
    for bytes in [&http[..], &first_ping, &endless, &huge, &no_name] {
        let mut stream = open(&hub).await;
        stream.write_all(bytes).await.unwrap();
        expect_close(&mut stream).await;
    }
}

#[tokio::test]
async fn a_certificate_of_another_ca_or_for_another_name_is_seen_through() {
    let hub = Hub::start();
    let other = Hub::start();
    for (tls, name, expected) in
        [(tls(&other), "localhost", "UnknownIssuer"), (tls(&hub), "hub.example", "not valid for name")]
    {
        let stream = TcpStream::connect(("127.0.0.1", hub.mqtt_port)).await.unwrap();
        let name = ServerName::try_from(name).unwrap();
        let error = TlsConnector::from(tls).connect(name, stream).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    for name in ["localhost", "127.0.0.1"] {
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let stream = TcpStream::connect(("127.0.0.1", hub.mqtt_port)).await.unwrap();
            let name = ServerName::try_from(name).unwrap();
            let tls = Arc::new(only(&hub, version));
            TlsConnector::from(tls).connect(name, stream).await.unwrap();
        }
    }
}

/// TLS of one version.
fn only(hub: &Hub, version: &'static rustls::SupportedProtocolVersion) -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider);
    config
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots(hub))
        .with_no_client_auth()
}
