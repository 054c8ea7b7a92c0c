//! A service client: the operator's side.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use iotdm_proto::{ServiceConnectionString, sas};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::client::tls;
use crate::measure::{percentiles, say};

/// It, connected to a hub.
#[derive(Clone)]
pub struct Service {
    client: reqwest::Client,
    base: String,
    token: Arc<str>,
}

impl Service {
    /// For the emulator with this directory.
    pub fn new(data: &Path) -> Self {
        let text = std::fs::read_to_string(data.join("service-connection-string")).unwrap();
        let parsed: ServiceConnectionString = text.parse().unwrap();
        let host = parsed.host_name.to_string();
        let token = sas::sign(&host, &parsed.key, in_an_hour(), Some(&parsed.policy)).into();
        let tls = (*tls(&data.join("ca.pem"))).clone();
        let client = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build().unwrap();
        Service { client, base: format!("https://{host}"), token }
    }

    /// The body of the answer, which has to be 200.
    pub async fn send(&self, method: Method, path: &str, body: &Value) -> Value {
        let request = self.client.request(method, format!("{}{path}", self.base)).json(body);
        let answer = request.header("Authorization", &*self.token).send().await.unwrap();
        let status = answer.status();
        let body = answer.text().await.unwrap();
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap_or(Value::Null)
    }

    /// Calls a method, and is content with a status of 200.
    pub async fn call(&self, device: &str, body: &Value) {
        let answer = self.send(Method::POST, &format!("/twins/{device}/methods"), body).await;
        assert_eq!(answer["status"], 200, "{answer}");
    }

    /// Makes the identities d0, d1 and so on, from `range`.
    pub async fn create(&self, range: std::ops::Range<usize>) {
        let names = range.map(|n| json!({"id": format!("d{n}")}));
        self.send(Method::POST, "/devices", &Value::Array(names.collect())).await;
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
        let body: Arc<Value> = Arc::new(json!({"methodName": self.method, "payload": {"n": 1}}));
        let (mut running, start) = (JoinSet::new(), Instant::now());
        for worker in 0..self.at_once {
            let (service, body, device) = (service.clone(), body.clone(), self.device.clone());
            let (all, read_twin, numbers) =
                (self.all, self.read_twin, (worker..self.count).step_by(self.at_once));
            running.spawn(async move {
                let mut times: Vec<Duration> = Vec::new();
                for n in numbers {
                    let began = Instant::now();
                    let device = if all { format!("d{n}") } else { device.clone() };
                    service.call(&device, &body).await;
                    if read_twin {
                        service.send(Method::GET, &format!("/twins/{device}"), &Value::Null).await;
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

/// In seconds since the Unix epoch.
pub fn in_an_hour() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + 3600
}
