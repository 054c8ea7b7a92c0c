//! Keeps the twin's reported properties equal to what the daemon wants to say.
//!
//! After each connect the twin is read and only the difference is sent. So
//! nothing is lost that the hub did not take, nothing is sent that it has, and
//! no list of unsent messages has to survive a crash.

use iotdm_proto::Time;
use iotdm_proto::report::Report;
use iotdm_proto::twin::{Object, diff, merge};
use serde_json::Value;

/// The properties that are ours; others in the same twin are left alone.
const KEYS: [&str; 4] = ["rebootTime", "reboot", "boot", "agent"];

/// The properties that are instants.
const INSTANTS: [&str; 6] =
    ["rebootTime", "bootTime", "requestedAt", "notBefore", "startedAt", "completedAt"];

/// What is to be said, and what the hub is known to have.
#[derive(Debug)]
pub struct Reporter {
    wanted: Object,
    hub: Hub,
    /// Tells this run's requests from those of earlier ones, whose responses
    /// may come late on a session that goes on.
    run: String,
    requests: u64,
}

#[derive(Debug, Default)]
enum Hub {
    #[default]
    Offline,
    /// The twin was asked for.
    Reading { rid: String },
    /// These are its values; `refused` is a difference that it did not take.
    Known { values: Object, refused: Option<Object> },
    /// A patch was sent. One at a time: the hub promises no order.
    Patching { rid: String, values: Object, patch: Object },
}

/// What to send to the hub.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Ask for the twin.
    Get {
        /// To be found in the response.
        rid: String,
    },
    /// Merge into the reported properties.
    Patch {
        /// To be found in the response.
        rid: String,
        /// A JSON object.
        patch: Object,
    },
}

/// What follows from a response.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Send this.
    Send(Request),
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
    /// Nothing: not connected, or still waiting.
    Wait,
}

impl Reporter {
    /// A reporter whose requests are marked with `run`, which should be unique.
    pub fn new(run: String) -> Self {
        Reporter { wanted: Object::new(), hub: Hub::Offline, run, requests: 0 }
    }

    /// From now on the twin is to say this.
    pub fn want(&mut self, report: &Report) -> Next {
        self.wanted = match serde_json::to_value(report) {
            Ok(Value::Object(object)) => canonical(&object),
            _ => Object::new(),
        };
        self.compare()
    }

    /// The hub is connected and its responses are subscribed to, or the twin
    /// has to be read again.
    pub fn connected(&mut self) -> Request {
        let rid = self.rid();
        self.hub = Hub::Reading { rid: rid.clone() };
        Request::Get { rid }
    }

    /// Whether the response to `rid` will be the twin as it is.
    pub fn is_reading(&self, rid: &str) -> bool {
        matches!(&self.hub, Hub::Reading { rid: expected } if expected == rid)
    }

    /// The hub is gone, and with it what was under way.
    pub fn disconnected(&mut self) {
        self.hub = Hub::Offline;
    }

    /// Asks again for what was not answered, if anything.
    pub fn retry(&mut self) -> Option<Request> {
        match self.hub {
            Hub::Reading { .. } | Hub::Patching { .. } => Some(self.connected()),
            Hub::Offline | Hub::Known { .. } => None,
        }
    }

    /// Whether an answer of the hub is due.
    pub fn is_waiting(&self) -> bool {
        matches!(self.hub, Hub::Reading { .. } | Hub::Patching { .. })
    }

    /// A response came.
    pub fn response(&mut self, rid: &str, status: u16, body: &[u8]) -> Next {
        match std::mem::take(&mut self.hub) {
            Hub::Reading { rid: expected } if expected == rid => {
                let Some(values) = reported(status, body) else {
                    self.hub = Hub::Reading { rid: expected };
                    return Next::Later { status };
                };
                self.hub = Hub::Known { values, refused: None };
                self.compare()
            }
            Hub::Patching { rid: expected, mut values, patch } if expected == rid => {
                if (200..300).contains(&status) {
                    merge(&mut values, &patch);
                    self.hub = Hub::Known { values, refused: None };
                    return self.compare();
                }
                if status == 429 || status >= 500 {
                    self.hub = Hub::Patching { rid: expected, values, patch };
                    return Next::Later { status };
                }
                self.hub = Hub::Known { values, refused: Some(patch) };
                Next::Refused { status, body: String::from_utf8_lossy(body).into_owned() }
            }
            other => {
                self.hub = other;
                Next::Wait
            }
        }
    }

    fn compare(&mut self) -> Next {
        match std::mem::take(&mut self.hub) {
            // Not told yet what to say: what an earlier run said still holds.
            known @ Hub::Known { .. } if self.wanted.is_empty() => {
                self.hub = known;
                Next::Wait
            }
            Hub::Known { values, refused } => {
                let patch = diff(&values, &self.wanted);
                if patch.is_empty() {
                    self.hub = Hub::Known { values, refused: None };
                    Next::InSync
                } else if refused.as_ref() == Some(&patch) {
                    self.hub = Hub::Known { values, refused };
                    Next::Wait
                } else {
                    let rid = self.rid();
                    self.hub = Hub::Patching { rid: rid.clone(), values, patch: patch.clone() };
                    Next::Send(Request::Patch { rid, patch })
                }
            }
            other => {
                self.hub = other;
                Next::Wait
            }
        }
    }

    fn rid(&mut self) -> String {
        self.requests += 1;
        format!("{}-{:x}", self.run, self.requests)
    }
}

/// Our part of the reported properties in a twin as the hub sends it.
fn reported(status: u16, body: &[u8]) -> Option<Object> {
    if status != 200 {
        return None;
    }
    let mut twin: Value = serde_json::from_slice(body).ok()?;
    let reported = twin.get_mut("reported")?.as_object_mut()?;
    let ours = KEYS.iter().filter_map(|key| reported.remove_entry(*key));
    Some(canonical(&ours.collect()))
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
        Value::Number(number) => number.as_f64().map_or_else(|| value.clone(), Value::from),
        other => other.clone(),
    };
    object.iter().map(|(key, inner)| (key.clone(), value(key, inner))).collect()
}

#[cfg(test)]
mod tests {
    use iotdm_proto::report::Agent;
    use serde_json::json;

    use super::*;

    fn report(version: &str) -> Report {
        let agent =
            Agent { version: version.into(), methods: vec![], damaged_record: None, wish_error: None };
        let time = Time::from_unix_millis(1_000);
        Report { reboot_time: Some(time), reboot: None, boot: None, agent: Some(agent) }
    }

    fn get(request: Request) -> String {
        match request {
            Request::Get { rid } => rid,
            other => panic!("not a get: {other:?}"),
        }
    }

    fn patch(next: Next) -> (String, Value) {
        match next {
            Next::Send(Request::Patch { rid, patch }) => (rid, Value::Object(patch)),
            other => panic!("not a patch: {other:?}"),
        }
    }

    const EMPTY: &[u8] = br#"{"desired":{"$version":1},"reported":{"$version":1}}"#;

    #[test]
    fn only_the_difference_is_sent_and_strangers_are_left_alone() {
        let mut reporter = Reporter::new("r".to_owned());
        assert_eq!(reporter.want(&report("1")), Next::Wait);
        let rid = get(reporter.connected());
        let twin = json!({"desired": {"$version": 1}, "reported": {
            "$version": 9, "temperature": 21, "reboot": {"id": "old"},
            "agent": {"version": "0", "methods": []},
        }});
        let (rid, sent) = patch(reporter.response(&rid, 200, twin.to_string().as_bytes()));
        assert_eq!(
            sent,
            json!({"reboot": null, "rebootTime": "1970-01-01T00:00:01.000Z", "agent": {"version": "1"}})
        );
        assert_eq!(reporter.response(&rid, 204, b""), Next::InSync);
        assert_eq!(reporter.want(&report("1")), Next::InSync);
        assert!(!reporter.is_waiting());
    }

    #[test]
    fn until_it_is_told_what_to_say_it_takes_nothing_back() {
        let mut reporter = Reporter::new("r".to_owned());
        let rid = get(reporter.connected());
        let twin =
            br#"{"reported":{"agent":{"version":"1","methods":[]},"rebootTime":"1970-01-01T00:00:01Z"}}"#;
        assert_eq!(reporter.response(&rid, 200, twin), Next::Wait);
        assert_eq!(reporter.want(&report("1")), Next::InSync);
    }

    #[test]
    fn the_hubs_own_spelling_is_no_difference() {
        let mut reporter = Reporter::new("r".to_owned());
        reporter.want(&report("1"));
        let rid = get(reporter.connected());
        // And what only looks like an instant is left as it is.
        let odd = json!({"reboot": {"id": "20261122T183607Z", "startedAt": "1970-01-01T00:00:01Z"}});
        let odd = canonical(odd.as_object().unwrap());
        assert_eq!(odd["reboot"], json!({"id": "20261122T183607Z", "startedAt": "1970-01-01T00:00:01.000Z"}));
        let twin =
            br#"{"reported":{"rebootTime":"1970-01-01T00:00:01Z","agent":{"version":"1","methods":[]}}}"#;
        assert_eq!(reporter.response(&rid, 200, twin), Next::InSync);
    }

    #[test]
    fn a_change_during_a_patch_is_sent_after_it() {
        let mut reporter = Reporter::new("r".to_owned());
        reporter.want(&report("1"));
        let rid = get(reporter.connected());
        let (rid, _) = patch(reporter.response(&rid, 200, EMPTY));
        assert_eq!(reporter.want(&report("2")), Next::Wait);
        let (rid, sent) = patch(reporter.response(&rid, 204, b""));
        assert_eq!(sent, json!({"agent": {"version": "2"}}));
        assert_eq!(reporter.response("stale", 204, b""), Next::Wait);
        assert_eq!(reporter.response(&rid, 204, b""), Next::InSync);
    }

    #[test]
    fn a_lost_response_or_link_leads_to_a_new_reading() {
        let mut reporter = Reporter::new("r".to_owned());
        reporter.want(&report("1"));
        let first = get(reporter.connected());
        let second = get(reporter.retry().unwrap());
        assert_ne!(first, second);
        assert_eq!(reporter.response(&first, 200, EMPTY), Next::Wait);
        patch(reporter.response(&second, 200, EMPTY));
        reporter.disconnected();
        assert_eq!(reporter.retry(), None);
        let rid = get(reporter.connected());
        patch(reporter.response(&rid, 200, EMPTY));
    }

    #[test]
    fn a_refused_patch_is_not_sent_again_until_there_is_something_else() {
        let mut reporter = Reporter::new("r".to_owned());
        reporter.want(&report("1"));
        let rid = get(reporter.connected());
        let (rid, _) = patch(reporter.response(&rid, 200, EMPTY));
        let refused = Next::Refused { status: 400, body: "no".into() };
        assert_eq!(reporter.response(&rid, 400, b"no"), refused);
        assert_eq!(reporter.want(&report("1")), Next::Wait);
        patch(reporter.want(&report("2")));
    }

    #[test]
    fn throttling_and_nonsense_are_tried_later() {
        let mut reporter = Reporter::new("r".to_owned());
        reporter.want(&report("1"));
        let rid = get(reporter.connected());
        assert_eq!(reporter.response(&rid, 200, b"<html>"), Next::Later { status: 200 });
        let rid = get(reporter.retry().unwrap());
        assert_eq!(reporter.response(&rid, 429, b"{}"), Next::Later { status: 429 });
        let rid = get(reporter.retry().unwrap());
        let (rid, _) = patch(reporter.response(&rid, 200, EMPTY));
        assert_eq!(reporter.response(&rid, 500, b"{}"), Next::Later { status: 500 });
        get(reporter.retry().unwrap());
    }
}
