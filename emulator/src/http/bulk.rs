//! `POST /devices`: up to 100 changes of identities and twins in one request.
//!
//! Each change is carried out by itself; one that fails does not hold up the
//! others. An identity may be in a request once, so the order of the changes does
//! not matter. A mode that is about an etag, without one, is unconditional. The answer is 200 when all went well, else 400 with a body of the
//! same form. Source: REST reference "Bulk registry", .NET's `ImportMode`.

use std::collections::HashSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::request::Body;
use crate::device::IdentityChange;
use crate::etag::IfMatch;
use crate::fields::field_of;
use crate::hub::Hub;
use crate::refusal::{ErrorCode, HubRefusal};
use crate::twin::TwinChange;
use iotdm_proto::Identity;
use iotdm_proto::names::NameError;

/// The most changes in one request. Source: REST reference "Bulk registry".
const MAX_CHANGES: usize = 100;

pub(super) async fn run(State(hub): State<Arc<Hub>>, Body(body): Body) -> Result<Response, HubRefusal> {
    let Value::Array(changes) = &body else {
        return Err(ErrorCode::ArgumentInvalid.because("the body is not an array"));
    };
    if changes.len() > MAX_CHANGES {
        return Err(
            ErrorCode::TooManyDevices.because(format!("at most {MAX_CHANGES} changes in one request"))
        );
    }
    let mut named = HashSet::new();
    // All changes at the same time, so that they share commits.
    let outcomes = join_all(changes.iter().map(|change| {
        let again = !named.insert((field_of(change, "id"), field_of(change, "moduleId")));
        apply(&hub, change, again)
    }));
    let outcomes = outcomes.await.into_iter().zip(changes);
    let errors: Vec<Value> =
        outcomes.filter_map(|(outcome, change)| Some(error_json(change, &outcome.err()?))).collect();
    let status = if errors.is_empty() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    let result = json!({ "isSuccessful": errors.is_empty(), "errors": errors, "warnings": [] });
    Ok((status, Json(result)).into_response())
}

/// Carries out one change; `again` says that its identity was in the request
/// before.
async fn apply(hub: &Hub, change: &Value, again: bool) -> Result<(), HubRefusal> {
    let text = |key: &str| field_of(change, key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let invalid = |why: String| ErrorCode::ArgumentInvalid.because(why);
    let no_name = |error: NameError| invalid(error.to_string());
    let device = text("id").ok_or_else(|| invalid("id is missing".into()))?;
    let module = text("moduleId").map(str::parse).transpose().map_err(no_name)?;
    let id = Identity { device: device.parse().map_err(no_name)?, module };
    if again {
        return Err(ErrorCode::DeviceDefinedMultipleTimes.because(format!("{id} is in the request twice")));
    }
    let etag = |key: &str| IfMatch::in_json(text(key));
    let identity = || IdentityChange::parse(&id, change);
    let mode = text("importMode").unwrap_or("createOrUpdate").to_ascii_lowercase();
    match mode.as_str() {
        "create" => create(hub, &id, change).await,
        "update" => hub.update_device(&id, identity()?, &IfMatch::Any).await.map(drop),
        "updateifmatchetag" => hub.update_device(&id, identity()?, &etag("eTag")).await.map(drop),
        "createorupdate" | "createorupdateifmatchetag" => match create(hub, &id, change).await {
            Err(error) if is_taken(error.code) => {
                let if_match = if mode == "createorupdate" { IfMatch::Any } else { etag("eTag") };
                hub.update_device(&id, identity()?, &if_match).await.map(drop)
            }
            created => created,
        },
        "delete" => hub.delete_device(&id, &IfMatch::Any).await,
        "deleteifmatchetag" => hub.delete_device(&id, &etag("eTag")).await,
        "updatetwin" => {
            hub.change_twin(&id, &TwinChange::parse(change)?, false, &IfMatch::Any).await.map(drop)
        }
        "updatetwinifmatchetag" => {
            hub.change_twin(&id, &TwinChange::parse(change)?, false, &etag("twinETag")).await.map(drop)
        }
        _ => Err(invalid(format!("importMode {mode:?} is not known"))),
    }
}

/// Creates the identity, with the tags and desired properties that the change
/// has.
async fn create(hub: &Hub, id: &Identity, change: &Value) -> Result<(), HubRefusal> {
    hub.create_device(id, IdentityChange::parse(id, change)?, &TwinChange::parse(change)?).await.map(drop)
}

/// Whether an identity could not be created since it exists.
fn is_taken(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::DeviceAlreadyExists | ErrorCode::ModuleAlreadyExistsOnDevice)
}

/// A change that failed, as the answer lists it.
fn error_json(change: &Value, error: &HubRefusal) -> Value {
    let mut json = json!({
        "deviceId": field_of(change, "id"),
        "errorCode": error.code as u32,
        "errorStatus": error.reason(),
    });
    if let (Some(json), Some(module)) = (json.as_object_mut(), field_of(change, "moduleId")) {
        json.insert("moduleId".into(), module.clone());
    }
    json
}
