//! In which order a run goes through its devices, and when it stops.

use std::future::Future;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};

use super::device_outcome::OutcomeClass;

/// How to go through many devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// How many method calls a unit of the smallest paid tier takes in a second.
///
/// Source: IoT Hub developer guide, "Reference - IoT Hub quotas and
/// throttling".
fn default_per_second() -> u32 {
    40
}

/// Why a run started no more devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopReason {
    /// One of the devices that went first failed.
    Canary,
    /// More devices failed than were allowed to.
    Failures,
    /// The hub fails.
    Hub,
}

impl Default for Rules {
    fn default() -> Self {
        Rules { max_in_flight: 10, canary: 0, max_failures: None, max_per_second: default_per_second() }
    }
}

impl StopReason {
    /// The reason for people.
    pub(super) fn sentence(self, rules: &Rules) -> String {
        match (self, rules.max_failures) {
            (StopReason::Failures, Some(limit)) => {
                format!("more than {limit} devices failed (--max-failures)")
            }
            (StopReason::Failures, None) => "too many devices failed".to_owned(),
            (StopReason::Canary, _) => "one of those that went first failed (--canary)".to_owned(),
            (StopReason::Hub, _) => "the hub fails, with any device".to_owned(),
        }
    }
}

/// Starts `tasks`, of which each takes one device to its outcome, in their order
/// as the rules have it, and waits for all that were started. Returns why the
/// rest was not started, if it was not. The error of a task ends the run at once.
pub(super) async fn roll<F>(
    tasks: impl IntoIterator<Item = F>,
    rules: &Rules,
) -> anyhow::Result<Option<StopReason>>
where
    F: Future<Output = anyhow::Result<OutcomeClass>>,
{
    let mut tasks = tasks.into_iter();
    let mut running = FuturesUnordered::new();
    let (mut started, mut done, mut failed, mut stop) = (0, 0, 0, None);
    loop {
        while stop.is_none()
            && running.len() < rules.max_in_flight.max(1)
            && (started < rules.canary || done >= rules.canary)
        {
            let Some(task) = tasks.next() else { break };
            running.push(task);
            started += 1;
        }
        let Some(class) = running.next().await else { return Ok(stop) };
        let class = class?;
        done += 1;
        failed += usize::from(class != OutcomeClass::Success);
        let is_over_budget = rules.max_failures.is_some_and(|limit| failed > limit);
        let why = match class {
            OutcomeClass::HubFailure => Some(StopReason::Hub),
            OutcomeClass::Failure if done <= rules.canary => Some(StopReason::Canary),
            OutcomeClass::Failure if is_over_budget => Some(StopReason::Failures),
            OutcomeClass::Failure | OutcomeClass::Success => None,
        };
        stop = stop.or(why);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    /// Runs tasks with these outcomes. Returns how many were started, how many of
    /// them ran at a time at most, and why no more were started.
    fn run(outcomes: &[OutcomeClass], rules: Rules) -> (usize, usize, Option<StopReason>) {
        let (now, most, started) = (Cell::new(0), Cell::new(0), RefCell::new(Vec::new()));
        let task = |(index, class): (usize, &OutcomeClass)| {
            let (now, most, started, class) = (&now, &most, &started, *class);
            async move {
                started.borrow_mut().push(index);
                now.set(now.get() + 1);
                most.set(most.get().max(now.get()));
                tokio::task::yield_now().await;
                now.set(now.get() - 1);
                Ok(class)
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let stop = runtime.block_on(roll(outcomes.iter().enumerate().map(task), &rules)).unwrap();
        assert!(started.borrow().iter().enumerate().all(|(n, index)| n == *index), "in their order");
        (started.into_inner().len(), most.get(), stop)
    }

    #[test]
    fn no_more_than_allowed_at_a_time() {
        let rules = |max_in_flight| Rules { max_in_flight, ..Rules::default() };
        assert_eq!(run(&[OutcomeClass::Success; 20], rules(7)), (20, 7, None));
        assert_eq!(run(&[OutcomeClass::Success; 3], rules(7)), (3, 3, None));
        assert_eq!(run(&[], rules(7)), (0, 0, None));
    }

    #[test]
    fn canaries_go_first_and_stop_all_if_one_fails() {
        let rules = Rules { canary: 2, max_failures: Some(9), ..Rules::default() };
        let mut outcomes = [OutcomeClass::Success; 20];
        assert_eq!(run(&outcomes, rules), (20, 10, None));
        outcomes[2] = OutcomeClass::Failure;
        assert_eq!(run(&outcomes, rules), (20, 10, None), "the third is none");
        outcomes[0] = OutcomeClass::Failure;
        assert_eq!(run(&outcomes, rules), (2, 2, Some(StopReason::Canary)));
    }

    #[test]
    fn the_failure_budget_and_a_failing_hub_stop_it() {
        let mut outcomes = [OutcomeClass::Success; 20];
        (outcomes[3], outcomes[5]) = (OutcomeClass::Failure, OutcomeClass::Failure);
        let rules = |max_failures| Rules { max_in_flight: 1, max_failures, ..Rules::default() };
        assert_eq!(run(&outcomes, rules(None)).0, 20);
        assert_eq!(run(&outcomes, rules(Some(2))), (20, 1, None));
        assert_eq!(run(&outcomes, rules(Some(1))), (6, 1, Some(StopReason::Failures)));
        assert_eq!(run(&outcomes, rules(Some(0))), (4, 1, Some(StopReason::Failures)));
        outcomes[1] = OutcomeClass::HubFailure;
        assert_eq!(run(&outcomes, rules(None)), (2, 1, Some(StopReason::Hub)));
    }
}
