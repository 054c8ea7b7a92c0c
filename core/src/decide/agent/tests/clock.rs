//! Times, when the clock turns out to be wrong.

use super::*;
use crate::decide::windows::Window;

fn set(clock: Clock, booted: i64) -> Event {
    Event::ClockSet { clock, boot_time: at(booted) }
}

fn unsynchronized(boot_id: &str, booted: i64) -> Start {
    Start { clock: Clock::Unsynchronized, ..start(boot_id, booted) }
}

fn reported(effects: &[Effect]) -> Report {
    let report = effects.iter().rev().find_map(|effect| match effect {
        Effect::Report(report) => Some((**report).clone()),
        _ => None,
    });
    report.expect("nothing was reported")
}

/// 2026-11-22T00:00:00Z
const TRUE_TIME: i64 = 1_795_305_600;

#[test]
fn a_reboot_into_1970_is_completed_and_its_times_follow_the_clock() {
    // Asked for with the right time, at 100 s after TRUE_TIME.
    let (mut agent, mut effects) = resumed(None, None, start("boot-1", TRUE_TIME), SETTINGS, at(TRUE_TIME));
    for event in straight() {
        effects.extend(agent.handle(event, at(TRUE_TIME + 100)));
    }
    let record = last_saved(&effects);
    let (mut agent, effects) = resumed(Some(record), None, unsynchronized("boot-2", 0), SETTINGS, at(5));
    let report = reported(&effects);
    let reboot = report.reboot.unwrap();
    assert_eq!((reboot.status, reboot.down_seconds), (RebootStatus::Completed, None));
    assert_eq!(report.reboot_time, Some(at(0)));

    // Booted 121 s after TRUE_TIME, as it turns out.
    let effects = agent.handle(set(Clock::Synchronized, TRUE_TIME + 121), at(TRUE_TIME + 141));
    assert_eq!(
        log(&effects),
        ["note clock synchronized", "save a completed started", "report a completed started"]
    );
    let report = reported(&effects);
    let (reboot, boot) = (report.reboot.unwrap(), report.boot.unwrap());
    assert_eq!(report.reboot_time, Some(at(TRUE_TIME + 121)));
    assert_eq!((boot.boot_time, boot.clock), (at(TRUE_TIME + 121), Clock::Synchronized));
    assert_eq!(reboot.started_at, Some(at(TRUE_TIME + 100)));
    assert_eq!(reboot.completed_at, Some(at(TRUE_TIME + 126)));
    assert_eq!(reboot.down_seconds, Some(21.0));
    // Said once, and not for what nobody would notice.
    assert!(agent.handle(set(Clock::Synchronized, TRUE_TIME + 121), at(TRUE_TIME + 200)).is_empty());
    let slewed = Event::ClockSet {
        clock: Clock::Synchronized,
        boot_time: Time::from_unix_millis((TRUE_TIME + 121) * 1000 + 900),
    };
    assert!(agent.handle(slewed, at(TRUE_TIME + 200)).is_empty());
}

#[test]
fn a_down_time_between_a_wrong_clock_and_a_right_one_is_not_told() {
    let (mut agent, mut effects) = resumed(None, None, unsynchronized("boot-1", 0), SETTINGS, at(5));
    for event in straight() {
        effects.extend(agent.handle(event, at(100)));
    }
    let (_, effects) = resume(Some(last_saved(&effects)), "boot-2", TRUE_TIME);
    let reboot = reported(&effects).reboot.unwrap();
    assert_eq!((reboot.status, reboot.down_seconds), (RebootStatus::Completed, None));
}

#[test]
fn from_a_second_on_a_step_is_noticed() {
    for (millis, expected) in [(999, vec![]), (1000, vec!["note clock synchronized"])] {
        let mut agent = idle();
        let step = Event::ClockSet { clock: Clock::Synchronized, boot_time: Time::from_unix_millis(millis) };
        let log = log(&agent.handle(step, at(100)));
        assert_eq!(log.iter().take(1).collect::<Vec<_>>(), expected, "{millis}");
        assert!(!agent.core.record.clock_was_set, "by the time server, not by hand");
    }
}

#[test]
fn a_clock_that_loses_its_source_changes_nothing() {
    let mut agent = idle();
    assert!(agent.handle(set(Clock::Unsynchronized, 9000), at(9100)).is_empty());
}

#[test]
fn a_clock_that_was_set_while_the_daemon_was_down_is_noticed_at_its_start() {
    let (_, effects) = resumed(None, None, unsynchronized("boot-1", 0), SETTINGS, at(5));
    let (_, effects) = resume(Some(last_saved(&effects)), "boot-1", TRUE_TIME);
    assert_eq!(log(&effects), ["note clock synchronized", "save nothing", "report nothing"]);
    assert_eq!(reported(&effects).boot.unwrap().boot_time, at(TRUE_TIME));
}

#[test]
fn a_delay_moves_along_with_the_clock_and_an_instant_does_not() {
    for (payload, deadline) in [
        (r#"{"id":"a","delaySeconds":600}"#, Some("deadline Some(500)")),
        // 300 s ahead of the wrong clock, long past by the right one.
        (r#"{"id":"a","at":"1970-01-01T00:06:40Z"}"#, Some("deadline None")),
    ] {
        let (mut agent, _) = resumed(None, None, unsynchronized("boot-1", 0), SETTINGS, at(10));
        let mut events = scheduled();
        events[0].1 = call("1", payload);
        play_at(&mut agent, events);
        // 200 s after the boot, 100 s after the request.
        let log = log(&agent.handle(set(Clock::Synchronized, TRUE_TIME), at(TRUE_TIME + 200)));
        assert_eq!(log.get(3).map(String::as_str), deadline, "{payload}: {log:?}");
    }
}

#[test]
fn a_clock_that_is_set_back_makes_nobody_wait_longer() {
    let (mut agent, _) = resume(None, "boot-1", TRUE_TIME);
    let wait = r#"{"id":"a","onInhibitor":"wait","waitSeconds":60}"#;
    for event in [
        call("1", wait),
        Event::Permission(Outlook::of(Err(blocked()))),
        Event::Saved(Ok(())),
        delivered("1"),
        Event::Permission(Outlook::of(Err(blocked()))),
    ] {
        agent.handle(event, at(TRUE_TIME + 100));
    }
    let log = log(&agent.handle(set(Clock::Synchronized, 0), at(120)));
    assert_eq!(log, ["note clock synchronized", "save a waiting", "report a waiting", "deadline Some(40)"]);
}

/// A minute is for what nobody tells the end of; an inhibitor's release is told.
#[test]
fn a_clock_that_is_set_makes_nobody_wait_less() {
    let mut agent = idle();
    let mut events = waiting();
    events[0].1 = call("1", r#"{"id":"a","onInhibitor":"wait","waitSeconds":3600}"#);
    play_at(&mut agent, events);
    let log = log(&agent.handle(set(Clock::Synchronized, TRUE_TIME), at(TRUE_TIME + 200)));
    assert_eq!(log.last().unwrap(), "deadline Some(3500)", "{log:?}");
}

#[test]
fn a_delay_of_an_earlier_boot_does_not_move_with_the_clock_of_this_one() {
    let (mut agent, mut effects) = resume(None, "boot-1", TRUE_TIME);
    for (seconds, event) in scheduled() {
        effects.extend(agent.handle(event, at(TRUE_TIME + seconds)));
    }
    let record = last_saved(&effects);
    let (mut agent, _) = resumed(Some(record), None, unsynchronized("boot-2", 0), SETTINGS, at(5));
    let log = log(&agent.handle(set(Clock::Synchronized, TRUE_TIME + 300), at(TRUE_TIME + 320)));
    // 600 s after it was asked for, at 100 s.
    assert_eq!(log.get(3).map(String::as_str), Some("deadline Some(380)"), "{log:?}");
}

#[test]
fn a_step_that_costs_the_clock_its_source_moves_delays_all_the_same() {
    let mut agent = idle();
    play_at(&mut agent, scheduled());
    // An hour ahead; what was reported by the right clock stays.
    let log = log(&agent.handle(set(Clock::Unsynchronized, 3600), at(3800)));
    assert_eq!(log, ["save a scheduled", "report a scheduled", "deadline Some(500)", "report a scheduled"]);
}

#[test]
fn a_reboot_that_failed_under_a_wrong_clock_is_put_right_as_a_whole() {
    let (mut agent, _) = resumed(None, None, unsynchronized("boot-1", 0), SETTINGS, at(10));
    let refused = [Event::RebootAsked(Err("busy".into())), Event::Permission(Outlook::of(Ok(())))];
    for event in straight().into_iter().take(6).chain(refused) {
        agent.handle(event, at(100));
    }
    agent.handle(set(Clock::Synchronized, TRUE_TIME), at(TRUE_TIME + 200));
    let reboot = agent.agent.core.record.reboot.unwrap();
    assert_eq!(
        (reboot.started_at, reboot.completed_at),
        (Some(at(TRUE_TIME + 100)), Some(at(TRUE_TIME + 100)))
    );
}

#[test]
fn a_date_set_by_hand_makes_no_down_time() {
    let (mut agent, mut effects) = resumed(None, None, unsynchronized("boot-1", 0), SETTINGS, at(10));
    for event in straight() {
        effects.extend(agent.handle(event, at(100)));
    }
    let (mut agent, _) =
        resumed(Some(last_saved(&effects)), None, unsynchronized("boot-2", 110), SETTINGS, at(120));
    assert_eq!(agent.core.record.reboot.as_ref().unwrap().down_seconds, Some(10.0));
    agent.handle(set(Clock::Unsynchronized, TRUE_TIME), at(TRUE_TIME + 20));
    assert_eq!(agent.agent.core.record.reboot.unwrap().down_seconds, None);
}

#[test]
fn a_window_is_looked_for_anew_by_the_clock_that_is_right() {
    let guards = Guards { windows: vec!["02:00-04:00".parse().unwrap()], ..GUARDS };
    // A month and four hours ahead: it says 04:30 when it is 00:30.
    const AHEAD: i64 = TRUE_TIME + 31 * 86400 + 4 * 3600;
    for (payload, expected) in [
        (r#"{"id":"a"}"#, "2026-11-22T02:00:00.000Z"),
        (r#"{"id":"a","delaySeconds":3600}"#, "2026-11-22T02:00:00.000Z"),
        (r#"{"id":"a","delaySeconds":9000}"#, "2026-11-22T03:00:00.000Z"),
        (r#"{"id":"a","at":"2026-12-24T01:00:00Z"}"#, "2026-12-24T02:00:00.000Z"),
    ] {
        let settings = Settings { guards: guards.clone(), ..SETTINGS };
        let booted = unsynchronized("boot-1", AHEAD);
        let (mut agent, _) = resumed(None, None, booted, settings, at(AHEAD + 1800));
        for event in
            [call("1", payload), Event::Permission(Outlook::of(Ok(()))), Event::Saved(Ok(())), delivered("1")]
        {
            agent.handle(event, at(AHEAD + 1800));
        }
        let effects = agent.handle(set(Clock::Synchronized, TRUE_TIME), at(TRUE_TIME + 1800));
        let time = reported(&effects).reboot.unwrap().not_before;
        assert_eq!(json!(time), json!(expected), "{payload}");
        assert_eq!(last_saved(&effects).reboot.unwrap().not_before, time);
    }
}

#[test]
fn a_request_of_a_clock_that_was_years_ahead_does_not_wait_for_years() {
    const AHEAD: i64 = TRUE_TIME + 4 * 365 * 86400;
    let night: &[Window] = &["02:00-04:00".parse().unwrap()];
    for (windows, expected) in [(&[][..], 20 + 600), (night, 7200)] {
        let guards = Guards { windows: windows.to_vec(), ..GUARDS };
        let settings = || Settings { guards: guards.clone(), ..SETTINGS };
        let booted = unsynchronized("boot-1", AHEAD);
        let (mut agent, mut effects) = resumed(None, None, booted, settings(), at(AHEAD + 10));
        for (seconds, event) in scheduled() {
            effects.extend(agent.handle(event, at(AHEAD + seconds)));
        }
        // Then the power is cut, and the clock is about right.
        let now = at(TRUE_TIME + 20);
        let booted = unsynchronized("boot-2", TRUE_TIME);
        let (mut agent, _) = resumed(Some(last_saved(&effects)), None, booted, settings(), now);
        let effects = agent.handle(set(Clock::Synchronized, TRUE_TIME), now);
        let reboot = reported(&effects).reboot.unwrap();
        assert_eq!((reboot.requested_at, reboot.not_before), (now, Some(at(TRUE_TIME + expected))));
        // Once.
        let again = log(&agent.handle(set(Clock::Synchronized, TRUE_TIME), at(TRUE_TIME + 40)));
        assert!(!again.iter().any(|line| line.starts_with("save")), "{again:?}");
    }
}

#[test]
fn a_delay_that_was_given_by_a_clock_set_wrongly_moves_once() {
    let (mut agent, _) = resume(None, "boot-1", TRUE_TIME);
    // An hour ahead by somebody's hand, and back by the time server.
    agent.handle(set(Clock::Unsynchronized, TRUE_TIME + 3600), at(TRUE_TIME + 3650));
    for (seconds, event) in scheduled() {
        agent.handle(event, at(TRUE_TIME + 3600 + seconds));
    }
    agent.handle(set(Clock::Synchronized, TRUE_TIME), at(TRUE_TIME + 200));
    assert_eq!(agent.agent.core.record.reboot.unwrap().not_before, Some(at(TRUE_TIME + 700)));
}

#[test]
fn a_request_that_was_due_by_a_clock_that_was_ahead_is_not_any_more() {
    let wait = r#"{"id":"a","onInhibitor":"wait","waitSeconds":60,"at":"2026-11-23T00:01:00Z"}"#;
    // A day ahead: the time that was asked for seems to come within a minute.
    const AHEAD: i64 = TRUE_TIME + 86400;
    let (mut agent, _) = resumed(None, None, unsynchronized("boot-1", AHEAD), SETTINGS, at(AHEAD + 10));
    let due = [Event::DeadlinePassed, Event::Permission(Outlook::of(Err(blocked())))];
    let granted =
        [call("1", wait), Event::Permission(Outlook::of(Ok(()))), Event::Saved(Ok(())), delivered("1")];
    for event in granted {
        agent.handle(event, at(AHEAD + 20));
    }
    for event in due.clone() {
        agent.handle(event, at(AHEAD + 60));
    }
    let effects = agent.handle(set(Clock::Synchronized, TRUE_TIME), at(TRUE_TIME + 70));
    assert!(log(&effects).contains(&"deadline Some(86390)".to_owned()), "{:?}", log(&effects));
    let log = play_at(&mut agent, [(TRUE_TIME + 80, Event::InhibitorsChanged)]);
    assert_eq!(log, [""; 0]);
    // Due for the second time, it has all of its time to wait again.
    let log = play_at(&mut agent, due.map(|event| (AHEAD + 60, event)));
    assert_eq!(log[log.len() - 2], "deadline Some(60)", "{log:?}");
}

#[test]
fn a_time_that_has_just_come_is_no_early_one() {
    let timed = r#"{"id":"a","onInhibitor":"wait","waitSeconds":60,"at":"1970-01-01T00:10:00Z"}"#;
    let mut agent = idle();
    let mut events = scheduled();
    events[0].1 = call("1", timed);
    let due = [(610, Event::DeadlinePassed), (610, Event::Permission(Outlook::of(Err(blocked()))))];
    play_at(&mut agent, events.into_iter().chain(due));
    let log = play_at(&mut agent, [(600, set(Clock::Synchronized, -10))]);
    assert_eq!(log.last().unwrap(), "deadline Some(60)", "{log:?}");
    assert!(!log.contains(&"check".to_owned()), "{log:?}");
}

#[test]
fn a_clock_that_is_set_does_not_hold_up_what_is_announced() {
    let mut agent = idle();
    play(&mut agent, straight().into_iter().take(4));
    let log = play_at(&mut agent, [(200, set(Clock::Synchronized, 90)), (200, Event::Reported)]);
    assert!(!log.contains(&"save a waiting".to_owned()), "{log:?}");
    assert_eq!(log.last().unwrap(), "save a rebooting started asking");
}

/// It is compared with the next boot's clock, to the millisecond.
#[test]
fn the_start_is_told_by_the_clock_as_it_was_last_synchronised() {
    let set = |clock, millis| Event::ClockSet { clock, boot_time: Time::from_unix_millis(millis) };
    for (first, steps, expected) in [
        // The first that is synchronised is taken as it is, however little it moves.
        (Clock::Unsynchronized, vec![set(Clock::Synchronized, 300)], 100_000),
        // By hand, by just as much as is noticed, and by less.
        (Clock::Synchronized, vec![set(Clock::Unsynchronized, 1000)], 99_000),
        (Clock::Synchronized, vec![set(Clock::Unsynchronized, 999)], 100_000),
    ] {
        let booted = Start { clock: first, ..start("boot-1", 0) };
        let (mut agent, _) = resumed(None, None, booted, SETTINGS, at(10));
        for event in steps.into_iter().chain(straight().into_iter().take(4)) {
            agent.handle(event, at(100));
        }
        let started_at = agent.core.record.reboot.as_ref().unwrap().started_at;
        assert_eq!(started_at, Some(Time::from_unix_millis(expected)));
    }
}

#[test]
fn a_reboot_that_is_announced_by_a_clock_that_was_ahead_waits_for_its_time() {
    let mut agent = idle();
    let timed = r#"{"id":"a","at":"1970-01-01T00:10:00Z"}"#;
    let mut events = scheduled();
    events[0].1 = call("1", timed);
    play_at(&mut agent, events);
    let log =
        play_at(&mut agent, [(600, Event::DeadlinePassed), (600, Event::Permission(Outlook::of(Ok(()))))]);
    assert_eq!(log.last().unwrap(), "report a rebooting started");
    let log = play_at(&mut agent, [(300, set(Clock::Synchronized, -300))]);
    assert!(
        log.ends_with(&["save a waiting".into(), "deadline Some(300)".into(), "report a waiting".into()]),
        "{log:?}"
    );
    assert_eq!(agent.core.record.starts, []);
    assert!(play_at(&mut agent, [(301, Event::Reported)]).is_empty());
}

/// The outcome that is told after a reboot by `boot`, of a request that began when
/// the machine, booted at 0, had been up for 100 s, after `sets` of its clock.
fn down_after(first: Start, sets: Vec<Event>, boot: Start, now: i64) -> Option<f64> {
    let (mut agent, mut effects) = resumed(None, None, first, SETTINGS, at(10));
    let mut booted = 0;
    for set in sets {
        if let Event::ClockSet { boot_time, .. } = &set {
            booted = boot_time.unix_millis() / 1000;
        }
        effects.extend(agent.handle(set, at(booted + 90)));
    }
    for event in straight() {
        effects.extend(agent.handle(event, at(booted + 100)));
    }
    let (_, effects) = resumed(Some(last_saved(&effects)), None, boot, SETTINGS, at(now));
    let reboot = last_saved(&effects).reboot.unwrap();
    assert_eq!(reboot.status, RebootStatus::Completed);
    reboot.down_seconds
}

#[test]
fn a_clock_that_was_set_by_hand_before_the_reboot_gives_the_right_down_time_or_none() {
    const DAY: i64 = 86_400;
    const BY_HAND: Clock = Clock::Unsynchronized;
    let right = || start("boot-2", 104);
    for step in [DAY, -DAY, 20, -20] {
        let by_hand = || vec![set(BY_HAND, step)];
        // It was right before, and is again.
        assert_eq!(down_after(start("boot-1", 0), by_hand(), right(), 110), Some(4.0), "{step}");
        let back = vec![set(BY_HAND, step), set(Clock::Synchronized, 0)];
        assert_eq!(down_after(start("boot-1", 0), back, right(), 110), Some(4.0), "{step}");
        // It was never known to be right, or is not any more.
        let unknown = || unsynchronized("boot-2", 104);
        assert_eq!(down_after(unsynchronized("boot-1", 0), by_hand(), unknown(), 110), None, "{step}");
        assert_eq!(down_after(start("boot-1", 0), by_hand(), unknown(), 110), None, "{step}");
        assert_eq!(down_after(unsynchronized("boot-1", 0), by_hand(), right(), 110), None, "{step}");
    }
    // It was set by hand, and has been right since.
    let right_since = vec![set(BY_HAND, DAY), set(Clock::Synchronized, 0)];
    assert_eq!(down_after(unsynchronized("boot-1", 0), right_since, right(), 110), Some(4.0));
    // Nobody has set it.
    assert_eq!(down_after(start("boot-1", 0), Vec::new(), right(), 110), Some(4.0));
    let (first, second) = (unsynchronized("boot-1", 0), unsynchronized("boot-2", 104));
    assert_eq!(down_after(first, Vec::new(), second, 110), Some(4.0));
}

#[test]
fn a_delay_lasts_as_long_where_the_clock_was_set_while_the_daemon_was_down() {
    for step in [TRUE_TIME, -3600] {
        let booted = unsynchronized("boot-1", 7200);
        let (mut agent, mut effects) = resumed(None, None, booted, SETTINGS, at(7210));
        for (seconds, event) in scheduled() {
            effects.extend(agent.handle(event, at(7200 + seconds)));
        }
        // 600 s from 100 s after the boot; the daemon is back 200 s after it.
        let booted = Start { clock: Clock::Synchronized, ..start("boot-1", 7200 + step) };
        let now = at(7200 + step + 200);
        let (_, effects) = resumed(Some(last_saved(&effects)), None, booted, SETTINGS, now);
        let due = reported(&effects).reboot.unwrap().not_before;
        assert_eq!(due, Some(at(7200 + step + 700)), "{step}");
        assert!(log(&effects).contains(&"deadline Some(500)".to_owned()), "{:?}", log(&effects));
    }
}

#[test]
fn an_outcome_that_is_still_to_be_told_follows_the_clock_as_the_newest_does() {
    let (mut agent, mut effects) = resumed(None, None, start("boot-1", TRUE_TIME), SETTINGS, at(TRUE_TIME));
    for event in straight() {
        effects.extend(agent.handle(event, at(TRUE_TIME + 100)));
    }
    let record = last_saved(&effects);
    let (mut agent, _) = resumed(Some(record), None, unsynchronized("boot-2", 0), SETTINGS, at(5));
    // The hub has not heard that it was completed, and another is asked for, for later.
    let more = [
        call("8", r#"{"id":"c","delaySeconds":600}"#),
        Event::Permission(Outlook::of(Ok(()))),
        Event::Saved(Ok(())),
        delivered("8"),
    ];
    more.into_iter().for_each(|event| drop(agent.handle(event, at(10))));
    let effects = agent.handle(set(Clock::Synchronized, TRUE_TIME + 121), at(TRUE_TIME + 141));
    let told = reported(&effects).reboot.unwrap();
    assert_eq!((told.id.as_str(), told.started_at), ("a", Some(at(TRUE_TIME + 100))));
    assert_eq!(told.completed_at, Some(at(TRUE_TIME + 126)));
    assert_eq!(told.down_seconds, Some(21.0));
    assert_eq!(last_saved(&effects).unheard[0].reboot, told);
}

/// The clock by which the newest began says nothing of the one before.
#[test]
fn a_step_of_the_clock_makes_no_down_time_for_an_outcome_before_the_one_that_has_begun() {
    let (mut agent, mut effects) = resumed(None, None, unsynchronized("boot-1", 0), SETTINGS, at(5));
    for event in straight() {
        effects.extend(agent.handle(event, at(100)));
    }
    let (mut agent, _) = resume(Some(last_saved(&effects)), "boot-2", TRUE_TIME);
    let more = [
        call("8", r#"{"id":"c"}"#),
        Event::Permission(Outlook::of(Ok(()))),
        Event::Saved(Ok(())),
        delivered("8"),
    ];
    more.into_iter().for_each(|event| drop(agent.handle(event, at(TRUE_TIME + 20))));
    let effects = agent.handle(set(Clock::Synchronized, TRUE_TIME + 5), at(TRUE_TIME + 30));
    let record = last_saved(&effects);
    assert_eq!(record.reboot.unwrap().started_at, Some(at(TRUE_TIME + 25)), "the newest has begun");
    let before = &record.unheard[0].reboot;
    assert_eq!((before.id.as_str(), before.status), ("a", RebootStatus::Completed));
    assert_eq!(before.down_seconds, None);
}
