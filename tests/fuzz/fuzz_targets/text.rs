//! Words of strangers on their way to a terminal, a log or a wall message.

#![no_main]

use iotdm_proto::request::Reason;
use iotdm_proto::text::{harmless, is_deceptive, is_unseen, line, lines};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let shown = line(&text);
    assert!(!shown.contains(is_unseen));
    assert!(!lines(&text).contains(|char| is_unseen(char) && char != '\n'));
    assert!(!harmless(&text).contains(is_deceptive));
    // What is shown as JSON is still the same JSON.
    let json = serde_json::to_string(&text).unwrap();
    assert_eq!(serde_json::from_str::<String>(&line(&json)).unwrap(), text);
    if let Ok(reason) = text.parse::<Reason>() {
        assert!(!reason.as_str().contains(is_deceptive));
    }
});
