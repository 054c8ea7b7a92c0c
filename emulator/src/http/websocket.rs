//! `/$iothub/websocket`: MQTT over WebSocket. The request needs no token: who
//! the client is, its CONNECT says.

use std::sync::Arc;

use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::response::Response;

use super::request::Shown;
use crate::hub::Hub;
use crate::mqtt;
use crate::mqtt::connection::{Connection, MAX_PACKET, Transport};

/// The largest WebSocket message, in bytes: room for a packet of the largest
/// size and others around it.
const MAX_MESSAGE: usize = 2 * MAX_PACKET;

/// The read buffer of a WebSocket, in bytes: each of many connections has one,
/// and most packets are small.
const READ_BUFFER: usize = 4 * 1024;

/// Accepts the subprotocol in both spellings that official clients offer.
pub(super) async fn upgrade(
    State(hub): State<Arc<Hub>>,
    Shown(certificate): Shown,
    upgrade: WebSocketUpgrade,
) -> Response {
    let upgrade =
        upgrade.protocols(["mqtt", "MQTT"]).max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE);
    upgrade.read_buffer_size(READ_BUFFER).write_buffer_size(0).on_upgrade(|socket| {
        mqtt::serve(hub, Connection::new(Transport::WebSocket(Box::new(socket)), certificate))
    })
}
