//! Why there is no connection, in one sentence for people: what failed, and
//! what helps. It stands in `systemctl status` and in the journal.

use std::io::{self, ErrorKind};
use std::time::Duration;

use rustls::{AlertDescription, CertificateError, PeerIncompatible};

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    /// What is to be expected of trying again.
    pub class: Class,
    /// The cause and, where there is one, the remedy.
    pub message: String,
    /// The remedy alone, as it stands in `message` after a colon.
    pub remedy: Option<String>,
}

/// What is to be expected of trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The network may be back at any time.
    Unreachable,
    /// The other side's certificate is not accepted. What that takes may come at
    /// any time: a CA is installed, the clock is set, the network is another.
    Untrusted,
    /// The other side ended the connection without saying why.
    Closed,
    /// The other side itself said no, which soon asking again will not mend.
    Refused,
    /// The other side wants to be asked later.
    Busy {
        /// How much later, where the other side said that.
        retry_after: Option<Duration>,
    },
}

impl Outage {
    fn of(class: Class, message: impl Into<String>) -> Self {
        Outage { class, message: message.into(), remedy: None }
    }

    /// The network or the other side is not there.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self::of(Class::Unreachable, message)
    }

    /// The other side wants to be asked later.
    pub fn busy(message: impl Into<String>, retry_after: Option<Duration>) -> Self {
        Self::of(Class::Busy { retry_after }, message)
    }

    /// The other side, `whom`, ended the connection without saying why.
    pub fn closed(whom: &str) -> Self {
        Self::of(Class::Closed, format!("{whom} closed the connection"))
    }

    /// The other side said no, or what is on this machine cannot be used.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::of(Class::Refused, message)
    }

    /// The same, with what a person can do about it.
    pub fn mended_by(self, remedy: impl Into<String>) -> Self {
        let remedy = remedy.into();
        Outage { message: format!("{}: {remedy}", self.message), remedy: Some(remedy), ..self }
    }

    /// The same, with what else is known of it, for those who know the protocol.
    pub fn noting(self, note: &str) -> Self {
        Outage { message: format!("{} ({note})", self.message), ..self }
    }

    /// The message without the remedy.
    pub fn cause(&self) -> String {
        match &self.remedy {
            Some(remedy) => self.message.replacen(&format!(": {remedy}"), "", 1),
            None => self.message.clone(),
        }
    }

    /// A connection to `target` that broke, or that could not be made secure.
    /// `certificate` names the file that this machine shows itself with.
    pub fn broken(error: &io::Error, target: &str, certificate: Option<&str>) -> Self {
        let inner = error.get_ref();
        if let Some(tls) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return explain_tls(tls, target, certificate);
        }
        Outage::unreachable(match error.kind() {
            // What TLS and WebSockets call an end that was not announced.
            ErrorKind::UnexpectedEof => return Outage::closed(target),
            ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                format!("{target} closed the connection")
            }
            ErrorKind::TimedOut => format!("{target} no longer answers"),
            _ => format!("the connection to {target} failed: {error}"),
        })
    }
}

fn explain_tls(error: &rustls::Error, target: &str, certificate: Option<&str>) -> Outage {
    let why = match error {
        rustls::Error::InvalidCertificate(why) => {
            let (why, remedy) = explain_certificate(why);
            let outage = Outage::of(Class::Untrusted, format!("the certificate of {target} {why}"));
            return match remedy {
                Some(remedy) => outage.mended_by(remedy),
                None => outage,
            };
        }
        rustls::Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13)
        | rustls::Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            "it does not speak TLS 1.2 or 1.3, and older versions are not safe".to_owned()
        }
        rustls::Error::AlertReceived(alert) => match certificate.filter(|_| is_about_certificate(*alert)) {
            Some(file) => {
                return Outage::refused(format!(
                    "{target} does not take the certificate in {file} ({alert:?})"
                ))
                .mended_by(
                    "check that it is the device's, has not expired, and that the hub knows it or its CA",
                );
            }
            None => format!("it ended the handshake with {alert:?}"),
        },
        rustls::Error::InvalidMessage(_) => "what answers there does not speak TLS".to_owned(),
        other => other.to_string(),
    };
    Outage::unreachable(format!("no secure connection to {target}: {why}"))
}

/// How the verifier calls a certificate of X.509 version 1.
const VERSION_1: &str = "UnsupportedCertVersion";
/// What to do where the machine does not trust a CA.
const INSTALL: &str = "if it should, name the CA's certificate in hub.ca_file, or copy it to \
                       /usr/local/share/ca-certificates/NAME.crt and run update-ca-certificates; neither needs a restart";
/// The keys that certificates may have, for people. Source: the crypto provider, ring.
pub(super) const KEYS: &str =
    "a key on the curve P-256 or P-384, an Ed25519 key, or an RSA key of 2048 bits or more";

/// Whether an alert is about the certificate that was shown to the server.
fn is_about_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRequired
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError
    )
}

/// What is wrong with a server's certificate, and what helps.
fn explain_certificate(why: &CertificateError) -> (String, Option<String>) {
    const CLOCK: &str = "check the clock";
    let (why, remedy) = match why {
        CertificateError::UnknownIssuer => ("is of a CA that this machine does not trust", INSTALL),
        CertificateError::BadSignature => (
            "is of a CA that this machine does not trust, although it trusts one of that name, or is signed by an RSA \
             key of fewer than 2048 bits",
            INSTALL,
        ),
        CertificateError::Other(other) if other.to_string() == VERSION_1 => (
            "is of X.509 version 1, which says too little to be checked",
            "the server needs one of version 3",
        ),
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            let why = "has a key or a signature of a kind that is not supported";
            return (why.to_owned(), Some(format!("the server needs {KEYS}")));
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
            "is for another name",
            "check the hub's name in the connection string, or provisioning.global_endpoint",
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            ("has expired, by this machine's clock", CLOCK)
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            ("is not valid yet, by this machine's clock", CLOCK)
        }
        other => return (format!("cannot be accepted: {other:?}"), None),
    };
    (why.to_owned(), Some(remedy.to_owned()))
}
