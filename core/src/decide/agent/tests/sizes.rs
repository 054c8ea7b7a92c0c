//! How much of the twin the report takes, whatever others put into it.

use iotdm_proto::Wish;
use iotdm_proto::device_information::{ComponentMark, DeviceInformation};
use iotdm_proto::health::{Health, HealthState};
use iotdm_proto::request::{MAX_ID, MAX_OPERATOR, MAX_REASON};

use super::*;
use crate::decide::health::Observed;
use crate::decide::need::Need;

/// The longest names that there are: of a file, and of a unit. Source: NAME_MAX of
/// Linux, UNIT_NAME_MAX of systemd.
fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{number:03}{}", "\\".repeat(252))).collect()
}

/// Of four bytes each.
fn wide(count: usize) -> String {
    "\u{1F525}".repeat(count)
}

#[test]
fn all_of_it_fits_into_ten_kibibytes_with_the_worst_values() {
    let start = Start {
        need: Some(Need {
            reasons: names(256),
            running_kernel: Some("\"".repeat(64)),
            installed_kernel: Some(names(1).remove(0)),
        }),
        information: Some(DeviceInformation {
            mark: ComponentMark::Component,
            manufacturer: Some(wide(64)),
            model: Some("\\".repeat(64)),
            sw_version: Some(wide(64)),
            os_name: Some(wide(64)),
            processor_architecture: Some(wide(64)),
            processor_manufacturer: Some(wide(64)),
            total_storage: Some(u64::MAX),
            total_memory: Some(u64::MAX),
        }),
        ..start(&"b".repeat(36), 0)
    };
    let settings = Settings { when_required: true, ..SETTINGS };
    let damaged = Some(format!("/{}", "d".repeat(4095)));
    let (agent, _) = Agent::resume(None, damaged, start, settings, at(10));
    let mut agent = Clocked { agent, now: 10 };
    let observed = |failed| Observed { state: HealthState::Degraded, down: Vec::new(), failed };
    play(&mut agent, [Event::Health { observed: observed(names(20)), report: true }]);
    let payload =
        json!({"id": "i".repeat(MAX_ID), "reason": wide(MAX_REASON), "operator": wide(MAX_OPERATOR)});
    let wish = json!({"id": [wide(5000)]});
    play(
        &mut agent,
        [
            Event::Desired { reboot: Some(wish.clone().into()), memory: Some(Box::default()) },
            Event::HubReached { uptime: Duration::from_millis(1_234_567) },
            method("1", "cancelReboot", ""),
            Event::Saved(Ok(())),
            call("2", &payload.to_string()),
            Event::Permission(Outlook::of(Ok(()))),
            Event::Saved(Ok(())),
            delivered("2"),
            Event::Reported,
            Event::Saved(Ok(())),
            Event::RebootAsked(Ok(())),
            Event::ShutdownBegan,
        ],
    );
    // What cannot all be at one time, too.
    let record = &mut agent.agent.core.record;
    record.last_wish = Some("w".repeat(MAX_ID));
    let reboot = record.reboot.as_mut().unwrap();
    assert_eq!(reboot.reason.as_ref().unwrap().len(), 4 * MAX_REASON);
    reboot.error = Some(super::super::proceed::brief(RebootError {
        code: RebootErrorCode::PreflightFailed,
        message: wide(1000),
    }));
    (reboot.not_before, reboot.completed_at, reboot.boot_id) =
        (Some(at(10)), Some(at(10)), Some("b".repeat(36)));
    (reboot.down_seconds, reboot.requested_by) = (Some(123_456.789), report::RequestedBy::Device);
    record.reboot_time = Some(at(10));
    record.boot.detail = Some(report::BootDetail::KernelPanic);
    (record.boot.count, record.boot.unclean_count) = (Some(u64::MAX), Some(u64::MAX));
    record.asked_for = agent.agent.core.need.clone();
    agent.agent.core.record.wish = Some(wish);
    let stopping = Event::Shutdown { under_way: Some(true), stopping: names(20) };
    let effects = agent.handle(stopping, at(500));
    let report = effects.iter().rev().find_map(|effect| match effect {
        Effect::Report(report) => Some(json!(report)),
        _ => None,
    });
    let report = report.unwrap();
    for (list, count) in [
        (&report["health"]["failedUnits"], Health::MAX_NAMED),
        (&report["reboot"]["failedBefore"], Health::MAX_NAMED),
        (&report["reboot"]["waitingFor"], 5),
        (&report["rebootRequired"]["reasons"], 10),
    ] {
        assert_eq!(list.as_array().map(Vec::len), Some(count), "{report}");
    }
    for count in [&report["health"]["failedCount"], &report["reboot"]["waitingForCount"]] {
        assert_eq!(count, 20);
    }
    assert_eq!(report["rebootRequired"]["reasonCount"], 256);
    assert_eq!(report["deviceInformation"].as_object().map(|told| told.len()), Some(9));
    assert!(
        report["agent"]["damagedRecord"].is_string() && report["agent"]["wishError"].is_string(),
        "{report}"
    );
    let message = report["reboot"]["error"]["message"].as_str().unwrap();
    assert_eq!(message.chars().count(), 250);
    let keys: usize =
        report.as_object().unwrap().values().map(|part| part.as_object().map_or(1, |part| part.len())).sum();
    let size = report.to_string().len();
    assert!(size <= 10 * 1024, "{size} bytes: {report}");
    // It is not short since something is missing: only what tells of no shutdown.
    assert!(keys >= 40 && size > 7 * 1024, "{keys} keys, {size} bytes: {report}");
    assert!(Wish::id_of(&agent.agent.core.record.wish.clone().unwrap()).is_none());
}
