//! JSON that services send.

#![no_main]

use iotdm_emulator::device::{Device, Wish};
use iotdm_emulator::identity::Identity;
use iotdm_emulator::jobs::job::Job;
use iotdm_emulator::method::Method;
use iotdm_emulator::provisioning::enrolment::{Enrolment, Scope};
use iotdm_emulator::twin::Change;
use iotdm_proto::Time;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let Ok(body) = serde_json::from_slice::<Value>(bytes) else { return };
    let (now, device): (_, Identity) = (Time::from_unix_millis(0), "gw1".parse().unwrap());
    if let Ok(wish) = Wish::parse(&device, &body) {
        let _ = Device::new(wish, now);
    }
    let _ = Change::parse(&body);
    let _ = Job::parse("j", &body, now).map(|job| job.condition().is_ok());
    let _ = Method::parse(body.clone());
    for scope in [Scope::Individual, Scope::Group] {
        let _ = Enrolment::parse(scope, "e", &body).map(|enrolment| enrolment.json());
    }
});
