//! Notices that another client connects with this device's identity, as a card that
//! was copied does. A hub keeps one connection for each device: it ends the older
//! one, without an error, when a newer one comes. Two such clients take the
//! connection from each other for ever, and nothing else tells them of it.

use std::time::Duration;

use crate::connection::outage::{Class, Outage};
use crate::connection::pace::STABLE;

/// Counts the connections that ended as if another client had taken them over.
#[derive(Debug, Default)]
pub struct Rivalry {
    /// How many in a row.
    taken: u32,
}

/// So many in a row are another client's doing: a hub that is restarted ends one or
/// two.
const SUSPICIOUS: u32 = 3;

impl Rivalry {
    /// Judges the end of a connection that the hub had accepted and that `lasted` so
    /// long. Once the connections end suspiciously, the result says so in place of
    /// `outage`.
    pub fn judge(&mut self, outage: Outage, lasted: Duration, device: &str) -> Outage {
        if outage.class != Class::Closed || lasted >= STABLE {
            self.taken = 0;
            return outage;
        }
        self.taken = self.taken.saturating_add(1);
        if self.taken < SUSPICIOUS {
            return outage;
        }
        // Without the number, so that it is the same sentence each time.
        let message = format!(
            "another client connects with this identity, {device}: {}, without an error, several times in a row \
             within a minute. Find that client, for example a machine with a copy of this one's disk, and give it a \
             device of its own",
            outage.message
        );
        Outage { message, ..outage }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_secs(59);

    fn is_suspected(rivalry: &mut Rivalry, outage: &Outage, lasted: Duration) -> bool {
        let judged = rivalry.judge(outage.clone(), lasted, "gw1");
        assert_eq!(judged.class, outage.class);
        let suspected = judged.message.starts_with("another client connects with this identity, gw1: ");
        assert_eq!(suspected, judged != *outage);
        suspected
    }

    #[test]
    fn the_third_short_connection_in_a_row_that_is_closed_without_an_error_is_suspicious() {
        let mut rivalry = Rivalry::default();
        let mut ended = |outage: &Outage, lasted| is_suspected(&mut rivalry, outage, lasted);
        let closed = Outage::closed("hub:8883");
        assert!(!ended(&closed, SHORT) && !ended(&closed, SHORT));
        assert!(ended(&closed, SHORT) && ended(&closed, SHORT));
        // One that lasts, and one that ends for a reason, begin the count anew.
        for (outage, lasted) in [(&closed, STABLE), (&Outage::unreachable("no longer answers"), SHORT)] {
            assert!(!ended(outage, lasted));
            assert!(!ended(&closed, SHORT) && !ended(&closed, SHORT));
            assert!(ended(&closed, SHORT));
        }
    }
}
