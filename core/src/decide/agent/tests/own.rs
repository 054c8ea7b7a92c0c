//! What the daemon asks for itself, since the machine needs a reboot.

use iotdm_proto::report::RequestedBy;

use super::*;
use crate::decide::memory::Memory;
use crate::decide::need::Need;

/// The epoch was a Thursday, and this is 02:00 on the next day.
const OPENS: i64 = 26 * 3600;
const CLOSES: i64 = OPENS + 2 * 3600;
/// When it is this machine's turn.
const TURN_AT: i64 = OPENS + 17 * 60;
const DAY: i64 = 86_400;

fn settings() -> Settings {
    let turn =
        Turn { reserve: Duration::from_secs(600), spread: Duration::from_secs(1800), number: 1000 * 17 * 60 };
    let guards = Guards { windows: vec!["02:00-04:00".parse().unwrap()], turn, ..GUARDS };
    Settings { when_required: true, guards, ..SETTINGS }
}

fn need(reasons: &[&str]) -> Option<Need> {
    let reasons = reasons.iter().map(|reason| (*reason).to_owned()).collect();
    Some(Need { reasons, running_kernel: Some("6.1.0-44-amd64".to_owned()), installed_kernel: None })
}

fn id(reasons: &[&str]) -> String {
    format!("required:{}", need(reasons).unwrap().digest().unwrap())
}

fn boots(record: Option<Record>, boot: &str, seconds: i64, known: Option<Need>) -> (Clocked, Vec<Effect>) {
    let start = Start { need: known, ..start(boot, seconds) };
    resumed(record, None, start, settings(), at(seconds + 10))
}

/// A daemon that has been told that dbus asks for a reboot, at noon.
fn asked() -> (Clocked, Vec<Effect>) {
    let (mut agent, _) = boots(None, "boot-1", 0, None);
    let effects = agent.handle(Event::Need(need(&["dbus"])), at(43_200));
    (agent, effects)
}

/// The same, up to its turn.
fn due() -> Clocked {
    let (mut agent, _) = asked();
    assert_eq!(play_at(&mut agent, [(TURN_AT, Event::DeadlinePassed)]).last().unwrap(), "check");
    agent
}

fn permission(outlook: Result<(), Refusal>) -> Event {
    Event::Permission(Outlook::of(outlook))
}

fn report(effects: &[Effect]) -> Report {
    let report = effects.iter().rev().find_map(|effect| match effect {
        Effect::Report(report) => Some((**report).clone()),
        _ => None,
    });
    report.expect("nothing is told")
}

/// What the twin remembers of a report.
fn memory(report: &Report) -> Memory {
    Memory::read(json!(report).as_object().unwrap())
}

fn reboots(log: &[String]) -> usize {
    log.iter().filter(|line| *line == "reboot").count()
}

#[test]
fn it_goes_in_its_window_once_the_hub_knows_and_causes_no_second_reboot() {
    let (mut agent, effects) = asked();
    let id = id(&["dbus"]);
    assert_eq!(
        log(&effects),
        [
            format!("save {id} scheduled"),
            format!("note accepted {id}"),
            format!("deadline Some({})", TURN_AT - 43_200),
            format!("report {id} scheduled"),
        ]
    );
    let told = report(&effects);
    let reboot = told.reboot.unwrap();
    assert_eq!((reboot.requested_by, reboot.not_before), (RequestedBy::Device, Some(at(TURN_AT))));
    assert_eq!(reboot.reason.as_deref(), Some("required by dbus"));
    assert_eq!(told.reboot_required.unwrap().asked_for, id.strip_prefix("required:").map(str::to_owned));

    let mut effects = agent.handle(Event::DeadlinePassed, at(TURN_AT));
    effects.extend(agent.handle(permission(Ok(())), at(TURN_AT + 1)));
    assert_eq!(log(&effects).last().unwrap(), &format!("report {id} rebooting started"));
    assert!(log(&effects).contains(&"deadline None".to_owned()), "the hub is waited for");
    assert_eq!(agent.status(), format!("reboot {id} waits until the hub has its report"));
    // Nothing but the hub's word leads on.
    assert_eq!(reboots(&play_at(&mut agent, [(TURN_AT + 9, Event::DeadlinePassed)])), 0);
    effects = agent.handle(Event::Reported, at(TURN_AT + 10));
    effects.extend(agent.handle(Event::Saved(Ok(())), at(TURN_AT + 10)));
    assert_eq!(log(&effects).last().unwrap(), "reboot");
    effects.extend(agent.handle(Event::RebootAsked(Ok(())), at(TURN_AT + 10)));
    effects.extend(agent.handle(Event::ShutdownBegan, at(TURN_AT + 11)));
    let record = last_saved(&effects);

    // The flag outlives it, or is made anew by each boot; and the record may be lost.
    for (at_start, later) in [(need(&["dbus"]), None), (None, need(&["dbus"]))] {
        let (mut agent, effects) = boots(Some(record.clone()), "boot-2", TURN_AT + 60, at_start.clone());
        assert_eq!(log(&effects).last().unwrap(), &format!("report {id} completed started"));
        let after = TURN_AT + 100;
        let mut effects = agent.handle(Event::Desired { reboot: None, memory: None }, at(after));
        effects.extend(later.map_or_else(Vec::new, |need| agent.handle(Event::Need(Some(need)), at(after))));
        assert!(!log(&effects).iter().any(|line| line.contains("accepted")), "{:?}", log(&effects));
        assert_eq!(agent.status(), "no reboot pending");
        // Something else is another matter, once the hub has heard of this outcome.
        let both = Event::Need(need(&["dbus", "libc6"]));
        assert_eq!(
            play_at(&mut agent, [(after + 1, both)]).last().unwrap(),
            &format!("report {id} completed started")
        );
        let log = play_at(&mut agent, [(after + 2, Event::Reported)]);
        assert_eq!(log.last().unwrap(), "check");
        assert!(log.contains(&format!("report {} waiting", self::id(&["dbus", "libc6"]))), "{log:?}");
    }
    let told = Report { reboot: record.reboot, ..report(&asked().1) };
    for at_start in [need(&["dbus"]), None] {
        let start = Start { need: at_start, ..start("boot-2", TURN_AT + 60) };
        let (agent, _) = Agent::resume(None, None, start, settings(), at(TURN_AT + 70));
        let mut agent = Clocked { agent, now: TURN_AT + 70 };
        let read = Event::Desired { reboot: None, memory: Some(Box::new(memory(&told))) };
        let log = play(&mut agent, [read, Event::Need(need(&["dbus"]))]);
        assert!(log.contains(&format!("save {id} completed started")), "{log:?}");
        assert_eq!(agent.status(), "no reboot pending");
    }
}

#[test]
fn a_lost_record_of_one_that_has_not_begun_is_made_anew_or_called_off() {
    let told = report(&asked().1);
    for (known, last) in [(need(&["dbus"]), "scheduled"), (need(&[]), "cancelled"), (None, "cancelled")] {
        let start = Start { need: known, ..start("boot-2", 50_000) };
        let (agent, _) = Agent::resume(None, None, start, settings(), at(50_010));
        let mut agent = Clocked { agent, now: 50_010 };
        let read = Event::Desired { reboot: None, memory: Some(Box::new(memory(&told))) };
        let log = play(&mut agent, [read]);
        assert_eq!(log.last().unwrap(), &format!("report {} {last}", id(&["dbus"])));
    }
}

#[test]
fn what_is_in_the_way_is_waited_for_and_never_a_failure() {
    let objected = || Outlook {
        permission: Ok(()),
        preflight: vec![iotdm_proto::reply::PreflightCheck::objecting("dpkg", "busy")],
    };
    let gone = || Outlook::of(Err(Refusal::LogindUnavailable("gone".to_owned())));
    let held = || Outlook::of(Err(blocked()));
    let last = CLOSES - 600;
    for (outlook, again) in [(held(), None), (objected(), Some(60)), (gone(), Some(60))] {
        let mut agent = due();
        let log = play_at(&mut agent, [(TURN_AT + 1, Event::Permission(outlook.clone()))]);
        let waiting = format!("report {} waiting", id(&["dbus"]));
        assert!(log.contains(&waiting), "{log:?}");
        let left = last - TURN_AT - 1;
        let looks = format!("deadline Some({})", again.unwrap_or(left));
        assert!(log.contains(&looks), "{log:?}");
        // It goes when that is over, in the same window.
        let mut free = Clocked { agent: agent.agent.clone(), now: agent.now };
        let over = [(TURN_AT + 300, Event::InhibitorsChanged), (TURN_AT + 301, permission(Ok(())))];
        assert_eq!(
            play_at(&mut free, over).last().unwrap(),
            &format!("report {} rebooting started", id(&["dbus"]))
        );
        // Else it waits for the next.
        let mut log = play_at(&mut agent, [(last, Event::DeadlinePassed)]);
        if again.is_some() {
            assert_eq!(log.last().unwrap(), &waiting, "{log:?}");
        }
        log = play_at(&mut agent, [(last + 1, Event::InhibitorsChanged), (last + 2, permission(Ok(())))]);
        assert_eq!(reboots(&log), 0);
        let next = "1970-01-03T02:17:00.000Z";
        assert_eq!(agent.status(), format!("reboot {} waits until {next}", id(&["dbus"])));
        let turn = [(TURN_AT + DAY, Event::DeadlinePassed), (TURN_AT + DAY, permission(Ok(())))];
        assert_eq!(
            play_at(&mut agent, turn).last().unwrap(),
            &format!("report {} rebooting started", id(&["dbus"]))
        );
    }
    // Nor are the guards one.
    let guards = Guards { min_uptime: Duration::from_secs(DAY as u64), ..settings().guards };
    let start = Start { need: need(&["dbus"]), ..start("boot-1", OPENS) };
    let (agent, _) = resumed(None, None, start, Settings { guards, ..settings() }, at(OPENS + 10));
    assert_eq!(agent.status(), format!("reboot {} scheduled for 1970-01-03T02:17:00.000Z", id(&["dbus"])));
}

#[test]
fn what_is_in_the_way_once_the_window_has_closed_is_not_waited_for() {
    let mut agent = due();
    let log = play_at(&mut agent, [(CLOSES, permission(Err(blocked())))]);
    assert_eq!(agent.status(), format!("reboot {} waits until 1970-01-03T02:17:00.000Z", id(&["dbus"])));
    assert!(!log.iter().any(|line| line.contains("note ended")), "{log:?}");
}

/// An inhibitor that is held is waited for, so one that came and went while logind was
/// asked is no failure; a logind that refuses without one is.
#[test]
fn a_logind_that_refuses_while_an_inhibitor_comes_and_goes_is_asked_again() {
    let refused = [(TURN_AT + 3, Event::RebootAsked(Err("inhibited".into())))];
    let began = || {
        let (mut agent, _) = asked();
        assert_eq!(play_at(&mut agent, until_logind_is_asked()).last().unwrap(), "reboot");
        play_at(&mut agent, refused.clone());
        agent
    };
    let mut agent = began();
    let released = [(TURN_AT + 4, Event::InhibitorsChanged), (TURN_AT + 5, permission(Ok(())))];
    assert_eq!(
        play_at(&mut agent, released).last().unwrap(),
        &format!("report {} rebooting started", id(&["dbus"]))
    );
    for seconds in [TURN_AT + 4, CLOSES] {
        let log = play_at(&mut began(), [(seconds, permission(Ok(())))]);
        let failed = format!("report {} failed started logindRefused", id(&["dbus"]));
        assert_eq!(log.last().unwrap(), &failed, "at {seconds}");
    }
}

#[test]
fn it_tells_which_units_had_failed_before_as_any_request_does() {
    use iotdm_proto::health::HealthState;
    let (mut agent, _) = boots(None, "boot-1", 0, None);
    let failed = vec!["app.service".to_owned()];
    let observed = crate::decide::health::Observed {
        state: HealthState::Degraded,
        down: Vec::new(),
        failed: failed.clone(),
    };
    agent.handle(Event::Health { observed, report: true }, at(43_000));
    let effects = agent.handle(Event::Need(need(&["dbus"])), at(43_200));
    assert_eq!(report(&effects).reboot.unwrap().failed_before, failed);
}

/// The twin is the memory of a daemon that loses its record.
#[test]
fn what_was_asked_for_is_told_as_long_as_the_need_lasts() {
    let (_, effects) = asked();
    let record = Record { reboot: None, plan: None, ..last_saved(&effects) };
    let asked_for = |known: &[&str]| {
        let uptime = Duration::from_secs(700);
        let start = Start { need: need(known), uptime, ..start("boot-1", 42_500) };
        let (_, effects) = resumed(Some(record.clone()), None, start, settings(), at(43_210));
        report(&effects).reboot_required.unwrap().asked_for
    };
    assert!(record.asked_for.is_some());
    assert_eq!(asked_for(&["dbus"]), record.asked_for);
    assert_eq!(asked_for(&[]), None, "it went while the daemon was not running");
}

#[test]
fn one_that_was_called_off_stays_told_whatever_becomes_of_somebodys() {
    let (mut agent, _) = asked();
    play(&mut agent, [method("1", "cancelReboot", ""), Event::Saved(Ok(())), Event::Reported]);
    let told = agent.told().reboot_required.unwrap().asked_for;
    assert!(told.is_some());
    let later = r#"{"id":"a","delaySeconds":600}"#;
    let events = [call("2", later), permission(Ok(())), Event::Saved(Ok(())), delivered("2")];
    play(&mut agent, events.into_iter().chain([method("3", "cancelReboot", "")]));
    let log = play(&mut agent, [Event::Saved(Ok(()))]);
    assert_eq!(log.last().unwrap(), "report a cancelled", "{log:?}");
    assert_eq!(agent.told().reboot_required.unwrap().asked_for, told);
}

#[test]
fn a_hub_that_was_away_does_not_lead_out_of_the_window() {
    let begun = || {
        let mut agent = due();
        play_at(&mut agent, [(TURN_AT, permission(Ok(())))]);
        agent
    };
    // It comes back in the window: everything is looked at again, and told again.
    let mut agent = begun();
    let log = play_at(&mut agent, [(TURN_AT + 600, Event::Reported), (TURN_AT + 600, permission(Ok(())))]);
    assert!(log.contains(&"check".to_owned()), "{log:?}");
    assert_eq!(log.last().unwrap(), &format!("report {} rebooting started", id(&["dbus"])));
    let log = play_at(&mut agent, [(TURN_AT + 601, Event::Reported), (TURN_AT + 601, Event::Saved(Ok(())))]);
    assert_eq!(reboots(&log), 1);
    // For a minute what was looked at holds.
    for (after, expected) in [(60, "save"), (61, "check")] {
        let log = play_at(&mut begun(), [(TURN_AT + after, Event::Reported)]);
        assert_eq!(log.iter().any(|line| line.starts_with("check")), expected == "check", "{log:?}");
        assert_eq!(log.iter().any(|line| line.ends_with(" asking")), expected == "save", "{log:?}");
    }
    // Or after it.
    let mut agent = begun();
    let log = play_at(&mut agent, [(CLOSES, Event::Reported), (CLOSES, permission(Ok(())))]);
    assert_eq!((reboots(&log), log.last().unwrap()), (0, &format!("report {} waiting", id(&["dbus"]))));
    assert_eq!(agent.agent.core.record.starts, []);
    // Or when the last instant has just passed.
    let last = CLOSES - 600;
    let mut agent = due();
    play_at(&mut agent, [(last - 5, permission(Ok(())))]);
    let mut in_time = agent.clone();
    let log = play_at(&mut in_time, [(last, Event::Reported), (last, Event::Saved(Ok(())))]);
    assert_eq!(reboots(&log), 1, "{log:?}");
    let log = play_at(&mut agent, [(last + 1, Event::Reported), (last + 1, permission(Ok(())))]);
    assert_eq!((reboots(&log), log.last().unwrap()), (0, &format!("report {} waiting", id(&["dbus"]))));
    // A wish is kept in its window as well.
    let (mut agent, _) = boots(None, "boot-1", 0, None);
    let wish = Event::Desired { reboot: Some(json!({"id": "w"}).into()), memory: None };
    let log = play_at(
        &mut agent,
        [
            (OPENS, wish),
            (OPENS, permission(Ok(()))),
            (OPENS, Event::Saved(Ok(()))),
            (CLOSES, Event::Reported),
            (CLOSES, permission(Ok(()))),
        ],
    );
    assert_eq!((reboots(&log), log.last().unwrap().as_str()), (0, "report w waiting"));
}

#[test]
fn a_clock_that_is_set_does_not_lead_out_of_the_window() {
    let mut agent = due();
    play_at(&mut agent, [(TURN_AT, permission(Ok(())))]);
    // It is noon.
    let noon = TURN_AT + 34_980;
    let set = Event::ClockSet { clock: Clock::Synchronized, boot_time: at(34_980) };
    let log = play_at(&mut agent, [(noon, set), (noon + 1, Event::Reported), (noon + 1, permission(Ok(())))]);
    assert_eq!(reboots(&log), 0, "{log:?}");
    assert_eq!(agent.status(), format!("reboot {} waits until 1970-01-03T02:17:00.000Z", id(&["dbus"])));
}

#[test]
fn a_need_that_goes_takes_the_request_with_it_until_it_comes_back() {
    for moment in [50_000, TURN_AT, TURN_AT + 1, TURN_AT + 2] {
        let (mut agent, _) = asked();
        let road = [
            (TURN_AT, Event::DeadlinePassed),
            (TURN_AT + 1, permission(Err(blocked()))),
            (TURN_AT + 2, Event::InhibitorsChanged),
            (TURN_AT + 2, permission(Ok(()))),
        ];
        play_at(&mut agent, road.into_iter().take_while(|(seconds, _)| *seconds <= moment));
        let gone = if moment == TURN_AT { None } else { need(&[]) };
        let log = play_at(&mut agent, [(moment, Event::Need(gone))]);
        let id = id(&["dbus"]);
        assert_eq!(
            log,
            [
                "deadline None".to_owned(),
                "note ended cancelled".to_owned(),
                format!("save {id} cancelled"),
                format!("report {id} cancelled")
            ],
            "{moment}"
        );
        assert_eq!((agent.agent.core.record.starts.len(), agent.status().as_str()), (0, "no reboot pending"));
        agent.handle(Event::Reported, at(moment + 4));
        let effects = agent.handle(Event::Need(need(&["dbus"])), at(moment + 5));
        assert!(log_of(&effects).contains(&format!("note accepted {id}")));
    }
}

#[test]
fn a_need_that_goes_while_the_disk_is_full_reboots_nothing() {
    let mut agent = due();
    let full = || Event::Saved(Err("disk full".into()));
    let events = [permission(Ok(())), Event::Reported, full(), Event::Need(None), Event::Saved(Ok(()))];
    let log = play_at(&mut agent, events.map(|event| (TURN_AT, event)));
    assert_eq!((reboots(&log), log.last().unwrap()), (0, &format!("report {} cancelled", id(&["dbus"]))));
    // For other reasons, it goes on.
    let mut agent = due();
    let events =
        [permission(Ok(())), Event::Reported, full(), Event::Need(need(&["libc6"])), Event::Saved(Ok(()))];
    assert_eq!(reboots(&play_at(&mut agent, events.map(|event| (TURN_AT, event)))), 1);
}

fn log_of(effects: &[Effect]) -> Vec<String> {
    super::log(effects)
}

#[test]
fn further_reasons_go_with_the_request_that_waits() {
    let (mut agent, _) = asked();
    let effects = agent.handle(Event::Need(need(&["dbus", "libc6"])), at(50_000));
    let both = id(&["dbus", "libc6"]);
    assert_eq!(log(&effects), [format!("save {both} scheduled"), format!("report {both} scheduled")]);
    let told = report(&effects);
    let reboot = told.reboot.unwrap();
    assert_eq!(
        (reboot.not_before, reboot.reason.as_deref()),
        (Some(at(TURN_AT)), Some("required by dbus, libc6"))
    );
    assert_eq!(told.reboot_required.unwrap().asked_for, both.strip_prefix("required:").map(str::to_owned));
    let record = &agent.agent.core.record;
    assert_eq!(record.granted.iter().map(|request| request.id.as_str()).collect::<Vec<_>>(), [both]);
    assert_eq!(record.granted_at.len(), 1);
}

#[test]
fn called_off_it_stays_so() {
    let (mut agent, _) = asked();
    let log = play(&mut agent, [method("1", "cancelReboot", ""), Event::Saved(Ok(()))]);
    assert_eq!(
        log[1..],
        [
            "note ended cancelled",
            "reply 1 200 cancelled",
            "deadline None",
            &format!("report {} cancelled", id(&["dbus"]))
        ]
    );
    assert_eq!(agent.status(), "no reboot pending");
    assert!(play(&mut agent, [Event::InhibitorsChanged, Event::Need(need(&["dbus"]))]).is_empty());
    // For other reasons it is asked for.
    play(&mut agent, [Event::Reported, Event::Need(need(&["libc6"]))]);
    assert!(agent.status().starts_with("reboot required:"), "{}", agent.status());
}

/// The hub acknowledges an outcome, and then time passes in which it can be read.
fn outcome_stands(agent: &mut Clocked) -> Vec<String> {
    assert_eq!(play(agent, [Event::Reported]), ["deadline Some(600)"]);
    let early = agent.now + 599;
    assert_eq!(play_at(agent, [(early, Event::InhibitorsChanged)]), ["deadline Some(1)"]);
    play_at(agent, [(early + 1, Event::DeadlinePassed)])
}

/// The request `a` has taken the place of the daemon's own.
fn replaced(agent: &mut Clocked) {
    let log = play(agent, [call("1", ASKED), surveyed("1", Ok(())), Event::Saved(Ok(())), delivered("1")]);
    assert!(log.contains(&"reply 1 200 scheduled".to_owned()), "{log:?}");
}

/// The events at this machine's turn, where nothing is in the way.
fn until_logind_is_asked() -> [(i64, Event); 4] {
    [
        (TURN_AT, Event::DeadlinePassed),
        (TURN_AT + 1, permission(Ok(()))),
        (TURN_AT + 2, Event::Reported),
        (TURN_AT + 2, Event::Saved(Ok(()))),
    ]
}

#[test]
fn an_outcome_is_told_and_can_be_read_before_the_daemon_asks_again() {
    let own = id(&["dbus"]);
    // A call that fails when its time has come.
    let (mut agent, _) = asked();
    replaced(&mut agent);
    let events = [(TURN_AT, Event::DeadlinePassed), (TURN_AT + 1, permission(Err(blocked())))];
    let log = play_at(&mut agent, events);
    assert_eq!(
        log[log.len() - 2..],
        ["save a failed blockedByInhibitor", "report a failed blockedByInhibitor"]
    );
    assert_eq!(outcome_stands(&mut agent).last().unwrap(), "check");
    // What the hub acknowledges while the disk is full is not this outcome, which waits
    // for the disk.
    let (mut agent, _) = asked();
    replaced(&mut agent);
    let full = Event::Saved(Err("disk full".into()));
    play_at(&mut agent, [(TURN_AT, Event::DeadlinePassed), (TURN_AT, permission(Err(blocked())))]);
    assert_eq!(play(&mut agent, [full, Event::Reported]), [""; 0]);
    assert_eq!(play(&mut agent, [Event::Saved(Ok(()))]), ["report a failed blockedByInhibitor"]);
    assert_eq!(outcome_stands(&mut agent).last().unwrap(), "check");
    // A wish that cannot be granted.
    let (mut agent, _) = asked();
    let wish = Event::Desired { reboot: Some(json!({"id": "w", "notBefore": "soon"}).into()), memory: None };
    let log = play(&mut agent, [wish, Event::Saved(Ok(()))]);
    assert_eq!(log.last().unwrap(), "report w failed invalidPayload");
    assert_eq!(outcome_stands(&mut agent).last().unwrap(), &format!("report {own} scheduled"));
    // A call that rebooted the machine, which then needs another reboot while the hub is away.
    let (mut agent, _) = asked();
    replaced(&mut agent);
    play_at(&mut agent, until_logind_is_asked());
    let mut effects = agent.handle(Event::RebootAsked(Ok(())), at(TURN_AT + 3));
    effects.extend(agent.handle(Event::ShutdownBegan, at(TURN_AT + 4)));
    let known = need(&["libc6"]);
    let (mut agent, effects) = boots(Some(last_saved(&effects)), "boot-2", TURN_AT + 60, known);
    assert_eq!(log_of(&effects).last().unwrap(), "report a completed started");
    assert_eq!(play_at(&mut agent, [(TURN_AT + 90, Event::Saved(Ok(())))]), [""; 0]);
    // A clock that is set is no time that has passed.
    play_at(&mut agent, [(TURN_AT + 100, Event::Reported)]);
    let set = Event::ClockSet { clock: Clock::Synchronized, boot_time: at(TURN_AT + 1060) };
    let log = play_at(&mut agent, [(TURN_AT + 1101, set)]);
    assert_eq!(log.last().unwrap(), "deadline Some(599)");
    assert_eq!(play_at(&mut agent, [(TURN_AT + 1700, Event::DeadlinePassed)]).last().unwrap(), "check");
}

#[test]
fn a_hub_that_is_away_is_waited_for_without_haste_and_without_a_failure() {
    // The daemon's own request has waited for an inhibitor, and the window ends meanwhile.
    let mut agent = due();
    let road = [
        (TURN_AT + 1, permission(Err(blocked()))),
        (TURN_AT + 2, Event::InhibitorsChanged),
        (TURN_AT + 2, permission(Ok(()))),
    ];
    let log = play_at(&mut agent, road);
    assert_eq!(
        log[log.len() - 2..],
        ["deadline None", &format!("report {} rebooting started", id(&["dbus"]))]
    );
    assert_eq!(play_at(&mut agent, [(CLOSES, Event::DeadlinePassed)]), ["deadline None"]);
    // A wish that has waited, and a daemon that starts again when its time to wait is over.
    let (mut agent, _) = resume(None, "boot-1", 0);
    let wish = json!({"id": "w", "onInhibitor": "wait", "waitSeconds": 60});
    let wished = || Event::Desired { reboot: Some(wish.clone().into()), memory: None };
    let road = [
        (100, wished()),
        (100, permission(Err(blocked()))),
        (100, Event::Saved(Ok(()))),
        (101, permission(Err(blocked()))),
        (102, Event::InhibitorsChanged),
    ];
    play_at(&mut agent, road);
    let effects = agent.handle(permission(Ok(())), at(103));
    assert_eq!(log_of(&effects).last().unwrap(), "report w rebooting started");
    assert_eq!(play_at(&mut agent.clone(), [(900, Event::DeadlinePassed)]), ["deadline None"]);
    let noticed = Event::ClockSet { clock: Clock::Synchronized, boot_time: at(0) };
    assert!(!play_at(&mut agent.clone(), [(900, noticed)]).iter().any(|line| line.contains("failed")));
    let (mut agent, effects) =
        resumed(Some(last_saved(&effects)), None, start("boot-1", 0), SETTINGS, at(900));
    assert_eq!(log_of(&effects), ["deadline None", "report w waiting", "check"]);
    let log = play_at(&mut agent, [(902, permission(Ok(())))]);
    assert_eq!(log.last().unwrap(), "report w rebooting started", "{log:?}");
}

#[test]
fn one_that_the_hub_has_not_heard_of_is_in_nobodys_way() {
    let own = id(&["dbus"]);
    let begun = || {
        let mut agent = due();
        play_at(&mut agent, [(TURN_AT, permission(Ok(())))]);
        agent
    };
    let mut agent = begun();
    // The call cannot be recorded: then the hub is waited for on.
    let full = Event::Saved(Err("disk full".into()));
    let log = play(&mut agent, [call("1", ASKED), surveyed("1", Ok(())), full]);
    assert!(log.contains(&"reply 1 500 storageFailed".to_owned()), "{log:?}");
    assert_eq!(log.last().unwrap(), &format!("report {own} rebooting started"));
    let log = play(&mut agent, [call("2", ASKED), surveyed("2", Ok(()))]);
    assert_eq!(log, ["survey 2", "save a rebooting"]);
    let record = &agent.agent.core.record;
    assert_eq!((&record.starts[..], &record.asked_for), (&[][..], &None), "as if it had never begun");
    let mut agent = begun();
    let wish = Event::Desired { reboot: Some(json!({"id": "w"}).into()), memory: None };
    let log = play(&mut agent, [wish, Event::Saved(Ok(())), permission(Ok(())), Event::Saved(Ok(()))]);
    assert_eq!(log.last().unwrap(), "report w rebooting started", "{log:?}");
    // As long as that is not known, the hub's word leads on.
    let mut agent = begun();
    let log = play(&mut agent, [call("1", ASKED), Event::Reported, surveyed("1", Ok(()))]);
    assert_eq!(log.last().unwrap(), "reply 1 409 rebootPending", "{log:?}");
}

#[test]
fn somebodys_request_that_did_not_reboot_has_not_met_the_need() {
    let own = id(&["dbus"]);
    let (mut agent, _) = asked();
    replaced(&mut agent);
    play_at(&mut agent, until_logind_is_asked());
    let stays = [(TURN_AT + 3, Event::RebootAsked(Ok(()))), (TURN_AT + 303, stays_up())];
    let log = play_at(&mut agent, stays);
    assert_eq!(log.last().unwrap(), "report a failed started neverWentDown");
    assert_eq!(outcome_stands(&mut agent).last().unwrap(), "check");
    assert!(agent.status().starts_with(&format!("reboot {own}")), "{}", agent.status());
    // One attempt is all that there is: if the daemon's own has failed, no other's brings it back.
    let road = [
        permission(Ok(())),
        Event::Reported,
        Event::Saved(Ok(())),
        Event::RebootAsked(Ok(())),
        stays_up(),
        Event::Reported,
        call("2", r#"{"id":"b"}"#),
        permission(Ok(())),
        Event::Saved(Ok(())),
        delivered("2"),
        permission(Ok(())),
        Event::DeadlinePassed,
        Event::Saved(Ok(())),
        Event::RebootAsked(Ok(())),
        stays_up(),
        Event::Reported,
    ];
    let log = play(&mut agent, road);
    assert!(log.contains(&format!("report {own} failed started neverWentDown")), "{log:?}");
    assert_eq!(log.last().unwrap(), "report b failed started neverWentDown", "{log:?}");
    let later = agent.now + 700;
    assert_eq!(play_at(&mut agent, [(later, Event::InhibitorsChanged)]), [""; 0]);
}

#[test]
fn what_is_taken_back_was_not_granted() {
    let (mut agent, _) = asked();
    assert_eq!(agent.agent.core.record.granted_at.len(), 1);
    replaced(&mut agent);
    assert_eq!(agent.agent.core.record.granted_at.len(), 1, "that of the call");
    let (mut agent, _) = asked();
    play(&mut agent, [Event::Need(need(&["libc6"])), Event::Need(None)]);
    assert_eq!(
        (&agent.agent.core.record.granted[..], agent.agent.core.record.granted_at.len()),
        (&[][..], 0)
    );
    // A call of another moment is not taken back with it.
    let (mut agent, _) = boots(None, "boot-1", 0, None);
    let road = [
        call("1", ASKED),
        permission(Ok(())),
        Event::Saved(Ok(())),
        method("2", "cancelReboot", ""),
        Event::Saved(Ok(())),
        Event::Reported,
    ];
    play(&mut agent, road);
    let later = agent.now + 600;
    play_at(&mut agent, [(later, Event::Need(need(&["dbus"]))), (later + 1, Event::Need(None))]);
    assert_eq!(agent.agent.core.record.granted_at.len(), 1);
}

#[test]
fn an_operator_comes_first() {
    let own = id(&["dbus"]);
    // Refused, the call changes nothing.
    let (mut agent, _) = asked();
    let survey = Effect::Survey { rid: "1".into(), preflight: true };
    assert_eq!(agent.clone().handle(call("1", ASKED), at(43_201)), [survey], "with the preflight checks");
    let log = play(&mut agent, [call("1", ASKED), surveyed("1", Err(blocked()))]);
    assert_eq!(log[0], "survey 1");
    // Outside of the window an inhibitor does not matter yet.
    assert_eq!(log[1..], ["save a scheduled"]);
    let (mut agent, _) = asked();
    let away = Refusal::LogindUnavailable("gone".to_owned());
    let log = play(&mut agent, [call("1", ASKED), surveyed("1", Err(away))]);
    assert_eq!(log[1..], ["note refused logindUnavailable", "reply 1 503 logindUnavailable"]);
    assert_eq!(agent.status(), format!("reboot {own} scheduled for 1970-01-02T02:17:00.000Z"));
    // Not recorded, neither.
    let full = Event::Saved(Err("disk full".into()));
    let log = play(&mut agent, [call("2", ASKED), surveyed("2", Ok(())), full]);
    assert_eq!(log.last().unwrap(), &format!("report {own} scheduled"));
    assert!(log.contains(&"reply 2 500 storageFailed".to_owned()), "{log:?}");
    // Granted, it takes its place, and of two calls the first.
    let events = [
        call("3", ASKED),
        call("4", r#"{"id":"b"}"#),
        surveyed("3", Ok(())),
        Event::Saved(Ok(())),
        surveyed("4", Ok(())),
        call("5", ASKED),
        delivered("3"),
        delivered("5"),
    ];
    let log = play(&mut agent, events);
    let replies: Vec<&String> = log.iter().filter(|line| line.starts_with("reply")).collect();
    assert_eq!(replies, ["reply 3 200 scheduled", "reply 4 409 rebootPending", "reply 5 200 scheduled"]);
    assert_eq!(agent.agent.core.record.asked_for, None);
    // When that ends without a reboot, the need is still there.
    let log = play(&mut agent, [method("6", "cancelReboot", r#"{"id":"a"}"#), Event::Saved(Ok(()))]);
    assert_eq!(log.last().unwrap(), "report a cancelled");
    assert_eq!(outcome_stands(&mut agent).last().unwrap(), &format!("report {own} scheduled"));
    // When it ends with one, the need has been asked for.
    play(
        &mut agent,
        [call("7", r#"{"id":"c"}"#), surveyed("7", Ok(())), Event::Saved(Ok(())), delivered("7")],
    );
    let mut effects = agent.handle(Event::DeadlinePassed, at(TURN_AT));
    effects.extend(agent.handle(permission(Ok(())), at(TURN_AT)));
    let (mut agent, effects) = boots(Some(last_saved(&effects)), "boot-2", TURN_AT + 30, need(&["dbus"]));
    assert!(report(&effects).reboot_required.unwrap().asked_for.is_some());
    play(&mut agent, [Event::InhibitorsChanged]);
    assert_eq!(agent.status(), "no reboot pending");
}

#[test]
fn a_wish_comes_first() {
    let (mut agent, _) = asked();
    let wish = || Event::Desired { reboot: Some(json!({"id": "w"}).into()), memory: None };
    let log = play(&mut agent, [wish(), Event::Saved(Ok(())), permission(Ok(())), Event::Saved(Ok(()))]);
    assert_eq!(log[1], "note ended cancelled");
    assert_eq!(log.last().unwrap(), "report w scheduled", "{log:?}");
    let gone = Event::Desired { reboot: None, memory: None };
    let log = play(&mut agent, [gone, Event::Saved(Ok(()))]);
    assert!(log.contains(&"report w cancelled".to_owned()), "{log:?}");
    assert_eq!(outcome_stands(&mut agent).last().unwrap(), &format!("report {} scheduled", id(&["dbus"])));
    // One that was carried out does not.
    let mut log = play(&mut agent, [wish()]);
    log.retain(|line| line.contains("cancelled"));
    assert_eq!(log, [""; 0]);
}

#[test]
fn off_means_that_a_need_is_only_told() {
    let (mut agent, _) = resumed(None, None, start("boot-1", 0), SETTINGS, at(10));
    let effects = agent.handle(Event::Need(need(&["dbus"])), at(100));
    assert_eq!(log(&effects), ["save nothing", "report nothing"]);
    assert_eq!(report(&effects).reboot_required.unwrap().asked_for, None);
    // Switched off, what was asked for is taken back.
    let record = last_saved(&asked().1);
    let start = Start { need: need(&["dbus"]), ..start("boot-1", 0) };
    let (mut agent, _) = resumed(Some(record), None, start, SETTINGS, at(50_000));
    let log = play_at(&mut agent, [(50_001, Event::InhibitorsChanged)]);
    assert_eq!(log.last().unwrap(), &format!("report {} cancelled", id(&["dbus"])));
}

#[test]
fn a_machine_that_is_going_down_is_not_asked_to() {
    let (mut agent, _) = boots(None, "boot-1", 0, None);
    let log = play(&mut agent, [Event::ShutdownBegan, Event::Need(need(&["dbus"]))]);
    assert!(!log.iter().any(|line| line.contains("required:")), "{log:?}");
    let log = play(&mut agent, [Event::ShutdownCancelled]);
    assert_eq!(log.last().unwrap(), &format!("report {} scheduled", id(&["dbus"])));
}

#[test]
fn a_flag_that_each_boot_makes_anew_is_the_same_need() {
    let (mut agent, _) = asked();
    play_at(&mut agent, until_logind_is_asked());
    let effects = agent.handle(Event::RebootAsked(Ok(())), at(TURN_AT + 3));
    let told = Report { reboot: last_saved(&effects).reboot, ..report(&asked().1) };
    // So long ago that the request for it is forgotten.
    let record = Record { granted: Vec::new(), ..last_saved(&effects) };
    let after = TURN_AT + 100;
    let asks_again = |record: Option<Record>, uptime: u64, between: Option<Need>| {
        let start = Start { uptime: Duration::from_secs(5), ..start("boot-2", TURN_AT + 60) };
        let was_lost = record.is_none();
        let (agent, _) = Agent::resume(record, None, start, settings(), at(TURN_AT + 65));
        let mut agent = Clocked { agent, now: TURN_AT + 65 };
        let memory = was_lost.then(|| Box::new(memory(&told)));
        agent.handle(Event::Desired { reboot: None, memory }, at(after));
        agent.agent.core.record.granted.clear();
        agent.handle(Event::Reported, at(after));
        agent.agent.count(Duration::from_secs(uptime));
        let events = [between.clone(), between.and(None), need(&["dbus"])].map(Event::Need);
        let log = play_at(&mut agent, events.map(|event| (after + 700, event)));
        log.contains(&format!("note accepted {}", id(&["dbus"])))
    };
    for record in [Some(record), None] {
        assert!(!asks_again(record.clone(), 30, None), "made anew by the boot");
        assert!(asks_again(record.clone(), 601, None), "it was gone, and came again");
        assert!(asks_again(record, 30, need(&["dbus"])), "it has come and gone in this boot");
    }
}
