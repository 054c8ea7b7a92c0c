//! Which CAs are trusted, and whether a server's certificate is signed by one: by the
//! system's or by those in `hub.ca_file`.
//!
//! The system has some 150 CAs, of which a server needs one. None of them is read
//! before a server has shown its certificates, and then only those are looked at whose
//! name is in them: the ones in `hub.ca_file`, then the system's bundle, and at last
//! every place that the system keeps CAs in. That takes less time at a start, leaves
//! nothing in memory, and accepts what all of them together would.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::der::Body;
use super::observe::{Milestone, Observer};

/// Judges the certificates that servers show.
#[derive(Debug)]
pub(super) struct Judge {
    algorithms: WebPkiSupportedAlgorithms,
    /// The CAs in `hub.ca_file`.
    further: Arc<RootCertStore>,
    /// Who is told which certificates servers show.
    observer: Observer,
}

impl Judge {
    /// Trusts the system's CAs and `further` ones.
    pub(super) fn new(
        algorithms: WebPkiSupportedAlgorithms,
        further: Arc<RootCertStore>,
        observer: Observer,
    ) -> Self {
        Judge { algorithms, further, observer }
    }

    fn is_signed(
        &self,
        own: &ParsedCertificate<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
        roots: &RootCertStore,
    ) -> Result<(), Error> {
        verify_server_cert_signed_by_trust_anchor(own, roots, others, now, self.algorithms.all)
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.observer.listens() {
            let chain =
                std::iter::once(own).chain(others).map(|certificate| certificate.clone().into_owned());
            self.observer.tell(Milestone::Shown(chain.collect()));
        }
        let parsed = ParsedCertificate::try_from(own)?;
        let named = Named::by(own, others);
        self.is_signed(&parsed, others, now, &self.further)
            .or_else(|_| self.is_signed(&parsed, others, now, &named.inside(bundle())))
            // Whatever is wrong is said by all that are trusted together.
            .or_else(|_| self.is_signed(&parsed, others, now, &named.anywhere(&self.further)))?;
        verify_server_name(&parsed, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The CAs that the certificates of a chain name as their issuers. No other CA can have
/// signed one of them. Source: RFC 5280, 6.1.3 (a) (4).
struct Named<'a>(Vec<Option<&'a [u8]>>);

impl<'a> Named<'a> {
    fn by(own: &'a CertificateDer<'_>, others: &'a [CertificateDer<'_>]) -> Self {
        let issuer = |certificate: &'a CertificateDer<'_>| Body::read(certificate).map(|body| body.issuer);
        Named(std::iter::once(own).chain(others).map(issuer).collect())
    }

    /// Whether `ca` may be one of them: also where it or what names it cannot be read
    /// here, since rustls may be able to.
    fn has(&self, ca: &CertificateDer<'_>) -> bool {
        let subject = Body::read(ca).map(|body| body.subject);
        subject.is_none() || self.0.iter().any(|issuer| issuer.is_none() || *issuer == subject)
    }

    /// Those in the PEM file `bundle`. What of it cannot be read is complained of by
    /// [`complaint`].
    fn inside(&self, bundle: Option<PathBuf>) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        if let Some(certificates) = bundle.and_then(|file| CertificateDer::pem_file_iter(file).ok()) {
            roots.add_parsable_certificates(certificates.flatten().filter(|ca| self.has(ca)));
        }
        roots
    }

    /// Those that the system has anywhere, and `further` ones.
    fn anywhere(&self, further: &RootCertStore) -> RootCertStore {
        let mut roots = further.clone();
        let system = rustls_native_certs::load_native_certs().certs;
        roots.add_parsable_certificates(system.into_iter().filter(|ca| self.has(ca)));
        roots
    }
}

/// The file with all CAs of the system; none where variables name other places.
fn bundle() -> Option<PathBuf> {
    (!openssl_probe::has_ssl_cert_env_vars()).then(|| openssl_probe::probe().cert_file).flatten()
}

/// The places that the system keeps CAs in.
pub(super) fn places() -> impl Iterator<Item = PathBuf> {
    let system = openssl_probe::probe();
    system.cert_file.into_iter().chain(system.cert_dir)
}

/// What is wrong with the places of the system's CAs, or with having no CA at all,
/// neither there nor among `further` ones.
pub(super) fn complaint(further: &RootCertStore) -> Option<String> {
    let system = rustls_native_certs::load_native_certs();
    let mut complaints: Vec<String> = system
        .errors
        .iter()
        .map(|error| format!("a part of the system's CA store cannot be read: {error}"))
        .collect();
    let mut roots = further.clone();
    roots.add_parsable_certificates(system.certs);
    if roots.is_empty() {
        complaints.push("no CA is trusted: install ca-certificates or set hub.ca_file".to_owned());
    }
    (!complaints.is_empty()).then(|| complaints.join("; "))
}

/// The CAs in the PEM file `ca_file`; at least one.
pub fn read_ca_file(ca_file: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates("ca_file", ca_file)? {
        roots
            .add(certificate)
            .with_context(|| format!("a certificate in ca_file {} cannot be used", ca_file.display()))?;
    }
    Ok(roots)
}

/// The certificates in the PEM file that the setting `key` names; at least one.
pub(super) fn read_certificates(key: &str, file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let pem = fs::read(file).with_context(|| format!("cannot read {key} {}", file.display()))?;
    let certificates = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("{key} {} is not valid PEM", file.display()))?;
    ensure!(!certificates.is_empty(), "{key} {} has no PEM certificate in it", file.display());
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

    use rustls::CertificateError;

    use super::*;

    #[test]
    fn a_ca_file_without_a_usable_certificate_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        let error = |bytes: &str| {
            fs::write(&file, bytes).unwrap();
            format!("{:#}", read_ca_file(&file).unwrap_err())
        };
        assert!(error("hello").contains("has no PEM certificate"));
        let garbage = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
        assert!(error(garbage).contains("cannot be used"));
        fs::remove_file(&file).unwrap();
        let missing = format!("{:#}", read_ca_file(&file).unwrap_err());
        assert!(missing.contains("ca.pem"), "{missing}");
    }

    type Authority = CertifiedIssuer<'static, KeyPair>;

    fn authority(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn server(ca: &Authority) -> CertificateDer<'static> {
        let params = CertificateParams::new(["hub.example".to_owned()]).unwrap();
        params.signed_by(&KeyPair::generate().unwrap(), ca).unwrap().into()
    }

    fn judged(further: &[&Authority], own: &CertificateDer<'_>, name: &str) -> Result<(), Error> {
        let mut roots = RootCertStore::empty();
        further.iter().for_each(|ca| roots.add(ca.der().clone()).unwrap());
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        let judge = Judge::new(algorithms, Arc::new(roots), Observer::default());
        let name = ServerName::try_from(name).unwrap();
        judge.verify_server_cert(own, &[], &name, &[], UnixTime::now()).map(|_| ())
    }

    #[test]
    fn only_what_a_trusted_ca_has_signed_for_this_name_is_accepted() {
        let (ours, namesake, other) = (authority("ours"), authority("ours"), authority("other"));
        let own = server(&ours);
        judged(&[&other, &ours], &own, "hub.example").unwrap();
        let unknown = Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        assert_eq!(judged(&[&other], &own, "hub.example"), unknown);
        assert_eq!(judged(&[], &own, "hub.example"), unknown);
        // Its name alone makes no CA.
        assert!(judged(&[&namesake], &own, "hub.example").is_err());
        assert!(matches!(
            judged(&[&ours], &own, "elsewhere.example"),
            Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. }))
        ));
        let broken = CertificateDer::from(vec![0x30, 0]);
        let why = judged(&[&ours], &broken, "hub.example");
        assert_eq!(why, Err(Error::InvalidCertificate(CertificateError::BadEncoding)));
    }

    #[test]
    fn of_a_bundle_only_what_a_chain_names_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("bundle.pem");
        let (one, two, namesake) = (authority("one"), authority("two"), authority("two"));
        let torn = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
        fs::write(&file, [&one.pem(), torn, &two.pem(), &namesake.pem()].concat()).unwrap();
        let (by_one, by_two) = (server(&one), server(&two));
        let taken = |own: &CertificateDer<'_>, others: &[CertificateDer<'_>]| {
            Named::by(own, others).inside(Some(file.clone())).len()
        };
        assert_eq!(taken(&by_one, &[]), 1);
        assert_eq!(taken(&by_two, &[]), 2);
        assert_eq!(taken(&by_two, std::slice::from_ref(&by_one)), 3);
        assert_eq!(taken(&server(&authority("nobody")), &[]), 0);
        // A certificate that cannot be read here may be signed by any of them.
        assert_eq!(taken(&CertificateDer::from(vec![0x30, 0]), &[]), 3);
        assert_eq!(Named::by(&by_one, &[]).inside(Some(dir.path().join("missing"))).len(), 0);
    }
}
