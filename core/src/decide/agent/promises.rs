//! The promises about a request's life, under random orders of events, crashes of
//! the daemon, power cuts, full disks, slow shutdowns and lost records.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use iotdm_proto::reply::{Inhibitor, PreflightCheck};
use iotdm_proto::report::{BootCause, Clock, RequestedBy};
use jiff::tz::TimeZone;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::decide::effect::Note;
use crate::decide::event::Start;
use crate::decide::ids::GrantedRequest;
use crate::decide::memory::Memory;
use crate::decide::need::Need;
use crate::decide::outlook::Outlook;
use crate::decide::windows::{Turn, Window};

/// For how long the outcome of somebody's request stands in the twin, in seconds,
/// before the daemon's own request takes its place.
const READ_FIRST: i64 = 600;

/// How far a window of six hours from midnight on is used.
const TURN: Turn =
    Turn { reserve: Duration::from_secs(600), spread: Duration::from_secs(1800), number: 777_000 };
const WINDOW: i64 = 6 * 3600;

const SETTINGS: Settings = Settings {
    ack_timeout: Duration::from_secs(5),
    down_timeout: Duration::from_secs(300),
    allow_inhibitor_override: true,
    allow_preflight_override: true,
    guards: Guards {
        max_per_hour: 3,
        min_uptime: Duration::ZERO,
        windows: Vec::new(),
        turn: TURN,
        zone: || TimeZone::UTC,
    },
    when_required: false,
    health: true,
};

/// With `windows`, the daemon asks itself for reboots in them.
fn settings(windows: bool) -> Settings {
    let windows: Vec<Window> = if windows { vec!["00:00-06:00".parse().unwrap()] } else { Vec::new() };
    Settings { when_required: !windows.is_empty(), guards: Guards { windows, ..SETTINGS.guards }, ..SETTINGS }
}

/// What the world does next.
#[derive(Debug, Clone)]
enum Step {
    /// Somebody calls `rebootDevice` with one of a few ids.
    Call {
        id: u8,
        payload: usize,
    },
    Cancel,
    /// logind answers what it was asked.
    LogindAnswers {
        willing: bool,
    },
    /// logind would reboot, and a preflight check objects.
    ChecksObject,
    InhibitorReleased,
    /// The hub acknowledges the oldest reply.
    Delivered,
    Reported,
    /// Time passes, at least until the deadline.
    Deadline,
    /// The machine does what it was asked, if it was.
    GoesDown {
        seen: bool,
    },
    /// Somebody else shuts it down in good order.
    LocalShutdown {
        seen: bool,
    },
    DaemonDies,
    PowerCut,
    /// The daemon dies, and its state directory is emptied.
    StateLost,
    /// Somebody's shutdown begins and takes its time, or is called off.
    SlowShutdown {
        begins: bool,
    },
    /// The twin wishes for a reboot with one of a few ids, or for none.
    Wish {
        id: u8,
        wish: usize,
    },
    /// The twin is read.
    Connect,
    ClockSet {
        jump: i64,
    },
    Disk {
        full: bool,
    },
    /// Days pass, with or without power.
    Days {
        days: u8,
        powered: bool,
    },
    /// The machine needs a reboot for one of a few reasons, or for none.
    Need {
        need: usize,
    },
    /// Somebody asks with ever new ids, and cancels.
    Loop {
        pairs: u8,
    },
    /// The file of granted requests is written, or not all of it.
    Kept {
        all: bool,
    },
}

const PAYLOADS: [&str; 5] = [
    "",
    r#","delaySeconds":60"#,
    r#","onInhibitor":"wait","waitSeconds":30"#,
    r#","onInhibitor":"override","delaySeconds":5"#,
    r#","onPreflight":"wait","waitSeconds":200"#,
];

const WISHES: [Option<&str>; 7] = [
    None,
    Some(""),
    Some(r#","notBefore":"1970-01-01T00:05:00Z""#),
    Some(r#","onInhibitor":"wait","waitSeconds":30,"deadline":"1970-01-01T00:03:00Z""#),
    Some(r#","notBefore":"soon""#),
    Some(r#","notBefore":"1970-01-01T00:05:00Z","deadline":"1970-01-01T00:06:00Z""#),
    Some(r#","onPreflight":"wait","waitSeconds":90"#),
];

const NEEDS: [Option<&[&str]>; 4] = [None, Some(&[]), Some(&["dbus"]), Some(&["dbus", "linux"])];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3u8, 0..PAYLOADS.len()).prop_map(|(id, payload)| Step::Call { id, payload }),
        1 => Just(Step::Cancel),
        6 => prop::bool::weighted(0.8).prop_map(|willing| Step::LogindAnswers { willing }),
        2 => Just(Step::ChecksObject),
        2 => Just(Step::InhibitorReleased),
        4 => Just(Step::Delivered),
        4 => Just(Step::Reported),
        3 => Just(Step::Deadline),
        3 => any::<bool>().prop_map(|seen| Step::GoesDown { seen }),
        1 => any::<bool>().prop_map(|seen| Step::LocalShutdown { seen }),
        2 => Just(Step::DaemonDies),
        1 => Just(Step::PowerCut),
        1 => Just(Step::StateLost),
        1 => any::<bool>().prop_map(|begins| Step::SlowShutdown { begins }),
        2 => (0..3u8, 0..WISHES.len()).prop_map(|(id, wish)| Step::Wish { id, wish }),
        3 => Just(Step::Connect),
        1 => (-400..400i64).prop_map(|jump| Step::ClockSet { jump }),
        1 => any::<bool>().prop_map(|full| Step::Disk { full }),
        1 => (1..20u8, any::<bool>()).prop_map(|(days, powered)| Step::Days { days, powered }),
        2 => (0..NEEDS.len()).prop_map(|need| Step::Need { need }),
        1 => (1..40u8).prop_map(|pairs| Step::Loop { pairs }),
        2 => prop::bool::weighted(0.7).prop_map(|all| Step::Kept { all }),
    ]
}

/// The machine, its disk, the hub and logind around the daemon.
struct World {
    agent: Agent,
    /// There is a window, and the daemon asks itself for reboots in it.
    windows: bool,
    /// What the machine needs a reboot for; whether that outlives reboots; whether it
    /// was something else since the machine last went down.
    need: Option<Need>,
    stale: bool,
    needs_else: bool,
    /// For which request logind may have been asked before the daemon started: it goes
    /// on, whatever the clock says since.
    begun: Option<String>,
    /// The clock was set since a request was last accepted, or announced.
    jumped: bool,
    now: i64,
    boot: u32,
    booted: i64,
    calls: u32,
    disk: Option<Record>,
    disk_full: bool,
    /// The file of granted requests, and what is being written to it.
    file: Vec<GrantedRequest>,
    keeping: Option<(Vec<GrantedRequest>, bool)>,
    /// By how many seconds the clock was set in all.
    set_by: i64,
    /// The state directory does not outlive a boot.
    volatile: bool,
    /// The state directory was lost in this history, by whatever way.
    was_lost: bool,
    /// The newest record could not be written, so reports are held back.
    unsaved: Option<Box<Record>>,
    held: Option<Report>,
    /// What the daemon wants the twin to say, and what the twin says.
    wanted: Option<Report>,
    twin: Option<Report>,
    /// The outcomes that the twin was told of, by id.
    outcomes: BTreeMap<String, RebootStatus>,
    /// The daemon's own requests whose need was gone since.
    may_return: BTreeSet<String>,
    /// The outcomes that the twin was not told of yet, in their order, and since when it
    /// tells the one of somebody's request that it tells.
    owed: VecDeque<String>,
    told_at: Option<i64>,
    /// The daemon's own requests that have had an outcome of their own, or were called
    /// off by an operator.
    spent: BTreeSet<String>,
    /// The need that stood when the machine last went down for a request.
    met: Option<String>,
    /// For which request the machine went down last.
    went_down_for: Option<String>,
    /// What logind was asked and has not answered.
    permission_asked: bool,
    reboot_asked: Option<String>,
    /// For which request logind has agreed to go down in this boot.
    agreed: Option<String>,
    /// The daemon was told of a shutdown in this boot.
    shutdown_seen: bool,
    /// A slow shutdown is under way.
    under_way: bool,
    /// What systemd noted of the last orderly shutdown.
    shut_down: Option<String>,
    /// Replies on their way, and the deadline of the phase.
    undelivered: Vec<String>,
    deadline: Option<i64>,
    reporting: bool,
    /// The request of which it was sent to the hub, past all else, that it begins.
    sent_now: Option<String>,
    /// The twin's desired part, and whether the daemon is told of it.
    wish: Option<Value>,
    connected: bool,
    /// Ids by call, ids answered with 200, and how often the machine went down
    /// for an id.
    id_of_call: BTreeMap<String, String>,
    granted: BTreeSet<String>,
    reboots: BTreeMap<String, u32>,
    /// When each id was accepted last, and when all were, by the true time.
    accepted: BTreeMap<String, i64>,
    accepted_at: Vec<i64>,
    /// How many ids were made up.
    looped: u32,
}

const DAY: i64 = 86_400;

impl World {
    fn new(volatile: bool, windows: bool, stale: bool) -> Self {
        let (agent, effects) =
            Agent::resume(None, None, start(1, 0), settings(windows), Time::from_unix_millis(0));
        let mut world = World {
            agent,
            windows,
            need: None,
            stale,
            needs_else: false,
            begun: None,
            jumped: false,
            now: 0,
            boot: 1,
            booted: 0,
            calls: 0,
            disk: None,
            disk_full: false,
            file: Vec::new(),
            keeping: None,
            set_by: 0,
            volatile,
            was_lost: false,
            unsaved: None,
            held: None,
            wanted: None,
            twin: None,
            outcomes: BTreeMap::new(),
            may_return: BTreeSet::new(),
            owed: VecDeque::new(),
            told_at: None,
            spent: BTreeSet::new(),
            met: None,
            went_down_for: None,
            permission_asked: false,
            reboot_asked: None,
            agreed: None,
            shutdown_seen: false,
            under_way: false,
            shut_down: None,
            undelivered: Vec::new(),
            deadline: None,
            reporting: false,
            sent_now: None,
            wish: None,
            connected: false,
            id_of_call: BTreeMap::new(),
            granted: BTreeSet::new(),
            reboots: BTreeMap::new(),
            accepted: BTreeMap::new(),
            accepted_at: Vec::new(),
            looped: 0,
        };
        world.carry_out(effects);
        world
    }

    fn take(&mut self, step: &Step) {
        self.now += 1;
        match step {
            Step::Call { id, payload } => {
                self.calls += 1;
                let (rid, id) = (self.calls.to_string(), format!("id-{id}"));
                self.id_of_call.insert(rid.clone(), id.clone());
                let payload = format!(r#"{{"id":"{id}"{}}}"#, PAYLOADS[*payload]);
                self.call(rid, "rebootDevice", payload);
            }
            Step::Cancel => {
                self.calls += 1;
                self.call(self.calls.to_string(), "cancelReboot", String::new());
            }
            Step::LogindAnswers { willing } => {
                if std::mem::take(&mut self.permission_asked) {
                    let holder = Inhibitor { who: "x".into(), why: "y".into(), uid: 0, pid: 1 };
                    let permission = if *willing { Ok(()) } else { Err(Refusal::Blocked(vec![holder])) };
                    self.feed(Event::Permission(Outlook::of(permission)));
                }
                if let Some(id) = self.reboot_asked.take() {
                    if *willing {
                        self.agreed = Some(id);
                    }
                    self.feed(Event::RebootAsked(if *willing { Ok(()) } else { Err("no".into()) }));
                }
            }
            Step::ChecksObject => {
                if std::mem::take(&mut self.permission_asked) {
                    let preflight = vec![PreflightCheck::objecting("fstab", "no device")];
                    self.feed(Event::Permission(Outlook { permission: Ok(()), preflight }));
                    // None of the payloads and wishes passes over the checks.
                    assert!(
                        !matches!(self.agent.phase, Phase::Announcing | Phase::Asking),
                        "a check objects, and the reboot goes on"
                    );
                }
            }
            Step::InhibitorReleased => self.feed(Event::InhibitorsChanged),
            Step::Delivered if !self.undelivered.is_empty() => {
                let rid = self.undelivered.remove(0);
                self.feed(Event::ReplyDelivered { rid });
            }
            Step::Reported if self.reporting && self.connected => {
                self.reporting = false;
                self.twin = self.wanted.clone();
                self.is_told_once();
                self.is_told_at_last();
                self.feed(Event::Reported);
            }
            Step::Deadline => {
                let mut at_once = 0;
                while let Some(deadline) = self.deadline.take_if(|at| at_once == 0 || *at <= self.now) {
                    self.now = self.now.max(deadline);
                    self.feed(Event::DeadlinePassed);
                    at_once += 1;
                    assert!(at_once < 5, "the daemon does not come to rest: {:?}", self.agent.phase);
                }
            }
            Step::GoesDown { seen } => {
                if let Some(id) = self.agreed.clone() {
                    let again = self.went_down_for.replace(id.clone()) == Some(id.clone());
                    let same_need = id.starts_with("required:") && !self.needs_else;
                    let once = id.starts_with("wish") || same_need;
                    assert!(!(again && once), "{id} rebooted the machine again");
                    self.needs_else = false;
                    if self.sent_now.as_ref() == Some(&id) {
                        let told = self.twin.as_ref().and_then(|twin| twin.reboot.as_ref());
                        assert_eq!(told.map(|told| &told.id), Some(&id), "the twin does not know of it");
                    }
                    *self.reboots.entry(id).or_default() += 1;
                    self.shuts_down(*seen);
                }
            }
            Step::LocalShutdown { seen } => self.shuts_down(*seen),
            Step::DaemonDies => self.starts(),
            Step::PowerCut => self.boots(),
            Step::StateLost => {
                (self.disk, self.file, self.keeping) = (None, Vec::new(), None);
                self.was_lost = true;
                self.starts();
            }
            Step::SlowShutdown { begins } => {
                self.under_way = *begins;
                // That it was called off is known after a power cut if it could be
                // written.
                self.shutdown_seen = *begins || (self.shutdown_seen && self.disk_full);
                self.feed(if *begins { Event::ShutdownBegan } else { Event::ShutdownCancelled });
            }
            Step::Wish { id, wish } => {
                let wish = WISHES[*wish].map(|rest| format!(r#"{{"id":"wish-{id}"{rest}}}"#));
                self.wish = wish.map(|wish| serde_json::from_str(&wish).unwrap());
                if self.connected {
                    self.feed(Event::Desired {
                        reboot: self.wish.clone().map(DesiredReboot::from),
                        memory: None,
                    });
                }
            }
            Step::Connect => {
                self.connected = true;
                self.reporting = self.wanted.is_some();
                let told = self.twin.as_ref().map(|twin| serde_json::to_value(twin).unwrap());
                let memory = told.and_then(|told| told.as_object().map(Memory::read)).unwrap_or_default();
                self.feed(Event::Desired {
                    reboot: self.wish.clone().map(DesiredReboot::from),
                    memory: Some(Box::new(memory)),
                });
            }
            Step::ClockSet { jump } => {
                self.jumped = true;
                self.now += jump;
                self.booted += jump;
                self.set_by += jump;
                self.deadline = self.deadline.map(|deadline| deadline + jump);
                self.told_at = self.told_at.map(|at| at + jump);
                let boot_time = Time::from_unix_millis(self.booted * 1000);
                self.feed(Event::ClockSet { clock: Clock::Synchronized, boot_time });
            }
            Step::Disk { full } => {
                self.disk_full = *full;
                if let Some(record) = self.unsaved.take() {
                    self.carry_out(vec![Effect::Save(record)]);
                }
                self.feed(Event::StorageMayWork);
            }
            Step::Days { days, powered: true } => {
                let until = self.now + i64::from(*days) * DAY;
                while self.deadline.is_some_and(|deadline| deadline <= until) {
                    self.take(&Step::Deadline);
                }
                self.now = until;
            }
            Step::Days { days, powered: false } => {
                self.now += i64::from(*days) * DAY;
                self.boots();
            }
            Step::Need { need } => {
                let reasons = |reasons: &[&str]| reasons.iter().map(|reason| (*reason).to_owned()).collect();
                let need = NEEDS[*need].map(|names| Need {
                    reasons: reasons(names),
                    running_kernel: None,
                    installed_kernel: None,
                });
                self.comes_to_need(need.clone());
                if self.own_id().is_none() {
                    self.met = None;
                }
                self.feed(Event::Need(need));
            }
            Step::Loop { pairs } => {
                for _ in 0..*pairs {
                    self.looped += 1;
                    let (rid, id) = (format!("loop-{}", self.looped), format!("new-{}", self.looped));
                    self.id_of_call.insert(rid.clone(), id.clone());
                    let payload = format!(r#"{{"id":"{id}","delaySeconds":600}}"#);
                    self.call(rid, "rebootDevice", payload);
                    self.take(&Step::LogindAnswers { willing: true });
                    self.take(&Step::Delivered);
                    self.take(&Step::Cancel);
                }
            }
            Step::Kept { all } => {
                if self.keeping.is_some() {
                    let written = *all && !self.disk_full;
                    self.write_file(written);
                    self.feed(Event::Kept { written });
                }
            }
            Step::Delivered | Step::Reported => {}
        }
    }

    /// The true time, in seconds since the start.
    fn true_time(&self) -> i64 {
        self.now - self.set_by
    }

    /// Ends the write of the file: as a whole, or after half of what is appended.
    fn write_file(&mut self, all: bool) {
        let Some((requests, whole)) = self.keeping.take() else { return };
        match (whole, all) {
            (true, true) => self.file = requests,
            (true, false) => {}
            (false, true) => self.file.extend(requests),
            (false, false) => {
                let half = requests.len() / 2;
                self.file.extend(requests.into_iter().take(half));
            }
        }
    }

    /// A request is accepted: not if it was of late, nor if too many were.
    fn is_accepted(&mut self, id: &str) {
        self.jumped = false;
        // Of an earlier request with this id, nobody wants to hear any more; and no more
        // outcomes are kept for a hub that takes no report.
        self.owed.retain(|owed| owed != id);
        self.give_up_owed(Record::MAX_UNHEARD);
        let now = self.true_time();
        // What the device asks itself for may be taken back, and asked for again.
        let may_return = id.starts_with("required:") && !self.reboots.contains_key(id);
        if let Some(before) = self.accepted.insert(id.to_owned(), now)
            && !self.was_lost
            && !id.starts_with("wish")
            && !may_return
        {
            let days = if self.reboots.contains_key(id) { 30 } else { 8 };
            assert!(now - before >= days * DAY, "{id} was accepted again after {} s", now - before);
            self.reboots.remove(id);
            self.outcomes.remove(id);
        }
        // Nor does what was taken back count as one that was granted.
        if !id.starts_with("required:") {
            self.accepted_at.push(now);
        }
        let of_late = self.accepted_at.iter().filter(|at| now - **at < 3600).count();
        assert!(of_late <= 30 || self.was_lost, "{of_late} requests were accepted within an hour");
    }

    fn give_up_owed(&mut self, most: usize) {
        let excess = self.owed.len().saturating_sub(most);
        self.owed.drain(..excess);
    }

    /// A need that comes again after it was gone is another one, though the daemon's
    /// request for it has the same id.
    fn comes_to_need(&mut self, need: Option<Need>) {
        if self.need != need {
            self.needs_else = true;
            self.may_return.extend(self.own_id());
        }
        self.need = need;
    }

    /// The id of the daemon's own request for the present need.
    fn own_id(&self) -> Option<String> {
        Some(format!("required:{}", self.need.as_ref()?.digest()?))
    }

    fn call(&mut self, rid: String, name: &str, payload: String) {
        let own = self.agent.core.record.pending().filter(|_| name == "cancelReboot");
        self.spent.extend(own.map(|reboot| reboot.id.clone()).filter(|id| id.starts_with("required:")));
        let fresh_id = format!("fresh-{rid}");
        self.feed(Event::Called { rid, name: name.to_owned(), payload: payload.into_bytes(), fresh_id });
    }

    /// In good order, whether or not the daemon gets to see that.
    fn shuts_down(&mut self, seen: bool) {
        if seen {
            self.feed(Event::ShutdownBegan);
            self.shutdown_seen = true;
        }
        self.shut_down = Some(format!("boot-{}", self.boot));
        self.boots();
    }

    fn boots(&mut self) {
        let before = format!("boot-{}", self.boot);
        let clean = self.shut_down.as_ref() == Some(&before);
        if self.volatile {
            (self.disk, self.shut_down, self.was_lost) = (None, None, true);
            (self.file, self.keeping) = (Vec::new(), None);
        }
        let known = self.disk.as_ref().is_some_and(|record| record.boot.boot_id == before && !record.lost);
        if self.disk.as_ref().and_then(Record::pending).is_some_and(|reboot| reboot.started_at.is_some()) {
            self.met = self.own_id();
        }
        self.boot += 1;
        self.under_way = false;
        self.booted = self.now;
        self.agreed = None;
        if !self.stale {
            self.comes_to_need(None);
        }
        self.starts();
        let unclean = self.agent.core.record.boot.cause == BootCause::Unclean;
        if known && clean {
            assert!(!unclean, "a shutdown in good order was taken for a power cut");
        } else if known && !self.shutdown_seen {
            assert!(unclean, "a power cut was not noticed");
        }
        self.shutdown_seen = false;
    }

    fn starts(&mut self) {
        self.permission_asked = false;
        self.reboot_asked = None;
        self.undelivered.clear();
        self.deadline = None;
        (self.reporting, self.sent_now) = (false, None);
        self.connected = false;
        (self.wanted, self.unsaved, self.held) = (None, None, None);
        // A disk that never took what the twin was told since the first start is as good as
        // one that was lost.
        self.was_lost |= self.twin.is_some() && self.disk.as_ref().is_none_or(|record| record.lost);
        let asked = self.disk.as_ref().filter(|record| record.asked.is_some());
        self.begun = asked.and_then(Record::pending).map(|reboot| reboot.id.clone());
        // What is not on the disk is done anew.
        let newest = self.disk.as_ref().and_then(|record| record.reboot.as_ref());
        let ended = newest.filter(|reboot| reboot.status.is_final()).map(|reboot| &reboot.id);
        let newest = ended.filter(|id| self.owed.contains(id));
        let unheard = self.disk.iter().flat_map(|record| &record.unheard);
        self.owed = unheard.map(|unheard| &unheard.reboot.id).chain(newest).cloned().collect();
        let told = self.twin.as_ref().and_then(|twin| twin.reboot.as_ref()).map(|reboot| &reboot.id);
        self.told_at.take_if(|_| ended != told);
        self.write_file(false);
        let start = Start {
            shut_down: self.shut_down.clone(),
            uptime: self.uptime(),
            granted: self.file.clone(),
            need: self.need.clone(),
            ..start(self.boot, self.booted)
        };
        let now = Time::from_unix_millis(self.now * 1000);
        let (agent, effects) = Agent::resume(self.disk.clone(), None, start, settings(self.windows), now);
        self.agent = agent;
        self.carry_out(effects);
    }

    fn uptime(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.now - self.booted).unwrap())
    }

    fn feed(&mut self, event: Event) {
        let effects = self.decide(event);
        self.carry_out(effects);
    }

    fn decide(&mut self, event: Event) -> Vec<Effect> {
        self.agent.count(self.uptime());
        self.agent.handle(event, Time::from_unix_millis(self.now * 1000))
    }

    /// As the loop does: the effects in their order, and then those of the answers.
    fn carry_out(&mut self, effects: Vec<Effect>) {
        let mut rounds = VecDeque::from([effects]);
        while let Some(effects) = rounds.pop_front() {
            for effect in effects {
                let answer = self.perform(effect);
                rounds.extend(answer.map(|event| self.decide(event)));
            }
        }
    }

    /// Performs one effect; returns the answer that is known at once.
    fn perform(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Save(record) => {
                let saved = if self.disk_full { Err("full".to_owned()) } else { Ok(()) };
                if saved.is_ok() {
                    self.unsaved = None;
                    self.disk = Some(*record);
                    if let Some(report) = self.held.take() {
                        self.report(report);
                    }
                } else {
                    self.unsaved = Some(record);
                }
                return Some(Event::Saved(saved));
            }
            Effect::Reply { rid, status, body } => {
                if let Some(id) = self.id_of_call.get(&rid).filter(|_| status == 200) {
                    // Of what was lost, the twin is the memory.
                    let on_disk = self.on_disk(id).map(|granted| granted.reply(&[]));
                    assert!(self.was_lost || on_disk == Some(body), "answered 200 but not on disk");
                    self.granted.insert(id.clone());
                    self.undelivered.push(rid);
                }
            }
            Effect::Reboot { .. } => {
                let id = self.agent.core.record.pending().map(|reboot| reboot.id.clone());
                let id = id.expect("a reboot that nobody asked for");
                let agreed = self.disk.as_ref().is_some_and(|record| record.asked == Some(Asked::Agreed));
                assert!(
                    !agreed || self.agreed.as_ref() != Some(&id),
                    "{id}: logind is asked twice in one boot"
                );
                let own = id.starts_with("required:");
                assert!(own || self.granted.contains(&id), "rebooted before the answer");
                let due = self.agent.core.record.reboot.as_ref().and_then(|reboot| reboot.not_before);
                let is_due = due.is_none_or(|due| due.unix_millis() <= self.now * 1000);
                assert!(is_due || self.begun.as_ref() == Some(&id), "rebooted too early");
                // What waits for the hub is looked at again when that has answered.
                let ends = if id.starts_with("id-") { WINDOW } else { WINDOW - 600 + 1 };
                let in_time = self.now.rem_euclid(DAY) < ends || self.begun.as_ref() == Some(&id);
                assert!(!self.windows || self.jumped || in_time, "{id} reboots outside of the window");
                let twin = self.twin.as_ref();
                if id.starts_with("wish") {
                    let last = twin.and_then(|twin| twin.agent.as_ref()?.last_wish.as_ref());
                    assert_eq!(last, Some(&id), "the hub does not know that the wish is carried out");
                }
                if let Some(need) = id.strip_prefix("required:") {
                    let told = twin.and_then(|twin| twin.reboot_required.as_ref()?.asked_for.as_deref());
                    assert_eq!(told, Some(need), "the hub does not know that the need is met");
                }
                self.reboot_asked = Some(id);
            }
            Effect::AskPermission { .. } => self.permission_asked = true,
            Effect::AskShutdown => {
                let under_way = Some(self.under_way);
                return Some(Event::Shutdown { under_way, stopping: Vec::new() });
            }
            Effect::Deadline(after) => {
                self.deadline = after.map(|after| self.now + after.as_millis().div_ceil(1000) as i64);
            }
            // As the loop does: what is told is on disk.
            Effect::Report(report)
                if self.unsaved.is_some()
                    && self.disk.as_ref().is_some_and(|record| record.pending().is_some()) =>
            {
                self.held = Some(*report);
            }
            Effect::Report(report) => {
                self.held = None;
                self.report(*report);
            }
            Effect::Keep { requests, whole } => {
                assert!(self.keeping.is_none(), "two writes of one file");
                self.keeping = Some((requests, whole));
            }
            Effect::Note(Note::Accepted(reboot)) if reboot.requested_by == RequestedBy::Method => {
                self.is_accepted(&reboot.id);
            }
            // The device promises itself nothing.
            Effect::Note(Note::Accepted(reboot))
                if self.disk_full && reboot.requested_by == RequestedBy::Device => {}
            Effect::Note(Note::Accepted(reboot)) => {
                self.is_accepted(&reboot.id);
                let pending = self.disk.as_ref().and_then(Record::pending);
                assert_eq!(pending, Some(&*reboot), "accepted but not on disk");
                self.granted.insert(reboot.id);
            }
            Effect::Note(Note::Rebooting { id }) => {
                let in_time = self.now.rem_euclid(DAY) <= WINDOW - 600;
                assert!(
                    !self.windows || self.jumped || in_time,
                    "{id} begins when the window is about to end"
                );
                // A call that was answered goes on, whatever the clock says since.
                self.jumped &= !(id.starts_with("wish") || id.starts_with("required:"));
            }
            Effect::Note(Note::Ended(reboot)) => match reboot.requested_by {
                RequestedBy::Device if reboot.status == RebootStatus::Cancelled => {}
                by => {
                    if by == RequestedBy::Device {
                        self.spent.insert(reboot.id.clone());
                    }
                    // What becomes of one request in the end is all that is told of it.
                    self.owed.retain(|owed| *owed != reboot.id);
                    self.owed.push_back(reboot.id);
                    // One of a wish that was not accepted takes the newest place as well.
                    self.give_up_owed(Record::MAX_UNHEARD + 1);
                    self.told_at = None;
                }
            },
            Effect::ReportNow(report) => {
                let pending = self.agent.core.record.pending();
                assert_eq!(report.reboot.as_ref(), pending, "the newest is what has to be known");
                if self.connected {
                    self.sent_now = pending.map(|reboot| reboot.id.clone());
                    self.twin = Some((*report).clone());
                }
                self.report(*report);
            }
            Effect::Survey { .. } | Effect::Note(_) => {}
        }
        None
    }

    fn report(&mut self, report: Report) {
        self.outcome_stands(&report);
        self.is_on_disk(&report);
        self.wanted = Some(report);
        self.reporting = true;
    }

    fn holds(&self) {
        self.is_ready_when_idle();
        // Of what was lost, the twin remembers the last request only.
        if self.was_lost {
            return;
        }
        for (id, reboots) in &self.reboots {
            assert!(*reboots <= 1, "{id} rebooted the machine {reboots} times");
        }
        if self.disk.is_none() {
            return;
        }
        // A wish's answer is kept for as long as it is needed, too, but it may
        // be changed before it has begun.
        let may_go = |id: &str| id.starts_with("wish") || id.starts_with("required:");
        for id in self.granted.iter().filter(|id| !may_go(id)) {
            let days = if self.reboots.contains_key(id) { 30 } else { 8 };
            if self.accepted.get(id).is_some_and(|at| self.true_time() - at < days * DAY) {
                assert!(self.on_disk(id).is_some(), "{id} was granted and is not on disk");
                assert!(self.agent.core.granted(id).is_some(), "{id} was granted and is forgotten");
            }
        }
    }

    /// What a start from the disk would know of the request `id`.
    fn on_disk(&self, id: &str) -> Option<&GrantedRequest> {
        let record = self.disk.iter().flat_map(|record| &record.granted);
        record.chain(self.file.iter().rev()).find(|granted| granted.id == id)
    }

    /// An outcome is told only if a start from the disk would not say otherwise, and a
    /// request whose outcome is on disk is not told to be under way.
    fn is_on_disk(&self, report: &Report) {
        let on_disk = self.disk.as_ref().filter(|_| self.unsaved.is_none());
        let (Some(told), Some(on_disk)) = (&report.reboot, on_disk.and_then(|record| record.reboot.as_ref()))
        else {
            return;
        };
        let is_final = told.status.is_final() || on_disk.status.is_final();
        if is_final && told.id == on_disk.id && told.requested_at == on_disk.requested_at {
            assert_eq!(told.status, on_disk.status, "{} is told otherwise than it is on disk", told.id);
        }
    }

    /// An outcome that the twin was told stays, but for a wish that was changed
    /// before it was carried out, and for a request that comes again after its
    /// record was lost.
    fn is_told_once(&mut self) {
        let Some(reboot) = self.twin.as_ref().and_then(|twin| twin.reboot.as_ref()) else { return };
        if let Some(told) = self.outcomes.get(&reboot.id)
            && !self.was_lost
            && !(reboot.id.starts_with("wish") && *told != RebootStatus::Completed)
            && !(reboot.id.starts_with("required:") && *told == RebootStatus::Cancelled)
            && !self.may_return.contains(&reboot.id)
        {
            assert_eq!(reboot.status, *told, "{} was told to be {told}", reboot.id);
        }
        // What is told last may be of an earlier request of that id.
        let pending = self.agent.core.record.pending();
        if reboot.status.is_final() && pending.is_none_or(|pending| pending.id != reboot.id) {
            self.outcomes.insert(reboot.id.clone(), reboot.status);
        }
    }

    /// Nothing takes an outcome's place before the hub has heard of that, and the daemon's
    /// own request not before it could be read.
    fn outcome_stands(&mut self, report: &Report) {
        let Some(reboot) = &report.reboot else { return };
        let owed = self.owed.front().filter(|_| !self.was_lost);
        // What the hub took while the disk took nothing may be told again.
        let is_again = self.outcomes.get(&reboot.id) == Some(&reboot.status);
        // What a daemon without its record has to find in the twin comes first.
        let begins = self.agent.core.record.asked.is_some();
        assert!(
            begins || is_again || owed.is_none_or(|owed| *owed == reboot.id),
            "{} is told before the outcome of {owed:?}",
            reboot.id
        );
        if reboot.requested_by != RequestedBy::Device {
            self.told_at.take_if(|_| !reboot.status.is_final());
        } else if !self.was_lost {
            let stood = self.told_at.take().is_none_or(|at| self.now - at >= READ_FIRST);
            assert!(stood, "an outcome is gone before it was read");
        }
    }

    fn is_told_at_last(&mut self) {
        let told = self.twin.as_ref().and_then(|twin| twin.reboot.as_ref());
        let Some(told) = told.filter(|reboot| reboot.status.is_final()) else { return };
        if self.owed.pop_front_if(|id| *id == told.id).is_some() {
            self.told_at = Some(self.now).filter(|_| told.requested_by != RequestedBy::Device);
        }
    }

    /// No pending request means ready for the next one, by a call or a wish.
    /// While logind is asked or the disk is written to, the answer comes first.
    fn is_ready_when_idle(&self) {
        let answer_comes = matches!(self.agent.phase, Phase::Checking(_) | Phase::Recording { .. });
        let record = &self.agent.core.record;
        let own = record.pending().is_some_and(|reboot| reboot.requested_by == RequestedBy::Device);
        let waits = matches!(self.agent.phase, Phase::Scheduled | Phase::Waiting { .. } | Phase::Announcing);
        if own && waits && !record.going_down && !record.lost {
            let called = Event::Called {
                rid: "next".to_owned(),
                name: "rebootDevice".to_owned(),
                payload: br#"{"id":"next"}"#.to_vec(),
                fresh_id: String::new(),
            };
            let effects = self.agent.clone().handle(called, Time::from_unix_millis(self.now * 1000));
            let survey = Effect::Survey { rid: "next".to_owned(), preflight: true };
            assert!(effects.contains(&survey), "the device's own request is in the way: {effects:?}");
        }
        if answer_comes || record.lost || record.going_down || self.agent.core.record.pending().is_some() {
            return;
        }
        if self.agent.core.crowded().is_some() {
            return;
        }
        let now = Time::from_unix_millis(self.now * 1000);
        let next = |event| self.agent.clone().handle(event, now);
        let called = next(Event::Called {
            rid: "next".to_owned(),
            name: "rebootDevice".to_owned(),
            payload: br#"{"id":"next"}"#.to_vec(),
            fresh_id: String::new(),
        });
        assert!(
            called.contains(&Effect::AskPermission { preflight: true }),
            "a call is not taken up: {called:?}"
        );
        let wish = DesiredReboot::from(json!({"id": "next"}));
        let wished = next(Event::Desired { reboot: Some(wish), memory: None });
        assert!(
            wished.contains(&Effect::AskPermission { preflight: true }),
            "a wish is not taken up: {wished:?}"
        );
    }

    /// Everybody answers, and time passes.
    fn comes_to_rest(&mut self) {
        for _ in 0..20 {
            for step in
                [Step::LogindAnswers { willing: true }, Step::Delivered, Step::Reported, Step::Deadline]
            {
                self.take(&step);
            }
        }
    }

    /// Lets everything come to an end: whatever is pending must do so.
    fn settle(&mut self) {
        self.take(&Step::Disk { full: false });
        self.take(&Step::SlowShutdown { begins: false });
        // The hub is away, and everything else goes on as far as it can.
        self.connected = false;
        for _ in 0..4 {
            for step in [Step::InhibitorReleased, Step::LogindAnswers { willing: true }, Step::Deadline] {
                self.take(&step);
            }
        }
        self.take(&Step::Wish { id: 0, wish: 0 });
        self.take(&Step::Connect);
        self.take(&Step::Kept { all: true });
        self.comes_to_rest();
        assert!(self.owed.is_empty(), "the hub never hears of {:?}", self.owed);
        if let Some(own) = self.own_id().filter(|_| self.windows && !self.was_lost) {
            let is_met = self.met.as_ref() == Some(&own) || self.spent.contains(&own);
            assert!(is_met, "{own} is never asked for");
        }
        self.take(&Step::Need { need: 0 });
        self.comes_to_rest();
        assert_eq!(self.agent.status(), "no reboot pending");
        // Too many were granted, perhaps, but not for more than an hour.
        self.now += 3600;
        self.take(&Step::Call { id: 9, payload: 0 });
        assert!(self.permission_asked, "a new request is not taken");
    }
}

fn start(boot: u32, seconds: i64) -> Start {
    Start::of(&format!("boot-{boot}"), seconds)
}

/// More with `PROPTEST_CASES=20000`.
fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig { cases: default.cases.max(500), failure_persistence: None, ..default }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn granted_means_recorded_and_at_most_one_reboot_and_an_end(
        volatile in any::<bool>(),
        windows in any::<bool>(),
        stale in any::<bool>(),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut world = World::new(volatile, windows, stale);
        for step in &steps {
            world.take(step);
            world.holds();
        }
        world.settle();
        world.holds();
    }
}
