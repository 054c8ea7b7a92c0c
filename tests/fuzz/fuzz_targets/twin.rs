//! Patches and replacements of a twin, one JSON document a line.

#![no_main]

use iotdm_emulator::twin::{Twin, TwinChange};
use iotdm_proto::{Time, twin};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// Whether a `null` is left, which would mean "absent".
fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(object) => object.values().any(has_null),
        Value::Array(array) => array.iter().any(has_null),
        _ => false,
    }
}

fuzz_target!(|text: &str| {
    let mut twin = Twin::new(&TwinChange::default(), Time::from_unix_millis(0)).unwrap();
    let mut device = twin::Object::new();
    for (line, text) in text.lines().enumerate() {
        let Ok(body) = serde_json::from_str::<Value>(text) else { continue };
        if let Value::Object(patch) = &body {
            if let Ok((report, _)) = twin.reported(patch.clone(), None, Time::from_unix_millis(1)) {
                twin.apply(report);
            }
        }
        let Ok(change) = TwinChange::parse(&body) else { continue };
        let now = Time::from_unix_millis(2);
        // A patch that only merges does the same by what is written down of it.
        let written = twin.patched(&change, now).ok().filter(|_| change.only_merges());
        let mut followed = twin.clone();
        let changed = if line % 2 == 0 { twin.patch(&change, now) } else { twin.replace(&change, now) };
        if let Some(written) = written.filter(|_| line % 2 == 0) {
            followed.apply(written);
            assert!(followed == twin);
        }
        if let Ok(Some((patch, _))) = changed {
            twin::merge(&mut device, &patch);
        }
    }
    for part in [&twin.desired, &twin.reported] {
        assert!(!has_null(&Value::Object(part.device_json())));
    }
    // Whoever follows the notifications has what the hub has.
    device.insert("$version".into(), twin.desired.device_json()["$version"].clone());
    assert_eq!(device, twin.desired.device_json());
});
