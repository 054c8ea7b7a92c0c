//! Keeps the twin's reported properties equal to what the daemon wants to say.
//!
//! After each connect the twin is read and only the difference is sent. So
//! nothing is lost that the hub did not take, nothing is sent that it has, and
//! no list of unsent messages has to survive a crash.

use iotdm_proto::Time;
use iotdm_proto::health::Health;
use iotdm_proto::report::{Boot, INSTANTS, Reboot, Report};
use iotdm_proto::twin::{Object, diff, merge};
use serde_json::Value;

use super::TwinRequest;

/// What is left out, a step at a time, when the hub has no room for the whole:
/// another application may have filled the twin. The outcome itself, its ids, the
/// boots and what was last asked for are never left out.
const DISPENSABLE: [&[&str]; 9] = [
    &["deviceInformation"],
    &["rebootRequired", "reasons"],
    &["health", "failedUnits"],
    &["reboot", "failedBefore"],
    &["reboot", "waitingFor"],
    &["reboot", "error", "message"],
    &["agent", "wishError"],
    &["reboot", "reason"],
    &["reboot", "operator"],
];

/// What is told again beside a change, though it has not changed itself: in each patch
/// of a component its mark, as the conventions of IoT Plug and Play ask; and with a
/// new boot its cause, so that whoever routes changes of twins by it hears of the
/// second power loss in a row as well. Each is an object, the key in it whose change
/// counts if not every one does, and the key that is told again.
const TOLD_AGAIN: [(&str, Option<&str>, &str); 2] =
    [("deviceInformation", None, "__t"), ("boot", Some("bootId"), "cause")];

/// What a boot changes, each with the keys of it that need not be there.
const NEWS: [(&str, &[&str]); 4] = [
    ("rebootTime", &[]),
    ("reboot", &Reboot::OPTIONAL_KEYS),
    ("boot", &Boot::OPTIONAL_KEYS),
    ("health", &Health::OPTIONAL_KEYS),
];

/// What is to be said, and what the hub is known to have.
#[derive(Debug)]
pub(super) struct Reporter {
    wanted: Object,
    /// How many of the dispensable values are left out of it.
    left_out: usize,
    known: Known,
    /// Tells this run's requests from those of earlier ones, whose responses
    /// may come late on a session that goes on.
    run: String,
    requests: u64,
}

#[derive(Debug, Default)]
enum Known {
    /// Nothing: the hub is not connected.
    #[default]
    Offline,
    /// The twin was asked for.
    Reading { rid: String },
    /// These are its values; `refused` is a difference that it did not take.
    Values { values: Object, refused: Option<Refused> },
    /// A patch was sent. One at a time: the hub promises no order.
    Patching { rid: String, values: Object, patch: Object },
}

/// A difference that the hub did not take, and its answer.
#[derive(Debug)]
struct Refused {
    patch: Object,
    status: u16,
    body: String,
}

/// What follows from a response.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Next {
    /// Send this.
    Send(TwinRequest),
    /// The hub has everything.
    InSync,
    /// The hub cannot now; try [`Reporter::retry`] later.
    Later {
        /// Its status.
        status: u16,
    },
    /// The hub does not take this patch, nor would it later.
    Refused {
        /// Its status.
        status: u16,
        /// Its explanation.
        body: String,
    },
    /// The hub does not take this patch; without `what` it may. See
    /// [`Reporter::shortened`].
    Shorten {
        /// Its status.
        status: u16,
        /// Its explanation.
        body: String,
        /// What is left out.
        what: String,
    },
    /// Nothing: not connected, or still waiting.
    Wait,
}

impl Reporter {
    /// A reporter whose requests are marked with `run`, which should be unique.
    pub(super) fn new(run: String) -> Self {
        Reporter { wanted: Object::new(), left_out: 0, known: Known::Offline, run, requests: 0 }
    }

    /// From now on the twin is to say this.
    pub(super) fn want(&mut self, report: &Report) -> Next {
        self.wanted = spelled(report);
        self.left_out = 0;
        match self.compare() {
            // What was refused is refused again, so that whoever waits for an answer gets it.
            Next::Wait => match &self.known {
                Known::Values { refused: Some(refused), .. } => {
                    Next::Refused { status: refused.status, body: refused.body.clone() }
                }
                _ => Next::Wait,
            },
            next => next,
        }
    }

    /// The hub is connected and its responses are subscribed to, or the twin
    /// has to be read again.
    pub(super) fn connected(&mut self) -> TwinRequest {
        let rid = self.rid();
        self.known = Known::Reading { rid: rid.clone() };
        TwinRequest::Get { rid }
    }

    /// Whether the response to `rid` will be the twin as it is.
    pub(super) fn is_reading(&self, rid: &str) -> bool {
        matches!(&self.known, Known::Reading { rid: expected } if expected == rid)
    }

    /// The hub is gone, and with it what was under way.
    pub(super) fn disconnected(&mut self) {
        self.known = Known::Offline;
    }

    /// From now on the twin is to say this, which is sent although the hub has not answered
    /// yet. What it was told before is told again along with it, or taken back, so that the
    /// order does not matter where the hub has both; where the twin was not read yet,
    /// nothing is taken away from it. What there was no room for is left out.
    pub(super) fn send_now(&mut self, report: &Report) -> Option<TwinRequest> {
        self.wanted = spelled(report);
        for path in DISPENSABLE.iter().take(self.left_out) {
            remove(&mut self.wanted, path);
        }
        let patch = match &self.known {
            Known::Offline => return None,
            Known::Values { .. } => {
                return match self.compare() {
                    Next::Send(request) => Some(request),
                    _ => None,
                };
            }
            Known::Reading { .. } => self.wanted.clone(),
            Known::Patching { values, patch, .. } => {
                let mut with_patch = values.clone();
                merge(&mut with_patch, patch);
                let mut whole = with_company(diff(values, &self.wanted), &self.wanted);
                overlay(&mut whole, diff(&with_patch, &self.wanted));
                if whole == *patch {
                    return None;
                }
                whole
            }
        };
        let rid = self.rid();
        if let Known::Patching { rid: newest, patch: last, .. } = &mut self.known {
            (*newest, *last) = (rid.clone(), patch.clone());
        }
        Some(TwinRequest::Patch { rid, patch })
    }

    /// What a boot has changed, for a twin that was not read yet: all that a new outcome
    /// has no key for is taken away, lest an earlier one's error stand beside it.
    pub(super) fn news(&mut self) -> Option<TwinRequest> {
        if !matches!(self.known, Known::Reading { .. }) || self.wanted.is_empty() {
            return None;
        }
        let mut patch = Object::new();
        for (key, optional) in NEWS {
            let Some(value) = self.wanted.get(key) else { continue };
            let mut value = value.clone();
            if let Value::Object(inner) = &mut value {
                for key in optional.iter().filter(|key| !inner.contains_key(**key)).collect::<Vec<_>>() {
                    inner.insert((*key).to_owned(), Value::Null);
                }
            }
            patch.insert(key.to_owned(), value);
        }
        Some(TwinRequest::Patch { rid: self.rid(), patch })
    }

    /// Asks again for what was not answered, if anything.
    pub(super) fn retry(&mut self) -> Option<TwinRequest> {
        match self.known {
            Known::Reading { .. } | Known::Patching { .. } => Some(self.connected()),
            Known::Offline | Known::Values { .. } => None,
        }
    }

    /// Whether an answer of the hub is due.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.known, Known::Reading { .. } | Known::Patching { .. })
    }

    /// The twin was read: takes the reported properties as they are.
    pub(super) fn read(&mut self, mut reported: Object) -> Next {
        let ours: Object = Report::KEYS.iter().filter_map(|key| reported.remove_entry(*key)).collect();
        self.known = Known::Values { values: canonical(&ours), refused: None };
        self.compare()
    }

    /// The response to a patch came, or to a request that is not waited for.
    pub(super) fn patched(&mut self, rid: &str, status: u16, body: &[u8]) -> Next {
        match std::mem::take(&mut self.known) {
            Known::Patching { rid: expected, mut values, patch } if expected == rid => {
                if (200..300).contains(&status) {
                    merge(&mut values, &patch);
                    self.known = Known::Values { values, refused: None };
                    return self.compare();
                }
                if status == 429 || status >= 500 {
                    self.known = Known::Patching { rid: expected, values, patch };
                    return Next::Later { status };
                }
                let body = String::from_utf8_lossy(body).into_owned();
                let refused = Some(Refused { patch, status, body: body.clone() });
                self.known = Known::Values { values, refused };
                match self.leave_out() {
                    Some(what) => Next::Shorten { status, body, what },
                    None => Next::Refused { status, body },
                }
            }
            other => {
                self.known = other;
                Next::Wait
            }
        }
    }

    /// Sends what [`Next::Shorten`] has left.
    pub(super) fn shortened(&mut self) -> Next {
        self.compare()
    }

    /// Leaves out the next dispensable value that is there, and names it.
    fn leave_out(&mut self) -> Option<String> {
        while let Some(path) = DISPENSABLE.get(self.left_out) {
            self.left_out += 1;
            if remove(&mut self.wanted, path) {
                return Some(path.join("."));
            }
        }
        None
    }

    fn compare(&mut self) -> Next {
        match std::mem::take(&mut self.known) {
            // Not told yet what to say: what an earlier run said still holds.
            known @ Known::Values { .. } if self.wanted.is_empty() => {
                self.known = known;
                Next::Wait
            }
            Known::Values { values, refused } => {
                let patch = with_company(diff(&values, &self.wanted), &self.wanted);
                if patch.is_empty() {
                    self.known = Known::Values { values, refused: None };
                    Next::InSync
                } else if refused.as_ref().is_some_and(|refused| refused.patch == patch) {
                    self.known = Known::Values { values, refused };
                    Next::Wait
                } else {
                    let rid = self.rid();
                    self.known = Known::Patching { rid: rid.clone(), values, patch: patch.clone() };
                    Next::Send(TwinRequest::Patch { rid, patch })
                }
            }
            other => {
                self.known = other;
                Next::Wait
            }
        }
    }

    fn rid(&mut self) -> String {
        self.requests += 1;
        format!("{}-{:x}", self.run, self.requests)
    }
}

/// The `patch` with what is told again beside the changes in it.
fn with_company(mut patch: Object, wanted: &Object) -> Object {
    for (object, trigger, key) in TOLD_AGAIN {
        let unchanged = wanted.get(object).and_then(|wanted| wanted.get(key));
        let changed = patch.get_mut(object).and_then(Value::as_object_mut);
        if let (Some(value), Some(changed)) = (unchanged, changed)
            && trigger.is_none_or(|trigger| changed.contains_key(trigger))
        {
            changed.insert(key.to_owned(), value.clone());
        }
    }
    patch
}

/// Has `object` say what `patch` says, also where that is to take something away.
fn overlay(object: &mut Object, patch: Object) {
    for (key, value) in patch {
        match (object.get_mut(&key), value) {
            (Some(Value::Object(inner)), Value::Object(patch)) => overlay(inner, patch),
            (_, value) => {
                object.insert(key, value);
            }
        }
    }
}

/// Takes the value at `path` away; `false` if there is none.
fn remove(object: &mut Object, path: &[&str]) -> bool {
    match path {
        [] => false,
        [key] => object.remove(*key).is_some(),
        [key, rest @ ..] => {
            object.get_mut(*key).and_then(Value::as_object_mut).is_some_and(|inner| remove(inner, rest))
        }
    }
}

/// The report as it is told.
fn spelled(report: &Report) -> Object {
    match serde_json::to_value(report) {
        Ok(Value::Object(object)) => canonical(&object),
        _ => Object::new(),
    }
}

/// One spelling for equal values. The hub keeps JSON values, not their text:
/// it may write 21.0 as 21, or an instant without its trailing zeros (which
/// .NET's JSON libraries do), and neither is a difference worth sending.
fn canonical(object: &Object) -> Object {
    let value = |key: &str, value: &Value| match value {
        Value::Object(inner) => Value::Object(canonical(inner)),
        // Not any text: an operator's id or reason may look like an instant.
        Value::String(text) if INSTANTS.contains(&key) => match text.parse::<Time>() {
            Ok(time) => Value::String(time.to_string()),
            Err(_) => value.clone(),
        },
        Value::Number(number) => number.as_f64().map_or_else(|| value.clone(), shortest),
        other => other.clone(),
    };
    object.iter().map(|(key, inner)| (key.clone(), value(key, inner))).collect()
}

/// A whole number is written as one, so that it can be read as one: a hub's rules
/// and other programs tell 1 from 1.0.
fn shortest(number: f64) -> Value {
    // Each of these is a double exactly.
    const MAX_WHOLE: f64 = 9_007_199_254_740_992.0;
    match number.fract() == 0.0 && number.abs() < MAX_WHOLE {
        #[expect(clippy::cast_possible_truncation, reason = "it is whole and in range")]
        true => Value::from(number as i64),
        false => Value::from(number),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use iotdm_proto::report::Agent;
    use serde_json::json;

    use super::*;

    /// From 2^53 on, a hub that counts with doubles may have had another whole number.
    #[test]
    fn only_a_number_that_is_surely_whole_is_written_as_one() {
        for (number, written) in [
            (1.0, "1"),
            (-1.0, "-1"),
            (1.5, "1.5"),
            (9_007_199_254_740_991.0, "9007199254740991"),
            (9_007_199_254_740_992.0, "9007199254740992.0"),
        ] {
            assert_eq!(shortest(number).to_string(), written);
        }
    }

    fn report(version: &str) -> Report {
        let agent = Agent {
            version: version.into(),
            methods: vec![],
            features: vec![],
            damaged_record: None,
            wish_error: None,
            last_wish: None,
        };
        let time = Time::from_unix_millis(1_000);
        Report { reboot_time: Some(time), agent: Some(agent), ..Report::default() }
    }

    fn get(request: TwinRequest) -> String {
        match request {
            TwinRequest::Get { rid } => rid,
            other => panic!("not a get: {other:?}"),
        }
    }

    fn patch(next: Next) -> (String, Value) {
        match next {
            Next::Send(TwinRequest::Patch { rid, patch }) => (rid, Value::Object(patch)),
            other => panic!("not a patch: {other:?}"),
        }
    }

    fn empty() -> Object {
        object(json!({"$version": 1}))
    }

    fn object(value: Value) -> Object {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn only_the_difference_is_sent_and_strangers_are_left_alone() {
        let mut reporter = Reporter::new("r".to_owned());
        assert_eq!(reporter.want(&report("1")), Next::Wait);
        get(reporter.connected());
        let reported = json!({
            "$version": 9, "temperature": 21, "reboot": {"id": "old"},
            "agent": {"version": "0", "methods": []},
        });
        let (rid, sent) = patch(reporter.read(object(reported)));
        assert_eq!(
            sent,
            json!({"reboot": null, "rebootTime": "1970-01-01T00:00:01.000Z", "agent": {"version": "1"}})
        );
        assert_eq!(reporter.patched(&rid, 204, b""), Next::InSync);
        assert_eq!(reporter.want(&report("1")), Next::InSync);
        assert!(!reporter.is_waiting());
    }

    #[test]
    fn until_it_is_told_what_to_say_it_takes_nothing_back() {
        let mut reporter = Reporter::new("r".to_owned());
        get(reporter.connected());
        let reported =
            json!({"agent": {"version": "1", "methods": []}, "rebootTime": "1970-01-01T00:00:01Z"});
        assert_eq!(reporter.read(object(reported)), Next::Wait);
        assert_eq!(reporter.want(&report("1")), Next::InSync);
    }

    #[test]
    fn the_hubs_own_spelling_is_no_difference() {
        let mut reporter = Reporter::new("r".to_owned());
        reporter.want(&report("1"));
        get(reporter.connected());
        // And what only looks like an instant is left as it is.
        let odd = json!({"reboot": {"id": "20261122T183607Z", "startedAt": "1970-01-01T00:00:01Z"}});
        let odd = canonical(odd.as_object().unwrap());
        assert_eq!(odd["reboot"], json!({"id": "20261122T183607Z", "startedAt": "1970-01-01T00:00:01.000Z"}));
        let reported =
            json!({"rebootTime": "1970-01-01T00:00:01Z", "agent": {"version": "1", "methods": []}});
        assert_eq!(reporter.read(object(reported)), Next::InSync);
        let numbers = |count: Value, seconds: Value| {
            canonical(json!({"boot": {"count": count, "seconds": seconds}}).as_object().unwrap())
        };
        let told = numbers(json!(41), json!(21.0));
        assert_eq!(told, numbers(json!(41.0), json!(21)));
        assert_eq!(Value::Object(told).to_string(), r#"{"boot":{"count":41,"seconds":21}}"#);
        assert_eq!(numbers(json!(1), json!(7.808))["boot"]["seconds"], json!(7.808));
    }

    #[test]
    fn a_change_during_a_patch_is_sent_after_it() {
        let mut reporter = Reporter::new("r".to_owned());
        reporter.want(&report("1"));
        get(reporter.connected());
        let (rid, _) = patch(reporter.read(empty()));
        assert_eq!(reporter.want(&report("2")), Next::Wait);
        let (rid, sent) = patch(reporter.patched(&rid, 204, b""));
        assert_eq!(sent, json!({"agent": {"version": "2"}}));
        assert_eq!(reporter.patched("stale", 204, b""), Next::Wait);
        assert_eq!(reporter.patched(&rid, 204, b""), Next::InSync);
    }

    #[test]
    fn a_lost_response_or_link_leads_to_a_new_reading() {
        let mut reporter = Reporter::new("r".to_owned());
        reporter.want(&report("1"));
        let first = get(reporter.connected());
        let second = get(reporter.retry().unwrap());
        assert_ne!(first, second);
        assert!(!reporter.is_reading(&first) && reporter.is_reading(&second));
        patch(reporter.read(empty()));
        reporter.disconnected();
        assert_eq!(reporter.retry(), None);
        get(reporter.connected());
        patch(reporter.read(empty()));
    }

    #[test]
    fn a_refused_patch_is_not_sent_again_until_there_is_something_else() {
        let mut reporter = Reporter::new("r".to_owned());
        reporter.want(&report("1"));
        get(reporter.connected());
        let (rid, _) = patch(reporter.read(empty()));
        let refused = Next::Refused { status: 400, body: "no".into() };
        assert_eq!(reporter.patched(&rid, 400, b"no"), refused);
        // Nothing is sent, and whoever waits for an answer has it.
        assert_eq!(reporter.want(&report("1")), Next::Refused { status: 400, body: "no".into() });
        assert!(!reporter.is_waiting());
        patch(reporter.want(&report("2")));
    }

    #[test]
    fn a_hub_without_room_is_told_less_but_never_no_outcome() {
        let reboot = json!({
            "id": "r", "status": "failed", "reason": "kernel update", "requestedBy": "method",
            "requestedAt": "1970-01-01T00:00:01.000Z", "previousBootId": "b",
            "error": {"code": "expired", "message": "its deadline passed"},
        });
        let full = Report { reboot: serde_json::from_value(reboot).unwrap(), ..report("1") };
        let mut reporter = Reporter::new("r".to_owned());
        reporter.want(&full);
        get(reporter.connected());
        let (mut rid, _) = patch(reporter.read(empty()));
        let mut left_out = Vec::new();
        let sent = loop {
            let Next::Shorten { status: 400, what, .. } = reporter.patched(&rid, 400, b"full") else {
                panic!()
            };
            left_out.push(what);
            let (again, sent) = patch(reporter.shortened());
            rid = again;
            if left_out.len() == 2 {
                break sent;
            }
        };
        assert_eq!(left_out, ["reboot.error.message", "reboot.reason"]);
        let told = json!({
            "id": "r", "status": "failed", "requestedBy": "method",
            "requestedAt": "1970-01-01T00:00:01.000Z", "previousBootId": "b", "error": {"code": "expired"},
        });
        assert_eq!(sent["reboot"], told);
        assert_eq!(reporter.patched(&rid, 204, b""), Next::InSync);
        // What must not wait does without it as well.
        let next = Report { reboot_time: None, ..full.clone() };
        let (rid, sent) = patch(Next::Send(reporter.send_now(&next).unwrap()));
        assert_eq!(sent, json!({"rebootTime": null}));
        assert_eq!(reporter.patched(&rid, 204, b""), Next::InSync);
        // Another report is tried as a whole again.
        let (rid, sent) = patch(reporter.want(&Report { reboot_time: None, ..full }));
        assert_eq!(
            sent["reboot"],
            json!({"reason": "kernel update", "error": {"message": "its deadline passed"}})
        );
        assert!(matches!(reporter.patched(&rid, 400, b"full"), Next::Shorten { .. }));
    }

    #[test]
    fn what_is_left_out_and_in_which_order() {
        let full = json!({
            "rebootTime": "1970-01-01T00:00:01.000Z",
            "reboot": {
                "id": "r", "status": "rebooting", "reason": "kernel update", "operator": "alice",
                "requestedBy": "device", "requestedAt": "1970-01-01T00:00:01.000Z", "previousBootId": "b",
                "waitingFor": ["docker.service"], "waitingForCount": 1, "failedBefore": ["old.service"],
                "error": {"code": "expired", "message": "its deadline passed"},
            },
            "boot": {"bootId": "b", "bootTime": "1970-01-01T00:00:01.000Z", "cause": "local", "clock": "synchronized"},
            "health": {
                "bootId": "b", "state": "degraded", "failedUnits": ["old.service"], "failedCount": 1,
                "since": "1970-01-01T00:00:01.000Z",
            },
            "rebootRequired": {"required": true, "reasons": ["dbus"], "reasonCount": 1, "askedFor": "d"},
            "agent": {"version": "1", "methods": ["rebootDevice"], "wishError": "id: must be given", "lastWish": "w"},
            "deviceInformation": {"__t": "c", "model": "m"},
        });
        let report: Report = serde_json::from_value(full.clone()).unwrap();
        let mut reporter = Reporter::new("r".to_owned());
        reporter.want(&report);
        get(reporter.connected());
        let (mut rid, mut sent) = patch(reporter.read(empty()));
        assert_eq!(sent, full);
        let mut left_out = Vec::new();
        loop {
            match reporter.patched(&rid, 400, b"full") {
                Next::Shorten { what, .. } => left_out.push(what),
                refused => {
                    assert!(matches!(refused, Next::Refused { status: 400, .. }));
                    break;
                }
            }
            (rid, sent) = patch(reporter.shortened());
        }
        assert_eq!(
            left_out,
            [
                "deviceInformation",
                "rebootRequired.reasons",
                "health.failedUnits",
                "reboot.failedBefore",
                "reboot.waitingFor",
                "reboot.error.message",
                "agent.wishError",
                "reboot.reason",
                "reboot.operator"
            ]
        );
        for kept in [
            "/rebootTime",
            "/reboot/id",
            "/reboot/status",
            "/reboot/previousBootId",
            "/boot/bootId",
            "/health/bootId",
            "/health/failedCount",
            "/reboot/waitingForCount",
            "/rebootRequired/askedFor",
            "/agent/lastWish",
        ] {
            assert!(sent.pointer(kept).is_some(), "{kept}: {sent}");
        }
    }

    #[test]
    fn a_component_is_marked_and_a_boot_says_its_cause_each_time() {
        let information = |memory: u64| {
            let information = json!({"__t": "c", "osName": "Debian", "totalMemory": memory});
            serde_json::from_value(information).unwrap()
        };
        let boot = |id: &str, cause: &str| {
            let time = "1970-01-01T00:00:01.000Z";
            let boot = json!({"bootId": id, "bootTime": time, "cause": cause, "clock": "synchronized"});
            serde_json::from_value(boot).unwrap()
        };
        let first = Report { device_information: information(1), boot: boot("b1", "unclean"), ..report("1") };
        let mut reporter = Reporter::new("r".to_owned());
        reporter.want(&first);
        get(reporter.connected());
        let (rid, sent) = patch(reporter.read(empty()));
        assert_eq!(sent["deviceInformation"], json!({"__t": "c", "osName": "Debian", "totalMemory": 1}));
        assert_eq!(reporter.patched(&rid, 204, b""), Next::InSync);
        assert_eq!(reporter.want(&first), Next::InSync);
        let second = Report { device_information: information(2), boot: boot("b2", "unclean"), ..first };
        let (rid, sent) = patch(reporter.want(&second));
        let expected = json!({
            "deviceInformation": {"__t": "c", "totalMemory": 2}, "boot": {"bootId": "b2", "cause": "unclean"},
        });
        assert_eq!(sent, expected);
        assert_eq!(reporter.patched(&rid, 204, b""), Next::InSync);
        // Another change of a boot says nothing of its cause.
        let clock = |mut boot: iotdm_proto::report::Boot| {
            boot.clock = iotdm_proto::report::Clock::Unsynchronized;
            boot
        };
        let third = Report { boot: second.boot.clone().map(clock), ..second };
        let (rid, sent) = patch(reporter.want(&third));
        assert_eq!(sent, json!({"boot": {"clock": "unsynchronized"}}));
        // For want of room, what the machine says of itself goes first, as a whole.
        let Next::Shorten { what, .. } = reporter.patched(&rid, 400, b"full") else { panic!() };
        assert_eq!(what, "deviceInformation");
        let (_, sent) = patch(reporter.shortened());
        assert_eq!(sent, json!({"boot": {"clock": "unsynchronized"}, "deviceInformation": null}));
    }

    #[test]
    fn throttling_is_tried_later() {
        let mut reporter = Reporter::new("r".to_owned());
        reporter.want(&report("1"));
        get(reporter.connected());
        let (rid, _) = patch(reporter.read(empty()));
        assert_eq!(reporter.patched(&rid, 500, b"{}"), Next::Later { status: 500 });
        get(reporter.retry().unwrap());
    }

    #[test]
    fn before_the_machine_goes_down_what_is_unanswered_does_not_hold_the_rest_up() {
        let mut reporter = Reporter::new("r".to_owned());
        reporter.connected();
        assert_eq!(reporter.news(), None, "there is nothing to say yet");
        reporter.disconnected();
        assert_eq!(reporter.send_now(&report("1")), None, "the hub is not connected");
        let reading = get(reporter.connected());
        let unread = reporter.send_now(&report("1")).unwrap();
        assert!(
            matches!(&unread, TwinRequest::Patch { patch, .. } if patch["agent"]["version"] == "1"),
            "{unread:?}"
        );
        let (first, _) = patch(reporter.read(empty()));
        assert_ne!(reading, first);
        assert_eq!(reporter.send_now(&report("1")), None, "all of it was sent");
        let (second, told) = patch(Next::Send(reporter.send_now(&report("2")).unwrap()));
        assert_eq!((&told["agent"]["version"], told["rebootTime"].is_string()), (&json!("2"), true));
        assert_eq!(reporter.patched(&first, 204, b""), Next::Wait);
        assert_eq!(reporter.patched(&second, 204, b""), Next::InSync);
        assert_eq!(reporter.send_now(&report("2")), None);
        let (third, _) = patch(Next::Send(reporter.send_now(&report("3")).unwrap()));
        assert_eq!(reporter.patched(&third, 204, b""), Next::InSync, "an answer is waited for");
    }

    fn reboot(more: Value) -> Report {
        let mut reboot = json!({
            "id": "a", "status": "failed", "requestedBy": "method", "previousBootId": "b1",
            "requestedAt": "1970-01-01T00:00:01Z",
        });
        reboot.as_object_mut().unwrap().extend(object(more));
        Report { reboot: Some(serde_json::from_value(reboot).unwrap()), ..report("1") }
    }

    #[test]
    fn what_is_passed_by_is_taken_back() {
        let mut reporter = Reporter::new("r".to_owned());
        let failed = reboot(json!({"error": {"code": "expired", "message": "late"}}));
        reporter.want(&failed);
        get(reporter.connected());
        let (_, sent) = patch(reporter.read(empty()));
        assert_eq!(sent["reboot"]["error"]["code"], "expired");
        let begins = reboot(json!({"id": "b", "status": "rebooting"}));
        let (second, sent) = patch(Next::Send(reporter.send_now(&begins).unwrap()));
        assert_eq!((&sent["reboot"]["id"], &sent["reboot"]["error"]), (&json!("b"), &Value::Null));
        assert!(sent["reboot"].as_object().unwrap().contains_key("error"), "{sent}");
        assert_eq!(reporter.patched(&second, 204, b""), Next::InSync);
    }

    #[test]
    fn news_takes_an_earlier_outcome_away_and_tells_nothing_that_no_boot_changes() {
        let mut reporter = Reporter::new("r".to_owned());
        reporter.want(&reboot(json!({"status": "completed", "bootId": "b2"})));
        assert_eq!(reporter.news(), None, "the hub is not connected");
        get(reporter.connected());
        let (_, sent) = patch(Next::Send(reporter.news().unwrap()));
        let told: BTreeSet<_> = sent.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(told, BTreeSet::from(["reboot", "rebootTime"]));
        let mut twin = object(
            serde_json::to_value(reboot(json!({
                "error": {"code": "expired", "message": "late"}, "waitingFor": ["x"], "waitingForCount": 1,
            })))
            .unwrap(),
        );
        merge(&mut twin, &object(sent));
        assert_eq!(twin, object(json!(reboot(json!({"status": "completed", "bootId": "b2"})))));
    }
}
