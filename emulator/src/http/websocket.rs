//! `/$iothub/websocket`: MQTT over WebSocket. Who the client is, its CONNECT
//! says.

use std::sync::Arc;

use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::response::Response;

use super::request::Shown;
use crate::hub::Hub;
use crate::mqtt::connection::{Connection, MAX_PACKET, Transport};
use crate::mqtt::session;

/// Room for a packet of the largest size and others around it.
const MAX_MESSAGE: usize = 2 * MAX_PACKET;

/// Accepts the subprotocol in both spellings that official clients offer.
pub(super) async fn upgrade(
    State(hub): State<Arc<Hub>>,
    Shown(certificate): Shown,
    upgrade: WebSocketUpgrade,
) -> Response {
    upgrade.protocols(["mqtt", "MQTT"]).max_message_size(MAX_MESSAGE).on_upgrade(|socket| {
        session::serve(hub, Connection::new(Transport::WebSocket(Box::new(socket)), certificate))
    })
}
