//! The two listeners: MQTT over TLS, and HTTPS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

use crate::http;
use crate::hub::Hub;
use crate::jobs::runner;
use crate::link::Closed;
use crate::mqtt::connection::{Connection, Transport};
use crate::mqtt::session;
use crate::pki::ServerConfigs;

/// A client that has not finished its handshake by then is cut off.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// How long open connections get to end after a shutdown.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(2);

/// The pause after a failed accept: most often the process is out of file
/// descriptors, and only time frees some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `hub` on both listeners until `shutdown` resolves, then lets
/// connections end.
pub async fn run(
    hub: Arc<Hub>,
    mqtt: TcpListener,
    https: TcpListener,
    tls: ServerConfigs,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let mut mqtt = TlsListener::new(mqtt, tls.devices)?;
    let https = TlsListener::new(https, tls.https)?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let mut rest = tokio::spawn({
        let service = axum::serve(https, http::router(hub.clone()));
        // Resolves as well when the sender is gone.
        service.with_graceful_shutdown(async { drop(stopped.await) }).into_future()
    });
    let mut sessions = JoinSet::new();
    let jobs = runner::run(hub.clone());
    tokio::pin!(shutdown, jobs);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            ended = &mut rest => return Ok(ended??),
            stream = mqtt.accept() => {
                sessions.spawn(session::serve(hub.clone(), Connection::new(Transport::Tls(Box::new(stream)))));
            }
            Some(_) = sessions.join_next() => {}
            () = &mut jobs => {}
        }
    }
    drop(stop);
    hub.links.close_all(Closed::Shutdown);
    let ends = async {
        while sessions.join_next().await.is_some() {}
        let _ = rest.await;
    };
    if timeout(SHUTDOWN_DEADLINE, ends).await.is_err() {
        debug!("some connections did not end in time");
    }
    Ok(())
}

/// A listener that hands out connections whose TLS handshake is done. Each
/// handshake has its own task, so that a slow client holds up nobody.
struct TlsListener {
    streams: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
    _accepting: JoinSet<()>,
}

impl TlsListener {
    fn new(listener: TcpListener, tls: Arc<ServerConfig>) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (sender, streams) = mpsc::channel(1);
        let mut accepting = JoinSet::new();
        accepting.spawn(accept_all(listener, TlsAcceptor::from(tls), sender));
        Ok(TlsListener { streams, address, _accepting: accepting })
    }

    async fn accept(&mut self) -> TlsStream<TcpStream> {
        axum::serve::Listener::accept(self).await.0
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.streams.recv().await {
            Some(stream) => stream,
            // The accepting task ends only together with the listener.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

async fn accept_all(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    streams: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    let mut handshakes = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    handshakes.spawn(handshake(stream, peer, acceptor.clone(), streams.clone()));
                }
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = handshakes.join_next() => {}
        }
    }
}

async fn handshake(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    streams: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    // Small packets, each waited for by the other side.
    let _ = stream.set_nodelay(true);
    match timeout(HANDSHAKE_DEADLINE, acceptor.accept(stream)).await {
        // Without a receiver the server is stopping.
        Ok(Ok(stream)) => drop(streams.send((stream, peer)).await),
        Ok(Err(error)) => debug!(%peer, %error, "a TLS handshake failed"),
        Err(_) => debug!(%peer, "a TLS handshake took too long"),
    }
}
