//! What cannot be recorded, and what logind refuses or does not do.

use super::*;

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
            "save a rebooting",
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
        "note ended failed".into(),
        "save a failed started logindRefused".into(),
        "report a failed started logindRefused".into(),
    ]));
    assert_eq!(agent.status(), "no reboot pending");

    let mut agent = idle();
    let log = play(&mut agent, before().chain([Event::RebootAsked(Ok(())), Event::DeadlinePassed]));
    assert!(log.ends_with(&[
        "save a failed started neverWentDown".into(),
        "report a failed started neverWentDown".into()
    ]));
    assert_eq!(play(&mut agent, [call("2", r#"{"id":"b"}"#)]), ["check"]);
    // The old id still has its answer, and causes nothing.
    let mut agent = idle();
    play(&mut agent, before().chain([Event::RebootAsked(Ok(())), Event::DeadlinePassed]));
    assert_eq!(play(&mut agent, [call("3", ASKED)]), ["reply 3 200 accepted"]);
}
