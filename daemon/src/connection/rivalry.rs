//! Notices that another client connects with the daemon's identity, as an application
//! on the same gateway may, or a card that was copied. A hub keeps one connection for
//! each device and for each module: it ends the older one, without an error, when a
//! newer one comes. Two such clients take the
//! connection from each other for ever, and nothing else tells them of it.

use std::time::Duration;

use iotdm_proto::Identity;

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
    pub fn judge(&mut self, outage: Outage, lasted: Duration, id: &Identity) -> Outage {
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
            "another client connects with this identity, {id}: {}, without an error, several times in a row within a \
             minute. Find that client: {}",
            outage.message,
            remedy(id)
        );
        Outage { message, ..outage }
    }
}

/// What to do about two clients with one identity.
fn remedy(id: &Identity) -> String {
    let copied = "a machine with a copy of this one's disk, give that a device of its own";
    match &id.module {
        None => format!(
            "if it is another program of this gateway, give this daemon a module identity, which connects beside the \
             device (iotdm-ctl device create {} --module iotdm --out FILE); if it is {copied}",
            id.device
        ),
        Some(_) => format!(
            "if it is another program of this gateway, give that a module identity of its own; if it is {copied}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_secs(59);

    fn is_suspected(rivalry: &mut Rivalry, outage: &Outage, lasted: Duration) -> bool {
        let judged = rivalry.judge(outage.clone(), lasted, &"gw1".parse().unwrap());
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

    #[test]
    fn a_module_identity_is_the_remedy() {
        let said = |id: &str| {
            let mut rivalry = Rivalry { taken: SUSPICIOUS - 1 };
            rivalry.judge(Outage::closed("hub:8883"), SHORT, &id.parse().unwrap()).message
        };
        let device = said("gw1");
        assert!(device.contains("iotdm-ctl device create gw1 --module iotdm --out FILE"), "{device}");
        let module = said("gw1/iotdm");
        assert!(module.starts_with("another client connects with this identity, gw1/iotdm: "), "{module}");
        assert!(module.contains("give that a module identity of its own"), "{module}");
    }
}
