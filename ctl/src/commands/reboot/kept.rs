//! What a run keeps of the outcomes until its end: of most devices no more than the
//! kind, so that a fleet of any size fits into memory.

use iotdm_proto::{DeviceId, RequestId};

use super::device_outcome::DeviceOutcome;
use super::outcome::Outcome;
use super::summary::Line;
use crate::output::Format;

/// What is kept of the outcome on one device.
#[derive(Debug, Clone)]
pub(super) enum Kept {
    /// The kind, where there is nothing else that a summary shows.
    Kind(Outcome),
    /// As much as the form of the results needs.
    Whole(Box<DeviceOutcome>),
}

/// The outcomes of a run on its devices.
pub(super) struct Outcomes<'a> {
    devices: &'a [DeviceId],
    /// The id of the run's request.
    id: &'a RequestId,
    /// What is kept of each device, by its number in the run's order; nothing of one that
    /// the run did not come to.
    kept: Vec<Option<Kept>>,
}

impl Kept {
    /// What has to be kept of `outcome` for results in this form.
    pub(super) fn of(outcome: DeviceOutcome, format: Format) -> Self {
        match format {
            // One JSON document at the end needs all of the outcome.
            Format::Json => Kept::Whole(outcome.into()),
            Format::Csv => Kept::Whole(outcome.brief().into()),
            Format::Text | Format::Jsonl | Format::Prometheus => match outcome.error {
                Some(_) => Kept::Whole(outcome.brief().into()),
                None => Kept::Kind(outcome.outcome),
            },
        }
    }

    fn kind(&self) -> Outcome {
        match self {
            Kept::Kind(outcome) => *outcome,
            Kept::Whole(outcome) => outcome.outcome,
        }
    }
}

impl<'a> Outcomes<'a> {
    /// The outcomes of which this is kept.
    pub(super) fn new(devices: &'a [DeviceId], id: &'a RequestId, kept: Vec<Option<Kept>>) -> Self {
        Outcomes { devices, id, kept }
    }

    /// The kind of each outcome.
    pub(super) fn kinds(&self) -> impl Iterator<Item = Outcome> + Clone {
        self.kept.iter().map(|kept| kept.as_ref().map_or(Outcome::NotStarted, Kept::kind))
    }

    /// Each outcome as a summary shows it.
    pub(super) fn lines(&self) -> impl Iterator<Item = Line<'_>> + Clone {
        self.devices.iter().zip(&self.kept).map(|(device, kept)| match kept {
            Some(Kept::Whole(outcome)) => Line::from(&**outcome),
            kept => {
                let outcome = kept.as_ref().map_or(Outcome::NotStarted, Kept::kind);
                Line { device, outcome, error: None }
            }
        })
    }

    /// The outcomes themselves, in a form of which they were kept.
    pub(super) fn whole(self) -> Vec<DeviceOutcome> {
        let of = |(device, kept): (&DeviceId, Option<Kept>)| match kept {
            Some(Kept::Whole(outcome)) => *outcome,
            kept => {
                let outcome = kept.as_ref().map_or(Outcome::NotStarted, Kept::kind);
                DeviceOutcome { outcome, ..DeviceOutcome::not_started(device, self.id) }
            }
        };
        self.devices.iter().zip(self.kept).map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_device_that_did_what_it_should_the_kind_is_enough() {
        // A hundred thousand of them are 1.6 MB.
        assert_eq!(size_of::<Option<Kept>>(), 16);
        let devices = ["gw1", "gw2", "gw3"].map(|id| id.parse().unwrap());
        let id = "r-1".parse().unwrap();
        let outcome = |device: &DeviceId, outcome: Outcome, error: Option<&str>| DeviceOutcome {
            outcome,
            error: error.map(str::to_owned),
            ..DeviceOutcome::not_started(device, &id)
        };
        for format in [Format::Text, Format::Jsonl, Format::Csv, Format::Json] {
            let kept = vec![
                Some(Kept::of(outcome(&devices[0], Outcome::Completed, None), format)),
                None,
                Some(Kept::of(outcome(&devices[2], Outcome::Refused, Some("no")), format)),
            ];
            let is_kind = matches!(kept[0], Some(Kept::Kind(_)));
            assert_eq!(is_kind, matches!(format, Format::Text | Format::Jsonl), "{format:?}");
            let outcomes = Outcomes::new(&devices, &id, kept);
            let kinds = [Outcome::Completed, Outcome::NotStarted, Outcome::Refused];
            assert!(outcomes.kinds().eq(kinds), "{format:?}");
            let lines: Vec<_> =
                outcomes.lines().map(|line| (line.device.as_str(), line.outcome, line.error)).collect();
            let expected = [("gw1", kinds[0], None), ("gw2", kinds[1], None), ("gw3", kinds[2], Some("no"))];
            assert_eq!(lines, expected, "{format:?}");
            assert!(outcomes.whole().iter().map(|on| on.device.as_str()).eq(["gw1", "gw2", "gw3"]));
        }
    }
}
