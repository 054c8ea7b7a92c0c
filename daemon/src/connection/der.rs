//! As much of certificates and keys in DER as it takes to say why one cannot be
//! used: the version of X.509, and the kind of key. Whether one can be used is
//! decided by the crypto provider alone. Source: X.690, RFC 5280, 5958, 8017, 5915.

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
const SEQUENCE: u8 = 0x30;
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

/// Whether a certificate is of X.509 version 1, whose body begins with the serial
/// number, not with a version.
pub(super) fn is_version_1(certificate: &[u8]) -> bool {
    let body = inside(SEQUENCE, certificate).and_then(|certificate| inside(SEQUENCE, certificate));
    body.and_then(element).is_some_and(|first| first.tag == INTEGER)
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
