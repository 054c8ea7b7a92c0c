//! Calls: what is refused, what is only asked, and what is delivered twice.

use super::*;

#[test]
fn refusals_change_nothing() {
    for (refusal, expected) in [
        (Refusal::LogindUnavailable("no bus".into()), "reply 1 503 logindUnavailable"),
        (Refusal::NotAuthorized("no".into()), "reply 1 503 notAuthorized"),
        (blocked(), "reply 1 423 blockedByInhibitor"),
    ] {
        let mut agent = idle();
        agent.handle(call("1", ASKED), at(1));
        let effects = agent.handle(Event::Permission(Outlook::of(Err(refusal))), at(2));
        assert_eq!(log(&effects).last().unwrap(), expected);
        assert!(!log(&effects).iter().any(|line| line.starts_with("save")));
        if let [body] = &bodies(&effects)[..]
            && expected.contains("423")
        {
            let named = json!([{"who": "apt", "why": "upgrading", "uid": 0, "pid": 7}]);
            assert_eq!(body["error"]["inhibitors"], named);
            assert_eq!(body["error"]["message"], "shutdown is inhibited by apt (upgrading)");
        }
        // And the next one is taken.
        assert_eq!(play(&mut agent, [call("2", ASKED)]), ["check"]);
    }
}

#[test]
fn wrong_calls_are_refused_at_once() {
    let mut agent = idle();
    let effects = agent.handle(method("1", "reboot", ""), at(1));
    assert_eq!(log(&effects), ["note refused unknownMethod", "reply 1 404 unknownMethod"]);
    assert_eq!(bodies(&effects)[0]["error"]["methods"], json!(MethodName::ALL));
    let log = play(&mut agent, [call("2", "[]"), call("3", r#"{"id":7}"#)]);
    assert_eq!(
        log,
        [
            "note refused invalidPayload",
            "reply 2 400 invalidPayload",
            "note refused invalidPayload",
            "reply 3 400 invalidPayload"
        ]
    );
}

#[test]
fn a_check_changes_nothing_and_is_in_nobodys_way() {
    let mut agent = idle();
    let check = |rid| call(rid, r#"{"id":"a","check":true}"#);
    assert_eq!(play(&mut agent, [check("1"), check("2")]), ["survey 1", "survey 2"]);
    // The id was not used up, nor does the real request wait.
    assert_eq!(play(&mut agent, [call("3", ASKED)]), ["check"]);
    assert_eq!(play(&mut agent, [surveyed("2", Ok(()))]), ["reply 2 200 checked"]);
    let refused = play(&mut agent, [surveyed("1", Err(blocked()))]);
    assert_eq!(refused.last().unwrap(), "reply 1 423 blockedByInhibitor");
    // While one is pending, it would be refused.
    assert_eq!(play(&mut agent, [check("4")]).last().unwrap(), "reply 4 409 rebootPending");
    assert_eq!(play(&mut agent, [Event::Permission(Outlook::of(Ok(())))]), ["save a rebooting"]);
}

#[test]
fn a_call_that_is_delivered_twice_is_answered_once() {
    let mut agent = idle();
    let twice = || call("1", "");
    assert_eq!(play(&mut agent, [twice(), twice()]), ["check"]);
    let log = play(&mut agent, [Event::Permission(Outlook::of(Ok(()))), Event::Saved(Ok(())), twice()]);
    assert_eq!(log.last().unwrap(), "deadline Some(5)", "{log:?}");
}

#[test]
fn while_one_is_pending_another_is_refused_and_the_same_is_answered_again() {
    let events = straight();
    for length in 1..=events.len() {
        let mut agent = idle();
        play(&mut agent, events.iter().take(length).cloned());
        let effects = agent.handle(call("x", r#"{"id":"b"}"#), at(200));
        // From when logind is asked on, the machine goes down whoever asks.
        let (code, id) =
            if length < 6 { ("rebootPending", json!("a")) } else { ("shuttingDown", Value::Null) };
        assert_eq!(log(&effects).last().unwrap(), &format!("reply x 409 {code}"), "after {length} events");
        assert_eq!(bodies(&effects)[0]["error"]["id"], id);
        let again = log(&agent.handle(call("y", ASKED), at(201)));
        // Before the decision there is no answer yet; both get it then.
        let expected: &[&str] = if length == 1 { &[] } else { &["reply y 200 accepted"] };
        assert_eq!(again, expected, "after {length} events");
    }
}

#[test]
fn one_decision_answers_all_deliveries_of_a_request() {
    let mut agent = idle();
    let log = play(
        &mut agent,
        [
            call("1", ASKED),
            call("2", ASKED),
            Event::Permission(Outlook::of(Ok(()))),
            Event::Saved(Ok(())),
            delivered("2"),
            delivered("1"),
        ],
    );
    assert_eq!(log.iter().filter(|line| line.starts_with("reply")).count(), 2);
    assert_eq!(log.iter().filter(|line| *line == "check").count(), 1);
    let replies = log.iter().position(|line| line == "reply 2 200 accepted").unwrap();
    let announced = log.iter().position(|line| line == "note rebooting a").unwrap();
    assert!(replies < announced);
}

/// Without an id of the caller's, the second delivery has another one than the first.
#[test]
fn a_call_that_is_delivered_twice_while_logind_is_asked_has_one_reply() {
    for payload in ["", ASKED] {
        let mut agent = idle();
        let again = Event::Called {
            rid: "1".into(),
            name: "rebootDevice".into(),
            payload: payload.into(),
            fresh_id: "another".into(),
        };
        assert_eq!(play(&mut agent, [call("1", payload), again]), ["check"]);
        let log = play(&mut agent, [Event::Permission(Outlook::of(Ok(()))), Event::Saved(Ok(()))]);
        let replies: Vec<&String> = log.iter().filter(|line| line.starts_with("reply")).collect();
        assert_eq!(replies, ["reply 1 200 accepted"], "{payload:?}");
    }
}

#[test]
fn the_same_request_is_answered_again_when_its_time_has_passed() {
    let mut agent = idle();
    let timed = r#"{"id":"a","at":"1970-01-01T00:03:20Z"}"#;
    play_at(
        &mut agent,
        [(100, call("1", timed)), (100, Event::Permission(Outlook::of(Ok(())))), (100, Event::Saved(Ok(())))],
    );
    assert_eq!(play_at(&mut agent, [(5000, call("2", timed))]), ["reply 2 200 scheduled"]);
    // A new one is judged by it.
    let refused = play_at(&mut agent, [(5000, call("3", &timed.replace(r#""a""#, r#""b""#)))]);
    assert_eq!(refused.last().unwrap(), "reply 3 400 invalidPayload");
}
