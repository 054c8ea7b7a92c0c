//! The two listeners, MQTT over TLS and HTTPS, and a task for each connection
//! that they accept.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

use crate::certificates::ClientCertificate;
use crate::hub::Hub;
use crate::link::Closed;
use crate::mqtt::connection::{Connection, Transport};
use crate::strangers::{Stranger, Strangers};
use crate::{configuration_runner, http, job_runner, mqtt};

/// How long a client may take for its TLS handshake before it is cut off.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// How long open connections get to end after a shutdown: whoever stops the
/// emulator waits for it.
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
    tls: Arc<ServerConfig>,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let acceptor = TlsAcceptor::from(tls);
    let (mut devices, mut services) = (JoinSet::new(), JoinSet::new());
    let (stop, stopped) = watch::channel(());
    let serve_device = {
        let hub = hub.clone();
        move |stream: Box<TlsStream<TcpStream>>, stranger| {
            let certificate = ClientCertificate::shown_in(&stream);
            let connection = Connection::new(Transport::Tls(stream), certificate, Some(stranger));
            mqtt::serve(hub.clone(), connection)
        }
    };
    let serve_service = {
        let router = http::router(hub.clone());
        move |stream: Box<_>, stranger| http::serve(router.clone(), *stream, stranger, stopped.clone())
    };
    tokio::select! {
        () = shutdown => {}
        () = accept_all(mqtt, &acceptor, &mut devices, serve_device) => {}
        () = accept_all(https, &acceptor, &mut services, serve_service) => {}
        () = job_runner::run(hub.clone()) => {}
        () = configuration_runner::run(hub.clone()) => {}
    }
    drop(stop);
    hub.links.close_all(Closed::Shutdown);
    let ends = async {
        while devices.join_next().await.is_some() {}
        while services.join_next().await.is_some() {}
    };
    if timeout(SHUTDOWN_DEADLINE, ends).await.is_err() {
        debug!("some connections did not end in time");
    }
    Ok(())
}

/// Accepts connections for ever and serves each in a task of its own, so that
/// a slow client holds up nobody; takes no more strangers than there is room for.
async fn accept_all<F>(
    listener: TcpListener,
    acceptor: &TlsAcceptor,
    connections: &mut JoinSet<()>,
    serve: impl Fn(Box<TlsStream<TcpStream>>, Arc<Stranger>) -> F + Clone + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let strangers = Arc::new(Strangers::default());
    let accept = async || {
        strangers.room().await;
        listener.accept().await
    };
    loop {
        tokio::select! {
            accepted = accept() => match accepted {
                Ok((stream, peer)) => {
                    let (acceptor, serve, stranger) = (acceptor.clone(), serve.clone(), strangers.enter());
                    connections.spawn(async move {
                        // Boxed, since the task lasts as long as the connection.
                        let handshake = stranger.unless_in_the_way(handshake(stream, peer, acceptor));
                        let stream = Box::pin(handshake).await;
                        if let Some(Some(stream)) = stream {
                            serve(stream, stranger).await;
                        }
                    });
                }
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn handshake(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
) -> Option<Box<TlsStream<TcpStream>>> {
    // Packets are small, and the other side waits for each: without this, the
    // kernel would hold some back to send them together.
    let _ = stream.set_nodelay(true);
    match timeout(HANDSHAKE_DEADLINE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => return Some(Box::new(stream)),
        Ok(Err(error)) => debug!(%peer, %error, "a TLS handshake failed"),
        Err(_) => debug!(%peer, "a TLS handshake took too long"),
    }
    None
}
