//! The device's own limits, as they meet requests.

use super::*;

fn guarded(guards: Guards) -> Clocked {
    resumed(None, None, start("boot-1", 0), Settings { guards, ..SETTINGS }, at(10)).0
}

fn windows(texts: &[&str]) -> Guards {
    Guards { windows: texts.iter().map(|text| text.parse().unwrap()).collect(), ..GUARDS }
}

/// The record after a reboot for `id` was begun in this boot and failed, so
/// that the next may follow at once.
fn reboots(agent: &mut Clocked, id: &str, seconds: i64) -> Vec<Effect> {
    let events = [
        call("1", &format!(r#"{{"id":"{id}"}}"#)),
        Event::Permission(Outlook::of(Ok(()))),
        Event::Saved(Ok(())),
        delivered("1"),
        Event::Reported,
        Event::Saved(Ok(())),
        Event::RebootAsked(Err("busy".into())),
        Event::Permission(Outlook::of(Ok(()))),
        Event::Reported,
    ];
    events.into_iter().flat_map(|event| agent.handle(event, at(seconds))).collect()
}

fn ask(agent: &mut Clocked, payload: &str, seconds: i64) -> Vec<Effect> {
    agent.handle(call("9", payload), at(seconds));
    agent.handle(Event::Permission(Outlook::of(Ok(()))), at(seconds))
}

#[test]
fn too_many_in_an_hour_are_told_when_to_come_again_also_after_a_boot() {
    let mut agent = guarded(Guards { max_per_hour: 2, ..GUARDS });
    reboots(&mut agent, "a", 100);
    let effects = reboots(&mut agent, "b", 200);
    let refused = ask(&mut agent, "", 300);
    assert_eq!(log(&refused), ["note refused rateLimited", "reply 9 429 rateLimited"]);
    assert_eq!(bodies(&refused)[0]["error"]["retryAfterSeconds"], 3400);
    // A dry run says the same.
    agent.handle(call("8", r#"{"check":true}"#), at(300));
    let checked = agent.handle(surveyed("8", Ok(())), at(300));
    assert_eq!(log(&checked).last().unwrap(), "reply 8 429 rateLimited");
    assert_eq!(log(&ask(&mut agent, "", 3700)), ["save fresh-9 rebooting"]);

    let settings = Settings { guards: Guards { max_per_hour: 2, ..GUARDS }, ..SETTINGS };
    let (mut agent, _) = resumed(Some(last_saved(&effects)), None, start("boot-2", 250), settings, at(260));
    assert_eq!(log(&ask(&mut agent, "", 300)).last().unwrap(), "reply 9 429 rateLimited");
}

#[test]
fn a_machine_that_has_just_booted_is_left_up() {
    let mut agent = guarded(Guards { min_uptime: Duration::from_secs(600), ..GUARDS });
    let refused = ask(&mut agent, "", 100);
    assert_eq!(bodies(&refused)[0]["error"]["retryAfterSeconds"], 500);
    let message = bodies(&refused)[0]["error"]["message"].to_string();
    assert!(message.contains("from 1970-01-01T00:10:00.000Z on"), "{message}");
    assert_eq!(log(&ask(&mut agent, "", 600)), ["save fresh-9 rebooting"]);
}

#[test]
fn outside_a_window_it_is_scheduled_for_the_next() {
    // The epoch was a Thursday.
    let mut agent = guarded(windows(&["Fri 02:00-04:00"]));
    assert_eq!(log(&ask(&mut agent, r#"{"id":"a"}"#, 100)), ["save a scheduled"]);
    let body = &bodies(&agent.handle(Event::Saved(Ok(())), at(100)))[0];
    assert_eq!(body["status"], "scheduled");
    assert_eq!(body["notBefore"], "1970-01-02T02:00:00.000Z");
    assert_eq!(body["message"], "the device reboots at 1970-01-02T02:00:00.000Z, when its next window opens");
    let due = 26 * 3600;
    let log = play_at(
        &mut agent,
        [(101, delivered("9")), (due, Event::DeadlinePassed), (due, Event::Permission(Outlook::of(Ok(()))))],
    );
    assert_eq!(log[0], format!("deadline Some({})", due - 101));
    assert!(log.contains(&"save a rebooting started".to_owned()), "{log:?}");

    // One asked for later, but outside, is moved to the window after that.
    let mut agent = guarded(windows(&["Fri 02:00-04:00", "Sat 00:00-01:00"]));
    ask(&mut agent, r#"{"id":"a","at":"1970-01-02T04:00:00Z"}"#, 100);
    let body = &bodies(&agent.handle(Event::Saved(Ok(())), at(100)))[0];
    assert_eq!(body["notBefore"], "1970-01-03T00:00:00.000Z");
    // And one within is not.
    let mut agent = guarded(windows(&["00:00-04:00"]));
    assert_eq!(log_of(&ask(&mut agent, r#"{"id":"a"}"#, 100)), ["save a rebooting"]);
}

fn log_of(effects: &[Effect]) -> Vec<String> {
    super::log(effects)
}

/// A delay of nothing is for now.
#[test]
fn no_delay_leads_around_the_limits() {
    let mut agent = guarded(Guards { max_per_hour: 1, ..GUARDS });
    reboots(&mut agent, "a", 100);
    for now in [r#"{"delaySeconds":0}"#, r#"{"at":"1970-01-01T00:05:00Z"}"#] {
        let refused = ask(&mut agent, now, 300);
        assert_eq!(log(&refused), ["note refused rateLimited", "reply 9 429 rateLimited"], "{now}");
        assert_eq!(bodies(&refused)[0]["error"]["retryAfterSeconds"], 3400);
    }
}

/// Nor does it hide what an operator has asked to be told at once.
#[test]
fn an_inhibitor_fails_a_due_request_also_outside_of_the_windows() {
    let mut agent = guarded(windows(&["00:00-00:10"]));
    let mut events = scheduled();
    events[0].1 = call("1", r#"{"id":"a","delaySeconds":300}"#);
    events.push((400, Event::DeadlinePassed));
    events.push((700, Event::Permission(Outlook::of(Err(blocked())))));
    assert_eq!(play_at(&mut agent, events).last().unwrap(), "report a failed blockedByInhibitor");
}

/// Which of many machines it is may be known only after the start, from the hub.
#[test]
fn its_turn_in_a_window_is_that_of_its_number() {
    let turn = Turn { spread: Duration::from_secs(1800), ..TURN };
    let mut agent = guarded(Guards { turn, ..windows(&["Fri 02:00-04:00"]) });
    agent.agent.is_number((1800 * 5 + 17 * 60) * 1000);
    ask(&mut agent, r#"{"id":"a"}"#, 100);
    let body = &bodies(&agent.handle(Event::Saved(Ok(())), at(100)))[0];
    assert_eq!(body["notBefore"], "1970-01-02T02:17:00.000Z");
}

#[test]
fn a_due_request_waits_for_the_window_that_closed_meanwhile() {
    let mut agent = guarded(windows(&["00:00-00:10"]));
    let mut events = waiting();
    events.push((700, Event::InhibitorsChanged));
    events[0].1 = call("1", r#"{"id":"a","onInhibitor":"wait","waitSeconds":3600}"#);
    play_at(&mut agent, events);
    let log = play_at(&mut agent, [(700, Event::Permission(Outlook::of(Ok(()))))]);
    assert_eq!(log, ["note waiting a", "save a waiting", "deadline Some(85700)", "report a waiting"]);
    assert_eq!(agent.status(), "reboot a waits until 1970-01-02T00:00:00.000Z");
    // What it waited for the inhibitor does not count against it.
    let log = play_at(
        &mut agent,
        [(86400, Event::DeadlinePassed), (86400, Event::Permission(Outlook::of(Err(blocked()))))],
    );
    assert_eq!(
        log,
        [
            "deadline None",
            "report a waiting",
            "check",
            "note waiting a",
            "save a waiting",
            "deadline Some(3600)",
            "report a waiting"
        ]
    );
}

#[test]
fn a_scheduled_one_that_comes_too_often_waits() {
    let mut agent = guarded(Guards { max_per_hour: 1, ..GUARDS });
    reboots(&mut agent, "x", 50);
    // Asked for later, it is nobody's business now how many there were.
    let mut log = play_at(&mut agent, scheduled());
    assert_eq!(log.last().unwrap(), "report a scheduled");
    log = play_at(&mut agent, [(700, Event::DeadlinePassed), (700, Event::Permission(Outlook::of(Ok(()))))]);
    assert_eq!(log.last().unwrap(), "report a waiting");
    log =
        play_at(&mut agent, [(3650, Event::DeadlinePassed), (3650, Event::Permission(Outlook::of(Ok(()))))]);
    assert_eq!(log.last().unwrap(), "report a rebooting started");
}

#[test]
fn what_was_about_to_begin_when_the_daemon_ended_is_judged_anew_and_counted_once() {
    let guards = || Guards { max_per_hour: 1, ..windows(&["00:00-00:10"]) };
    let settings = || Settings { guards: guards(), ..SETTINGS };
    let (mut agent, _) = resumed(None, None, start("boot-1", 0), settings(), at(10));
    let mut effects = Vec::new();
    for event in
        [call("1", ASKED), Event::Permission(Outlook::of(Ok(()))), Event::Saved(Ok(())), delivered("1")]
    {
        effects.extend(agent.handle(event, at(100)));
    }
    let record = last_saved(&effects);
    assert_eq!(record.starts, [at(100)]);
    // At once: nothing stands against it.
    let (mut agent, _) = resumed(Some(record.clone()), None, start("boot-1", 0), settings(), at(110));
    let log = play_at(&mut agent, [(110, Event::Permission(Outlook::of(Ok(()))))]);
    assert_eq!(log.last().unwrap(), "report a rebooting started");
    assert_eq!(agent.core.record.starts, [at(110)]);
    // Hours later, outside of the windows.
    let (mut agent, _) = resumed(Some(record), None, start("boot-1", 0), settings(), at(9000));
    let log = play_at(&mut agent, [(9000, Event::Permission(Outlook::of(Ok(()))))]);
    assert_eq!(log.last().unwrap(), "report a waiting");
    assert_eq!(agent.status(), "reboot a waits until 1970-01-02T00:00:00.000Z");
}

#[test]
fn a_clock_that_was_set_back_does_not_lock_the_machine() {
    let mut agent = guarded(Guards { min_uptime: Duration::from_secs(600), ..GUARDS });
    // Up for 1000 s, when the clock is set back by 900 s and loses its source.
    agent.handle(Event::ClockSet { clock: Clock::Unsynchronized, boot_time: at(-900) }, at(100));
    assert_eq!(log_of(&ask(&mut agent, "", 101)), ["save fresh-9 rebooting"]);
}
