//! What servers' certificates are checked against, and the certificate that
//! this machine shows.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, InconsistentKeys, RootCertStore};
use zeroize::Zeroizing;

use crate::connection::der::{self, KeyKind};
use crate::connection::observe::Observer;
use crate::connection::outage::{KEYS, Outage};
use crate::connection::trust::{self, Judge, Proven};

/// The files of the certificate that this machine shows, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, and those between it and its CA.
    pub certificate: PathBuf,
    /// The certificate's key, not encrypted: PKCS#8, PKCS#1 or SEC1.
    pub private_key: PathBuf,
}

/// Makes the configurations of TLS connections: host names checked against the
/// system's CAs and further ones, TLS 1.2 and 1.3, sessions resumed. What stands in
/// files is read again when it has changed.
#[derive(Debug)]
pub struct Tls {
    provider: Arc<CryptoProvider>,
    ca_file: Option<PathBuf>,
    files: Option<CertificateFiles>,
    /// The CAs in that file, once it was read.
    further: Option<Further>,
    /// The system's CAs by which servers were last trusted.
    proven: Arc<Proven>,
    /// Whether the CAs are to be read again even if no file seems to have changed.
    distrusted: bool,
    /// Who is told which certificates servers show.
    observer: Observer,
    /// The latest configuration, which holds the TLS sessions that can be resumed,
    /// and the state of the files that it was made from.
    made: Option<(Vec<Stamp>, Arc<ClientConfig>)>,
}

/// The CAs in `hub.ca_file`.
#[derive(Debug)]
struct Further {
    roots: Arc<RootCertStore>,
    /// The state of all places that CAs are read from, the system's as well.
    stamps: Vec<Option<Stamp>>,
    /// What is wrong with the file.
    complaint: Option<String>,
}

/// What one connection is secured with.
#[derive(Debug, Clone)]
pub struct Client {
    /// Roots, certificate, sessions.
    pub config: Arc<ClientConfig>,
    /// The file of the certificate that is shown, for people.
    pub certificate: Option<String>,
}

/// Device, inode, size and time of modification (seconds, nanoseconds) of a file,
/// by which it shows that the file was changed or replaced.
type Stamp = (u64, u64, u64, i64, i64);

/// How many TLS sessions are kept for resumption: for two servers, the hub and the
/// provisioning service, at the eight that rustls reckons for each.
const SESSIONS: usize = 16;
/// The shortest RSA key that the crypto provider takes. Source: ring, `RsaKeyPair`.
const MIN_RSA_BITS: usize = 2048;

impl Tls {
    /// Trusts the system's CAs and those in `ca_file`; shows what is in `files`.
    pub fn new(ca_file: Option<PathBuf>, files: Option<CertificateFiles>) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Tls {
            provider,
            ca_file,
            files,
            further: None,
            proven: Arc::default(),
            distrusted: false,
            observer: Observer::default(),
            made: None,
        }
    }

    /// Has the certificates that servers show from now on told to `observer`.
    pub fn observe(&mut self, observer: Observer) {
        (self.observer, self.made) = (observer, None);
    }

    /// What a connection is secured with now: CAs that were installed and a
    /// certificate that was renewed on disk are taken up.
    pub fn client(&mut self) -> Result<Client, Outage> {
        let certificate = self.files.as_ref().map(|files| files.certificate.display().to_string());
        match (self.config(), &self.made) {
            (Ok(config), _) => Ok(Client { config, certificate }),
            // The files may be half renewed, and the pair in memory still be good.
            (Err(error), Some((_, config))) => {
                tracing::warn!("the certificate of before is used: {error:#}");
                Ok(Client { config: config.clone(), certificate })
            }
            // No refusal of the hub's: what is wrong with the files may be mended, or
            // the files may come, at any time.
            (Err(error), None) => Err(Outage::unreachable(format!("{error:#}"))),
        }
    }

    /// Takes note that a server's certificate was not accepted: the CAs are read
    /// again for the next connection. What is wrong with the places that they are
    /// read from, if anything, is the likely cause.
    pub fn distrusted(&mut self) -> Option<String> {
        self.distrusted = true;
        let further = self.further.as_ref()?;
        let system = trust::complaint(&further.roots, &self.proven);
        let complaints = further.complaint.clone().into_iter().chain(system);
        complaints.reduce(|one, other| format!("{one}; {other}"))
    }

    /// The CAs in `hub.ca_file`, read again if any place of CAs has changed or if a
    /// server was distrusted. After a change no TLS session of before is resumed: the CA
    /// by which the server was trusted may be gone.
    fn further(&mut self) -> Arc<RootCertStore> {
        let stamps = self.stamps();
        let before = self.further.take();
        if let Some(further) = before.as_ref().filter(|before| before.stamps == stamps && !self.distrusted) {
            let roots = further.roots.clone();
            self.further = before;
            return roots;
        }
        self.distrusted = false;
        let (roots, complaint) = match self.ca_file.as_deref().map(trust::read_ca_file).transpose() {
            Ok(roots) => (roots.unwrap_or_else(RootCertStore::empty), None),
            Err(error) => {
                // On a disk that fails nothing was taken away from what is trusted.
                let fails = self.ca_file.as_deref().is_some_and(|file| trust::unreadable(file).is_some());
                let known = before.as_ref().filter(|_| fails);
                let roots =
                    known.map_or_else(RootCertStore::empty, |known| RootCertStore::clone(&known.roots));
                (roots, Some(format!("{error:#}")))
            }
        };
        if before.as_ref().is_some_and(|before| before.stamps != stamps || before.roots.roots != roots.roots)
        {
            tracing::info!("the files of the trusted CAs have changed and are taken up");
            self.made = None;
        }
        if let Some(complaint) = &complaint
            && before.is_none_or(|before| before.complaint.as_ref() != Some(complaint))
        {
            tracing::warn!("{complaint}");
        }
        let roots = Arc::new(roots);
        self.further = Some(Further { roots: roots.clone(), stamps, complaint });
        roots
    }

    /// The state of the places that CAs are read from.
    fn stamps(&self) -> Vec<Option<Stamp>> {
        self.ca_file.iter().cloned().chain(trust::places()).map(|place| stamp(&place).ok()).collect()
    }

    fn config(&mut self) -> anyhow::Result<Arc<ClientConfig>> {
        let further = self.further();
        let stamps = match &self.files {
            Some(files) => vec![stamp(&files.certificate)?, stamp(&files.private_key)?],
            None => Vec::new(),
        };
        if let Some((_, config)) = self.made.as_ref().filter(|(made_from, _)| *made_from == stamps) {
            return Ok(config.clone());
        }
        let builder = ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .context("the crypto provider lacks TLS 1.2 or 1.3")?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Judge::new(
                self.provider.signature_verification_algorithms,
                further,
                self.proven.clone(),
                self.observer.clone(),
            )));
        let mut config = match &self.files {
            None => builder.with_no_client_auth(),
            Some(files) => {
                let (chain, key) = files.read()?;
                let why_not = unsupported(&chain, &key);
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| files.unusable(&error, why_not.as_deref()))?
            }
        };
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        let config = Arc::new(config);
        self.made = Some((stamps, config.clone()));
        Ok(config)
    }
}

impl CertificateFiles {
    /// Checks that the files can be read and that the key belongs to the certificate.
    pub fn check(&self) -> anyhow::Result<()> {
        let provider = rustls::crypto::ring::default_provider();
        let (chain, key) = self.read()?;
        let why_not = unsupported(&chain, &key);
        rustls::sign::CertifiedKey::from_der(chain, key, &provider)
            .map_err(|error| self.unusable(&error, why_not.as_deref()))?;
        Ok(())
    }

    /// The certificate, and those between it and its CA.
    pub fn chain(&self) -> anyhow::Result<Vec<CertificateDer<'static>>> {
        trust::read_certificates("certificate_file", &self.certificate)
    }

    fn read(&self) -> anyhow::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let chain = self.chain()?;
        let file = self.private_key.display();
        let pem =
            fs::read(&self.private_key).with_context(|| format!("cannot read private_key_file {file}"))?;
        let pem = Zeroizing::new(pem);
        let encrypted = pem.windows(9).any(|part| part == b"ENCRYPTED");
        ensure!(
            !encrypted,
            "the key in private_key_file {file} is encrypted: decrypt it, and protect the file"
        );
        let key = PrivateKeyDer::from_pem_slice(&pem)
            .with_context(|| format!("private_key_file {file} has no private key in PEM in it"))?;
        Ok((chain, key))
    }

    /// What `error` of the crypto provider means; `why_not` says it in words where the
    /// kind of certificate or key is the cause.
    fn unusable(&self, error: &rustls::Error, why_not: Option<&str>) -> anyhow::Error {
        let (certificate, key) = (self.certificate.display(), self.private_key.display());
        match (error, why_not) {
            (rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch), _) => {
                anyhow::anyhow!("the key in {key} does not belong to the certificate in {certificate}")
            }
            (_, Some(why_not)) => {
                anyhow::anyhow!("the certificate in {certificate} with the key in {key} {why_not}")
            }
            (other, None) => anyhow::anyhow!(
                "the certificate in {certificate} and the key in {key} cannot be used: {other}"
            ),
        }
    }
}

/// Why a certificate and its key are of no use here, where that is due to their kind.
fn unsupported(chain: &[CertificateDer<'_>], key: &PrivateKeyDer<'_>) -> Option<String> {
    if chain.first().is_some_and(|certificate| der::is_version_1(certificate)) {
        return Some(
            "is of X.509 version 1, which cannot be used: make one of version 3, to openssl req or openssl x509 by \
             an option such as -addext or -extfile with basicConstraints=CA:FALSE"
                .to_owned(),
        );
    }
    let kind = match der::key_kind(key) {
        KeyKind::Rsa { bits } if bits < MIN_RSA_BITS => format!("an RSA key of {bits} bits"),
        KeyKind::Curve(name) => format!("a key on the curve {name}"),
        KeyKind::Rsa { .. } | KeyKind::Other => return None,
    };
    Some(format!("cannot be used, since that is {kind}: make {KEYS}, and a certificate for it"))
}

fn stamp(file: &Path) -> anyhow::Result<Stamp> {
    let metadata = fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok((metadata.dev(), metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate for `name` and its key, in files of these names.
    fn write_pair(dir: &Path, name: &str) -> CertificateFiles {
        let pair = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let files = CertificateFiles {
            certificate: dir.join(format!("{name}.pem")),
            private_key: dir.join(format!("{name}.key")),
        };
        fs::write(&files.certificate, pair.cert.pem()).unwrap();
        fs::write(&files.private_key, pair.signing_key.serialize_pem()).unwrap();
        files
    }

    #[test]
    fn a_pair_is_read_again_only_when_it_has_changed() {
        let dir = tempfile::tempdir().unwrap();
        let files = write_pair(dir.path(), "gw1");
        let mut tls = Tls::new(None, Some(files.clone()));
        let first = tls.client().unwrap().config;
        assert!(Arc::ptr_eq(&first, &tls.client().unwrap().config), "sessions would be lost");
        let renewed = write_pair(dir.path(), "renewed");
        fs::rename(&renewed.private_key, &files.private_key).unwrap();
        let half = format!("{:#}", tls.config().unwrap_err());
        assert!(half.contains("gw1.key does not belong to the certificate in "), "{half}");
        assert!(Arc::ptr_eq(&first, &tls.client().unwrap().config), "the one in memory does");
        let fresh = Tls::new(None, Some(files.clone())).client().unwrap_err();
        assert!(fresh.message.contains("does not belong"), "{}", fresh.message);
        fs::rename(&renewed.certificate, &files.certificate).unwrap();
        assert!(!Arc::ptr_eq(&first, &tls.client().unwrap().config));
    }

    #[test]
    fn a_ca_that_comes_late_or_is_added_is_taken_up() {
        let dir = tempfile::tempdir().unwrap();
        let ca_file = dir.path().join("ca.pem");
        let mut tls = Tls::new(Some(ca_file.clone()), None);
        let first = tls.client().unwrap().config;
        let count = |tls: &Tls| tls.further.as_ref().unwrap().roots.len();
        assert_eq!(count(&tls), 0);
        let complaint = tls.distrusted().unwrap();
        assert!(complaint.contains("cannot read ca_file ") && complaint.contains("ca.pem"), "{complaint}");
        assert!(Arc::ptr_eq(&first, &tls.client().unwrap().config), "nothing has changed");

        let ca = |name: &str| fs::read_to_string(write_pair(dir.path(), name).certificate).unwrap();
        fs::write(&ca_file, ca("one")).unwrap();
        let second = tls.client().unwrap().config;
        assert!(!Arc::ptr_eq(&first, &second));
        assert_eq!(count(&tls), 1);
        // The same file, of the same size and age, as a card's coarse clock may have it.
        let stamps = tls.further.as_ref().unwrap().stamps.clone();
        fs::write(&ca_file, [ca("two"), ca("three")].concat()).unwrap();
        tls.further.as_mut().unwrap().stamps = tls.stamps();
        assert_ne!(stamps, tls.stamps());
        assert!(Arc::ptr_eq(&second, &tls.client().unwrap().config), "it looks unchanged");
        tls.distrusted();
        assert!(!Arc::ptr_eq(&second, &tls.client().unwrap().config), "it is read again all the same");
        assert_eq!(count(&tls), 2);
        assert!(!tls.distrusted().unwrap_or_default().contains("ca_file"));
    }

    #[test]
    fn what_is_in_a_ca_file_is_trusted_while_its_disk_fails() {
        let dir = tempfile::tempdir().unwrap();
        let ca_file = dir.path().join("ca.pem");
        let ca = |name: &str| fs::read_to_string(write_pair(dir.path(), name).certificate).unwrap();
        fs::write(&ca_file, ca("one")).unwrap();
        let mut tls = Tls::new(Some(ca_file.clone()), None);
        let mut count = || {
            tls.client().unwrap();
            (tls.further.as_ref().unwrap().roots.len(), tls.distrusted().unwrap_or_default())
        };
        assert_eq!(count().0, 1);
        fs::remove_file(&ca_file).unwrap();
        std::os::unix::fs::symlink(dir.path().join("gone/ca.pem"), &ca_file).unwrap();
        for _ in 0..2 {
            let (known, told) = count();
            assert_eq!(known, 1);
            assert!(told.contains("cannot read ca_file "), "{told}");
        }
        fs::remove_file(&ca_file).unwrap();
        assert_eq!(count().0, 0, "taken away");
    }

    #[test]
    fn a_kind_of_certificate_or_key_that_cannot_be_used_is_said_in_words() {
        let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/connection/testdata");
        for (certificate, key, words) in [
            ("v1.pem", "ec.key", "is of X.509 version 1, which cannot be used: make one of version 3"),
            (
                "p521.pem",
                "p521.key",
                "cannot be used, since that is a key on the curve P-521: make a key on ",
            ),
            ("p521.pem", "p521.sec1.key", "since that is a key on the curve P-521"),
            ("rsa.pem", "rsa.key", "since that is an RSA key of 1024 bits: make a key on the curve P-256 or"),
            ("rsa.pem", "rsa.pkcs1.key", "since that is an RSA key of 1024 bits"),
        ] {
            let files =
                CertificateFiles { certificate: testdata.join(certificate), private_key: testdata.join(key) };
            let checked = format!("{:#}", files.check().unwrap_err());
            assert!(checked.contains(words) && checked.contains(certificate), "{checked}");
            let run = Tls::new(None, Some(files)).client().unwrap_err().message;
            assert_eq!(run, checked, "said in the same words at run time");
        }
    }

    #[test]
    fn each_mistake_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let good = write_pair(dir.path(), "good");
        good.check().unwrap();
        let other = write_pair(dir.path(), "other");
        let file = |name: &str, text: &str| {
            let file = dir.path().join(name);
            fs::write(&file, text).unwrap();
            file
        };
        let empty = file("empty", "");
        let encrypted = file(
            "encrypted",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n",
        );
        for (certificate, private_key, words) in [
            (&good.certificate, &other.private_key, "other.key does not belong to the certificate in "),
            (&empty, &good.private_key, "empty has no PEM certificate"),
            (&good.certificate, &empty, "empty has no private key"),
            (&good.certificate, &encrypted, "encrypted is encrypted"),
            (&dir.path().join("nowhere"), &good.private_key, "cannot read certificate_file "),
            (&good.certificate, &dir.path().join("nowhere"), "cannot read private_key_file "),
        ] {
            let pair =
                CertificateFiles { certificate: certificate.clone(), private_key: private_key.clone() };
            let error = format!("{:#}", pair.check().unwrap_err());
            assert!(error.contains(words), "{error}");
        }
    }
}
