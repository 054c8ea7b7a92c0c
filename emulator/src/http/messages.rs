//! Messages both ways: `/emulator/messages/{device}` sends one to a device and
//! `/emulator/events` shows what devices send, both the emulator's own;
//! `/devices/{device}/commands` purges a device's messages as IoT Hub does.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use super::request::{Body, Target};
use crate::hub::Hub;
use crate::refusal::HubRefusal;

/// The query of `/emulator/events`: whose telemetry to show.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EventsQuery {
    device_id: Option<String>,
}

pub(super) async fn send(
    State(hub): State<Arc<Hub>>,
    Target(id): Target,
    Body(body): Body,
) -> Result<StatusCode, HubRefusal> {
    hub.send_message(&id, &body)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Forgets the messages that wait for a device. Answers 200 and not 204, which
/// official tools stumble over.
pub(super) async fn purge(
    State(hub): State<Arc<Hub>>,
    Target(id): Target,
) -> Result<Json<Value>, HubRefusal> {
    hub.registry.read(&id, |_| ())?;
    let count = hub.messages.purge(&id)?;
    Ok(Json(json!({ "deviceId": id.device.as_str(), "moduleId": null, "totalMessagesPurged": count })))
}

/// Shows telemetry from now on, one JSON document a line, for as long as the
/// client stays. A client that is too slow misses some of it.
pub(super) async fn events(
    State(hub): State<Arc<Hub>>,
    Query(EventsQuery { device_id }): Query<EventsQuery>,
) -> Response {
    let lines =
        futures_util::stream::unfold((hub.telemetry.listen(), device_id), |(mut events, whose)| async {
            loop {
                match events.recv().await {
                    Ok(event)
                        if whose.as_deref().is_none_or(|id| event.get("deviceId") == Some(&id.into())) =>
                    {
                        let line = Bytes::from(format!("{event}\n"));
                        return Some((Ok::<_, Infallible>(line), (events, whose)));
                    }
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                }
            }
        });
    axum::body::Body::from_stream(lines).into_response()
}
