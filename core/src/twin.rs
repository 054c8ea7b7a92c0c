//! The device twin as the daemon deals with it: what it is to say (reported
//! properties), what is wished for in it (desired properties), and when to ask
//! the hub about it again.
//!
//! [`Twin`] is the one door: it is told what the hub says and what is to be
//! reported, and answers with [`Action`]s, to be carried out in their order. The
//! time that it is told, `now`, is one that never goes back, from whenever on.

mod desired;
mod reporter;

use std::time::Duration;

use iotdm_proto::report::Report;
use iotdm_proto::twin::Object;
use serde::Deserialize;

use self::desired::{Desired, Update};
use self::reporter::{Next, Reporter};
use crate::decide::memory::Memory;
use crate::decide::request::DesiredReboot;

/// What is known of the twin, and what is asked about it.
#[derive(Debug)]
pub struct Twin {
    reporter: Reporter,
    desired: Desired,
    /// When the hub's response is overdue, or asking again is due.
    response_due: Option<Duration>,
    /// When to read a twin again that was older than what the hub had told.
    reading_due: Option<Duration>,
}

/// What to do about the twin.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Send this to the hub.
    Send(TwinRequest),
    /// Nothing: the hub has all that was to be reported.
    Reported,
    /// Hear what is wished for now.
    Desired {
        /// `properties.desired.reboot`, if it is there.
        reboot: Option<DesiredReboot>,
        /// What the reported properties tell of earlier runs, if the whole twin
        /// was read.
        memory: Option<Box<Memory>>,
    },
    /// Log that the hub cannot be told or asked now. It is tried again when
    /// [`Twin::deadline`] has passed.
    LogPostponed {
        /// The hub's status.
        status: u16,
    },
    /// Log that the hub does not take what is to be reported, nor would it
    /// later.
    LogRefused {
        /// The hub's status.
        status: u16,
        /// Its explanation.
        body: String,
    },
    /// Log that the hub does not take what is to be reported, and that it is told
    /// less.
    LogShortened {
        /// The hub's status.
        status: u16,
        /// Its explanation.
        body: String,
        /// The property that is left out.
        what: String,
    },
    /// Log that a change was missed. The twin is read again when
    /// [`Twin::deadline`] has passed.
    LogMissed,
}

/// What to send to the hub.
#[derive(Debug, Clone, PartialEq)]
pub enum TwinRequest {
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

/// A twin as the hub sends it to its device, as far as it matters here.
#[derive(Deserialize)]
struct Body {
    desired: Object,
    reported: Object,
}

/// A response about the twin that takes longer is asked for again.
const RESPONSE_PATIENCE: Duration = Duration::from_secs(30);

/// A hub whose twin lags behind its own notifications is given this long.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(2);

impl Twin {
    /// A twin that nothing is known of. `run` marks this run's requests and
    /// should be unique: responses to an earlier run may come late.
    pub fn new(run: String) -> Self {
        Twin {
            reporter: Reporter::new(run),
            desired: Desired::default(),
            response_due: None,
            reading_due: None,
        }
    }

    /// From now on the twin is to say this.
    pub fn want(&mut self, report: &Report, now: Duration) -> Vec<Action> {
        let next = self.reporter.want(report);
        self.follow(next, now)
    }

    /// From now on the twin is to say this; where the hub is connected, it is sent at once
    /// even if the hub has not answered what it was asked or told before.
    pub fn send_now(&mut self, report: &Report, now: Duration) -> Option<TwinRequest> {
        let request = self.reporter.send_now(report)?;
        self.response_due.get_or_insert(now + RESPONSE_PATIENCE);
        Some(request)
    }

    /// What a boot has changed, to be sent before the twin was read.
    pub fn news(&mut self) -> Option<TwinRequest> {
        self.reporter.news()
    }

    /// The hub is connected and its responses are subscribed to.
    pub fn connected(&mut self, now: Duration) -> Vec<Action> {
        let request = self.reporter.connected();
        self.follow(Next::Send(request), now)
    }

    /// The hub is gone. What changes from here on is not told.
    pub fn disconnected(&mut self) {
        self.reporter.disconnected();
        self.desired.disconnected();
        (self.response_due, self.reading_due) = (None, None);
    }

    /// The hub responded to the request `rid`.
    pub fn response(&mut self, rid: &str, status: u16, body: &[u8], now: Duration) -> Vec<Action> {
        let (mut update, mut memory) = (Update::Nothing, None);
        let next = if self.reporter.is_reading(rid) {
            match serde_json::from_slice::<Body>(body) {
                Ok(twin) if status == 200 => {
                    memory = Some(Box::new(Memory::read(&twin.reported)));
                    update = self.desired.read(twin.desired);
                    self.reporter.read(twin.reported)
                }
                _ => Next::Later { status },
            }
        } else {
            self.reporter.patched(rid, status, body)
        };
        // Unless the response was one to something else.
        if !self.reporter.is_waiting() {
            self.response_due = None;
        }
        let mut actions = self.follow(next, now);
        actions.extend(self.hear(update, memory, now));
        actions
    }

    /// The desired properties were changed by `patch`, which led to `version`.
    pub fn desired_patch(&mut self, version: u64, patch: &[u8], now: Duration) -> Vec<Action> {
        let update = self.desired.patched(version, patch);
        self.hear(update, None, now).into_iter().collect()
    }

    /// When [`Twin::deadline_passed`] is to be called next.
    pub fn deadline(&self) -> Option<Duration> {
        self.response_due.into_iter().chain(self.reading_due).min()
    }

    /// The deadline has passed: asks again for what is overdue `now`.
    pub fn deadline_passed(&mut self, now: Duration) -> Vec<Action> {
        let mut request = None;
        if self.response_due.take_if(|due| *due <= now).is_some() {
            request = self.reporter.retry();
        }
        if self.reading_due.take_if(|due| *due <= now).is_some() {
            request = Some(self.reporter.connected());
        }
        request.map_or_else(Vec::new, |request| self.follow(Next::Send(request), now))
    }

    fn follow(&mut self, next: Next, now: Duration) -> Vec<Action> {
        match next {
            Next::Wait => Vec::new(),
            Next::InSync => vec![Action::Reported],
            Next::Send(request) => {
                self.response_due = Some(now + RESPONSE_PATIENCE);
                vec![Action::Send(request)]
            }
            Next::Later { status } => {
                self.response_due = Some(now + RESPONSE_PATIENCE);
                vec![Action::LogPostponed { status }]
            }
            Next::Refused { status, body } => vec![Action::LogRefused { status, body }],
            Next::Shorten { status, body, what } => {
                let mut actions = vec![Action::LogShortened { status, body, what }];
                let next = self.reporter.shortened();
                actions.extend(self.follow(next, now));
                actions
            }
        }
    }

    fn hear(&mut self, update: Update, memory: Option<Box<Memory>>, now: Duration) -> Option<Action> {
        match update {
            Update::Nothing => None,
            Update::Reboot(desired) => {
                Some(Action::Desired { reboot: desired.map(DesiredReboot::from), memory })
            }
            Update::Missed => {
                self.reading_due = Some(now + READ_AGAIN_AFTER);
                Some(Action::LogMissed)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use iotdm_proto::Time;
    use serde_json::json;

    use super::*;

    fn report() -> Report {
        let time = Time::from_unix_millis(1_000);
        Report { reboot_time: Some(time), ..Report::default() }
    }

    fn rid(actions: &[Action]) -> String {
        match actions.first() {
            Some(Action::Send(TwinRequest::Get { rid } | TwinRequest::Patch { rid, .. })) => rid.clone(),
            other => panic!("nothing is sent: {other:?}"),
        }
    }

    fn seconds(from: Duration, twin: &Twin) -> Option<u64> {
        twin.deadline().map(|due| (due - from).as_secs())
    }

    #[test]
    fn one_reading_tells_what_to_send_and_what_is_wished() {
        let (mut twin, start) = (Twin::new("r".to_owned()), Duration::from_secs(1000));
        assert_eq!(twin.want(&report(), start), []);
        let reading = rid(&twin.connected(start));
        let body = json!({
            "desired": {"reboot": {"id": "w"}, "$version": 2},
            "reported": {"reboot": {"id": "old"}, "$version": 3},
        });
        let actions = twin.response(&reading, 200, body.to_string().as_bytes(), start);
        let patch = rid(&actions);
        let remembered = Memory { reboot_id: Some("old".to_owned()), ..Memory::default() };
        let expected =
            Action::Desired { reboot: Some(json!({"id": "w"}).into()), memory: Some(Box::new(remembered)) };
        assert_eq!(actions[1..], [expected]);
        assert_eq!(twin.response(&patch, 204, b"", start), [Action::Reported]);
        assert_eq!(twin.deadline(), None);
        let changed = twin.desired_patch(3, br#"{"reboot":null,"$version":3}"#, start);
        assert_eq!(changed, [Action::Desired { reboot: None, memory: None }]);
    }

    #[test]
    fn what_the_hub_does_not_answer_or_cannot_now_is_asked_again_after_half_a_minute() {
        let (mut twin, start) = (Twin::new("r".to_owned()), Duration::from_secs(1000));
        let late = start + RESPONSE_PATIENCE;
        let first = rid(&twin.connected(start));
        assert_eq!(seconds(start, &twin), Some(30));
        let second = rid(&twin.deadline_passed(late));
        assert_ne!(first, second);
        assert_eq!(seconds(start, &twin), Some(60));
        // A response to the first one changes nothing, and one that is not a
        // twin is no twin.
        assert_eq!(twin.response(&first, 200, b"{}", late), []);
        assert_eq!(seconds(start, &twin), Some(60));
        let later = late + Duration::from_secs(5);
        assert_eq!(twin.response(&second, 429, b"{}", later), [Action::LogPostponed { status: 429 }]);
        assert_eq!(seconds(start, &twin), Some(65));
        assert_eq!(twin.deadline_passed(late), [], "too early");
        let third = rid(&twin.deadline_passed(later + RESPONSE_PATIENCE));
        let postponed = twin.response(&third, 200, b"<html>", later);
        assert_eq!(postponed, [Action::LogPostponed { status: 200 }]);
        twin.disconnected();
        assert_eq!(twin.deadline(), None);
    }

    #[test]
    fn only_a_status_of_success_makes_a_twin_of_a_response() {
        let (mut twin, start) = (Twin::new("r".to_owned()), Duration::from_secs(1000));
        let reading = rid(&twin.connected(start));
        let body = br#"{"desired":{"reboot":{"id":"w"},"$version":2},"reported":{"$version":3}}"#;
        assert_eq!(twin.response(&reading, 500, body, start), [Action::LogPostponed { status: 500 }]);
        assert_eq!(seconds(start, &twin), Some(30));
    }

    #[test]
    fn what_must_not_wait_is_sent_though_the_hub_has_not_answered_yet() {
        let (mut twin, start) = (Twin::new("r".to_owned()), Duration::from_secs(1000));
        assert_eq!(twin.send_now(&report(), start), None, "there is no hub");
        let reading = rid(&twin.connected(start));
        let later = start + Duration::from_secs(10);
        let Some(TwinRequest::Patch { rid, patch }) = twin.send_now(&report(), later) else {
            panic!("nothing is sent")
        };
        assert_ne!(rid, reading);
        assert_eq!(json!(patch), json!({"rebootTime": "1970-01-01T00:00:01.000Z"}));
        assert_eq!(seconds(start, &twin), Some(30), "the twin is overdue no later than before");
    }

    #[test]
    fn what_must_not_wait_is_overdue_after_half_a_minute() {
        let (mut twin, start) = (Twin::new("r".to_owned()), Duration::from_secs(1000));
        let reading = rid(&twin.connected(start));
        twin.response(&reading, 200, br#"{"desired":{"$version":1},"reported":{"$version":1}}"#, start);
        assert_eq!(twin.deadline(), None);
        assert!(twin.send_now(&report(), start).is_some());
        assert_eq!(seconds(start, &twin), Some(30));
    }

    #[test]
    fn what_a_boot_has_changed_is_told_before_the_twin_was_read() {
        let (mut twin, start) = (Twin::new("r".to_owned()), Duration::from_secs(1000));
        twin.want(&report(), start);
        assert_eq!(twin.news(), None, "there is no hub");
        let reading = rid(&twin.connected(start));
        let Some(TwinRequest::Patch { rid, patch }) = twin.news() else { panic!("nothing is told") };
        assert_ne!(rid, reading);
        assert_eq!(json!(patch), json!({"rebootTime": "1970-01-01T00:00:01.000Z"}));
    }

    #[test]
    fn a_twin_that_lags_behind_is_read_again_two_seconds_later() {
        let (mut twin, start) = (Twin::new("r".to_owned()), Duration::from_secs(1000));
        let reading = rid(&twin.connected(start));
        assert_eq!(twin.desired_patch(5, br#"{"reboot":null}"#, start), []);
        let old = br#"{"desired":{"$version":4},"reported":{"$version":1}}"#;
        assert_eq!(twin.response(&reading, 200, old, start), [Action::LogMissed]);
        assert_eq!(seconds(start, &twin), Some(2));
        rid(&twin.deadline_passed(start + READ_AGAIN_AFTER));
        assert_eq!(seconds(start, &twin), Some(32));
    }
}
