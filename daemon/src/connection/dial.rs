//! A secure stream of bytes to a server: its address found, TCP, through a
//! proxy where there is one, TLS, and a WebSocket where port 8883 is closed.

use std::collections::VecDeque;
use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{SinkExt as _, StreamExt as _, TryStreamExt as _};
use iotdm_proto::Endpoint;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

use crate::connection::observe::{Milestone, Observer};
use crate::connection::outage::Outage;
use crate::connection::proxy::Proxy;
use crate::connection::tls;

/// A stream to a server, whatever carries it.
pub type Stream = Box<dyn Duplex>;

/// What can be read from and written to.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// What carries MQTT.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TLS on port 8883.
    #[default]
    Mqtt,
    /// A WebSocket on port 443, for networks that let nothing else out.
    WebSocket,
}

/// How servers are reached.
#[derive(Debug, Clone)]
pub struct Road {
    /// What carries MQTT.
    pub transport: Transport,
    /// The HTTP proxy through which servers are reached, if there is one.
    pub proxy: Option<Proxy>,
    /// Who is told how far an attempt has come.
    pub observer: Observer,
}

/// How long each step to a server may take: finding its address, TCP, the proxy,
/// TLS, the WebSocket. Long enough for four lost SYNs, which Linux repeats after
/// 1, 3, 7 and 15 s.
const PATIENCE: Duration = Duration::from_secs(20);
/// The next address is tried when one has been silent for this long. Source:
/// RFC 8305, "Connection Attempt Delay".
const STAGGER: Duration = Duration::from_millis(250);
/// After how many milliseconds without an acknowledgement by the peer's kernel of
/// what was sent the connection ends (`TCP_USER_TIMEOUT`): the peer has then
/// vanished without a word.
const USER_TIMEOUT: u32 = 60_000;
/// Where a hub speaks MQTT over WebSocket. Source: "Communicate with an IoT hub
/// using the MQTT protocol".
const WEBSOCKET_PATH: &str = "/$iothub/websocket";
/// The largest WebSocket message or frame, in bytes, which is refused before it is
/// in memory. A message may hold several MQTT packets, each of at most 260 KiB.
const MAX_WEBSOCKET_MESSAGE: usize = 512 * 1024;

impl Transport {
    /// The port where none is written.
    pub fn port(self) -> u16 {
        match self {
            Transport::Mqtt => 8883,
            Transport::WebSocket => 443,
        }
    }
}

impl Road {
    /// Opens a stream to `server`.
    pub async fn dial(self, server: Endpoint, client: tls::Client) -> Result<Stream, Outage> {
        let (host, port) = (server.host.as_str(), server.port_or(self.transport.port()));
        let stream = match &self.proxy {
            None => reach(host, port).await?,
            Some(proxy) => reach(proxy.endpoint.host.as_str(), proxy.port()).await?,
        };
        if let Ok(address) = stream.peer_addr() {
            self.observer.tell(Milestone::Connected(address));
        }
        let stream = match &self.proxy {
            None => stream,
            Some(proxy) => {
                let tunnel = proxy.tunnel(stream, host, port);
                let stream =
                    within(tunnel, &format!("the proxy {proxy}, or {host}:{port} behind it,")).await?;
                self.observer.tell(Milestone::Tunnelled);
                stream
            }
        };
        let target = format!("{host}:{port}");
        let certificate = client.certificate.clone();
        let stream = within(secure(stream, host, client, &target), &target).await?;
        self.observer.tell(Milestone::Secured(version(&stream)));
        match self.transport {
            Transport::Mqtt => Ok(Box::new(stream)),
            Transport::WebSocket => {
                let upgraded = within(upgrade(stream, &target, certificate.as_deref()), &target).await?;
                let (stream, date) = upgraded;
                self.observer.tell(Milestone::Upgraded(date));
                Ok(Box::new(stream))
            }
        }
    }

    /// The host and port that TCP connects to on the way to `server`.
    pub fn first_hop<'a>(&'a self, server: &'a Endpoint) -> (&'a str, u16) {
        match &self.proxy {
            None => (server.host.as_str(), server.port_or(self.transport.port())),
            Some(proxy) => (proxy.endpoint.host.as_str(), proxy.port()),
        }
    }
}

/// Waits for one step to the server, but for no longer than [`PATIENCE`]; `whom`
/// says who did not answer then.
async fn within<T>(step: impl Future<Output = Result<T, Outage>>, whom: &str) -> Result<T, Outage> {
    let late = |_| Outage::unreachable(format!("{whom} does not answer"));
    timeout(PATIENCE, step).await.map_err(late)?
}

/// The addresses of `host`, in the system's order.
pub async fn look_up(host: &str, port: u16) -> Result<Vec<SocketAddr>, Outage> {
    let look_up = async {
        let unknown = |error| {
            Outage::unreachable(format!("cannot find the address of {host}: {error}"))
                .mended_by("check the name, and this machine's network and name servers")
        };
        Ok(lookup_host((host, port)).await.map_err(unknown)?.collect())
    };
    within(look_up, &format!("the name server, asked for {host},")).await
}

/// TCP to `host`, by whichever of its addresses answers first.
async fn reach(host: &str, port: u16) -> Result<TcpStream, Outage> {
    let target = format!("{host}:{port}");
    let addresses = alternating(look_up(host, port).await?);
    let connect = async {
        let stream = race(addresses).await;
        stream.map_err(|error| Outage::unreachable(format!("cannot reach {target}: {error}")))
    };
    let stream = within(connect, &target).await?;
    let set = |()| rustix::net::sockopt::set_tcp_user_timeout(&stream, USER_TIMEOUT).map_err(io::Error::from);
    if let Err(error) = stream.set_nodelay(true).and_then(set) {
        tracing::debug!("the socket's options could not be set: {error}");
    }
    Ok(stream)
}

/// The addresses of both families by turns, beginning with the family of the first
/// one, which the system prefers.
fn alternating(addresses: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut one, mut other): (VecDeque<_>, VecDeque<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let mut turns = VecDeque::new();
    while !one.is_empty() || !other.is_empty() {
        turns.extend(one.pop_front());
        turns.extend(other.pop_front());
    }
    turns
}

/// Connects to whichever address answers first. An attempt at the next address
/// begins when one has failed, or when all have been silent for [`STAGGER`].
/// Source: RFC 8305.
async fn race(mut addresses: VecDeque<SocketAddr>) -> io::Result<TcpStream> {
    let mut attempts = FuturesUnordered::new();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "it has no address");
    loop {
        if let Some(address) = addresses.pop_front() {
            attempts.push(TcpStream::connect(address));
        } else if attempts.is_empty() {
            return Err(failure);
        }
        tokio::select! {
            Some(connected) = attempts.next() => match connected {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            },
            () = sleep(STAGGER), if !addresses.is_empty() => {}
        }
    }
}

async fn secure(
    stream: TcpStream,
    host: &str,
    client: tls::Client,
    target: &str,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Outage> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| Outage::refused(format!("{host} cannot be the name in a certificate")))?;
    let secured = TlsConnector::from(client.config).connect(name, stream).await;
    let secured = secured.map_err(|error| Outage::broken(&error, target, client.certificate.as_deref()))?;
    let (_, session) = secured.get_ref();
    tracing::debug!("{:?} to {target}, {:?} handshake", session.protocol_version(), session.handshake_kind());
    Ok(secured)
}

/// The version of TLS on `stream`, for people.
fn version(stream: &tokio_rustls::client::TlsStream<TcpStream>) -> String {
    let version = stream.get_ref().1.protocol_version().and_then(|version| version.as_str());
    version.unwrap_or("TLS").replace("TLSv1_", "TLS 1.")
}

/// Asks the server for a WebSocket on `stream`. The result is the stream of bytes
/// in its binary messages, whose bounds mean nothing to MQTT, and the server's time,
/// where it says that.
async fn upgrade<S>(
    stream: S,
    target: &str,
    certificate: Option<&str>,
) -> Result<(impl Duplex + use<S>, Option<String>), Outage>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let refused = |error| match error {
        // In TLS 1.3 the server judges the device's certificate after the client's
        // side of the handshake is over, so that its refusal shows only here.
        tungstenite::Error::Io(error) => Outage::broken(&error, target, certificate),
        tungstenite::Error::Protocol(ProtocolError::HandshakeIncomplete) => Outage::closed(target),
        tungstenite::Error::Http(response) if matches!(response.status().as_u16(), 429 | 500..) => {
            Outage::busy(format!("{target} is not available now ({})", response.status()), None)
        }
        tungstenite::Error::Http(response) => {
            Outage::refused(format!("{target} refused the WebSocket with {}", response.status()))
                .mended_by("check that it is a hub, and hub.proxy")
        }
        other => Outage::refused(format!("{target} does not speak MQTT over WebSocket: {other}")),
    };
    let uri = format!("wss://{target}{WEBSOCKET_PATH}").parse();
    let uri = uri.map_err(|error| Outage::refused(format!("{target} cannot be in a URL: {error}")))?;
    let request = ClientRequestBuilder::new(uri).with_sub_protocol("mqtt");
    let config = WebSocketConfig::default()
        .read_buffer_size(4096)
        .write_buffer_size(0)
        .max_message_size(Some(MAX_WEBSOCKET_MESSAGE))
        .max_frame_size(Some(MAX_WEBSOCKET_MESSAGE));
    let upgraded = tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await;
    let (socket, response) = upgraded.map_err(refused)?;
    let date = response.headers().get("date").and_then(|date| date.to_str().ok()).map(str::to_owned);
    Ok((bytes_of(socket), date))
}

fn bytes_of<S>(socket: WebSocketStream<S>) -> impl Duplex
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let failed = |error| match error {
        tungstenite::Error::Io(error) => error,
        tungstenite::Error::ConnectionClosed
        | tungstenite::Error::AlreadyClosed
        | tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            io::ErrorKind::UnexpectedEof.into()
        }
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    };
    let (sink, stream) = socket.split();
    let received = stream.map_err(failed).try_filter_map(|message| {
        ready(match message {
            Message::Binary(bytes) => Ok(Some(bytes)),
            Message::Text(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "a text message")),
            // Not every server closes the connection below after this message.
            Message::Close(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            // Pings, which the library answers, and pongs.
            _ => Ok(None),
        })
    });
    let sent =
        sink.sink_map_err(failed).with(|bytes: Bytes| ready(Ok::<_, io::Error>(Message::Binary(bytes))));
    tokio::io::join(StreamReader::new(received), SinkWriter::new(CopyToBytes::new(sent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_families_take_turns_beginning_with_the_preferred_one() {
        let parsed =
            |texts: &[&str]| -> Vec<SocketAddr> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        let found = parsed(&["[::1]:1", "[::2]:1", "127.0.0.1:1", "[::3]:1", "127.0.0.2:1"]);
        let expected = parsed(&["[::1]:1", "127.0.0.1:1", "[::2]:1", "127.0.0.2:1", "[::3]:1"]);
        assert_eq!(Vec::from(alternating(found)), expected);
        assert!(alternating(Vec::new()).is_empty());
    }

    #[tokio::test]
    async fn an_address_that_refuses_hides_none_that_answers() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let alive = listener.local_addr().unwrap();
        // A port that was just free, on the other family.
        let dead = std::net::TcpListener::bind("[::1]:0").unwrap().local_addr().unwrap();
        let stream = race(VecDeque::from([dead, alive])).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), alive);
        assert!(race(VecDeque::from([dead])).await.is_err());
        assert_eq!(race(VecDeque::new()).await.unwrap_err().to_string(), "it has no address");
    }
}
