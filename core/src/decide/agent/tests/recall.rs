//! A start without a record, where the twin remembers more.

use super::*;
use crate::decide::memory::Memory;

/// The twin's reported properties after `events` in
/// boot-1, the last report acknowledged.
fn told(events: impl IntoIterator<Item = Event>) -> Memory {
    let (mut agent, mut effects) = resume(None, "boot-1", 0);
    for event in events {
        effects.extend(agent.handle(event, at(100)));
    }
    let report = effects.iter().rev().find_map(|effect| match effect {
        Effect::Report(report) => Some(json!(report)),
        _ => None,
    });
    Memory::read(report.unwrap().as_object().unwrap())
}

/// A daemon without a record, before it has read its twin.
fn lost(boot_id: &str) -> Clocked {
    let (agent, effects) = Agent::resume(None, None, start(boot_id, 120), SETTINGS, at(130));
    assert_eq!(log(&effects), ["save nothing"]);
    Clocked { agent, now: 130 }
}

fn read(memory: Memory, wish: Value) -> Event {
    Event::Desired { reboot: (!wish.is_null()).then(|| wish.into()), memory: Some(Box::new(memory)) }
}

fn reboot(agent: &Clocked) -> Reboot {
    agent.core.record.reboot.clone().unwrap()
}

#[test]
fn until_the_twin_is_read_nothing_is_reported_and_no_request_is_taken() {
    let mut agent = lost("boot-2");
    assert!(!agent.remembers());
    let refused = ["note refused internal".to_owned(), "reply 1 500 internal".to_owned()];
    assert_eq!(play(&mut agent, [call("1", ASKED)]), refused);
    assert_eq!(play(&mut agent, [method("1", "cancelReboot", "")]), refused);
    assert_eq!(play(&mut agent, [method("2", "getRebootStatus", "")]), ["survey 2"]);
    let set = Event::ClockSet { clock: Clock::Synchronized, boot_time: at(9000) };
    assert!(!play(&mut agent, [set]).iter().any(|line| line.starts_with("report")));
    play(&mut agent, [read(Memory::default(), Value::Null)]);
    assert!(agent.remembers());
    assert_eq!(play(&mut agent, [call("3", ASKED)]), ["check"]);
}

#[test]
fn that_it_is_lost_is_remembered_over_a_restart_before_the_twin_was_read() {
    let (_, effects) = Agent::resume(None, None, start("boot-2", 120), SETTINGS, at(130));
    let (agent, effects) = resumed(Some(last_saved(&effects)), None, start("boot-2", 120), SETTINGS, at(140));
    assert_eq!(log(&effects), [""; 0]);
    assert!(!agent.remembers());
}

#[test]
fn a_reboot_that_began_in_another_boot_is_completed_and_its_id_known() {
    let mut agent = lost("boot-2");
    let log = play(&mut agent, [read(told(straight()), Value::Null)]);
    assert_eq!(
        log,
        ["note recalled a", "note ended completed", "save a completed started", "report a completed started"]
    );
    let ended = reboot(&agent);
    assert_eq!((ended.previous_boot_id.as_str(), ended.boot_id.as_deref()), ("boot-1", Some("boot-2")));
    assert_eq!((ended.reason.as_deref(), ended.down_seconds), (Some("kernel update"), Some(20.0)));
    let record = &agent.core.record;
    assert_eq!((record.boot.cause, record.reboot_time), (BootCause::Requested, Some(at(120))));
    assert_eq!(record.starts, [at(100)]);
    assert_eq!(play(&mut agent, [call("9", ASKED)]), ["reply 9 200 accepted"]);
    assert_eq!(play(&mut agent, [call("9", r#"{"id":"b"}"#)]), ["check"]);
}

#[test]
fn a_reboot_that_began_in_this_boot_is_not_asked_for_again() {
    let mut agent = lost("boot-1");
    let log = play(&mut agent, [read(told(straight()), Value::Null)]);
    assert_eq!(
        log[1..],
        ["deadline Some(300)", "save a rebooting started agreed", "report a rebooting started"]
    );
    let log = play(&mut agent, [Event::DeadlinePassed, stays_up()]);
    assert_eq!(log.last().unwrap(), "report a failed started neverWentDown");
}

#[test]
fn an_outcome_that_the_twin_tells_stays() {
    let failed = straight().into_iter().take(7).chain([Event::DeadlinePassed, stays_up()]);
    for boot_id in ["boot-1", "boot-2"] {
        let mut agent = lost(boot_id);
        let log = play(&mut agent, [read(told(failed.clone()), Value::Null)]);
        assert_eq!(log.last().unwrap(), "report a failed started neverWentDown");
        assert_eq!(play(&mut agent, [call("9", ASKED)]), ["reply 9 200 accepted"]);
    }
}

#[test]
fn a_call_for_later_whose_record_is_lost_has_failed() {
    let later = scheduled().into_iter().map(|(_, event)| event);
    let mut agent = lost("boot-2");
    let log = play(&mut agent, [read(told(later), Value::Null)]);
    assert_eq!(log.last().unwrap(), "report a failed recordLost");
    assert_eq!(agent.status(), "no reboot pending");
}

/// One that may have rebooted the machine for the longer time: of a wish that is not the
/// newest request, the twin does not tell what became of it.
#[test]
fn an_id_that_only_the_twin_knows_is_kept_as_long_as_any() {
    const DAY: u64 = 86_400;
    let later = scheduled().into_iter().map(|(_, event)| event);
    let cancelled = later.chain([method("2", "cancelReboot", ""), Event::Saved(Ok(()))]);
    let memory = Memory { last_wish: Some("w".to_owned()), ..told(cancelled) };
    assert_eq!(memory.reboot_id.as_deref(), Some("a"));
    let mut agent = lost("boot-2");
    play(&mut agent, [read(memory, Value::Null)]);
    let mut known = |days: u64| {
        agent.agent.count(Duration::from_secs(days * DAY - 1));
        ["a", "w"].map(|id| agent.agent.core.granted(id).is_some())
    };
    assert_eq!(known(8), [true, true]);
    assert_eq!(known(9), [false, true]);
    assert_eq!(known(30), [false, true]);
    assert_eq!(known(31), [false, false]);
}

#[test]
fn a_shutdown_is_somebody_elses_only_where_no_request_can_have_caused_it() {
    let none = || Memory::read(json!({"boot": told([]).boot}).as_object().unwrap());
    let later = || told(scheduled().into_iter().map(|(_, event)| event));
    for (memory, cause) in [(none(), BootCause::Local), (later(), BootCause::Unknown)] {
        let noted = Start { shut_down: Some("boot-1".to_owned()), ..start("boot-2", 120) };
        let (agent, _) = Agent::resume(None, None, noted, SETTINGS, at(130));
        let mut agent = Clocked { agent, now: 130 };
        play(&mut agent, [read(memory, Value::Null)]);
        assert_eq!(agent.core.record.boot.cause, cause);
    }
}

#[test]
fn a_wish_for_later_is_taken_up_anew_or_has_been_cancelled() {
    let wish = json!({"id": "w", "notBefore": "1970-01-01T00:16:40Z"});
    let desired = || Event::Desired { reboot: Some(wish.clone().into()), memory: None };
    let memory = told([desired(), Event::Permission(Outlook::of(Ok(()))), Event::Saved(Ok(()))]);
    let mut agent = lost("boot-2");
    let log = play(&mut agent, [read(memory.clone(), wish.clone())]);
    // Not reported in between: the twin would forget it.
    assert_eq!(log, ["note recalled w", "save nothing", "check"]);
    let log = play(&mut agent, [Event::Permission(Outlook::of(Ok(()))), Event::Saved(Ok(()))]);
    assert_eq!(log.last().unwrap(), "report w scheduled");

    let mut agent = lost("boot-2");
    let log = play(&mut agent, [read(memory, Value::Null)]);
    assert_eq!(log.last().unwrap(), "report w cancelled");
}

#[test]
fn a_wish_that_stands_as_done_is_not_done_again_however_often() {
    let wish = json!({"id": "w"});
    let desired = || Event::Desired { reboot: Some(wish.clone().into()), memory: None };
    let road = [
        desired(),
        Event::Permission(Outlook::of(Ok(()))),
        Event::Saved(Ok(())),
        Event::Reported,
        Event::Saved(Ok(())),
        Event::RebootAsked(Ok(())),
    ];
    let mut memory = told(road);
    for boot in 2..6 {
        let mut agent = lost(&format!("boot-{boot}"));
        let effects = agent.handle(read(memory, wish.clone()), at(131));
        assert!(!log(&effects).contains(&"check".to_owned()), "{:?}", log(&effects));
        assert_eq!((reboot(&agent).status, reboot(&agent).id.as_str()), (RebootStatus::Completed, "w"));
        let report = effects.iter().rev().find_map(|effect| match effect {
            Effect::Report(report) => Some(json!(report)),
            _ => None,
        });
        memory = Memory::read(report.unwrap().as_object().unwrap());
    }
    // Nor when a method's reboot came after it.
    memory.reboot_id = Some("m".to_owned());
    memory.reboot = memory.reboot.map(|reboot| Reboot { id: "m".to_owned(), ..reboot });
    let mut agent = lost("boot-9");
    let log = play(&mut agent, [read(memory, wish)]);
    assert!(!log.contains(&"check".to_owned()), "{log:?}");
}

#[test]
fn a_wish_waits_for_the_hub_to_take_the_report_and_a_call_does_not() {
    let desired = || Event::Desired { reboot: Some(json!({"id": "w"}).into()), memory: None };
    let mut agent = idle();
    play(&mut agent, [desired(), Event::Permission(Outlook::of(Ok(()))), Event::Saved(Ok(()))]);
    for _ in 0..3 {
        assert_eq!(play(&mut agent, [Event::DeadlinePassed]), ["deadline None"]);
    }
    assert_eq!(agent.core.record.last_wish.as_deref(), Some("w"));
    assert_eq!(play(&mut agent, [Event::Reported, Event::Saved(Ok(()))]).last().unwrap(), "reboot");

    // Past its deadline it is not done any more, and not counted as begun.
    let mut agent = idle();
    let bounded = json!({"id": "w", "deadline": "1970-01-01T00:10:00Z"});
    let desired = Event::Desired { reboot: Some(bounded.into()), memory: None };
    play(&mut agent, [desired, Event::Permission(Outlook::of(Ok(()))), Event::Saved(Ok(()))]);
    let log = play_at(&mut agent, [(600, Event::DeadlinePassed)]);
    assert_eq!(log.last().unwrap(), "report w failed expired");
    assert_eq!(agent.core.record.starts, []);
}
