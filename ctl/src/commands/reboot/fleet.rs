//! In which order a run goes through its devices, and when it stops.

use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

use super::device_outcome::OutcomeClass;
use super::places::Places;
use super::rules::Rules;

/// Why a run started no more devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopReason {
    /// One of the devices that went first failed.
    Canary,
    /// More devices failed than were allowed to.
    Failures,
    /// The hub fails.
    Hub,
    /// The journal takes nothing more.
    Journal,
    /// The gate held for too long.
    Gate,
    /// So many devices have no place, since others of their groups are away.
    Groups(usize),
}

/// A device of a run that has no final outcome yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Open {
    /// The device's number in the run's order.
    pub(super) index: usize,
    /// How it stands with the device.
    pub(super) standing: Standing,
}

/// How it stands with a device that has no final outcome yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its turn is yet to come.
    New,
    /// Its turn is yet to come, but it has gone away since the run began, so that it
    /// takes a place of its group as it is.
    Away,
    /// An earlier invocation may have asked it, so that it may be away, and its outcome
    /// is looked for.
    Asked,
}

/// What is known before the first start.
pub(super) struct Beginning {
    /// How many devices the run has.
    pub(super) devices: usize,
    /// The devices without a final outcome, in the run's order.
    pub(super) open: Vec<Open>,
    /// The devices that have failed for good.
    pub(super) failed: Vec<usize>,
    /// The devices that were left as they were, since they needed nothing.
    pub(super) untouched: Vec<usize>,
    /// The devices that have failed for good and may not be well, so that their places
    /// stay taken.
    pub(super) held: Vec<usize>,
    /// The group of each device; all are in one if none is given.
    pub(super) groups: Vec<usize>,
    /// When the next device may be started, with `--spread`.
    pub(super) next_start: Instant,
}

/// How it went with one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone {
    pub(super) class: OutcomeClass,
    /// Whether the device may be away or not well, so that its place stays taken.
    pub(super) may_be_away: bool,
}

/// What a run does to its devices.
pub(super) trait Work {
    /// Takes the device of this number to its outcome. The error ends the run at
    /// once.
    fn start(&self, start: Start) -> impl Future<Output = anyhow::Result<(usize, Gone)>>;

    /// Asks the gate until it lets the device of this number be started; `false`
    /// if it did not in time.
    fn gate(&self, index: usize) -> impl Future<Output = bool>;

    /// Whether something else than an outcome stops the run.
    fn stopped(&self) -> Option<StopReason>;

    /// No other device will be started, so that nobody has to wait for canaries.
    fn has_stopped(&self);
}

/// How a device is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    /// The device's number in the run's order.
    pub(super) index: usize,
    /// Whether the device may be asked. If not, an earlier invocation's request is
    /// only looked for.
    pub(super) may_ask: bool,
    /// Whether the device goes before the others.
    pub(super) is_canary: bool,
}

/// Which devices go before all others: the first so many, but for those that were left
/// as they were, which prove nothing.
struct Canaries {
    count: usize,
    untouched: BTreeSet<usize>,
    /// The devices that have no outcome yet.
    open: BTreeSet<usize>,
}

impl Canaries {
    /// The number after that of the last canary.
    fn end(&self) -> usize {
        if self.count == 0 {
            return 0;
        }
        let is_in = |end: usize| self.untouched.range(..end).count();
        let mut end = self.count;
        while end != self.count + is_in(end) {
            end = self.count + is_in(end);
        }
        end
    }

    fn has(&self, index: usize) -> bool {
        index < self.end()
    }

    /// Whether some of them have no outcome yet.
    fn are_open(&self) -> bool {
        self.open.range(..self.end()).next().is_some()
    }
}

impl StopReason {
    /// The reason for people, and how to go on all the same.
    pub(super) fn sentence(self, rules: &Rules) -> String {
        match (self, rules.max_failures) {
            (StopReason::Failures, Some(limit)) => format!(
                "more than {limit} devices failed (--max-failures); --max-failures all goes on all the same"
            ),
            (StopReason::Failures, None) => "too many devices failed".to_owned(),
            (StopReason::Canary, _) => {
                "one of those that went first failed (--canary); --canary 0 goes on all the same".to_owned()
            }
            (StopReason::Hub, _) => "the hub fails, with any device".to_owned(),
            (StopReason::Journal, _) => "nothing can be sent that is not in the journal".to_owned(),
            (StopReason::Gate, _) => "the gate held for too long (--gate-timeout)".to_owned(),
            (StopReason::Groups(held), _) => {
                format!("{held} devices wait for others of their groups that are not back (--at-most)")
            }
        }
    }
}

/// Takes the open devices to their outcomes as the rules have it: first those that
/// are under way, then the others in their order. Returns why some were not
/// started, if so.
pub(super) async fn roll(
    work: &impl Work,
    beginning: Beginning,
    rules: &Rules,
) -> anyhow::Result<Option<StopReason>> {
    let Beginning { devices, open, failed, untouched, held, groups, mut next_start } = beginning;
    let mut canaries = Canaries {
        count: rules.canary,
        untouched: untouched.into_iter().collect(),
        open: open.iter().map(|device| device.index).collect(),
    };
    let canary_failed = failed.iter().any(|index| canaries.has(*index));
    let mut failed = failed.len();
    let is_over_budget = |failed: usize| rules.max_failures.is_some_and(|limit| failed > limit);
    let gap = rules.gap(devices);

    let groups = if groups.is_empty() { vec![0; devices] } else { groups };
    let mut places = Places::new(groups, rules.at_most.unwrap_or(usize::MAX));
    held.into_iter().for_each(|index| places.take(index));
    let mut under_way = VecDeque::new();
    for Open { index, standing } in &open {
        match standing {
            Standing::Asked => {
                places.take(*index);
                under_way.push_back(*index);
            }
            Standing::Away => places.queue_with_place(*index),
            Standing::New => {}
        }
    }
    for Open { index, .. } in open.iter().filter(|device| device.standing == Standing::New) {
        places.queue(*index);
    }
    let mut stop = match () {
        () if canary_failed => Some(StopReason::Canary),
        () if is_over_budget(failed) => Some(StopReason::Failures),
        () => None,
    };

    let mut running = FuturesUnordered::new();
    let mut asking: Option<Pin<Box<dyn Future<Output = bool> + '_>>> = None;
    // Which device the gate is asked about, or has just let through.
    let mut asked = None;
    let mut is_gate_open = rules.gate.is_none();
    loop {
        stop = stop.or_else(|| work.stopped());
        if stop.is_some() {
            asking = None;
            work.has_stopped();
        }
        // Whoever is to be started next, if only time or the gate is in the way.
        let mut wanted = None;
        while running.len() < rules.max_in_flight.max(1) {
            if !matches!(stop, Some(StopReason::Hub | StopReason::Journal))
                && let Some(index) = under_way.pop_front()
            {
                let (may_ask, is_canary) = (stop.is_none(), canaries.has(index));
                running.push(work.start(Start { index, may_ask, is_canary }));
                continue;
            }
            let allowed = |index: &usize| stop.is_none() && (canaries.has(*index) || !canaries.are_open());
            wanted = asked.or_else(|| places.first()).filter(allowed);
            let Some(index) = wanted else { break };
            if Instant::now() < next_start || !is_gate_open {
                break;
            }
            (is_gate_open, asked) = (rules.gate.is_none(), None);
            next_start = Instant::now() + gap;
            places.take(index);
            running.push(work.start(Start { index, may_ask: true, is_canary: canaries.has(index) }));
            wanted = None;
        }
        let waits_for_time = wanted.is_some() && Instant::now() < next_start;
        if let Some(index) = wanted.filter(|_| !waits_for_time && asking.is_none()) {
            asked = Some(index);
            asking = Some(Box::pin(work.gate(index)));
        }
        if running.is_empty() && wanted.is_none() {
            let held = places.held();
            return Ok(stop.or((held > 0).then_some(StopReason::Groups(held))));
        }
        let gate = async {
            match &mut asking {
                Some(asking) => asking.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(ended) = running.next(), if !running.is_empty() => {
                let (index, gone) = ended?;
                if !gone.may_be_away {
                    places.release(index);
                }
                let is_canary = canaries.has(index);
                canaries.open.remove(&index);
                let why = match gone.class {
                    OutcomeClass::HubFailure => Some(StopReason::Hub),
                    OutcomeClass::Failure if is_canary => Some(StopReason::Canary),
                    OutcomeClass::Failure if is_over_budget(failed + 1) => Some(StopReason::Failures),
                    OutcomeClass::Failure | OutcomeClass::Success | OutcomeClass::Untouched => None,
                };
                match gone.class {
                    OutcomeClass::Failure | OutcomeClass::HubFailure => failed += 1,
                    OutcomeClass::Untouched => drop(canaries.untouched.insert(index)),
                    OutcomeClass::Success => {}
                }
                stop = stop.or(why);
            }
            opened = gate => {
                asking = None;
                match opened {
                    true => is_gate_open = true,
                    false => stop = stop.or(Some(StopReason::Gate)),
                }
            }
            () = sleep_until(next_start), if waits_for_time => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::time::Duration;

    use super::*;

    const FAILURE: Gone = Gone { class: OutcomeClass::Failure, may_be_away: false };
    const SUCCESS: Gone = Gone { class: OutcomeClass::Success, may_be_away: false };
    const UNTOUCHED: Gone = Gone { class: OutcomeClass::Untouched, may_be_away: false };
    const LOST: Gone = Gone { class: OutcomeClass::Failure, may_be_away: true };

    /// Devices with these outcomes, each of which takes a second.
    struct Devices {
        outcomes: Vec<Gone>,
        groups: Vec<usize>,
        under_way: Vec<usize>,
        gone: Vec<usize>,
        failed: Vec<usize>,
        held: Vec<usize>,
        /// How often the gate is closed before it opens for the first time.
        closed: Cell<usize>,
        asked: RefCell<Vec<usize>>,
        now: RefCell<Vec<usize>>,
        most: Cell<usize>,
        /// The most of a group that were away at once.
        most_of_group: Cell<usize>,
        away: RefCell<Vec<usize>>,
        started: RefCell<Vec<usize>>,
        times: RefCell<Vec<Duration>>,
        begun: Cell<Option<Instant>>,
        canaries: RefCell<Vec<usize>>,
    }

    impl Work for Devices {
        async fn start(&self, Start { index, is_canary, .. }: Start) -> anyhow::Result<(usize, Gone)> {
            if is_canary {
                self.canaries.borrow_mut().push(index);
            }
            self.started.borrow_mut().push(index);
            self.times.borrow_mut().push(self.begun.get().unwrap().elapsed());
            self.now.borrow_mut().push(index);
            self.most.set(self.most.get().max(self.now.borrow().len()));
            let group = self.groups.get(index).copied().unwrap_or(index);
            self.away.borrow_mut()[group] += 1;
            self.most_of_group.set(self.most_of_group.get().max(self.away.borrow()[group]));
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.now.borrow_mut().retain(|other| *other != index);
            let gone = self.outcomes[index];
            self.away.borrow_mut()[group] -= usize::from(!gone.may_be_away);
            Ok((index, gone))
        }

        async fn gate(&self, index: usize) -> bool {
            self.asked.borrow_mut().push(index);
            tokio::time::sleep(Duration::from_secs(30)).await;
            let closed = self.closed.get();
            self.closed.set(closed.saturating_sub(1));
            closed == 0
        }

        fn stopped(&self) -> Option<StopReason> {
            None
        }

        fn has_stopped(&self) {}
    }

    fn devices(outcomes: &[Gone]) -> Devices {
        Devices {
            outcomes: outcomes.to_vec(),
            groups: Vec::new(),
            under_way: Vec::new(),
            gone: Vec::new(),
            failed: Vec::new(),
            held: Vec::new(),
            closed: Cell::default(),
            asked: RefCell::default(),
            now: RefCell::default(),
            most: Cell::default(),
            most_of_group: Cell::default(),
            away: RefCell::new(vec![0; outcomes.len()]),
            started: RefCell::default(),
            times: RefCell::default(),
            begun: Cell::default(),
            canaries: RefCell::default(),
        }
    }

    impl Devices {
        /// Rolls, and returns how many were started, and why no more were.
        fn roll(&self, rules: Rules) -> (usize, Option<StopReason>) {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            let stop = runtime.unwrap().block_on(async {
                self.begun.set(Some(Instant::now()));
                let standing = |index: usize| match () {
                    () if self.under_way.contains(&index) => Standing::Asked,
                    () if self.gone.contains(&index) => Standing::Away,
                    () => Standing::New,
                };
                let open = |index| Open { index, standing: standing(index) };
                let is_over = |index: &usize| self.failed.contains(index);
                let beginning = Beginning {
                    devices: self.outcomes.len(),
                    open: (0..self.outcomes.len()).filter(|index| !is_over(index)).map(open).collect(),
                    failed: self.failed.clone(),
                    untouched: Vec::new(),
                    held: self.held.clone(),
                    groups: self.groups.clone(),
                    next_start: Instant::now(),
                };
                roll(self, beginning, &rules).await.unwrap()
            });
            (self.started.borrow().len(), stop)
        }
    }

    #[test]
    fn no_more_than_allowed_at_a_time() {
        let rules = |max_in_flight| Rules { max_in_flight, ..Rules::default() };
        for (count, limit, most) in [(20, 7, 7), (3, 7, 3), (0, 7, 0)] {
            let fleet = devices(&vec![SUCCESS; count]);
            assert_eq!((fleet.roll(rules(limit)), fleet.most.get()), ((count, None), most));
            assert!(fleet.started.borrow().is_sorted(), "in their order");
        }
    }

    #[test]
    fn canaries_go_first_and_stop_all_if_one_fails() {
        let rules = Rules { canary: 2, max_failures: Some(9), ..Rules::default() };
        let mut outcomes = [SUCCESS; 20];
        assert_eq!(devices(&outcomes).roll(rules.clone()), (20, None));
        outcomes[2] = FAILURE;
        assert_eq!(devices(&outcomes).roll(rules.clone()), (20, None), "the third is none");
        outcomes[0] = FAILURE;
        assert_eq!(devices(&outcomes).roll(rules), (2, Some(StopReason::Canary)));
    }

    #[test]
    fn who_needs_nothing_is_no_canary() {
        let rules = Rules { canary: 2, max_failures: Some(9), ..Rules::default() };
        let mut outcomes = [SUCCESS; 20];
        (outcomes[0], outcomes[2]) = (UNTOUCHED, UNTOUCHED);
        let fleet = devices(&outcomes);
        assert_eq!(fleet.roll(rules.clone()), (20, None));
        assert_eq!(*fleet.canaries.borrow(), [0, 1, 2, 3]);
        outcomes[3] = FAILURE;
        assert_eq!(devices(&outcomes).roll(rules.clone()), (4, Some(StopReason::Canary)));
        let fleet = devices(&[UNTOUCHED; 20]);
        assert_eq!(fleet.roll(rules.clone()), (20, None));
        assert_eq!(fleet.most.get(), 2, "each of them might have been a canary");
        // Over --resume the same devices are canaries.
        let canaries = |untouched: &[usize]| Canaries {
            count: 2,
            untouched: untouched.iter().copied().collect(),
            open: BTreeSet::new(),
        };
        for (untouched, end) in [(&[][..], 2), (&[7], 2), (&[0], 3), (&[0, 2], 4), (&[0, 1, 2, 3, 5], 7)] {
            assert_eq!(canaries(untouched).end(), end, "{untouched:?}");
        }
        assert!(!Canaries { count: 0, ..canaries(&[0]) }.has(0));
    }

    #[test]
    fn the_failure_budget_and_a_failing_hub_stop_it() {
        let mut outcomes = [SUCCESS; 20];
        (outcomes[3], outcomes[5]) = (FAILURE, FAILURE);
        let rules = |max_failures| Rules { max_in_flight: 1, max_failures, ..Rules::default() };
        assert_eq!(devices(&outcomes).roll(rules(None)), (20, None));
        assert_eq!(devices(&outcomes).roll(rules(Some(2))), (20, None));
        assert_eq!(devices(&outcomes).roll(rules(Some(1))), (6, Some(StopReason::Failures)));
        assert_eq!(devices(&outcomes).roll(rules(Some(0))), (4, Some(StopReason::Failures)));
        let before = Devices { failed: vec![0], ..devices(&outcomes) };
        assert_eq!(before.roll(rules(Some(1))), (3, Some(StopReason::Failures)), "over --resume");
        outcomes[1] = Gone { class: OutcomeClass::HubFailure, may_be_away: false };
        assert_eq!(devices(&outcomes).roll(rules(None)), (2, Some(StopReason::Hub)));
    }

    #[test]
    fn what_is_under_way_is_looked_for_whatever_stops_the_rest() {
        let fleet = Devices { failed: vec![0, 1], under_way: vec![3, 5], ..devices(&[SUCCESS; 9]) };
        let rules = Rules { max_failures: Some(1), ..Rules::default() };
        assert_eq!(fleet.roll(rules), (2, Some(StopReason::Failures)));
        assert_eq!(*fleet.started.borrow(), [3, 5]);
    }

    #[test]
    fn no_more_of_a_group_than_allowed_are_away() {
        let groups: Vec<usize> = (0..60).map(|n| n % 6).collect();
        let rules = |at_most| Rules { at_most: Some(at_most), max_in_flight: 50, ..Rules::default() };
        for at_most in [1, 2] {
            let fleet = Devices { groups: groups.clone(), under_way: vec![6, 7], ..devices(&[SUCCESS; 60]) };
            assert_eq!(fleet.roll(rules(at_most)), (60, None));
            assert_eq!((fleet.most_of_group.get(), fleet.most.get()), (at_most, 6 * at_most));
        }
        let mut outcomes = [SUCCESS; 60];
        outcomes[7] = LOST;
        let fleet = Devices { groups, ..devices(&outcomes) };
        // Of group 1, which has ten devices, the second does not come back.
        assert_eq!(fleet.roll(rules(1)), (52, Some(StopReason::Groups(8))));
        assert_eq!(fleet.most_of_group.get(), 1);
        // One that an earlier invocation found unhealthy holds its group, and no other.
        let held =
            Devices { failed: vec![1], held: vec![1], groups: vec![0, 1, 0, 1], ..devices(&[SUCCESS; 4]) };
        assert_eq!(held.roll(rules(1)), (2, Some(StopReason::Groups(1))));
    }

    #[test]
    fn who_was_not_reached_has_its_place_and_waits_for_its_turn() {
        // 1 was not reached and holds the place of its group, before 0 and 2.
        let at_most = Rules { at_most: Some(1), max_in_flight: 50, ..Rules::default() };
        let gone = || Devices { gone: vec![1], groups: vec![0, 0, 0, 1], ..devices(&[SUCCESS; 4]) };
        let fleet = gone();
        assert_eq!(fleet.roll(at_most.clone()), (4, None));
        assert_eq!(*fleet.started.borrow(), [1, 3, 0, 2]);
        assert_eq!(fleet.most_of_group.get(), 1);
        // The gate and the spread are for it as well.
        let fleet = gone();
        assert_eq!(fleet.roll(Rules { gate: Some("x".into()), ..at_most.clone() }), (4, None));
        assert_eq!(fleet.asked.borrow().len(), 4);
        let fleet = gone();
        fleet.roll(Rules { spread: Some(40_000), ..at_most.clone() });
        let seconds: Vec<u64> = fleet.times.borrow().iter().map(Duration::as_secs).collect();
        assert_eq!(seconds, [0, 10, 20, 30]);
        // So are the canaries, and what stops the run.
        let fleet = Devices { gone: vec![3], ..devices(&[FAILURE, SUCCESS, SUCCESS, SUCCESS]) };
        let fleet = Devices { groups: vec![0, 1, 2, 3], ..fleet };
        assert_eq!(fleet.roll(Rules { canary: 1, ..at_most.clone() }), (1, Some(StopReason::Canary)));
        let fleet = Devices { failed: vec![0], ..gone() };
        assert_eq!(fleet.roll(Rules { max_failures: Some(0), ..at_most }), (0, Some(StopReason::Failures)));
    }

    #[test]
    fn starts_are_spread() {
        let fleet = devices(&[SUCCESS; 4]);
        let rules = Rules { spread: Some(40_000), ..Rules::default() };
        assert_eq!(fleet.roll(rules), (4, None));
        let seconds: Vec<u64> = fleet.times.borrow().iter().map(Duration::as_secs).collect();
        assert_eq!(seconds, [0, 10, 20, 30]);
    }

    #[test]
    fn the_gate_is_asked_before_each_start() {
        let gate = Some("x".to_owned());
        let fleet = devices(&[SUCCESS; 3]);
        assert_eq!(fleet.roll(Rules { gate: gate.clone(), ..Rules::default() }), (3, None));
        let seconds: Vec<u64> = fleet.times.borrow().iter().map(Duration::as_secs).collect();
        assert_eq!(seconds, [30, 60, 90]);
        let fleet = Devices { closed: Cell::new(1), ..devices(&[SUCCESS; 3]) };
        let rules = Rules { gate, at_most: Some(1), ..Rules::default() };
        assert_eq!(fleet.roll(rules.clone()), (0, Some(StopReason::Gate)));
        // While it is asked about 2, the group of 1 gets its place back.
        let fleet = Devices { groups: vec![0, 0, 1], ..devices(&[SUCCESS; 3]) };
        assert_eq!(fleet.roll(rules), (3, None));
        assert_eq!((&*fleet.asked.borrow(), &*fleet.started.borrow()), (&vec![0, 2, 1], &vec![0, 2, 1]));
    }
}
