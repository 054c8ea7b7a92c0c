//! JSON that services send.

#![no_main]

use iotdm_emulator::device::{Device, IdentityChange};
use iotdm_emulator::jobs::job::Job;
use iotdm_emulator::method_call::MethodCall;
use iotdm_emulator::provisioning::enrolment::{Enrolment, EnrolmentKind};
use iotdm_emulator::twin::TwinChange;
use iotdm_proto::Time;
use iotdm_proto::identity::Identity;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let Ok(body) = serde_json::from_slice::<Value>(bytes) else { return };
    let (now, device): (_, Identity) = (Time::from_unix_millis(0), "gw1".parse().unwrap());
    if let Ok(change) = IdentityChange::parse(&device, &body) {
        let twin = TwinChange::parse(&body).unwrap_or_default();
        let _ = Device::new(change, &twin, now);
    }
    let _ = Job::parse("j", &body, now).map(|job| job.condition().is_ok());
    let _ = MethodCall::parse(body.clone());
    for kind in [EnrolmentKind::Individual, EnrolmentKind::Group] {
        if let Ok(enrolment) = Enrolment::parse(kind, "e", &body, None) {
            let _ = Enrolment::parse(kind, "e", &enrolment.json(), Some(&enrolment));
        }
    }
});
