//! MQTT 3.1.1 as devices speak it, and its front door: the first packet of a
//! connection decides who takes the connection.
//!
//! [`connection`] reads bytes, and [`decode`] turns them into packets. A CONNECT for the hub opens a
//! [`session`], which hands each further packet to the file named after it
//! ([`connect`], [`publish`], [`subscribe`]); a CONNECT for the provisioning
//! service opens a session of [`provisioning`]. No room imports the front door.

pub mod connect;
pub mod connection;
pub mod decode;
pub mod provisioning;
pub mod publish;
pub mod session;
pub mod session_end;
pub mod subscribe;
pub mod will;

use std::sync::Arc;
use std::time::Duration;

use rumqttc::mqttbytes::v4::{ConnAck, ConnectReturnCode, Packet};
use tokio::time::timeout;
use tracing::debug;

use crate::hub::Hub;
use connection::{Connection, ConnectionError};
use decode::DecodeError;

/// How long a client may take for its CONNECT before the hub closes the
/// connection: the client is not known yet, so it shall not keep a socket.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Serves a connection until it ends.
pub async fn serve(hub: Arc<Hub>, mut connection: Connection) {
    let connect = match timeout(CONNECT_DEADLINE, connection.read()).await {
        Ok(Ok(Packet::Connect(connect))) => connect,
        Ok(Ok(_)) => return debug!("closed a client whose first packet was no CONNECT"),
        Ok(Err(ConnectionError::Malformed(DecodeError::Version(level)))) => {
            debug!(level, "refused a CONNECT of another version of MQTT");
            return refuse(connection, ConnectReturnCode::RefusedProtocolVersion).await;
        }
        Ok(Err(error)) => return debug!(%error, "a client left before CONNECT"),
        Err(_) => return debug!("closed a client that sent no CONNECT in time"),
    };
    // A server may give a name to a client that has none and wants no session to be
    // kept [MQTT-3.1.3-6, -8]. Here each client is known by its name.
    if connect.client_id.is_empty() {
        debug!("refused a CONNECT without a client id");
        return refuse(connection, ConnectReturnCode::BadClientId).await;
    }
    match provisioning::registration_id(&hub, &connect) {
        Some(id) => Box::pin(provisioning::serve(&hub, connection, &connect, id)).await,
        None => session::serve(&hub, connection, connect).await,
    }
}

/// Answers a CONNECT with a return code that refuses it, and closes the connection.
async fn refuse(mut connection: Connection, code: ConnectReturnCode) {
    let _ = connection.write(&Packet::ConnAck(ConnAck::new(code, false))).await;
    connection.close().await;
}
