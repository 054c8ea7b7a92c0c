//! What a client sends: bytes to packets, and packets to the hub, before and
//! after its CONNECT was accepted.

#![no_main]

use std::sync::LazyLock;

use bytes::BytesMut;
use iotdm_emulator::address::Address;
use iotdm_emulator::certificates::Authorities;
use iotdm_emulator::data_dir::DataDir;
use iotdm_emulator::device::IdentityChange;
use iotdm_emulator::hub::Hub;
use iotdm_emulator::mqtt::connection::MAX_PACKET;
use iotdm_emulator::mqtt::{connect, provisioning, publish, subscribe};
use iotdm_emulator::store::Store;
use iotdm_emulator::subscriptions::Subscriptions;
use iotdm_emulator::throttle::Throttle;
use iotdm_emulator::twin::TwinChange;
use iotdm_proto::identity::Identity;
use libfuzzer_sys::fuzz_target;
use rumqttc::mqttbytes::v4::Packet;
use tokio::runtime::Runtime;

struct World {
    runtime: Runtime,
    hub: Hub,
    device: Identity,
    _dir: tempfile::TempDir,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::create(dir.path()).unwrap();
    let store = Store::open(&data.store()).unwrap();
    let address = Address { host: "localhost".into(), mqtt_port: 8883, https_port: 8443, others: Vec::new() };
    let hub = Hub::open(store, data, address, Authorities::default(), Throttle::new(None)).unwrap();
    let device: Identity = "gw1".parse().unwrap();
    runtime.block_on(hub.create_device(&device, IdentityChange::default(), &TwinChange::default())).unwrap();
    World { runtime, hub, device, _dir: dir }
});

fuzz_target!(|bytes: &[u8]| {
    let World { runtime, hub, device, .. } = &*WORLD;
    let link = hub.links.attach(device, Subscriptions::default(), None);
    let mut received = BytesMut::from(bytes);
    while let Ok(packet) = Packet::read(&mut received, MAX_PACKET) {
        runtime.block_on(async {
            match packet {
                Packet::Connect(hello) => {
                    let _ = provisioning::registration_id(hub, &hello);
                    let _ = connect::accept(hub, &hello, None).await;
                }
                Packet::Publish(published) => {
                    let _ = publish::handle(hub, &link, &published).await;
                }
                Packet::Subscribe(asked) => {
                    let _ = subscribe::subscribe(hub, &link, false, &asked).await;
                }
                Packet::Unsubscribe(asked) => {
                    let _ = subscribe::unsubscribe(hub, &link, false, &asked).await;
                }
                _ => {}
            }
        });
    }
});
