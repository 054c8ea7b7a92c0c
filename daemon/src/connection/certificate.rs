//! What people want to know of a certificate: whose it is, who says so, and until
//! when. Whether it is accepted is decided elsewhere.

use iotdm_proto::Time;
use rustls::pki_types::CertificateDer;
use serde::Serialize;

use super::der::{Body, spelled};

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
        let body = Body::read(der)?;
        let (not_before, not_after) = body.validity()?;
        let named = spelled(body.subject);
        Some(Certificate {
            subject: if named.is_empty() { body.host().unwrap_or_default().to_owned() } else { named },
            issuer: spelled(body.issuer),
            not_before,
            not_after,
        })
    }

    /// How many whole days are left at `now`; negative once it has expired.
    pub fn days_left(&self, now: Time) -> i64 {
        (self.not_after.unix_millis() - now.unix_millis()).div_euclid(24 * 60 * 60 * 1000)
    }
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
    #[test]
    fn all_parts_of_a_name_and_times_of_another_century_are_read() {
        let mut params = rcgen::CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(1999, 12, 31);
        params.not_after = rcgen::date_time_ymd(2051, 2, 3);
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in [
            (rcgen::DnType::CountryName, rcgen::DnValue::PrintableString("US".try_into().unwrap())),
            (rcgen::DnType::OrganizationName, rcgen::DnValue::BmpString("Größe".try_into().unwrap())),
            (rcgen::DnType::CustomDnType(vec![2, 5, 4, 42]), rcgen::DnValue::Utf8String("given".to_owned())),
            (rcgen::DnType::CommonName, rcgen::DnValue::Utf8String("Root G2".to_owned())),
        ] {
            params.distinguished_name.push(kind, value);
        }
        let read = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let read = Certificate::read(read.der()).unwrap();
        assert_eq!(read.subject, "C=US, O=Größe, ?=given, CN=Root G2");
        assert_eq!(read.not_before.to_string(), "1999-12-31T00:00:00.000Z");
        assert_eq!(read.not_after.to_string(), "2051-02-03T00:00:00.000Z");
    }
}
