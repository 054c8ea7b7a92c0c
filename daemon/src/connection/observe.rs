//! What is met on the way to a server, for whoever tries the way out and has to say
//! how far it leads. The way itself is the same with an observer and without.

use std::net::SocketAddr;

use rustls::pki_types::CertificateDer;
use tokio::sync::mpsc::UnboundedSender;

/// A step that has succeeded, or what was seen in one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Milestone {
    /// TCP: this address took the connection.
    Connected(SocketAddr),
    /// The proxy has connected to the server.
    Tunnelled,
    /// The server has shown these certificates, its own first. Whether they are
    /// accepted is decided afterwards.
    Shown(Vec<CertificateDer<'static>>),
    /// TLS of this version is set up.
    Secured(String),
    /// The server has agreed to a WebSocket, at this time by its own clock, as it
    /// spells that, where it says so.
    Upgraded(Option<String>),
}

/// Who is told; nobody by default.
#[derive(Debug, Clone, Default)]
pub struct Observer(Option<UnboundedSender<Milestone>>);

impl Observer {
    /// Has `milestones` told.
    pub fn new(milestones: UnboundedSender<Milestone>) -> Self {
        Observer(Some(milestones))
    }

    /// Whether anybody is told.
    pub fn listens(&self) -> bool {
        self.0.is_some()
    }

    /// Tells of a milestone.
    pub fn tell(&self, milestone: Milestone) {
        if let Some(listener) = &self.0 {
            // Whoever has gone misses nothing.
            let _ = listener.send(milestone);
        }
    }
}
