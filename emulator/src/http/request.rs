//! What is read from a request: whether its sender may make it, for which device
//! it is, with which body and `If-Match`.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{FromRequestParts, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use iotdm_proto::sas::SasToken;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::certificates::ClientCertificate;
use crate::etag::IfMatch;
use crate::hub::Hub;
use crate::policies::{Right, SignedToken};
use crate::refusal::{ErrorCode, HubRefusal};
use crate::strangers::Stranger;
use iotdm_proto::Identity;
use iotdm_proto::names::NameError;

/// The largest body that is taken, in bytes: twins have at most 72 KB and method
/// payloads 128 KB.
const MAX_BODY: usize = 512 * 1024;

/// How long a body may take to arrive, so that a slow client does not keep a
/// task for ever.
const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// Refuses unless the request has a token that gives `right` over what the
/// request's path names.
pub(super) fn authorize(hub: &Hub, parts: &Parts, right: Right) -> Result<(), HubRefusal> {
    hub.authorize(&*presented_token(hub, parts)?, right, &signed_path(parts))
}

/// The token that a request shows, once it is known who has signed it. Its client's next
/// requests most often show the same one, of which that need not be found out again.
pub(super) fn presented_token(hub: &Hub, parts: &Parts) -> Result<Arc<SignedToken>, HubRefusal> {
    let unauthorized =
        |why: &str| ErrorCode::IotHubUnauthorizedAccess.because(format!("Unauthorized: {why}"));
    let shown = parts.headers.get(header::AUTHORIZATION).ok_or_else(|| unauthorized("no token"))?;
    let client = parts.extensions.get::<Client>();
    if let Some(signed) = client.and_then(|client| client.signed(shown)) {
        return Ok(signed);
    }
    let text = shown.to_str().map_err(|_| unauthorized("the token is not text"))?;
    let token: SasToken = text.parse().map_err(|error| unauthorized(&format!("{error}")))?;
    let signed = Arc::new(hub.signed(token)?);
    // Copied, since the header itself is a part of all that was read with it.
    if let (Some(client), Ok(header)) = (client, HeaderValue::from_bytes(shown.as_bytes())) {
        *client.lock_shown() = Some((header, signed.clone()));
    }
    Ok(signed)
}

/// What a request is about, as tokens name it.
pub(super) fn signed_path(parts: &Parts) -> String {
    let path = percent_encoding::percent_decode_str(parts.uri.path()).decode_utf8_lossy();
    path.trim_end_matches('/').to_owned()
}

/// The device, or the module of a device, that the route's pattern calls
/// `{device}` and `{module}`.
pub(super) struct Target(pub(super) Identity);

impl FromRequestParts<Arc<Hub>> for Target {
    type Rejection = HubRefusal;

    async fn from_request_parts(parts: &mut Parts, hub: &Arc<Hub>) -> Result<Self, HubRefusal> {
        let named = RawPathParams::from_request_parts(parts, hub).await;
        let named = named.map_err(|error| ErrorCode::ArgumentInvalid.because(error.body_text()))?;
        let name = |key: &str| named.iter().find(|(found, _)| *found == key).map(|(_, name)| name);
        let invalid = |error: NameError| ErrorCode::ArgumentInvalid.because(error.to_string());
        let device =
            name("device").ok_or_else(|| ErrorCode::ArgumentInvalid.because("the path names no device"))?;
        let module = name("module").map(str::parse).transpose().map_err(invalid)?;
        Ok(Target(Identity { device: device.parse().map_err(invalid)?, module }))
    }
}

/// A header with the signed token that it shows.
pub(super) type Shown = (HeaderValue, Arc<SignedToken>);

/// The client at the other end of the connection.
#[derive(Clone, Default)]
pub(super) struct Client {
    /// The certificate that the client showed in the TLS handshake, if any.
    pub(super) certificate: Option<ClientCertificate>,
    /// The client's place among the strangers; `None` where nobody counts them.
    pub(super) stranger: Option<Arc<Stranger>>,
    /// Whose sender is gone once the emulator stops; `None` where it never does.
    pub(super) stop: Option<watch::Receiver<()>>,
    /// The last header with a signed token that the client has shown on this connection.
    pub(super) shown: Arc<Mutex<Option<Shown>>>,
}

impl Client {
    /// Takes note that the client has proved who it is.
    pub(super) fn becomes_known(&self) {
        self.stranger.iter().for_each(|stranger| stranger.becomes_known());
    }

    /// The token of the header `shown`, where the client has shown the same before.
    fn signed(&self, shown: &HeaderValue) -> Option<Arc<SignedToken>> {
        let last = self.lock_shown();
        last.as_ref().filter(|(header, _)| header == shown).map(|(_, signed)| signed.clone())
    }

    fn lock_shown(&self) -> MutexGuard<'_, Option<Shown>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the emulator stops, which answers without an end have to heed.
    pub(super) async fn stops(&mut self) {
        match &mut self.stop {
            // Nothing is ever sent: an error means that the sender is gone.
            Some(stop) => while stop.changed().await.is_ok() {},
            None => std::future::pending().await,
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or_default())
    }
}

/// A JSON body, whatever its content type; clients are not exact about it.
pub(super) struct Body(pub(super) Value);

impl axum::extract::FromRequest<Arc<Hub>> for Body {
    type Rejection = HubRefusal;

    async fn from_request(request: Request, _: &Arc<Hub>) -> Result<Self, HubRefusal> {
        let bytes = read_body(request).await?;
        let value = serde_json::from_slice(&bytes);
        value
            .map(Body)
            .map_err(|error| ErrorCode::ArgumentInvalid.because(format!("the body is not JSON: {error}")))
    }
}

/// The body of a request whose sender has proved who it is.
pub(super) async fn read_body(request: Request) -> Result<Vec<u8>, HubRefusal> {
    let late = |_| ErrorCode::ArgumentInvalid.because("the body did not come in time");
    timeout(BODY_DEADLINE, read_all(request.into_body())).await.map_err(late)?
}

/// Reads the body of a request that is refused, without keeping any of it: a
/// client that is still sending would not see the refusal.
pub(super) async fn forget_body(request: Request) {
    let mut chunks = request.into_body().into_data_stream();
    let all = async {
        let mut length = 0;
        while let Some(Ok(chunk)) = chunks.next().await {
            length += chunk.len();
            if length > MAX_BODY {
                return;
            }
        }
    };
    // Whoever has not sent everything by then is refused all the same.
    let _ = timeout(BODY_DEADLINE, all).await;
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

/// A response with the document, and with the document's `etag` as a header: as
/// devices and configurations have it, and neither modules nor twins.
pub(super) fn with_etag(document: Value) -> Response {
    let etag = document.get("etag").and_then(Value::as_str).map(|etag| format!("\"{etag}\""));
    let mut response = axum::Json(document).into_response();
    if let Some(Ok(etag)) = etag.map(|etag| etag.parse()) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}
