//! Shared access keys in memory.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

/// A symmetric shared access key, decoded from its base64 spelling.
///
/// `Debug` hides the key, nothing serialises it, and its memory is overwritten
/// when it is dropped.
#[derive(Clone)]
pub struct SecretKey(Vec<u8>);

/// A text that is no usable key. The message does not repeat the text, which may
/// be most of a secret.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text is not standard base64 with padding.
    #[error("the key is not valid base64")]
    NotBase64,
    /// The text decodes to no bytes at all.
    #[error("the key is empty")]
    Empty,
}

impl SecretKey {
    /// A key of these raw bytes.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        SecretKey(bytes)
    }

    /// The raw bytes, for computing a MAC.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The key of one device of an enrolment group of the device provisioning
    /// service, where this is the group's key: HMAC-SHA256 of the device's
    /// registration id. Source: "Symmetric key attestation with DPS".
    pub fn derived(&self, registration_id: &str) -> SecretKey {
        // The only error is a key of a wrong length, and HMAC takes keys of every
        // length.
        #[allow(clippy::expect_used)]
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes any key");
        mac.update(registration_id.as_bytes());
        SecretKey(mac.finalize().into_bytes().to_vec())
    }

    /// The key in base64, for a place that is meant to hold the secret.
    pub fn expose_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(&self.0))
    }
}

impl FromStr for SecretKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = STANDARD.decode(text).map_err(|_| KeyError::NotBase64)?;
        if bytes.is_empty() {
            return Err(KeyError::Empty);
        }
        Ok(SecretKey(bytes))
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

impl Drop for SecretKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_and_errors_never_show_the_key() {
        let key: SecretKey = "c2VjcmV0".parse().unwrap();
        assert_eq!(key.expose(), b"secret");
        assert_eq!(format!("{key:?}"), "SecretKey(…)");
        let error = "c2VjcmV0!".parse::<SecretKey>().unwrap_err();
        assert_eq!(error, KeyError::NotBase64);
        assert!(!error.to_string().contains("c2Vj"));
    }

    // The documentation's own example.
    #[test]
    fn a_groups_key_gives_each_device_its_own() {
        let group: SecretKey =
            "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw=="
                .parse()
                .unwrap();
        let derived = group.derived("sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6");
        assert_eq!(&*derived.expose_base64(), "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc=");
    }

    #[test]
    fn an_empty_key_is_refused() {
        assert_eq!("".parse::<SecretKey>().unwrap_err(), KeyError::Empty);
    }
}
