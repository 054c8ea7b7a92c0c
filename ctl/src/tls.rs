//! Which CAs this program trusts: those of the system, and those of one more
//! file where the user names it. Certificates are always verified.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::error::Usage;

/// A TLS client of version 1.2 or 1.3 that trusts the system's CAs and those
/// in the PEM file `ca_file`.
pub fn client_config(ca_file: Option<&Path>) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    if let Some(path) = ca_file {
        add_file(&mut roots, path)?;
    }
    if roots.is_empty() {
        bail!("the system has no CA certificates; install the package ca-certificates or give --ca-file");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("TLS cannot be set up")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

/// Trusts the CAs in a PEM file, of which there has to be at least one.
fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), Usage> {
    let refuse = |what: String| Usage(format!("CA file {}: {what}", path.display()));
    let pem = std::fs::read(path).map_err(|error| refuse(error.to_string()))?;
    let before = roots.len();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| refuse(format!("not PEM: {error}")))?;
        roots.add(certificate).map_err(|error| refuse(format!("not a CA certificate: {error}")))?;
    }
    if roots.len() == before {
        return Err(refuse("no certificate in it; expected PEM with BEGIN CERTIFICATE".into()));
    }
    Ok(())
}
