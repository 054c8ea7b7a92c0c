//! A shared access policy of a hub, with whose key this program signs its own tokens.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use iotdm_proto::{SecretKey, Time, sas};

/// How long a token is valid: 1 h.
const TOKEN_TTL: Duration = Duration::from_secs(3600);
/// How long a token is used: 5 min. Most of its hour is left then, for a clock that is slow.
const USED_FOR: Duration = Duration::from_secs(300);

/// A shared access policy.
pub struct Policy {
    name: String,
    key: SecretKey,
    kept: Mutex<Option<Kept>>,
}

/// The token that was signed last.
struct Kept {
    host: String,
    expiry: Time,
    token: String,
}

impl Policy {
    /// The policy of this name, which has this key.
    pub fn new(name: String, key: SecretKey) -> Self {
        Policy { name, key, kept: Mutex::default() }
    }

    /// A token for the hub `host` that is valid for some 55 min from the instant `now`
    /// on.
    pub(super) fn token(&self, host: &str, now: Time) -> String {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // Where the clock was set back meanwhile, the token would be valid for longer.
        let left = TOKEN_TTL - USED_FOR..=TOKEN_TTL;
        let is_good = |kept: &&Kept| kept.host == host && left.contains(&kept.expiry.since(now));
        if let Some(kept) = kept.as_ref().filter(is_good) {
            return kept.token.clone();
        }
        let expiry = now.after(TOKEN_TTL);
        let token = self.sign(host, expiry.unix_seconds());
        *kept = Some(Kept { host: host.to_owned(), expiry, token: token.clone() });
        token
    }

    /// A token for the hub `host` that is valid until `expiry`, in seconds since the
    /// Unix epoch.
    pub(super) fn sign(&self, host: &str, expiry: u64) -> String {
        sas::sign(host, &self.key, expiry, Some(&self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_serves_for_minutes_of_its_hour_and_for_its_hub_alone() {
        let policy = Policy::new("service".into(), "a2V5".parse().unwrap());
        let start = Time::from_unix_millis(1_700_000_000_000);
        let at = |minutes: u64| policy.token("h", start.after(Duration::from_secs(60 * minutes)));
        let first = at(0);
        assert!(first.contains("se=1700003600"), "{first}");
        assert_eq!(at(1), first);
        assert_eq!(at(5), first);
        let second = at(6);
        assert!(second.contains("se=1700003960"), "{second}");
        assert_eq!(at(11), second);
        assert!(policy.token("other", start).contains("sr=other"));
        // The clock was set back.
        assert_eq!(at(0), first);
    }
}
