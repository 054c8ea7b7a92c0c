//! `/$iothub/websocket`: MQTT over WebSocket. Who the client is, its CONNECT
//! says.

use std::sync::Arc;

use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::response::Response;

use crate::hub::Hub;
use crate::mqtt::connection::{Connection, MAX_PACKET, Transport};
use crate::mqtt::session;

/// Accepts the subprotocol in both spellings that official clients offer.
pub(super) async fn upgrade(State(hub): State<Arc<Hub>>, upgrade: WebSocketUpgrade) -> Response {
    upgrade
        .protocols(["mqtt", "MQTT"])
        .max_message_size(MAX_PACKET)
        .on_upgrade(|socket| session::serve(hub, Connection::new(Transport::WebSocket(Box::new(socket)))))
}
