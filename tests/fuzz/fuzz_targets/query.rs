//! Query texts, and what they make of documents.

#![no_main]

use std::sync::LazyLock;

use iotdm_emulator::query::{Condition, Groups, Query};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

static DOCUMENTS: LazyLock<[Value; 3]> = LazyLock::new(|| {
    [
        json!({"deviceId": "a", "tags": {"n": 1, "s": "x"}, "properties": {"reported": {"t": 1.5}}}),
        json!({"deviceId": "b", "tags": {"n": -3, "s": null, "l": [1, "x", true]}, "$version": 7}),
        json!({}),
    ]
});

fuzz_target!(|text: &str| {
    if let Ok(condition) = text.parse::<Condition>() {
        for document in &*DOCUMENTS {
            condition.holds(document);
        }
    }
    let Ok(query) = text.parse::<Query>() else { return };
    let selected = DOCUMENTS.iter().filter(|document| query.selects(document));
    match Groups::new(&query) {
        Some(mut groups) => {
            selected.for_each(|document| groups.add(document));
            groups.rows().for_each(drop);
        }
        None => assert!(selected.map(|document| query.row(document)).all(|row| row.is_some())),
    }
});
