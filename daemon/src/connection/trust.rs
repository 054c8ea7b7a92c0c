//! Which CAs are trusted, and whether a server's certificate is signed by one: by the
//! system's or by those in `hub.ca_file`.
//!
//! The system has some 150 CAs, of which a server needs one. None of them is read
//! before a server has shown its certificates, and then only those are looked at whose
//! name is in them: the ones in `hub.ca_file`, then the system's bundle, and at last
//! every place that the system keeps CAs in. That takes less time at a start, and accepts
//! what all of them together would. Kept in memory are only those CAs by which servers
//! were last trusted ([`Proven`]), for when the disk fails.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, ensure};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
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
    /// The system's CAs that have proven right.
    proven: Arc<Proven>,
    /// Who is told which certificates servers show.
    observer: Observer,
}

impl Judge {
    /// Trusts the system's CAs, `proven` ones while the disk fails, and `further` ones.
    pub(super) fn new(
        algorithms: WebPkiSupportedAlgorithms,
        further: Arc<RootCertStore>,
        proven: Arc<Proven>,
        observer: Observer,
    ) -> Self {
        Judge { algorithms, further, proven, observer }
    }

    /// Whether a CA has signed the server's `own` certificate, by way of `others`. The
    /// system's CAs are in `store`.
    fn is_trusted(
        &self,
        own: &ParsedCertificate<'_>,
        others: &[CertificateDer<'_>],
        named: &Named<'_>,
        now: UnixTime,
        store: Store,
    ) -> Result<(), Error> {
        let signed = |roots: &RootCertStore| {
            verify_server_cert_signed_by_trust_anchor(own, roots, others, now, self.algorithms.all)
        };
        if signed(&self.further).is_ok() {
            return Ok(());
        }
        if let Some(bundle) = store.bundle {
            let inside = named.inside(&bundle);
            if signed(&inside).is_ok() {
                self.proven.keep(&inside, &[bundle], signed);
                return Ok(());
            }
        }
        let system = named.anywhere();
        // Whatever is wrong is said by all that are trusted together.
        let mut all = RootCertStore::clone(&self.further);
        all.extend(system.roots.iter().cloned());
        match signed(&all) {
            Ok(()) => self.proven.keep(&system, &store.places, signed),
            Err(error) => {
                let why = self.proven.stands_in(signed).ok_or(error)?;
                tracing::warn!(
                    "the CA that has signed the certificate of the server is trusted as before, since {why}"
                );
            }
        }
        Ok(())
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
        self.is_trusted(&parsed, others, &Named::by(own, others), now, Store::find())?;
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
    fn inside(&self, bundle: &Path) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        if let Ok(certificates) = CertificateDer::pem_file_iter(bundle) {
            roots.add_parsable_certificates(certificates.flatten().filter(|ca| self.has(ca)));
        }
        roots
    }

    /// Those that the system has anywhere.
    fn anywhere(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        let system = rustls_native_certs::load_native_certs().certs;
        roots.add_parsable_certificates(system.into_iter().filter(|ca| self.has(ca)));
        roots
    }
}

/// Those of the system's CAs by which servers were last trusted. They stand in for the
/// system's store while that cannot be read: a machine whose card fails has to be
/// reached, so that it can be rebooted. As soon as the store can be read, it alone
/// counts.
#[derive(Debug, Default)]
pub(super) struct Proven(Mutex<Vec<ProvenCa>>);

#[derive(Debug)]
struct ProvenCa {
    anchor: TrustAnchor<'static>,
    /// Where it was read from, or may have been.
    places: Vec<PathBuf>,
}

/// How many proven CAs are kept: for the hub, the provisioning service, and one to which
/// either of them changes.
const MAX_PROVEN: usize = 3;

impl Proven {
    /// Keeps that one of the `roots`, which were read from `places`, by which alone a
    /// server is trusted.
    fn keep(
        &self,
        roots: &RootCertStore,
        places: &[PathBuf],
        signed: impl Fn(&RootCertStore) -> Result<(), Error>,
    ) {
        let Some(anchor) = roots.roots.iter().find(|anchor| signed(&only(anchor)).is_ok()) else { return };
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|ca| ca.anchor != *anchor);
        kept.push(ProvenCa { anchor: anchor.clone(), places: places.to_vec() });
        let excess = kept.len().saturating_sub(MAX_PROVEN);
        kept.drain(..excess);
    }

    /// Why a CA that has signed what a server shows can be trusted though it is not found
    /// in the system's store: since that cannot be read. One that is gone from a store
    /// that can be read is forgotten.
    fn stands_in(&self, signed: impl Fn(&RootCertStore) -> Result<(), Error>) -> Option<String> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut why = None;
        kept.retain(|ca| {
            if signed(&only(&ca.anchor)).is_err() {
                return true;
            }
            why = why.take().or_else(|| ca.places.iter().find_map(|place| unreadable(place)));
            why.is_some()
        });
        why
    }

    /// What is wrong with the places from which CAs were read before.
    fn complaints(&self) -> Vec<String> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut places: Vec<&PathBuf> = kept.iter().flat_map(|ca| &ca.places).collect();
        places.sort_unstable();
        places.dedup();
        places.into_iter().filter_map(|place| unreadable(place)).collect()
    }
}

fn only(anchor: &TrustAnchor<'static>) -> RootCertStore {
    RootCertStore { roots: vec![anchor.clone()] }
}

/// Why CAs in `place`, a file or a directory, cannot be read. A place that was removed
/// holds none, which is no failure; but a link that leads nowhere, and a directory that
/// is gone with all that was in it, tell of a file system that is not there.
pub(super) fn unreadable(place: &Path) -> Option<String> {
    let read = || match fs::metadata(place)?.is_dir() {
        true => fs::read_dir(place)?.try_for_each(|entry| entry.map(|_| ())),
        false => io::copy(&mut File::open(place)?, &mut io::sink()).map(|_| ()),
    };
    let error = read().err()?;
    let stands = place.parent().is_some_and(Path::is_dir) && place.symlink_metadata().is_err();
    let removed = error.kind() == ErrorKind::NotFound && stands;
    (!removed).then(|| format!("{} cannot be read: {error}", place.display()))
}

/// Where the system keeps its CAs.
#[derive(Debug, PartialEq, Eq)]
struct Store {
    /// The file with all of them; none where variables name other places.
    bundle: Option<PathBuf>,
    /// All places, files and directories.
    places: Vec<PathBuf>,
}

impl Store {
    fn find() -> Self {
        Self::named(env::var_os("SSL_CERT_FILE"), env::var_os("SSL_CERT_DIR"))
    }

    /// The places that these variables name, whether or not there is anything: who has
    /// set one trusts nothing else. Without them, those that are usual. Source:
    /// rustls-native-certs, which reads them.
    fn named(file: Option<OsString>, dirs: Option<OsString>) -> Self {
        let narrowed = file.is_some() || dirs.is_some();
        let dirs = dirs.iter().flat_map(env::split_paths).filter(|dir| !dir.as_os_str().is_empty());
        let named: Vec<PathBuf> = file.map(PathBuf::from).into_iter().chain(dirs).collect();
        if !named.is_empty() {
            return Store { bundle: None, places: named };
        }
        let usual = openssl_probe::probe();
        let bundle = usual.cert_file.clone().filter(|_| !narrowed);
        Store { bundle, places: usual.cert_file.into_iter().chain(usual.cert_dir).collect() }
    }
}

/// The places that the system keeps CAs in.
pub(super) fn places() -> Vec<PathBuf> {
    Store::find().places
}

/// What is wrong with the places of the system's CAs, or with having no CA at all,
/// neither there nor among `further` ones.
pub(super) fn complaint(further: &RootCertStore, proven: &Proven) -> Option<String> {
    let system = rustls_native_certs::load_native_certs();
    let mut complaints: Vec<String> = system
        .errors
        .iter()
        .map(|error| format!("a part of the system's CA store cannot be read: {error}"))
        .collect();
    complaints.extend(proven.complaints());
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
        let judge = Judge::new(algorithms, Arc::new(roots), Arc::default(), Observer::default());
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
            Named::by(own, others).inside(&file).len()
        };
        assert_eq!(taken(&by_one, &[]), 1);
        assert_eq!(taken(&by_two, &[]), 2);
        assert_eq!(taken(&by_two, std::slice::from_ref(&by_one)), 3);
        assert_eq!(taken(&server(&authority("nobody")), &[]), 0);
        // A certificate that cannot be read here may be signed by any of them.
        assert_eq!(taken(&CertificateDer::from(vec![0x30, 0]), &[]), 3);
        assert_eq!(Named::by(&by_one, &[]).inside(&dir.path().join("missing")).len(), 0);
    }

    #[test]
    fn whoever_names_other_places_trusts_those_alone() {
        let named = |file: Option<&str>, dirs: Option<&str>| {
            Store::named(file.map(OsString::from), dirs.map(OsString::from))
        };
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        for (file, dirs, places) in [
            (Some("/not/there/yet.pem"), None, paths(&["/not/there/yet.pem"])),
            (Some(""), None, paths(&[""])),
            (None, Some("/x/a:/x/b"), paths(&["/x/a", "/x/b"])),
            (Some("/x/a.pem"), Some(":/x/b"), paths(&["/x/a.pem", "/x/b"])),
        ] {
            assert_eq!(named(file, dirs), Store { bundle: None, places }, "{file:?} {dirs:?}");
        }
        // Names no place at all, and all the same is not to lead to more than is usual.
        let usual = named(None, None);
        assert_eq!(named(None, Some("")), Store { bundle: None, places: usual.places.clone() });
        assert_eq!(usual.bundle.as_ref(), usual.places.first().filter(|place| place.is_file()));
    }

    #[test]
    fn a_proven_ca_stands_in_for_a_store_that_cannot_be_read_and_for_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let (sub, bundle) = (dir.path().join("certs"), dir.path().join("certs/bundle.pem"));
        let (ours, other) = (authority("ours"), authority("other"));
        let own = server(&ours);
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        let proven = Arc::new(Proven::default());
        let further = Arc::new(RootCertStore::empty());
        let judge = Judge::new(algorithms, further.clone(), proven.clone(), Observer::default());
        let trusts = |own: &CertificateDer<'_>| {
            let store = Store { bundle: Some(bundle.clone()), places: vec![bundle.clone()] };
            let parsed = ParsedCertificate::try_from(own).unwrap();
            judge.is_trusted(&parsed, &[], &Named::by(own, &[]), UnixTime::now(), store).is_ok()
        };
        let write = |authorities: &[&Authority]| {
            fs::create_dir_all(&sub).unwrap();
            fs::write(&bundle, authorities.iter().map(|ca| ca.pem()).collect::<String>()).unwrap();
        };
        // Nothing has proven right yet, so nothing stands in.
        fs::create_dir_all(&bundle).unwrap();
        assert!(!trusts(&own));
        fs::remove_dir(&bundle).unwrap();
        write(&[&other, &ours]);
        assert!(trusts(&own));
        assert_eq!(proven.0.lock().unwrap().len(), 1, "only what has signed is kept");
        assert_eq!(complaint(&further, &proven).filter(|told| told.contains("bundle.pem")), None);
        // A link into a file system that is gone; then a directory that is.
        fs::remove_file(&bundle).unwrap();
        std::os::unix::fs::symlink(dir.path().join("gone"), &bundle).unwrap();
        assert!(trusts(&own));
        assert!(!trusts(&server(&other)), "it has signed nothing before");
        let told = complaint(&further, &proven).unwrap();
        assert!(told.contains("bundle.pem cannot be read: "), "{told}");
        fs::remove_dir_all(&sub).unwrap();
        assert!(trusts(&own));
        // The store can be read, and the CA is not in it any more: gone for good.
        write(&[&other]);
        assert!(!trusts(&own));
        fs::remove_dir_all(&sub).unwrap();
        assert!(!trusts(&own));
        // The same where the file was taken away.
        write(&[&ours]);
        assert!(trusts(&own));
        fs::remove_file(&bundle).unwrap();
        assert!(!trusts(&own));
    }

    #[test]
    fn a_bundle_whose_read_fails_is_told_and_comes_to_an_end() {
        let dir = tempfile::tempdir().unwrap();
        // It opens, and each read fails.
        let own = server(&authority("ours"));
        assert_eq!(Named::by(&own, &[]).inside(dir.path()).len(), 0);
        let proc = Path::new("/proc/self/mem");
        assert!(unreadable(proc).unwrap().contains("cannot be read"), "a read that fails");
        assert_eq!(unreadable(&dir.path().join("removed")), None);
        assert_eq!(unreadable(dir.path()), None);
    }
}
