//! `/$iothub/websocket`: MQTT over WebSocket. The request needs no token: who
//! the client is, its CONNECT says.

use std::sync::Arc;

use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::response::Response;

use super::request::Client;
use crate::hub::Hub;
use crate::mqtt;
use crate::mqtt::connection::{Connection, MAX_CONNECT, MAX_PACKET, Transport};

/// The largest WebSocket message, in bytes: room for a packet of the largest
/// size and others around it.
const MAX_MESSAGE: usize = 2 * MAX_PACKET;

/// How much a client may send over its WebSocket before it has proved who it is,
/// in bytes: a CONNECT in as many messages as it likes.
const MAX_UNKNOWN: usize = MAX_CONNECT + 4 * 1024;

/// The read buffer of a WebSocket, in bytes: each of many connections has one,
/// and most packets are small.
const READ_BUFFER: usize = 4 * 1024;

/// Accepts the subprotocol in both spellings that official clients offer.
pub(super) async fn upgrade(
    State(hub): State<Arc<Hub>>,
    Client { certificate, stranger, .. }: Client,
    upgrade: WebSocketUpgrade,
) -> Response {
    stranger.iter().for_each(|stranger| stranger.allow(MAX_UNKNOWN));
    let upgrade =
        upgrade.protocols(["mqtt", "MQTT"]).max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE);
    upgrade.read_buffer_size(READ_BUFFER).write_buffer_size(0).on_upgrade(|socket| {
        mqtt::serve(hub, Connection::new(Transport::WebSocket(Box::new(socket)), certificate, stranger))
    })
}
