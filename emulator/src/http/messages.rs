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

use super::request::{Body, Client, Target};
use crate::hub::Hub;
use crate::notifications::About;
use crate::refusal::HubRefusal;

/// The query of `/emulator/events`: whose telemetry to show, and what else.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EventsQuery {
    device_id: Option<String>,
    /// Also changes of twins.
    #[serde(default)]
    twin_changes: bool,
    /// Also what becomes of identities and connections.
    #[serde(default)]
    lifecycle: bool,
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

/// Shows telemetry from now on, and of the hub's notifications those that are asked
/// for, one JSON document a line, for as long as the client stays. A client that is
/// too slow misses some of it.
pub(super) async fn events(
    State(hub): State<Arc<Hub>>,
    client: Client,
    Query(wanted): Query<EventsQuery>,
) -> Response {
    let streams = (hub.telemetry.listen(), hub.notifications.listen(), client, wanted);
    let lines = futures_util::stream::unfold(
        streams,
        |(mut telemetry, mut notifications, mut client, wanted)| async {
            loop {
                let received = tokio::select! {
                    message = telemetry.recv() => message.map(Some),
                    told = notifications.recv() => told.map(|(about, event)| wanted.wants(about).then_some(event)),
                    () = client.stops() => return None,
                };
                match received {
                    Ok(Some(event)) if wanted.is_of_whom_it_asks(&event) => {
                        let line = Bytes::from(format!("{event}\n"));
                        return Some((Ok::<_, Infallible>(line), (telemetry, notifications, client, wanted)));
                    }
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                }
            }
        },
    );
    axum::body::Body::from_stream(lines).into_response()
}

impl EventsQuery {
    fn wants(&self, about: About) -> bool {
        match about {
            About::Twin => self.twin_changes,
            About::Identity | About::Connection => self.lifecycle,
        }
    }

    fn is_of_whom_it_asks(&self, event: &Value) -> bool {
        self.device_id.as_deref().is_none_or(|id| event.get("deviceId") == Some(&id.into()))
    }
}
