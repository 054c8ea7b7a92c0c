//! Reboots that the twin wishes for.

use super::*;

/// The twin's desired part, as it stands from now on.
fn desired(wish: Value) -> Event {
    Event::Desired { reboot: (!wish.is_null()).then(|| wish.into()), memory: None }
}

fn wish() -> Value {
    json!({"id": "w", "reason": "kernel update", "operator": "alice@ops"})
}

fn later() -> Value {
    json!({"id": "w", "notBefore": "1970-01-01T00:16:40Z"})
}

/// A daemon with the wish for a later reboot recorded.
fn wished_for_later() -> Clocked {
    let mut agent = idle();
    let log = play_at(
        &mut agent,
        [(100, desired(later())), (100, Event::Permission(Outlook::of(Ok(())))), (100, Event::Saved(Ok(())))],
    );
    assert_eq!(
        log,
        ["check", "save w scheduled", "note accepted w", "deadline Some(900)", "report w scheduled"]
    );
    agent
}

#[test]
fn a_wish_takes_the_same_road_without_a_reply() {
    let (mut agent, mut effects) = resume(None, "boot-1", 0);
    let events = [
        desired(wish()),
        Event::Permission(Outlook::of(Ok(()))),
        Event::Saved(Ok(())),
        Event::Reported,
        Event::Saved(Ok(())),
        Event::RebootAsked(Ok(())),
        Event::ShutdownBegan,
    ];
    let mut road = Vec::new();
    for event in events {
        road.extend(agent.handle(event, at(100)));
    }
    assert_eq!(
        log(&road),
        [
            "check",
            "save w rebooting",
            "note accepted w",
            "note rebooting w",
            "save w rebooting started",
            "deadline None",
            "report w rebooting started",
            "deadline Some(300)",
            "save w rebooting started asking",
            "deadline Some(300)",
            "reboot",
            "save w rebooting started agreed",
            "note shutdown",
            "save w rebooting started agreed going-down",
            "deadline Some(10)",
        ]
    );
    effects.extend(road);
    let (mut agent, effects) = resume(Some(last_saved(&effects)), "boot-2", 120);
    let reboot = last_saved(&effects).reboot.unwrap();
    assert_eq!((reboot.status, reboot.requested_by), (RebootStatus::Completed, report::RequestedBy::Twin));
    assert_eq!(
        (reboot.reason.as_deref(), reboot.operator.as_deref()),
        (Some("kernel update"), Some("alice@ops"))
    );

    // It still stands there, and is not carried out again; nor when it comes
    // back, or somebody calls with its id.
    assert!(play(&mut agent, [desired(wish())]).is_empty());
    let log = play(&mut agent, [desired(Value::Null), desired(wish()), desired(Value::Null)]);
    assert!(!log.contains(&"check".to_owned()), "{log:?}");
    assert_eq!(play(&mut agent, [call("1", r#"{"id":"w"}"#)]), ["reply 1 200 accepted"]);
    // But the next one is.
    assert_eq!(play(&mut agent, [desired(json!({"id": "x"}))]), ["check"]);
}

#[test]
fn what_is_removed_or_changed_before_it_began_is_cancelled() {
    let cancelled = ["save w cancelled", "note ended cancelled", "deadline None", "report w cancelled"];
    let mut agent = wished_for_later();
    assert_eq!(play(&mut agent, [desired(Value::Null), Event::Saved(Ok(()))]), cancelled);
    assert_eq!(agent.status(), "no reboot pending");

    // Another one instead.
    let mut agent = wished_for_later();
    let log = play(&mut agent, [desired(json!({"id": "x"})), Event::Saved(Ok(()))]);
    assert_eq!(log[..4], cancelled);
    assert_eq!(log[4], "check");

    // The same one, but later: it is scheduled anew.
    let mut agent = wished_for_later();
    let even_later = json!({"id": "w", "notBefore": "1970-01-01T00:33:20Z"});
    let log = play(
        &mut agent,
        [
            desired(even_later.clone()),
            Event::Saved(Ok(())),
            Event::Permission(Outlook::of(Ok(()))),
            Event::Saved(Ok(())),
            desired(even_later),
        ],
    );
    assert_eq!(log.last().unwrap(), "report w scheduled", "{log:?}");
    assert_eq!(agent.status(), "reboot w scheduled for 1970-01-01T00:33:20.000Z");

    // Too late: it has begun.
    let mut agent = idle();
    let begun = [
        desired(wish()),
        Event::Permission(Outlook::of(Ok(()))),
        Event::Saved(Ok(())),
        Event::Reported,
        Event::Saved(Ok(())),
    ];
    play(&mut agent, begun);
    assert!(play(&mut agent, [desired(Value::Null)]).is_empty());
    assert_eq!(agent.status(), "reboot w asked of logind");

    // Not even recorded: as if it had never been.
    let mut agent = idle();
    let log =
        play(&mut agent, [desired(wish()), desired(Value::Null), Event::Permission(Outlook::of(Ok(())))]);
    assert_eq!(log, ["check"]);
    assert_eq!(agent.status(), "no reboot pending");
}

#[test]
fn a_wish_survives_restarts_and_is_not_cancelled_by_a_twin_not_read_yet() {
    let (mut agent, mut effects) = resume(None, "boot-1", 0);
    for event in [desired(later()), Event::Permission(Outlook::of(Ok(()))), Event::Saved(Ok(()))] {
        effects.extend(agent.handle(event, at(100)));
    }
    let (mut agent, effects) = resume(Some(last_saved(&effects)), "boot-1", 0);
    assert_eq!(log(&effects), ["deadline Some(990)", "report w scheduled"]);
    assert!(play(&mut agent, [desired(later())]).is_empty());
    // Due, also when the hub is away.
    let log =
        play_at(&mut agent, [(1000, Event::DeadlinePassed), (1000, Event::Permission(Outlook::of(Ok(()))))]);
    assert_eq!(log.last().unwrap(), "report w rebooting started");
}

#[test]
fn past_its_deadline_it_has_expired() {
    let wish = json!({"id": "w", "deadline": "1970-01-01T00:01:40Z"});
    let mut agent = idle();
    let log = play_at(&mut agent, [(100, desired(wish.clone()))]);
    assert_eq!(log, ["note ended failed", "save w failed expired", "report w failed expired"]);
    // Once.
    assert!(play_at(&mut agent, [(101, desired(wish.clone()))]).is_empty());

    // Seen in time, but held up by an inhibitor beyond it.
    let mut waits = wish.clone();
    waits["onInhibitor"] = json!("wait");
    let mut agent = idle();
    let log = play_at(
        &mut agent,
        [
            (40, desired(waits)),
            (40, Event::Permission(Outlook::of(Err(blocked())))),
            (40, Event::Saved(Ok(()))),
            (40, Event::Permission(Outlook::of(Err(blocked())))),
            (100, Event::DeadlinePassed),
        ],
    );
    assert_eq!(log[3], "deadline Some(60)", "{log:?}");
    assert_eq!(log.last().unwrap(), "report w failed expired");

    // Or by a window that opens only after it.
    let windows = vec!["12:00-13:00".parse().unwrap()];
    let settings = Settings { guards: Guards { windows, ..GUARDS }, ..SETTINGS };
    let (mut agent, _) = resumed(None, None, start("boot-1", 0), settings, at(10));
    let log = play_at(
        &mut agent,
        [
            (40, desired(wish)),
            (40, Event::Permission(Outlook::of(Ok(())))),
            (40, Event::Saved(Ok(()))),
            (100, Event::DeadlinePassed),
        ],
    );
    assert_eq!(log[3], "deadline Some(60)", "{log:?}");
    assert_eq!(log.last().unwrap(), "report w failed expired");
}

/// logind may have been asked: that it was not carried out could turn out to be wrong.
#[test]
fn one_that_has_begun_does_not_expire_while_the_daemon_was_away() {
    let mut agent = idle();
    let deadline = json!({"id": "w", "deadline": "1970-01-01T00:05:00Z"});
    let events =
        [desired(deadline), Event::Permission(Outlook::of(Ok(()))), Event::Saved(Ok(())), Event::Reported];
    let effects: Vec<Effect> = events.into_iter().flat_map(|event| agent.handle(event, at(100))).collect();
    let record = last_saved(&effects);
    assert_eq!(record.asked, Some(Asked::Asking));
    let (_, effects) = resumed(Some(record), None, start("boot-1", 0), SETTINGS, at(400));
    assert_eq!(log(&effects).last().unwrap(), "report w rebooting started");
}

#[test]
fn a_wish_that_cannot_be_granted_is_reported_once() {
    for (wish, code) in [
        (json!({"id": "w", "notBefore": "tomorrow"}), "invalidPayload"),
        (json!({"id": "w", "reason": 5}), "invalidPayload"),
        (json!({"id": "w", "notBefore": "9999-12-01T00:00:00Z"}), "invalidPayload"),
        (json!({"id": "w", "deadline": "1971-01-02T00:00:00Z"}), "invalidPayload"),
        (json!({"id": "w", "onInhibitor": "override"}), "forbidden"),
    ] {
        let mut agent = idle();
        let failed = format!("w failed {code}");
        let expected = ["note ended failed".to_owned(), format!("save {failed}"), format!("report {failed}")];
        assert_eq!(play(&mut agent, [desired(wish.clone())]), expected, "{wish}");
        assert!(play(&mut agent, [desired(wish)]).is_empty());
    }
    for (refusal, code) in
        [(blocked(), "blockedByInhibitor"), (Refusal::NotAuthorized("no".into()), "logindRefused")]
    {
        let mut agent = idle();
        let log = play(
            &mut agent,
            [desired(wish()), Event::Permission(Outlook::of(Err(refusal))), desired(wish())],
        );
        assert_eq!(log.last().unwrap(), &format!("report w failed {code}"));
    }
}

#[test]
fn a_wish_without_a_readable_id_is_told_until_it_is_gone() {
    for (wish, named) in [
        (json!("now"), "reboot: must be an object, not \"now\""),
        (json!({"reason": "r"}), "id: must be given"),
        (json!({"id": 5}), "id: must be a string, not 5"),
    ] {
        let mut agent = idle();
        let error = |effects: &[Effect]| match effects.last() {
            Some(Effect::Report(report)) => report.agent.clone().unwrap().wish_error,
            other => panic!("{other:?}"),
        };
        assert_eq!(error(&agent.handle(desired(wish.clone()), at(1))).as_deref(), Some(named));
        assert!(agent.handle(desired(wish), at(2)).is_empty());
        assert_eq!(error(&agent.handle(desired(Value::Null), at(3))), None);
    }
}

#[test]
fn a_wish_and_a_call_at_the_same_time() {
    // Another id is pending: the wish's turn comes when that is over.
    let mut agent = idle();
    play_at(&mut agent, scheduled());
    assert!(play(&mut agent, [desired(wish())]).is_empty());
    let cancel = [method("2", "cancelReboot", ""), Event::Saved(Ok(()))];
    assert_eq!(play(&mut agent, cancel).last().unwrap(), "check");

    // The wish is being checked: a call with another id comes too late, one
    // with the same id is about the same reboot.
    let mut agent = idle();
    play(&mut agent, [desired(wish())]);
    assert_eq!(play(&mut agent, [call("1", ASKED)]).last().unwrap(), "reply 1 409 rebootPending");
    let same = [
        call("2", r#"{"id":"w"}"#),
        Event::Permission(Outlook::of(Ok(()))),
        Event::Saved(Ok(())),
        delivered("2"),
    ];
    let log = play(&mut agent, same);
    assert_eq!(log[0..3], ["save w rebooting", "note accepted w", "reply 2 200 accepted"]);
    assert_eq!(log.last().unwrap(), "report w rebooting started");

    // It was taken back meanwhile, but a caller asked for the same.
    let mut agent = idle();
    let events = [
        desired(wish()),
        call("3", r#"{"id":"w"}"#),
        desired(Value::Null),
        Event::Permission(Outlook::of(Ok(()))),
    ];
    assert_eq!(play(&mut agent, events), ["check", "save w rebooting"]);
}

#[test]
fn a_wish_cancelled_by_a_call_stays_cancelled() {
    let mut agent = wished_for_later();
    let cancel = [method("2", "cancelReboot", ""), Event::Saved(Ok(()))];
    assert!(play(&mut agent, cancel).contains(&"reply 2 200 cancelled".to_owned()));
    assert!(play(&mut agent, [desired(later())]).is_empty());
}

#[test]
fn a_wish_that_cannot_be_recorded_is_tried_with_the_next_twin_or_some_time_later() {
    let mut agent = idle();
    let events =
        [desired(wish()), Event::Permission(Outlook::of(Ok(()))), Event::Saved(Err("disk full".into()))];
    assert_eq!(play(&mut agent, events.clone()), ["check", "save w rebooting", "save nothing"]);
    assert!(play(&mut agent, [Event::Saved(Err("disk full".into())), Event::Saved(Ok(()))]).is_empty());
    for again in [desired(wish()), Event::StorageMayWork] {
        let mut agent = idle();
        play(&mut agent, events.clone());
        assert_eq!(play(&mut agent, [again]), ["check"]);
    }
    // Nor is its removal forgotten.
    let mut agent = wished_for_later();
    play(&mut agent, [desired(Value::Null), Event::Saved(Err("disk full".into()))]);
    assert_eq!(play(&mut agent, [Event::StorageMayWork]), ["save w cancelled"]);
}

#[test]
fn what_limits_calls_puts_wishes_off() {
    let guards = Guards { min_uptime: Duration::from_secs(600), ..GUARDS };
    let (mut agent, _) = resumed(None, None, start("boot-1", 0), Settings { guards, ..SETTINGS }, at(10));
    let events =
        [(100, desired(wish())), (100, Event::Permission(Outlook::of(Ok(())))), (100, Event::Saved(Ok(())))];
    let log = play_at(&mut agent, events);
    assert_eq!(log[1..], ["save w scheduled", "note accepted w", "deadline Some(500)", "report w scheduled"]);
}

#[test]
fn a_wish_that_expires_leaves_the_daemon_ready_for_the_next() {
    let wish = json!({"id": "w", "notBefore": "1970-01-02T00:00:00Z", "deadline": "1970-01-03T00:00:00Z"});
    const PAST: i64 = 3 * 86400;
    // The clock was days behind, and is set; or the time simply passes.
    for end in [Event::ClockSet { clock: Clock::Synchronized, boot_time: at(PAST) }, Event::DeadlinePassed] {
        let mut agent = idle();
        play(
            &mut agent,
            [desired(wish.clone()), Event::Permission(Outlook::of(Ok(()))), Event::Saved(Ok(()))],
        );
        assert_eq!(agent.status(), "reboot w scheduled for 1970-01-02T00:00:00.000Z");
        let log = play_at(&mut agent, [(PAST + 200, end.clone())]);
        assert_eq!(log.last().unwrap(), "report w failed expired", "{end:?}");
        assert_eq!(agent.status(), "no reboot pending");
        assert_eq!(play(&mut agent, [desired(json!({"id": "v"}))]), ["check"], "{end:?}");
    }
}

#[test]
fn a_wish_that_changes_while_logind_is_asked_is_taken_as_it_is_then() {
    let mut agent = idle();
    let changed = json!({"id": "w", "notBefore": "1970-01-01T00:16:40Z"});
    let log = play(&mut agent, [desired(wish()), desired(changed), Event::Permission(Outlook::of(Ok(())))]);
    assert_eq!(log, ["check", "check"]);
    let log = play(&mut agent, [Event::Permission(Outlook::of(Ok(()))), Event::Saved(Ok(()))]);
    assert_eq!(log[0], "save w scheduled");

    let mut agent = idle();
    let log =
        play(&mut agent, [desired(wish()), desired(Value::Null), Event::Permission(Outlook::of(Ok(())))]);
    assert_eq!(log, ["check"]);
    assert_eq!(agent.status(), "no reboot pending");
}
