//! The provisioning service over HTTPS: `/enrollments` and
//! `/enrollmentGroups` for operators, `/{idScope}/registrations` for devices.
//!
//! Operators use the policy `provisioningserviceowner`. The path by which a
//! device asks the official service how its operation went is unverified.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use iotdm_proto::DeviceId;
use serde_json::Value;

use super::request::{Body, Client, forget_body, read_body, with_etag};
use crate::clock::now;
use crate::etag::IfMatch;
use crate::fields::field_of;
use crate::hub::Hub;
use crate::proof::Proof;
use crate::provisioning::enrolment::{Enrolment, EnrolmentKind};
use crate::provisioning::refusal::{self, Way};
use crate::provisioning::registration::RETRY_AFTER;
use crate::provisioning::registration_id::{check_body, parse_id};
use crate::refusal::{ErrorCode, HubRefusal};

/// The hub, as axum hands it to handlers.
type Shared = State<Arc<Hub>>;

/// The kind of enrolments that the route is for: both kinds share handlers.
type Kind = Extension<EnrolmentKind>;

pub(super) async fn put_enrolment(
    State(hub): Shared,
    Extension(kind): Kind,
    Path(id): Path<String>,
    if_match: IfMatch,
    Body(body): Body,
) -> Result<Response, HubRefusal> {
    hub.provisioning.put(kind, &id, &body, &if_match).map(with_etag)
}

pub(super) async fn enrolment(
    State(hub): Shared,
    Extension(kind): Kind,
    Path(id): Path<String>,
) -> Result<Response, HubRefusal> {
    hub.provisioning.enrolment(kind, &id).map(with_etag)
}

/// `POST …/attestationmechanism`: what devices have to show, keys included.
pub(super) async fn attestation(
    State(hub): Shared,
    Extension(kind): Kind,
    Path(id): Path<String>,
) -> Result<Json<Value>, HubRefusal> {
    hub.provisioning.attestation(kind, &id).map(Json)
}

pub(super) async fn remove_enrolment(
    State(hub): Shared,
    Extension(kind): Kind,
    Path(id): Path<String>,
    if_match: IfMatch,
) -> Result<StatusCode, HubRefusal> {
    hub.provisioning.remove(kind, &id, &if_match)?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /enrollments/query`: all enrolments of the kind, in one page.
pub(super) async fn enrolments(
    State(hub): Shared,
    Extension(kind): Kind,
    Body(body): Body,
) -> Result<Json<Vec<Value>>, HubRefusal> {
    let query = field_of(&body, "query").and_then(Value::as_str);
    asks_for_all(query)?;
    Ok(Json(hub.provisioning.enrolments(kind)))
}

/// Refuses a query that is none, and one that would choose among enrolments: whoever
/// gets all of them would take them for those that were asked for.
fn asks_for_all(query: Option<&str>) -> Result<(), HubRefusal> {
    let query = query.unwrap_or_default().to_ascii_lowercase();
    let words: Vec<&str> = query.split_whitespace().collect();
    match words.as_slice() {
        ["*"] | ["select", "*"] | ["select", "*", "from", _] => Ok(()),
        ["select", ..] => {
            Err(ErrorCode::NotEmulated.because("a query that chooses among enrolments is not emulated"))
        }
        _ => Err(ErrorCode::ArgumentInvalid.because("query is a text such as SELECT * FROM enrollments")),
    }
}

pub(super) async fn read_registration(
    State(hub): Shared,
    Path(id): Path<String>,
) -> Result<Json<Value>, HubRefusal> {
    hub.provisioning.registration(&device_id(&id)?).map(|registration| Json(registration.state_json()))
}

pub(super) async fn remove_registration(
    State(hub): Shared,
    Path(id): Path<String>,
) -> Result<StatusCode, HubRefusal> {
    hub.provisioning.forget(&device_id(&id)?)?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn register_device(
    State(hub): Shared,
    Path((id_scope, id)): Path<(String, String)>,
    client: Client,
    request: Request,
) -> Result<Response, HubRefusal> {
    let headers = request.headers();
    let (id, enrolment, proof) = match authenticate(&hub, &id_scope, &id, &client, headers) {
        Ok(authenticated) => authenticated,
        Err(refusal) => {
            forget_body(request).await;
            return Err(refusal);
        }
    };
    check_body(&id, &read_body(request).await?)?;
    let registration = hub.register(&id, &enrolment, &proof, false).await?;
    // The service names the address of registering, and not that of the operation.
    let location = format!("https://{}/{id_scope}/registrations/{id}/register", hub.address.for_services());
    let mut response = (StatusCode::ACCEPTED, Json(registration.accepted_json())).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER));
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

pub(super) async fn operation(
    State(hub): Shared,
    Path((id_scope, id, operation)): Path<(String, String, String)>,
    client: Client,
    headers: HeaderMap,
) -> Result<Json<Value>, HubRefusal> {
    let (id, ..) = authenticate(&hub, &id_scope, &id, &client, &headers)?;
    hub.provisioning.operation(&id, &operation).map(|registration| Json(registration.result_json()))
}

/// Checks by which enrolment the device may register that sends a request.
fn authenticate(
    hub: &Hub,
    id_scope: &str,
    id: &str,
    client: &Client,
    headers: &HeaderMap,
) -> Result<(DeviceId, Enrolment, Proof), HubRefusal> {
    let refuse = |why: String| ErrorCode::GenericUnauthorized.because(why);
    if id_scope != hub.provisioning.id_scope {
        return Err(
            ErrorCode::GenericNotFound.because(format!("{id_scope} is not the id scope of this service"))
        );
    }
    let id = parse_id(id)?;
    let token = headers.get(header::AUTHORIZATION).and_then(|token| token.to_str().ok());
    let proof = match (token, &client.certificate) {
        (Some(token), _) => Proof::Token(token.parse().map_err(|error| refuse(format!("{error}")))?),
        (None, Some(certificate)) => Proof::Certificate(certificate.clone()),
        (None, None) => return Err(refuse("neither a token nor a certificate".to_owned())),
    };
    let enrolment = hub.provisioning.authenticate(&id, &proof, now())?;
    client.becomes_known();
    Ok((id, enrolment, proof))
}

fn device_id(text: &str) -> Result<DeviceId, HubRefusal> {
    text.parse().map_err(|error| ErrorCode::ArgumentInvalid.because(format!("{error}")))
}

/// An answer as this service gives it and the hub does not: refusals in one flat
/// object, named by their id in a header as well, bodies in chunks, and a word on
/// HTTPS. Source: recorded and quoted answers, 2019 to 2022.
pub(super) async fn in_words_of_its_own(mut response: Response) -> Response {
    if let Some(refusal) = response.extensions_mut().remove::<HubRefusal>() {
        let (body, id) = refusal::body(&refusal, Way::Https);
        response = (refusal.code.status(), Json(body)).into_response();
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert("x-ms-request-id", id);
        }
    }
    let hsts = HeaderValue::from_static("max-age=31536000; includeSubDomains");
    response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, hsts);
    if response.status() == StatusCode::NO_CONTENT {
        return response;
    }
    response.headers_mut().remove(header::CONTENT_LENGTH);
    // The length of a stream is not known in advance.
    response.map(|body| axum::body::Body::from_stream(body.into_data_stream()))
}
