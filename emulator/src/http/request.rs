//! What every handler reads from a request: who asks, for which device, with
//! which body and `If-Match`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use iotdm_proto::sas::SasToken;
use serde_json::Value;
use tokio::time::timeout;

use crate::certificates::ClientCertificate;
use crate::error::{Code, HubError};
use crate::hub::{Hub, IfMatch};
use crate::identity::Identity;
use crate::policies::Right;

/// Bodies beyond this are refused: twins have at most 72 KB, method payloads
/// 128 KB.
const MAX_BODY: usize = 512 * 1024;

/// How long a body may take.
const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// An authenticated caller, not yet authorised for anything.
pub(super) struct Caller {
    token: SasToken,
    path: String,
}

impl Caller {
    /// Whether the caller has `right` over what it asks for.
    pub(super) fn must(&self, hub: &Hub, right: Right) -> Result<(), HubError> {
        hub.authorize(&self.token, right, &self.path)
    }
}

impl FromRequestParts<Arc<Hub>> for Caller {
    type Rejection = HubError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Hub>) -> Result<Self, HubError> {
        let unauthorized = |why: &str| Code::IotHubUnauthorizedAccess.because(format!("Unauthorized: {why}"));
        let token = parts.headers.get(header::AUTHORIZATION).ok_or_else(|| unauthorized("no token"))?;
        let token = token.to_str().map_err(|_| unauthorized("the token is not text"))?;
        let token = token.parse().map_err(|error| unauthorized(&format!("{error}")))?;
        let path = percent_encoding::percent_decode_str(parts.uri.path()).decode_utf8_lossy();
        Ok(Caller { token, path: path.trim_end_matches('/').to_owned() })
    }
}

/// The device, or the module of a device, named in the path.
pub(super) struct Target(pub(super) Identity);

impl FromRequestParts<Arc<Hub>> for Target {
    type Rejection = HubError;

    async fn from_request_parts(parts: &mut Parts, hub: &Arc<Hub>) -> Result<Self, HubError> {
        let names = Path::<Vec<(String, String)>>::from_request_parts(parts, hub).await;
        let Path(names) = names.map_err(|error| Code::ArgumentInvalid.because(error.body_text()))?;
        let name = |key: &str| {
            let found = names.iter().find(|(found, _)| found == key).map(|(_, name)| name.parse());
            found.transpose().map_err(|error| Code::ArgumentInvalid.because(format!("{error}")))
        };
        let device = name("id")?.ok_or_else(|| Code::ArgumentInvalid.because("the path names no device"))?;
        Ok(Target(Identity { device, module: name("module")? }))
    }
}

/// The certificate that the client showed in the TLS handshake, if any.
#[derive(Clone)]
pub(super) struct Shown(pub(super) Option<ClientCertificate>);

impl<S: Sync> FromRequestParts<S> for Shown {
    type Rejection = HubError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, HubError> {
        Ok(parts.extensions.get().cloned().unwrap_or(Shown(None)))
    }
}

/// A JSON body, whatever its content type; clients are not exact about it.
pub(super) struct Body(pub(super) Value);

impl axum::extract::FromRequest<Arc<Hub>> for Body {
    type Rejection = HubError;

    async fn from_request(request: Request, _: &Arc<Hub>) -> Result<Self, HubError> {
        let late = |_| Code::ArgumentInvalid.because("the body did not come in time");
        let bytes = timeout(BODY_DEADLINE, read_all(request.into_body())).await.map_err(late)??;
        let value = serde_json::from_slice(&bytes);
        value
            .map(Body)
            .map_err(|error| Code::ArgumentInvalid.because(format!("the body is not JSON: {error}")))
    }
}

/// A body beyond the limit is read to its end as well, and forgotten: a client
/// that is still sending would not see an answer.
async fn read_all(body: axum::body::Body) -> Result<Vec<u8>, HubError> {
    let mut chunks = body.into_data_stream();
    let (mut bytes, mut length) = (Vec::new(), 0);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| Code::ArgumentInvalid.because(error.to_string()))?;
        length += chunk.len();
        if length <= MAX_BODY { bytes.extend_from_slice(&chunk) } else { bytes = Vec::new() }
    }
    if length > MAX_BODY {
        return Err(Code::MessageTooLarge.because(format!("the body has more than {MAX_BODY} bytes")));
    }
    Ok(bytes)
}

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = HubError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, HubError> {
        Ok(if_match(&parts.headers))
    }
}

/// Clients send `"etag"`, the bare etag, `*` and `"*"`.
fn if_match(headers: &HeaderMap) -> IfMatch {
    let Some(value) = headers.get(header::IF_MATCH) else { return IfMatch::Absent };
    match String::from_utf8_lossy(value.as_bytes()).trim().trim_matches('"') {
        "*" => IfMatch::Any,
        etag => IfMatch::Etag(etag.to_owned()),
    }
}

/// A document with its `etag` as a header as well.
pub(super) fn with_etag(document: Value) -> Response {
    let etag = document.get("etag").and_then(Value::as_str).map(|etag| format!("\"{etag}\""));
    let mut response = axum::Json(document).into_response();
    if let Some(Ok(etag)) = etag.map(|etag| etag.parse()) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings_of_if_match() {
        for (text, expected) in [
            (None, IfMatch::Absent),
            (Some("*"), IfMatch::Any),
            (Some("\"*\""), IfMatch::Any),
            (Some("\"AAA=\""), IfMatch::Etag("AAA=".into())),
            (Some("AAA="), IfMatch::Etag("AAA=".into())),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(text) = text {
                headers.insert(header::IF_MATCH, text.parse().unwrap());
            }
            assert_eq!(if_match(&headers), expected);
        }
    }
}
