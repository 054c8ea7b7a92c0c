//! The road of a request that goes well, and of one whose steps take their time.

use super::*;

#[test]
fn the_status_says_how_far_a_request_is() {
    let said = |events: Vec<(i64, Event)>| {
        let mut agent = idle();
        play_at(&mut agent, events);
        agent.status()
    };
    let at_once = |length: usize| straight().into_iter().take(length).map(|event| (100, event)).collect();
    assert_eq!(said(vec![]), "no reboot pending");
    assert_eq!(said(at_once(3)), "reboot a accepted");
    assert_eq!(said(at_once(7)), "reboot a asked of logind");
    assert_eq!(said(scheduled()), "reboot a scheduled for 1970-01-01T00:11:40.000Z");
    assert_eq!(said(waiting()), "reboot a waits for an inhibitor");
    // An operator's is about to begin, whatever the hub says to its report.
    assert_eq!(said(at_once(4)), "reboot a accepted");
}

/// The device asks itself again where logind does not answer, and does not blame an
/// inhibitor for it.
#[test]
fn the_status_says_that_logind_is_waited_for() {
    for refusal in
        [Refusal::LogindUnavailable("no bus".into()), Refusal::NotAuthorized("polkit says no".into())]
    {
        let need = crate::decide::need::Need {
            reasons: vec!["dbus".to_owned()],
            running_kernel: None,
            installed_kernel: None,
        };
        let id = format!("required:{}", need.digest().unwrap());
        let guards = Guards { windows: vec!["00:00-24:00".parse().unwrap()], ..GUARDS };
        let settings = Settings { when_required: true, guards, ..SETTINGS };
        let (mut agent, _) = resumed(None, None, start("boot-1", 0), settings, at(10));
        let answer = Event::Permission(Outlook::of(Err(refusal)));
        let log = play(&mut agent, [Event::Need(Some(need)), Event::Saved(Ok(())), answer]);
        assert_eq!(agent.status(), format!("reboot {id} waits for logind"), "{log:?}");
    }
}

/// What people on the machine are told before it goes down.
#[test]
fn a_reboot_that_has_still_to_come_is_announced_with_its_time_and_reason() {
    let mut agent = idle();
    assert_eq!(agent.notice(), Some(None), "there is nothing to tell");
    let mut events = scheduled();
    events[0].1 = call("1", r#"{"id":"a","reason":"kernel update","delaySeconds":600}"#);
    play_at(&mut agent, events);
    let notice = Notice { at: at(700), id: "a".into(), reason: Some("kernel update".into()) };
    assert_eq!(agent.notice(), Some(Some(notice)));
    let log = play(&mut agent, [method("2", "cancelReboot", ""), Event::Saved(Ok(()))]);
    assert_eq!(agent.notice(), Some(None), "{log:?}");
    // What was told stays while the machine goes down.
    play(
        &mut agent,
        straight().into_iter().map(|event| match event {
            Event::Called { rid, name, fresh_id, .. } => {
                Event::Called { rid, name, payload: r#"{"id":"b"}"#.into(), fresh_id }
            }
            event => event,
        }),
    );
    assert_eq!(agent.notice(), None);
}

/// What the machine says of itself is told as soon as it is known, and not again.
#[test]
fn what_the_machine_is_is_told_once() {
    use iotdm_proto::device_information::{ComponentMark, DeviceInformation};
    let of = |model: &str| DeviceInformation {
        mark: ComponentMark::Component,
        manufacturer: None,
        model: Some(model.to_owned()),
        sw_version: None,
        os_name: None,
        processor_architecture: None,
        processor_manufacturer: None,
        total_storage: None,
        total_memory: None,
    };
    let mut agent = idle();
    let mut tells = |model: &str| {
        let effects = agent.handle(Event::Information(Box::new(of(model))), at(100));
        let told = effects.iter().map(|effect| match effect {
            Effect::Report(report) => report.device_information.clone().unwrap().model.unwrap(),
            effect => panic!("{effect:?}"),
        });
        told.collect::<Vec<String>>()
    };
    assert_eq!(tells("CM4"), ["CM4"]);
    assert_eq!(tells("CM4"), [""; 0]);
    assert_eq!(tells("CM5"), ["CM5"]);
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
            "save a rebooting",
            "note accepted a",
            "reply 1 200 accepted",
            "deadline Some(5)",
            "note rebooting a",
            "save a rebooting started",
            "deadline Some(5)",
            "report a rebooting started",
            "deadline Some(300)",
            "save a rebooting started asking",
            "deadline Some(300)",
            "reboot",
            "save a rebooting started agreed",
            "note shutdown",
            "save a rebooting started agreed going-down",
            "deadline Some(10)",
        ]
    );
}

#[test]
fn the_reply_says_what_was_accepted() {
    let mut agent = idle();
    agent.handle(call("1", r#"{"method_number":"42"}"#), at(1));
    agent.handle(Event::Permission(Outlook::of(Ok(()))), at(2));
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
        Event::Permission(Outlook::of(Ok(()))),
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
    assert_eq!(log.last().unwrap(), "report a failed started neverWentDown");
    assert!(!log.contains(&"reboot".to_owned()));
    assert_eq!(agent.status(), "no reboot pending");
}

#[test]
fn a_report_of_before_does_not_stand_for_the_new_one() {
    let mut agent = idle();
    let events = [call("1", ASKED), Event::Reported, Event::Permission(Outlook::of(Ok(()))), Event::Reported];
    assert_eq!(play(&mut agent, events), ["check", "save a rebooting"]);
}

/// A request that failed, of which the hub has not heard, and one after it that is about to
/// be announced.
fn two_after_another() -> (Clocked, Vec<Effect>) {
    let (mut agent, _) = resume(None, "boot-1", 0);
    let first = [
        call("1", ASKED),
        Event::Permission(Outlook::of(Ok(()))),
        Event::Saved(Ok(())),
        method("2", "cancelReboot", ""),
        Event::Saved(Ok(())),
    ];
    assert_eq!(play(&mut agent, first).last().unwrap(), "report a cancelled");
    let second = [
        call("3", r#"{"id":"b"}"#),
        Event::Permission(Outlook::of(Ok(()))),
        Event::Saved(Ok(())),
        delivered("3"),
    ];
    let effects = second.into_iter().flat_map(|event| agent.handle(event, at(120))).collect();
    (agent, effects)
}

#[test]
fn an_outcome_is_told_before_what_comes_after_it() {
    let (mut agent, effects) = two_after_another();
    assert_eq!(
        log(&effects)[log(&effects).len() - 3..],
        ["save b rebooting started", "deadline Some(5)", "report a cancelled"]
    );
    let told = |agent: &Clocked| agent.told().reboot.map(|reboot| reboot.id);
    assert_eq!(told(&agent).as_deref(), Some("b"), "people on the machine are told the newest");
    // The hub has heard of it: only now the next one, and only that leads on.
    let log = play(&mut agent, [Event::Reported]);
    assert_eq!(log, ["save b rebooting started", "report b rebooting started"]);
    let log = play(&mut agent, [Event::Reported, Event::Saved(Ok(()))]);
    assert_eq!(log.last().unwrap(), "reboot", "{log:?}");

    // A hub that never takes it is told what comes next all the same.
    let (mut agent, _) = two_after_another();
    assert_eq!(play(&mut agent, [Event::ReportRefused]).last().unwrap(), "report b rebooting started");
    assert_eq!(play(&mut agent, [Event::ReportRefused]), [""; 0]);
}

#[test]
fn an_outcome_that_no_hub_has_heard_of_outlives_the_next_reboot() {
    // The hub is slow, and the second request is a call, which does not wait for it.
    let (mut agent, _) = two_after_another();
    let mut effects = agent.handle(Event::DeadlinePassed, at(130));
    effects.extend(agent.handle(Event::Saved(Ok(())), at(130)));
    effects.extend(agent.handle(Event::RebootAsked(Ok(())), at(130)));
    effects.extend(agent.handle(Event::ShutdownBegan, at(130)));
    let (mut agent, effects) = resume(Some(last_saved(&effects)), "boot-2", 200);
    assert_eq!(log(&effects).last().unwrap(), "report a cancelled");
    let first = effects.iter().rev().find_map(|effect| match effect {
        Effect::Report(report) => report.agent.as_ref().map(|agent| agent.last_wish.clone()),
        _ => None,
    });
    assert_eq!(first, Some(None));
    assert_eq!(play(&mut agent, [Event::Reported]).last().unwrap(), "report b completed started");
    // What the hub acknowledges while the disk is full may be an older report.
    let (mut agent, _) = two_after_another();
    assert_eq!(play(&mut agent, [Event::Saved(Err("full".into())), Event::Reported]), [""; 0]);
    assert_eq!(play(&mut agent, [Event::Saved(Ok(()))]).last().unwrap(), "report a cancelled");
}

#[test]
fn a_daemon_without_its_record_still_knows_the_request_that_it_went_down_for() {
    // The hub is slow to take the outcome of the first request, and the second is a call,
    // which does not wait for it.
    let (mut agent, _) = two_after_another();
    let told = play(&mut agent, [Event::DeadlinePassed]);
    assert_eq!(told.first().unwrap(), "report now b rebooting started", "{told:?}");
    // Nothing takes that back, whatever the hub answers now.
    assert_eq!(play(&mut agent, [Event::Saved(Ok(())), Event::Reported]).last().unwrap(), "reboot");
    assert_eq!(play(&mut agent, [Event::ReportRefused, Event::Reported]), [""; 0]);
    let twin = serde_json::to_value(agent.told()).unwrap();
    // The state directory does not outlive the boot.
    let (agent, _) = Agent::resume(None, None, start("boot-2", 200), SETTINGS, at(210));
    let mut agent = Clocked { agent, now: 210 };
    let memory = crate::decide::memory::Memory::read(twin.as_object().unwrap());
    play(&mut agent, [Event::Desired { reboot: None, memory: Some(Box::new(memory)) }]);
    assert_eq!(
        agent.told().reboot.map(|reboot| (reboot.id, reboot.status)),
        Some(("b".to_owned(), RebootStatus::Completed))
    );
    let again = play(&mut agent, [call("9", r#"{"id":"b"}"#)]);
    assert_eq!(again, ["reply 9 200 accepted"], "and does not reboot for it again");
    // One that never went down makes room for the outcome that is still to be told.
    let (mut agent, _) = two_after_another();
    play(&mut agent, [Event::DeadlinePassed, Event::Saved(Ok(())), Event::RebootAsked(Ok(()))]);
    let log = play(&mut agent, [Event::DeadlinePassed, stays_up()]);
    assert_eq!(log.last().unwrap(), "report a cancelled", "{log:?}");
    let log = play(&mut agent, [Event::Reported]);
    assert_eq!(log.last().unwrap(), "report b failed started neverWentDown");
}

#[test]
fn a_wish_that_comes_with_the_connection_takes_no_outcomes_place() {
    let (mut agent, _) = resume(None, "boot-1", 0);
    let wish = |value: Value| Event::Desired { reboot: Some(value.into()), memory: None };
    play(&mut agent, [wish(json!({"id": "v", "notBefore": "soon"}))]);
    // The next wish is refused at once, and the one after it is granted.
    let log = play(&mut agent, [wish(json!({"id": "w", "deadline": "1970-01-01T00:00:01Z"}))]);
    assert_eq!(log.last().unwrap(), "report v failed invalidPayload");
    let granted = [wish(json!({"id": "x"})), Event::Permission(Outlook::of(Ok(()))), Event::Saved(Ok(()))];
    let effects: Vec<Effect> = granted.into_iter().flat_map(|event| agent.handle(event, at(130))).collect();
    let last_wish = |effects: &[Effect]| match effects.last() {
        Some(Effect::Report(report)) => report.agent.as_ref().and_then(|agent| agent.last_wish.clone()),
        other => panic!("nothing is told: {other:?}"),
    };
    // Not yet of the one that has not begun: a daemon without its record would take that
    // for done.
    assert_eq!(last_wish(&effects).as_deref(), Some("v"));
    let told: Vec<Option<String>> =
        (0..2).map(|_| last_wish(&agent.handle(Event::Reported, at(131)))).collect();
    assert_eq!(told, [Some("w".to_owned()), Some("x".to_owned())]);
    let log = play(&mut agent, [Event::Reported, Event::Saved(Ok(()))]);
    assert_eq!(log.last().unwrap(), "reboot", "{log:?}");
}

#[test]
fn an_outcome_that_is_given_up_is_named() {
    let (mut agent, _) = resume(None, "boot-1", 0);
    let mut log = Vec::new();
    for nth in 0..=Record::MAX_UNHEARD + 1 {
        log = play(
            &mut agent,
            [
                call("1", &format!(r#"{{"id":"r-{nth}","delaySeconds":600}}"#)),
                Event::Permission(Outlook::of(Ok(()))),
                Event::Saved(Ok(())),
            ],
        );
        let named = log.iter().any(|line| line.starts_with("note untold"));
        assert_eq!(named, nth == Record::MAX_UNHEARD + 1, "{nth}: {log:?}");
        play(&mut agent, [method("2", "cancelReboot", ""), Event::Saved(Ok(()))]);
    }
    assert!(log.contains(&"note untold r-0".to_owned()), "{log:?}");
}
