//! A server that is not the emulator: with any certificate, and with any words
//! after the handshake.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::spawn;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// The port where the server listens, at 127.0.0.1.
    pub port: u16,
    dir: TempDir,
}

/// A connection after its handshake.
#[derive(Debug)]
pub struct Client(StreamOwned<ServerConnection, TcpStream>);

impl Server {
    /// Serves with a certificate for `localhost`, changed by `change`; each
    /// connection is given to `talk` and closed when that returns.
    pub fn start(
        change: impl FnOnce(&mut CertificateParams),
        talk: impl Fn(Client) + Send + Sync + Clone + 'static,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut ca = CertificateParams::default();
        // Two CAs of one name would be a stranger case than two of different names.
        ca.distinguished_name.push(DnType::CommonName, dir.path().display().to_string());
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let chain = vec![params.signed_by(&key, &ca).unwrap().der().clone()];
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        let config = Arc::new(config);
        std::fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
        let port = listen(move |stream| {
            let connection = ServerConnection::new(config.clone()).unwrap();
            talk(Client(StreamOwned::new(connection, stream)));
        });
        Server { port, dir }
    }

    /// Serves with a certificate for `name`, although it is reached as
    /// `localhost`.
    pub fn named(name: &str, talk: impl Fn(Client) + Send + Sync + Clone + 'static) -> Self {
        let name = SanType::DnsName(name.try_into().unwrap());
        Server::start(|params| params.subject_alt_names = vec![name], talk)
    }

    /// Serves without TLS.
    pub fn plain(talk: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> Self {
        Server { port: listen(talk), dir: tempfile::tempdir().unwrap() }
    }

    /// The CA of the server's certificate; a server without TLS has none.
    pub fn ca_file(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// A file beside the CA, in a directory that goes when the server does.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

fn listen(talk: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let talk = talk.clone();
            spawn(move || talk(client));
        }
    });
    port
}

impl Client {
    /// The next MQTT packet, of fewer than 16 KB: its first byte and the rest.
    pub fn packet(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut byte = || {
            let mut byte = [0];
            self.0.read_exact(&mut byte).ok().map(|()| usize::from(byte[0]))
        };
        let first = byte()?;
        let mut length = byte()?;
        if length >= 0x80 {
            length = (length & 0x7f) + (byte()? << 7);
        }
        let mut rest = vec![0; length];
        self.0.read_exact(&mut rest).ok()?;
        Some((first.try_into().unwrap(), rest))
    }

    /// Answers CONNECT and SUBSCRIBE as a hub does.
    pub fn accept(&mut self) -> Option<()> {
        self.packet().filter(|(first, _)| *first == 0x10)?;
        self.say(&[0x20, 2, 0, 0]);
        let (_, subscribe) = self.packet().filter(|(first, _)| *first == 0x82)?;
        self.say(&[0x90, 5, subscribe[0], subscribe[1], 0, 0, 0]);
        Some(())
    }

    /// Answers CONNECT with these bytes, and no more.
    pub fn answer(&mut self, bytes: &[u8]) {
        let _ = self.packet();
        self.say(bytes);
        self.listen();
    }

    /// Sends bytes.
    pub fn say(&mut self, bytes: &[u8]) {
        // The peer may have gone, which is what a test may be about.
        let _ = self.0.write_all(bytes).and_then(|()| self.0.flush());
    }

    /// Reads until the peer ends the connection.
    pub fn listen(&mut self) {
        while self.packet().is_some() {}
    }

    /// Ends the connection as TLS wants it ended, after all that was sent.
    pub fn close(mut self) {
        self.0.conn.send_close_notify();
        // A client that was interrupted meanwhile reads no more.
        let _ = self.0.flush();
    }
}

impl Read for Client {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Client {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
