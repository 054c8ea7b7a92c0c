//! Shared access signatures: `SharedAccessSignature sr=…&sig=…&se=…[&skn=…]`.
//!
//! `sr` is the resource that the token is for, `sig` the signature, `se` when the
//! token expires in seconds since the Unix epoch, and `skn` the name of the shared
//! access policy whose key signs. `sig = base64(HMAC-SHA256(key, sr + "\n" + se))`,
//! where `sr` are the encoded bytes exactly as they stand in the token; so a
//! verifier signs the raw text first, and decodes it afterwards for comparing
//! scopes. Source: IoT Hub developer guide, "Control access using shared access
//! signatures", and the official SDKs' code.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::Sha256;

use crate::key::SecretKey;

/// The characters that are percent-encoded: all but the unreserved ones of
/// RFC 3986, section 2.3.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const PREFIX: &str = "SharedAccessSignature ";

/// `text` as it stands in a token, a user name or a query: all but RFC 3986's
/// unreserved characters percent-encoded.
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// Signs a token for `resource` (`{host}/devices/{id}` or a hub's host name,
/// not yet encoded) that is valid until `expiry`, in seconds since the Unix
/// epoch. `policy` is the shared access policy whose key signs, absent for a
/// device's own key.
pub fn sign(resource: &str, key: &SecretKey, expiry: u64, policy: Option<&str>) -> String {
    let resource = encoded(resource);
    let signature = STANDARD.encode(mac(&resource, expiry, key).finalize().into_bytes());
    let signature = utf8_percent_encode(&signature, ENCODED);
    let mut token = format!("{PREFIX}sr={resource}&sig={signature}&se={expiry}");
    if let Some(policy) = policy {
        token.push_str("&skn=");
        token.extend(utf8_percent_encode(policy, ENCODED));
    }
    token
}

/// A token taken apart but not yet verified.
#[derive(Clone, PartialEq, Eq)]
pub struct SasToken {
    raw_resource: String,
    signature: Vec<u8>,
    expiry: u64,
    policy: Option<String>,
}

/// Why a token is not accepted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SasError {
    /// The text does not have the form of a token.
    #[error("not a shared access signature: {0}")]
    Malformed(&'static str),
    /// The token was signed with another key, or altered afterwards.
    #[error("the signature does not match")]
    Signature,
    /// The token expired so many seconds ago.
    #[error("the token expired {0} seconds ago")]
    Expired(u64),
    /// The token is valid, but for this resource and not the one that is needed.
    #[error("the token is for {0:?}")]
    Scope(String),
}

impl SasToken {
    /// When the token expires, in seconds since the Unix epoch.
    pub fn expiry(&self) -> u64 {
        self.expiry
    }

    /// The shared access policy that the token names; `None` for a device's own.
    pub fn policy(&self) -> Option<&str> {
        self.policy.as_deref()
    }

    /// The resource that the token is for, decoded.
    pub fn resource(&self) -> String {
        decode(&self.raw_resource)
    }

    /// Whether the token was signed with `key`, has not expired at `now` (in
    /// seconds since the Unix epoch), and covers `scope`, not yet encoded: the
    /// token's resource or one below it, by whole path segments. The case of the
    /// host does not matter. The error is the first of these that fails.
    pub fn verify(&self, key: &SecretKey, now: u64, scope: &str) -> Result<(), SasError> {
        self.verify_signature(key)?;
        self.verify_use(now, [scope])
    }

    /// Whether the token was signed with `key`: the half of [`SasToken::verify`] that
    /// stays true for as long as the key is the same.
    pub fn verify_signature(&self, key: &SecretKey) -> Result<(), SasError> {
        let mac = mac(&self.raw_resource, self.expiry, key);
        mac.verify_slice(&self.signature).map_err(|_| SasError::Signature)
    }

    /// Whether the token has not expired at `now` and covers one of `scopes`: the other
    /// half of [`SasToken::verify`], which says nothing of who has signed the token.
    pub fn verify_use(
        &self,
        now: u64,
        scopes: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<(), SasError> {
        if now >= self.expiry {
            return Err(SasError::Expired(now - self.expiry));
        }
        let resource = self.resource();
        match scopes.into_iter().any(|scope| covers(&resource, scope.as_ref())) {
            true => Ok(()),
            false => Err(SasError::Scope(resource)),
        }
    }
}

impl FromStr for SasToken {
    type Err = SasError;

    fn from_str(text: &str) -> Result<Self, SasError> {
        let fields =
            text.strip_prefix(PREFIX).ok_or(SasError::Malformed("no SharedAccessSignature prefix"))?;
        let (mut resource, mut signature, mut expiry, mut policy) = (None, None, None, None);
        for field in fields.split('&') {
            let (key, value) = field.split_once('=').ok_or(SasError::Malformed("a field without '='"))?;
            let slot = match key {
                "sr" => &mut resource,
                "sig" => &mut signature,
                "se" => &mut expiry,
                "skn" => &mut policy,
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return Err(SasError::Malformed("a field given twice"));
            }
        }
        let signature = decode(signature.ok_or(SasError::Malformed("no sig"))?);
        let expiry = expiry.ok_or(SasError::Malformed("no se"))?;
        Ok(SasToken {
            raw_resource: resource.ok_or(SasError::Malformed("no sr"))?.to_owned(),
            signature: STANDARD.decode(signature).map_err(|_| SasError::Malformed("sig is not base64"))?,
            expiry: expiry.parse().map_err(|_| SasError::Malformed("se is not a number of seconds"))?,
            policy: policy.filter(|policy| !policy.is_empty()).map(decode),
        })
    }
}

impl fmt::Debug for SasToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SasToken(sr={}, se={}, sig=…)", self.raw_resource, self.expiry)
    }
}

fn mac(raw_resource: &str, expiry: u64, key: &SecretKey) -> Hmac<Sha256> {
    // The only error is a key of a wrong length, and HMAC takes keys of every
    // length.
    #[allow(clippy::expect_used)]
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose()).expect("HMAC takes any key");
    mac.update(format!("{raw_resource}\n{expiry}").as_bytes());
    mac
}

fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// Whether a token for `resource` is good for `scope`; see [`SasToken::verify`].
fn covers(resource: &str, scope: &str) -> bool {
    let (mut resource, mut scope) = (resource.split('/'), scope.split('/'));
    let same_host = match (resource.next(), scope.next()) {
        (Some(granted), Some(wanted)) => granted.eq_ignore_ascii_case(wanted),
        _ => false,
    };
    same_host && resource.all(|granted| scope.next() == Some(granted))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Key, expiry and both signatures: computed outside with Python's hmac
    // module, as the official Python SDK does; the second has lower-case hex.
    const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    const EXPIRY: u64 = 1_700_000_000;
    const RESOURCE: &str = "myhub.azure-devices.net/devices/dev1";
    const UPPER: &str = "SharedAccessSignature sr=myhub.azure-devices.net%2Fdevices%2Fdev1\
        &sig=wosmA3uJK9T0mdB5CIYn%2BsAVA2ODflnucuvNO5S6mbM%3D&se=1700000000";
    const LOWER: &str = "SharedAccessSignature sr=myhub.azure-devices.net%2fdevices%2fdev1\
        &sig=2D08zIheLai38c6CGbwOPcq8Z9hEFAOOWhm3BMXZJMY%3d&se=1700000000";

    fn key() -> SecretKey {
        KEY.parse().unwrap()
    }

    fn token(text: &str) -> SasToken {
        text.parse().unwrap()
    }

    #[test]
    fn signs_as_the_official_sdk_does() {
        assert_eq!(sign(RESOURCE, &key(), EXPIRY, None), UPPER);
        let with_policy = sign("localhost:8443", &key(), EXPIRY, Some("iothubowner"));
        assert!(with_policy.starts_with("SharedAccessSignature sr=localhost%3A8443&sig="), "{with_policy}");
        assert!(with_policy.ends_with("&se=1700000000&skn=iothubowner"), "{with_policy}");
    }

    #[test]
    fn verifies_both_hex_cases_any_order_and_raw_slashes() {
        assert_eq!(token(UPPER).verify(&key(), EXPIRY - 1, RESOURCE), Ok(()));
        assert_eq!(token(LOWER).verify(&key(), EXPIRY - 1, RESOURCE), Ok(()));
        let docs_order = "SharedAccessSignature sig=wosmA3uJK9T0mdB5CIYn+sAVA2ODflnucuvNO5S6mbM=\
            &se=1700000000&skn=&sr=myhub.azure-devices.net%2Fdevices%2Fdev1";
        assert_eq!(token(docs_order).verify(&key(), EXPIRY - 1, RESOURCE), Ok(()));
        assert_eq!(token(docs_order).policy(), None);
    }

    #[test]
    fn refuses_another_key_an_altered_expiry_and_a_passed_one() {
        let other = SecretKey::from_bytes(b"other".to_vec());
        assert_eq!(token(UPPER).verify(&other, 0, RESOURCE), Err(SasError::Signature));
        let altered = UPPER.replace("se=1700000000", "se=1800000000");
        assert_eq!(token(&altered).verify(&key(), 0, RESOURCE), Err(SasError::Signature));
        assert_eq!(token(UPPER).verify(&key(), EXPIRY, RESOURCE), Err(SasError::Expired(0)));
        assert_eq!(token(UPPER).verify(&key(), EXPIRY + 5, RESOURCE), Err(SasError::Expired(5)));
    }

    #[test]
    fn scopes_are_prefixes_by_whole_segment() {
        for (resource, scope, covered) in [
            ("hub", "HUB/devices/d", true),
            ("hub/devices/d", "hub/devices/d", true),
            ("hub/devices/d", "hub/devices/d/modules/m", true),
            ("hub/devices/d", "hub/devices/dd", false),
            ("hub/devices/d", "hub/devices/D", false),
            ("hub/devices/d", "hub", false),
            ("hub", "other", false),
        ] {
            assert_eq!(covers(resource, scope), covered, "{resource} {scope}");
        }
        let elsewhere = token(UPPER).verify(&key(), 0, "myhub.azure-devices.net/devices/dev2");
        assert_eq!(elsewhere, Err(SasError::Scope(RESOURCE.to_owned())));
    }

    #[test]
    fn a_token_tells_what_it_is_for_and_until_when() {
        let signed = token(&sign("localhost:8443/a b", &key(), EXPIRY, Some("a policy")));
        assert_eq!((signed.resource().as_str(), signed.expiry()), ("localhost:8443/a b", 1_700_000_000));
        assert_eq!(signed.policy(), Some("a policy"));
        assert_eq!(token(UPPER).policy(), None);
        assert_eq!(encoded("a-b.c_d~e/f g%ü"), "a-b.c_d~e%2Ff%20g%25%C3%BC");
    }

    #[test]
    fn malformed_tokens() {
        for bad in [
            "",
            "Bearer x",
            "SharedAccessSignature ",
            "SharedAccessSignature sr=a&se=1",
            "SharedAccessSignature sr=a&sig=!&se=1",
            "SharedAccessSignature sr=a&sig=eA==&se=soon",
            "SharedAccessSignature sr=a&sr=b&sig=eA==&se=1",
            "SharedAccessSignature sr=a&sig=eA==",
        ] {
            assert!(matches!(bad.parse::<SasToken>(), Err(SasError::Malformed(_))), "{bad}");
        }
    }
}
