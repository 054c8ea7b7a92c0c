//! One client connection as MQTT packets, over TLS or over a WebSocket.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::ws::{self, WebSocket};
use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::v4::Packet;
use tokio::io::{AsyncRead as _, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use super::decode::{DecodeError, decode};
use crate::certificates::ClientCertificate;
use crate::strangers::Stranger;

/// The most that a device may publish at once, in bytes: IoT Hub's limit for a
/// device-to-cloud message.
pub const MAX_PAYLOAD: usize = 256 * 1024;

/// The largest packet that the hub takes, in bytes: the largest message, and 4 KB of
/// room for its topic.
pub const MAX_PACKET: usize = MAX_PAYLOAD + 4 * 1024;

/// The largest CONNECT, in bytes. A client that has not proved who it is gets
/// less memory than a device; user name and token are far smaller.
pub const MAX_CONNECT: usize = 32 * 1024;

/// How much is read at once, in bytes.
const READ: usize = 4096;

/// How long a client may leave the connection's buffers full before the hub
/// gives it up: memory is not kept for one that does not read.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// A connection, and what has arrived of a packet that is not whole yet.
pub struct Connection {
    transport: Transport,
    certificate: Option<ClientCertificate>,
    /// The client's place among the strangers, until it has proved who it is.
    stranger: Option<Arc<Stranger>>,
    received: BytesMut,
}

/// What carries the bytes.
pub enum Transport {
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
    /// Binary WebSocket messages, whose borders mean nothing: a packet may
    /// begin in one and end in the next.
    WebSocket(Box<WebSocket>),
}

/// Why no further packet comes.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The peer has closed.
    #[error("the client closed the connection")]
    Closed,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// What came is not MQTT 3.1.1, or larger than the hub takes.
    #[error("not a packet that the hub takes: {0}")]
    Malformed(#[from] DecodeError),
    /// The client has not proved who it is, and others wait for its place.
    #[error("a client that nobody knows gave way to others")]
    InTheWay,
}

impl Connection {
    /// A connection over `transport`, in whose TLS handshake the client showed
    /// `certificate`, if any. `stranger` is the client's place among the strangers;
    /// `None` where nobody counts them.
    pub fn new(
        transport: Transport,
        certificate: Option<ClientCertificate>,
        stranger: Option<Arc<Stranger>>,
    ) -> Self {
        Connection { transport, certificate, stranger, received: BytesMut::new() }
    }

    /// Takes note that the client has proved who it is.
    pub fn becomes_known(&mut self) {
        if let Some(stranger) = self.stranger.take() {
            stranger.becomes_known();
        }
    }

    /// Whether a WebSocket carries the connection.
    pub fn is_websocket(&self) -> bool {
        matches!(self.transport, Transport::WebSocket(_))
    }

    /// The certificate that the client showed in the TLS handshake, if any.
    pub fn certificate(&self) -> Option<&ClientCertificate> {
        self.certificate.as_ref()
    }

    /// The next packet. Nothing is lost when the future is dropped. Of a client that
    /// has not proved who it is, less is taken, and it may have to give way to others.
    pub async fn read(&mut self) -> Result<Packet, ConnectionError> {
        match self.stranger.clone() {
            Some(stranger) => {
                let packet = stranger.unless_in_the_way(self.read_up_to(MAX_CONNECT)).await;
                packet.unwrap_or(Err(ConnectionError::InTheWay))
            }
            None => self.read_up_to(MAX_PACKET).await,
        }
    }

    async fn read_up_to(&mut self, most: usize) -> Result<Packet, ConnectionError> {
        loop {
            if let Some(packet) = decode(&mut self.received, most)? {
                if self.received.is_empty() {
                    // Else an idle connection would keep the buffer.
                    self.received = BytesMut::new();
                }
                return Ok(packet);
            }
            if self.transport.read(&mut self.received).await? == 0 {
                return Err(ConnectionError::Closed);
            }
        }
    }

    /// Sends a packet.
    pub async fn write(&mut self, packet: &Packet) -> Result<(), ConnectionError> {
        let mut bytes = BytesMut::with_capacity(packet.size());
        packet.write(&mut bytes, MAX_PACKET).map_err(io::Error::other)?;
        let late = || io::Error::new(io::ErrorKind::TimedOut, "the client does not read");
        timeout(WRITE_DEADLINE, self.transport.write(bytes.freeze())).await.map_err(|_| late())??;
        Ok(())
    }

    /// Closes the connection in good order if the client lets it within a
    /// second, else without.
    pub async fn close(mut self) {
        let _ = timeout(Duration::from_secs(1), self.transport.close()).await;
    }
}

impl Transport {
    /// Appends what arrives to `buffer` and returns how many bytes that were:
    /// 0 when the client has closed.
    async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Transport::Tls(stream) => {
                let read = |context: &mut Context<'_>| {
                    // On the stack, so that who waits for bytes has no room for them yet.
                    let mut room = [MaybeUninit::uninit(); READ];
                    let mut read = ReadBuf::uninit(&mut room);
                    ready!(Pin::new(&mut **stream).poll_read(context, &mut read))?;
                    buffer.extend_from_slice(read.filled());
                    Poll::Ready(Ok(read.filled().len()))
                };
                poll_fn(read).await
            }
            Transport::WebSocket(socket) => loop {
                match socket.recv().await {
                    Some(Ok(ws::Message::Binary(bytes))) if bytes.is_empty() => {}
                    Some(Ok(ws::Message::Binary(bytes))) => {
                        buffer.extend_from_slice(&bytes);
                        return Ok(bytes.len());
                    }
                    // The library itself answers pings.
                    Some(Ok(ws::Message::Ping(_) | ws::Message::Pong(_))) => {}
                    Some(Ok(ws::Message::Text(_))) => {
                        return Err(io::Error::new(io::ErrorKind::InvalidData, "a text message"));
                    }
                    Some(Ok(ws::Message::Close(_))) | None => return Ok(0),
                    Some(Err(error)) => return Err(io::Error::other(error)),
                }
            },
        }
    }

    async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        match self {
            Transport::Tls(stream) => {
                stream.write_all(&bytes).await?;
                stream.flush().await
            }
            Transport::WebSocket(socket) => {
                socket.send(ws::Message::Binary(bytes)).await.map_err(io::Error::other)
            }
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        match self {
            Transport::Tls(stream) => stream.shutdown().await,
            Transport::WebSocket(socket) => {
                socket.send(ws::Message::Close(None)).await.map_err(io::Error::other)
            }
        }
    }
}
