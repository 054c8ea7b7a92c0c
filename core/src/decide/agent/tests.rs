//! Each rule as a row: what happens, and the effects in their order.

mod boots;
mod calls;
mod cancel;
mod clock;
mod failures;
mod guards;
mod health;
mod later;
mod need;
mod own;
mod preflight;
mod recall;
mod remember;
mod road;
mod sizes;
mod wishes;

use iotdm_proto::reply::{IfItHangs, Inhibitor};
use iotdm_proto::report::{BootCause, Clock, Reboot};
use jiff::tz::TimeZone;
use serde_json::json;

use super::*;
use crate::decide::effect::Note;
use crate::decide::event::Start;
use crate::decide::event::Traces;
use crate::decide::outlook::Outlook;
use crate::decide::windows::Turn;

const ACK: Duration = Duration::from_secs(5);
const DOWN: Duration = Duration::from_secs(300);
/// All of a window is used, from its first instant on.
const TURN: Turn = Turn { reserve: Duration::ZERO, spread: Duration::ZERO, number: 0 };
const GUARDS: Guards = Guards {
    max_per_hour: 6,
    min_uptime: Duration::ZERO,
    windows: Vec::new(),
    turn: TURN,
    zone: || TimeZone::UTC,
};
const SETTINGS: Settings = Settings {
    ack_timeout: ACK,
    down_timeout: DOWN,
    allow_inhibitor_override: false,
    allow_preflight_override: false,
    guards: GUARDS,
    when_required: false,
    health: true,
};

fn at(seconds: i64) -> Time {
    Time::from_unix_millis(seconds * 1000)
}

fn start(boot_id: &str, booted: i64) -> Start {
    Start::of(boot_id, booted)
}

/// An agent and the time, which does not go back between two events unless a
/// test says so.
#[derive(Clone)]
struct Clocked {
    agent: Agent,
    now: i64,
}

impl Clocked {
    fn handle(&mut self, event: Event, now: Time) -> Vec<Effect> {
        self.now = now.unix_millis() / 1000;
        self.agent.handle(event, now)
    }
}

impl std::ops::Deref for Clocked {
    type Target = Agent;

    fn deref(&self) -> &Agent {
        &self.agent
    }
}

fn resumed(
    record: Option<Record>,
    damaged: Option<String>,
    start: Start,
    settings: Settings,
    now: Time,
) -> (Clocked, Vec<Effect>) {
    let first = record.is_none();
    let (agent, effects) = Agent::resume(record, damaged, start, settings, now);
    let mut agent = Clocked { agent, now: now.unix_millis() / 1000 };
    if !first {
        return (agent, effects);
    }
    // The twin has been read, and remembers nothing.
    assert_eq!(log(&effects), ["save nothing"]);
    let read = Event::Desired { reboot: None, memory: Some(Box::default()) };
    let effects = agent.handle(read, now);
    (agent, effects)
}

fn resume(record: Option<Record>, boot_id: &str, booted: i64) -> (Clocked, Vec<Effect>) {
    resumed(record, None, start(boot_id, booted), SETTINGS, at(booted + 10))
}

/// A daemon that has started for the first time ever.
fn idle() -> Clocked {
    resume(None, "boot-1", 0).0
}

fn call(rid: &str, payload: &str) -> Event {
    method(rid, "rebootDevice", payload)
}

fn method(rid: &str, name: &str, payload: &str) -> Event {
    Event::Called {
        rid: rid.into(),
        name: name.into(),
        payload: payload.into(),
        fresh_id: format!("fresh-{rid}"),
    }
}

/// The machine is up, and not going down.
fn stays_up() -> Event {
    Event::Shutdown { under_way: Some(false), stopping: Vec::new() }
}

fn delivered(rid: &str) -> Event {
    Event::ReplyDelivered { rid: rid.into() }
}

/// What logind says while somebody holds a block inhibitor.
fn blocked() -> Refusal {
    Refusal::Blocked(vec![Inhibitor { who: "apt".into(), why: "upgrading".into(), uid: 0, pid: 7 }])
}

/// The effects in a line each, in the order in which they are carried out.
fn log(effects: &[Effect]) -> Vec<String> {
    let line = |effect: &Effect| match effect {
        Effect::Reply { rid, status, body } => {
            let code = body["error"]["code"].as_str().or(body["status"].as_str()).unwrap_or_default();
            format!("reply {rid} {status} {code}")
        }
        Effect::AskPermission { .. } => "check".to_owned(),
        Effect::ReportNow(report) => {
            format!("report now {}", report.reboot.as_ref().map_or("nothing".into(), log_reboot))
        }
        Effect::AskShutdown => "look".to_owned(),
        Effect::Survey { rid, .. } => format!("survey {rid}"),
        Effect::Save(record) => {
            let asked = match record.asked {
                Some(Asked::Asking) => " asking",
                Some(Asked::Agreed) => " agreed",
                None => "",
            };
            let down = if record.going_down { " going-down" } else { "" };
            format!("save {}{asked}{down}", record.reboot.as_ref().map_or("nothing".into(), log_reboot))
        }
        Effect::Keep { requests, whole } => {
            format!("keep {}{}", requests.len(), if *whole { " in all" } else { "" })
        }
        Effect::Report(report) => {
            let reboot = report.reboot.as_ref();
            format!("report {}", reboot.map_or("nothing".into(), log_reboot))
        }
        Effect::Reboot { ignore_inhibitors: false, .. } => "reboot".to_owned(),
        Effect::Reboot { .. } => "reboot over inhibitors".to_owned(),
        Effect::Deadline(after) => format!("deadline {:?}", after.map(|after| after.as_secs())),
        Effect::Note(note) => match note {
            Note::Recalled { id } => format!("note recalled {}", id.as_deref().unwrap_or("nothing")),
            Note::Booted(boot) => format!("note booted {}", boot.cause),
            Note::Ended(reboot) => format!("note ended {}", reboot.status),
            Note::Accepted(reboot) => format!("note accepted {}", reboot.id),
            Note::Waiting { id, .. } => format!("note waiting {id}"),
            Note::Refused { code, .. } => format!("note refused {code}"),
            Note::ClockSet(boot) => format!("note clock {}", boot.clock),
            Note::Rebooting { id } => format!("note rebooting {id}"),
            Note::Untold { id } => format!("note untold {id}"),
            Note::ShutdownBegan => "note shutdown".to_owned(),
            Note::ShutdownCancelled => "note shutdown cancelled".to_owned(),
        },
    };
    effects.iter().map(line).collect()
}

fn log_reboot(reboot: &Reboot) -> String {
    let started = if reboot.started_at.is_some() { " started" } else { "" };
    let code = reboot.error.as_ref().map(|error| format!(" {}", error.code)).unwrap_or_default();
    format!("{} {}{started}{code}", reboot.id, reboot.status)
}

/// Feeds the events, each a second after the last and the first no earlier than
/// at 101 s, and returns the log of all effects.
fn play(agent: &mut Clocked, events: impl IntoIterator<Item = Event>) -> Vec<String> {
    let mut effects = Vec::new();
    for event in events {
        let now = agent.now.max(100) + 1;
        effects.extend(agent.handle(event, at(now)));
    }
    log(&effects)
}

fn bodies(effects: &[Effect]) -> Vec<Value> {
    let body = |effect: &Effect| match effect {
        Effect::Reply { body, .. } => Some(body.clone()),
        _ => None,
    };
    effects.iter().filter_map(body).collect()
}

/// The record that was last to be saved, as the next start finds it.
fn last_saved(effects: &[Effect]) -> Record {
    let saved = effects.iter().rev().find_map(|effect| match effect {
        Effect::Save(record) => Some((**record).clone()),
        _ => None,
    });
    let bytes = serde_json::to_vec(&saved.expect("nothing was saved")).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

const ASKED: &str = r#"{"id":"a","reason":"kernel update"}"#;

/// The events up to the reboot, for a request that goes well.
fn straight() -> Vec<Event> {
    vec![
        call("1", ASKED),
        Event::Permission(Outlook::of(Ok(()))),
        Event::Saved(Ok(())),
        delivered("1"),
        Event::Reported,
        Event::Saved(Ok(())),
        Event::RebootAsked(Ok(())),
        Event::Saved(Ok(())),
        Event::ShutdownBegan,
    ]
}

fn surveyed(rid: &str, permission: Result<(), Refusal>) -> Event {
    Event::Surveyed {
        rid: rid.into(),
        outlook: Outlook::of(permission),
        uptime: Duration::from_secs(77),
        if_it_hangs: IfItHangs { watchdog: None, forced_after_seconds: Some(1800) },
    }
}

/// The record on disk after the first `length` events of the straight path.
fn record_after(length: usize) -> Record {
    let (mut agent, mut effects) = resume(None, "boot-1", 0);
    for (seconds, event) in straight().into_iter().take(length).enumerate() {
        effects.extend(agent.handle(event, at(100 + seconds as i64)));
    }
    last_saved(&effects)
}

/// Feeds the events at the given seconds and returns the log of all effects.
fn play_at(agent: &mut Clocked, events: impl IntoIterator<Item = (i64, Event)>) -> Vec<String> {
    let effects: Vec<Effect> =
        events.into_iter().flat_map(|(seconds, event)| agent.handle(event, at(seconds))).collect();
    log(&effects)
}

const LATER: &str = r#"{"id":"a","delaySeconds":600}"#;

/// The events until a request for 600 s later is on disk and answered.
fn scheduled() -> Vec<(i64, Event)> {
    vec![
        (100, call("1", LATER)),
        (100, Event::Permission(Outlook::of(Ok(())))),
        (100, Event::Saved(Ok(()))),
        (101, delivered("1")),
    ]
}

/// The events until a request that waits for an inhibitor, for 60 s, does so.
fn waiting() -> Vec<(i64, Event)> {
    vec![
        (100, call("1", r#"{"id":"a","onInhibitor":"wait","waitSeconds":60}"#)),
        (100, Event::Permission(Outlook::of(Err(blocked())))),
        (100, Event::Saved(Ok(()))),
        (101, delivered("1")),
        (101, Event::Permission(Outlook::of(Err(blocked())))),
    ]
}
