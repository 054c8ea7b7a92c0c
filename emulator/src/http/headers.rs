//! The headers that every answer of the service has, in one place.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};

use crate::random;

/// Identifies an answer, for Microsoft's support.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");

/// What the service calls its JSON.
const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// Adds the headers that no handler has to think of.
pub(super) fn complete(mut response: Response) -> Response {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return response;
    }
    if response.status() == StatusCode::NO_CONTENT {
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        *response.body_mut() = Body::new(Nothing);
    }
    let headers = response.headers_mut();
    headers.entry(header::VARY).or_insert(HeaderValue::from_static("Origin"));
    if headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes() == b"application/json") {
        headers.insert(header::CONTENT_TYPE, JSON);
    }
    if let Some(Ok(id)) = random::serial_guid().ok().map(|id| id.parse()) {
        headers.entry(REQUEST_ID).or_insert(id);
    }
    response
}

/// A body of length zero, as opposed to no body: the service tells the length of
/// answers with 204 too, and for no body hyper would leave the header out.
struct Nothing;

impl HttpBody for Nothing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        false
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(0)
    }
}
