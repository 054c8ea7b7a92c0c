//! What handlers read from a request: who asks, for which device, with which
//! body and `If-Match`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, RawPathParams, Request};
use axum::http::header;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use iotdm_proto::sas::SasToken;
use serde_json::Value;
use tokio::time::timeout;

use crate::certificates::ClientCertificate;
use crate::etag::IfMatch;
use crate::hub::Hub;
use crate::identity::Identity;
use crate::policies::Right;
use crate::refusal::{ErrorCode, HubRefusal};

/// The largest body that is taken, in bytes: twins have at most 72 KB and method
/// payloads 128 KB.
const MAX_BODY: usize = 512 * 1024;

/// How long a body may take to arrive, so that a slow client does not keep a
/// task for ever.
const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// Who asks: the token that came with the request. Whether the token is valid,
/// and for what, says [`Caller::must`].
pub(super) struct Caller {
    token: SasToken,
    /// The path of the request, which is the resource that the token has to be
    /// for.
    path: String,
}

impl Caller {
    /// Refuses unless the caller has `right` over what it asks for.
    pub(super) fn must(&self, hub: &Hub, right: Right) -> Result<(), HubRefusal> {
        hub.authorize(&self.token, right, &self.path)
    }
}

impl FromRequestParts<Arc<Hub>> for Caller {
    type Rejection = HubRefusal;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Hub>) -> Result<Self, HubRefusal> {
        let unauthorized =
            |why: &str| ErrorCode::IotHubUnauthorizedAccess.because(format!("Unauthorized: {why}"));
        let token = parts.headers.get(header::AUTHORIZATION).ok_or_else(|| unauthorized("no token"))?;
        let token = token.to_str().map_err(|_| unauthorized("the token is not text"))?;
        let token = token.parse().map_err(|error| unauthorized(&format!("{error}")))?;
        let path = percent_encoding::percent_decode_str(parts.uri.path()).decode_utf8_lossy();
        Ok(Caller { token, path: path.trim_end_matches('/').to_owned() })
    }
}

/// The device, or the module of a device, that the route's pattern calls
/// `{device}` and `{module}`.
pub(super) struct Target(pub(super) Identity);

impl FromRequestParts<Arc<Hub>> for Target {
    type Rejection = HubRefusal;

    async fn from_request_parts(parts: &mut Parts, hub: &Arc<Hub>) -> Result<Self, HubRefusal> {
        let named = RawPathParams::from_request_parts(parts, hub).await;
        let named = named.map_err(|error| ErrorCode::ArgumentInvalid.because(error.body_text()))?;
        let name = |key: &str| {
            let found = named.iter().find(|(found, _)| *found == key).map(|(_, name)| name.parse());
            found.transpose().map_err(|error| ErrorCode::ArgumentInvalid.because(format!("{error}")))
        };
        let device =
            name("device")?.ok_or_else(|| ErrorCode::ArgumentInvalid.because("the path names no device"))?;
        Ok(Target(Identity { device, module: name("module")? }))
    }
}

/// The certificate that the client showed in the TLS handshake, if any.
#[derive(Clone)]
pub(super) struct Shown(pub(super) Option<ClientCertificate>);

impl<S: Sync> FromRequestParts<S> for Shown {
    type Rejection = HubRefusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, HubRefusal> {
        Ok(parts.extensions.get().cloned().unwrap_or(Shown(None)))
    }
}

/// A JSON body, whatever its content type; clients are not exact about it.
pub(super) struct Body(pub(super) Value);

impl axum::extract::FromRequest<Arc<Hub>> for Body {
    type Rejection = HubRefusal;

    async fn from_request(request: Request, _: &Arc<Hub>) -> Result<Self, HubRefusal> {
        let late = |_| ErrorCode::ArgumentInvalid.because("the body did not come in time");
        let bytes = timeout(BODY_DEADLINE, read_all(request.into_body())).await.map_err(late)??;
        let value = serde_json::from_slice(&bytes);
        value
            .map(Body)
            .map_err(|error| ErrorCode::ArgumentInvalid.because(format!("the body is not JSON: {error}")))
    }
}

/// Reads a whole body. One beyond the limit is read to its end as well, and
/// forgotten: a client that is still sending would not see the refusal.
async fn read_all(body: axum::body::Body) -> Result<Vec<u8>, HubRefusal> {
    let mut chunks = body.into_data_stream();
    let (mut bytes, mut length) = (Vec::new(), 0);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| ErrorCode::ArgumentInvalid.because(error.to_string()))?;
        length += chunk.len();
        if length <= MAX_BODY { bytes.extend_from_slice(&chunk) } else { bytes = Vec::new() }
    }
    if length > MAX_BODY {
        return Err(ErrorCode::MessageTooLarge.because(format!("the body has more than {MAX_BODY} bytes")));
    }
    Ok(bytes)
}

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = HubRefusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, HubRefusal> {
        let header = parts.headers.get(header::IF_MATCH);
        Ok(header.map_or(IfMatch::Absent, |text| IfMatch::parse(&String::from_utf8_lossy(text.as_bytes()))))
    }
}

/// A response with the document, and with the document's `etag` as a header.
pub(super) fn with_etag(document: Value) -> Response {
    let etag = document.get("etag").and_then(Value::as_str).map(|etag| format!("\"{etag}\""));
    let mut response = axum::Json(document).into_response();
    if let Some(Ok(etag)) = etag.map(|etag| etag.parse()) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}
