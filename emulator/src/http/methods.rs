//! `/twins/{device}[/modules/{module}]/methods`: calls of direct methods.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;

use super::request::{Body, Target};
use crate::hub::Hub;
use crate::method_call::MethodCall;

/// A device's reply, as services are told of it.
#[derive(Serialize)]
struct Reply {
    status: i64,
    payload: Value,
}

pub(super) async fn invoke(State(hub): State<Arc<Hub>>, Target(id): Target, Body(body): Body) -> Response {
    let called = async { hub.call(&id, &MethodCall::parse(body)?).await };
    match called.await {
        Ok((status, payload)) => Json(Reply { status, payload }).into_response(),
        Err(error) => error.into_nested_response(),
    }
}
