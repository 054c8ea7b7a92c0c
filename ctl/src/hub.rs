//! The hub's service REST interface, as far as the commands need it.
//!
//! Source: the REST reference of IoT Hub and the generated clients of the
//! official SDKs. Each request carries a token of its own, so none expires
//! while a command waits.

mod jobs;
mod pages;
mod probe;

use std::cell::Cell;
use std::time::Duration;

use anyhow::Context as _;
use iotdm_proto::{API_VERSION, DeviceId, Endpoint};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{AUTHORIZATION, DATE, HeaderMap, IF_MATCH, RETRY_AFTER};
use reqwest::{Method, StatusCode};
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use self::pages::{Pages, check_length, literal};
pub use self::probe::{Probe, Probed};
use crate::credential::Credential;
use crate::error::Usage;
use crate::hub_error::HubError;
use crate::pace::Pace;
use crate::refusal::{Kind, Refusal};
use crate::target::Target;
use crate::tls;

/// How long a connection may take to come about.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
/// How long the hub may take for its own part of an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// How often a request is sent at most.
const TRIES: u32 = 5;
/// How often one is sent that is part of a long run.
const PATIENT_TRIES: u32 = 15;
/// The first pause between tries; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// No pause of our own choice is longer.
const OWN_PAUSE: Duration = Duration::from_secs(30);
/// A hub that wants a longer pause than this is left alone.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

const A_SECOND: Duration = Duration::from_secs(1);

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
}

/// Of what the hub meters apart.
struct Paces {
    calls: Pace,
    queries: Pace,
    others: Pace,
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

struct Request<'a> {
    method: Method,
    path: String,
    body: Option<&'a Value>,
    headers: Vec<(&'static str, String)>,
    limit: Duration,
    /// Whether it changes nothing, so that it is tried again after the hub's
    /// own failure, where it is not known whether it was carried out.
    repeatable: bool,
    /// Whether a status of 400 may come with a result, as that of bulk
    /// changes of which some have failed.
    answers_with_400: bool,
}

struct Answer {
    headers: HeaderMap,
    body: String,
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
            paces: Paces {
                calls: Pace::new(A_SECOND),
                // 20 in a minute, of a small hub.
                queries: Pace::new(A_SECOND * 3),
                others: Pace::new(A_SECOND),
            },
        })
    }

    /// From now on it is worth waiting longer for a hub that throttles, and
    /// not to ask it faster than the smallest paid tier takes it: 40 method
    /// calls and 100 twin reads a second.
    ///
    /// Source: IoT Hub developer guide, "Reference - IoT Hub quotas and
    /// throttling".
    pub fn be_patient(&self) {
        self.tries.set(PATIENT_TRIES);
        self.paces.calls.no_faster_than(Duration::from_millis(25));
        self.paces.others.no_faster_than(Duration::from_millis(10));
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
        let body = json!(call);
        let mut request = Request::new(Method::POST, format!("{}/methods", path("twins", device)));
        request.body = Some(&body);
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

    async fn json(&self, request: Request<'_>) -> Result<Value, HubError> {
        let answer = self.send(&request).await?;
        serde_json::from_str(&answer.body).map_err(|error| self.not_a_hub(&error))
    }

    /// Sends, and sends again where that can help and cannot harm: when
    /// throttled, which says that nothing was done, and, if `repeatable`,
    /// after the hub's own failures.
    async fn send(&self, request: &Request<'_>) -> Result<Answer, HubError> {
        let pace = match request.path.as_str() {
            path if path.ends_with("/methods") => &self.paces.calls,
            "/devices/query" => &self.paces.queries,
            _ => &self.paces.others,
        };
        let (mut pause, mut tries) = (FIRST_PAUSE, 0);
        loop {
            let turn = pace.turn().await;
            tries += 1;
            self.has_sent_changes.set(self.has_sent_changes.get() || !request.repeatable);
            let (refusal, asked) = match self.send_once(request).await? {
                Ok(answer) => {
                    pace.went_well();
                    return Ok(answer);
                }
                Err(refused) => refused,
            };
            let left = match refusal.kind() {
                Kind::Throttled => self.tries.get(),
                Kind::Server | Kind::NoReply if request.repeatable => TRIES,
                _ => 0,
            };
            let wait = asked.unwrap_or_else(|| pause.mul_f64(0.75 + fastrand::f64() / 2.0));
            if refusal.kind() == Kind::Throttled {
                pace.throttled(turn, wait);
                self.throttled.set(self.throttled.get() + 1);
            }
            if tries >= left || wait > LONGEST_PAUSE {
                return Err(HubError::Refused(Box::new(refusal)));
            }
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(OWN_PAUSE);
        }
    }

    /// One exchange: an answer, or a refusal with the pause the hub asks for.
    async fn send_once(
        &self,
        request: &Request<'_>,
    ) -> Result<Result<Answer, (Refusal, Option<Duration>)>, HubError> {
        let authorization = self.credential.authorization(&self.host, &self.tls).await?;
        let url = format!("https://{}{}?api-version={API_VERSION}", self.host, request.path);
        let mut builder = self.http.request(request.method.clone(), url).timeout(request.limit);
        builder = builder.header(AUTHORIZATION, authorization);
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        if let Some(body) = request.body {
            builder = builder.json(body);
        }
        let failed = |error| HubError::of_transport(&self.host, &error, request.limit.as_secs());
        let response = builder.send().await.map_err(failed)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.text().await.map_err(failed)?;
        let result = |body: &str| {
            serde_json::from_str(body).is_ok_and(|body: Value| body.get("isSuccessful").is_some())
        };
        if status.is_success() || (request.answers_with_400 && status.as_u16() == 400 && result(&body)) {
            return Ok(Ok(Answer { headers, body }));
        }
        Ok(Err((self.refusal(status, &headers, &body), retry_after(&headers))))
    }

    fn refusal(&self, status: StatusCode, headers: &HeaderMap, body: &str) -> Refusal {
        let mut refusal =
            Refusal::parse(&self.host, status.as_u16(), text(headers, "iothub-errorcode"), body);
        refusal.clock_ahead = clock_ahead(headers);
        refusal
    }

    fn not_a_hub(&self, error: &serde_json::Error) -> HubError {
        HubError::NotAHub { host: self.host.clone(), cause: error.to_string() }
    }
}

impl<'a> Request<'a> {
    fn new(method: Method, path: String) -> Self {
        let repeatable = method == Method::GET;
        Request {
            method,
            path,
            body: None,
            headers: Vec::new(),
            limit: ANSWER_LIMIT,
            repeatable,
            answers_with_400: false,
        }
    }
}

fn path(collection: &str, device: &DeviceId) -> String {
    format!("/{collection}/{}", utf8_percent_encode(device.as_str(), ENCODED))
}

/// The form of `If-Match`; the hub takes `"*"`, too, with its quotes.
fn quoted(etag: &str) -> String {
    format!("\"{etag}\"")
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// How far our clock is ahead of the hub's, in seconds.
fn clock_ahead(headers: &HeaderMap) -> Option<i64> {
    let theirs = http_date(text(headers, DATE.as_str())?)?;
    Some(jiff::Timestamp::now().as_second() - theirs)
}

/// `Retry-After` in both of its forms.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = text(headers, RETRY_AFTER.as_str())?;
    let seconds = match value.trim().parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => u64::try_from(http_date(value)? - jiff::Timestamp::now().as_second()).unwrap_or(0),
    };
    Some(Duration::from_secs(seconds))
}

/// An HTTP date in seconds since the Unix epoch.
fn http_date(text: &str) -> Option<i64> {
    Some(jiff::fmt::rfc2822::parse(text).ok()?.timestamp().as_second())
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
    fn retry_after_in_seconds_and_as_a_date() {
        let header = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(header("7"), Some(Duration::from_secs(7)));
        assert_eq!(header("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(header("soon"), None);
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
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
