//! The normative statements of MQTT 3.1.1 that a server has to keep, each by the
//! number that the specification gives it, with no codec that both sides could have
//! wrong.
//!
//! Not here are statements about clients, about messages that are retained (the hub
//! keeps none), about QoS 2 (to which the hub answers by closing) and about wildcard
//! subscriptions (of which the hub has none). Source: "MQTT Version 3.1.1", OASIS
//! Standard, 29 October 2014.

use iotdm_tests::Hub;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::support::device::hello;
use crate::support::raw::{
    accepted, connect, connect_with, credentials, expect, expect_close, open, packet, string,
};
use crate::support::service::Service;

/// A PINGREQ and its PINGRESP.
const PING: [u8; 2] = [0xC0, 0];
const PONG: [u8; 2] = [0xD0, 0];

/// Text with its length before it, whatever its bytes are.
fn text(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// A CONNECT of these parts after protocol name and level: its flags, a minute of
/// keep-alive, and its fields.
fn hand_made(flags: u8, fields: &[&[u8]]) -> Vec<u8> {
    let head = [&string("MQTT")[..], &[4, flags, 0, 60]].concat();
    packet(0x10, &[&head, &fields.concat()])
}

/// Bytes that no text may have: a surrogate, an overlong form, half a character, NUL.
const BAD_TEXT: [&[u8]; 4] = [b"gw1\xED\xA0\x80", b"gw1\xC0\xAF", b"gw1\xC3", b"gw1\0"];

#[tokio::test]
async fn a_first_packet_that_does_not_conform_is_closed_without_an_answer() {
    let hub = Hub::start();
    let [user_name, password] = credentials(&hub);
    let (id, user, secret) = (string("gw1"), string(&user_name), string(&password));
    let (topic, will) = (string("devices/gw1/messages/events/"), string("gone"));
    let (all, login): (&[&[u8]], &[&[u8]]) = (&[&id, &topic, &will, &user, &secret], &[&id, &user, &secret]);
    let whole = connect(&hub, 4);
    let with_first = |first: u8| [&[first], &whole[1..]].concat();
    let mut cases: Vec<(&str, &str, Vec<u8>)> = vec![
        ("MQTT-2.2.2-2", "CONNECT with a reserved flag in its header", with_first(0x11)),
        ("MQTT-2.2.2-2", "the reserved type 0", vec![0x00, 0]),
        ("MQTT-2.2.2-2", "the reserved type 15", vec![0xF0, 0]),
        ("MQTT-3.1.0-1", "PINGREQ before CONNECT", PING.to_vec()),
        ("MQTT-3.1.0-1", "PUBLISH before CONNECT", packet(0x30, &[&topic])),
        ("MQTT-3.1.0-1", "DISCONNECT before CONNECT", vec![0xE0, 0]),
        (
            "MQTT-3.1.2-1",
            "another protocol",
            packet(0x10, &[&string("AMQP"), &[4, 0xC0, 0, 60], &id, &user, &secret]),
        ),
        (
            "MQTT-3.1.2-1",
            "the name in another case",
            packet(0x10, &[&string("mqtt"), &[4, 0xC0, 0, 60], &id, &user, &secret]),
        ),
        ("MQTT-3.1.2-3", "the reserved flag", hand_made(0xC1, login)),
        ("MQTT-3.1.2-11", "RETAIN of a Will that there is not", hand_made(0xE0, login)),
        ("MQTT-3.1.2-13", "a QoS of a Will that there is not", hand_made(0xC8, login)),
        ("MQTT-3.1.2-14", "a Will at QoS 3", hand_made(0xDC, all)),
        ("MQTT-3.1.2-15", "RETAIN and QoS of a Will that there is not", hand_made(0xF0, login)),
        ("MQTT-3.1.2-18", "a user name that its flag does not announce", hand_made(0x00, &[&id, &user])),
        ("MQTT-3.1.2-19", "no user name where its flag announces one", hand_made(0x80, &[&id])),
        ("MQTT-3.1.2-20", "a password that its flag does not announce", hand_made(0x80, login)),
        ("MQTT-3.1.2-21", "no password where its flag announces one", hand_made(0xC0, &[&id, &user])),
        ("MQTT-3.1.2-22", "a password without a user name", hand_made(0x40, &[&id, &secret])),
        ("MQTT-3.1.2-9", "no Will where its flag announces one", hand_made(0x04, &[&id])),
        ("MQTT-3.1.3-3", "no client id", hand_made(0x02, &[])),
        ("MQTT-3.1.4-1", "bytes after the last field", hand_made(0xC0, &[&id, &user, &secret, b"x"])),
        (
            "MQTT-3.1.4-1",
            "a length that ends in the middle of the password",
            packet(0x10, &[&whole[3..whole.len() - 1]]),
        ),
        (
            "MQTT-4.7.1-1",
            "a Will to a topic with a wildcard",
            hand_made(0xC4, &[&id, &string("devices/gw1/messages/events/#"), &will, &user, &secret]),
        ),
        (
            "MQTT-4.7.3-1",
            "a Will to an empty topic",
            hand_made(0xC4, &[&id, &string(""), &will, &user, &secret]),
        ),
        ("2.2.3", "a length of five bytes", vec![0x10, 0x80, 0x80, 0x80, 0x80, 0x01]),
        ("2.2.3", "a CONNECT of length 0", vec![0x10, 0]),
    ];
    for bad in BAD_TEXT.map(text) {
        let name = [&bad[..], &[4, 0xC0, 0, 60]].concat();
        cases.extend([
            ("MQTT-3.1.3-4", "a client id", hand_made(0xC0, &[&bad, &user, &secret])),
            ("MQTT-3.1.3-10", "a Will's topic", hand_made(0xC4, &[&id, &bad, &will, &user, &secret])),
            ("MQTT-3.1.3-11", "a user name", hand_made(0xC0, &[&id, &bad, &secret])),
            ("MQTT-1.5.3-1", "a protocol name", packet(0x10, &[&name, &id, &user, &secret])),
        ]);
    }
    for (statement, what, bytes) in cases {
        let mut stream = open(&hub).await;
        stream.write_all(&bytes).await.unwrap();
        println!("{statement}: {what}");
        expect_close(&mut stream).await;
    }
}

#[tokio::test]
async fn a_first_packet_that_is_refused_is_answered_first() {
    let hub = Hub::start();
    let [user_name, password] = credentials(&hub);
    let (user, secret) = (string(&user_name), string(&password));
    let none = string("");
    for (statement, what, bytes, code) in [
        ("MQTT-3.1.2-2", "MQTT 5", connect(&hub, 5), 1),
        ("MQTT-3.1.2-2", "level 3", connect(&hub, 3), 1),
        ("MQTT-3.1.2-2", "level 0", connect(&hub, 0), 1),
        ("MQTT-3.1.2-2", "level 4 of a bridge", connect(&hub, 0x84), 1),
        ("MQTT-3.1.2-1", "MQTT 3.1", packet(0x10, &[&string("MQIsdp"), &[3, 2, 0, 60], &string("gw1")]), 1),
        ("MQTT-3.1.3-8", "no client id, and a session", hand_made(0xC0, &[&none, &user, &secret]), 2),
        ("MQTT-3.1.3-9", "no client id, without a session", hand_made(0xC2, &[&none, &user, &secret]), 2),
        ("MQTT-3.1.3-9", "no client id, nor anything else", hand_made(0x02, &[&none]), 2),
        ("MQTT-3.2.2-4", "a wrong password", hand_made(0xC0, &[&string("gw1"), &user, &string("x")]), 5),
        (
            "MQTT-3.2.2-5",
            "a password that is no text",
            hand_made(0xC0, &[&string("gw1"), &user, &text(b"\xFF\0")]),
            5,
        ),
    ] {
        // A packet that comes right after is not looked at. [MQTT-3.1.4-5]
        let mut stream = open(&hub).await;
        stream.write_all(&[&bytes[..], &PING].concat()).await.unwrap();
        println!("{statement}: {what}");
        // Never with "session present". [MQTT-3.2.2-4]
        expect(&mut stream, &[0x20, 2, 0, code]).await;
        expect_close(&mut stream).await;
    }
}

#[tokio::test]
async fn a_later_packet_that_does_not_conform_is_closed_without_an_answer() {
    let hub = Hub::start();
    let (topic, filter) = (string("devices/gw1/messages/events/"), string("$iothub/twin/res/#"));
    let (id, none) = ([0, 1], [0, 0]);
    let mut cases: Vec<(&str, &str, Vec<u8>)> = vec![
        ("MQTT-3.1.0-2", "a second CONNECT", connect(&hub, 4)),
        ("MQTT-2.2.2-2", "PUBACK with flags", packet(0x42, &[&id])),
        ("MQTT-2.2.2-2", "PUBREC with flags", packet(0x51, &[&id])),
        ("MQTT-2.2.2-2", "PUBCOMP with flags", packet(0x78, &[&id])),
        ("MQTT-2.2.2-2", "PINGREQ with flags", vec![0xC1, 0]),
        ("MQTT-2.2.2-2", "the reserved type 0", vec![0x00, 0]),
        ("MQTT-2.2.2-2", "the reserved type 15", vec![0xF0, 0]),
        ("MQTT-3.3.1-2", "DUP at QoS 0", packet(0x38, &[&topic])),
        ("MQTT-3.3.1-4", "a PUBLISH at QoS 3", packet(0x36, &[&topic, &id])),
        ("MQTT-3.3.1-4", "a PUBLISH at QoS 3 with DUP", packet(0x3E, &[&topic, &id])),
        ("MQTT-3.6.1-1", "PUBREL without its flag", packet(0x60, &[&id])),
        ("MQTT-3.8.1-1", "SUBSCRIBE without its flag", packet(0x80, &[&id, &filter, &[1]])),
        ("MQTT-3.8.1-1", "SUBSCRIBE with another flag", packet(0x8A, &[&id, &filter, &[1]])),
        ("MQTT-3.10.1-1", "UNSUBSCRIBE without its flag", packet(0xA0, &[&id, &filter])),
        ("MQTT-3.14.1-1", "DISCONNECT with flags", vec![0xE1, 0]),
        ("MQTT-2.3.1-1", "PUBLISH with the packet id 0", packet(0x32, &[&topic, &none])),
        ("MQTT-2.3.1-1", "SUBSCRIBE with the packet id 0", packet(0x82, &[&none, &filter, &[1]])),
        ("MQTT-2.3.1-1", "UNSUBSCRIBE with the packet id 0", packet(0xA2, &[&none, &filter])),
        ("MQTT-2.3.1-1", "PUBACK with the packet id 0", packet(0x40, &[&none])),
        ("MQTT-2.3.1-1", "PUBLISH at QoS 1 without a packet id", packet(0x32, &[&topic])),
        ("MQTT-3.3.2-1", "PUBLISH without a topic", vec![0x30, 0]),
        ("MQTT-3.3.2-1", "a topic beyond the end", packet(0x30, &[&[0, 9], b"devices"])),
        (
            "MQTT-3.3.2-2",
            "PUBLISH to a topic with #",
            packet(0x30, &[&string("devices/gw1/messages/events/#")]),
        ),
        (
            "MQTT-4.7.1-1",
            "PUBLISH to a topic with +",
            packet(0x30, &[&string("devices/gw1/messages/events/a=+")]),
        ),
        ("MQTT-4.7.3-1", "PUBLISH to an empty topic", packet(0x30, &[&string("")])),
        ("MQTT-3.8.3-3", "SUBSCRIBE without a topic filter", packet(0x82, &[&id])),
        ("MQTT-3-8.3-4", "SUBSCRIBE with QoS 3", packet(0x82, &[&id, &filter, &[3]])),
        ("MQTT-3-8.3-4", "SUBSCRIBE with a reserved bit", packet(0x82, &[&id, &filter, &[0x81]])),
        ("MQTT-3.8.3-3", "SUBSCRIBE without a QoS", packet(0x82, &[&id, &filter])),
        ("MQTT-3.10.3-2", "UNSUBSCRIBE without a topic filter", packet(0xA2, &[&id])),
        ("MQTT-4.7.3-1", "SUBSCRIBE to an empty topic filter", packet(0x82, &[&id, &string(""), &[1]])),
        ("MQTT-4.7.3-1", "UNSUBSCRIBE of an empty topic filter", packet(0xA2, &[&id, &string("")])),
        ("MQTT-4.7.1-2", "UNSUBSCRIBE of a/#/b", packet(0xA2, &[&id, &string("a/#/b")])),
        ("MQTT-4.7.1-2", "UNSUBSCRIBE of a#", packet(0xA2, &[&id, &string("a#")])),
        ("MQTT-4.7.1-3", "UNSUBSCRIBE of a+/b", packet(0xA2, &[&id, &string("a+/b")])),
        ("MQTT-4.7.1-2", "SUBSCRIBE to a/#/b", packet(0x82, &[&id, &string("a/#/b"), &[1]])),
        ("MQTT-4.8.0-1", "CONNACK from a client", vec![0x20, 2, 0, 0]),
        ("MQTT-4.8.0-1", "SUBACK from a client", packet(0x90, &[&id, &[0]])),
        ("MQTT-4.8.0-1", "UNSUBACK from a client", packet(0xB0, &[&id])),
        ("MQTT-4.8.0-1", "PINGRESP from a client", vec![0xD0, 0]),
        ("3.4", "PUBACK of three bytes", packet(0x40, &[&id, &[0]])),
        ("3.4", "PUBACK of one byte", packet(0x40, &[&[1]])),
        ("3.4", "PUBACK of none", vec![0x40, 0]),
        ("3.5", "PUBREC of none", vec![0x50, 0]),
        ("3.6", "PUBREL of three bytes", packet(0x62, &[&id, &[0]])),
        ("3.12", "PINGREQ with a body", packet(0xC0, &[b"x"])),
        ("3.14", "DISCONNECT with a body", packet(0xE0, &[b"x"])),
        ("3.10", "UNSUBSCRIBE with a byte after its filters", packet(0xA2, &[&id, &filter, b"x"])),
        ("3.8", "SUBSCRIBE with a byte after its filters", packet(0x82, &[&id, &filter, &[1], b"x"])),
        ("2.2.3", "a length of five bytes", vec![0x30, 0x80, 0x80, 0x80, 0x80, 0x01]),
        // What IoT Hub does not take of what MQTT has.
        ("IoT Hub", "PUBLISH at QoS 2", packet(0x34, &[&topic, &id])),
        ("IoT Hub", "PUBREL of nothing", packet(0x62, &[&id])),
        ("IoT Hub", "SUBSCRIBE to what there is not", packet(0x82, &[&id, &string("a"), &[1]])),
        ("IoT Hub", "PUBLISH to what there is not", packet(0x30, &[&string("a")])),
    ];
    for bad in BAD_TEXT.map(text) {
        let bag = text(&[b"devices/gw1/messages/events/a=", &bad[2..]].concat());
        cases.extend([
            ("MQTT-1.5.3-1", "a topic", packet(0x30, &[&bag])),
            ("MQTT-3.8.3-1", "a topic filter", packet(0x82, &[&id, &bad, &[1]])),
            ("MQTT-3.10.3-1", "a topic filter to unsubscribe from", packet(0xA2, &[&id, &bad])),
        ]);
    }
    for (statement, what, bytes) in cases {
        let mut stream = accepted(&hub).await;
        stream.write_all(&[&bytes[..], &PING].concat()).await.unwrap();
        println!("{statement}: {what}");
        expect_close(&mut stream).await;
    }
}

#[tokio::test]
async fn what_conforms_is_answered_as_the_specification_says() {
    let hub = Hub::start();
    let (topic, filter) = (string("devices/gw1/messages/events/"), string("$iothub/twin/res/#"));
    let (methods, messages) =
        (string("$iothub/methods/POST/#"), string("devices/gw1/messages/devicebound/#"));
    let id = [0xAB, 0xCD];
    for (statement, what, bytes, answer) in [
        ("MQTT-3.12.4-1", "PINGREQ", PING.to_vec(), PONG.to_vec()),
        ("MQTT-3.3.4-1", "PUBLISH at QoS 0", packet(0x30, &[&topic]), vec![]),
        ("MQTT-2.3.1-6", "PUBLISH at QoS 1", packet(0x32, &[&topic, &id, b"x"]), packet(0x40, &[&id])),
        ("MQTT-3.3.1-3", "PUBLISH with DUP", packet(0x3A, &[&topic, &id, b"x"]), packet(0x40, &[&id])),
        ("MQTT-3.3.2-1", "without a payload", packet(0x32, &[&topic, &id]), packet(0x40, &[&id])),
        (
            "MQTT-1.5.3-3",
            "a byte order mark in a topic",
            packet(0x32, &[&text(b"devices/gw1/messages/events/a=\xEF\xBB\xBF"), &id]),
            packet(0x40, &[&id]),
        ),
        ("MQTT-3.8.4-2", "SUBSCRIBE", packet(0x82, &[&id, &filter, &[0]]), packet(0x90, &[&id, &[0]])),
        (
            "MQTT-3.8.4-6",
            "SUBSCRIBE at QoS 1",
            packet(0x82, &[&id, &filter, &[1]]),
            packet(0x90, &[&id, &[1]]),
        ),
        (
            "MQTT-3.8.4-6",
            "SUBSCRIBE at QoS 2, granted as 1",
            packet(0x82, &[&id, &filter, &[2]]),
            packet(0x90, &[&id, &[1]]),
        ),
        (
            "MQTT-3.9.3-1",
            "SUBSCRIBE to three at once",
            packet(0x82, &[&id, &filter, &[1], &methods, &[0], &messages, &[2]]),
            packet(0x90, &[&id, &[1, 0, 1]]),
        ),
        ("MQTT-3.10.4-4", "UNSUBSCRIBE", packet(0xA2, &[&id, &filter]), packet(0xB0, &[&id])),
        (
            "MQTT-3.10.4-5",
            "UNSUBSCRIBE of what it is not subscribed to",
            packet(0xA2, &[&id, &filter]),
            packet(0xB0, &[&id]),
        ),
        (
            "MQTT-3.10.4-5",
            "UNSUBSCRIBE of what there is not",
            packet(0xA2, &[&id, &string("a/+/b/#")]),
            packet(0xB0, &[&id]),
        ),
        (
            "MQTT-3.10.4-6",
            "UNSUBSCRIBE of two, one of which there is not",
            packet(0xA2, &[&id, &string("a"), &filter]),
            packet(0xB0, &[&id]),
        ),
        ("4.3.2", "PUBACK of what was not sent", packet(0x40, &[&id]), vec![]),
    ] {
        let mut stream = accepted(&hub).await;
        stream.write_all(&[&bytes[..], &PING].concat()).await.unwrap();
        println!("{statement}: {what}");
        expect(&mut stream, &[&answer[..], &PONG].concat()).await;
        // DISCONNECT, after which nothing is looked at. [MQTT-3.14.4-2]
        stream.write_all(&[0xE0, 0, 0xC0, 0]).await.unwrap();
        expect_close(&mut stream).await;
    }
}

#[tokio::test]
async fn a_session_goes_on_only_where_it_may() {
    let hub = Hub::start();
    let mut before: Option<TlsStream<TcpStream>> = None;
    for (statement, flags, present) in [
        ("MQTT-3.2.2-3", 0xC0, 0),
        ("MQTT-3.2.2-2", 0xC0, 1),
        ("MQTT-3.2.2-1", 0xC2, 0),
        ("MQTT-3.1.2-6", 0xC0, 0),
        ("MQTT-3.1.2-4", 0xC0, 1),
    ] {
        let mut stream = open(&hub).await;
        stream.write_all(&connect_with(&hub, 4, flags)).await.unwrap();
        println!("{statement}");
        expect(&mut stream, &[0x20, 2, present, 0]).await;
        // The connection before has been closed. [MQTT-3.1.4-2]
        if let Some(mut before) = before.replace(stream) {
            expect_close(&mut before).await;
        }
    }
}

/// Sends a cloud-to-device message.
async fn send(hub: &Hub, body: &str) {
    let sent = Service::owner(hub).send("POST", "/emulator/messages/gw1", json!({ "body": body })).await;
    assert_eq!(sent.status, 204, "{sent:?}");
}

/// Reads a PUBLISH: its first byte, its packet id (0 at QoS 0) and its payload.
async fn read_publish(stream: &mut TlsStream<TcpStream>) -> (u8, u16, String) {
    use tokio::io::AsyncReadExt as _;
    let read = async {
        let first = stream.read_u8().await.unwrap();
        let (mut length, mut place) = (0, 0);
        loop {
            let byte = stream.read_u8().await.unwrap();
            length |= usize::from(byte & 0x7F) << place;
            place += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut rest = vec![0; length];
        stream.read_exact(&mut rest).await.unwrap();
        let topic = 2 + usize::from(u16::from_be_bytes([rest[0], rest[1]]));
        let has_id = first & 0b0110 != 0;
        let id = if has_id { u16::from_be_bytes([rest[topic], rest[topic + 1]]) } else { 0 };
        let payload = &rest[topic + if has_id { 2 } else { 0 }..];
        (first, id, String::from_utf8(payload.to_vec()).unwrap())
    };
    tokio::time::timeout(crate::support::DEADLINE, read).await.expect("nothing came")
}

async fn connected(hub: &Hub, present: u8) -> TlsStream<TcpStream> {
    let mut stream = open(hub).await;
    stream.write_all(&connect(hub, 4)).await.unwrap();
    expect(&mut stream, &[0x20, 2, present, 0]).await;
    stream
}

async fn subscribe(stream: &mut TlsStream<TcpStream>, qos: u8) {
    let filter = string("devices/gw1/messages/devicebound/#");
    stream.write_all(&packet(0x82, &[&[0, 9], &filter, &[qos]])).await.unwrap();
    expect(stream, &packet(0x90, &[&[0, 9], &[qos]])).await;
}

async fn is_idle(stream: &mut TlsStream<TcpStream>) {
    stream.write_all(&PING).await.unwrap();
    expect(stream, &PONG).await;
}

#[tokio::test]
async fn a_message_that_is_not_acknowledged_comes_again_as_it_was_also_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::start_in(dir.path(), &["--device", "gw1"]);
    let mut stream = connected(&hub, 0).await;
    subscribe(&mut stream, 1).await;
    for body in ["one", "two", "three"] {
        send(&hub, body).await;
    }
    let mut ids = Vec::new();
    for body in ["one", "two", "three"] {
        // No DUP, and no RETAIN. [MQTT-3.3.1-1, 3.3.1-9]
        let (first, id, payload) = read_publish(&mut stream).await;
        assert_eq!((first, payload.as_str()), (0x32, body));
        assert!(id != 0 && !ids.contains(&id), "{id} [MQTT-2.3.1-4]");
        ids.push(id);
    }
    stream.write_all(&packet(0x40, &[&ids[1].to_be_bytes()])).await.unwrap();
    is_idle(&mut stream).await;
    for kill in [false, true] {
        if kill {
            hub.kill();
            hub = Hub::start_in(dir.path(), &[]);
        }
        let mut stream = connected(&hub, 1).await;
        // In their order, with their ids and DUP. [MQTT-3.3.1-1, 4.4.0-1, 4.6.0-1]
        for (body, id) in [("one", ids[0]), ("three", ids[2])] {
            assert_eq!(read_publish(&mut stream).await, (0x3A, id, body.to_owned()));
        }
        // A new message has an id that none of them has. [MQTT-2.3.1-4]
        send(&hub, "new").await;
        let (first, id, payload) = read_publish(&mut stream).await;
        assert_eq!((first, payload.as_str()), (0x32, "new"));
        assert!(id != ids[0] && id != ids[2], "{id} of {ids:?}");
        stream.write_all(&packet(0x40, &[&id.to_be_bytes()])).await.unwrap();
        // To subscribe anew sends nothing a second time.
        subscribe(&mut stream, 1).await;
        is_idle(&mut stream).await;
    }
    // Also to one that is not subscribed any more. [MQTT-3.10.4-3]
    let mut stream = connected(&hub, 1).await;
    assert_eq!(read_publish(&mut stream).await.1, ids[0]);
    assert_eq!(read_publish(&mut stream).await.1, ids[2]);
    let filter = string("devices/gw1/messages/devicebound/#");
    stream.write_all(&packet(0xA2, &[&[0, 7], &filter])).await.unwrap();
    expect(&mut stream, &packet(0xB0, &[&[0, 7]])).await;
    stream.write_all(&packet(0x40, &[&ids[0].to_be_bytes()])).await.unwrap();
    is_idle(&mut stream).await;
    let mut stream = connected(&hub, 1).await;
    assert_eq!(read_publish(&mut stream).await, (0x3A, ids[2], "three".to_owned()));
    is_idle(&mut stream).await;
    // A new session begins without them. [MQTT-3.1.2-6]
    drop(accepted(&hub).await);
    let mut stream = connected(&hub, 0).await;
    subscribe(&mut stream, 1).await;
    is_idle(&mut stream).await;
}

#[tokio::test]
async fn a_message_goes_out_with_the_lesser_qos() {
    let hub = Hub::start();
    let mut stream = connected(&hub, 0).await;
    for (statement, granted, first) in [
        ("MQTT-3.8.4-6", 0, 0x30),
        ("MQTT-3.8.4-6", 1, 0x32),
        // The later subscription takes the place of the one before. [MQTT-3.8.4-3]
        ("MQTT-3.8.4-3", 0, 0x30),
    ] {
        subscribe(&mut stream, granted).await;
        println!("{statement} at QoS {granted}");
        send(&hub, "hello").await;
        let (found, id, payload) = read_publish(&mut stream).await;
        assert_eq!((found, payload.as_str()), (first, "hello"));
        if id != 0 {
            stream.write_all(&packet(0x40, &[&id.to_be_bytes()])).await.unwrap();
        }
        is_idle(&mut stream).await;
    }
    // What went out at QoS 0 does not come again.
    let mut stream = connected(&hub, 1).await;
    is_idle(&mut stream).await;
    let twin = Service::owner(&hub).read("/twins/gw1").await;
    assert_eq!(twin["cloudToDeviceMessageCount"], 0);
    // The hub publishes twin messages at QoS 0, whatever was granted.
    let filter = string("$iothub/twin/res/#");
    stream.write_all(&packet(0x82, &[&[0, 1], &filter, &[1]])).await.unwrap();
    expect(&mut stream, &packet(0x90, &[&[0, 1], &[1]])).await;
    stream.write_all(&packet(0x30, &[&string("$iothub/twin/GET/?$rid=1")])).await.unwrap();
    assert_eq!(read_publish(&mut stream).await.0, 0x30);
}

#[tokio::test]
async fn user_names_come_with_and_without_a_question_mark() {
    let hub = Hub::start();
    let [_, password] = credentials(&hub);
    for name in
        ["localhost/gw1/api-version=2018-06-30", "localhost/gw1/?api-version=2018-06-30", "localhost/gw1"]
    {
        let mut stream = open(&hub).await;
        let bytes = hand_made(0xC2, &[&string("gw1"), &string(name), &string(&password)]);
        stream.write_all(&bytes).await.unwrap();
        println!("{name}");
        expect(&mut stream, &[0x20, 2, 0, 0]).await;
    }
    // As our own devices have it.
    assert!(hello(&hub, "gw1").login.unwrap().username.contains("/?api-version="));
}
