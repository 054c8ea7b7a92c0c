//! Client certificates: every TLS handshake asks for one, which is judged when
//! the CONNECT (over TCP or over a WebSocket) says who the client is.
//!
//! A self-signed certificate is compared by its thumbprint alone; a certificate
//! from a CA needs a chain to that CA, and the identity as its common name
//! (`device` or `device/module`). Source: "Authenticate identities with X.509
//! certificates".

use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use sha1::{Digest as _, Sha1};
use sha2::{Digest as _, Sha256};
use tokio_rustls::server::TlsStream;
use tracing::warn;
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

/// The certificate that a client showed in its TLS handshake, where the client
/// has proved that it has the private key, with the certificates of CAs that came
/// along.
#[derive(Debug, Clone)]
pub struct ClientCertificate {
    leaf: CertificateDer<'static>,
    intermediates: Vec<CertificateDer<'static>>,
}

/// The CAs that devices' certificates may come from; by default none.
#[derive(Debug, Default)]
pub struct Authorities(Option<Arc<dyn ClientCertVerifier>>);

impl ClientCertificate {
    /// The certificate of a TLS connection; `None` when the client showed none.
    pub fn shown_in<IO>(stream: &TlsStream<IO>) -> Option<Self> {
        ClientCertificate::new(stream.get_ref().1.peer_certificates())
    }

    /// The certificate with its chain; `None` when there is none.
    pub fn new(chain: Option<&[CertificateDer<'static>]>) -> Option<Self> {
        let (leaf, intermediates) = chain?.split_first()?;
        Some(ClientCertificate { leaf: leaf.clone(), intermediates: intermediates.to_vec() })
    }

    /// The certificate in a text: DER in base64.
    pub fn from_base64(text: &str) -> Option<Self> {
        let der = STANDARD.decode(text).ok()?;
        Some(ClientCertificate { leaf: CertificateDer::from(der), intermediates: Vec::new() })
    }

    /// Whether the bytes are an X.509 certificate at all.
    pub fn is_readable(&self) -> bool {
        X509Certificate::from_der(&self.leaf).is_ok()
    }

    /// Whether this is the certificate in `base64`, which is DER in base64.
    pub fn is(&self, base64: &str) -> bool {
        STANDARD.encode(&self.leaf) == base64
    }

    /// The certificate's SHA-1 in upper-case hexadecimal.
    pub fn thumbprint(&self) -> String {
        hex(&Sha1::digest(&self.leaf))
    }

    /// Whether `thumbprint` is the certificate's SHA-1 or SHA-256 in upper-case
    /// hexadecimal.
    pub fn has_thumbprint(&self, thumbprint: &str) -> bool {
        thumbprint == self.thumbprint() || thumbprint == hex(&Sha256::digest(&self.leaf))
    }

    /// The common name, if the certificate has exactly one.
    pub fn common_name(&self) -> Option<String> {
        let (_, parsed) = X509Certificate::from_der(&self.leaf).ok()?;
        let mut names = parsed.subject().iter_common_name();
        match (names.next(), names.next()) {
            (Some(name), None) => name.as_str().ok().map(str::to_owned),
            _ => None,
        }
    }
}

impl Authorities {
    /// Reads the CA certificates in PEM files.
    pub fn read(files: &[PathBuf]) -> Result<Self> {
        if files.is_empty() {
            return Ok(Authorities::default());
        }
        let mut roots = RootCertStore::empty();
        for file in files {
            let name = || format!("cannot use {} as a CA of devices", file.display());
            let before = roots.len();
            for certificate in CertificateDer::pem_file_iter(file).with_context(name)? {
                roots.add(certificate.with_context(name)?).with_context(name)?;
            }
            if roots.len() == before {
                anyhow::bail!("{} has no certificate in PEM form", file.display());
            }
        }
        Authorities::new(roots).context("cannot use the CAs of devices")
    }

    /// The CAs with these certificates, each DER in base64.
    pub fn of(certificates: &[String]) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates.iter().filter_map(|text| ClientCertificate::from_base64(text)) {
            roots.add(certificate.leaf).map_err(|error| error.to_string())?;
        }
        Authorities::new(roots).map_err(|error| error.to_string())
    }

    fn new(roots: RootCertStore) -> Result<Self, VerifierBuilderError> {
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        Ok(Authorities(Some(verifier)))
    }

    /// Whether `certificate` comes from one of the CAs; the error says why not.
    pub fn check(&self, certificate: &ClientCertificate) -> Result<(), String> {
        let verifier = self.0.as_ref().ok_or("the hub has no CA of devices; give it one with --x509-ca")?;
        let ClientCertificate { leaf, intermediates } = certificate;
        let checked = verifier.verify_client_cert(leaf, intermediates, UnixTime::now());
        checked.map(drop).map_err(|error| error.to_string())
    }
}

/// Lets every certificate through the handshake whose private key the client
/// has. Only the CONNECT says which device the certificate is for, and so what
/// it has to be.
#[derive(Debug)]
pub struct AnyCertificate(CryptoProvider);

impl Default for AnyCertificate {
    fn default() -> Self {
        AnyCertificate(ring::default_provider())
    }
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        told(certificate, verify_tls12_signature(message, certificate, signature, algorithms))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        told(certificate, verify_tls13_signature(message, certificate, signature, algorithms))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl fmt::Display for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.common_name().unwrap_or_default();
        write!(f, "certificate of {name:?} with thumbprint {}", self.thumbprint())
    }
}

/// Says in the log why a handshake fails for a certificate that the service would
/// take: the client learns nothing but that its certificate is bad.
fn told<T>(certificate: &CertificateDer<'_>, verified: Result<T, rustls::Error>) -> Result<T, rustls::Error> {
    if verified.is_err() && is_of_version_1(certificate) {
        warn!(
            "refused a certificate of X.509 version 1, which IoT Hub takes and rustls cannot read; make one of version 3"
        );
    }
    verified
}

/// Whether a certificate is of X.509 version 1, as `openssl x509 -req` makes it when
/// it is given no extensions.
fn is_of_version_1(certificate: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(certificate).is_ok_and(|(_, parsed)| parsed.version() == X509Version::V1)
}

/// Upper-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02X}");
        text
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    use super::*;

    #[test]
    fn a_certificate_of_version_1_is_known_as_one() {
        // Self-signed, by openssl: rcgen makes version 3 alone.
        let old = "MIIBGDCBvwIUfOi/OJvfdvQIiSopv77Y8M0nK40wCgYIKoZIzj0EAwIwDjEMMAoGA1UEAwwDZ3cxMCAXDTI2MTEyNTIxMDkyMVoYDzIxMjYxMTAxMjEwOTIxWjAOMQwwCgYDVQQDDANndzEwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAARVchkGNYWCXJcQevVGjsKewk5u+D+SqSCibXHs2FidZBFO9aiIaciNrW8YB0cFxpgNAokIjNjYpz/TA9q6xp62MAoGCCqGSM49BAMCA0gAMEUCIQDRJL1j6YBFqzxGLM2Zq0v2+ZiQsyBXSB1ihkEzg5QE0AIgC8dfDvR9BR2N+8q0yVseqvfci6uyz9BqwWpeG2D9R/U=";
        let old = ClientCertificate::from_base64(old).unwrap();
        assert!(is_of_version_1(&old.leaf) && old.common_name().unwrap() == "gw1");
        let key = KeyPair::generate().unwrap();
        let new = params("gw1").self_signed(&key).unwrap();
        assert!(!is_of_version_1(new.der()));
        assert!(!is_of_version_1(&CertificateDer::from(vec![1, 2])));
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    }

    fn shown(certificate: &rcgen::Certificate) -> ClientCertificate {
        ClientCertificate::new(Some(&[certificate.der().clone()])).unwrap()
    }

    #[test]
    fn a_certificate_of_the_authority_and_others() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        let mut ca = params("ca");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = KeyPair::generate().unwrap();
        std::fs::write(&file, ca.self_signed(&ca_key).unwrap().pem()).unwrap();
        let authorities = Authorities::read(&[file]).unwrap();

        let key = KeyPair::generate().unwrap();
        let issued = shown(&params("gw1").signed_by(&key, &Issuer::new(ca, ca_key)).unwrap());
        assert_eq!(issued.common_name().as_deref(), Some("gw1"));
        authorities.check(&issued).unwrap();
        let own = shown(&params("gw1").self_signed(&key).unwrap());
        assert!(authorities.check(&own).is_err());
        assert!(Authorities::default().check(&issued).unwrap_err().contains("--x509-ca"));
    }

    #[test]
    fn both_kinds_of_thumbprints() {
        // The hashes of the bytes "abc" are the test vectors of FIPS 180.
        let certificate =
            ClientCertificate { leaf: CertificateDer::from(b"abc".to_vec()), intermediates: Vec::new() };
        assert!(certificate.has_thumbprint("A9993E364706816ABA3E25717850C26C9CD0D89D"));
        assert!(
            certificate.has_thumbprint("BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD")
        );
        assert!(!certificate.has_thumbprint("00"));
        assert_eq!(certificate.common_name(), None);
    }

    #[test]
    fn a_file_without_certificates_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("empty.pem");
        std::fs::write(&file, "").unwrap();
        let error = Authorities::read(&[file]).unwrap_err().to_string();
        assert!(error.contains("empty.pem"), "{error}");
    }
}
