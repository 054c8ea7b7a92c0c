//! As much of certificates and keys in DER as it takes to tell people of them, to find
//! the CA of one, and to say why one cannot be used: names, times, the version of
//! X.509, and the kind of key. Whether one can be used is decided by the crypto provider
//! and by rustls alone. Source: X.690, RFC 5280, 5958, 8017, 5915.

use iotdm_proto::Time;
use rustls::pki_types::PrivateKeyDer;

/// The kinds of keys that people have and that the crypto provider may not take.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum KeyKind {
    /// RSA, with the length of its modulus.
    Rsa {
        /// In bits, rounded up to whole bytes.
        bits: usize,
    },
    /// An elliptic curve that the provider does not have.
    Curve(&'static str),
    /// Any other kind.
    Other,
}

const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const BMP_STRING: u8 = 0x1e;
const SEQUENCE: u8 = 0x30;
/// `version` of a certificate.
const VERSION: u8 = 0xa0;
/// `extensions` of a certificate.
const EXTENSIONS: u8 = 0xa3;
/// A `dNSName` among the names of a certificate.
const DNS_NAME: u8 = 0x82;
/// `parameters` of an elliptic curve's key in SEC1.
const PARAMETERS: u8 = 0xa0;

/// rsaEncryption, 1.2.840.113549.1.1.1.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// id-ecPublicKey, 1.2.840.10045.2.1.
const ELLIPTIC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// Curves that OpenSSL offers and the provider does not have.
const CURVES: [(&[u8], &str); 3] = [
    (&[0x2b, 0x81, 0x04, 0x00, 0x23], "P-521"),
    (&[0x2b, 0x81, 0x04, 0x00, 0x21], "P-224"),
    (&[0x2b, 0x81, 0x04, 0x00, 0x0a], "secp256k1"),
];

/// id-ce-subjectAltName, 2.5.29.17.
const ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// The parts of a name that people know by a short word. Source: RFC 4519, and RFC 2985
/// for the last one.
const PARTS: [(&[u8], &str); 9] = [
    (&[0x55, 0x04, 0x03], "CN"),
    (&[0x55, 0x04, 0x05], "serialNumber"),
    (&[0x55, 0x04, 0x06], "C"),
    (&[0x55, 0x04, 0x07], "L"),
    (&[0x55, 0x04, 0x08], "ST"),
    (&[0x55, 0x04, 0x0a], "O"),
    (&[0x55, 0x04, 0x0b], "OU"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x19], "DC"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x01], "Email"),
];

/// The end of what does not end. Source: RFC 5280, 4.1.2.5.
const NEVER: &str = "9999-12-31T23:59:59Z";
/// The last second that a [`Time`] can be.
const LAST: &str = "9999-12-30T22:00:00Z";

/// Whether a certificate is of X.509 version 1, whose body begins with the serial
/// number, not with a version.
pub(super) fn is_version_1(certificate: &[u8]) -> bool {
    let body = inside(SEQUENCE, certificate).and_then(|certificate| inside(SEQUENCE, certificate));
    body.and_then(element).is_some_and(|first| first.tag == INTEGER)
}

/// What a certificate says.
pub(super) struct Body<'a> {
    /// Who has signed it: the content of a `Name`.
    pub(super) issuer: &'a [u8],
    /// The content of its `Validity`.
    validity: &'a [u8],
    /// Whose it is: the content of a `Name`.
    pub(super) subject: &'a [u8],
    /// What comes after its subject.
    rest: &'a [u8],
}

impl<'a> Body<'a> {
    /// Reads a certificate; none where it cannot be read.
    pub(super) fn read(certificate: &'a [u8]) -> Option<Self> {
        let body = inside(SEQUENCE, inside(SEQUENCE, certificate)?)?;
        let first = element(body)?;
        let serial = if first.tag == VERSION { element(first.rest)? } else { first };
        let algorithm = element(serial.rest)?;
        let issuer = element(algorithm.rest)?;
        let validity = element(issuer.rest)?;
        let subject = element(validity.rest)?;
        Some(Body {
            issuer: issuer.content,
            validity: validity.content,
            subject: subject.content,
            rest: subject.rest,
        })
    }

    /// From when and until when it is valid.
    pub(super) fn validity(&self) -> Option<(Time, Time)> {
        let from = element(self.validity)?;
        let until = element(from.rest)?;
        Some((time(&from)?, time(&until)?))
    }

    /// The first host name among its alternative names.
    pub(super) fn host(&self) -> Option<&'a str> {
        let extensions = elements(self.rest).find(|part| part.tag == EXTENSIONS)?;
        let names = elements(inside(SEQUENCE, extensions.content)?).find_map(|extension| {
            let name = element(extension.content).filter(|name| name.content == ALTERNATIVE_NAME)?;
            // Between the two it may say whether it is critical.
            elements(name.rest).find(|part| part.tag == OCTET_STRING)
        })?;
        let host = elements(inside(SEQUENCE, names.content)?).find(|name| name.tag == DNS_NAME)?;
        str::from_utf8(host.content).ok()
    }
}

/// A `Name` for people, such as `C=US, O=DigiCert Inc, CN=DigiCert Global Root G2`.
pub(super) fn spelled(name: &[u8]) -> String {
    let parts = elements(name).flat_map(|set| elements(set.content)).filter_map(|part| {
        let kind = element(part.content)?;
        let value = element(kind.rest)?;
        let word = PARTS.iter().find(|(known, _)| *known == kind.content).map_or("?", |(_, word)| word);
        Some(format!("{word}={}", text(&value)))
    });
    parts.collect::<Vec<_>>().join(", ")
}

/// A text in whichever of the ways it is encoded.
fn text(value: &Element<'_>) -> String {
    if value.tag == BMP_STRING {
        let units =
            value.content.chunks_exact(2).filter_map(|two| Some(u16::from_be_bytes(two.try_into().ok()?)));
        return char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    }
    String::from_utf8_lossy(value.content).into_owned()
}

/// An instant. Source: RFC 5280, 4.1.2.5.
fn time(value: &Element<'_>) -> Option<Time> {
    let digits = str::from_utf8(value.content).ok()?.strip_suffix('Z')?;
    let (century, digits) = match value.tag {
        UTC_TIME => (if digits < "50" { "20" } else { "19" }, digits),
        GENERALIZED_TIME => digits.split_at_checked(2)?,
        _ => return None,
    };
    let two = |nth: usize| digits.get(2 * nth..2 * nth + 2);
    let [year, month, day, hour, minute, second] = [two(0)?, two(1)?, two(2)?, two(3)?, two(4)?, two(5)?];
    let spelled = format!("{century}{year}-{month}-{day}T{hour}:{minute}:{second}Z");
    match spelled.as_str() {
        NEVER => LAST.parse().ok(),
        spelled => spelled.parse().ok(),
    }
}

/// The kind of `key`.
pub(super) fn key_kind(key: &PrivateKeyDer<'_>) -> KeyKind {
    let kind = match key {
        PrivateKeyDer::Pkcs1(key) => rsa(key.secret_pkcs1_der()),
        PrivateKeyDer::Sec1(key) => sec1(key.secret_sec1_der()),
        PrivateKeyDer::Pkcs8(key) => pkcs8(key.secret_pkcs8_der()),
        _ => None,
    };
    kind.unwrap_or(KeyKind::Other)
}

/// `PrivateKeyInfo`: version, algorithm and its parameters, the key.
fn pkcs8(der: &[u8]) -> Option<KeyKind> {
    let version = element(inside(SEQUENCE, der)?)?;
    let algorithm = element(version.rest)?;
    let name = element(algorithm.content).filter(|name| name.tag == OBJECT_IDENTIFIER)?;
    match name.content {
        RSA => rsa(inside(OCTET_STRING, algorithm.rest)?),
        ELLIPTIC => curve(name.rest),
        _ => None,
    }
}

/// `RSAPrivateKey`: version, modulus, and more.
fn rsa(der: &[u8]) -> Option<KeyKind> {
    let version = element(inside(SEQUENCE, der)?)?;
    let modulus = element(version.rest).filter(|modulus| modulus.tag == INTEGER)?;
    let leading = modulus.content.iter().take_while(|byte| **byte == 0).count();
    Some(KeyKind::Rsa { bits: (modulus.content.len() - leading) * 8 })
}

/// `ECPrivateKey`: version, the key, parameters.
fn sec1(der: &[u8]) -> Option<KeyKind> {
    let version = element(inside(SEQUENCE, der)?)?;
    let key = element(version.rest)?;
    curve(inside(PARAMETERS, key.rest)?)
}

/// The curve that an object identifier names, if it is one of [`CURVES`].
fn curve(der: &[u8]) -> Option<KeyKind> {
    let name = inside(OBJECT_IDENTIFIER, der)?;
    CURVES.iter().find(|(known, _)| *known == name).map(|(_, name)| KeyKind::Curve(name))
}

/// An element of DER: tag, content, and what follows it.
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    rest: &'a [u8],
}

/// All elements that follow each other, up to one that cannot be read.
fn elements(der: &[u8]) -> impl Iterator<Item = Element<'_>> {
    let mut rest = der;
    std::iter::from_fn(move || {
        let next = element(rest)?;
        rest = next.rest;
        Some(next)
    })
}

/// The content of the first element, if that has this tag.
fn inside(tag: u8, der: &[u8]) -> Option<&[u8]> {
    element(der).filter(|element| element.tag == tag).map(|element| element.content)
}

/// The first element.
fn element(der: &[u8]) -> Option<Element<'_>> {
    let (&[tag, first], rest) = der.split_first_chunk()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => {
            let (&[length], rest) = rest.split_first_chunk()?;
            (usize::from(length), rest)
        }
        0x82 => {
            let (&length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(length)), rest)
        }
        // No certificate and no key that is looked at is longer than 65,535 bytes.
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some(Element { tag, content, rest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_without_an_end_is_read() {
        let said = |tag: u8, content: &str| {
            let content = content.as_bytes();
            time(&Element { tag, content, rest: &[] }).map(|time| time.to_string())
        };
        assert_eq!(said(GENERALIZED_TIME, "99991231235959Z").as_deref(), Some("9999-12-30T22:00:00.000Z"));
        assert_eq!(said(GENERALIZED_TIME, "20500102030405Z").as_deref(), Some("2050-01-02T03:04:05.000Z"));
        assert_eq!(said(UTC_TIME, "491231235959Z").as_deref(), Some("2049-12-31T23:59:59.000Z"));
        assert_eq!(said(UTC_TIME, "500101000000Z").as_deref(), Some("1950-01-01T00:00:00.000Z"));
        assert_eq!(said(GENERALIZED_TIME, "20501302030405Z"), None);
        assert_eq!(said(OCTET_STRING, "20500102030405Z"), None);
    }
}
