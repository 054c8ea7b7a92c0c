//! The provisioning service over HTTPS: `/enrollments` and
//! `/enrollmentGroups` for operators, `/{idScope}/registrations` for devices.
//!
//! The path by which the official service is asked for an operation is
//! unverified.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use iotdm_proto::DeviceId;
use serde_json::Value;

use super::request::{Body, Caller, Shown, with_etag};
use crate::authentication::Proof;
use crate::device::now;
use crate::error::{Code, HubError};
use crate::hub::{Hub, IfMatch};
use crate::policies::Right;
use crate::provisioning::enrolment::{Enrolment, Scope};
use crate::provisioning::registration::register;
use crate::provisioning::session::result;

type Shared = State<Arc<Hub>>;

impl<S: Sync> FromRequestParts<S> for Scope {
    type Rejection = HubError;

    /// The kind of enrolment is the path's first part.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, HubError> {
        let is_group = parts.uri.path().starts_with("/enrollmentGroups");
        Ok(if is_group { Scope::Group } else { Scope::Individual })
    }
}

pub(super) async fn put_enrolment(
    State(hub): Shared,
    caller: Caller,
    scope: Scope,
    Path(id): Path<String>,
    if_match: IfMatch,
    Body(body): Body,
) -> Result<Response, HubError> {
    caller.must(&hub, Right::Enrolment)?;
    let enrolment = Enrolment::parse(scope, &id, &body)?;
    hub.provisioning.put(enrolment, &if_match).map(with_etag)
}

pub(super) async fn enrolment(
    State(hub): Shared,
    caller: Caller,
    scope: Scope,
    Path(id): Path<String>,
) -> Result<Response, HubError> {
    caller.must(&hub, Right::Enrolment)?;
    hub.provisioning.enrolment(scope, &id).map(with_etag)
}

pub(super) async fn remove_enrolment(
    State(hub): Shared,
    caller: Caller,
    scope: Scope,
    Path(id): Path<String>,
    if_match: IfMatch,
) -> Result<StatusCode, HubError> {
    caller.must(&hub, Right::Enrolment)?;
    hub.provisioning.remove(scope, &id, &if_match)?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /enrollments/query`: all of them, in one page.
pub(super) async fn enrolments(
    State(hub): Shared,
    caller: Caller,
    scope: Scope,
) -> Result<Json<Vec<Value>>, HubError> {
    caller.must(&hub, Right::Enrolment)?;
    Ok(Json(hub.provisioning.enrolments(scope)))
}

pub(super) async fn read_registration(
    State(hub): Shared,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, HubError> {
    caller.must(&hub, Right::Enrolment)?;
    hub.provisioning.registration(&device_id(&id)?).map(|registration| Json(registration.state_json()))
}

pub(super) async fn remove_registration(
    State(hub): Shared,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, HubError> {
    caller.must(&hub, Right::Enrolment)?;
    hub.provisioning.forget(&device_id(&id)?)?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn register_device(
    State(hub): Shared,
    Path((id_scope, id)): Path<(String, String)>,
    shown: Shown,
    headers: HeaderMap,
) -> Result<Response, HubError> {
    let (id, enrolment, proof) = authenticate(&hub, &id_scope, &id, shown, &headers)?;
    let registration = register(&hub, &id, &enrolment, &proof, false).await?;
    let location = format!("/{id_scope}/registrations/{id}/operations/{}", registration.operation);
    let mut response = (StatusCode::ACCEPTED, Json(registration.accepted_json())).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

pub(super) async fn operation(
    State(hub): Shared,
    Path((id_scope, id, operation)): Path<(String, String, String)>,
    shown: Shown,
    headers: HeaderMap,
) -> Result<Json<Value>, HubError> {
    let (id, ..) = authenticate(&hub, &id_scope, &id, shown, &headers)?;
    result(&hub, &id, &operation).map(Json)
}

fn authenticate(
    hub: &Hub,
    id_scope: &str,
    id: &str,
    Shown(certificate): Shown,
    headers: &HeaderMap,
) -> Result<(DeviceId, Enrolment, Proof), HubError> {
    let refuse = |why: String| Code::IotHubUnauthorized.because(why);
    if id_scope != hub.provisioning.id_scope {
        return Err(Code::GenericNotFound.because(format!("{id_scope} is not the id scope of this service")));
    }
    let id = device_id(id)?;
    let token = headers.get(header::AUTHORIZATION).and_then(|token| token.to_str().ok());
    let proof = match (token, certificate) {
        (Some(token), _) => Proof::Token(token.parse().map_err(|error| refuse(format!("{error}")))?),
        (None, Some(certificate)) => Proof::Certificate(certificate),
        (None, None) => return Err(refuse("neither a token nor a certificate".to_owned())),
    };
    let enrolment = hub.provisioning.authenticate(&id, &proof, now())?;
    Ok((id, enrolment, proof))
}

fn device_id(text: &str) -> Result<DeviceId, HubError> {
    text.parse().map_err(|error| Code::ArgumentInvalid.because(format!("{error}")))
}
