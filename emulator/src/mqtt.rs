//! MQTT 3.1.1 as devices speak it, and its front door: the first packet of a
//! connection decides who takes the connection.
//!
//! [`connection`] turns bytes into packets. A CONNECT for the hub opens a
//! [`session`], which hands each further packet to the file named after it
//! ([`connect`], [`publish`], [`subscribe`]); a CONNECT for the provisioning
//! service opens a session of [`provisioning`]. No room imports the front door.

pub mod connect;
pub mod connection;
pub mod provisioning;
pub mod publish;
pub mod session;
pub mod session_end;
pub mod subscribe;
pub mod will;

use std::sync::Arc;
use std::time::Duration;

use rumqttc::mqttbytes;
use rumqttc::mqttbytes::v4::{ConnAck, ConnectReturnCode, Packet};
use tokio::time::timeout;
use tracing::debug;

use crate::hub::Hub;
use connection::{Connection, ConnectionError};

/// How long a client may take for its CONNECT before the hub closes the
/// connection: the client is not known yet, so it shall not keep a socket.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Serves a connection until it ends.
pub async fn serve(hub: Arc<Hub>, mut connection: Connection) {
    let connect = match timeout(CONNECT_DEADLINE, connection.read_connect()).await {
        Ok(Some(Ok(Packet::Connect(connect)))) => connect,
        Ok(Some(Ok(_))) => return debug!("closed a client whose first packet was no CONNECT"),
        Ok(Some(Err(ConnectionError::Malformed(mqttbytes::Error::InvalidProtocolLevel(_))))) => {
            let code = ConnectReturnCode::RefusedProtocolVersion;
            let _ = connection.write(&Packet::ConnAck(ConnAck::new(code, false))).await;
            return connection.close().await;
        }
        Ok(Some(Err(error))) => return debug!(%error, "a client left before CONNECT"),
        Ok(None) => return debug!("a client without CONNECT gave way to others"),
        Err(_) => return debug!("closed a client that sent no CONNECT in time"),
    };
    match provisioning::registration_id(&hub, &connect) {
        Some(id) => provisioning::serve(&hub, connection, &connect, id).await,
        None => session::serve(&hub, connection, &connect).await,
    }
}
