//! In which order a run goes through its devices, and when it stops.

use std::future::Future;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};

/// How to go through many devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rules {
    /// How many are worked on at a time.
    pub(super) max_in_flight: usize,
    /// How many go before all others.
    pub(super) canary: usize,
    /// How many may fail before no other is started.
    pub(super) max_failures: Option<usize>,
    /// How many are called in a second at most.
    #[serde(default = "default_per_second")]
    pub(super) max_per_second: u32,
}

/// As many as the smallest paid tier takes.
fn default_per_second() -> u32 {
    40
}

/// How one device went, as far as the order of the others depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Went {
    /// Well.
    Well,
    /// Not well.
    Badly,
    /// The hub failed, as it would with any other device.
    HubsFault,
}

/// Why a run started no more devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// One of those that went first did not end well.
    Canary,
    /// More failed than were allowed to.
    Failures,
    /// The hub fails.
    Hub,
}

impl Default for Rules {
    fn default() -> Self {
        Rules { max_in_flight: 10, canary: 0, max_failures: None, max_per_second: default_per_second() }
    }
}

impl Stop {
    /// The reason, for people.
    pub(super) fn sentence(self, rules: &Rules) -> String {
        match (self, rules.max_failures) {
            (Stop::Failures, Some(limit)) => format!("more than {limit} devices failed (--max-failures)"),
            (Stop::Failures, None) => "too many devices failed".to_owned(),
            (Stop::Canary, _) => "one of those that went first failed (--canary)".to_owned(),
            (Stop::Hub, _) => "the hub fails, with any device".to_owned(),
        }
    }
}

/// Starts `tasks` in their order, as the rules have it, and waits for all that
/// were started. Returns why the rest was not, if so; an error ends it at once.
pub(super) async fn roll<F>(tasks: impl IntoIterator<Item = F>, rules: &Rules) -> anyhow::Result<Option<Stop>>
where
    F: Future<Output = anyhow::Result<Went>>,
{
    let mut tasks = tasks.into_iter();
    let mut running = FuturesUnordered::new();
    let (mut started, mut ended, mut failed, mut stop) = (0, 0, 0, None);
    loop {
        while stop.is_none()
            && running.len() < rules.max_in_flight.max(1)
            && (started < rules.canary || ended >= rules.canary)
        {
            let Some(task) = tasks.next() else { break };
            running.push(task);
            started += 1;
        }
        let Some(went) = running.next().await else { return Ok(stop) };
        let went = went?;
        ended += 1;
        failed += usize::from(went != Went::Well);
        let why = match went {
            Went::HubsFault => Some(Stop::Hub),
            Went::Badly if ended <= rules.canary => Some(Stop::Canary),
            Went::Badly if rules.max_failures.is_some_and(|limit| failed > limit) => Some(Stop::Failures),
            _ => None,
        };
        stop = stop.or(why);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    /// Runs tasks that end as `ends` says; which were started, how many at
    /// most at a time, and why it stopped.
    fn run(ends: &[Went], rules: Rules) -> (usize, usize, Option<Stop>) {
        let (now, most, started) = (Cell::new(0), Cell::new(0), RefCell::new(Vec::new()));
        let task = |(index, went): (usize, &Went)| {
            let (now, most, started, went) = (&now, &most, &started, *went);
            async move {
                started.borrow_mut().push(index);
                now.set(now.get() + 1);
                most.set(most.get().max(now.get()));
                tokio::task::yield_now().await;
                now.set(now.get() - 1);
                Ok(went)
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let stop = runtime.block_on(roll(ends.iter().enumerate().map(task), &rules)).unwrap();
        assert!(started.borrow().iter().enumerate().all(|(n, index)| n == *index), "in their order");
        (started.into_inner().len(), most.get(), stop)
    }

    #[test]
    fn no_more_than_allowed_at_a_time() {
        let rules = |max_in_flight| Rules { max_in_flight, ..Rules::default() };
        assert_eq!(run(&[Went::Well; 20], rules(7)), (20, 7, None));
        assert_eq!(run(&[Went::Well; 3], rules(7)), (3, 3, None));
        assert_eq!(run(&[], rules(7)), (0, 0, None));
    }

    #[test]
    fn canaries_go_first_and_stop_all_if_one_fails() {
        let rules = Rules { canary: 2, max_failures: Some(9), ..Rules::default() };
        let mut ends = [Went::Well; 20];
        assert_eq!(run(&ends, rules), (20, 10, None));
        ends[2] = Went::Badly;
        assert_eq!(run(&ends, rules), (20, 10, None), "the third is none");
        ends[0] = Went::Badly;
        assert_eq!(run(&ends, rules), (2, 2, Some(Stop::Canary)));
    }

    #[test]
    fn the_failure_budget_and_a_failing_hub_stop_it() {
        let mut ends = [Went::Well; 20];
        (ends[3], ends[5]) = (Went::Badly, Went::Badly);
        let rules = |max_failures| Rules { max_in_flight: 1, max_failures, ..Rules::default() };
        assert_eq!(run(&ends, rules(None)).0, 20);
        assert_eq!(run(&ends, rules(Some(2))), (20, 1, None));
        assert_eq!(run(&ends, rules(Some(1))), (6, 1, Some(Stop::Failures)));
        assert_eq!(run(&ends, rules(Some(0))), (4, 1, Some(Stop::Failures)));
        ends[1] = Went::HubsFault;
        assert_eq!(run(&ends, rules(None)), (2, 1, Some(Stop::Hub)));
    }
}
