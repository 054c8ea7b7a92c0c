//! What a server's certificate is checked against.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// The CAs in the PEM file `ca_file`; at least one.
pub fn read_ca_file(ca_file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let pem = std::fs::read(ca_file).with_context(|| format!("cannot read ca_file {}", ca_file.display()))?;
    let certificates = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("ca_file {} is not valid PEM", ca_file.display()))?;
    ensure!(!certificates.is_empty(), "ca_file {} has no PEM certificate in it", ca_file.display());
    let mut check = RootCertStore::empty();
    for certificate in &certificates {
        check
            .add(certificate.clone())
            .with_context(|| format!("a certificate in ca_file {} cannot be used", ca_file.display()))?;
    }
    Ok(certificates)
}

/// A client that trusts the system's CAs and `extra`, speaks TLS 1.2 and 1.3,
/// and checks host names.
pub fn client_config(extra: &[CertificateDer<'static>]) -> anyhow::Result<Arc<ClientConfig>> {
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
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("the crypto provider lacks TLS 1.2 or 1.3")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_file_without_a_usable_certificate_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        let error = |bytes: &str| {
            std::fs::write(&file, bytes).unwrap();
            format!("{:#}", read_ca_file(&file).unwrap_err())
        };
        assert!(error("hello").contains("has no PEM certificate"));
        let garbage = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
        assert!(error(garbage).contains("cannot be used"));
        std::fs::remove_file(&file).unwrap();
        let missing = format!("{:#}", read_ca_file(&file).unwrap_err());
        assert!(missing.contains("ca.pem"), "{missing}");
    }
}
