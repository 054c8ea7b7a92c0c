//! A service at the level of HTTP.

use std::sync::Arc;

use iotdm_proto::{ServiceConnectionString, sas};
use iotdm_tests::Hub;
use reqwest::{Client, Method, RequestBuilder};
use rustls::ClientConfig;
use serde_json::Value;

use super::{DEADLINE, now, tls};

/// A client with one policy's rights.
#[derive(Clone)]
pub struct Service {
    client: Client,
    base: String,
    token: String,
}

/// The hub's response.
#[derive(Debug)]
pub struct HttpResponse {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Service {
    pub fn owner(hub: &Hub) -> Self {
        Service::with_policy(hub, "iothubowner")
    }

    pub fn with_policy(hub: &Hub, policy: &str) -> Self {
        let text = hub.file(&format!("policies/{policy}"));
        let parsed: ServiceConnectionString = text.parse().unwrap();
        let host = parsed.host_name.to_string();
        let token = sas::sign(&host, &parsed.key, now() + 3600, Some(&parsed.policy));
        Service::with_token(hub, token)
    }

    pub fn with_token(hub: &Hub, token: String) -> Self {
        Service::with_tls(hub, tls(hub), token)
    }

    /// A client whose TLS may show a certificate.
    pub fn with_tls(hub: &Hub, tls: Arc<ClientConfig>, token: String) -> Self {
        let client = Client::builder().tls_backend_preconfigured((*tls).clone()).no_proxy().timeout(DEADLINE);
        let base = format!("https://localhost:{}", hub.https_port);
        Service { client: client.build().unwrap(), base, token }
    }

    pub fn request(&self, method: &str, path: &str) -> RequestBuilder {
        self.versioned("2021-04-12", method, path)
    }

    /// A request of another version of the interface.
    pub fn versioned(&self, api_version: &str, method: &str, path: &str) -> RequestBuilder {
        let method: Method = method.parse().unwrap();
        let request = self.client.request(method, format!("{}{path}?api-version={api_version}", self.base));
        if self.token.is_empty() { request } else { request.header("Authorization", &self.token) }
    }

    /// Sends a request; a DELETE is unconditional.
    pub async fn send(&self, method: &str, path: &str, body: Value) -> HttpResponse {
        let request = self.request(method, path);
        let request = if method == "DELETE" { request.header("If-Match", "*") } else { request };
        HttpResponse::to(if body.is_null() { request } else { request.json(&body) }).await
    }

    pub async fn get(&self, path: &str) -> HttpResponse {
        self.send("GET", path, Value::Null).await
    }

    /// A body of a GET that succeeds.
    pub async fn read(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    }

    /// Changes some fields of an identity, which is written back with its keys.
    pub async fn change(&self, path: &str, fields: Value) {
        let mut identity = self.read(path).await;
        for (name, value) in fields.as_object().unwrap() {
            identity[name.as_str()] = value.clone();
        }
        let answer =
            HttpResponse::to(self.request("PUT", path).header("If-Match", "*").json(&identity)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// Switches a fault on.
    pub async fn fault(&self, body: Value) {
        let answer = self.send("POST", "/emulator/faults", body).await;
        assert_eq!(answer.status, 204, "{answer:?}");
    }
}

impl HttpResponse {
    pub async fn to(request: RequestBuilder) -> HttpResponse {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.bytes().await.unwrap();
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        HttpResponse { status, headers, body }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Asserts a refusal in the classic shape.
    pub fn refused(&self, status: u16, name: &str) {
        assert_eq!((self.status, self.header("iothub-errorcode")), (status, Some(name)), "{self:?}");
        let message = self.body["Message"].as_str().unwrap();
        let text = message.strip_prefix(&format!("ErrorCode:{name};")).expect("the classic shape");
        assert!(!text.is_empty(), "{self:?}");
        assert!(self.body["ExceptionMessage"].as_str().unwrap().starts_with("Tracking ID:"), "{self:?}");
    }

    /// Asserts a refusal in the flat shape that modules have.
    pub fn refused_flat(&self, status: u16, code: u32, name: &str) {
        assert_eq!((self.status, self.header("iothub-errorcode")), (status, Some(name)), "{self:?}");
        assert_eq!(self.body["errorCode"], code, "{self:?}");
        assert!(!self.body["message"].as_str().unwrap().is_empty(), "{self:?}");
    }

    /// Asserts a refusal in the nested shape of method calls.
    pub fn refused_nested(&self, status: u16, code: u32, name: &str) {
        assert_eq!((self.status, self.header("iothub-errorcode")), (status, Some(name)), "{self:?}");
        let inner: Value = serde_json::from_str(self.body["Message"].as_str().unwrap()).unwrap();
        assert_eq!(inner["errorCode"], code, "{inner}");
        assert!(!inner["message"].as_str().unwrap().is_empty());
        assert!(inner["timestampUtc"].as_str().unwrap().ends_with('Z'));
    }
}
