//! What people want to know of a certificate: whose it is, who says so, and until
//! when. Whether it is accepted is decided elsewhere.

use iotdm_proto::Time;
use rustls::pki_types::CertificateDer;
use serde::Serialize;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::time::ASN1Time;

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// Whose it is: its name or, where it has none, the first host name.
    pub subject: String,
    /// Who has signed it.
    pub issuer: String,
    /// From when it is valid.
    pub not_before: Time,
    /// Until when it is valid.
    pub not_after: Time,
}

impl Certificate {
    /// The certificate in DER; none where that cannot be read.
    pub fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let named = certificate.subject().to_string();
        let names = certificate.subject_alternative_name().ok().flatten();
        let host = names.and_then(|names| {
            names.value.general_names.iter().find_map(|name| match name {
                GeneralName::DNSName(name) => Some((*name).to_owned()),
                _ => None,
            })
        });
        let validity = certificate.validity();
        Some(Certificate {
            subject: if named.is_empty() { host.unwrap_or_default() } else { named },
            issuer: certificate.issuer().to_string(),
            not_before: time(validity.not_before),
            not_after: time(validity.not_after),
        })
    }

    /// How many whole days are left at `now`; negative once it has expired.
    pub fn days_left(&self, now: Time) -> i64 {
        (self.not_after.unix_millis() - now.unix_millis()).div_euclid(24 * 60 * 60 * 1000)
    }
}

fn time(time: ASN1Time) -> Time {
    Time::from_unix_millis(time.timestamp().saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_days_are_read() {
        let mut params = rcgen::CertificateParams::new(["hub.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 1, 11);
        params.distinguished_name.push(rcgen::DnType::CommonName, "the hub");
        let key = rcgen::KeyPair::generate().unwrap();
        let named = params.self_signed(&key).unwrap();
        let read = Certificate::read(named.der()).unwrap();
        assert_eq!((read.subject.as_str(), read.issuer.as_str()), ("CN=the hub", "CN=the hub"));
        for (now, days) in
            [("2026-01-10T00:00:00Z", 1), ("2026-01-10T00:00:01Z", 0), ("2026-01-11T00:00:01Z", -1)]
        {
            assert_eq!(read.days_left(now.parse().unwrap()), days, "{now}");
        }
        params.distinguished_name = rcgen::DistinguishedName::new();
        let nameless = params.self_signed(&key).unwrap();
        assert_eq!(Certificate::read(nameless.der()).unwrap().subject, "hub.example");
        assert_eq!(Certificate::read(&CertificateDer::from(vec![0x30, 0])), None);
    }
}
