//! One exchange with the hub, and trying again where that can help.

use std::time::Duration;

use iotdm_proto::API_VERSION;
use reqwest::header::{AUTHORIZATION, DATE, HeaderMap, RETRY_AFTER};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::time::Instant;

use super::Hub;
use crate::hub_error::HubError;
use crate::pace::Pace;
use crate::refusal::{Kind, Refusal};

/// How long the hub may take for its own part of an answer.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// How often a request is sent at most.
pub(super) const TRIES: u32 = 5;
/// How often one is sent that is part of a long run.
pub(super) const PATIENT_TRIES: u32 = 15;
/// The first pause between tries; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// No pause of our own choice is longer.
const OWN_PAUSE: Duration = Duration::from_secs(30);
/// A hub that wants a longer pause than this is left alone.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

const A_SECOND: Duration = Duration::from_secs(1);

/// So many requests are under way at once, each of which has a connection of
/// its own. Calls are not counted: they last as long as a device likes.
pub(super) const ROOM: usize = 64;

/// What is asked of the hub.
pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Option<&'a Value>,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) limit: Duration,
    /// When its turn was, if that has been waited for already.
    pub(super) turn: Option<Instant>,
    /// Whether it changes nothing, so that it is tried again after the hub's
    /// own failure, where it is not known whether it was carried out.
    pub(super) repeatable: bool,
    /// Whether a status of 400 may come with a result, as that of bulk
    /// changes of which some have failed.
    pub(super) answers_with_400: bool,
}

/// What it answers.
pub(super) struct Answer {
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

/// Of what the hub meters apart.
pub(super) struct Paces {
    pub(super) calls: Pace,
    pub(super) queries: Pace,
    pub(super) others: Pace,
}

impl Default for Paces {
    fn default() -> Self {
        Paces {
            calls: Pace::new(A_SECOND),
            // 20 in a minute, of a small hub.
            queries: Pace::new(A_SECOND * 3),
            others: Pace::new(A_SECOND),
        }
    }
}

impl Hub {
    /// Sends, and reads the answer.
    pub(super) async fn json(&self, request: Request<'_>) -> Result<Value, HubError> {
        let answer = self.send(&request).await?;
        serde_json::from_str(&answer.body).map_err(|error| self.not_a_hub(&error))
    }

    /// Sends, and sends again where that can help and cannot harm: when
    /// throttled, which says that nothing was done, and, if `repeatable`,
    /// after the hub's own failures.
    pub(super) async fn send(&self, request: &Request<'_>) -> Result<Answer, HubError> {
        let (pace, room) = match request.path.as_str() {
            path if path.ends_with("/methods") => (&self.paces.calls, None),
            "/devices/query" => (&self.paces.queries, Some(&self.room)),
            _ => (&self.paces.others, Some(&self.room)),
        };
        let (mut pause, mut tries) = (FIRST_PAUSE, 0);
        loop {
            // In this order: whoever waits for a place hears of a throttling.
            let place = match room {
                Some(room) => room.acquire().await.ok(),
                None => None,
            };
            let turn = match request.turn.filter(|_| tries == 0) {
                Some(turn) => turn,
                None => pace.turn().await,
            };
            tries += 1;
            self.has_sent_changes.set(self.has_sent_changes.get() || !request.repeatable);
            let sent = self.send_once(request).await?;
            drop(place);
            let (refusal, asked) = match sent {
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
                pace.throttled(turn, wait.min(LONGEST_PAUSE));
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

    /// The error of an answer that does not make sense.
    pub(super) fn not_a_hub(&self, error: &serde_json::Error) -> HubError {
        HubError::NotAHub { host: self.host.clone(), cause: error.to_string() }
    }
}

impl<'a> Request<'a> {
    pub(super) fn new(method: Method, path: String) -> Self {
        let repeatable = method == Method::GET;
        Request {
            method,
            path,
            body: None,
            headers: Vec::new(),
            limit: ANSWER_LIMIT,
            turn: None,
            repeatable,
            answers_with_400: false,
        }
    }
}

/// A header.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// How far our clock is ahead of the hub's, in seconds.
pub(super) fn clock_ahead(headers: &HeaderMap) -> Option<i64> {
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
}
