//! `POST /devices`: up to 100 changes of identities and twins in one request.
//!
//! Each is carried out by itself, in order; one that fails does not hold up
//! the others. The answer is 200 when all went well, else 400 with the same
//! body. Source: REST reference "Bulk registry", .NET's `ImportMode`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
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
    let errors: Vec<Value> = changes
        .iter()
        .filter_map(|change| apply(&hub, change).err().map(|error| error_json(change, &error)))
        .collect();
    let status = if errors.is_empty() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    let result = json!({ "isSuccessful": errors.is_empty(), "errors": errors, "warnings": [] });
    Ok((status, Json(result)).into_response())
}

fn apply(hub: &Hub, change: &Value) -> Result<(), HubError> {
    let text = |key: &str| change.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let invalid = |why: String| Code::ArgumentInvalid.because(why);
    let parse =
        |key: &str| text(key).map(str::parse).transpose().map_err(|error| invalid(format!("{error}")));
    let device = parse("id")?.ok_or_else(|| invalid("id is missing".into()))?;
    let id = Identity { device, module: parse("moduleId")? };
    let etag = |key: &str| match text(key).map(|etag| etag.trim_matches('"')) {
        None | Some("*") => Err(invalid(format!("{key} is missing"))),
        Some(etag) => Ok(IfMatch::Etag(etag.to_owned())),
    };
    let wish = || Wish::parse(&id, change);
    let mode = text("importMode").unwrap_or("createOrUpdate").to_ascii_lowercase();
    match mode.as_str() {
        "create" => create(hub, &id, change),
        "update" => hub.update_device(&id, wish()?, &IfMatch::Any).map(drop),
        "updateifmatchetag" => hub.update_device(&id, wish()?, &etag("eTag")?).map(drop),
        "createorupdate" | "createorupdateifmatchetag" => match create(hub, &id, change) {
            Err(error) if is_taken(error.code) => {
                let if_match = if mode == "createorupdate" { IfMatch::Any } else { etag("eTag")? };
                hub.update_device(&id, wish()?, &if_match).map(drop)
            }
            created => created,
        },
        "delete" => hub.delete_device(&id, &IfMatch::Any),
        "deleteifmatchetag" => hub.delete_device(&id, &etag("eTag")?),
        "updatetwin" => hub.change_twin(&id, &Change::parse(change)?, false, &IfMatch::Any).map(drop),
        "updatetwinifmatchetag" => {
            hub.change_twin(&id, &Change::parse(change)?, false, &etag("twinETag")?).map(drop)
        }
        _ => Err(invalid(format!("importMode {mode:?} is not known"))),
    }
}

/// Creates the identity, with tags and desired properties where it has them.
fn create(hub: &Hub, id: &Identity, change: &Value) -> Result<(), HubError> {
    let twin = Change::parse(change)?;
    hub.create_device(id, Wish::parse(id, change)?)?;
    if twin == Change::default() {
        return Ok(());
    }
    hub.change_twin(id, &twin, false, &IfMatch::Any).map(drop)
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
