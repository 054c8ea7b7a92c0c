//! Cancelling, and asking how things are.

use super::*;

#[test]
fn cancelling_is_recorded_before_it_is_answered() {
    for (events, cancelled_at) in [(scheduled(), 200), (waiting(), 110)] {
        for payload in ["", r#"{"id":"a"}"#] {
            let mut agent = idle();
            play_at(&mut agent, events.clone());
            let cancel = method("2", "cancelReboot", payload);
            assert_eq!(play_at(&mut agent, [(cancelled_at, cancel)]), ["save a cancelled"]);
            let log = play_at(&mut agent, [(cancelled_at, Event::Saved(Ok(())))]);
            assert_eq!(
                log,
                ["note ended cancelled", "reply 2 200 cancelled", "deadline None", "report a cancelled"]
            );
            let late =
                [Event::DeadlinePassed, Event::Permission(Outlook::of(Ok(()))), Event::InhibitorsChanged];
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
        ["deadline None", "report a scheduled", "check"]
    );
}

#[test]
fn cancelling_nothing_another_or_too_late() {
    let cancel = || method("9", "cancelReboot", r#"{"id":"b"}"#);
    assert_eq!(play(&mut idle(), [cancel()]).last().unwrap(), "reply 9 404 nothingPending");
    let mut agent = idle();
    play_at(&mut agent, scheduled());
    let effects = agent.handle(cancel(), at(110));
    assert_eq!(log(&effects).last().unwrap(), "reply 9 404 nothingPending");
    assert_eq!(bodies(&effects)[0]["error"]["id"], "a", "the one that is");
    assert_eq!(
        play(&mut agent, [method("9", "cancelReboot", "7")]).last().unwrap(),
        "reply 9 400 invalidPayload"
    );
    for length in 5..=9 {
        let mut agent = idle();
        play(&mut agent, straight().into_iter().take(length));
        let effects = agent.handle(method("9", "cancelReboot", ""), at(110));
        assert_eq!(log(&effects).last().unwrap(), "reply 9 409 tooLate", "after {length} events");
        assert_eq!(bodies(&effects)[0]["error"]["id"], "a");
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
                     "clock": "synchronized", "count": 1, "uncleanCount": 0},
            "uptimeSeconds": 77, "inhibitors": [], "canReboot": true,
            "ifItHangs": {"watchdog": null, "forcedAfterSeconds": 1800},
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
        ["deadline None", "report a scheduled", "check"]
    );
}

#[test]
fn what_is_only_being_announced_can_be_called_off() {
    let mut agent = idle();
    play(&mut agent, straight().into_iter().take(4));
    assert_eq!(play(&mut agent, [method("9", "cancelReboot", "")]), ["save a cancelled"]);
    let log = play(&mut agent, [Event::Saved(Ok(())), Event::Reported, Event::DeadlinePassed]);
    assert_eq!(log[1..], ["reply 9 200 cancelled", "deadline None", "report a cancelled"]);
    assert_eq!(agent.core.record.starts, []);
}
