//! What the daemon finds in its state directory when it starts, and the worst
//! of it.

use std::fs;

use iotdm_tests::{Daemon, Hub, wait_until};
use serde_json::json;

/// The whole record with one bit of the byte at `position` turned over.
fn flipped(whole: &[u8], position: usize, bit: u8) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    bytes[position] ^= 1 << bit;
    bytes
}

#[test]
fn every_damaged_record_is_set_aside_and_told() {
    let hub = Hub::start();
    let mut daemon = Daemon::simulating(&hub);
    daemon.start_connected(&hub);
    daemon.stop();
    let file = daemon.state_dir().join("simulated-state.json");
    let whole = fs::read(&file).unwrap();
    let at = |text: &str| whole.windows(text.len()).position(|found| found == text.as_bytes()).unwrap();
    let damages = [
        ("empty", Vec::new()),
        ("truncated", whole[..whole.len() / 2].to_vec()),
        ("of a later version", br#"{"version":99,"boot":"not yet known"}"#.to_vec()),
        ("overwritten", vec![0; whole.len()]),
        ("another file", b"[Unit]\n".to_vec()),
        ("its first bit flipped", flipped(&whole, 0, 0)),
        ("a flipped bit in a key", flipped(&whole, at("bootTime"), 1)),
        ("a flipped bit in a word", flipped(&whole, at("unknown"), 4)),
        ("a flipped bit in an instant", flipped(&whole, at("Z\""), 4)),
        ("a flipped bit between a key and its value", flipped(&whole, at("boot\":") + 5, 6)),
    ];
    for (number, (what, bytes)) in damages.into_iter().enumerate() {
        fs::write(&file, &bytes).unwrap();
        daemon.start();
        let aside = daemon.state_dir().join(format!("simulated-state.damaged-{number}"));
        wait_until(what, || hub.reported()["agent"]["damagedRecord"] == json!(aside));
        assert!(daemon.log.wait_for("was damaged").contains(aside.to_str().unwrap()), "{what}");
        assert_eq!(fs::read(&aside).unwrap(), bytes, "{what}");
        assert_eq!(hub.reported()["boot"]["cause"], "unknown", "{what}");
        assert_eq!(hub.invoke("rebootDevice", r#"{"check":true}"#).0, 200, "{what}");
        daemon.stop();
    }
}
