//! What the provisioning service tells of a certificate in the place of the
//! certificate itself. Source: the REST reference, `X509CertificateInfo`.

use iotdm_proto::Time;
use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use crate::certificates::hex;

/// The `info` of a certificate; `None` where `der` is none.
pub fn certificate_info(der: &[u8]) -> Option<Value> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let time = |time: ASN1Time| Time::from_unix_millis(time.timestamp().saturating_mul(1000));
    Some(json!({
        "subjectName": certificate.subject().to_string(),
        "sha1Thumbprint": hex(&Sha1::digest(der)),
        "sha256Thumbprint": hex(&Sha256::digest(der)),
        "issuerName": certificate.issuer().to_string(),
        "notBeforeUtc": time(certificate.validity().not_before),
        "notAfterUtc": time(certificate.validity().not_after),
        "serialNumber": hex(certificate.raw_serial()),
        // As people count: the first version is 0 in the certificate.
        "version": certificate.version().0.saturating_add(1),
    }))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, Issuer, KeyPair, SerialNumber, date_time_ymd};

    use super::*;

    #[test]
    fn each_field_is_what_the_certificate_says() {
        let named = |name: &str| {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            params
        };
        let mut params = named("gw1");
        params.serial_number = Some(SerialNumber::from(vec![0x01, 0xAB]));
        (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 2), date_time_ymd(2036, 3, 4));
        let issuer = Issuer::new(named("the CA"), KeyPair::generate().unwrap());
        let certificate = params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        let der = certificate.der();
        let info = certificate_info(der).unwrap();
        assert_eq!(
            info,
            json!({
                "subjectName": "CN=gw1",
                "sha1Thumbprint": hex(&Sha1::digest(der)),
                "sha256Thumbprint": hex(&Sha256::digest(der)),
                "issuerName": "CN=the CA",
                "notBeforeUtc": "2026-01-02T00:00:00.000Z",
                "notAfterUtc": "2036-03-04T00:00:00.000Z",
                "serialNumber": "01AB",
                "version": 3,
            })
        );
        assert_eq!(certificate_info(b"no certificate"), None);
    }
}
