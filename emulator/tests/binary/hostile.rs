//! Clients that mean harm cost bounded memory and disturb nobody.

use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{Packet, Subscribe, SubscribeFilter};

use crate::support::Emulator;
use crate::support::device::{Device, METHOD_CALLS, hello};
use crate::support::service::Service;

/// What the emulator may grow by in each of these tests, in KiB. A debug build
/// with its allocator's slack needs some; the attacks would need hundreds.
const ALLOWED_GROWTH: u64 = 48 * 1024;

/// The emulator's resident memory, in KiB.
fn memory(emulator: &Emulator) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", emulator.child.id().unwrap())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn is_unimpressed(emulator: &Emulator, before: u64) {
    Device::connect(emulator, "gw1").await.ping().await;
    Service::owner(emulator).read("/twins/gw1").await;
    let after = memory(emulator);
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
    let emulator = Emulator::new().await;
    Device::connect(&emulator, "gw1").await.ping().await;
    let before = memory(&emulator);
    let mut strangers = Vec::new();
    for _ in 0..300 {
        let mut stranger = Device::open(&emulator).await;
        // A length that is allowed for a device's message, not for a CONNECT.
        stranger.send_bytes(&header(0x10, 256 * 1024)).await;
        stranger.send_bytes(&vec![b'x'; 64 * 1024]).await;
        strangers.push(stranger);
    }
    is_unimpressed(&emulator, before).await;
    for mut stranger in strangers.into_iter().take(10) {
        stranger.expect_close().await;
    }
}

#[tokio::test]
async fn a_packet_of_256_megabytes_is_refused_by_its_length() {
    let emulator = Emulator::new().await;
    Device::connect(&emulator, "gw1").await.ping().await;
    let before = memory(&emulator);
    for known in [false, true] {
        let mut device =
            if known { Device::connect(&emulator, "gw1").await } else { Device::open(&emulator).await };
        device.send_bytes(&header(if known { 0x32 } else { 0x10 }, 268_435_455)).await;
        for _ in 0..64 {
            device.send_bytes(&[b'x'; 4096]).await;
        }
        device.expect_close().await;
    }
    is_unimpressed(&emulator, before).await;
}

#[tokio::test]
async fn a_hundred_thousand_subscriptions_are_four() {
    let emulator = Emulator::new().await;
    let mut device = Device::connect(&emulator, "gw1").await;
    device.ping().await;
    let before = memory(&emulator);
    for pkid in 1..=20 {
        let filter = SubscribeFilter::new(METHOD_CALLS.to_owned(), QoS::AtLeastOnce);
        let mut subscribe = Subscribe::new_many(vec![filter; 5000]);
        subscribe.pkid = pkid;
        device.send(&Packet::Subscribe(subscribe)).await;
        assert!(matches!(device.read().await, Some(Packet::SubAck(ack)) if ack.pkid == pkid));
    }
    device.ping().await;
    is_unimpressed(&emulator, before).await;
}

#[tokio::test]
async fn half_a_message_waits_without_holding_up_others() {
    let emulator = Emulator::new().await;
    let (mut device, _) = Device::say_hello(&emulator, hello(&emulator, "gw1")).await;
    device.send_bytes(&header(0x32, 200 * 1024)).await;
    device.send_bytes(&vec![0; 100 * 1024]).await;
    let service = Service::owner(&emulator);
    service.send("PUT", "/devices/gw2", serde_json::json!({})).await;
    Device::connect(&emulator, "gw2").await.ping().await;
    assert_eq!(service.read("/twins/gw1").await["connectionState"], "Connected");
}
