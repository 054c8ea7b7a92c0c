//! The hub's service REST interface, as far as the commands need it.
//!
//! Source: the REST reference of IoT Hub and the generated clients of the
//! official SDKs. Each request carries a token of its own, so none expires
//! while a command waits.

mod exchange;
mod jobs;
mod pages;
mod probe;

use std::cell::Cell;
use std::time::Duration;

use anyhow::Context as _;
use iotdm_proto::{DeviceId, Endpoint};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use reqwest::header::IF_MATCH;
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use self::exchange::{ANSWER_LIMIT, PATIENT_TRIES, Paces, ROOM, Request, TRIES, clock_ahead, text};
pub use self::pages::{Pages, check_length, literal};
pub use self::probe::{Probe, Probed};
use crate::credential::Credential;
use crate::error::Usage;
use crate::hub_error::HubError;
use crate::target::Target;
use crate::tls;

/// How long a connection may take to come about.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);

/// Everything but RFC 3986's unreserved characters is encoded in paths.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A connection to a hub as an operator.
pub struct Hub {
    http: reqwest::Client,
    endpoint: Endpoint,
    host: String,
    credential: Credential,
    tls: ClientConfig,
    tries: Cell<u32>,
    throttled: Cell<usize>,
    has_sent_changes: Cell<bool>,
    paces: Paces,
    room: Semaphore,
}

/// A direct method to call.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MethodCall {
    /// Its name.
    pub method_name: String,
    /// Its argument, absent if `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<Value>,
    /// How long the hub waits for the reply, in seconds.
    pub response_timeout_in_seconds: u64,
    /// How long the hub waits for the device to connect, in seconds.
    pub connect_timeout_in_seconds: u64,
}

/// A device's reply to a direct method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MethodReply {
    /// The device's status; 400 and more is a refusal.
    pub status: i64,
    /// What it says, `null` if nothing.
    #[serde(default)]
    pub payload: Value,
}

impl Hub {
    /// Prepares requests to `target`; nothing is sent yet.
    pub fn new(target: Target) -> anyhow::Result<Self> {
        let tls = tls::client_config(target.ca_file.as_deref())?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.clone())
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_LIMIT)
            .user_agent(concat!("iotdm-ctl/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("the HTTPS client cannot be set up")?;
        Ok(Hub {
            http,
            host: target.endpoint.to_string(),
            endpoint: target.endpoint,
            credential: target.credential,
            tls,
            tries: Cell::new(TRIES),
            throttled: Cell::default(),
            has_sent_changes: Cell::default(),
            paces: Paces::default(),
            room: Semaphore::new(ROOM),
        })
    }

    /// From now on it is worth waiting longer for a hub that throttles.
    pub fn be_patient(&self) {
        self.tries.set(PATIENT_TRIES);
    }

    /// Makes no more than so many method calls in a second from now on, at
    /// least 1, and two and a half times as many other requests; of the smallest
    /// paid tier a unit takes 40 calls, and the hub 100 reads of twins.
    ///
    /// Source: IoT Hub developer guide, "Reference - IoT Hub quotas and
    /// throttling".
    pub fn no_faster_than(&self, calls_per_second: u32) {
        let gap = Duration::from_secs(1) / calls_per_second;
        self.paces.calls.no_faster_than(gap);
        self.paces.others.no_faster_than(gap * 2 / 5);
    }

    /// The hub's host and port.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// How often it has throttled a request of this process.
    pub fn throttled(&self) -> usize {
        self.throttled.get()
    }

    /// Whether anything went out that is more than a question.
    pub fn has_sent_changes(&self) -> bool {
        self.has_sent_changes.get()
    }

    /// How TLS is spoken to it.
    pub fn tls(&self) -> &ClientConfig {
        &self.tls
    }

    /// A token of the policy that is valid until `expiry`, in seconds since
    /// the Unix epoch.
    pub fn token(&self, expiry: u64) -> Result<String, Usage> {
        self.credential.sign(&self.host, expiry)
    }

    /// A device's twin.
    pub async fn twin(&self, device: &DeviceId) -> Result<Value, HubError> {
        self.json(Request::new(Method::GET, path("twins", device))).await
    }

    /// Merges `patch` into a device's twin if its etag is `etag`, where one
    /// is given, and returns the new twin.
    pub async fn patch_twin(
        &self,
        device: &DeviceId,
        patch: &Value,
        etag: Option<&str>,
    ) -> Result<Value, HubError> {
        let mut request = Request::new(Method::PATCH, path("twins", device));
        request.body = Some(patch);
        request.headers.push((IF_MATCH.as_str(), quoted(etag.unwrap_or("*"))));
        self.json(request).await
    }

    /// Replaces the tags and the desired properties of a device's twin if its
    /// etag is `etag`, where one is given, and returns the new twin.
    pub async fn replace_twin(
        &self,
        device: &DeviceId,
        twin: &Value,
        etag: Option<&str>,
    ) -> Result<Value, HubError> {
        let mut request = Request::new(Method::PUT, path("twins", device));
        request.body = Some(twin);
        request.headers.push((IF_MATCH.as_str(), quoted(etag.unwrap_or("*"))));
        self.json(request).await
    }

    /// Calls a direct method and waits for the device's reply.
    pub async fn invoke(&self, device: &DeviceId, call: &MethodCall) -> Result<MethodReply, HubError> {
        self.invoke_in_turn(device, call, None).await
    }

    /// Waits until the next call may go out, which [`Hub::invoke_in_turn`] then
    /// does at once.
    pub async fn turn_to_call(&self) -> Instant {
        self.paces.calls.turn().await
    }

    /// The same, with a turn that has been waited for.
    pub async fn invoke_in_turn(
        &self,
        device: &DeviceId,
        call: &MethodCall,
        turn: Option<Instant>,
    ) -> Result<MethodReply, HubError> {
        let body = json!(call);
        let mut request = Request::new(Method::POST, format!("{}/methods", path("twins", device)));
        (request.body, request.turn) = (Some(&body), turn);
        let seconds = call.response_timeout_in_seconds + call.connect_timeout_in_seconds;
        request.limit = Duration::from_secs(seconds) + ANSWER_LIMIT;
        match self.json(request).await {
            Err(HubError::NoAnswer { host, seconds, .. }) => {
                Err(HubError::NoAnswer { host, seconds, method: true })
            }
            result => serde_json::from_value(result?).map_err(|error| self.not_a_hub(&error)),
        }
    }

    /// A device's identity, keys included.
    pub async fn device(&self, device: &DeviceId) -> Result<Value, HubError> {
        self.json(Request::new(Method::GET, path("devices", device))).await
    }

    /// Creates a device, or, with `etag`, replaces its identity if it still
    /// has that etag. Returns the identity, keys included.
    pub async fn put_device(
        &self,
        device: &DeviceId,
        identity: &Value,
        etag: Option<&str>,
    ) -> Result<Value, HubError> {
        let mut request = Request::new(Method::PUT, path("devices", device));
        request.body = Some(identity);
        if let Some(etag) = etag {
            request.headers.push((IF_MATCH.as_str(), quoted(etag)));
        }
        self.json(request).await
    }

    /// Carries out up to 100 changes of the registry, and returns the errors
    /// of those that failed, each with its `deviceId`.
    pub async fn bulk(&self, changes: &Value) -> Result<Vec<Value>, HubError> {
        let mut request = Request::new(Method::POST, "/devices".to_owned());
        request.body = Some(changes);
        request.answers_with_400 = true;
        let mut answer = self.json(request).await?;
        match answer.get_mut("errors").map(Value::take) {
            Some(Value::Array(errors)) => Ok(errors),
            _ => Ok(Vec::new()),
        }
    }

    /// Deletes a device, with its keys and its twin.
    pub async fn delete_device(&self, device: &DeviceId) -> Result<(), HubError> {
        let mut request = Request::new(Method::DELETE, path("devices", device));
        request.headers.push((IF_MATCH.as_str(), quoted("*")));
        self.send(&request).await.map(drop)
    }
}

fn path(collection: &str, device: &DeviceId) -> String {
    format!("/{collection}/{}", utf8_percent_encode(device.as_str(), ENCODED))
}

/// The form of `If-Match`; the hub takes `"*"`, too, with its quotes.
fn quoted(etag: &str) -> String {
    format!("\"{etag}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_encoded_in_paths() {
        let device: DeviceId = "a:b#1?$'%".parse().unwrap();
        assert_eq!(path("twins", &device), "/twins/a%3Ab%231%3F%24%27%25");
    }

    #[test]
    fn a_call_without_payload_has_no_payload_key() {
        let call = MethodCall {
            method_name: "m".into(),
            payload: None,
            response_timeout_in_seconds: 60,
            connect_timeout_in_seconds: 0,
        };
        let expected =
            json!({"methodName": "m", "responseTimeoutInSeconds": 60, "connectTimeoutInSeconds": 0});
        assert_eq!(serde_json::to_value(call).unwrap(), expected);
    }
}
