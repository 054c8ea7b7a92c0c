//! Sends an HTTP request to the hub, and sends it again where that can help.

use std::time::Duration;

use iotdm_proto::API_VERSION;
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, HeaderMap};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;

use super::client::HubClient;
use super::error::HubError;
use super::http::{HttpRequest, HttpResponse, clock_ahead, header, retry_after};
use super::refusal::{HubRefusal, RefusalKind};
use super::throttle::Throttle;
use crate::output::say;

/// How often an HTTP request is sent at most where the hub fails: with our own
/// pauses that takes about 8 s, for which a person waits.
const TRIES: u32 = 5;
/// How often a throttled HTTP request is sent at most: with our own pauses that
/// takes between 4 and 5 min. The hub has said that it is there and that waiting
/// helps.
const THROTTLED_TRIES: u32 = 15;
/// How long it is not said again that the hub throttles: one line tells it of all
/// requests that are under way.
const SAID: Duration = Duration::from_secs(30);

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

/// The hub's refusal, with the pause that the hub asks for.
type Refused = (HubRefusal, Option<Duration>);

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
            let sent = self.send_once(request).await;
            drop(connection);
            self.note_reach(&sent);
            let (refusal, asked) = match sent? {
                Ok(response) => {
                    pace.went_well();
                    return Ok(response);
                }
                Err(refused) => refused,
            };
            let allowed_tries = match refusal.kind() {
                RefusalKind::Throttled => THROTTLED_TRIES,
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
            if refusal.kind() == RefusalKind::Throttled {
                self.say_throttled(wait);
            }
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(LONGEST_OWN_PAUSE);
        }
    }

    /// Takes note of whether the hub is there.
    fn note_reach(&self, sent: &Result<Result<HttpResponse, Refused>, HubError>) {
        match sent {
            Err(error) if error.is_outage() => self.reach.away(),
            Err(_) => {}
            Ok(answer) => {
                self.reach.answered();
                if matches!(answer, Err((refusal, _)) if refusal.kind() == RefusalKind::Server) {
                    self.reach.away();
                }
            }
        }
    }

    /// Says that the hub throttles and how long that makes us wait, unless that
    /// was said a moment ago.
    fn say_throttled(&self, wait: Duration) {
        if wait.is_zero() || self.said_throttled.get().is_some_and(|said| said.elapsed() < SAID) {
            return;
        }
        self.said_throttled.set(Some(Instant::now()));
        let seconds = wait.as_secs_f64().ceil();
        say(format_args!("iotdm-ctl: hub {} throttles, trying again in {seconds} s", self.host));
    }

    /// Sends a request once. The inner error is the hub's refusal, with the
    /// pause that the hub asks for.
    async fn send_once(&self, request: &HttpRequest<'_>) -> Result<Result<HttpResponse, Refused>, HubError> {
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
        let refusal = self.refusal(status, &headers, &body);
        let pause = retry_after(&headers).or_else(|| asked_pause(&body));
        Ok(Err((refusal, pause)))
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

/// The pause that the text of a refusal asks for, such as "Wait 10 seconds and
/// try again": a hub that throttles sends no header `Retry-After`.
///
/// Source: captures of the service's answers in public issues.
fn asked_pause(body: &str) -> Option<Duration> {
    let words: Vec<String> = body
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
        .collect();
    let is_asked = |index: usize| {
        let before = words.get(index.saturating_sub(4)..index).unwrap_or_default();
        before.iter().any(|word| matches!(word.as_str(), "wait" | "retry" | "again"))
    };
    words.windows(2).enumerate().find_map(|(index, two)| match two {
        [count, unit] if is_asked(index) => {
            let count: u64 = count.parse().ok()?;
            match unit.as_str() {
                "s" | "sec" | "secs" | "second" | "seconds" => Some(Duration::from_secs(count)),
                "min" | "minute" | "minutes" => Some(Duration::from_secs(count.checked_mul(60)?)),
                "ms" | "millisecond" | "milliseconds" => Some(Duration::from_millis(count)),
                _ => None,
            }
        }
        _ => None,
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_that_a_hub_asks_for_in_words() {
        let of = |message: &str| asked_pause(&serde_json::json!({ "Message": message }).to_string());
        let nested = r#"{"errorCode":429001,"message":"Throttled.","info":{"retry":"Wait 10 seconds and try again."}}"#;
        for (message, seconds) in [
            (
                "ErrorCode:ThrottlingException;Operation is throttled. Wait 10 seconds and try again.",
                Some(10),
            ),
            (nested, Some(10)),
            ("Please retry after 7 sec", Some(7)),
            ("wait 2 minutes", Some(120)),
            ("wait 18446744073709551615 minutes", None),
            ("Please wait for at least 3 seconds", Some(3)),
            ("100 requests in 60 seconds are allowed", None),
            ("wait for it", None),
            ("", None),
        ] {
            assert_eq!(of(message), seconds.map(Duration::from_secs), "{message}");
        }
    }
}
