//! Clients that have not proved who they are: what they may hold, and what they
//! may use up, is little.

use std::sync::Arc;

use iotdm_tests::Hub;
use rumqttc::mqttbytes::v4::ConnectReturnCode;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::device::{Device, hello, hello_with};
use crate::support::service::Service;
use crate::support::{DEADLINE, tls};

/// The most that the emulator may ever have had in memory, in KiB, the start and
/// the attack and all, beside the pages of its program. A release build, which
/// maps some 5 MB of its program, so stays below 32 MB.
const MOST_MEMORY: u64 = 24 * 1024;

/// How many connections each attack opens.
const ATTACKERS: usize = 400;

/// What each of them sends: all of a body that the hub would take, but for its
/// last byte.
const BODY: usize = 512 * 1024;

/// A token with the form of the owner's, and a signature that nobody made.
const FORGED: &str = "SharedAccessSignature sr=localhost&sig=AAAA&se=99999999999&skn=iothubowner";

/// The emulator's resident memory at its highest, in KiB, without the pages of its
/// program, of which a debug build has many.
fn peak(hub: &Hub) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", hub.pid())).unwrap();
    let kibibytes = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    kibibytes("VmHWM:") - kibibytes("RssFile:")
}

async fn open(port: u16, config: Arc<ClientConfig>) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(config).connect(name, stream).await.unwrap()
}

/// Opens all attackers' connections at the same time; each sends `head`, waits
/// for the head of an answer if it is to, and sends as much of `rest` as the hub
/// takes. All connections stay open until each attacker has sent everything or
/// was cut off.
async fn attack(hub: &Hub, port: u16, head: &[u8], answered: bool, rest: &[u8]) {
    let (head, rest, config) = (Arc::new(head.to_vec()), Arc::new(rest.to_vec()), tls(hub));
    let mut attackers = JoinSet::new();
    for _ in 0..ATTACKERS {
        let (head, rest, config) = (head.clone(), rest.clone(), config.clone());
        attackers.spawn(async move {
            let mut stream = open(port, config).await;
            let sent = async {
                stream.write_all(&head).await?;
                if answered {
                    stream.read_u8().await?;
                }
                stream.write_all(&rest).await?;
                stream.flush().await
            };
            // An error is the hub's way to say that it has had enough.
            let _ = timeout(DEADLINE, sent).await.expect("neither taken nor cut off");
            stream
        });
    }
    let open: Vec<_> = attackers.join_all().await;
    assert_eq!(open.len(), ATTACKERS);
    // Others are served while all of them are there.
    Device::connect(hub, "gw1").await.ping().await;
    Service::owner(hub).read("/twins/gw1").await;
    let peak = peak(hub);
    assert!(peak < MOST_MEMORY, "{peak} KiB at the most");
}

#[tokio::test]
async fn forged_tokens_with_large_bodies_get_little_memory() {
    let hub = Hub::start();
    let head = format!(
        "PATCH /twins/gw1 HTTP/1.1\r\nHost: localhost\r\nAuthorization: {FORGED}\r\nContent-Length: {BODY}\r\n\r\n"
    );
    attack(&hub, hub.https_port, head.as_bytes(), false, &vec![b' '; BODY - 1]).await;
}

#[tokio::test]
async fn registrations_without_proof_with_large_bodies_get_little_memory() {
    let hub = Hub::start();
    let scope = hub.file("id-scope");
    let head = format!(
        "PUT /{}/registrations/gw1/register HTTP/1.1\r\nHost: localhost\r\nAuthorization: {FORGED}\r\nContent-Length: {BODY}\r\n\r\n",
        scope.trim()
    );
    attack(&hub, hub.https_port, head.as_bytes(), false, &vec![b' '; BODY - 1]).await;
}

#[tokio::test]
async fn websockets_without_a_connect_get_little_memory() {
    let hub = Hub::start();
    let upgrade = b"GET /$iothub/websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
        Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\
        Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    // One binary message of 512 KiB, whose mask is zero, without its last byte.
    let mut message = vec![0x82, 0xff];
    message.extend_from_slice(&(BODY as u64).to_be_bytes());
    message.extend_from_slice(&[0; 4]);
    message.resize(message.len() + BODY - 1, b'x');
    attack(&hub, hub.https_port, upgrade, true, &message).await;
}

#[tokio::test]
async fn half_a_connect_gets_little_memory() {
    let hub = Hub::start();
    // The first byte and the length, 32 KB, of a CONNECT.
    let head = [0x10, 0xf0, 0xff, 0x01];
    attack(&hub, hub.mqtt_port, &head, false, &vec![b'x'; 32 * 1024 - 512]).await;
}

#[tokio::test]
async fn requests_without_a_token_use_up_nobodys_allowance() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start_in(dir.path(), &["--device", "gw1", "--tier", "F1"]);
    for token in ["", FORGED] {
        let stranger = Service::with_token(&hub, token.to_owned());
        for _ in 0..130 {
            stranger.get("/devices").await.refused(401, "IotHubUnauthorizedAccess");
        }
    }
    Service::owner(&hub).read("/devices").await;
}

#[tokio::test]
async fn requests_and_connects_without_proof_use_up_no_fault() {
    let hub = Hub::start();
    let owner = Service::owner(&hub);
    owner.fault(json!({"deviceId": "gw1", "fault": "throttleService"})).await;
    owner.fault(json!({"deviceId": "gw1", "fault": "refuseConnect", "code": 3})).await;
    let faults = owner.read("/emulator/faults").await;

    for token in ["", FORGED] {
        let stranger = Service::with_token(&hub, token.to_owned());
        stranger.get("/twins/gw1").await.refused(401, "IotHubUnauthorizedAccess");
    }
    let forged = "SharedAccessSignature sr=localhost%2Fdevices%2Fgw1&sig=AAAA&se=99999999999";
    let (_, ack) = Device::say_hello(&hub, hello_with("gw1", forged)).await;
    assert_eq!(ack.code, ConnectReturnCode::NotAuthorized);
    assert_eq!(owner.read("/emulator/faults").await, faults);

    let (_, ack) = Device::say_hello(&hub, hello(&hub, "gw1")).await;
    assert_eq!(ack.code, ConnectReturnCode::ServiceUnavailable);
    owner.get("/twins/gw1").await.refused(429, "ThrottlingException");
    assert_eq!(owner.read("/emulator/faults").await, json!([]));
}

#[tokio::test]
async fn a_policy_without_the_right_is_refused_before_its_body_is_read() {
    let hub = Hub::start();
    let reader = Service::with_policy(&hub, "registryRead");
    // The refusal arrives although the body is large and no JSON.
    let request = reader.request("PATCH", "/twins/gw1").body("{".repeat(400 * 1024));
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 401);
    let reason = response.headers()["x-emulator-reason"].to_str().unwrap().to_owned();
    assert!(reason.contains("ServiceConnect"), "{reason}");
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["Message"], "ErrorCode:IotHubUnauthorizedAccess;Unauthorized");
}
