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

use crate::connection::outage::Outage;

/// The files of the certificate that this machine shows, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, and those between it and its CA.
    pub certificate: PathBuf,
    /// The certificate's key, not encrypted: PKCS#8, PKCS#1 or SEC1.
    pub private_key: PathBuf,
}

/// Makes the configurations of TLS connections: host names checked against the
/// system's CAs and further ones, TLS 1.2 and 1.3, sessions resumed.
#[derive(Debug)]
pub struct Tls {
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    files: Option<CertificateFiles>,
    /// The latest configuration, which holds the TLS sessions that can be resumed,
    /// and the state of the files that it was made from.
    made: Option<(Stamps, Arc<ClientConfig>)>,
}

/// What one connection is secured with.
#[derive(Debug, Clone)]
pub struct Client {
    /// Roots, certificate, sessions.
    pub config: Arc<ClientConfig>,
    /// The file of the certificate that is shown, for people.
    pub certificate: Option<String>,
}

/// Device, inode, size and time of modification (seconds, nanoseconds) of files, by
/// which it shows that a file was changed or replaced.
type Stamps = Vec<(u64, u64, u64, i64, i64)>;

/// How many TLS sessions are kept for resumption: for two servers, the hub and the
/// provisioning service, at the eight that rustls reckons for each.
const SESSIONS: usize = 16;

impl Tls {
    /// Trusts the system's CAs and `extra`; shows what is in `files`.
    pub fn new(extra: &[CertificateDer<'static>], files: Option<CertificateFiles>) -> Self {
        let system = rustls_native_certs::load_native_certs();
        for error in &system.errors {
            tracing::warn!("a part of the system's CA store cannot be read: {error}");
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(system.certs);
        roots.add_parsable_certificates(extra.iter().cloned());
        if roots.is_empty() {
            tracing::warn!("no CA is trusted: install ca-certificates or set hub.ca_file");
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Tls { provider, roots: Arc::new(roots), files, made: None }
    }

    /// What a connection is secured with now: a certificate that was renewed on
    /// disk is taken up.
    pub fn client(&mut self) -> Result<Client, Outage> {
        let certificate = self.files.as_ref().map(|files| files.certificate.display().to_string());
        match (self.config(), &self.made) {
            (Ok(config), _) => Ok(Client { config, certificate }),
            // The files may be half renewed, and the pair in memory still be good.
            (Err(error), Some((_, config))) => {
                tracing::warn!("the certificate of before is used: {error:#}");
                Ok(Client { config: config.clone(), certificate })
            }
            (Err(error), None) => Err(Outage::refused(format!("{error:#}"))),
        }
    }

    fn config(&mut self) -> anyhow::Result<Arc<ClientConfig>> {
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
            .with_root_certificates(self.roots.clone());
        let mut config = match &self.files {
            None => builder.with_no_client_auth(),
            Some(files) => {
                let (chain, key) = files.read()?;
                builder.with_client_auth_cert(chain, key).map_err(|error| files.unusable(&error))?
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
        rustls::sign::CertifiedKey::from_der(chain, key, &provider).map_err(|error| self.unusable(&error))?;
        Ok(())
    }

    fn read(&self) -> anyhow::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let chain = read_certificates("certificate_file", &self.certificate)?;
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

    fn unusable(&self, error: &rustls::Error) -> anyhow::Error {
        let (certificate, key) = (self.certificate.display(), self.private_key.display());
        match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                anyhow::anyhow!("the key in {key} does not belong to the certificate in {certificate}")
            }
            other => anyhow::anyhow!(
                "the certificate in {certificate} and the key in {key} cannot be used: {other}"
            ),
        }
    }
}

fn stamp(file: &Path) -> anyhow::Result<(u64, u64, u64, i64, i64)> {
    let metadata = fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok((metadata.dev(), metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec()))
}

/// The CAs in the PEM file `ca_file`; at least one.
pub fn read_ca_file(ca_file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let certificates = read_certificates("ca_file", ca_file)?;
    let mut check = RootCertStore::empty();
    for certificate in &certificates {
        check
            .add(certificate.clone())
            .with_context(|| format!("a certificate in ca_file {} cannot be used", ca_file.display()))?;
    }
    Ok(certificates)
}

/// The certificates in the PEM file that the setting `key` names; at least one.
fn read_certificates(key: &str, file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let pem = fs::read(file).with_context(|| format!("cannot read {key} {}", file.display()))?;
    let certificates = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("{key} {} is not valid PEM", file.display()))?;
    ensure!(!certificates.is_empty(), "{key} {} has no PEM certificate in it", file.display());
    Ok(certificates)
}

#[cfg(test)]
mod tests {
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
        let mut tls = Tls::new(&[], Some(files.clone()));
        let first = tls.client().unwrap().config;
        assert!(Arc::ptr_eq(&first, &tls.client().unwrap().config), "sessions would be lost");
        let renewed = write_pair(dir.path(), "renewed");
        fs::rename(&renewed.private_key, &files.private_key).unwrap();
        let half = format!("{:#}", tls.config().unwrap_err());
        assert!(half.contains("gw1.key does not belong to the certificate in "), "{half}");
        assert!(Arc::ptr_eq(&first, &tls.client().unwrap().config), "the one in memory does");
        let fresh = Tls::new(&[], Some(files.clone())).client().unwrap_err();
        assert!(fresh.message.contains("does not belong"), "{}", fresh.message);
        fs::rename(&renewed.certificate, &files.certificate).unwrap();
        assert!(!Arc::ptr_eq(&first, &tls.client().unwrap().config));
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
