//! Bytes from clients as packets, as strictly as MQTT 3.1.1 asks a server to
//! look at them.
//!
//! The names in brackets are those of the statements in the specification,
//! "MQTT Version 3.1.1", OASIS Standard, 29 October 2014. Every packet that
//! does not conform ends the connection ([MQTT-4.8.0-1]). What the hub itself
//! sends is encoded by rumqttc, whose packets stand on both sides.

use bytes::{Buf, Bytes, BytesMut};
use rumqttc::mqttbytes::v4::{
    Connect, LastWill, Login, Packet, PubAck, PubComp, PubRec, PubRel, Publish, Subscribe, SubscribeFilter,
    Unsubscribe,
};
use rumqttc::mqttbytes::{Protocol, QoS};

/// The longest fixed header: a byte, and a length of four.
const MAX_HEADER: usize = 5;

/// Why bytes are no packet that a server takes from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes do not conform to the specification; the text says in what.
    #[error("{0}")]
    Malformed(&'static str),
    /// The packet is larger than is taken.
    #[error("a packet of {0} bytes")]
    TooLarge(usize),
    /// The CONNECT is of MQTT, but of another version than 3.1.1. Unlike any
    /// other bad packet it is answered, with return code 1 ([MQTT-3.1.2-2]).
    #[error("a CONNECT of MQTT with the protocol level {0}")]
    Version(u8),
}

use DecodeError::Malformed;

/// Takes the first packet off `received`, of at most `most` bytes; `None` while it
/// is not whole. A fixed header that is wrong is refused before the rest arrives.
pub fn decode(received: &mut BytesMut, most: usize) -> Result<Option<Packet>, DecodeError> {
    let Some(&first) = received.first() else { return Ok(None) };
    check_first_byte(first)?;
    let Some((header, remaining)) = remaining_length(received)? else { return Ok(None) };
    check_length(first >> 4, remaining)?;
    let whole = header + remaining;
    if whole > most {
        return Err(DecodeError::TooLarge(whole));
    }
    if received.len() < whole {
        return Ok(None);
    }
    let mut rest = received.split_to(whole).freeze();
    rest.advance(header);
    let packet = body(first, &mut rest)?;
    if rest.has_remaining() {
        return Err(Malformed("bytes after the end of a packet's fields"));
    }
    Ok(Some(packet))
}

/// Checks type and flags of a packet. [MQTT-2.2.2-1, 2.2.2-2, 3.3.1-2, 3.3.1-4,
/// 3.6.1-1, 3.8.1-1, 3.10.1-1, 3.14.1-1]
fn check_first_byte(first: u8) -> Result<(), DecodeError> {
    let flags = first & 0x0F;
    let expected = match first >> 4 {
        3 => {
            return match (flags & 0b1000 != 0, (flags & 0b0110) >> 1) {
                (_, 3) => Err(Malformed("a PUBLISH at QoS 3")),
                (true, 0) => Err(Malformed("a PUBLISH with DUP at QoS 0")),
                _ => Ok(()),
            };
        }
        1 | 4 | 5 | 7 | 12 | 14 => 0,
        6 | 8 | 10 => 0b0010,
        2 | 9 | 11 | 13 => return Err(Malformed("a packet that only servers send")),
        _ => return Err(Malformed("a packet of a reserved type")),
    };
    if flags == expected { Ok(()) } else { Err(Malformed("flags in the fixed header that are reserved")) }
}

/// The lengths of the fixed header and of what follows it; `None` while the header
/// is not whole. Source: section 2.2.3.
fn remaining_length(received: &[u8]) -> Result<Option<(usize, usize)>, DecodeError> {
    let mut remaining = 0;
    for (place, byte) in received.iter().enumerate().take(MAX_HEADER).skip(1) {
        remaining |= usize::from(byte & 0x7F) << (7 * (place - 1));
        if byte & 0x80 == 0 {
            return Ok(Some((place + 1, remaining)));
        }
    }
    if received.len() < MAX_HEADER { Ok(None) } else { Err(Malformed("a length of more than four bytes")) }
}

/// Refuses a length that a packet of the type `kind` never has, before as many
/// bytes were waited for.
fn check_length(kind: u8, remaining: usize) -> Result<(), DecodeError> {
    let fits = match kind {
        // Acknowledgements are a packet id.
        4..=7 => remaining == 2,
        // PINGREQ and DISCONNECT are nothing but their fixed header.
        12 | 14 => remaining == 0,
        _ => remaining > 0,
    };
    if fits { Ok(()) } else { Err(Malformed("a length that packets of this type do not have")) }
}

fn body(first: u8, rest: &mut Bytes) -> Result<Packet, DecodeError> {
    Ok(match first >> 4 {
        1 => Packet::Connect(connect(rest)?),
        3 => Packet::Publish(publish(first, rest)?),
        4 => Packet::PubAck(PubAck::new(packet_id(rest)?)),
        5 => Packet::PubRec(PubRec::new(packet_id(rest)?)),
        6 => Packet::PubRel(PubRel::new(packet_id(rest)?)),
        7 => Packet::PubComp(PubComp::new(packet_id(rest)?)),
        8 => Packet::Subscribe(subscribe(rest)?),
        10 => Packet::Unsubscribe(unsubscribe(rest)?),
        12 => Packet::PingReq,
        14 => Packet::Disconnect,
        _ => return Err(Malformed("a packet that only servers send")),
    })
}

/// Source: section 3.1, and [MQTT-3.1.4-1]: what does not conform is not answered.
fn connect(rest: &mut Bytes) -> Result<Connect, DecodeError> {
    let name = string(rest)?;
    let level = byte(rest)?;
    match (name.as_str(), level) {
        ("MQTT", 4) => {}
        // The name that MQTT 3.1 had. What follows is laid out as the other version
        // has it, and is not looked at.
        ("MQTT" | "MQIsdp", level) => {
            rest.clear();
            return Err(DecodeError::Version(level));
        }
        _ => return Err(Malformed("a CONNECT of a protocol that is not MQTT")), // [MQTT-3.1.2-1]
    }
    let flags = byte(rest)?;
    let is_set = |flag: u8| flags & flag != 0;
    let (clean_session, has_will, will_retain) = (is_set(0x02), is_set(0x04), is_set(0x20));
    let (has_user_name, has_password) = (is_set(0x80), is_set(0x40));
    if is_set(0x01) {
        return Err(Malformed("the reserved flag of a CONNECT")); // [MQTT-3.1.2-3]
    }
    let will_qos = qos((flags >> 3) & 0b11)?; // [MQTT-3.1.2-14]
    if !has_will && (will_qos != QoS::AtMostOnce || will_retain) {
        return Err(Malformed("a QoS or RETAIN of a Will that there is not")); // [MQTT-3.1.2-11, -13, -15]
    }
    if has_password && !has_user_name {
        return Err(Malformed("a password without a user name")); // [MQTT-3.1.2-22]
    }
    let keep_alive = number(rest)?;
    let client_id = string(rest)?; // [MQTT-3.1.3-3, -4]
    let last_will = match has_will {
        false => None,
        true => {
            let topic = topic_name(rest)?; // [MQTT-3.1.3-10]
            Some(LastWill { topic, message: binary(rest)?, qos: will_qos, retain: will_retain })
        }
    };
    let login = match has_user_name {
        false => None,
        true => {
            let username = string(rest)?; // [MQTT-3.1.3-11]
            // A password may be any bytes. One that is no text is no token either.
            let password = if has_password { binary(rest)? } else { Bytes::new() };
            Some(Login { username, password: String::from_utf8_lossy(&password).into_owned() })
        }
    };
    Ok(Connect { protocol: Protocol::V4, keep_alive, client_id, clean_session, last_will, login })
}

/// Source: section 3.3.
fn publish(first: u8, rest: &mut Bytes) -> Result<Publish, DecodeError> {
    let qos = qos((first & 0b0110) >> 1)?;
    let topic = topic_name(rest)?;
    let pkid = if qos == QoS::AtMostOnce { 0 } else { packet_id(rest)? }; // [MQTT-2.3.1-5]
    let payload = rest.split_to(rest.len());
    Ok(Publish { dup: first & 0b1000 != 0, qos, retain: first & 1 != 0, topic, pkid, payload })
}

/// Source: section 3.8.
fn subscribe(rest: &mut Bytes) -> Result<Subscribe, DecodeError> {
    let pkid = packet_id(rest)?;
    let mut filters = Vec::new();
    while rest.has_remaining() {
        let path = topic_filter(rest)?;
        // The upper bits are reserved. [MQTT-3-8.3-4]
        filters.push(SubscribeFilter { path, qos: qos(byte(rest)?)? });
    }
    match filters.is_empty() {
        true => Err(Malformed("a SUBSCRIBE without a topic filter")), // [MQTT-3.8.3-3]
        false => Ok(Subscribe { pkid, filters }),
    }
}

/// Source: section 3.10.
fn unsubscribe(rest: &mut Bytes) -> Result<Unsubscribe, DecodeError> {
    let pkid = packet_id(rest)?;
    let mut topics = Vec::new();
    while rest.has_remaining() {
        topics.push(topic_filter(rest)?);
    }
    match topics.is_empty() {
        true => Err(Malformed("an UNSUBSCRIBE without a topic filter")), // [MQTT-3.10.3-2]
        false => Ok(Unsubscribe { pkid, topics }),
    }
}

/// A packet id, which is never 0. [MQTT-2.3.1-1]
fn packet_id(rest: &mut Bytes) -> Result<u16, DecodeError> {
    match number(rest)? {
        0 => Err(Malformed("the packet id 0")),
        id => Ok(id),
    }
}

/// A topic that is published to. [MQTT-3.3.2-1, 3.3.2-2, 4.7.1-1, 4.7.3-1]
fn topic_name(rest: &mut Bytes) -> Result<String, DecodeError> {
    let topic = string(rest)?;
    if topic.is_empty() {
        return Err(Malformed("an empty topic"));
    }
    if topic.contains(['+', '#']) {
        return Err(Malformed("a wildcard in a topic that is published to"));
    }
    Ok(topic)
}

/// A topic filter. [MQTT-3.8.3-1, 3.10.3-1, 4.7.1-2, 4.7.1-3, 4.7.3-1]
fn topic_filter(rest: &mut Bytes) -> Result<String, DecodeError> {
    let filter = string(rest)?;
    if filter.is_empty() {
        return Err(Malformed("an empty topic filter"));
    }
    let mut levels = filter.split('/').rev();
    let last = levels.next().unwrap_or_default();
    let whole = |level: &str| level == "+" || !level.contains(['+', '#']);
    if !(last == "#" || whole(last)) || !levels.all(whole) {
        return Err(Malformed("a wildcard in the wrong place of a topic filter"));
    }
    Ok(filter)
}

/// Text in UTF-8, without NUL and without surrogates. A byte order mark is part of
/// the text. [MQTT-1.5.3-1, 1.5.3-2, 1.5.3-3, 4.7.3-2]
fn string(rest: &mut Bytes) -> Result<String, DecodeError> {
    let bytes = binary(rest)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| Malformed("text that is not UTF-8"))?;
    if text.contains('\0') {
        return Err(Malformed("text with NUL"));
    }
    Ok(text.to_owned())
}

/// Bytes, with their length in two bytes before them.
fn binary(rest: &mut Bytes) -> Result<Bytes, DecodeError> {
    let length = usize::from(number(rest)?);
    if rest.len() < length {
        return Err(Malformed("a field beyond the end of its packet"));
    }
    Ok(rest.split_to(length))
}

fn number(rest: &mut Bytes) -> Result<u16, DecodeError> {
    rest.try_get_u16().map_err(|_| Malformed("a packet that ends in the middle of a field"))
}

fn byte(rest: &mut Bytes) -> Result<u8, DecodeError> {
    rest.try_get_u8().map_err(|_| Malformed("a packet that ends in the middle of a field"))
}

fn qos(number: u8) -> Result<QoS, DecodeError> {
    match number {
        0 => Ok(QoS::AtMostOnce),
        1 => Ok(QoS::AtLeastOnce),
        2 => Ok(QoS::ExactlyOnce),
        _ => Err(Malformed("a QoS that there is not")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MOST: usize = 1024;

    /// The bytes of a packet as rumqttc encodes it.
    fn encoded(packet: &Packet) -> BytesMut {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, usize::MAX).unwrap();
        bytes
    }

    #[test]
    fn what_another_encoder_writes_is_read_as_it_was() {
        let mut connect = Connect::new("gw1");
        connect.set_login("h/gw1/?api-version=2021-04-12", "secret");
        connect.last_will =
            Some(LastWill::new("devices/gw1/messages/events/", "gone", QoS::AtLeastOnce, true));
        let mut publish = Publish::new("a/\u{FEFF}b", QoS::AtLeastOnce, "payload");
        (publish.pkid, publish.dup, publish.retain) = (7, true, true);
        let mut subscribe = Subscribe::new("a/+/#", QoS::ExactlyOnce);
        subscribe.pkid = 8;
        subscribe.add("+".to_owned(), QoS::AtMostOnce);
        let mut unsubscribe = Unsubscribe::new("a");
        unsubscribe.pkid = 9;
        for packet in [
            Packet::Connect(connect),
            Packet::Connect(Connect::new("")),
            Packet::Publish(Publish::new("a", QoS::AtMostOnce, "")),
            Packet::Publish(publish),
            Packet::PubAck(PubAck::new(1)),
            Packet::PubRec(PubRec::new(2)),
            Packet::PubRel(PubRel::new(3)),
            Packet::PubComp(PubComp::new(u16::MAX)),
            Packet::Subscribe(subscribe),
            Packet::Unsubscribe(unsubscribe),
            Packet::PingReq,
            Packet::Disconnect,
        ] {
            let mut bytes = encoded(&packet);
            for end in 0..bytes.len() {
                assert_eq!(decode(&mut BytesMut::from(&bytes[..end]), MOST), Ok(None), "{packet:?}");
            }
            bytes.extend_from_slice(&[0xC0]);
            assert_eq!(decode(&mut bytes, MOST), Ok(Some(packet)));
            assert_eq!(&bytes[..], [0xC0], "what follows stays");
        }
    }

    #[test]
    fn a_size_is_refused_before_the_packet_is_there() {
        let mut bytes = BytesMut::from(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F][..]);
        assert_eq!(decode(&mut bytes, MOST), Err(DecodeError::TooLarge(268_435_460)));
    }

    proptest! {
        #[test]
        fn no_bytes_are_beyond_it(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut received = BytesMut::from(&bytes[..]);
            while let Ok(Some(packet)) = decode(&mut received, MOST) {
                // Whatever is taken is what it says it is.
                prop_assert_eq!(decode(&mut encoded(&packet), MOST), Ok(Some(packet)));
            }
        }
    }
}
