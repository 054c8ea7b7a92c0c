//! Who looks at the hub in a browser: the tickets that let somebody in once, and the
//! visits that they are exchanged for.
//!
//! A browser cannot sign tokens, and a token in an address would stay in its history.
//! So whoever may read the emulator's directory gets a ticket, which is good for one
//! visit with the rights of one policy. Both are random, kept by their digest, so that
//! looking one up takes the same time whatever it is, and forgotten with the process.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::policies::Right;
use crate::random::{self, NoRandom};

/// How long a ticket waits to be used.
pub const TICKET_LIFE: Duration = Duration::from_secs(3600);

/// How long a visit lasts: a working day.
pub const VISIT_LIFE: Duration = Duration::from_secs(12 * 3600);

/// How many tickets, and how many visits, there may be; the oldest gives way.
const MOST: usize = 64;

/// What a visitor may do, and how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The policy that the visitor stands for.
    pub policy: String,
    /// What the policy allows.
    pub rights: &'static [Right],
    /// When the visit ends.
    pub until: Instant,
}

/// The tickets and the visits.
#[derive(Default)]
pub struct Visits(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    tickets: VecDeque<Entry>,
    visits: VecDeque<Entry>,
}

struct Entry {
    digest: [u8; 32],
    until: Instant,
    grant: Grant,
}

impl Grant {
    /// Whether the visitor has the right.
    pub fn allows(&self, right: Right) -> bool {
        self.rights.contains(&right)
    }
}

impl Visits {
    /// A ticket for one visit as `grant` has it, which it shortens to [`VISIT_LIFE`].
    pub fn issue(&self, grant: Grant, now: Instant) -> Result<String, NoRandom> {
        let ticket = random::hex_id()?;
        let until = grant.until.min(now + TICKET_LIFE);
        let entry = Entry { digest: digest(&ticket), until, grant };
        keep(&mut self.lock().tickets, entry, now);
        Ok(ticket)
    }

    /// Takes a ticket, which is gone then, and begins a visit: what the visitor has to
    /// show from now on. `None` for a ticket that was used, is too old or never was.
    pub fn begin(&self, ticket: &str, now: Instant) -> Result<Option<(String, Grant)>, NoRandom> {
        let wanted = digest(ticket);
        let mut inner = self.lock();
        let found = inner.tickets.iter().position(|entry| entry.digest == wanted && now < entry.until);
        let Some(entry) = found.and_then(|place| inner.tickets.remove(place)) else { return Ok(None) };
        let visit = random::hex_id()?;
        let grant = Grant { until: entry.grant.until.min(now + VISIT_LIFE), ..entry.grant };
        let entry = Entry { digest: digest(&visit), until: grant.until, grant: grant.clone() };
        keep(&mut inner.visits, entry, now);
        Ok(Some((visit, grant)))
    }

    /// What the visitor who shows `visit` may do; `None` once the visit is over.
    pub fn find(&self, visit: &str, now: Instant) -> Option<Grant> {
        let wanted = digest(visit);
        let inner = self.lock();
        let found = inner.visits.iter().find(|entry| entry.digest == wanted && now < entry.until);
        found.map(|entry| entry.grant.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds an entry, and forgets those that are over or too many.
fn keep(entries: &mut VecDeque<Entry>, entry: Entry, now: Instant) {
    entries.retain(|entry| now < entry.until);
    if entries.len() == MOST {
        entries.pop_front();
    }
    entries.push_back(entry);
}

fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(until: Instant) -> Grant {
        Grant { policy: "service".into(), rights: &[Right::ServiceConnect], until }
    }

    #[test]
    fn a_ticket_is_good_for_one_visit_and_each_has_its_time() {
        let (visits, now) = (Visits::default(), Instant::now());
        let day = now + 2 * VISIT_LIFE;
        let ticket = visits.issue(grant(day), now).unwrap();
        assert_eq!(visits.find(&ticket, now), None, "a ticket is no visit");
        let (visit, begun) = visits.begin(&ticket, now).unwrap().unwrap();
        assert!(begun.allows(Right::ServiceConnect) && !begun.allows(Right::RegistryRead));
        assert_eq!(begun.until, now + VISIT_LIFE);
        assert_eq!(visits.begin(&ticket, now).unwrap(), None, "used");
        assert_eq!(visits.begin(&visit, now).unwrap(), None, "a visit is no ticket");
        assert_eq!(visits.find(&visit, now), Some(begun));
        assert_eq!(visits.find(&visit, now + VISIT_LIFE), None, "over");

        let ticket = visits.issue(grant(day), now).unwrap();
        assert_eq!(visits.begin(&ticket, now + TICKET_LIFE).unwrap(), None, "too old");
        let soon = now + Duration::from_secs(5);
        let ticket = visits.issue(grant(soon), now).unwrap();
        let (_, begun) = visits.begin(&ticket, now).unwrap().unwrap();
        assert_eq!(begun.until, soon, "a visit ends no later than what gave the ticket");
    }

    #[test]
    fn the_oldest_gives_way() {
        let (visits, now) = (Visits::default(), Instant::now());
        let until = now + VISIT_LIFE;
        let tickets: Vec<String> = (0..=MOST).map(|_| visits.issue(grant(until), now).unwrap()).collect();
        assert_eq!(visits.begin(&tickets[0], now).unwrap(), None);
        assert!(visits.begin(&tickets[MOST], now).unwrap().is_some());
    }
}
