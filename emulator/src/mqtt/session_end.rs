//! Why a session ends, with the hub or with the provisioning service, and how
//! long a session may be silent before it does.

use std::time::Duration;

use rumqttc::mqttbytes::v4::Connect;

use super::connection::ConnectionError;
use crate::link::Closed;

/// The longest silence, also of a client whose keep-alive would allow more:
/// 29.45 minutes, after which Azure's load balancers cut an idle connection.
/// Source: "Communicate with an IoT hub using the MQTT protocol", default
/// keep-alive timeout.
const MAX_SILENCE: Duration = Duration::from_secs(1767);

/// How long a timer runs that shall never end a session: ten years, which no
/// connection lasts, and which can be added to an instant without overflow.
pub const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Why the hub ends a session, or sees it end.
#[derive(Debug, thiserror::Error)]
pub enum SessionEnd {
    /// The client sent DISCONNECT.
    #[error("the client disconnected")]
    Disconnect,
    /// The connection ended, or carried something that is not MQTT.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// Another part of the hub closed the link.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// Nothing came from the client for one and a half keep-alives.
    #[error("nothing came for one and a half keep-alives")]
    Silent,
    /// The time of the client's token is over.
    #[error("the token expired")]
    Expired,
    /// The client did something that the hub answers by closing.
    #[error("{0}")]
    Violation(String),
}

/// How long the client may be silent; `None`, for ever, when it asks for no
/// keep-alive.
pub fn max_silence(connect: &Connect) -> Option<Duration> {
    let keep_alive = Duration::from_secs(connect.keep_alive.into());
    (!keep_alive.is_zero()).then(|| (keep_alive * 3 / 2).min(MAX_SILENCE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_one_and_a_half_keep_alives_up_to_the_cap() {
        let silence = |keep_alive| {
            let mut connect = Connect::new("gw1");
            connect.keep_alive = keep_alive;
            max_silence(&connect).map(|silence| silence.as_millis())
        };
        assert_eq!(silence(0), None);
        assert_eq!(silence(1), Some(1500));
        assert_eq!(silence(60), Some(90_000));
        assert_eq!(silence(u16::MAX), Some(1_767_000));
    }
}
