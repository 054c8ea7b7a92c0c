//! Requests that are for a machine that needs a reboot.

use super::*;
use crate::decide::need::Need;

const ONLY: &str = r#"{"id":"a","onlyIfRequired":true}"#;

fn need(reasons: &[&str]) -> Option<Need> {
    let reasons = reasons.iter().map(|reason| (*reason).to_owned()).collect();
    Some(Need { reasons, running_kernel: Some("6.1.0-44-amd64".to_owned()), installed_kernel: None })
}

fn with(known: Option<Need>, guards: Guards) -> Clocked {
    let start = Start { need: known, ..start("boot-1", 0) };
    resumed(None, None, start, Settings { guards, ..SETTINGS }, at(10)).0
}

#[test]
fn a_machine_that_needs_none_is_left_alone_and_nothing_is_recorded() {
    for (known, words) in [(need(&[]), "needs no reboot"), (None, "is not known")] {
        let mut agent = with(known, GUARDS);
        let before = agent.agent.core.record.clone();
        agent.handle(call("1", ONLY), at(100));
        let effects = agent.handle(Event::Permission(Outlook::of(Ok(()))), at(100));
        assert_eq!(log(&effects), ["reply 1 200 notNeeded"]);
        assert!(bodies(&effects)[0]["message"].as_str().unwrap().contains(words), "{effects:?}");
        assert_eq!(agent.agent.core.record, before);
        // Its id is not used up: asked again, the machine is looked at anew.
        let log = play(
            &mut agent,
            [Event::Need(need(&["dbus"])), call("2", ONLY), Event::Permission(Outlook::of(Ok(())))],
        );
        assert_eq!(log, ["save nothing", "report nothing", "check", "save a rebooting"]);
    }
}

#[test]
fn the_order_of_refusals() {
    let busy = Guards { max_per_hour: 1, min_uptime: Duration::from_secs(500), ..GUARDS };
    let mut agent = with(need(&[]), busy);
    assert_eq!(
        play(&mut agent, [call("1", ONLY), Event::Permission(Outlook::of(Ok(())))]),
        ["check", "note refused rateLimited", "reply 1 429 rateLimited"]
    );
    // An inhibitor, or a logind that is away, does not matter to a reboot that is not needed.
    for refusal in [blocked(), Refusal::LogindUnavailable("gone".to_owned())] {
        let mut agent = with(need(&[]), GUARDS);
        let log = play(&mut agent, [call("1", ONLY), Event::Permission(Outlook::of(Err(refusal.clone())))]);
        assert_eq!(log, ["check", "reply 1 200 notNeeded"]);
        let check = call("2", r#"{"onlyIfRequired":true,"check":true}"#);
        assert_eq!(
            play(&mut agent, [check, surveyed("2", Err(refusal))]),
            ["survey 2", "reply 2 200 notNeeded"]
        );
    }
    let mut agent = with(need(&["dbus"]), GUARDS);
    let log = play(&mut agent, [call("1", ONLY), Event::Permission(Outlook::of(Err(blocked())))]);
    assert_eq!(log, ["check", "note refused blockedByInhibitor", "reply 1 423 blockedByInhibitor"]);
}

#[test]
fn a_need_that_is_gone_when_the_time_has_come_ends_the_request() {
    let mut agent = with(need(&["dbus"]), GUARDS);
    let later = r#"{"id":"a","delaySeconds":60,"onlyIfRequired":true}"#;
    let events =
        [call("1", later), Event::Permission(Outlook::of(Ok(()))), Event::Saved(Ok(())), delivered("1")];
    play(&mut agent, events);
    agent.handle(Event::Need(need(&[])), at(120));
    let log =
        play_at(&mut agent, [(170, Event::DeadlinePassed), (170, Event::Permission(Outlook::of(Ok(()))))]);
    assert_eq!(
        log[log.len() - 4..],
        ["deadline None", "note ended notNeeded", "save a notNeeded", "report a notNeeded"]
    );
    assert_eq!(play(&mut agent, [call("2", "{}")]), ["check"], "it is ready for the next");
}

#[test]
fn a_wish_that_is_not_needed_is_told_as_that_and_not_tried_again() {
    let mut agent = with(need(&[]), GUARDS);
    let wish =
        || Event::Desired { reboot: Some(json!({"id": "w", "onlyIfRequired": true}).into()), memory: None };
    let log = play(&mut agent, [wish(), Event::Permission(Outlook::of(Ok(())))]);
    assert_eq!(log, ["check", "note ended notNeeded", "save w notNeeded", "report w notNeeded"]);
    assert_eq!(
        play(&mut agent, [wish(), Event::Need(need(&["dbus"]))]),
        ["save w notNeeded", "report w notNeeded"]
    );
}

#[test]
fn what_is_known_is_told_with_its_beginning_and_again_after_a_boot() {
    let mut agent = with(None, GUARDS);
    let report = |effects: &[Effect]| match effects.last() {
        Some(Effect::Report(report)) => report.reboot_required.clone(),
        other => panic!("{other:?}"),
    };
    let many: Vec<String> = (0..15).map(|number| format!("lib{number:02}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let told = report(&agent.handle(Event::Need(need(&["dbus"])), at(50))).unwrap();
    assert_eq!((told.required, told.since), (true, Some(at(50))));
    let effects = agent.handle(Event::Need(need(&many)), at(60));
    let told = report(&effects).unwrap();
    assert_eq!((told.since, told.reasons.len(), told.reason_count), (Some(at(50)), 10, 15));
    assert_eq!(log(&agent.handle(Event::Need(need(&many)), at(70))), [""; 0]);
    let record = last_saved(&effects);
    // A flag that outlives the reboot is told on; a need that is met, too.
    for (known, since) in [(need(&["dbus"]), Some(at(50))), (need(&[]), None)] {
        let start = Start { need: known, ..start("boot-2", 200) };
        let (_, effects) = resumed(Some(record.clone()), None, start, SETTINGS, at(210));
        assert_eq!(report(&effects).unwrap().since, since);
    }
}
