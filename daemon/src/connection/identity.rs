//! Who the daemon is at its hub, a device or a module of one, and what proves it.

use std::fmt;
use std::path::PathBuf;

use iotdm_proto::{Endpoint, Identity, SecretKey, sas};

use super::tls::CertificateFiles;

/// Where the daemon's name and its hub come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// Both stand in the connection string.
    Fixed(Login),
    /// The provisioning service gives the device both.
    Provisioned(Enrolment),
}

/// Whom the daemon logs in as, and where.
#[derive(Debug, Clone)]
pub struct Login {
    /// The hub, as it stands in user names and SAS resources.
    pub hub: Endpoint,
    /// The device, or the module of a device: IoT Hub lets one connection in for each,
    /// so that a daemon that is a module leaves the device to other programs.
    pub id: Identity,
    /// What is connected to instead of the hub itself, if anything.
    pub gateway: Option<Endpoint>,
    /// How the daemon proves who it is.
    pub proof: Proof,
}

/// How a device or a module proves who it is.
#[derive(Debug, Clone)]
pub enum Proof {
    /// By tokens that a shared access key signs.
    Key {
        /// The key that signs the tokens.
        key: SecretKey,
        /// Where the key came from, for messages.
        origin: Origin,
    },
    /// By a certificate.
    Certificate(CertificateFiles),
}

/// Where a secret came from, for people who mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The file that a person can change: where systemd hands the secret over as a
    /// credential, the file that systemd takes the credential from.
    pub file: PathBuf,
    /// The command that replaces the file, where it is known.
    pub command: Option<String>,
}

/// A device that asks the provisioning service for its name and its hub.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// The provisioning service's instance.
    pub id_scope: String,
    /// The device's name for itself.
    pub registration_id: String,
    /// Where the service is.
    pub endpoint: Endpoint,
    /// How the device proves who it is, here and at its hub.
    pub proof: Proof,
}

impl Login {
    /// The host and port to open a connection to.
    pub fn target(&self) -> &Endpoint {
        self.gateway.as_ref().unwrap_or(&self.hub)
    }
}

impl Source {
    /// How the device proves who it is.
    pub fn proof(&self) -> &Proof {
        match self {
            Source::Fixed(identity) => &identity.proof,
            Source::Provisioned(enrolment) => &enrolment.proof,
        }
    }
}

impl Proof {
    /// A token for `resource` that ends at `expiry`, in seconds since the Unix
    /// epoch; none where the device shows a certificate instead. `policy` is the
    /// `skn=` that the provisioning service wants.
    pub fn token(&self, resource: &str, expiry: u64, policy: Option<&str>) -> Option<String> {
        match self {
            Proof::Key { key, .. } => Some(sas::sign(resource, key, expiry, policy)),
            Proof::Certificate(_) => None,
        }
    }

    /// The files of the certificate to show; none where a key signs tokens.
    pub fn certificate(&self) -> Option<&CertificateFiles> {
        match self {
            Proof::Key { .. } => None,
            Proof::Certificate(files) => Some(files),
        }
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Proof::Key { origin, .. } => match &origin.command {
                Some(command) => write!(f, "key in {} (to replace it: {command})", origin.file.display()),
                None => write!(f, "key in {}", origin.file.display()),
            },
            Proof::Certificate(files) => write!(f, "certificate in {}", files.certificate.display()),
        }
    }
}
