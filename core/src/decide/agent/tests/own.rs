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
        // Something else is another matter.
        let log = play_at(&mut agent, [(after + 1, Event::Need(need(&["dbus", "libc6"])))]);
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
    // Or after it.
    let mut agent = begun();
    let log = play_at(&mut agent, [(CLOSES, Event::Reported), (CLOSES, permission(Ok(())))]);
    assert_eq!((reboots(&log), log.last().unwrap()), (0, &format!("report {} waiting", id(&["dbus"]))));
    assert_eq!(agent.agent.core.record.starts, []);
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
        let effects = agent.handle(Event::Need(need(&["dbus"])), at(moment + 5));
        assert!(log_of(&effects).contains(&format!("note accepted {id}")));
    }
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
    play(&mut agent, [Event::Need(need(&["libc6"]))]);
    assert!(agent.status().starts_with("reboot required:"), "{}", agent.status());
}

#[test]
fn an_operator_comes_first() {
    let own = id(&["dbus"]);
    // Refused, the call changes nothing.
    let (mut agent, _) = asked();
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
    assert_eq!(log.last().unwrap(), &format!("report {own} scheduled"));
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
    assert_eq!(log.last().unwrap(), &format!("report {} scheduled", id(&["dbus"])), "{log:?}");
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
