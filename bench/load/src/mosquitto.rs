//! mosquitto with the same messages: a request at QoS 0 to a device, its
//! answer at QoS 1.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::Connect;
use tokio::task::JoinSet;

use crate::client::{Client, tls};
use crate::measure::{AT_ONCE, cpu, make, memory, rate, say};

/// Measures mosquitto.
pub async fn run(devices: usize) {
    let dir = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut broker = start(dir.path(), port);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let tls = tls(&dir.path().join("ca.pem"));
    let before = memory(broker.id());
    let device = |n: usize| {
        let (tls, filter) = (tls.clone(), format!("to/d{n}/#"));
        async move { Client::connect(tls, port, hello(&format!("d{n}")), &[&filter]).await }
    };
    let clients = make("connections a second", devices, device).await;
    let after = memory(broker.id());
    say("memory for each connection, KiB", after.saturating_sub(before) as f64 / devices as f64);
    let mut answering = JoinSet::new();
    for mut client in clients {
        answering.spawn(async move {
            loop {
                let (topic, _) = client.message().await;
                let caller = topic.rsplit('/').next().unwrap();
                client.publish(&format!("from/{caller}"), QoS::AtLeastOnce, "{}").await;
            }
        });
    }
    let caller = |n: usize| {
        let (tls, filter) = (tls.clone(), format!("from/{n}"));
        async move { (n, Client::connect(tls, port, hello(&format!("caller{n}")), &[&filter]).await) }
    };
    let callers = make("callers a second", AT_ONCE, caller).await;
    let devices = Arc::new(devices);
    let before = cpu(broker.id());
    let trips = rate("method round trips a second", callers, move |(n, mut client): (usize, Client)| {
        let device = crate::hub::any(*devices);
        async move {
            client.publish(&format!("to/d{device}/{n}"), QoS::AtMostOnce, r#"{"n":1}"#).await;
            client.message().await;
            (n, client)
        }
    })
    .await;
    say("CPU for each method, µs", 1e6 * (cpu(broker.id()) - before) / trips);
    answering.shutdown().await;
    broker.kill().unwrap();
    broker.wait().unwrap();
}

fn start(dir: &Path, port: u16) -> Child {
    let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
    let (mut ca, ca_key) = (CertificateParams::new([]).unwrap(), KeyPair::generate().unwrap());
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    write("ca.pem", &ca.self_signed(&ca_key).unwrap().pem());
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    write("cert.pem", &params.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap().pem());
    write("key.pem", &key.serialize_pem());
    let at = dir.display();
    write(
        "mosquitto.conf",
        &format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nset_tcp_nodelay true\n\
             certfile {at}/cert.pem\nkeyfile {at}/key.pem\n"
        ),
    );
    let mut command = Command::new("mosquitto");
    command.arg("-c").arg(dir.join("mosquitto.conf"));
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("mosquitto")
}

fn hello(id: &str) -> Connect {
    let mut connect = Connect::new(id);
    (connect.clean_session, connect.keep_alive) = (true, 0);
    connect
}
