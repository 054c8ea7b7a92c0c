//! Keys, ids and etags, all made of random bytes.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use iotdm_proto::SecretKey;
use rustls::crypto::ring;

/// The operating system could not give random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct NoRandom;

/// A key as IoT Hub generates it: of 32 bytes.
pub fn key() -> Result<SecretKey, NoRandom> {
    Ok(SecretKey::from_bytes(bytes::<32>()?.to_vec()))
}

/// An id of 32 lower-case hexadecimal digits.
pub fn hex_id() -> Result<String, NoRandom> {
    Ok(bytes::<16>()?.into_iter().flat_map(digits).collect())
}

/// A random number.
pub fn number() -> Result<u32, NoRandom> {
    Ok(u32::from_be_bytes(bytes::<4>()?))
}

/// An id in the form of a GUID.
pub fn guid() -> Result<String, NoRandom> {
    Ok(guid_of(bytes()?))
}

/// A GUID that differs from all others, and that others may guess: half of it was
/// random when the process began, and the other half counts. It needs no system call.
pub fn serial_guid() -> Result<String, NoRandom> {
    static BEGINNING: OnceLock<[u8; 8]> = OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let beginning = match BEGINNING.get() {
        Some(beginning) => beginning,
        None => {
            let new = bytes()?;
            BEGINNING.get_or_init(|| new)
        }
    };
    let [a, b, c, d, e, f, g, h] = *beginning;
    let [i, j, k, l, m, n, o, p] = COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    Ok(guid_of([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]))
}

/// The GUID of these bytes. Each answer of the hub has one, and formatting numbers would
/// take ten times as long.
fn guid_of(bytes: [u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (place, byte) in bytes.into_iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.extend(digits(byte));
    }
    text
}

/// The two lower-case hexadecimal digits of a byte.
fn digits(byte: u8) -> [char; 2] {
    [byte >> 4, byte & 15].map(|digit| char::from(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 }))
}

/// An etag that nothing has had before.
pub fn etag() -> Result<String, NoRandom> {
    Ok(STANDARD.encode(bytes::<8>()?))
}

fn bytes<const N: usize>() -> Result<[u8; N], NoRandom> {
    let mut bytes = [0; N];
    ring::default_provider().secure_random.fill(&mut bytes).map_err(|_| NoRandom)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_the_same() {
        assert_ne!(key().unwrap().expose(), key().unwrap().expose());
        assert_eq!(key().unwrap().expose().len(), 32);
        let id = hex_id().unwrap();
        assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
        assert_ne!(etag().unwrap(), etag().unwrap());
        let guid = guid().unwrap();
        assert_eq!(guid.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12], "{guid}");
    }
}
