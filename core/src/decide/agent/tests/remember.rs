//! What is remembered of granted requests, for how long, and where.

use super::*;
use crate::decide::ids::GrantedRequest;

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

fn asks(agent: &mut Clocked, id: &str) -> Vec<Effect> {
    let events = [
        call("1", &format!(r#"{{"id":"{id}","delaySeconds":60}}"#)),
        Event::Permission(Outlook::of(Ok(()))),
        Event::Saved(Ok(())),
        delivered("1"),
    ];
    let now = at(agent.now.max(100));
    events.into_iter().flat_map(|event| agent.handle(event, now)).collect()
}

fn cancels(agent: &mut Clocked) -> Vec<Effect> {
    let now = at(agent.now);
    let events = [method("2", "cancelReboot", ""), Event::Saved(Ok(()))];
    events.into_iter().flat_map(|event| agent.handle(event, now)).collect()
}

/// Asks with the `ids` and cancels each; what is moved to the file is kept there.
fn pairs(agent: &mut Clocked, ids: impl IntoIterator<Item = u32>) -> Vec<String> {
    let mut effects = Vec::new();
    for id in ids {
        effects.extend(asks(agent, &format!("id-{id}")));
        if effects.iter().any(|effect| matches!(effect, Effect::Keep { .. })) {
            agent.handle(Event::Kept { written: true }, at(agent.now));
        }
        effects.extend(cancels(agent));
        effects.extend(agent.handle(Event::Reported, at(agent.now)));
    }
    log(&effects)
}

/// As many as are granted in an hour, hour after hour, until `uptime`.
fn hours(agent: &mut Clocked, uptime: &mut u64, count: u32) {
    for first in (0..count).step_by(30) {
        let log = pairs(agent, first..count.min(first + 30));
        assert!(!log.iter().any(|line| line.contains("429 rate")), "{first}: {log:?}");
        pass(agent, uptime, HOUR);
    }
}

fn pass(agent: &mut Clocked, uptime: &mut u64, seconds: u64) {
    *uptime += seconds;
    agent.agent.count(Duration::from_secs(*uptime));
}

/// What stands in the file.
fn kept(agent: &Clocked) -> Vec<GrantedRequest> {
    agent.agent.clone().core.kept_is_lost().map_or_else(Vec::new, |effect| match effect {
        Effect::Keep { requests, .. } => requests,
        effect => panic!("{effect:?}"),
    })
}

fn refusal(effects: &[Effect]) -> Value {
    let bodies = bodies(effects);
    assert_eq!(bodies[0]["error"]["code"], "rateLimited", "{bodies:?}");
    bodies[0]["error"].clone()
}

/// Whether `id` is that of a request that was granted: then there is its reply at
/// once, and nothing else.
fn is_known(agent: &mut Clocked, id: &str) -> bool {
    let effects = agent.agent.clone().handle(call("7", &format!(r#"{{"id":"{id}"}}"#)), at(agent.now));
    log(&effects).first().is_some_and(|line| line == "reply 7 200 scheduled")
}

#[test]
fn of_a_loop_of_asking_and_cancelling_thirty_are_granted_in_an_hour() {
    let mut agent = idle();
    let mut uptime = 0;
    pairs(&mut agent, 0..10);
    pass(&mut agent, &mut uptime, 600);
    assert!(!pairs(&mut agent, 10..30).iter().any(|line| line.contains("429 rate")));
    let error = refusal(&asks(&mut agent, "id-30"));
    assert_eq!(error["retryAfterSeconds"], 3000);
    assert!(error["message"].as_str().unwrap().contains("30 requests an hour"), "{error}");
    // A dry run says the same, and what was granted is still known.
    agent.handle(call("3", r#"{"check":true}"#), at(200));
    assert_eq!(refusal(&agent.handle(surveyed("3", Ok(())), at(200)))["retryAfterSeconds"], 3000);
    assert!(is_known(&mut agent, "id-0") && is_known(&mut agent, "id-29"));
    // No date makes the hour pass.
    agent.handle(
        Event::ClockSet { clock: Clock::Unsynchronized, boot_time: at(400_000_000) },
        at(400_000_100),
    );
    assert_eq!(refusal(&asks(&mut agent, "id-30"))["retryAfterSeconds"], 3000);
    pass(&mut agent, &mut uptime, 2999);
    assert_eq!(refusal(&asks(&mut agent, "id-30"))["retryAfterSeconds"], 1);
    pass(&mut agent, &mut uptime, 1);
    let log = pairs(&mut agent, 30..41);
    assert_eq!(log.iter().filter(|line| line.contains("200 scheduled")).count(), 10);
    assert_eq!(log.iter().filter(|line| line.contains("429 rate")).count(), 1);
}

#[test]
fn the_limit_outlasts_a_restart_and_what_failed_to_be_recorded_does_not_count() {
    let mut agent = idle();
    for number in 0..40 {
        let id = format!(r#"{{"id":"failed-{number}"}}"#);
        play(
            &mut agent,
            [call("1", &id), Event::Permission(Outlook::of(Ok(()))), Event::Saved(Err("full".into()))],
        );
    }
    pairs(&mut agent, 0..30);
    let record = agent.agent.core.record.clone();
    let file = kept(&agent);
    let again = Start { granted: file, ..start("boot-2", 200) };
    let (mut agent, _) = resumed(Some(record), None, again, SETTINGS, at(210));
    refusal(&asks(&mut agent, "id-30"));
    assert!((0..30).all(|id| is_known(&mut agent, &format!("id-{id}"))));
}

#[test]
fn an_id_is_kept_for_eight_days_and_that_of_a_reboot_for_thirty() {
    let mut agent = idle();
    let mut uptime = 0;
    pairs(&mut agent, [1]);
    pass(&mut agent, &mut uptime, 8 * DAY - 1);
    assert!(is_known(&mut agent, "id-1"));
    pass(&mut agent, &mut uptime, 1);
    assert!(!is_known(&mut agent, "id-1"));

    let (mut agent, mut effects) = resume(None, "boot-1", 0);
    for event in straight() {
        effects.extend(agent.handle(event, at(100)));
    }
    let (mut agent, _) = resume(Some(last_saved(&effects)), "boot-2", 120);
    let known = |agent: &mut Clocked| {
        log(&agent.agent.clone().handle(call("7", ASKED), at(agent.now)))[0] == "reply 7 200 accepted"
    };
    agent.agent.count(Duration::from_secs(30 * DAY - 1));
    assert!(known(&mut agent));
    agent.agent.count(Duration::from_secs(30 * DAY));
    assert!(!known(&mut agent));
}

#[test]
fn a_pending_request_and_the_wish_that_stands_are_known_however_old() {
    let mut agent = idle();
    let wish = json!({"id": "w", "notBefore": "1970-11-01T00:00:00Z"});
    let wished = || Event::Desired { reboot: Some(DesiredReboot::from(wish.clone())), memory: None };
    play(&mut agent, [wished(), Event::Permission(Outlook::of(Ok(()))), Event::Saved(Ok(()))]);
    agent.agent.count(Duration::from_secs(200 * DAY));
    assert!(is_known(&mut agent, "w"));
    // Cancelled by a call, and still there in the twin; the age begins anew.
    cancels(&mut agent);
    agent.agent.count(Duration::from_secs(220 * DAY));
    assert!(is_known(&mut agent, "w"));
    assert_eq!(play(&mut agent, [wished()]), ["save w cancelled"], "but for the count");
    play(&mut agent, [Event::Desired { reboot: None, memory: None }]);
    assert!(!is_known(&mut agent, "w"));
}

#[test]
fn of_1024_the_oldest_has_to_be_forgotten_first() {
    let mut agent = idle();
    let mut uptime = 0;
    hours(&mut agent, &mut uptime, 1024);
    assert!(is_known(&mut agent, "id-0") && is_known(&mut agent, "id-1023"));
    let error = refusal(&asks(&mut agent, "id-1024"));
    assert_eq!(error["retryAfterSeconds"], 8 * DAY - uptime);
    assert!(error["message"].as_str().unwrap().contains("remembers 1024 requests"), "{error}");
    let rest = 8 * DAY - uptime;
    pass(&mut agent, &mut uptime, rest);
    let log = pairs(&mut agent, 1024..1056);
    // As many as are granted in an hour, and as were forgotten.
    assert_eq!(log.iter().filter(|line| line.contains("200 scheduled")).count(), 30);
    assert!(!is_known(&mut agent, "id-0") && is_known(&mut agent, "id-30"));
}

#[test]
fn the_record_lets_go_of_what_its_file_holds_and_of_nothing_else() {
    let mut agent = idle();
    assert!(!pairs(&mut agent, 0..16).iter().any(|line| line.starts_with("keep")));
    let effects = asks(&mut agent, "id-16");
    assert!(log(&effects).contains(&"keep 16 in all".to_owned()), "{:?}", log(&effects));
    let in_record = |agent: &Clocked| agent.agent.core.record.granted.len();
    // Until the file is synced, and if it cannot be.
    assert_eq!(in_record(&agent), 17);
    agent.handle(Event::Kept { written: false }, at(200));
    assert_eq!(in_record(&agent), 17);
    let effects = cancels(&mut agent);
    assert!(log(&effects).contains(&"keep 16 in all".to_owned()), "{:?}", log(&effects));
    agent.handle(Event::Kept { written: true }, at(200));
    assert_eq!(in_record(&agent), 1);
    assert_eq!(agent.agent.core.record.granted[0].id, "id-16", "the newest");
    assert!((0..17).all(|id| is_known(&mut agent, &format!("id-{id}"))));
    // From then on it is appended to.
    let log = pairs(&mut agent, 17..30).join("\n");
    assert!(!log.contains("keep"), "{log}");
    agent.agent.count(Duration::from_secs(HOUR));
    let log = pairs(&mut agent, 30..40).join("\n");
    assert!(log.contains("keep 16\n"), "{log}");
    // Until the file itself is gone.
    let effects = agent.handle(Event::KeptIsGone, at(300));
    let Some(Effect::Keep { requests, whole: true }) = effects.first() else { panic!("{effects:?}") };
    assert_eq!(requests.len(), 32);
}

#[test]
fn a_file_with_much_that_is_forgotten_is_written_anew() {
    let mut agent = idle();
    let mut uptime = 0;
    hours(&mut agent, &mut uptime, 330);
    pass(&mut agent, &mut uptime, 8 * DAY);
    let log = pairs(&mut agent, 330..360).join("\n");
    assert!(log.contains("keep 16 in all"), "{log}");
}

/// An entry of the file for the request `id`, granted when so much had passed.
fn entry(id: &str, seconds: u64) -> GrantedRequest {
    GrantedRequest {
        id: id.to_owned(),
        body: json!({"id": id, "status": "scheduled"}),
        begun: false,
        at: Some(seconds * 1000),
    }
}

/// One that is remembered for a month.
fn begun() -> GrantedRequest {
    GrantedRequest { begun: true, ..entry("x", 0) }
}

/// A daemon that has found a file with this, and no record.
fn with_file(granted: Vec<GrantedRequest>) -> Clocked {
    resumed(None, None, Start { granted, ..start("boot-1", 0) }, SETTINGS, at(10)).0
}

/// Up to 256 entries in vain are cheaper than writing the whole file.
#[test]
fn a_file_is_written_anew_from_257_entries_on_that_are_in_vain() {
    let anew = |agent: &mut Clocked, ids: std::ops::Range<u32>| {
        let log = pairs(agent, ids).join("\n");
        assert!(log.contains("keep "), "{log}");
        log.contains(" in all")
    };
    // Of entries with the same id, the last counts.
    assert!(!anew(&mut with_file(vec![begun(); 257]), 0..17));
    assert!(anew(&mut with_file(vec![begun(); 258]), 0..17));
    // Those that were in vain before more is appended still are.
    let mut agent = with_file(vec![begun(); 257]);
    assert!(!anew(&mut agent, 0..17));
    agent.agent.count(Duration::from_secs(8 * DAY));
    assert!(anew(&mut agent, 17..34));
    // What is forgotten while it is written stands there in vain.
    let mut agent = with_file(vec![begun(); 257]);
    for id in 0..17 {
        asks(&mut agent, &format!("id-{id}"));
        cancels(&mut agent);
    }
    agent.agent.count(Duration::from_secs(8 * DAY));
    asks(&mut agent, "late");
    agent.handle(Event::Kept { written: true }, at(agent.now));
    cancels(&mut agent);
    assert!(anew(&mut agent, 20..37));
    // Nothing else does.
    let mut agent = idle();
    let mut uptime = 0;
    let mut log = String::new();
    for first in [0, 17, 34, 51, 68] {
        log += &pairs(&mut agent, first..first + 17).join("\n");
        pass(&mut agent, &mut uptime, HOUR);
    }
    assert_eq!((log.matches(" in all").count(), log.matches("keep ").count()), (1, 5), "{log}");
}

/// However many were moved at once: what comes meanwhile is not.
#[test]
fn the_newest_stays_in_the_record() {
    let mut agent = idle();
    let mut uptime = 0;
    for id in 0..35 {
        asks(&mut agent, &format!("id-{id}"));
        cancels(&mut agent);
        if id == 20 {
            pass(&mut agent, &mut uptime, HOUR);
        }
    }
    agent.handle(Event::Kept { written: true }, at(agent.now));
    let effects = asks(&mut agent, "newest");
    assert!(log(&effects).contains(&"keep 19".to_owned()), "{:?}", log(&effects));
    agent.handle(Event::Kept { written: true }, at(agent.now));
    let left: Vec<&str> = agent.agent.core.record.granted.iter().map(|known| known.id.as_str()).collect();
    assert_eq!(left, ["newest"]);
}

/// So do those that the record takes back, as their instants in the file are wrong.
#[test]
fn entries_that_the_record_has_taken_back_are_in_vain() {
    let mut agent = idle();
    pairs(&mut agent, 0..2);
    agent.agent.count(Duration::from_secs(1));
    let record = agent.agent.core.record.clone();
    let granted = [vec![begun(); 257], vec![entry("y", 1)]].concat();
    let boot = Start { clock: Clock::Unsynchronized, granted, ..start("boot-2", 150) };
    let (mut agent, _) = resumed(Some(record), None, boot, SETTINGS, at(60));
    let right = Event::ClockSet { clock: Clock::Synchronized, boot_time: at(864_200) };
    agent.handle(right, at(864_210));
    assert!(agent.agent.core.record.granted.iter().any(|request| request.id == "y"));
    let log = pairs(&mut agent, 2..19).join("\n");
    assert!(log.contains(" in all"), "{log}");
}

/// The file tells how much time has passed, at least.
#[test]
fn without_a_record_an_id_is_kept_no_longer_than_with_one() {
    let mut agent = with_file(vec![entry("old", 0), entry("new", 40 * DAY)]);
    assert!(!is_known(&mut agent, "old") && is_known(&mut agent, "new"));
    agent.agent.count(Duration::from_secs(8 * DAY - 1));
    assert!(is_known(&mut agent, "new"));
    agent.agent.count(Duration::from_secs(8 * DAY));
    assert!(!is_known(&mut agent, "new"));
}

#[test]
fn only_the_pending_request_is_kept_for_being_pending() {
    let mut agent = idle();
    pairs(&mut agent, [1]);
    asks(&mut agent, "late");
    agent.agent.count(Duration::from_secs(9 * DAY));
    assert!(is_known(&mut agent, "late") && !is_known(&mut agent, "id-1"));
}

#[test]
fn the_answers_of_an_older_version_are_taken_over_for_the_longest_time() {
    let old = json!({
        "version": 2,
        "boot": {"bootId": "boot-1", "bootTime": at(0), "cause": "unknown", "clock": "synchronized"},
        "answers": [
            {"id": "a", "body": {"id": "a", "status": "scheduled", "message": "m", "bootId": "b", "ignored": ["x"]}},
            {"id": "b", "body": {"id": "b", "status": "scheduled", "message": "m", "bootId": "b", "ignored": []}},
        ],
    });
    let (mut agent, _) = resume(Some(serde_json::from_value(old).unwrap()), "boot-1", 0);
    agent.agent.count(Duration::from_secs(30 * DAY - 1));
    let replied = bodies(&agent.handle(call("1", r#"{"id":"a","y":1}"#), at(300)));
    assert_eq!(
        replied,
        [json!({"id": "a", "status": "scheduled", "message": "m", "bootId": "b", "ignored": ["y"]})]
    );
    assert!(is_known(&mut agent, "b"));
    agent.agent.count(Duration::from_secs(30 * DAY));
    assert!(!is_known(&mut agent, "b"));
}

#[test]
fn a_time_without_power_ages_what_was_before_it_and_nothing_since() {
    let mut agent = idle();
    pairs(&mut agent, 0..2);
    agent.agent.count(Duration::from_secs(1));
    let record = agent.agent.core.record.clone();
    // Ten days off, and a clock that is not right at first.
    let boot = Start { clock: Clock::Unsynchronized, ..start("boot-2", 150) };
    let (mut agent, _) = resumed(Some(record), None, boot, SETTINGS, at(60));
    let log = pairs(&mut agent, 2..20);
    assert!(log.contains(&"keep 16 in all".to_owned()), "{log:?}");
    assert!((0..20).all(|id| is_known(&mut agent, &format!("id-{id}"))));
    let right = Event::ClockSet { clock: Clock::Synchronized, boot_time: at(864_200) };
    agent.handle(right, at(864_210));
    assert_eq!([0, 1, 2, 19].map(|id| is_known(&mut agent, &format!("id-{id}"))), [false, false, true, true]);
    // Also after a restart: the file has what was written before.
    let record = agent.agent.core.record.clone();
    let file: Vec<GrantedRequest> = (2..16)
        .map(|id| GrantedRequest {
            id: format!("id-{id}"),
            body: json!({"id": format!("id-{id}"), "status": "scheduled"}),
            begun: false,
            at: Some(1000),
        })
        .collect();
    let again = Start { granted: file, ..start("boot-2", 864_200) };
    let (mut agent, _) = resumed(Some(record), None, again, SETTINGS, at(864_220));
    assert!((2..20).all(|id| is_known(&mut agent, &format!("id-{id}"))));
}

#[test]
fn a_wish_waits_until_it_can_be_granted_or_its_deadline_passes() {
    let wish = |rest: &str| {
        let wish = format!(r#"{{"id":"w"{rest}}}"#);
        Event::Desired {
            reboot: Some(DesiredReboot::from(serde_json::from_str::<Value>(&wish).unwrap())),
            memory: None,
        }
    };
    let mut agent = idle();
    pairs(&mut agent, 0..30);
    let now = at(agent.now);
    assert_eq!(log(&agent.handle(wish(""), now)), ["deadline Some(3600)", "note waiting w"]);
    // Said once, and in nobody's way.
    assert_eq!(log(&agent.handle(Event::InhibitorsChanged, now)), ["deadline Some(3600)"]);
    agent.agent.count(Duration::from_secs(HOUR));
    assert_eq!(log(&agent.handle(Event::DeadlinePassed, at(3800))), ["check"]);

    let mut agent = idle();
    pairs(&mut agent, 0..30);
    let effects = agent.handle(wish(r#","deadline":"1970-01-01T00:05:00Z""#), at(200));
    assert_eq!(log(&effects), ["deadline Some(100)", "note waiting w"]);
    let effects = agent.handle(Event::DeadlinePassed, at(300));
    assert_eq!(log(&effects).last().unwrap(), "report w failed expired");
}

/// What the daemon would ask itself for does not put off the end of a wish.
#[test]
fn a_wish_that_waits_comes_before_a_need() {
    let guards = Guards { windows: vec!["00:00-24:00".parse().unwrap()], ..GUARDS };
    let settings = Settings { when_required: true, guards, ..SETTINGS };
    let (mut agent, _) = resumed(None, None, start("boot-1", 0), settings, at(10));
    pairs(&mut agent, 0..30);
    let need = crate::decide::need::Need {
        reasons: vec!["dbus".to_owned()],
        running_kernel: None,
        installed_kernel: None,
    };
    agent.handle(Event::Need(Some(need)), at(200));
    let wish = json!({"id": "w", "deadline": "1970-01-01T00:20:00Z"});
    let log = log(&agent.handle(Event::Desired { reboot: Some(wish.into()), memory: None }, at(1100)));
    let deadlines: Vec<&String> = log.iter().filter(|line| line.starts_with("deadline")).collect();
    assert_eq!(deadlines, ["deadline Some(100)"], "{log:?}");
}

#[test]
fn a_damaged_file_is_told_and_written_anew_from_what_is_whole() {
    let mut agent = idle();
    pairs(&mut agent, 0..20);
    let (record, granted) = (agent.agent.core.record.clone(), kept(&agent));
    assert_eq!(granted.len(), 16);
    let found = || Start { granted: granted[..10].to_vec(), ..start("boot-1", 0) };
    let aside = Some("/x/ids.damaged-0".to_owned());
    let (mut agent, effects) = resumed(Some(record.clone()), aside, found(), SETTINGS, at(300));
    let lines = log(&effects);
    assert!(lines.contains(&"keep 10 in all".to_owned()), "{lines:?}");
    let Some(Effect::Report(report)) = effects.last() else { panic!("no report") };
    assert_eq!(report.agent.as_ref().unwrap().damaged_record.as_deref(), Some("/x/ids.damaged-0"));
    // It is remembered for this boot, and what is whole is known.
    assert_eq!(last_saved(&effects).damaged.as_deref(), Some("/x/ids.damaged-0"));
    assert!(is_known(&mut agent, "id-9") && is_known(&mut agent, "id-19"));
    // Without a record, what is in the file is known all the same, once the twin was read.
    let (mut agent, _) = resumed(None, None, found(), SETTINGS, at(300));
    assert!(is_known(&mut agent, "id-9"));
}

#[test]
fn the_count_is_saved_now_and_then_where_nothing_else_is() {
    let mut agent = idle();
    agent.agent.count(Duration::from_secs(HOUR - 1));
    assert!(play(&mut agent, [Event::InhibitorsChanged]).is_empty());
    agent.agent.count(Duration::from_secs(HOUR));
    assert_eq!(play(&mut agent, [Event::InhibitorsChanged, Event::InhibitorsChanged]), ["save nothing"]);
}
