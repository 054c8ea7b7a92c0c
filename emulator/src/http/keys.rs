//! `POST /devices/keys/regenerate`: new keys for many identities. The answer is 200
//! when all went well, 207 when some did, 400 when none did, always with a body of
//! the same form. Source: the service's client in the Azure CLI's extension.

use std::str::FromStr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use serde_json::{Map, Value, json};

use super::request::Body;
use crate::fields::field_of;
use crate::hub::Hub;
use crate::refusal::{ErrorCode, HubRefusal};
use iotdm_proto::Identity;
use iotdm_proto::names::NameError;

/// The most identities in one request, as in bulk changes.
const MAX_IDENTITIES: usize = 100;

pub(super) async fn regenerate(
    State(hub): State<Arc<Hub>>,
    Body(body): Body,
) -> Result<Response, HubRefusal> {
    let policy = field_of(&body, "policyKey").and_then(Value::as_str).unwrap_or_default();
    let (primary, secondary) = match policy.to_ascii_lowercase().as_str() {
        "primarykey" => (true, false),
        "secondarykey" => (false, true),
        "both" => (true, true),
        _ => {
            let why = "policyKey is primaryKey, secondaryKey or both";
            return Err(ErrorCode::ArgumentInvalid.because(why));
        }
    };
    let Some(Value::Array(wanted)) = field_of(&body, "devices") else {
        return Err(ErrorCode::ArgumentInvalid.because("devices is not an array"));
    };
    if wanted.len() > MAX_IDENTITIES {
        let why = format!("at most {MAX_IDENTITIES} identities in one request");
        return Err(ErrorCode::TooManyDevices.because(why));
    }
    let hub = &hub;
    let renew = async |named: &Value| -> Result<Value, HubRefusal> {
        let id = identity(named)?;
        let device = hub.renew_keys(&id, primary, secondary).await?;
        let keys = device.authentication.json();
        Ok(about(named, field_of(&keys, "symmetricKey").and_then(Value::as_object).cloned()))
    };
    let (mut rotated, mut errors) = (Vec::new(), Vec::new());
    for (named, outcome) in wanted.iter().zip(join_all(wanted.iter().map(renew)).await) {
        match outcome {
            Ok(keys) => rotated.push(keys),
            Err(refusal) => {
                let error = json!({ "errorCode": refusal.code as u32, "errorMessage": refusal.reason() });
                errors.push(about(named, error.as_object().cloned()));
            }
        }
    }
    let status = match (errors.is_empty(), rotated.is_empty()) {
        (true, _) => StatusCode::OK,
        (false, false) => StatusCode::MULTI_STATUS,
        (false, true) => StatusCode::BAD_REQUEST,
    };
    let result = json!({ "policyKey": policy, "rotatedKeys": rotated, "errors": errors });
    Ok((status, Json(result)).into_response())
}

/// The identity that an element of `devices` names.
fn identity(named: &Value) -> Result<Identity, HubRefusal> {
    let device = part(named, "id")?.ok_or_else(|| ErrorCode::ArgumentInvalid.because("id is missing"))?;
    Ok(Identity { device, module: part(named, "moduleId")? })
}

/// The id at a key of an element of `devices`, if there is one.
fn part<T: FromStr<Err = NameError>>(named: &Value, name: &str) -> Result<Option<T>, HubRefusal> {
    match field_of(named, name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => text
            .parse()
            .map(Some)
            .map_err(|error| ErrorCode::ArgumentInvalid.because(format!("{name}: {error}"))),
        Some(_) => Err(ErrorCode::ArgumentInvalid.because(format!("{name} is not a string"))),
    }
}

/// What the answer says of the identity that `named` names.
fn about(named: &Value, what: Option<Map<String, Value>>) -> Value {
    let mut json = Map::new();
    for name in ["id", "moduleId"] {
        if let Some(value) = field_of(named, name) {
            json.insert(name.into(), value.clone());
        }
    }
    json.extend(what.unwrap_or_default());
    Value::Object(json)
}
