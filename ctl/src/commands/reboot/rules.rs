//! How to go through many devices: what the command line and the journal say.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cli::{FleetArgs, Until};
use crate::values::MaxFailures;

/// How to go through many devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rules {
    /// How many devices at most are between their call and their outcome.
    pub(super) max_in_flight: usize,
    /// How many devices go before all others.
    pub(super) canary: usize,
    /// How many devices may fail before no other is started; any number if
    /// `None`.
    pub(super) max_failures: Option<usize>,
    /// How many devices are called in a second at most.
    #[serde(default = "default_per_second")]
    pub(super) max_per_second: u32,
    /// What makes a reboot complete; for each device by what it reports if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) until: Option<Until>,
    /// For how long the canaries are watched, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) soak: Option<u64>,
    /// How many devices of a group at most are away at once; any number if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) at_most: Option<usize>,
    /// The command that is asked before each start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) gate: Option<String>,
    /// How long that command may hold a start, in seconds; the default if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) gate_timeout: Option<u64>,
    /// Over how long the starts of all devices are spread, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) spread: Option<u64>,
}

/// How many method calls a unit of the smallest paid tier takes in a second.
///
/// Source: IoT Hub developer guide, "Reference - IoT Hub quotas and
/// throttling".
fn default_per_second() -> u32 {
    40
}

/// How long a gate may hold a start, if nothing else is said.
const GATE_TIMEOUT: Duration = Duration::from_secs(60 * 60);

impl Default for Rules {
    fn default() -> Self {
        Rules {
            max_in_flight: 10,
            canary: 0,
            max_failures: None,
            max_per_second: default_per_second(),
            until: None,
            soak: None,
            at_most: None,
            gate: None,
            gate_timeout: None,
            spread: None,
        }
    }
}

impl Rules {
    /// The rules for `devices` devices that a condition has selected, and nobody
    /// has looked at one by one: a canary, and a stop once more than a tenth of
    /// them, and at least two, have failed.
    pub(super) fn with_care(devices: usize) -> Self {
        Rules { canary: 1, max_failures: Some((devices / 10).max(1)), ..Rules::default() }
    }

    /// The rules of the command line, and where it gives none these.
    pub(super) fn overruled_by(self, args: &FleetArgs) -> Self {
        Rules {
            max_in_flight: args.max_in_flight.unwrap_or(self.max_in_flight),
            canary: args.canary.unwrap_or(self.canary),
            max_failures: match args.max_failures {
                Some(MaxFailures::All) => None,
                Some(MaxFailures::AtMost(limit)) => Some(limit),
                None => self.max_failures,
            },
            max_per_second: args.max_per_second.unwrap_or(self.max_per_second),
            until: args.until.or(self.until),
            soak: args.soak.map(millis).or(self.soak),
            at_most: args.at_most.or(self.at_most),
            gate: args.gate.clone().or(self.gate),
            gate_timeout: args.gate_timeout.map(|time| time.as_secs()).or(self.gate_timeout),
            spread: args.spread.map(millis).or(self.spread),
        }
    }

    /// How long the gate may hold a start.
    pub(super) fn gate_patience(&self) -> Duration {
        self.gate_timeout.map_or(GATE_TIMEOUT, Duration::from_secs)
    }

    /// For how long the canaries are watched.
    pub(super) fn soak(&self) -> Option<Duration> {
        self.soak.map(Duration::from_millis)
    }

    /// How long after one start the next may be, in a run over `devices` devices.
    pub(super) fn gap(&self, devices: usize) -> Duration {
        let spread = self.spread.map_or(Duration::ZERO, Duration::from_millis);
        spread / u32::try_from(devices).unwrap_or(u32::MAX).max(1)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_gate_may_hold_a_start_for_an_hour_unless_told_otherwise() {
        let patience = |gate_timeout| Rules { gate_timeout, ..Rules::default() }.gate_patience().as_secs();
        assert_eq!((patience(None), patience(Some(5))), (3600, 5));
    }

    #[test]
    fn more_than_a_tenth_and_at_least_two() {
        // The run stops at the next failure after the limit.
        for (devices, limit) in [(1, 1), (9, 1), (10, 1), (19, 1), (20, 2), (25, 2), (30, 3), (500, 50)] {
            let rules = Rules::with_care(devices);
            assert_eq!((rules.canary, rules.max_failures), (1, Some(limit)), "{devices}");
        }
    }

    #[test]
    fn a_journal_of_before_there_was_a_rate_has_the_default() {
        let rules =
            serde_json::from_value::<Rules>(json!({"maxInFlight": 10, "canary": 0, "maxFailures": null}));
        assert_eq!(rules.unwrap(), Rules::default());
    }

    #[test]
    fn starts_are_spread_evenly() {
        let rules = Rules { spread: Some(60_000), ..Rules::default() };
        assert_eq!(rules.gap(120), Duration::from_millis(500));
        assert_eq!((Rules::default().gap(120), rules.gap(0)), (Duration::ZERO, Duration::from_secs(60)));
    }
}
