//! `--soak`: whether a canary stays as it was when its reboot was complete.

use std::time::{Duration, SystemTime};

use iotdm_proto::Time;
use serde_json::Value;

use super::health::{Judge, Verdict};
use super::watch::Watch;
use crate::reported::Reported;
use crate::twin::Twin;

/// A canary as it was when its reboot was complete.
pub(super) struct Canary {
    /// By what its health is judged, if that counts.
    judge: Option<Judge>,
    boot_id: Option<String>,
    /// For a device that tells no boot ids.
    reboot_time: Option<Value>,
}

/// What has become of a canary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// It is as it was.
    Same,
    /// It is not connected.
    Disconnected,
    /// It runs, and whether it is well cannot be said; how far it is.
    Unsettled(String),
    /// It is not as it was, in a sentence.
    Worse(String),
}

impl Canary {
    /// The canary that was watched so and reports this.
    pub(super) fn new(watch: &Watch, reported: &Reported) -> Self {
        // By the boot of the request, as it may have booted again where the time began in
        // an earlier invocation.
        let is_ours = reported.request_id() == Some(watch.id.as_str());
        let boot_id = reported.new_boot_id().filter(|_| is_ours).or(reported.running_boot_id());
        Canary {
            judge: watch.minds_health(reported).then(|| watch.health_judge(reported)),
            boot_id: boot_id.map(str::to_owned),
            reboot_time: reported.reboot_time.clone(),
        }
    }

    /// What its twin tells now.
    pub(super) fn look(&self, twin: &Twin) -> State {
        let reported = twin.reported();
        let boot_id = reported.running_boot_id();
        let is_another_boot = match &self.boot_id {
            Some(before) => boot_id.is_some_and(|now| now != before),
            None => self.reboot_time != reported.reboot_time,
        };
        if is_another_boot {
            return State::Worse("the canary has booted again while it was watched (--soak)".to_owned());
        }
        let verdict = self.judge.as_ref().map(|judge| judge.look(&reported));
        if let Some(Verdict::Unwell(units)) = verdict {
            return State::Worse(format!(
                "the canary has become unhealthy while it was watched (--soak): {units}"
            ));
        }
        let is_away = twin.get("connectionState").and_then(Value::as_str) == Some("Disconnected");
        match verdict {
            _ if is_away => State::Disconnected,
            // One that tells nothing of its health was taken for well before.
            Some(Verdict::NotYet(word)) if reported.health.is_some() => State::Unsettled(word),
            _ => State::Same,
        }
    }
}

/// What is left of the time for which a canary is watched, of which an earlier
/// invocation has begun to watch it then.
pub(super) fn left(soak: Duration, since: Option<Time>) -> Duration {
    let passed = since.map(|since| Time::from(SystemTime::now()).since(since));
    soak.saturating_sub(passed.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn twin(connection: &str, boot: &str, health: Value) -> Twin {
        Twin::from(json!({"connectionState": connection, "properties": {"reported": {
            "reboot": {"id": "r-1", "status": "completed", "bootId": "b", "failedBefore": ["old.service"]},
            "boot": {"bootId": boot}, "health": health,
        }}}))
    }

    #[test]
    fn a_canary_stays_as_it_was_or_it_does_not() {
        let running = json!({"bootId": "b", "state": "running"});
        let failed =
            |unit: &str| json!({"bootId": "b", "state": "degraded", "failedUnits": [unit], "failedCount": 1});
        let watch =
            Watch { id: "r-1".parse().unwrap(), reboot_time: None, until: None, may_tell_health: true };
        let canary = Canary::new(&watch, &twin("Connected", "b", running.clone()).reported());
        assert_eq!(canary.look(&twin("Connected", "b", running.clone())), State::Same);
        assert_eq!(canary.look(&twin("Connected", "b", failed("old.service"))), State::Same);
        assert_eq!(canary.look(&twin("Disconnected", "b", running.clone())), State::Disconnected);
        let worse = |twin: &Twin, part: &str| match canary.look(twin) {
            State::Worse(why) => assert!(why.contains(part), "{why}"),
            other => panic!("{other:?}"),
        };
        worse(&twin("Connected", "b", failed("app.service")), "unhealthy while it was watched (--soak): app");
        let again = twin("Connected", "c", running.clone());
        worse(&again, "booted again");
        let late = Canary::new(&watch, &again.reported());
        assert!(matches!(late.look(&again), State::Worse(_)), "between two invocations");
        let state = |state: &str| twin("Connected", "b", json!({"bootId": "b", "state": state}));
        assert_eq!(canary.look(&state("stopping")), State::Unsettled("up, and stopping".into()));
        assert!(matches!(canary.look(&state("maintenance")), State::Unsettled(_)));
        assert_eq!(canary.look(&twin("Connected", "b", Value::Null)), State::Same);

        let foreign = |time: &str| {
            Twin::from(
                json!({"connectionState": "Connected", "properties": {"reported": {"rebootTime": time}}}),
            )
        };
        let canary = Canary::new(&watch, &foreign("T").reported());
        assert_eq!(canary.look(&foreign("T")), State::Same);
        assert!(matches!(canary.look(&foreign("U")), State::Worse(_)));
    }

    #[test]
    fn what_was_watched_before_counts() {
        let soak = Duration::from_secs(600);
        assert_eq!(left(soak, None), soak);
        let ago = |seconds: u64| Some(Time::from(SystemTime::now() - Duration::from_secs(seconds)));
        assert!((Duration::from_secs(290)..=Duration::from_secs(300)).contains(&left(soak, ago(300))));
        assert_eq!(left(soak, ago(1000)), Duration::ZERO);
    }
}
