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
