//! Sends an HTTP request to the hub, and sends it again where that can help.

use std::time::Duration;

use iotdm_proto::API_VERSION;
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, HeaderMap};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::client::{HubClient, TRIES};
use super::error::HubError;
use super::http::{HttpRequest, HttpResponse, clock_ahead, header, retry_after};
use super::refusal::{HubRefusal, RefusalKind};
use super::throttle::Throttle;

/// The first pause between tries; each further pause is twice as long. The hub's
/// throttles are rates per second, so shorter pauses would only be throttled
/// again.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause of our own choice; a longer one would look as if the
/// program hung.
const LONGEST_OWN_PAUSE: Duration = Duration::from_secs(30);
/// A hub that asks for a longer pause than this is not tried again: the user is
/// better told to come back later.
const LONGEST_ASKED_PAUSE: Duration = Duration::from_secs(60);

/// The most bytes that are read of one answer: 16 MiB. A page has 100 rows, and a
/// whole twin with its metadata is rarely above 100 KiB.
const MOST_BYTES: usize = 16 << 20;
/// The most marks (see [`marks`]) that the JSON of one answer may have: `[[],[],…`
/// takes 30 times as much memory when it is parsed.
const MOST_MARKS: usize = 500_000;

impl HubClient {
    /// Sends a request, and reads the response as JSON.
    pub(super) async fn json<T: DeserializeOwned>(&self, request: HttpRequest<'_>) -> Result<T, HubError> {
        let response = self.send(&request).await?;
        serde_json::from_str(&response.body).map_err(|error| self.not_a_hub(&error))
    }

    /// Sends a request, and sends it again where that can help and cannot harm:
    /// when the hub throttles, which says that nothing was done, and, if the
    /// request is repeatable, after the hub's own failures.
    pub(super) async fn send(&self, request: &HttpRequest<'_>) -> Result<HttpResponse, HubError> {
        let pace = self.paces.of(request.throttle);
        let (mut pause, mut tries) = (FIRST_PAUSE, 0);
        loop {
            // First the connection, then the turn: a request that waits for a
            // connection then heeds a throttling of meanwhile.
            let connection = match request.throttle {
                // A call's connection is not counted, see `CONNECTIONS`.
                Throttle::MethodCalls => None,
                Throttle::Queries | Throttle::Others => self.connections.acquire().await.ok(),
            };
            let turn = match request.turn.filter(|_| tries == 0) {
                Some(turn) => turn,
                None => pace.turn().await,
            };
            tries += 1;
            self.has_sent_changes.set(self.has_sent_changes.get() || !request.repeatable);
            let sent = self.send_once(request).await?;
            drop(connection);
            let (refusal, asked) = match sent {
                Ok(response) => {
                    pace.went_well();
                    return Ok(response);
                }
                Err(refused) => refused,
            };
            let allowed_tries = match refusal.kind() {
                RefusalKind::Throttled => self.tries.get(),
                RefusalKind::Server | RefusalKind::NoReply if request.repeatable => TRIES,
                _ => 0,
            };
            let wait = asked.unwrap_or_else(|| spread(pause));
            if refusal.kind() == RefusalKind::Throttled {
                pace.throttled(turn, wait.min(LONGEST_ASKED_PAUSE));
                self.throttled.set(self.throttled.get() + 1);
            }
            if tries >= allowed_tries || wait > LONGEST_ASKED_PAUSE {
                return Err(HubError::Refused(Box::new(refusal)));
            }
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(LONGEST_OWN_PAUSE);
        }
    }

    /// Sends a request once. The inner error is the hub's refusal, with the
    /// pause that the hub asks for.
    async fn send_once(
        &self,
        request: &HttpRequest<'_>,
    ) -> Result<Result<HttpResponse, (HubRefusal, Option<Duration>)>, HubError> {
        let authorization = self.credential.authorization(&self.host, &self.tls).await?;
        let sent = self.send_as(request, &authorization).await?;
        // A token in a file may have been renewed while the request was on its way.
        let is_refused = matches!(&sent, Err((refusal, _)) if refusal.kind() == RefusalKind::NotAuthorized);
        if is_refused && self.credential.may_be_newer_than(&authorization) {
            let newer = self.credential.authorization(&self.host, &self.tls).await?;
            return self.send_as(request, &newer).await;
        }
        Ok(sent)
    }

    /// Sends a request once, with this value of the header `Authorization`.
    async fn send_as(
        &self,
        request: &HttpRequest<'_>,
        authorization: &str,
    ) -> Result<Result<HttpResponse, (HubRefusal, Option<Duration>)>, HubError> {
        let url = format!("https://{}{}?api-version={API_VERSION}", self.host, request.path);
        let mut builder = self.http.request(request.method.clone(), url).timeout(request.limit);
        builder = builder.header(AUTHORIZATION, authorization);
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        if let Some(body) = request.body {
            builder = builder.json(body);
        }
        let failed =
            |error| HubError::of_transport(&self.host, self.proxy.as_ref(), &error, request.limit.as_secs());
        let response = builder.send().await.map_err(failed)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = self.body(response, failed).await?;
        let is_result = status.is_success()
            || (request.results_with_400 && status == StatusCode::BAD_REQUEST && is_bulk_result(&body));
        if is_result {
            return Ok(Ok(HttpResponse { headers, body }));
        }
        Ok(Err((self.refusal(status, &headers, &body), retry_after(&headers))))
    }

    /// Reads a body, which a hub that means harm would never end.
    async fn body(
        &self,
        mut response: reqwest::Response,
        failed: impl Fn(reqwest::Error) -> HubError,
    ) -> Result<String, HubError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(&failed)? {
            if body.len() + chunk.len() > MOST_BYTES {
                return Err(self.too_much("an answer of more than 16 MiB; ask for fewer rows with --top"));
            }
            body.extend_from_slice(&chunk);
        }
        if marks(&body) > MOST_MARKS {
            return Err(self.too_much("an answer of more than 500000 values; ask for fewer rows with --top"));
        }
        Ok(String::from_utf8(body)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    /// The error of a hub that goes on for longer than any hub does.
    pub(super) fn too_much(&self, what: &'static str) -> HubError {
        HubError::TooMuch { host: self.host.clone(), what }
    }

    fn refusal(&self, status: StatusCode, headers: &HeaderMap, body: &str) -> HubRefusal {
        let name = header(headers, "iothub-errorcode");
        let mut refusal = HubRefusal::parse(&self.host, status.as_u16(), name, body);
        refusal.clock_ahead = clock_ahead(headers);
        refusal
    }

    /// The error of a response that does not make sense.
    pub(super) fn not_a_hub(&self, error: &serde_json::Error) -> HubError {
        HubError::NotAHub { host: self.host.clone(), cause: error.to_string() }
    }
}

/// How many of JSON's marks are in a text that stand before or after a value.
/// There are at least as many as values, but for one.
pub(super) fn marks(json: &[u8]) -> usize {
    json.iter().filter(|byte| b",:[{".contains(byte)).count()
}

/// `pause`, shorter or longer by up to a quarter, so that the devices of a run
/// that were throttled together do not come back together.
fn spread(pause: Duration) -> Duration {
    pause.mul_f64(0.75 + fastrand::f64() / 2.0)
}

/// Whether a body is the registry's account of bulk changes.
fn is_bulk_result(body: &str) -> bool {
    serde_json::from_str(body).is_ok_and(|body: Value| body.get("isSuccessful").is_some())
}
