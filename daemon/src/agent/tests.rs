//! Each rule as a row: what happens, and the effects in their order.

mod clock;
mod guards;
mod wishes;

use iotdm_proto::report::{BootCause, Clock, Reboot};
use jiff::tz::TimeZone;

use super::*;
use crate::effect::Note;
use crate::event::{Inhibitor, Start};

const ACK: Duration = Duration::from_secs(5);
const DOWN: Duration = Duration::from_secs(300);
const GUARDS: Guards =
    Guards { max_per_hour: 6, min_uptime: Duration::ZERO, windows: Vec::new(), zone: || TimeZone::UTC };
const SETTINGS: Settings =
    Settings { ack_timeout: ACK, down_timeout: DOWN, allow_inhibitor_override: false, guards: GUARDS };

fn at(seconds: i64) -> Time {
    Time::from_unix_millis(seconds * 1000)
}

fn start(boot_id: &str, booted: i64) -> Start {
    Start { boot_id: boot_id.into(), boot_time: at(booted), clock: Clock::Synchronized, shut_down: None }
}

fn resume(record: Option<Record>, boot_id: &str, booted: i64) -> (Agent, Vec<Effect>) {
    Agent::resume(record, None, start(boot_id, booted), SETTINGS, at(booted + 10))
}

/// A daemon that has started for the first time ever.
fn idle() -> Agent {
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
        Effect::AskPermission => "check".to_owned(),
        Effect::Survey { rid } => format!("survey {rid}"),
        Effect::Save(record) => {
            let asked = match record.asked {
                Some(Asked::Asking) => " asking",
                Some(Asked::Agreed) => " agreed",
                None => "",
            };
            let down = if record.going_down { " going-down" } else { "" };
            format!("save {}{asked}{down}", record.reboot.as_ref().map_or("nothing".into(), log_reboot))
        }
        Effect::Report(report) => {
            let reboot = report.reboot.as_ref();
            format!("report {}", reboot.map_or("nothing".into(), log_reboot))
        }
        Effect::Reboot { ignore_inhibitors: false, .. } => "reboot".to_owned(),
        Effect::Reboot { .. } => "reboot over inhibitors".to_owned(),
        Effect::Deadline(after) => format!("deadline {:?}", after.map(|after| after.as_secs())),
        Effect::Note(note) => match note {
            Note::Booted(boot) => format!("note booted {:?}", boot.cause),
            Note::Ended(reboot) => format!("note ended {:?}", reboot.status),
            Note::Accepted(reboot) => format!("note accepted {}", reboot.id),
            Note::Waiting { id, .. } => format!("note waiting {id}"),
            Note::Refused { code, .. } => format!("note refused {code}"),
            Note::ClockSet(boot) => format!("note clock {:?}", boot.clock),
            Note::Rebooting { id } => format!("note rebooting {id}"),
            Note::ShutdownBegan => "note shutdown".to_owned(),
            Note::ShutdownCancelled => "note shutdown cancelled".to_owned(),
        },
    };
    effects.iter().map(line).collect()
}

fn log_reboot(reboot: &Reboot) -> String {
    let started = if reboot.started_at.is_some() { " started" } else { "" };
    let code = reboot.error.as_ref().map(|error| format!(" {:?}", error.code)).unwrap_or_default();
    format!("{} {:?}{started}{code}", reboot.id, reboot.status)
}

/// Feeds the events and returns the log of all effects.
fn play(agent: &mut Agent, events: impl IntoIterator<Item = Event>) -> Vec<String> {
    let mut now = 100;
    let mut effects = Vec::new();
    for event in events {
        now += 1;
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
        Event::Permission(Ok(())),
        Event::Saved(Ok(())),
        delivered("1"),
        Event::Reported,
        Event::Saved(Ok(())),
        Event::RebootAsked(Ok(())),
        Event::Saved(Ok(())),
        Event::ShutdownBegan,
    ]
}

#[test]
fn the_straight_path_in_order() {
    let (mut agent, effects) = resume(None, "boot-1", 0);
    assert_eq!(log(&effects), ["save nothing", "report nothing"]);
    let log = play(&mut agent, straight());
    assert_eq!(
        log,
        [
            "check",
            "save a Rebooting",
            "note accepted a",
            "reply 1 200 accepted",
            "deadline Some(5)",
            "note rebooting a",
            "save a Rebooting started",
            "deadline Some(5)",
            "report a Rebooting started",
            "deadline Some(300)",
            "save a Rebooting started asking",
            "deadline Some(300)",
            "reboot",
            "save a Rebooting started agreed",
            "note shutdown",
            "save a Rebooting started agreed going-down",
        ]
    );
}

#[test]
fn the_reply_says_what_was_accepted() {
    let mut agent = idle();
    agent.handle(call("1", r#"{"method_number":"42"}"#), at(1));
    agent.handle(Event::Permission(Ok(())), at(2));
    let effects = agent.handle(Event::Saved(Ok(())), at(3));
    let expected = json!({
        "id": "fresh-1", "status": "accepted", "bootId": "boot-1", "ignored": ["method_number"],
        "message": "the device reboots once this reply is delivered",
    });
    assert_eq!(bodies(&effects), [expected]);
}

#[test]
fn neither_the_reply_nor_the_report_is_waited_for_beyond_the_deadline() {
    let mut agent = idle();
    let events = [
        call("1", ASKED),
        Event::Permission(Ok(())),
        Event::Saved(Ok(())),
        Event::DeadlinePassed,
        Event::DeadlinePassed,
        Event::Saved(Ok(())),
    ];
    assert_eq!(play(&mut agent, events).last().unwrap(), "reboot");
}

#[test]
fn logind_is_not_asked_before_reply_and_report_nor_before_that_is_on_disk() {
    let events = straight();
    for length in 0..events.len() {
        let log = play(&mut idle(), events.iter().take(length).cloned());
        // Delivered, reported, saved.
        assert_eq!(log.contains(&"reboot".to_owned()), length >= 6, "after {length} events: {log:?}");
    }
}

#[test]
fn a_beginning_that_cannot_be_recorded_is_tried_again_and_then_given_up() {
    let full = || Event::Saved(Err("disk full".into()));
    let before = || straight().into_iter().take(5);
    let mut agent = idle();
    let log = play(&mut agent, before().chain([full(), full(), Event::Saved(Ok(()))]));
    assert_eq!(log.last().unwrap(), "reboot");

    let mut agent = idle();
    let log = play(&mut agent, before().chain([full(), Event::DeadlinePassed]));
    assert_eq!(log.last().unwrap(), "report a Failed started NeverWentDown");
    assert!(!log.contains(&"reboot".to_owned()));
    assert_eq!(agent.status(), "no reboot pending");
}

#[test]
fn a_report_of_before_does_not_stand_for_the_new_one() {
    let mut agent = idle();
    let events = [call("1", ASKED), Event::Reported, Event::Permission(Ok(())), Event::Reported];
    assert_eq!(play(&mut agent, events), ["check", "save a Rebooting"]);
}

#[test]
fn refusals_change_nothing() {
    for (refusal, expected) in [
        (Refusal::LogindUnavailable("no bus".into()), "reply 1 503 logindUnavailable"),
        (Refusal::NotAuthorized("no".into()), "reply 1 503 notAuthorized"),
        (blocked(), "reply 1 423 blockedByInhibitor"),
    ] {
        let mut agent = idle();
        agent.handle(call("1", ASKED), at(1));
        let effects = agent.handle(Event::Permission(Err(refusal)), at(2));
        assert_eq!(log(&effects).last().unwrap(), expected);
        assert!(!log(&effects).iter().any(|line| line.starts_with("save")));
        if let [body] = &bodies(&effects)[..]
            && expected.contains("423")
        {
            let named = json!([{"who": "apt", "why": "upgrading", "uid": 0, "pid": 7}]);
            assert_eq!(body["error"]["inhibitors"], named);
            assert_eq!(body["error"]["message"], "shutdown is inhibited by apt (upgrading)");
        }
        // And the next one is taken.
        assert_eq!(play(&mut agent, [call("2", ASKED)]), ["check"]);
    }
}

#[test]
fn wrong_calls_are_refused_at_once() {
    let mut agent = idle();
    let effects = agent.handle(method("1", "reboot", ""), at(1));
    assert_eq!(log(&effects), ["note refused unknownMethod", "reply 1 404 unknownMethod"]);
    assert_eq!(bodies(&effects)[0]["error"]["methods"], json!(METHODS));
    let log = play(&mut agent, [call("2", "[]"), call("3", r#"{"id":7}"#)]);
    assert_eq!(
        log,
        [
            "note refused invalidPayload",
            "reply 2 400 invalidPayload",
            "note refused invalidPayload",
            "reply 3 400 invalidPayload"
        ]
    );
}

fn surveyed(rid: &str, permission: Result<(), Refusal>) -> Event {
    Event::Surveyed { rid: rid.into(), permission, uptime: Duration::from_secs(77) }
}

#[test]
fn a_check_changes_nothing_and_is_in_nobodys_way() {
    let mut agent = idle();
    let check = |rid| call(rid, r#"{"id":"a","check":true}"#);
    assert_eq!(play(&mut agent, [check("1"), check("2")]), ["survey 1", "survey 2"]);
    // The id was not used up, nor does the real request wait.
    assert_eq!(play(&mut agent, [call("3", ASKED)]), ["check"]);
    assert_eq!(play(&mut agent, [surveyed("2", Ok(()))]), ["reply 2 200 checked"]);
    let refused = play(&mut agent, [surveyed("1", Err(blocked()))]);
    assert_eq!(refused.last().unwrap(), "reply 1 423 blockedByInhibitor");
    // While one is pending, it would be refused.
    assert_eq!(play(&mut agent, [check("4")]).last().unwrap(), "reply 4 409 rebootPending");
    assert_eq!(play(&mut agent, [Event::Permission(Ok(()))]), ["save a Rebooting"]);
}

#[test]
fn a_call_that_is_delivered_twice_is_answered_once() {
    let mut agent = idle();
    let twice = || call("1", "");
    assert_eq!(play(&mut agent, [twice(), twice()]), ["check"]);
    let log = play(&mut agent, [Event::Permission(Ok(())), Event::Saved(Ok(())), twice()]);
    assert_eq!(log.last().unwrap(), "deadline Some(5)", "{log:?}");
}

#[test]
fn while_one_is_pending_another_is_refused_and_the_same_is_answered_again() {
    let events = straight();
    for length in 1..=events.len() {
        let mut agent = idle();
        play(&mut agent, events.iter().take(length).cloned());
        let effects = agent.handle(call("x", r#"{"id":"b"}"#), at(200));
        assert_eq!(log(&effects).last().unwrap(), "reply x 409 rebootPending", "after {length} events");
        assert_eq!(bodies(&effects)[0]["error"]["id"], "a");
        let again = log(&agent.handle(call("y", ASKED), at(201)));
        // Before the decision there is no answer yet; both get it then.
        let expected: &[&str] = if length == 1 { &[] } else { &["reply y 200 accepted"] };
        assert_eq!(again, expected, "after {length} events");
    }
}

#[test]
fn one_decision_answers_all_deliveries_of_a_request() {
    let mut agent = idle();
    let log = play(
        &mut agent,
        [
            call("1", ASKED),
            call("2", ASKED),
            Event::Permission(Ok(())),
            Event::Saved(Ok(())),
            delivered("2"),
            delivered("1"),
        ],
    );
    assert_eq!(log.iter().filter(|line| line.starts_with("reply")).count(), 2);
    assert_eq!(log.iter().filter(|line| *line == "check").count(), 1);
    let replies = log.iter().position(|line| line == "reply 2 200 accepted").unwrap();
    let announced = log.iter().position(|line| line == "note rebooting a").unwrap();
    assert!(replies < announced);
}

#[test]
fn nothing_happens_when_it_cannot_be_recorded() {
    let mut agent = idle();
    let log = play(
        &mut agent,
        [call("1", ASKED), Event::Permission(Ok(())), Event::Saved(Err("disk full".into()))],
    );
    assert_eq!(
        log,
        [
            "check",
            "save a Rebooting",
            "save nothing",
            "note refused storageFailed",
            "reply 1 500 storageFailed"
        ]
    );
    assert_eq!(agent.status(), "no reboot pending");
}

#[test]
fn a_refusing_logind_and_a_machine_that_stays_up_are_reported_and_leave_it_idle() {
    let before = || straight().into_iter().take(6);
    let mut agent = idle();
    let refused = Event::RebootAsked(Err("access denied".into()));
    let log = play(&mut agent, before().chain([refused, Event::Permission(Ok(()))]));
    assert!(log.ends_with(&[
        "check".into(),
        "deadline None".into(),
        "note ended Failed".into(),
        "save a Failed started LogindRefused".into(),
        "report a Failed started LogindRefused".into(),
    ]));
    assert_eq!(agent.status(), "no reboot pending");

    let mut agent = idle();
    let log = play(&mut agent, before().chain([Event::RebootAsked(Ok(())), Event::DeadlinePassed]));
    assert!(log.ends_with(&[
        "save a Failed started NeverWentDown".into(),
        "report a Failed started NeverWentDown".into()
    ]));
    assert_eq!(play(&mut agent, [call("2", r#"{"id":"b"}"#)]), ["check"]);
    // The old id still has its answer, and causes nothing.
    let mut agent = idle();
    play(&mut agent, before().chain([Event::RebootAsked(Ok(())), Event::DeadlinePassed]));
    assert_eq!(play(&mut agent, [call("3", ASKED)]), ["reply 3 200 accepted"]);
}

/// The record on disk after the first `length` events of the straight path.
fn record_after(length: usize) -> Record {
    let (mut agent, mut effects) = resume(None, "boot-1", 0);
    for (seconds, event) in straight().into_iter().take(length).enumerate() {
        effects.extend(agent.handle(event, at(100 + seconds as i64)));
    }
    last_saved(&effects)
}

#[test]
fn a_new_boot_ends_the_request_whatever_had_happened() {
    const DOWN: Option<&str> = Some("boot-1");
    let failed = |started| {
        let reboot = format!("a Failed{started} UncleanBoot");
        vec![
            "note booted Unclean".to_owned(),
            "note ended Failed".to_owned(),
            format!("save {reboot}"),
            format!("report {reboot}"),
        ]
    };
    let completed = |cause| {
        vec![
            format!("note booted {cause}"),
            "note ended Completed".to_owned(),
            "save a Completed started".to_owned(),
            "report a Completed started".to_owned(),
        ]
    };
    for (length, shut_down, log_of_start) in [
        (1, None, ["note booted Unclean", "save nothing", "report nothing"].map(str::to_owned).to_vec()),
        (2, None, failed("")),
        (4, None, failed(" started")),
        // The power was cut while logind was asked, or was about to act.
        (6, None, failed(" started")),
        (7, None, failed(" started")),
        (7, Some("boot-0"), failed(" started")),
        // Killed before it could write that logind agreed, or that it acts.
        (6, DOWN, completed("Requested")),
        (7, DOWN, completed("Requested")),
        (9, None, completed("Requested")),
    ] {
        let start = Start { shut_down: shut_down.map(str::to_owned), ..start("boot-2", 120) };
        let (mut agent, effects) = Agent::resume(Some(record_after(length)), None, start, SETTINGS, at(130));
        assert_eq!(log(&effects), log_of_start, "after {length} events");
        let record = last_saved(&effects);
        assert_eq!(record.reboot_time, Some(at(120)));
        // Whatever happens later in this boot, it is not rebooted for it again.
        let late = [Event::Reported, Event::DeadlinePassed, Event::ReplyDelivered { rid: "1".into() }];
        assert!(play(&mut agent, late).is_empty());
        if length > 1 {
            assert_eq!(play(&mut agent, [call("9", ASKED)]), ["reply 9 200 accepted"]);
        }
    }
}

#[test]
fn the_completed_report_has_both_boots_and_the_time_between() {
    let (_, effects) = resume(Some(record_after(9)), "boot-2", 124);
    let Some(Effect::Report(report)) = effects.last() else { panic!("no report") };
    let reboot = report.reboot.as_ref().unwrap();
    assert_eq!((reboot.previous_boot_id.as_str(), reboot.boot_id.as_deref()), ("boot-1", Some("boot-2")));
    assert_eq!(reboot.reason.as_deref(), Some("kernel update"));
    assert_eq!((reboot.started_at, reboot.completed_at), (Some(at(103)), Some(at(134))));
    assert_eq!(reboot.down_seconds, Some(21.0));
    assert_eq!(report.reboot_time, Some(at(124)));
}

#[test]
fn a_clock_that_went_back_leaves_the_down_time_out() {
    let (_, effects) = resume(Some(record_after(9)), "boot-2", 3);
    let reboot = last_saved(&effects).reboot.unwrap();
    assert_eq!((reboot.status, reboot.down_seconds), (RebootStatus::Completed, None));
}

#[test]
fn a_daemon_that_died_in_the_same_boot_goes_on() {
    let begins = ["deadline Some(300)", "save a Rebooting started asking", "deadline Some(300)", "reboot"];
    for length in 2..=6 {
        let record = Some(record_after(length));
        let (mut agent, effects) = Agent::resume(record, None, start("boot-1", 0), SETTINGS, at(110));
        let mut log = log(&effects);
        // Until logind was about to be asked, whether it may be is judged anew.
        if length < 5 {
            assert_eq!(log, ["deadline None", "report a Waiting", "check"], "after {length} events");
            log = play(&mut agent, [Event::Permission(Ok(()))]);
        }
        assert_eq!(log.last().unwrap(), "report a Rebooting started", "after {length} events: {log:?}");
        assert_eq!(play(&mut agent, [Event::Reported, Event::Saved(Ok(()))]), begins);
    }
}

#[test]
fn what_others_have_written_fits_into_the_twin() {
    let holder = || Inhibitor { who: "\u{1f980}".repeat(200), why: "y".repeat(200), uid: 0, pid: 1 };
    let mut agent = idle();
    let mut events = scheduled();
    events.push((700, Event::DeadlinePassed));
    events.push((700, Event::Permission(Err(Refusal::Blocked((0..16).map(|_| holder()).collect())))));
    play_at(&mut agent, events);
    let message = agent.record.reboot.unwrap().error.unwrap().message;
    assert!(message.len() <= 4096 && message.starts_with("shutdown is inhibited by"), "{}", message.len());
}

#[test]
fn a_logind_that_has_agreed_is_not_asked_again() {
    for length in 7..=9 {
        let (mut agent, effects) = resume(Some(record_after(length)), "boot-1", 0);
        assert_eq!(log(&effects), ["deadline Some(300)", "report a Rebooting started"]);
        let log = play(&mut agent, [Event::Reported, Event::DeadlinePassed]);
        assert_eq!(log.last().unwrap(), "report a Failed started NeverWentDown", "after {length} events");
    }
}

#[test]
fn logind_refusing_during_somebodys_shutdown_is_no_failure() {
    let mut agent = idle();
    let events = straight().into_iter().take(6);
    let log = play(&mut agent, events.chain([Event::ShutdownBegan, Event::RebootAsked(Err("busy".into()))]));
    assert_eq!(log.last().unwrap(), "save a Rebooting started asking going-down");
}

#[test]
fn a_shutdown_by_others_is_local_and_none_at_all_is_unclean() {
    for (events, shut_down, cause) in [
        (&[Event::ShutdownBegan][..], None, BootCause::Local),
        (&[], None, BootCause::Unclean),
        (&[Event::ShutdownBegan, Event::ShutdownCancelled], None, BootCause::Unclean),
        // Nobody told the daemon.
        (&[], Some("boot-1"), BootCause::Local),
        (&[], Some("boot-0"), BootCause::Unclean),
    ] {
        let (mut agent, mut effects) = resume(None, "boot-1", 0);
        for event in events {
            effects.extend(agent.handle(event.clone(), at(5)));
        }
        let start = Start { shut_down: shut_down.map(str::to_owned), ..start("boot-2", 50) };
        let (_, effects) = Agent::resume(Some(last_saved(&effects)), None, start, SETTINGS, at(60));
        assert_eq!(last_saved(&effects).boot.cause, cause, "{events:?}, {shut_down:?}");
    }
}

#[test]
fn a_shutdown_is_noted_once() {
    let mut agent = idle();
    let log = play(
        &mut agent,
        [Event::ShutdownCancelled, Event::ShutdownBegan, Event::ShutdownBegan, Event::ShutdownCancelled],
    );
    assert_eq!(log, ["note shutdown", "save nothing going-down", "note shutdown cancelled", "save nothing"]);
}

#[test]
fn the_first_start_ever_has_no_reboot_time_and_a_damaged_record_is_told() {
    let (_, effects) = Agent::resume(None, Some("/x/state.damaged-0".into()), start("b", 0), SETTINGS, at(1));
    let Some(Effect::Report(report)) = effects.last() else { panic!("no report") };
    assert_eq!(report.reboot_time, None);
    assert_eq!(report.boot.as_ref().unwrap().cause, BootCause::Unknown);
    assert_eq!(report.agent.as_ref().unwrap().damaged_record.as_deref(), Some("/x/state.damaged-0"));
}

#[test]
fn a_restart_in_the_same_boot_says_the_same() {
    let (_, first) = resume(Some(record_after(9)), "boot-2", 120);
    let Some(Effect::Report(before)) = first.last().cloned() else { panic!("no report") };
    let (_, second) = resume(Some(last_saved(&first)), "boot-2", 120);
    assert_eq!(second, [Effect::Report(before)]);
}

/// Feeds the events at the given seconds and returns the log of all effects.
fn play_at(agent: &mut Agent, events: impl IntoIterator<Item = (i64, Event)>) -> Vec<String> {
    let effects: Vec<Effect> =
        events.into_iter().flat_map(|(seconds, event)| agent.handle(event, at(seconds))).collect();
    log(&effects)
}

const LATER: &str = r#"{"id":"a","delaySeconds":600}"#;

/// The events until a request for 600 s later is on disk and answered.
fn scheduled() -> Vec<(i64, Event)> {
    vec![
        (100, call("1", LATER)),
        (100, Event::Permission(Ok(()))),
        (100, Event::Saved(Ok(()))),
        (101, delivered("1")),
    ]
}

#[test]
fn a_later_request_waits_for_its_time_and_asks_logind_again() {
    let mut agent = idle();
    let mut events = scheduled();
    // Early, as after a clock that was set back.
    events.push((600, Event::DeadlinePassed));
    events.push((701, Event::DeadlinePassed));
    events.push((701, Event::Permission(Ok(()))));
    assert_eq!(
        play_at(&mut agent, events),
        [
            "check",
            "save a Scheduled",
            "note accepted a",
            "reply 1 200 scheduled",
            "deadline Some(5)",
            "deadline Some(599)",
            "report a Scheduled",
            "deadline Some(100)",
            "report a Scheduled",
            "deadline None",
            "report a Scheduled",
            "check",
            "note rebooting a",
            "save a Rebooting started",
            "deadline Some(5)",
            "report a Rebooting started",
        ]
    );
}

#[test]
fn the_reply_to_a_later_request_says_when() {
    let mut agent = idle();
    agent.handle(call("1", LATER), at(100));
    agent.handle(Event::Permission(Err(blocked())), at(100));
    let body = &bodies(&agent.handle(Event::Saved(Ok(())), at(100)))[0];
    assert_eq!(body["status"], "scheduled");
    assert_eq!(body["notBefore"], "1970-01-01T00:11:40.000Z");
    assert_eq!(body["message"], "the device reboots at 1970-01-01T00:11:40.000Z");
}

#[test]
fn a_later_request_that_is_then_inhibited_fails_or_refused_fails() {
    for (refusal, code) in [
        (blocked(), "BlockedByInhibitor"),
        (Refusal::NotAuthorized("no".into()), "LogindRefused"),
        (Refusal::LogindUnavailable("no bus".into()), "LogindRefused"),
    ] {
        let mut agent = idle();
        let mut events = scheduled();
        events.push((700, Event::DeadlinePassed));
        events.push((700, Event::Permission(Err(refusal))));
        assert_eq!(play_at(&mut agent, events).last().unwrap(), &format!("report a Failed {code}"));
        assert_eq!(agent.status(), "no reboot pending");
    }
}

/// The events until a request that waits for an inhibitor, for 60 s, does so.
fn waiting() -> Vec<(i64, Event)> {
    vec![
        (100, call("1", r#"{"id":"a","onInhibitor":"wait","waitSeconds":60}"#)),
        (100, Event::Permission(Err(blocked()))),
        (100, Event::Saved(Ok(()))),
        (101, delivered("1")),
        (101, Event::Permission(Err(blocked()))),
    ]
}

#[test]
fn waiting_ends_with_the_release() {
    let mut agent = idle();
    let mut events = waiting();
    events.push((110, Event::InhibitorsChanged));
    events.push((110, Event::Permission(Err(blocked()))));
    events.push((120, Event::InhibitorsChanged));
    events.push((120, Event::Permission(Ok(()))));
    assert_eq!(
        play_at(&mut agent, events),
        [
            "check",
            "save a Waiting",
            "note accepted a",
            "reply 1 200 accepted",
            "deadline Some(5)",
            "deadline Some(59)",
            "report a Waiting",
            "check",
            "check",
            "check",
            "note rebooting a",
            "save a Rebooting started",
            "deadline Some(5)",
            "report a Rebooting started",
        ]
    );
}

#[test]
fn a_release_while_logind_is_asked_is_not_missed() {
    let mut agent = idle();
    let mut events = waiting();
    events.push((110, Event::InhibitorsChanged));
    events.push((110, Event::InhibitorsChanged));
    events.push((110, Event::Permission(Err(blocked()))));
    let log = play_at(&mut agent, events);
    assert_eq!(log.iter().filter(|line| *line == "check").count(), 4);
    assert_eq!(play_at(&mut agent, [(111, Event::Permission(Ok(())))])[0], "note rebooting a");
}

#[test]
fn an_inhibitor_that_is_taken_at_the_last_moment_is_one_all_the_same() {
    let refused = [Event::RebootAsked(Err("inhibited".into())), Event::Permission(Err(blocked()))];
    let before = |on_inhibitor: &str| {
        let mut events = straight();
        events[0] = call("1", &format!(r#"{{"id":"a","onInhibitor":"{on_inhibitor}","waitSeconds":60}}"#));
        events.into_iter().take(6).chain(refused.clone())
    };
    let mut agent = idle();
    let log = play(&mut agent, before("fail"));
    assert_eq!(log.last().unwrap(), "report a Failed started BlockedByInhibitor");

    let mut agent = idle();
    let log = play(&mut agent, before("wait"));
    assert!(log.ends_with(&[
        "note waiting a".into(),
        "save a Waiting".into(),
        "deadline Some(60)".into(),
        "report a Waiting".into()
    ]));
    let going_on =
        [Event::InhibitorsChanged, Event::Permission(Ok(())), Event::Reported, Event::Saved(Ok(()))];
    assert_eq!(play(&mut agent, going_on).last().unwrap(), "reboot");
    // For how long it waits does not begin anew each time.
    let log = play_at(
        &mut agent,
        [(140, Event::RebootAsked(Err("inhibited".into()))), (140, Event::Permission(Err(blocked())))],
    );
    assert!(
        log.ends_with(&["save a Waiting".into(), "deadline Some(28)".into(), "report a Waiting".into()]),
        "{log:?}"
    );
    assert_eq!(agent.record.starts, []);
}

#[test]
fn what_logind_refused_has_not_begun() {
    let before = || {
        let mut events = straight();
        events[0] = call("1", r#"{"id":"a","onInhibitor":"wait","waitSeconds":1}"#);
        events.into_iter().take(6).chain([Event::RebootAsked(Err("inhibited".into()))])
    };
    // Nor does the time to wait for inhibitors count while logind is asked.
    let mut agent = idle();
    let log = play(&mut agent, before());
    assert!(log.ends_with(&["deadline None".into(), "check".into()]), "{log:?}");

    play(&mut agent, [method("2", "cancelReboot", "")]);
    let cancelled = agent.record.reboot.as_ref().unwrap();
    assert_eq!((cancelled.status, cancelled.started_at), (RebootStatus::Cancelled, None));
    assert_eq!(agent.record.starts, []);

    // Taken and released again while logind was asked.
    let mut agent = idle();
    let log = play(&mut agent, before().chain([Event::InhibitorsChanged, Event::Permission(Ok(()))]));
    assert_eq!(log.last().unwrap(), "report a Rebooting started");
    assert_eq!(agent.record.starts.len(), 1);

    // The daemon dies meanwhile: what begins anew is counted once.
    let (mut agent, _) = resume(Some(record_after(6)), "boot-1", 100);
    play(&mut agent, [Event::Reported, Event::Saved(Ok(()))]);
    assert_eq!(agent.record.starts.len(), 1);
}

#[test]
fn waiting_is_bounded_also_over_a_restart_of_the_daemon() {
    let mut agent = idle();
    play_at(&mut agent, waiting());
    let failed = play_at(&mut agent, [(160, Event::DeadlinePassed)]);
    assert_eq!(failed.last().unwrap(), "report a Failed BlockedByInhibitor");

    let (mut agent, mut effects) = resume(None, "boot-1", 0);
    for (seconds, event) in waiting() {
        effects.extend(agent.handle(event, at(seconds)));
    }
    let (_, effects) = Agent::resume(Some(last_saved(&effects)), None, start("boot-1", 0), SETTINGS, at(130));
    assert_eq!(log(&effects), ["deadline Some(30)", "report a Waiting", "check"]);
}

#[test]
fn a_later_request_begins_to_wait_when_it_is_due() {
    let mut agent = idle();
    let payload = r#"{"id":"a","onInhibitor":"wait","waitSeconds":60,"delaySeconds":600}"#;
    let mut events = scheduled();
    events[0].1 = call("1", payload);
    events.push((700, Event::DeadlinePassed));
    events.push((700, Event::Permission(Err(blocked()))));
    let log = play_at(&mut agent, events);
    assert!(log.ends_with(&[
        "check".into(),
        "note waiting a".into(),
        "save a Waiting".into(),
        "deadline Some(60)".into(),
        "report a Waiting".into(),
    ]));
}

#[test]
fn an_override_is_the_devices_to_allow() {
    let payload = r#"{"id":"a","onInhibitor":"override"}"#;
    assert_eq!(play(&mut idle(), [call("1", payload)]), ["note refused forbidden", "reply 1 403 forbidden"]);

    let settings = Settings { allow_inhibitor_override: true, ..SETTINGS };
    let (mut agent, _) = Agent::resume(None, None, start("boot-1", 0), settings, at(10));
    let log = play(
        &mut agent,
        [
            call("1", payload),
            Event::Permission(Err(blocked())),
            Event::Saved(Ok(())),
            delivered("1"),
            Event::Reported,
            Event::Saved(Ok(())),
        ],
    );
    assert_eq!(log.last().unwrap(), "reboot over inhibitors");
}

#[test]
fn cancelling_is_recorded_before_it_is_answered() {
    for (events, cancelled_at) in [(scheduled(), 200), (waiting(), 110)] {
        for payload in ["", r#"{"id":"a"}"#] {
            let mut agent = idle();
            play_at(&mut agent, events.clone());
            let cancel = method("2", "cancelReboot", payload);
            assert_eq!(play_at(&mut agent, [(cancelled_at, cancel)]), ["save a Cancelled"]);
            let log = play_at(&mut agent, [(cancelled_at, Event::Saved(Ok(())))]);
            assert_eq!(
                log,
                ["note ended Cancelled", "reply 2 200 cancelled", "deadline None", "report a Cancelled"]
            );
            let late = [Event::DeadlinePassed, Event::Permission(Ok(())), Event::InhibitorsChanged];
            assert!(play(&mut agent, late).is_empty());
            assert_eq!(play(&mut agent, [call("3", r#"{"id":"b"}"#)]), ["check"]);
        }
    }
}

#[test]
fn a_cancellation_that_cannot_be_recorded_leaves_the_request_in_force() {
    let mut agent = idle();
    play_at(&mut agent, scheduled());
    let cancel = method("2", "cancelReboot", "");
    let log = play_at(&mut agent, [(200, cancel), (200, Event::Saved(Err("disk full".into())))]);
    assert_eq!(log.last().unwrap(), "reply 2 500 storageFailed");
    assert_eq!(
        play_at(&mut agent, [(700, Event::DeadlinePassed)]),
        ["deadline None", "report a Scheduled", "check"]
    );
}

#[test]
fn cancelling_nothing_another_or_too_late() {
    let cancel = || method("9", "cancelReboot", r#"{"id":"b"}"#);
    assert_eq!(play(&mut idle(), [cancel()]).last().unwrap(), "reply 9 404 nothingPending");
    let mut agent = idle();
    play_at(&mut agent, scheduled());
    assert_eq!(play(&mut agent, [cancel()]).last().unwrap(), "reply 9 404 nothingPending");
    assert_eq!(
        play(&mut agent, [method("9", "cancelReboot", "7")]).last().unwrap(),
        "reply 9 400 invalidPayload"
    );
    for length in 4..=9 {
        let mut agent = idle();
        play(&mut agent, straight().into_iter().take(length));
        let log = play(&mut agent, [method("9", "cancelReboot", "")]);
        assert_eq!(log.last().unwrap(), "reply 9 409 tooLate", "after {length} events");
    }
}

#[test]
fn the_status_says_how_things_are() {
    let mut agent = idle();
    assert_eq!(play(&mut agent, [method("1", "getRebootStatus", "")]), ["survey 1"]);
    let body = &bodies(&agent.handle(surveyed("1", Ok(())), at(1)))[0];
    assert_eq!(
        *body,
        json!({
            "boot": {"bootId": "boot-1", "bootTime": "1970-01-01T00:00:00.000Z", "cause": "unknown",
                     "clock": "synchronized"},
            "uptimeSeconds": 77, "inhibitors": [], "canReboot": true,
        })
    );
    play_at(&mut agent, scheduled());
    let body = &bodies(&agent.handle(surveyed("2", Err(blocked())), at(200)))[0];
    assert_eq!(body["reboot"]["status"], "scheduled");
    assert_eq!(body["canReboot"], false);
    assert_eq!(body["inhibitors"][0]["who"], "apt");
    // And what was under way goes on.
    assert_eq!(
        play_at(&mut agent, [(700, Event::DeadlinePassed)]),
        ["deadline None", "report a Scheduled", "check"]
    );
}

#[test]
fn a_later_request_survives_restarts_and_other_boots_until_its_time() {
    let (mut agent, mut effects) = resume(None, "boot-1", 0);
    for (seconds, event) in scheduled() {
        effects.extend(agent.handle(event, at(seconds)));
    }
    let record = last_saved(&effects);
    let same = Agent::resume(Some(record.clone()), None, start("boot-1", 0), SETTINGS, at(300));
    assert_eq!(log(&same.1), ["deadline Some(400)", "report a Scheduled"]);

    // Booted before its time: it still stands. And then it ends this boot.
    let (mut agent, effects) = resume(Some(record.clone()), "boot-2", 400);
    assert_eq!(
        log(&effects),
        ["note booted Unclean", "save a Scheduled", "deadline Some(290)", "report a Scheduled"]
    );
    let mut last = Vec::new();
    for event in [Event::DeadlinePassed, Event::Permission(Ok(()))] {
        last.extend(agent.handle(event, at(700)));
    }
    assert_eq!(last_saved(&last).reboot.unwrap().previous_boot_id, "boot-2");

    // Booted after its time, while the daemon could not see to it.
    let (_, effects) = resume(Some(record), "boot-2", 800);
    assert_eq!(log(&effects).last().unwrap(), "report a Failed UncleanBoot");
}
