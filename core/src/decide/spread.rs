//! Which of many machines this one is, so that those that wait for the same window
//! do not all begin at its first instant.

use iotdm_proto::{Identity, ModuleId};
use sha2::{Digest as _, Sha256};

/// A number that is the same for the same device in each run and version, and as
/// good as random between devices: the first 8 bytes, big-endian, of the SHA-256 of
/// the hub's name in small letters, the device's and, if it is one, the module's, with
/// a zero byte after each but the last.
pub fn number(hub: &str, id: &Identity) -> u64 {
    let mut hash = Sha256::new();
    hash.update(hub.to_ascii_lowercase());
    let module = id.module.as_ref().map(ModuleId::as_str);
    for name in [Some(id.device.as_str()), module].into_iter().flatten() {
        hash.update([0]);
        hash.update(name);
    }
    hash.finalize().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    use iotdm_proto::Time;
    use jiff::tz::TimeZone;

    use super::super::windows::{self, Turn, Window};
    use super::*;

    fn id(text: &str) -> Identity {
        text.parse().unwrap()
    }

    #[test]
    fn a_device_has_its_number_for_ever() {
        assert_eq!(number("contoso.azure-devices.net", &id("gw1")), 15_676_874_207_223_594_315);
        assert_eq!(
            number("Contoso.azure-devices.net", &id("gw1")),
            number("contoso.azure-devices.net", &id("gw1"))
        );
        let numbers = [
            number("h", &id("gw1")),
            number("h", &id("gw1/m")),
            number("h", &id("gw1m")),
            number("hgw1", &id("m")),
        ];
        let different: BTreeSet<u64> = numbers.into();
        assert_eq!(different.len(), numbers.len());
    }

    #[test]
    fn of_five_hundred_devices_no_minute_has_more_than_twice_its_share() {
        let asked: Time = "2026-11-22T12:00:00Z".parse().unwrap();
        let opens: Time = "2026-11-23T02:00:00Z".parse().unwrap();
        for (window, minutes) in [("02:00-04:00", 30), ("02:00-02:40", 30), ("02:00-02:25", 15)] {
            let windows: [Window; 1] = [window.parse().unwrap()];
            let turn = |device: u32| {
                let number = number("contoso.azure-devices.net", &id(&format!("gw{device}")));
                let turn =
                    Turn { reserve: Duration::from_secs(600), spread: Duration::from_secs(1800), number };
                windows::next(&windows, turn, asked, asked, &TimeZone::UTC)
            };
            let mut begun: BTreeMap<u64, u32> = BTreeMap::new();
            for device in 0..500 {
                assert_eq!(turn(device), turn(device), "each night the same");
                assert!(turn(device) >= opens);
                *begun.entry(turn(device).since(opens).as_secs() / 60).or_default() += 1;
            }
            assert!(begun.keys().all(|minute| *minute < minutes), "{window}: {begun:?}");
            assert!(
                begun.values().all(|count| u64::from(*count) <= 2 * 500 / minutes),
                "{window}: {begun:?}"
            );
        }
    }
}
