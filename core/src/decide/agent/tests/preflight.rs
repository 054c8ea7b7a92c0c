//! Checks that object: the machine may not come back.

use iotdm_proto::reply::PreflightCheck;

use super::*;

fn objecting(reason: &str) -> Event {
    let preflight = vec![PreflightCheck::passing("dpkg"), PreflightCheck::objecting("fstab", reason)];
    Event::Permission(Outlook { permission: Ok(()), preflight })
}

fn fine() -> Event {
    Event::Permission(Outlook { permission: Ok(()), preflight: vec![PreflightCheck::passing("dpkg")] })
}

#[test]
fn a_reboot_now_is_refused_and_each_objection_named() {
    let mut agent = idle();
    let effects = agent.handle(call("1", ASKED), at(100));
    assert_eq!(effects, [Effect::AskPermission { preflight: true }]);
    let effects = agent.handle(objecting("/data: no device"), at(101));
    assert_eq!(log(&effects), ["note refused preflightFailed", "reply 1 423 preflightFailed"]);
    let error = &bodies(&effects)[0]["error"];
    assert_eq!(error["preflight"], json!([{"name": "fstab", "passed": false, "reason": "/data: no device"}]));
    assert_eq!(
        error["message"],
        "the machine may not come back, by its preflight checks: fstab (/data: no device)"
    );
    // Nothing is remembered of it.
    assert_eq!(play(&mut agent, [call("2", ASKED), fine()])[..2], ["check", "save a rebooting"]);
}

#[test]
fn an_inhibitor_is_told_first_and_logind_last() {
    let objection = || vec![PreflightCheck::objecting("fstab", "no device")];
    for (permission, expected) in [
        (Err(blocked()), "reply 1 423 blockedByInhibitor"),
        (Err(Refusal::LogindUnavailable("no bus".into())), "reply 1 423 preflightFailed"),
    ] {
        let outlook = Outlook { permission, preflight: objection() };
        let log = play(&mut idle(), [call("1", ASKED), Event::Permission(outlook)]);
        assert_eq!(log.last().unwrap(), expected);
    }
}

#[test]
fn a_request_for_later_is_warned_and_judged_when_its_time_has_come() {
    let mut agent = idle();
    let mut events = scheduled();
    events[1].1 = objecting("no device");
    let effects: Vec<Effect> =
        events.into_iter().flat_map(|(seconds, event)| agent.handle(event, at(seconds))).collect();
    let body = &bodies(&effects)[0];
    assert_eq!(body["status"], "scheduled");
    assert!(
        body["message"].as_str().unwrap().ends_with(
            "; for now, the machine may not come back, by its preflight checks: fstab (no device)"
        ),
        "{body}"
    );
    let log = play_at(&mut agent, [(700, Event::DeadlinePassed), (701, objecting("no device"))]);
    assert!(log.contains(&"check".to_owned()), "{log:?}");
    assert_eq!(log.last().unwrap(), "report a failed preflightFailed");
}

#[test]
fn waiting_asks_again_each_minute_and_when_an_inhibitor_goes() {
    let mut agent = idle();
    let wait = r#"{"id":"a","onPreflight":"wait","waitSeconds":150}"#;
    let log = play_at(
        &mut agent,
        [
            (100, call("1", wait)),
            (100, objecting("busy")),
            (100, Event::Saved(Ok(()))),
            (101, delivered("1")),
            (101, objecting("busy")),
        ],
    );
    assert!(log.contains(&"reply 1 200 accepted".to_owned()), "{log:?}");
    assert_eq!(log.last().unwrap(), "deadline Some(60)");
    assert_eq!(agent.status(), "reboot a waits for the preflight checks");
    assert_eq!(
        play_at(&mut agent, [(161, Event::DeadlinePassed), (162, objecting("busy"))]),
        ["deadline Some(89)", "check", "deadline Some(60)"]
    );
    assert_eq!(
        play_at(&mut agent, [(170, Event::InhibitorsChanged), (171, objecting("busy"))]),
        ["deadline Some(80)", "check", "deadline Some(60)"]
    );
    // The wait is over before the next minute is.
    assert_eq!(
        play_at(&mut agent, [(231, Event::DeadlinePassed), (232, objecting("busy still"))]),
        ["deadline Some(19)", "check", "deadline Some(18)"]
    );
    let effects = agent.handle(Event::DeadlinePassed, at(250));
    assert_eq!(log_of_end(&effects), ["note ended failed", "report a failed preflightFailed"]);
    let Some(Effect::Report(report)) = effects.last() else { panic!("{effects:?}") };
    let error = report.reboot.as_ref().unwrap().error.as_ref().unwrap();
    assert!(error.message.ends_with("fstab (busy still)"), "{}", error.message);
}

#[test]
fn waiting_ends_when_nothing_objects_any_more_also_after_a_crash() {
    let wait = r#"{"id":"a","onPreflight":"wait","waitSeconds":150}"#;
    let mut agent = idle();
    let mut effects = Vec::new();
    for (seconds, event) in [
        (100, call("1", wait)),
        (100, objecting("busy")),
        (100, Event::Saved(Ok(()))),
        (101, delivered("1")),
        (101, objecting("busy")),
    ] {
        effects.extend(agent.handle(event, at(seconds)));
    }
    let (mut resumed, effects) =
        super::resumed(Some(last_saved(&effects)), None, start("boot-1", 0), SETTINGS, at(120));
    assert!(log(&effects).ends_with(&["check".to_owned()]), "{:?}", log(&effects));
    assert_eq!(play_at(&mut resumed, [(121, objecting("busy"))]), ["deadline Some(60)"]);
    let log = play_at(&mut resumed, [(181, Event::DeadlinePassed), (182, fine())]);
    assert!(log.contains(&"note rebooting a".to_owned()), "{log:?}");
}

#[test]
fn passing_over_them_is_for_the_device_to_allow() {
    let payload = r#"{"id":"a","onPreflight":"override"}"#;
    let effects = idle().handle(call("1", payload), at(100));
    assert_eq!(log(&effects), ["note refused forbidden", "reply 1 403 forbidden"]);
    let message = bodies(&effects)[0]["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("reboot.allow_preflight_override"), "{message}");

    let allowed = Settings { allow_preflight_override: true, ..SETTINGS };
    let (mut agent, _) = resumed(None, None, start("boot-1", 0), allowed, at(10));
    // Then they are not even run, but for a dry run, which tells what each says.
    let dry = r#"{"onPreflight":"override","check":true}"#;
    assert_eq!(agent.handle(call("0", dry), at(99)), [Effect::Survey { rid: "0".into(), preflight: true }]);
    let effects = agent.handle(call("1", payload), at(100));
    assert_eq!(effects, [Effect::AskPermission { preflight: false }]);
    assert_eq!(play(&mut agent, [fine()]), ["save a rebooting"]);
}

#[test]
fn a_dry_run_tells_what_each_check_says() {
    let mut agent = idle();
    let dry = r#"{"check":true}"#;
    let effects = agent.handle(call("1", dry), at(100));
    assert_eq!(effects, [Effect::Survey { rid: "1".into(), preflight: true }]);
    let surveyed = |permission, reason: Option<&str>| Event::Surveyed {
        rid: "1".into(),
        outlook: Outlook {
            permission,
            preflight: vec![
                reason
                    .map_or(PreflightCheck::passing("fstab"), |why| PreflightCheck::objecting("fstab", why)),
            ],
        },
        uptime: Duration::from_secs(77),
        if_it_hangs: IfItHangs::default(),
    };
    let body = &bodies(&agent.handle(surveyed(Ok(()), None), at(101)))[0];
    assert_eq!(body["preflight"], json!([{"name": "fstab", "passed": true}]));
    assert_eq!(body["ifItHangs"], json!({"watchdog": null, "forcedAfterSeconds": null}));
    agent.handle(call("1", dry), at(102));
    let effects = agent.handle(surveyed(Ok(()), Some("no device")), at(103));
    assert_eq!(log(&effects).last().unwrap(), "reply 1 423 preflightFailed");
    // How things are is asked without them: nobody waits 15 s for that.
    let effects = agent.handle(method("2", "getRebootStatus", ""), at(104));
    assert_eq!(effects, [Effect::Survey { rid: "2".into(), preflight: false }]);
}

/// Nothing in it sounds as if it had been done.
#[test]
fn a_dry_run_says_what_would_happen() {
    let mut agent = idle();
    for (payload, permission, expected) in [
        ("", Ok(()), "the device would reboot at once"),
        (r#","delaySeconds":600"#, Ok(()), "the device would reboot at 1970-01-01T00:11:40.000Z"),
        (
            r#","onInhibitor":"wait""#,
            Err(blocked()),
            "the device would reboot once it may: shutdown is inhibited by apt (upgrading)",
        ),
        (
            r#","onlyIfRequired":true"#,
            Ok(()),
            "the device would not reboot: whether the machine needs a reboot is not known, so it is left alone",
        ),
    ] {
        agent.handle(call("1", &format!(r#"{{"check":true{payload}}}"#)), at(100));
        let effects = agent.handle(super::surveyed("1", permission), at(100));
        let body = &bodies(&effects)[0];
        assert_eq!(body["message"], expected);
        assert_eq!(body["ifItHangs"], json!({"watchdog": null, "forcedAfterSeconds": 1800}), "{payload}");
    }
}

/// What is told of an end.
fn log_of_end(effects: &[Effect]) -> Vec<String> {
    log(effects).into_iter().filter(|line| line.starts_with("note") || line.starts_with("report")).collect()
}
