//! `POST /devices`: up to 100 changes of identities and twins in one request.
//!
//! Each is carried out by itself; one that fails does not hold up the others.
//! An identity may be in a request once, so their order does not matter. The
//! answer is 200 when all went well, else 400 with the same
//! body. Source: REST reference "Bulk registry", .NET's `ImportMode`.

use std::collections::HashSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::request::{Body, Caller};
use crate::device::Wish;
use crate::error::{Code, HubError};
use crate::hub::{Hub, IfMatch};
use crate::identity::Identity;
use crate::policies::Right;
use crate::twin::Change;

/// The documented limit of one request.
const MAX_CHANGES: usize = 100;

pub(super) async fn run(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Body(body): Body,
) -> Result<Response, HubError> {
    caller.must(&hub, Right::RegistryWrite)?;
    let Value::Array(changes) = &body else {
        return Err(Code::ArgumentInvalid.because("the body is not an array"));
    };
    if changes.len() > MAX_CHANGES {
        return Err(Code::TooManyDevices.because(format!("at most {MAX_CHANGES} changes in one request")));
    }
    let mut named = HashSet::new();
    // At the same time, so that they share commits.
    let outcomes = join_all(changes.iter().map(|change| {
        let again = !named.insert((change.get("id"), change.get("moduleId")));
        apply(&hub, change, again)
    }));
    let outcomes = outcomes.await.into_iter().zip(changes);
    let errors: Vec<Value> =
        outcomes.filter_map(|(outcome, change)| Some(error_json(change, &outcome.err()?))).collect();
    let status = if errors.is_empty() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    let result = json!({ "isSuccessful": errors.is_empty(), "errors": errors, "warnings": [] });
    Ok((status, Json(result)).into_response())
}

async fn apply(hub: &Hub, change: &Value, again: bool) -> Result<(), HubError> {
    let text = |key: &str| change.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let invalid = |why: String| Code::ArgumentInvalid.because(why);
    let parse =
        |key: &str| text(key).map(str::parse).transpose().map_err(|error| invalid(format!("{error}")));
    let device = parse("id")?.ok_or_else(|| invalid("id is missing".into()))?;
    let id = Identity { device, module: parse("moduleId")? };
    if again {
        return Err(Code::DeviceDefinedMultipleTimes.because(format!("{id} is in the request twice")));
    }
    let etag = |key: &str| match text(key).map(|etag| etag.trim_matches('"')) {
        None | Some("*") => Err(invalid(format!("{key} is missing"))),
        Some(etag) => Ok(IfMatch::Etag(etag.to_owned())),
    };
    let wish = || Wish::parse(&id, change);
    let mode = text("importMode").unwrap_or("createOrUpdate").to_ascii_lowercase();
    match mode.as_str() {
        "create" => create(hub, &id, change).await,
        "update" => hub.update_device(&id, wish()?, &IfMatch::Any).await.map(drop),
        "updateifmatchetag" => hub.update_device(&id, wish()?, &etag("eTag")?).await.map(drop),
        "createorupdate" | "createorupdateifmatchetag" => match create(hub, &id, change).await {
            Err(error) if is_taken(error.code) => {
                let if_match = if mode == "createorupdate" { IfMatch::Any } else { etag("eTag")? };
                hub.update_device(&id, wish()?, &if_match).await.map(drop)
            }
            created => created,
        },
        "delete" => hub.delete_device(&id, &IfMatch::Any).await,
        "deleteifmatchetag" => hub.delete_device(&id, &etag("eTag")?).await,
        "updatetwin" => hub.change_twin(&id, &Change::parse(change)?, false, &IfMatch::Any).await.map(drop),
        "updatetwinifmatchetag" => {
            hub.change_twin(&id, &Change::parse(change)?, false, &etag("twinETag")?).await.map(drop)
        }
        _ => Err(invalid(format!("importMode {mode:?} is not known"))),
    }
}

/// Creates the identity, with tags and desired properties where it has them.
async fn create(hub: &Hub, id: &Identity, change: &Value) -> Result<(), HubError> {
    hub.create_device(id, Wish::parse(id, change)?, &Change::parse(change)?).await.map(drop)
}

fn is_taken(code: Code) -> bool {
    matches!(code, Code::DeviceAlreadyExists | Code::ModuleAlreadyExistsOnDevice)
}

fn error_json(change: &Value, error: &HubError) -> Value {
    json!({
        "deviceId": change.get("id"),
        "moduleId": change.get("moduleId"),
        "errorCode": format!("{:?}", error.code),
        "errorStatus": error.message,
    })
}
