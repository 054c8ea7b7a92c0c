//! `history` in each form, and devices that have none.

use crate::common::{FakeHub, HttpRequest, HttpResponse};
use serde_json::{Value, json};

fn device(reply: Value, status: i64) -> FakeHub {
    FakeHub::start(move |request, _| {
        assert!(request.is_call() && request.body["methodName"] == "getBootHistory", "{request:?}");
        HttpResponse::reply(status, reply.clone())
    })
}

fn boots() -> Value {
    json!([
        {"bootId": "c", "bootTime": "2026-11-22T18:36:07.412Z", "cause": "unclean", "detail": "kernelPanic"},
        {"bootId": "b", "bootTime": "2026-11-21T18:36:07.412Z", "cause": "requested", "requestId": "r-1", "downSeconds": 21.3},
        {"bootId": "a", "bootTime": "2026-11-20T18:36:07.412Z", "cause": "unknown", "new\u{1b}[2J": 1},
    ])
}

#[test]
fn the_boots_in_each_form() {
    let hub = device(json!({ "boots": boots() }), 200);
    let text = hub.run(&["history", "gw1"]);
    text.ends(0, &[]);
    let lines: Vec<&str> = text.stdout.lines().collect();
    assert_eq!(lines.len(), 4, "{text:#?}");
    assert!(lines[0].starts_with("BOOTED") && lines[0].ends_with("BOOT ID"), "{text:#?}");
    assert!(lines[1].contains(" ago)") && lines[1].contains("unclean") && lines[1].contains("kernelPanic"));
    assert!(lines[2].contains("requested") && lines[2].contains("r-1") && lines[2].contains("21.3 s"));
    assert_eq!(hub.run(&["history", "gw1", "-o", "json"]).json(), boots());
    let jsonl = hub.run(&["history", "gw1", "-o", "jsonl"]).stdout;
    assert_eq!((jsonl.lines().count(), jsonl.contains('\u{1b}')), (3, false), "{jsonl}");
    let csv = hub.run(&["history", "gw1", "-o", "csv"]).stdout;
    let expected = "BOOTED,CAUSE,DETAIL,REQUEST,DOWN,BOOT ID\n\
        2026-11-22T18:36:07.412Z,unclean,kernelPanic,,,c\n\
        2026-11-21T18:36:07.412Z,requested,,r-1,21.3,b\n\
        2026-11-20T18:36:07.412Z,unknown,,,,a\n";
    assert_eq!(csv, expected);
    let calls: Vec<HttpRequest> = hub.requests();
    assert!(calls.iter().all(|call| call.body["responseTimeoutInSeconds"] == 60), "{calls:?}");
    device(json!({"boots": []}), 200).run(&["history", "gw1"]).ends(0, &[]);
}

#[test]
fn a_device_without_a_history_says_so_in_clear_words() {
    let old =
        json!({"error": {"code": "unknownMethod", "message": "no such method", "methods": ["rebootDevice"]}});
    let too_old = "gw1: it runs an agent that is too old for getBootHistory, or another program; ";
    device(old, 404).run(&["history", "gw1"]).ends(3, &[too_old, "unknownMethod, no such method"]);
    device(json!("ok"), 200)
        .run(&["history", "gw1", "-o", "json"])
        .ends(3, &[too_old, "its reply has no boots"]);
    let busy = json!({"error": {"code": "internal", "message": "not now"}});
    device(busy, 500).run(&["history", "gw1"]).ends(3, &["status 500: internal, not now"]);
    let offline = FakeHub::start(|_, _| HttpResponse::nested(404, 404_103));
    offline.run(&["history", "gw1"]).ends(4, &["the device is offline"]);
    offline.run(&["history"]).ends(2, &["DEVICE"]);
    let unknown = FakeHub::start(|_, _| HttpResponse::nested(404, 404_001));
    unknown.run(&["history", "gw1"]).ends(5, &["no such device"]);
}
