//! The emulator under load.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use iotdm_proto::{DeviceAuth, DeviceConnectionString, ServiceConnectionString, sas};
use reqwest::Method;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::Connect;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::client::{Client, tls};
use crate::measure::{AT_ONCE, make, memory, rate};

const METHODS: &str = "$iothub/methods/POST/#";
const TWIN: &str = "$iothub/twin/res/#";
const DESIRED: &str = "$iothub/twin/PATCH/properties/desired/#";

/// How often it is started to see how soon it is ready.
const STARTS: usize = 15;

/// A running emulator; killed when dropped.
struct Emulator {
    child: Child,
    mqtt_port: u16,
    https_port: u16,
    ready_after: Duration,
}

impl Emulator {
    /// On this port for MQTT, which stands in the devices' files.
    fn start(dir: &Path, port: u16) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_iotdm-emulator"));
        command.args(["serve", "--mqtt-port", &port.to_string(), "--https-port", "0", "--data"]).arg(dir);
        let start = Instant::now();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready_after = start.elapsed();
        let mut ports = line.split(' ').filter_map(|field| field.rsplit(':').next()?.parse().ok());
        let (mqtt_port, https_port) = (ports.next().unwrap(), ports.next().unwrap());
        Emulator { child, mqtt_port, https_port, ready_after }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A service client.
#[derive(Clone)]
struct Service {
    client: reqwest::Client,
    base: String,
    token: String,
}

impl Service {
    fn new(emulator: &Emulator, dir: &Path) -> Self {
        let text = std::fs::read_to_string(dir.join("service-connection-string")).unwrap();
        let parsed: ServiceConnectionString = text.parse().unwrap();
        let token = sas::sign(&parsed.host_name.to_string(), &parsed.key, in_an_hour(), Some(&parsed.policy));
        let tls = (*tls(&dir.join("ca.pem"))).clone();
        let client = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build().unwrap();
        Service { client, base: format!("https://localhost:{}", emulator.https_port), token }
    }

    async fn send(&self, method: Method, path: &str, body: &Value) {
        let request = self.client.request(method, format!("{}{path}", self.base)).json(body);
        let answer = request.header("Authorization", &self.token).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.bytes().await.unwrap();
    }
}

/// Measures everything and prints it.
pub async fn run(devices: usize) {
    println!("iotdm-emulator");
    let temporary = tempfile::tempdir().unwrap();
    let fresh = (0..STARTS).map(|n| Emulator::start(&temporary.path().join(n.to_string()), 0).ready_after);
    print_ready("with a new data directory", fresh.collect());
    let dir = temporary.path().join("hub");
    let emulator = Emulator::start(&dir, 0);
    let service = Service::new(&emulator, &dir);
    let requests = devices.div_ceil(100);
    make(&format!("{devices} identities, 100 in a request"), requests, |request| {
        let names = (request * 100..devices.min(request * 100 + 100)).map(|n| json!({"id": format!("d{n}")}));
        let (service, body) = (service.clone(), Value::Array(names.collect()));
        async move { service.send(Method::POST, "/devices", &body).await }
    })
    .await;

    let before = memory(emulator.child.id());
    let tls = tls(&dir.join("ca.pem"));
    let port = emulator.mqtt_port;
    let connect = |n: usize| {
        let (tls, hello) = (tls.clone(), hello(&dir, n));
        async move {
            let mut client = Client::connect(tls, port, hello, &[METHODS, TWIN, DESIRED]).await;
            report(&mut client).await;
            client
        }
    };
    let mut clients = make("connected, subscribed, reported", devices, connect).await;
    let after = memory(emulator.child.id());
    let each = (after - before) as f64 / devices as f64;
    println!("  memory: {before} KiB with the identities, {after} KiB with connections: {each:.1} KiB each");

    let reporters = clients.drain(..AT_ONCE.min(clients.len())).collect();
    rate("durable reports of a device", reporters, |mut client: Client| async move {
        report(&mut client).await;
        client
    })
    .await;
    let names: Arc<Vec<usize>> = Arc::new((AT_ONCE.min(devices)..devices).collect());
    let mut answering = JoinSet::new();
    for mut client in clients {
        answering.spawn(async move {
            loop {
                let topic = client.message().await;
                let rid = topic.rsplit('=').next().unwrap();
                client.publish(&format!("$iothub/methods/res/200/?$rid={rid}"), QoS::AtLeastOnce, "{}").await;
            }
        });
    }
    rate("method round trips", vec![service; AT_ONCE], move |service: Service| {
        let device = names[any(names.len())];
        async move {
            let body = json!({"methodName": "m", "payload": {"n": 1}});
            service.send(Method::POST, &format!("/twins/d{device}/methods"), &body).await;
            service
        }
    })
    .await;
    println!("  memory: {} KiB afterwards", memory(emulator.child.id()));
    answering.shutdown().await;
    drop(emulator);
    let size = dir.join("store.redb").metadata().unwrap().len() / 1024;
    println!("  the store: {size} KiB");
    print_ready("with these devices", (0..STARTS).map(|_| Emulator::start(&dir, port).ready_after).collect());
}

async fn report(client: &mut Client) {
    let topic = "$iothub/twin/PATCH/properties/reported/?$rid=1";
    client.publish(topic, QoS::AtLeastOnce, r#"{"agent":{"version":"1.0.0"},"n":1}"#).await;
    let answer = client.message().await;
    assert!(answer.starts_with("$iothub/twin/res/204/"), "{answer}");
}

fn hello(dir: &Path, n: usize) -> Connect {
    let text = std::fs::read_to_string(dir.join(format!("devices/d{n}"))).unwrap();
    let parsed: DeviceConnectionString = text.parse().unwrap();
    let DeviceAuth::Key(key) = parsed.auth else { panic!("{text}") };
    let mut connect = Connect::new(format!("d{n}"));
    (connect.clean_session, connect.keep_alive) = (false, 0);
    let password = sas::sign(&format!("localhost/devices/d{n}"), &key, in_an_hour(), None);
    connect.set_login(format!("localhost/d{n}/?api-version=2021-04-12"), password);
    connect
}

fn print_ready(how: &str, mut times: Vec<Duration>) {
    times.sort();
    let [least, middle, most] =
        [0, times.len() / 2, times.len() - 1].map(|n| times[n].as_secs_f64() * 1000.0);
    println!("  ready {how}: {least:.1} / {middle:.1} / {most:.1} ms (min, median, max)");
}

fn in_an_hour() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + 3600
}

/// Any number below `most`.
pub fn any(most: usize) -> usize {
    usize::try_from(RandomState::new().build_hasher().finish()).unwrap() % most
}
