//! What cannot be recorded, and what logind refuses or does not do.

use super::*;

#[test]
fn nothing_happens_when_it_cannot_be_recorded() {
    let mut agent = idle();
    let log = play(
        &mut agent,
        [call("1", ASKED), Event::Permission(Outlook::of(Ok(()))), Event::Saved(Err("disk full".into()))],
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
    let log = play(&mut agent, before().chain([refused, Event::Permission(Outlook::of(Ok(())))]));
    assert!(log.ends_with(&[
        "check".into(),
        "deadline None".into(),
        "note ended failed".into(),
        "save a failed started logindRefused".into(),
        "report a failed started logindRefused".into(),
    ]));
    assert_eq!(agent.status(), "no reboot pending");

    let mut agent = idle();
    let log =
        play(&mut agent, before().chain([Event::RebootAsked(Ok(())), Event::DeadlinePassed, stays_up()]));
    assert!(log.ends_with(&[
        "save a failed started neverWentDown".into(),
        "report a failed started neverWentDown".into()
    ]));
    assert_eq!(play(&mut agent, [call("2", r#"{"id":"b"}"#)]), ["check"]);
    // The old id still has its answer, and causes nothing.
    let mut agent = idle();
    play(&mut agent, before().chain([Event::RebootAsked(Ok(())), Event::DeadlinePassed, stays_up()]));
    assert_eq!(play(&mut agent, [call("3", ASKED)]), ["reply 3 200 accepted"]);
}

#[test]
fn a_hub_that_does_not_acknowledge_is_told_once_more_before_logind_is_asked() {
    for (told, sends) in [(Event::Reported, false), (Event::DeadlinePassed, true)] {
        let mut agent = idle();
        play(&mut agent, straight().into_iter().take(4));
        let log = play(&mut agent, [told]);
        assert_eq!(
            log.first().is_some_and(|first| first == "report now a rebooting started"),
            sends,
            "{log:?}"
        );
        assert_eq!(log.last().unwrap(), "save a rebooting started asking");
    }
}

#[test]
fn a_shutdown_that_takes_its_time_is_no_failure_and_says_what_it_waits_for() {
    let looked = |under_way, units: &[&str]| Event::Shutdown {
        under_way,
        stopping: units.iter().map(|unit| (*unit).to_owned()).collect(),
    };
    let mut agent = idle();
    play(&mut agent, straight());
    // An hour of it.
    for _ in 0..360 {
        let log = play(&mut agent, [Event::DeadlinePassed, looked(Some(true), &["slow.service"])]);
        assert!(log.ends_with(&["deadline Some(10)".into()]), "{log:?}");
    }
    let waiting_for = |agent: &Clocked| {
        let reboot = agent.core.record.reboot.clone().unwrap();
        (reboot.waiting_for, reboot.waiting_for_count)
    };
    assert_eq!(waiting_for(&agent), (vec!["slow.service".to_owned()], Some(1)));
    // The bus is gone: it goes on as it was. And what changes is told.
    assert_eq!(
        play(&mut agent, [looked(None, &["f", "e", "d", "c", "b", "a"])]),
        ["report a rebooting started", "deadline Some(10)"]
    );
    assert_eq!(waiting_for(&agent), (["a", "b", "c", "d", "e"].map(str::to_owned).to_vec(), Some(6)));
    // It is called off: then the time to go down counts anew, and runs out.
    let log = play(&mut agent, [Event::ShutdownCancelled]);
    assert_eq!(log, ["note shutdown cancelled", "save a rebooting started agreed", "deadline Some(300)"]);
    let log = play(&mut agent, [Event::DeadlinePassed, stays_up()]);
    assert_eq!(log.last().unwrap(), "report a failed started neverWentDown");
    assert_eq!(waiting_for(&agent), (vec![], None));
}

#[test]
fn a_shutdown_that_only_systemd_knows_of_counts_as_well() {
    let mut agent = idle();
    play(&mut agent, straight().into_iter().take(8));
    let under_way = Event::Shutdown { under_way: Some(true), stopping: Vec::new() };
    assert_eq!(
        play(&mut agent, [Event::DeadlinePassed, under_way]),
        ["look", "note shutdown", "save a rebooting started agreed going-down", "deadline Some(10)"]
    );
    // It ends without a signal.
    let log = play(&mut agent, [Event::DeadlinePassed, stays_up()]);
    assert_eq!(log.last().unwrap(), "deadline Some(300)", "{log:?}");
}
