//! A service client: the operator's side. It speaks just enough of HTTP, so
//! that the load takes no more of the machine than it has to.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::BytesMut;
use clap::Args;
use iotdm_proto::{ServiceConnectionString, sas};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::{Tls, tls};
use crate::measure::{percentiles, say};

/// Where the hub is, and who we are to it.
#[derive(Clone)]
pub struct Service {
    tls: Tls,
    port: u16,
    token: Arc<str>,
}

/// A connection to it, for one request at a time.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    token: Arc<str>,
}

impl Service {
    /// The service of the emulator with this directory.
    pub fn new(data: &Path) -> Self {
        let text = std::fs::read_to_string(data.join("service-connection-string")).unwrap();
        let parsed: ServiceConnectionString = text.parse().unwrap();
        let host = parsed.host_name.to_string();
        let token = sas::sign(&host, &parsed.key, in_an_hour(), Some(&parsed.policy)).into();
        Service { tls: tls(&data.join("ca.pem")), port: parsed.host_name.port_or(443), token }
    }

    /// Connects.
    pub async fn connect(&self) -> Connection {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(self.tls.clone()).connect(name, stream).await.unwrap();
        Connection { stream, token: self.token.clone() }
    }

    /// Makes the identities d0, d1 and so on, from `range`.
    pub async fn create(&self, range: std::ops::Range<usize>) {
        let names = range.map(|n| json!({"id": format!("d{n}")}));
        let body = Value::Array(names.collect()).to_string();
        self.connect().await.send("POST", "/devices", &body).await;
    }
}

impl Connection {
    /// The body of the answer, which has to be 200.
    pub async fn send(&mut self, method: &str, path: &str, body: &str) -> BytesMut {
        let (token, length) = (&self.token, body.len());
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        self.stream.write_all(request.as_bytes()).await.unwrap();
        self.stream.flush().await.unwrap();
        let mut received = BytesMut::with_capacity(4096);
        loop {
            assert_ne!(self.stream.read_buf(&mut received).await.unwrap(), 0, "{path}: closed");
            let mut headers = [httparse::EMPTY_HEADER; 32];
            let mut answer = httparse::Response::new(&mut headers);
            if let httparse::Status::Complete(head) = answer.parse(&received).unwrap() {
                let status = answer.code.unwrap();
                let length =
                    answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
                let length: usize = std::str::from_utf8(length.unwrap().value).unwrap().parse().unwrap();
                while received.len() < head + length {
                    assert_ne!(self.stream.read_buf(&mut received).await.unwrap(), 0, "{path}: closed");
                }
                let body = received.split_off(head);
                assert_eq!(status, 200, "{path}: {body:?}");
                return body;
            }
        }
    }

    /// Calls a method with this body, and is content with a status of 200.
    pub async fn call(&mut self, device: &str, body: &str) {
        let answer = self.send("POST", &format!("/twins/{device}/methods"), body).await;
        assert!(answer.starts_with(br#"{"status":200,"#), "{answer:?}");
    }
}

/// `calls`
#[derive(Args)]
pub struct Calls {
    /// The emulator's directory
    data: PathBuf,
    /// Whom to call
    device: String,
    /// How often
    count: usize,
    /// How many at once
    #[arg(long, default_value = "1")]
    at_once: usize,
    /// The method
    #[arg(long, default_value = "getRebootStatus")]
    method: String,
    /// Calls d0, d1 and so on, one after the other, instead of one device
    #[arg(long)]
    all: bool,
    /// Reads the device's twin after each call, as who waits for an outcome does
    #[arg(long)]
    read_twin: bool,
}

impl Calls {
    /// Calls, and says how long that took.
    pub async fn run(self) {
        let service = Service::new(&self.data);
        let body: Arc<str> = json!({"methodName": self.method, "payload": {"n": 1}}).to_string().into();
        let (mut running, start) = (JoinSet::new(), Instant::now());
        for worker in 0..self.at_once {
            let (service, body, device) = (service.clone(), body.clone(), self.device.clone());
            let (all, read_twin, numbers) =
                (self.all, self.read_twin, (worker..self.count).step_by(self.at_once));
            running.spawn(async move {
                let mut connection = service.connect().await;
                let mut times: Vec<Duration> = Vec::new();
                for n in numbers {
                    let began = Instant::now();
                    let device = if all { format!("d{n}") } else { device.clone() };
                    connection.call(&device, &body).await;
                    if read_twin {
                        connection.send("GET", &format!("/twins/{device}"), "").await;
                    }
                    times.push(began.elapsed());
                }
                times
            });
        }
        let times = running.join_all().await.concat();
        say("calls a second", times.len() as f64 / start.elapsed().as_secs_f64());
        percentiles("call", times);
    }
}

/// The time in seconds since the Unix epoch.
pub fn in_an_hour() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + 3600
}
