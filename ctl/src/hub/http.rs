//! One HTTP request to the hub and its response, as values.

use std::time::Duration;

use iotdm_proto::Identity;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use reqwest::header::{DATE, HeaderMap, IF_MATCH, RETRY_AFTER};
use serde_json::Value;
use tokio::time::Instant;

use super::throttle::Throttle;

/// How long the hub may take for its own part of a response. A hub answers within
/// seconds, so that a request that takes longer hangs.
pub(super) const RESPONSE_LIMIT: Duration = Duration::from_secs(30);

/// Everything but RFC 3986's unreserved characters is encoded in paths.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// An HTTP request to the hub.
pub(super) struct HttpRequest<'a> {
    /// Which of the hub's throttles counts the request.
    pub(super) throttle: Throttle,
    /// GET, PUT and so on.
    pub(super) method: Method,
    /// The path, percent-encoded, without the query string.
    pub(super) path: String,
    /// The JSON body.
    pub(super) body: Option<&'a Value>,
    /// Headers beside those of every request.
    pub(super) headers: Vec<(&'static str, String)>,
    /// How long the response may take.
    pub(super) limit: Duration,
    /// When the request's turn was, if the caller has waited for its turn
    /// already.
    pub(super) turn: Option<Instant>,
    /// Whether the request changes nothing. Such a request is tried again after
    /// the hub's own failure, where it is not known whether the hub has carried
    /// it out.
    pub(super) repeatable: bool,
    /// Whether a response of status 400 may be a result, as that of bulk
    /// changes of which some have failed.
    pub(super) results_with_400: bool,
}

/// The hub's response to an HTTP request that succeeded.
pub(super) struct HttpResponse {
    /// All headers.
    pub(super) headers: HeaderMap,
    /// The body, JSON as it should be.
    pub(super) body: String,
}

impl<'a> HttpRequest<'a> {
    /// A request without a body. Only `GET` is repeatable, unless the caller
    /// says otherwise.
    pub(super) fn new(throttle: Throttle, method: Method, path: String) -> Self {
        let repeatable = method == Method::GET;
        HttpRequest {
            throttle,
            method,
            path,
            body: None,
            headers: Vec::new(),
            limit: RESPONSE_LIMIT,
            turn: None,
            repeatable,
            results_with_400: false,
        }
    }

    /// Adds a JSON body.
    pub(super) fn body(mut self, body: &'a Value) -> Self {
        self.body = Some(body);
        self
    }

    /// Adds a header.
    pub(super) fn header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Lets the request succeed only if what it changes still has this etag;
    /// `*` stands for any. The etag is quoted, which the hub takes of `*`, too.
    pub(super) fn if_match(self, etag: &str) -> Self {
        self.header(IF_MATCH.as_str(), format!("\"{etag}\""))
    }
}

/// The path of a device, or of a module of one, in a collection of the hub, such as
/// `twins`.
pub(super) fn identity_path(collection: &str, id: &Identity) -> String {
    let device = encoded(id.device.as_str());
    match &id.module {
        None => format!("/{collection}/{device}"),
        Some(module) => format!("/{collection}/{device}/modules/{}", encoded(module.as_str())),
    }
}

/// `text` as one segment of a path.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// The value of a header, if it is there and is text.
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// How far our clock is ahead of the hub's, in seconds, by the header `Date`.
pub(super) fn clock_ahead(headers: &HeaderMap) -> Option<i64> {
    let hubs = http_date(header(headers, DATE.as_str())?)?;
    Some(jiff::Timestamp::now().as_second() - hubs)
}

/// `Retry-After`: how long the hub wants us to wait, given in seconds or as the
/// date until which. A date is the hub's, and so is compared with the date of the
/// same response: this machine's clock may be wrong.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = header(headers, RETRY_AFTER.as_str())?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let now = header(headers, DATE.as_str()).and_then(http_date);
    let now = now.unwrap_or_else(|| jiff::Timestamp::now().as_second());
    let seconds = http_date(value)?.saturating_sub(now);
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// An HTTP date in seconds since the Unix epoch.
fn http_date(text: &str) -> Option<i64> {
    Some(jiff::fmt::rfc2822::parse(text).ok()?.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use iotdm_proto::DeviceId;

    use super::*;

    #[test]
    fn ids_are_encoded_in_paths() {
        let mut id = Identity::from("a:b#1?$'%".parse::<DeviceId>().unwrap());
        assert_eq!(identity_path("twins", &id), "/twins/a%3Ab%231%3F%24%27%25");
        id.module = Some("$edgeHub".parse().unwrap());
        assert_eq!(identity_path("twins", &id), "/twins/a%3Ab%231%3F%24%27%25/modules/%24edgeHub");
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
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, "Sun, 06 Nov 1994 08:49:47 GMT".parse().unwrap());
        headers.insert(DATE, "Sun, 06 Nov 1994 08:49:37 GMT".parse().unwrap());
        assert_eq!(retry_after(&headers), Some(Duration::from_secs(10)), "by the hub's own clock");
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
    }
}
