//! Certificates of devices.

use std::fmt::Write as _;
use std::sync::Arc;

use iotdm_tests::Hub;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};
use rumqttc::mqttbytes::v4::ConnectReturnCode;
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};

use super::device::{Device, hello_with};
use super::{roots, websocket};

/// A certificate with its key.
pub struct Identity {
    pub certificate: CertificateDer<'static>,
    key: KeyPair,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// What a CA's certificate is made of.
pub fn authority() -> CertificateParams {
    let mut params = params("ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

pub fn self_signed(name: &str) -> Identity {
    let key = KeyPair::generate().unwrap();
    let certificate = params(name).self_signed(&key).unwrap().der().clone();
    Identity { certificate, key }
}

pub fn issued(name: &str, ca: &Issuer<'_, KeyPair>) -> Identity {
    let key = KeyPair::generate().unwrap();
    let certificate = params(name).signed_by(&key, ca).unwrap().der().clone();
    Identity { certificate, key }
}

impl Identity {
    pub fn thumbprint(&self) -> String {
        Sha256::digest(&self.certificate).iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
    }

    pub fn tls(&self, hub: &Hub) -> Arc<ClientConfig> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots(hub));
        Arc::new(config.with_client_auth_cert(vec![self.certificate.clone()], key).unwrap())
    }

    pub async fn connect(&self, hub: &Hub, id: &str) -> ConnectReturnCode {
        let mut device = Device::open_with(hub, self.tls(hub)).await;
        device.introduce(hello_with(id, "")).await.code
    }

    /// Connects as [`Identity::connect`] does, over a WebSocket.
    pub async fn connect_over_websocket(&self, hub: &Hub, id: &str) -> ConnectReturnCode {
        websocket::introduce(hub, self.tls(hub), hello_with(id, "")).await.1
    }
}
