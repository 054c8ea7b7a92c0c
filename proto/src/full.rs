//! For tests: a value of each payload with every field set. They are written
//! without `..`, so that a new field does not compile until it is here as well,
//! and lists of keys can be held against them.

use crate::device_information::{ComponentMark, DeviceInformation};
use crate::health::{Health, HealthState};
use crate::need::RebootRequired;
use crate::reply::{
    BootHistoryReply, CallError, CancelReply, Granted, IfItHangs, Inhibitor, PastBoot, PreflightCheck,
    RebootReply, RefusalReply, StatusReply,
};
use crate::report::{
    Agent, Boot, BootCause, BootDetail, Clock, Reboot, RebootError, RebootErrorCode, RebootStatus, Report,
    RequestedBy,
};
use crate::request::{CancelRequest, OnInhibitor, OnPreflight, RebootRequest, RequestId, Terms, Wish};
use crate::{ErrorCode, Time};

fn at(text: &str) -> Time {
    text.parse().unwrap()
}

fn id(text: &str) -> RequestId {
    text.parse().unwrap()
}

fn terms() -> Terms {
    Terms {
        reason: Some("kernel update".parse().unwrap()),
        operator: Some("alice@ops".parse().unwrap()),
        on_inhibitor: Some(OnInhibitor::Wait),
        on_preflight: Some(OnPreflight::Override),
        wait_seconds: Some(86_400),
        only_if_required: true,
    }
}

/// With both times, of which a real request has one at most.
pub(crate) fn reboot_request() -> RebootRequest {
    RebootRequest {
        id: Some(id("a.B_c:1-2")),
        delay_seconds: Some(604_800),
        at: Some(at("2026-11-22T18:30:00Z")),
        check: true,
        terms: terms(),
    }
}

pub(crate) fn wish() -> Wish {
    Wish {
        id: id("w"),
        not_before: Some(at("2026-11-22T18:30:00Z")),
        deadline: Some(at("2027-11-22T19:00:00Z")),
        terms: terms(),
    }
}

pub(crate) fn cancel_request() -> CancelRequest {
    CancelRequest { id: Some(id("a")) }
}

pub(crate) fn reboot_reply() -> RebootReply {
    RebootReply {
        id: "r-1".into(),
        status: Granted::Scheduled,
        message: "m".into(),
        not_before: Some(at("2026-11-22T18:30:00Z")),
        boot_id: "b".into(),
        preflight: vec![preflight_check()],
        if_it_hangs: Some(if_it_hangs()),
        ignored: vec!["method_number".into()],
    }
}

pub(crate) fn cancel_reply() -> CancelReply {
    CancelReply { id: "r-1".into(), status: Granted::Cancelled }
}

pub(crate) fn status_reply() -> StatusReply {
    StatusReply {
        reboot: Some(reboot()),
        boot: boot(),
        uptime_seconds: 5,
        inhibitors: vec![inhibitor()],
        can_reboot: false,
        message: Some("shutdown is inhibited".into()),
        health: Some(health()),
        reboot_required: Some(reboot_required()),
        if_it_hangs: Some(if_it_hangs()),
    }
}

pub(crate) fn if_it_hangs() -> IfItHangs {
    IfItHangs { watchdog: Some(600), forced_after_seconds: Some(1800) }
}

pub(crate) fn boot_history_reply() -> BootHistoryReply {
    BootHistoryReply { boots: vec![past_boot()] }
}

pub(crate) fn past_boot() -> PastBoot {
    PastBoot {
        boot_id: "b".into(),
        boot_time: at("2026-11-22T18:36:07.412Z"),
        cause: BootCause::Requested,
        detail: Some(BootDetail::Watchdog),
        request_id: Some("r-1".into()),
        down_seconds: Some(21.3),
    }
}

pub(crate) fn preflight_check() -> PreflightCheck {
    PreflightCheck { name: "fstab".into(), passed: false, reason: Some("/data: no device".into()) }
}

pub(crate) fn inhibitor() -> Inhibitor {
    Inhibitor { who: "dpkg".into(), why: "upgrade".into(), uid: 0, pid: 7 }
}

/// With the details of all refusals, of which a real one has one kind at most.
pub(crate) fn refusal_reply() -> RefusalReply {
    RefusalReply {
        error: CallError {
            code: ErrorCode::RebootPending,
            message: "m".into(),
            id: Some("r-1".into()),
            methods: Some(vec!["rebootDevice".into()]),
            inhibitors: Some(vec![inhibitor()]),
            preflight: Some(vec![preflight_check()]),
            retry_after_seconds: Some(3595),
        },
    }
}

pub(crate) fn report() -> Report {
    Report {
        reboot_time: Some(at("2026-11-22T18:36:07.412Z")),
        reboot: Some(reboot()),
        boot: Some(boot()),
        health: Some(health()),
        reboot_required: Some(reboot_required()),
        agent: Some(Agent {
            version: "1.0.0".into(),
            methods: vec!["rebootDevice".into()],
            features: vec!["health".into()],
            damaged_record: Some("/var/lib/iotdm/damaged".into()),
            wish_error: Some("id: must be given".into()),
            last_wish: Some("w-1".into()),
        }),
        device_information: Some(device_information()),
    }
}

fn reboot() -> Reboot {
    Reboot {
        id: "r-1".into(),
        status: RebootStatus::Completed,
        reason: Some("kernel update".into()),
        operator: Some("alice@ops".into()),
        requested_by: RequestedBy::Method,
        requested_at: at("2026-11-22T18:35:00Z"),
        not_before: Some(at("2026-11-22T18:35:40Z")),
        started_at: Some(at("2026-11-22T18:35:46.112Z")),
        completed_at: Some(at("2026-11-22T18:36:20Z")),
        previous_boot_id: "a".into(),
        boot_id: Some("b".into()),
        down_seconds: Some(21.3),
        waiting_for: vec!["docker.service".into()],
        waiting_for_count: Some(1),
        failed_before: vec!["old.service".into()],
        error: Some(RebootError { code: RebootErrorCode::NeverWentDown, message: "m".into() }),
    }
}

fn boot() -> Boot {
    Boot {
        boot_id: "b".into(),
        boot_time: at("2026-11-22T18:36:07.412Z"),
        cause: BootCause::Requested,
        clock: Clock::Synchronized,
        detail: Some(BootDetail::KernelPanic),
        count: Some(41),
        unclean_count: Some(3),
    }
}

fn reboot_required() -> RebootRequired {
    RebootRequired {
        required: true,
        since: Some(at("2026-11-24T06:25:00Z")),
        reasons: vec!["linux-image-6.1.0-49-amd64".into()],
        reason_count: 1,
        running_kernel: Some("6.1.0-44-amd64".into()),
        installed_kernel: Some("6.1.0-49-amd64".into()),
        asked_for: Some("6f1ed002ab5595859014ebf0951522d9".into()),
    }
}

fn device_information() -> DeviceInformation {
    DeviceInformation {
        mark: ComponentMark::Component,
        manufacturer: Some("raspberrypi".into()),
        model: Some("Raspberry Pi 4 Model B Rev 1.4".into()),
        sw_version: Some("6.12.25+rpt-rpi-v8".into()),
        os_name: Some("Debian GNU/Linux 12 (bookworm)".into()),
        processor_architecture: Some("aarch64".into()),
        processor_manufacturer: Some("brcm".into()),
        total_storage: Some(30_334_636),
        total_memory: Some(3_885_396),
    }
}

fn health() -> Health {
    Health {
        boot_id: "b".into(),
        state: HealthState::Degraded,
        failed_units: vec!["gateway-app.service".into()],
        failed_count: 1,
        since: at("2026-11-22T18:36:25Z"),
        hub_reached_after_seconds: Some(12.1),
    }
}
