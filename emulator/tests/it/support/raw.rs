//! MQTT by hand: packets byte for byte, and what comes back.

use iotdm_proto::{DeviceAuth, DeviceConnectionString, sas};
use iotdm_tests::Hub;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{DEADLINE, now, tls};

/// A string with its length in two bytes before it.
pub fn string(text: &str) -> Vec<u8> {
    let mut bytes = u16::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// A packet: its first byte, the length of the rest, the rest.
pub fn packet(first: u8, rest: &[&[u8]]) -> Vec<u8> {
    let rest = rest.concat();
    let mut bytes = vec![first];
    let mut length = rest.len();
    loop {
        let digit = u8::try_from(length % 128).unwrap();
        length /= 128;
        bytes.push(if length > 0 { digit | 0x80 } else { digit });
        if length == 0 {
            break;
        }
    }
    bytes.extend(rest);
    bytes
}

/// A CONNECT of `gw1` that goes on with its session.
pub fn connect(hub: &Hub, level: u8) -> Vec<u8> {
    connect_with(hub, level, 0xC0)
}

/// A CONNECT of `gw1` with these flags, which have to name a user and a password.
pub fn connect_with(hub: &Hub, level: u8, flags: u8) -> Vec<u8> {
    let [user_name, password] = credentials(hub);
    packet(
        0x10,
        &[&string("MQTT"), &[level, flags, 0, 60], &string("gw1"), &string(&user_name), &string(&password)],
    )
}

/// The user name and the password of `gw1`.
pub fn credentials(hub: &Hub) -> [String; 2] {
    let text: DeviceConnectionString = hub.file("devices/gw1").parse().unwrap();
    let DeviceAuth::Key(key) = text.auth else { panic!("no key") };
    let password = sas::sign("localhost/devices/gw1", &key, now() + 600, None);
    ["localhost/gw1/?api-version=2021-04-12".to_owned(), password]
}

/// TLS, and nothing said yet.
pub async fn open(hub: &Hub) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", hub.mqtt_port)).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(tls(hub)).connect(name, stream).await.unwrap()
}

/// Expects exactly these bytes to come next.
pub async fn expect(stream: &mut TlsStream<TcpStream>, bytes: &[u8]) {
    let mut received = vec![0; bytes.len()];
    timeout(DEADLINE, stream.read_exact(&mut received)).await.expect("nothing came").unwrap();
    assert_eq!(received, bytes, "{}", String::from_utf8_lossy(&received));
}

/// Expects the hub to close without another byte.
pub async fn expect_close(stream: &mut TlsStream<TcpStream>) {
    let end = timeout(DEADLINE, stream.read(&mut [0; 64])).await.expect("still open");
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
}

/// A connection of `gw1` that is let in.
pub async fn accepted(hub: &Hub) -> TlsStream<TcpStream> {
    let mut stream = open(hub).await;
    stream.write_all(&connect_with(hub, 4, 0xC2)).await.unwrap();
    expect(&mut stream, &[0x20, 2, 0, 0]).await;
    stream
}
