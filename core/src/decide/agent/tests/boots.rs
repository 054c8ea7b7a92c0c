//! What a start makes of the record: another boot, the same one, none at all.

use super::*;

#[test]
fn a_new_boot_ends_the_request_whatever_had_happened() {
    const DOWN: Option<&str> = Some("boot-1");
    let failed = |started| {
        let reboot = format!("a failed{started} uncleanBoot");
        vec![
            "note booted unclean".to_owned(),
            "note ended failed".to_owned(),
            format!("save {reboot}"),
            format!("report {reboot}"),
        ]
    };
    let completed = |cause| {
        vec![
            format!("note booted {cause}"),
            "note ended completed".to_owned(),
            "save a completed started".to_owned(),
            "report a completed started".to_owned(),
        ]
    };
    for (length, shut_down, log_of_start) in [
        (1, None, ["note booted unclean", "save nothing", "report nothing"].map(str::to_owned).to_vec()),
        (2, None, failed("")),
        (4, None, failed(" started")),
        // The power was cut while logind was asked, or was about to act.
        (6, None, failed(" started")),
        (7, None, failed(" started")),
        (7, Some("boot-0"), failed(" started")),
        // Killed before it could write that logind agreed, or that it acts.
        (6, DOWN, completed("requested")),
        (7, DOWN, completed("requested")),
        (9, None, completed("requested")),
    ] {
        let start = Start { shut_down: shut_down.map(str::to_owned), ..start("boot-2", 120) };
        let (mut agent, effects) = resumed(Some(record_after(length)), None, start, SETTINGS, at(130));
        assert_eq!(log(&effects), log_of_start, "after {length} events");
        let record = last_saved(&effects);
        assert_eq!(record.reboot_time, Some(at(120)));
        // Whatever happens later in this boot, it is not rebooted for it again.
        let late = [Event::Reported, Event::DeadlinePassed, Event::ReplyDelivered { rid: "1".into() }];
        assert!(play(&mut agent, late).is_empty());
        if length > 1 {
            assert_eq!(play(&mut agent, [call("9", ASKED)]), ["reply 9 200 accepted"]);
        }
    }
}

#[test]
fn the_completed_report_has_both_boots_and_the_time_between() {
    let (_, effects) = resume(Some(record_after(9)), "boot-2", 124);
    let Some(Effect::Report(report)) = effects.last() else { panic!("no report") };
    let reboot = report.reboot.as_ref().unwrap();
    assert_eq!((reboot.previous_boot_id.as_str(), reboot.boot_id.as_deref()), ("boot-1", Some("boot-2")));
    assert_eq!(reboot.reason.as_deref(), Some("kernel update"));
    assert_eq!((reboot.started_at, reboot.completed_at), (Some(at(103)), Some(at(134))));
    assert_eq!(reboot.down_seconds, Some(21.0));
    assert_eq!(report.reboot_time, Some(at(124)));
}

/// It was not rebooted for a request that was meant for later than that boot.
#[test]
fn a_boot_at_the_very_time_of_a_request_is_the_one_that_was_asked_for() {
    let effects: Vec<Effect> = {
        let mut agent = idle();
        scheduled().into_iter().flat_map(|(seconds, event)| agent.handle(event, at(seconds))).collect()
    };
    for (booted, expected) in [(699, RebootStatus::Scheduled), (700, RebootStatus::Completed)] {
        let noted = Start { shut_down: Some("boot-1".to_owned()), ..start("boot-2", booted) };
        let (agent, _) = resumed(Some(last_saved(&effects)), None, noted, SETTINGS, at(booted));
        assert_eq!(agent.core.record.reboot.as_ref().unwrap().status, expected, "at {booted}");
    }
}

/// The longer memory is of requests for which the machine rebooted.
#[test]
fn a_request_that_another_shutdown_has_completed_is_remembered_as_one_that_began() {
    let mut agent = idle();
    let effects: Vec<Effect> =
        waiting().into_iter().flat_map(|(seconds, event)| agent.handle(event, at(seconds))).collect();
    for (shut_down, status, begun) in
        [(Some("boot-1"), RebootStatus::Completed, true), (None, RebootStatus::Failed, false)]
    {
        let noted = Start { shut_down: shut_down.map(String::from), ..start("boot-2", 130) };
        let (agent, _) = resumed(Some(last_saved(&effects)), None, noted, SETTINGS, at(140));
        let record = &agent.core.record;
        assert_eq!(record.reboot.as_ref().unwrap().status, status);
        let remembered: Vec<_> =
            record.granted.iter().map(|request| (request.id.as_str(), request.begun)).collect();
        assert_eq!(remembered, [("a", begun)]);
    }
}

#[test]
fn the_running_boot_and_how_many_there_were_are_known_to_whoever_counts_them() {
    let mut agent = idle();
    assert_eq!(agent.boot_id(), "boot-1");
    assert_eq!(agent.boot_counts(), BootCounts { unknown: 1, ..BootCounts::default() });
    let effects: Vec<Effect> =
        straight().into_iter().flat_map(|event| agent.handle(event, at(100))).collect();
    let (agent, _) = resume(Some(last_saved(&effects)), "boot-2", 121);
    assert_eq!(agent.boot_id(), "boot-2");
    assert_eq!(agent.boot_counts(), BootCounts { requested: 1, unknown: 1, ..BootCounts::default() });
}

#[test]
fn a_clock_that_went_back_leaves_the_down_time_out() {
    let (_, effects) = resume(Some(record_after(9)), "boot-2", 3);
    let reboot = last_saved(&effects).reboot.unwrap();
    assert_eq!((reboot.status, reboot.down_seconds), (RebootStatus::Completed, None));
}

#[test]
fn a_daemon_that_died_in_the_same_boot_goes_on() {
    let begins = ["deadline Some(300)", "save a rebooting started asking", "deadline Some(300)", "reboot"];
    for length in 2..=6 {
        let record = Some(record_after(length));
        let (mut agent, effects) = resumed(record, None, start("boot-1", 0), SETTINGS, at(110));
        let mut log = log(&effects);
        // Until logind was about to be asked, whether it may be is judged anew.
        if length < 5 {
            assert_eq!(log, ["deadline None", "report a waiting", "check"], "after {length} events");
            log = play(&mut agent, [Event::Permission(Outlook::of(Ok(())))]);
        }
        assert_eq!(log.last().unwrap(), "report a rebooting started", "after {length} events: {log:?}");
        assert_eq!(play(&mut agent, [Event::Reported, Event::Saved(Ok(()))]), begins);
    }
}

#[test]
fn what_others_have_written_fits_into_the_twin() {
    let holder = || Inhibitor { who: "\u{1f980}".repeat(200), why: "y".repeat(200), uid: 0, pid: 1 };
    let mut agent = idle();
    let mut events = scheduled();
    events.push((700, Event::DeadlinePassed));
    events.push((
        700,
        Event::Permission(Outlook::of(Err(Refusal::Blocked((0..16).map(|_| holder()).collect())))),
    ));
    play_at(&mut agent, events);
    let message = agent.agent.core.record.reboot.unwrap().error.unwrap().message;
    assert!(message.len() <= 4096 && message.starts_with("shutdown is inhibited by"), "{}", message.len());
}

#[test]
fn a_logind_that_has_agreed_is_not_asked_again() {
    for length in 7..=9 {
        let (mut agent, effects) = resume(Some(record_after(length)), "boot-1", 0);
        assert_eq!(log(&effects), ["deadline Some(300)", "report a rebooting started"]);
        // A shutdown that was known of is called off first.
        let log =
            play(&mut agent, [Event::Reported, Event::ShutdownCancelled, Event::DeadlinePassed, stays_up()]);
        assert_eq!(log.last().unwrap(), "report a failed started neverWentDown", "after {length} events");
    }
}

#[test]
fn logind_refusing_during_somebodys_shutdown_is_no_failure() {
    let mut agent = idle();
    let events = straight().into_iter().take(6);
    let log = play(&mut agent, events.chain([Event::ShutdownBegan, Event::RebootAsked(Err("busy".into()))]));
    assert!(
        log.ends_with(&["save a rebooting started asking going-down".into(), "deadline Some(10)".into()]),
        "{log:?}"
    );
}

#[test]
fn a_shutdown_by_others_is_local_and_none_at_all_is_unclean() {
    for (events, shut_down, cause) in [
        (&[Event::ShutdownBegan][..], None, BootCause::Local),
        (&[], None, BootCause::Unclean),
        (&[Event::ShutdownBegan, Event::ShutdownCancelled], None, BootCause::Unclean),
        // Nobody told the daemon.
        (&[], Some("boot-1"), BootCause::Local),
        (&[], Some("boot-0"), BootCause::Unclean),
    ] {
        let (mut agent, mut effects) = resume(None, "boot-1", 0);
        for event in events {
            effects.extend(agent.handle(event.clone(), at(5)));
        }
        let start = Start { shut_down: shut_down.map(str::to_owned), ..start("boot-2", 50) };
        let (_, effects) = resumed(Some(last_saved(&effects)), None, start, SETTINGS, at(60));
        assert_eq!(last_saved(&effects).boot.cause, cause, "{events:?}, {shut_down:?}");
    }
}

#[test]
fn a_shutdown_is_noted_once() {
    let mut agent = idle();
    let log = play(
        &mut agent,
        [Event::ShutdownCancelled, Event::ShutdownBegan, Event::ShutdownBegan, Event::ShutdownCancelled],
    );
    assert_eq!(log, ["note shutdown", "save nothing going-down", "note shutdown cancelled", "save nothing"]);
}

#[test]
fn the_first_start_ever_has_no_reboot_time_and_a_damaged_record_is_told() {
    let (_, effects) = resumed(None, Some("/x/state.damaged-0".into()), start("b", 0), SETTINGS, at(1));
    let Some(Effect::Report(report)) = effects.last() else { panic!("no report") };
    assert_eq!(report.reboot_time, None);
    assert_eq!(report.boot.as_ref().unwrap().cause, BootCause::Unknown);
    assert_eq!(report.agent.as_ref().unwrap().damaged_record.as_deref(), Some("/x/state.damaged-0"));
}

#[test]
fn a_damaged_record_is_told_until_the_next_boot() {
    let told = |effects: &[Effect]| match effects.last() {
        Some(Effect::Report(report)) => report.agent.as_ref().unwrap().damaged_record.clone(),
        other => panic!("no report, but {other:?}"),
    };
    let aside = Some("/x/state.damaged-0".to_owned());
    let (_, effects) = resumed(Some(record_after(9)), aside.clone(), start("boot-2", 120), SETTINGS, at(130));
    assert_eq!(told(&effects), aside);
    let record = last_saved(&effects);
    let (_, effects) = resume(Some(record.clone()), "boot-2", 120);
    assert_eq!(told(&effects), aside, "the daemon's restart does not mend it");
    let (_, effects) = resume(Some(record), "boot-3", 500);
    assert_eq!(told(&effects), None);
}

#[test]
fn a_restart_in_the_same_boot_says_the_same() {
    let (_, first) = resume(Some(record_after(9)), "boot-2", 120);
    let Some(Effect::Report(before)) = first.last().cloned() else { panic!("no report") };
    let (_, second) = resume(Some(last_saved(&first)), "boot-2", 120);
    assert_eq!(second, [Effect::Report(before)]);
}

#[test]
fn a_shutdown_that_did_not_come_leaves_no_trace_in_the_cause_of_the_next_boot() {
    let (mut agent, mut effects) = resume(None, "boot-1", 0);
    for event in straight() {
        effects.extend(agent.handle(event, at(100)));
    }
    assert!(last_saved(&effects).going_down);
    // It is not under way any more, and logind has not said so.
    effects.extend(agent.handle(Event::DeadlinePassed, at(400)));
    effects.extend(agent.handle(stays_up(), at(400)));
    effects.extend(agent.handle(Event::DeadlinePassed, at(700)));
    effects.extend(agent.handle(stays_up(), at(700)));
    assert_eq!(log(&effects).last().unwrap(), "report a failed started neverWentDown");
    let (_, effects) = resume(Some(last_saved(&effects)), "boot-2", 800);
    let record = last_saved(&effects);
    assert_eq!(record.boot.cause, BootCause::Unclean);
    // What was told stays.
    let reboot = record.reboot.unwrap();
    assert_eq!(
        (reboot.status, reboot.error.unwrap().code),
        (RebootStatus::Failed, RebootErrorCode::NeverWentDown)
    );
}
