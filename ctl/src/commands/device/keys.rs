//! Makes and derives keys, and takes thumbprints of certificates.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use hmac::{Hmac, KeyInit as _, Mac as _};
use iotdm_proto::SecretKey;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};

use crate::cli::DeriveKeyArgs;
use crate::error::Usage;
use crate::output::{Output, say};
use crate::secret_file;

/// A new key of 32 random bytes, which is how long the keys are that the hub
/// makes.
pub(super) fn new_key() -> anyhow::Result<SecretKey> {
    Ok(SecretKey::from_bytes(random(32)?))
}

/// How many random bytes a key has that took the place of another one. 24 of them
/// cannot be guessed either.
const RANDOM: usize = 24;

/// A new key of 32 bytes that takes the place of `old`. It can be told later that
/// it did ([`succeeds`]): its last 8 bytes are an HMAC of the first 24 by the old
/// key, which tells nothing to who has not got the old key. The hub keeps no
/// history of keys, so that nothing else could tell it.
pub(super) fn new_key_after(old: &SecretKey) -> anyhow::Result<SecretKey> {
    let mut bytes = random(RANDOM)?;
    let mark = mark(old, &bytes)?;
    bytes.extend(mark);
    Ok(SecretKey::from_bytes(bytes))
}

/// Whether `key` was made to take the place of `old`.
pub(super) fn succeeds(key: &SecretKey, old: &SecretKey) -> bool {
    let parts = key.expose().split_at_checked(RANDOM);
    parts.is_some_and(|(random, rest)| mark(old, random).is_ok_and(|mark| mark == rest))
}

/// The 8 bytes by which a key's successor is known.
fn mark(old: &SecretKey, random: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(old.expose()).context("the old key")?;
    mac.update(b"renewed");
    mac.update(random);
    Ok(mac.finalize().into_bytes().iter().copied().take(8).collect())
}

fn random(length: usize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| anyhow!("the system gives no random numbers"))?;
    Ok(bytes)
}

/// `device derive-key`: prints the key of a device that a DPS group enrolment
/// covers, or writes it to a file that only its owner can read.
pub fn derive(output: Output, args: DeriveKeyArgs) -> anyhow::Result<()> {
    if let Some(out) = &args.out {
        secret_file::check(out)?;
    }
    let text: String = secret_file::read("--group-key-file", &args.group_key_file)?;
    let refuse = |error| Usage(format!("--group-key-file {}: {error}", args.group_key_file.display()));
    let group: SecretKey = text.trim().parse().map_err(refuse)?;
    let key = derived(&group, &args.registration)?.expose_base64();
    match &args.out {
        Some(path) => {
            secret_file::write(path, &key)?;
            say(format_args!("wrote {}", path.display()));
        }
        None if output.is_text() => output.line(format_args!("{}", key.as_str()))?,
        None => {
            output.json(&serde_json::json!({"registrationId": args.registration, "key": key.as_str()}))?
        }
    }
    Ok(())
}

/// The key of a device: HMAC-SHA256 of its registration id, by the group's key.
///
/// Source: DPS, "Symmetric key attestation", group enrolments.
fn derived(group: &SecretKey, registration: &str) -> anyhow::Result<SecretKey> {
    let mut mac = Hmac::<Sha256>::new_from_slice(group.expose()).context("the group's key")?;
    mac.update(registration.as_bytes());
    Ok(SecretKey::from_bytes(mac.finalize().into_bytes().to_vec()))
}

/// The SHA-256 thumbprint of the first certificate in a PEM file, in upper
/// case hex as the portal shows it.
pub(super) fn thumbprint(path: &Path) -> Result<String, Usage> {
    let refuse = |what: String| Usage(format!("certificate {}: {what}", path.display()));
    let pem = fs::read(path).map_err(|error| refuse(error.to_string()))?;
    let certificate = CertificateDer::from_pem_slice(&pem)
        .map_err(|_| refuse("no certificate in it; expected PEM with BEGIN CERTIFICATE".into()))?;
    Ok(Sha256::digest(&certificate).iter().map(|byte| format!("{byte:02X}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example of DPS' documentation.
    #[test]
    fn the_published_vector_of_group_keys() {
        let group: SecretKey =
            "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw=="
                .parse()
                .unwrap();
        let key = derived(&group, "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6").unwrap();
        assert_eq!(key.expose_base64().as_str(), "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc=");
    }

    #[test]
    fn no_key_is_made_twice() {
        let (one, other) = (new_key().unwrap(), new_key().unwrap());
        assert_eq!(one.expose().len(), 32);
        assert_ne!(one.expose(), other.expose());
    }

    #[test]
    fn a_successor_is_told_from_any_other_key() {
        let (old, other) = (new_key().unwrap(), new_key().unwrap());
        let (one, another) = (new_key_after(&old).unwrap(), new_key_after(&old).unwrap());
        assert_eq!(one.expose().len(), 32);
        assert_ne!(one.expose(), another.expose());
        assert!(succeeds(&one, &old) && succeeds(&another, &old));
        assert!(!succeeds(&one, &other) && !succeeds(&old, &one) && !succeeds(&other, &old));
        let short = SecretKey::from_bytes(vec![1; 16]);
        assert!(!succeeds(&short, &old));
    }
}
