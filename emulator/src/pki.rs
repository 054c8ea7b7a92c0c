//! The emulator's own certificate authority and the server certificate that
//! it signs.
//!
//! The authority is kept, since clients trust it. The server certificate is made
//! anew at each start, for the names that this start asks for, and never stored.
//! Both are valid from 2020 to 2050, since a device without a clock chip that is
//! tried out against the emulator starts with a wrong date.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};

use crate::certificates::AnyCertificate;
use crate::random;

/// A certificate authority as the store keeps it.
#[derive(Serialize, Deserialize)]
pub struct Authority {
    /// The authority's certificate in PEM, for clients to trust.
    pub certificate_pem: String,
    key_pem: String,
}

impl Authority {
    /// A new authority with a P-256 key, which every TLS library knows.
    pub fn generate() -> Result<Self> {
        let key = KeyPair::generate().context("cannot generate the CA's key")?;
        let mut params = lasting(CertificateParams::new(Vec::new())?);
        // The name is unique, so that a client that trusts another emulator's CA
        // is told of an unknown issuer and not of a bad signature.
        let name = format!("iotdm-emulator CA {}", random::hex_id()?);
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).context("cannot sign the CA's certificate")?;
        Ok(Authority { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// How both listeners speak TLS (1.2 and 1.3): with a fresh certificate for
    /// `host`, `bind` and the names of this machine itself. Clients are asked for
    /// a certificate; whether a client needs one depends on who it says it is,
    /// which its CONNECT or request tells.
    pub fn server_config(&self, host: &str, bind: IpAddr) -> Result<ServerConfig> {
        let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1", host].map(str::to_owned).to_vec();
        names.push(bind.to_string());
        names.sort();
        names.dedup();

        let mut params = lasting(CertificateParams::new(names)?);
        params.distinguished_name.push(DnType::CommonName, host);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;

        let ca_key = KeyPair::from_pem(&self.key_pem).context("the stored CA key is unreadable")?;
        let issuer = Issuer::from_ca_cert_pem(&self.certificate_pem, ca_key)
            .context("the stored CA certificate is unreadable")?;
        let key = KeyPair::generate().context("cannot generate the server's key")?;
        let certificate = params.signed_by(&key, &issuer).context("cannot sign the server's certificate")?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(Arc::new(AnyCertificate::default()))
            .with_single_cert(vec![certificate.der().clone()], key)?;
        Ok(config)
    }
}

/// The parameters with the validity of both certificates.
fn lasting(mut params: CertificateParams) -> CertificateParams {
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2050, 1, 1);
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_authority_goes_on_signing() {
        let stored = serde_json::to_string(&Authority::generate().unwrap()).unwrap();
        let authority: Authority = serde_json::from_str(&stored).unwrap();
        for bind in ["127.0.0.9", "0.0.0.0", "::1"] {
            authority.server_config("hub.example", bind.parse().unwrap()).unwrap();
        }
    }
}
