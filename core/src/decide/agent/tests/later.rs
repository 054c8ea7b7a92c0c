//! Requests for later, and those that wait for an inhibitor.

use super::*;

#[test]
fn a_later_request_waits_for_its_time_and_asks_logind_again() {
    let mut agent = idle();
    let mut events = scheduled();
    // Early, as after a clock that was set back.
    events.push((600, Event::DeadlinePassed));
    events.push((701, Event::DeadlinePassed));
    events.push((701, Event::Permission(Outlook::of(Ok(())))));
    assert_eq!(
        play_at(&mut agent, events),
        [
            "check",
            "save a scheduled",
            "note accepted a",
            "reply 1 200 scheduled",
            "deadline Some(5)",
            "deadline Some(599)",
            "report a scheduled",
            "deadline Some(100)",
            "report a scheduled",
            "deadline None",
            "report a scheduled",
            "check",
            "note rebooting a",
            "save a rebooting started",
            "deadline Some(5)",
            "report a rebooting started",
        ]
    );
}

#[test]
fn the_reply_to_a_later_request_says_when() {
    let mut agent = idle();
    agent.handle(call("1", LATER), at(100));
    agent.handle(Event::Permission(Outlook::of(Err(blocked()))), at(100));
    let body = &bodies(&agent.handle(Event::Saved(Ok(())), at(100)))[0];
    assert_eq!(body["status"], "scheduled");
    assert_eq!(body["notBefore"], "1970-01-01T00:11:40.000Z");
    assert_eq!(body["message"], "the device reboots at 1970-01-01T00:11:40.000Z");
}

#[test]
fn a_later_request_that_is_then_inhibited_fails_or_refused_fails() {
    for (refusal, code) in [
        (blocked(), "blockedByInhibitor"),
        (Refusal::NotAuthorized("no".into()), "logindRefused"),
        (Refusal::LogindUnavailable("no bus".into()), "logindRefused"),
    ] {
        let mut agent = idle();
        let mut events = scheduled();
        events.push((700, Event::DeadlinePassed));
        events.push((700, Event::Permission(Outlook::of(Err(refusal)))));
        assert_eq!(play_at(&mut agent, events).last().unwrap(), &format!("report a failed {code}"));
        assert_eq!(agent.status(), "no reboot pending");
    }
}

#[test]
fn waiting_ends_with_the_release() {
    let mut agent = idle();
    let mut events = waiting();
    events.push((110, Event::InhibitorsChanged));
    events.push((110, Event::Permission(Outlook::of(Err(blocked())))));
    events.push((120, Event::InhibitorsChanged));
    events.push((120, Event::Permission(Outlook::of(Ok(())))));
    assert_eq!(
        play_at(&mut agent, events),
        [
            "check",
            "save a waiting",
            "note accepted a",
            "reply 1 200 accepted",
            "deadline Some(5)",
            "deadline Some(59)",
            "report a waiting",
            "check",
            "check",
            "check",
            "note rebooting a",
            "save a rebooting started",
            "deadline Some(5)",
            "report a rebooting started",
        ]
    );
}

#[test]
fn a_release_while_logind_is_asked_is_not_missed() {
    let mut agent = idle();
    let mut events = waiting();
    events.push((110, Event::InhibitorsChanged));
    events.push((110, Event::InhibitorsChanged));
    events.push((110, Event::Permission(Outlook::of(Err(blocked())))));
    let log = play_at(&mut agent, events);
    assert_eq!(log.iter().filter(|line| *line == "check").count(), 4);
    assert_eq!(play_at(&mut agent, [(111, Event::Permission(Outlook::of(Ok(()))))])[0], "note rebooting a");
}

#[test]
fn an_inhibitor_that_is_taken_at_the_last_moment_is_one_all_the_same() {
    let refused =
        [Event::RebootAsked(Err("inhibited".into())), Event::Permission(Outlook::of(Err(blocked())))];
    let before = |on_inhibitor: &str| {
        let mut events = straight();
        events[0] = call("1", &format!(r#"{{"id":"a","onInhibitor":"{on_inhibitor}","waitSeconds":60}}"#));
        events.into_iter().take(6).chain(refused.clone())
    };
    let mut agent = idle();
    let log = play(&mut agent, before("fail"));
    assert_eq!(log.last().unwrap(), "report a failed started blockedByInhibitor");

    let mut agent = idle();
    let log = play(&mut agent, before("wait"));
    assert!(log.ends_with(&[
        "note waiting a".into(),
        "save a waiting".into(),
        "deadline Some(60)".into(),
        "report a waiting".into()
    ]));
    let going_on = [
        Event::InhibitorsChanged,
        Event::Permission(Outlook::of(Ok(()))),
        Event::Reported,
        Event::Saved(Ok(())),
    ];
    assert_eq!(play(&mut agent, going_on).last().unwrap(), "reboot");
    // For how long it waits does not begin anew each time.
    let log = play_at(
        &mut agent,
        [
            (140, Event::RebootAsked(Err("inhibited".into()))),
            (140, Event::Permission(Outlook::of(Err(blocked())))),
        ],
    );
    assert!(
        log.ends_with(&["save a waiting".into(), "deadline Some(28)".into(), "report a waiting".into()]),
        "{log:?}"
    );
    assert_eq!(agent.core.record.starts, []);
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
    let cancelled = agent.core.record.reboot.as_ref().unwrap();
    assert_eq!((cancelled.status, cancelled.started_at), (RebootStatus::Cancelled, None));
    assert_eq!(agent.core.record.starts, []);

    // Taken and released again while logind was asked.
    let mut agent = idle();
    let log =
        play(&mut agent, before().chain([Event::InhibitorsChanged, Event::Permission(Outlook::of(Ok(())))]));
    assert_eq!(log.last().unwrap(), "report a rebooting started");
    assert_eq!(agent.core.record.starts.len(), 1);

    // logind says that it would, and does not: nothing was in the way, or nothing that this
    // request waits for.
    let refused = "report a failed started logindRefused";
    let mut agent = idle();
    let log = play(&mut agent, before().chain([Event::Permission(Outlook::of(Ok(())))]));
    assert_eq!(log.last().unwrap(), refused);
    let mut agent = idle();
    let asked = straight().into_iter().take(6).chain([Event::RebootAsked(Err("inhibited".into()))]);
    let log =
        play(&mut agent, asked.chain([Event::InhibitorsChanged, Event::Permission(Outlook::of(Ok(())))]));
    assert_eq!(log.last().unwrap(), refused);

    // The daemon dies meanwhile: what begins anew is counted once.
    let (mut agent, _) = resume(Some(record_after(6)), "boot-1", 100);
    play(&mut agent, [Event::Reported, Event::Saved(Ok(()))]);
    assert_eq!(agent.core.record.starts.len(), 1);
}

#[test]
fn waiting_is_bounded_also_over_a_restart_of_the_daemon() {
    let mut agent = idle();
    play_at(&mut agent, waiting());
    let failed = play_at(&mut agent, [(160, Event::DeadlinePassed)]);
    assert_eq!(failed.last().unwrap(), "report a failed blockedByInhibitor");

    let (mut agent, mut effects) = resume(None, "boot-1", 0);
    for (seconds, event) in waiting() {
        effects.extend(agent.handle(event, at(seconds)));
    }
    let (_, effects) = resumed(Some(last_saved(&effects)), None, start("boot-1", 0), SETTINGS, at(130));
    assert_eq!(log(&effects), ["deadline Some(30)", "report a waiting", "check"]);
}

#[test]
fn a_later_request_begins_to_wait_when_it_is_due() {
    let mut agent = idle();
    let payload = r#"{"id":"a","onInhibitor":"wait","waitSeconds":60,"delaySeconds":600}"#;
    let mut events = scheduled();
    events[0].1 = call("1", payload);
    events.push((700, Event::DeadlinePassed));
    events.push((700, Event::Permission(Outlook::of(Err(blocked())))));
    let log = play_at(&mut agent, events);
    assert!(log.ends_with(&[
        "check".into(),
        "note waiting a".into(),
        "save a waiting".into(),
        "deadline Some(60)".into(),
        "report a waiting".into(),
    ]));
}

#[test]
fn an_override_is_the_devices_to_allow() {
    let payload = r#"{"id":"a","onInhibitor":"override"}"#;
    assert_eq!(play(&mut idle(), [call("1", payload)]), ["note refused forbidden", "reply 1 403 forbidden"]);

    let settings = Settings { allow_inhibitor_override: true, ..SETTINGS };
    let (mut agent, _) = resumed(None, None, start("boot-1", 0), settings, at(10));
    let log = play(
        &mut agent,
        [
            call("1", payload),
            Event::Permission(Outlook::of(Err(blocked()))),
            Event::Saved(Ok(())),
            delivered("1"),
            Event::Reported,
            Event::Saved(Ok(())),
        ],
    );
    assert_eq!(log.last().unwrap(), "reboot over inhibitors");
}

#[test]
fn a_later_request_survives_restarts_and_other_boots_until_its_time() {
    let (mut agent, mut effects) = resume(None, "boot-1", 0);
    for (seconds, event) in scheduled() {
        effects.extend(agent.handle(event, at(seconds)));
    }
    let record = last_saved(&effects);
    let same = resumed(Some(record.clone()), None, start("boot-1", 0), SETTINGS, at(300));
    assert_eq!(log(&same.1), ["deadline Some(400)", "report a scheduled"]);

    // Booted before its time: it still stands. And then it ends this boot.
    let (mut agent, effects) = resume(Some(record.clone()), "boot-2", 400);
    assert_eq!(
        log(&effects),
        ["note booted unclean", "save a scheduled", "deadline Some(290)", "report a scheduled"]
    );
    let mut last = Vec::new();
    for event in [Event::DeadlinePassed, Event::Permission(Outlook::of(Ok(())))] {
        last.extend(agent.handle(event, at(700)));
    }
    assert_eq!(last_saved(&last).reboot.unwrap().previous_boot_id, "boot-2");

    // Booted after its time, while the daemon could not see to it.
    let (_, effects) = resume(Some(record), "boot-2", 800);
    assert_eq!(log(&effects).last().unwrap(), "report a failed uncleanBoot");
}
