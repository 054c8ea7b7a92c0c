//! The health of the machine, and the boots that were seen.

use iotdm_proto::health::{Health, HealthState};
use iotdm_proto::report::BootDetail;

use super::*;
use crate::decide::health::Observed;
use crate::decide::memory::Memory;

fn units(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn observed(state: HealthState, down: &[&str], failed: &[&str]) -> Event {
    let observed = Observed { state, down: units(down), failed: units(failed) };
    Event::Health { observed, report: true }
}

fn running() -> Event {
    observed(HealthState::Running, &[], &[])
}

fn degraded(failed: &[&str]) -> Event {
    observed(HealthState::Degraded, &[], failed)
}

fn last_report(effects: &[Effect]) -> Report {
    let report = effects.iter().rev().find_map(|effect| match effect {
        Effect::Report(report) => Some((**report).clone()),
        _ => None,
    });
    report.expect("nothing was reported")
}

fn health(effects: &[Effect]) -> Health {
    last_report(effects).health.expect("no health")
}

#[test]
fn a_change_is_recorded_and_reported_and_nothing_else_is() {
    let mut agent = idle();
    assert_eq!(log(&agent.handle(running(), at(20))), ["save nothing", "report nothing"]);
    assert_eq!(log(&agent.handle(running(), at(30))), [""; 0]);
    let worse = health(&agent.handle(degraded(&["a.service"]), at(40)));
    assert_eq!((worse.state, worse.since), (HealthState::Degraded, at(40)));
    assert_eq!((worse.boot_id.as_str(), worse.failed_count), ("boot-1", 1));
    // Another unit is news, but the state is no other.
    let more = health(&agent.handle(degraded(&["a.service", "b.service"]), at(50)));
    assert_eq!((more.failed_units, more.since), (units(&["a.service", "b.service"]), at(40)));
    let effects = agent.handle(running(), at(60));
    assert_eq!((health(&effects).state, health(&effects).since), (HealthState::Running, at(60)));

    // The daemon starts anew in the same boot: nothing has changed.
    let (mut agent, effects) = resume(Some(last_saved(&effects)), "boot-1", 0);
    assert_eq!(health(&effects).since, at(60));
    assert_eq!(log(&agent.handle(running(), at(80))), [""; 0]);
}

#[test]
fn a_new_boot_is_starting_in_the_report_that_says_completed() {
    let mut agent = idle();
    let mut effects = agent.handle(degraded(&["old.service"]), at(20));
    for event in straight() {
        effects.extend(agent.handle(event, at(100)));
    }
    // The shutdown is seen in the health as well.
    assert_eq!(health(&effects).state, HealthState::Stopping);
    let (mut agent, effects) = resume(Some(last_saved(&effects)), "boot-2", 120);
    let report = last_report(&effects);
    let reboot = report.reboot.unwrap();
    assert_eq!((reboot.status, reboot.failed_before), (RebootStatus::Completed, units(&["old.service"])));
    let starting = report.health.unwrap();
    assert_eq!((starting.state, starting.boot_id.as_str()), (HealthState::Starting, "boot-2"));
    assert_eq!((starting.since, starting.failed_count), (at(120), 0));

    let effects = agent.handle(Event::HubReached { uptime: Duration::from_millis(12_100) }, at(132));
    assert_eq!(health(&effects).hub_reached_after_seconds, Some(12.1));
    // What is new stands first, and what has to be active before that.
    let worse = observed(HealthState::Degraded, &["required.service"], &["new.service", "old.service"]);
    let effects = agent.handle(worse, at(140));
    let worse = health(&effects);
    assert_eq!(worse.failed_units, units(&["required.service", "new.service", "old.service"]));
    assert_eq!((worse.failed_count, worse.since), (3, at(140)));
    assert_eq!(worse.hub_reached_after_seconds, Some(12.1));

    // A daemon that starts anew in this boot does not reach the hub for the first time.
    let (mut agent, _) = resume(Some(last_saved(&effects)), "boot-2", 120);
    let later = Event::HubReached { uptime: Duration::from_secs(500) };
    assert_eq!(log(&agent.handle(later, at(620))), [""; 0]);
    let effects = agent.handle(surveyed("1", Ok(())), at(621));
    assert_eq!(bodies(&effects)[0]["health"]["hubReachedAfterSeconds"], 12.1);
}

#[test]
fn what_has_failed_a_moment_ago_is_known_at_acceptance_though_not_yet_reported() {
    let mut agent = idle();
    agent.handle(running(), at(20));
    let Event::Health { observed, .. } = degraded(&["a.service"]) else { panic!() };
    assert_eq!(log(&agent.handle(Event::Health { observed, report: false }, at(30))), [""; 0]);
    let effects: Vec<Effect> =
        straight().into_iter().take(5).flat_map(|event| agent.handle(event, at(40))).collect();
    let report = last_report(&effects);
    assert_eq!(report.reboot.unwrap().failed_before, units(&["a.service"]));
    assert_eq!(report.health.unwrap().state, HealthState::Running);
}

#[test]
fn a_shutdown_that_is_called_off_leaves_the_health_as_it_was() {
    let mut agent = idle();
    agent.handle(degraded(&["a.service"]), at(20));
    assert_eq!(health(&agent.handle(Event::ShutdownBegan, at(30))).state, HealthState::Stopping);
    assert_eq!(log(&agent.handle(Event::ShutdownBegan, at(31))), [""; 0]);
    let again = health(&agent.handle(Event::ShutdownCancelled, at(40)));
    assert_eq!((again.state, again.since), (HealthState::Degraded, at(40)));
    assert_eq!(again.failed_units, units(&["a.service"]));
}

#[test]
fn where_nobody_tells_the_health_is_absent() {
    // As on a machine without systemd, or from a daemon that did not look yet.
    let mut agent = idle();
    let effects: Vec<Effect> =
        straight().into_iter().flat_map(|event| agent.handle(event, at(100))).collect();
    assert_eq!(last_report(&effects).health, None);
    let (mut agent, effects) = resume(Some(last_saved(&effects)), "boot-2", 120);
    assert_eq!(last_report(&effects).health, None);
    assert_eq!(log(&agent.handle(Event::HubReached { uptime: ACK }, at(130))), [""; 0]);
    let effects = agent.handle(running(), at(140));
    assert_eq!(health(&effects).hub_reached_after_seconds, Some(5.0));
    assert_eq!(
        last_report(&effects).agent.unwrap().features,
        units(&["health", "onlyIfRequired", "preflight"])
    );

    let pretended = Settings { health: false, ..SETTINGS };
    let (_, effects) = resumed(Some(last_saved(&effects)), None, start("boot-3", 200), pretended, at(210));
    let report = last_report(&effects);
    assert_eq!(
        (report.health, report.agent.unwrap().features),
        (None, units(&["onlyIfRequired", "preflight"]))
    );
}

#[test]
fn when_the_hub_was_reached_is_not_told_by_a_daemon_that_cannot_know() {
    // A record from before health was followed.
    let mut agent = idle();
    let record = last_saved(&agent.handle(Event::ShutdownBegan, at(20)));
    let record = Record { going_down: false, health: None, ..record };
    let (mut agent, _) = resume(Some(record), "boot-1", 0);
    agent.handle(Event::HubReached { uptime: DOWN }, at(300));
    let effects = agent.handle(running(), at(301));
    assert_eq!(health(&effects).hub_reached_after_seconds, None);
    let (mut agent, _) = resume(Some(last_saved(&effects)), "boot-1", 0);
    assert_eq!(log(&agent.handle(Event::HubReached { uptime: DOWN }, at(400))), [""; 0]);

    // One that has lost its record has it from the twin.
    let (agent, _) = Agent::resume(None, None, start("boot-1", 0), SETTINGS, at(500));
    let mut agent = Clocked { agent, now: 500 };
    agent.handle(Event::HubReached { uptime: DOWN }, at(500));
    agent.handle(running(), at(500));
    let told = json!({
        "boot": {"bootId": "boot-1", "bootTime": at(0), "cause": "local", "clock": "synchronized",
            "count": 41, "uncleanCount": 3},
        "health": {"bootId": "boot-1", "state": "running", "failedCount": 0, "since": at(9),
            "hubReachedAfterSeconds": 7.5},
    });
    let memory = Memory::read(told.as_object().unwrap());
    let effects = agent.handle(Event::Desired { reboot: None, memory: Some(Box::new(memory)) }, at(501));
    assert_eq!(health(&effects).hub_reached_after_seconds, Some(7.5));
    let boot = last_report(&effects).boot.unwrap();
    assert_eq!((boot.count, boot.unclean_count), (Some(41), Some(3)));
}

#[test]
fn a_clock_that_is_set_moves_the_health_along() {
    let start = Start { clock: Clock::Unsynchronized, ..start("boot-1", 0) };
    let (mut agent, _) = resumed(None, None, start, SETTINGS, at(10));
    agent.handle(degraded(&["a.service"]), at(20));
    let set = Event::ClockSet { clock: Clock::Synchronized, boot_time: at(1_000_000) };
    let effects = agent.handle(set, at(1_000_030));
    assert_eq!(health(&effects).since, at(1_000_020));
    let history = agent.handle(method("1", "getBootHistory", ""), at(1_000_031));
    assert_eq!(bodies(&history)[0]["boots"][0]["bootTime"], json!(at(1_000_000)));
}

#[test]
fn the_boots_are_counted_and_told_newest_first() {
    let dumped = |names: &[&str]| Traces { panics: Some(units(names)), watchdog: false };
    let booting = |number: i64, traces| Start { traces, ..start(&format!("boot-{number}"), number * 100) };
    let (mut agent, effects) = resumed(None, None, booting(1, dumped(&["7"])), SETTINGS, at(110));
    let boot = last_report(&effects).boot.unwrap();
    assert_eq!((boot.count, boot.unclean_count, boot.detail), (Some(1), Some(0), None));
    let mut effects: Vec<Effect> =
        straight().into_iter().flat_map(|event| agent.handle(event, at(120))).collect();
    // An orderly reboot, then a panic, then a power cut.
    for (number, traces, detail, unclean) in [
        (2, dumped(&["7"]), None, 0),
        (3, dumped(&["7", "8"]), Some(BootDetail::KernelPanic), 1),
        (4, dumped(&["7", "8"]), None, 2),
    ] {
        let start = booting(number, traces);
        (agent, effects) = resumed(Some(last_saved(&effects)), None, start, SETTINGS, at(number * 100 + 10));
        let boot = last_report(&effects).boot.unwrap();
        assert_eq!(boot.count, Some(u64::try_from(number).unwrap()));
        assert_eq!((boot.unclean_count, boot.detail), (Some(unclean), detail), "boot {number}");
    }
    let effects = agent.handle(method("1", "getBootHistory", "not read"), at(500));
    let reply = bodies(&effects).remove(0);
    let boots = reply["boots"].as_array().unwrap();
    let of = |key: &str| boots.iter().map(|boot| boot[key].as_str().unwrap_or("-")).collect::<Vec<_>>();
    assert_eq!(of("bootId"), ["boot-4", "boot-3", "boot-2", "boot-1"]);
    assert_eq!(of("cause"), ["unclean", "unclean", "requested", "unknown"]);
    assert_eq!(of("detail"), ["-", "kernelPanic", "-", "-"]);
    assert_eq!(of("requestId"), ["-", "-", "a", "-"]);
    assert_eq!(boots[2]["downSeconds"], 80.0);
}

#[test]
fn no_more_than_32_boots_are_remembered_and_a_restart_is_none() {
    let mut record = last_saved(&resume(None, "boot-0", 0).1);
    for number in 1..40 {
        let (_, effects) = resume(Some(record), &format!("boot-{number}"), number * 100);
        record = last_saved(&effects);
        let (_, effects) = resume(Some(record.clone()), &format!("boot-{number}"), number * 100);
        assert_eq!(last_report(&effects).boot.unwrap().count, Some(u64::try_from(number + 1).unwrap()));
    }
    assert_eq!(record.boots.len(), 32);
    assert_eq!(record.boots[31].boot_id, "boot-39");
    // One from before boots were counted has seen that one.
    let mut old = record;
    (old.boots, old.boot.count, old.boot.unclean_count, old.panics) = (Vec::new(), None, None, None);
    let (_, effects) = resume(Some(old), "boot-40", 4000);
    let boot = last_report(&effects).boot.unwrap();
    assert_eq!((boot.count, boot.unclean_count), (Some(2), Some(1)));
}
