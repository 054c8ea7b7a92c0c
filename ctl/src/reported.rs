//! What a device reports in its twin, read leniently: the one place of this
//! program that knows where in the reported properties what stands.
//!
//! The daemon's own report is [`iotdm_proto::report::Report`]. A device may run
//! a newer or an older daemon, or somebody else's program, so each value is
//! kept as it came, and what cannot be understood counts as not reported.

use iotdm_proto::Time;
use iotdm_proto::health::HealthState;
use iotdm_proto::report::{BootCause, RebootStatus};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The reported properties that matter here, each as the device wrote it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reported {
    /// `rebootTime`: when the running kernel booted, in the device's own
    /// spelling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reboot_time: Option<Value>,
    /// `reboot`: the newest request and what became of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reboot: Option<Value>,
    /// `boot`: the running boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<Value>,
    /// `health`: how the machine is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Box<Value>>,
    /// `rebootRequired`: whether the machine needs a reboot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reboot_required: Option<Box<Value>>,
    /// `agent`: the daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Value>,
}

/// Takes what is needed out of `properties.reported`.
impl From<&Value> for Reported {
    fn from(reported: &Value) -> Self {
        // An object always fits, as each field is any JSON value or none.
        // Anything else reports nothing.
        let object = reported.is_object().then_some(reported);
        object.and_then(|object| Reported::deserialize(object).ok()).unwrap_or_default()
    }
}

impl Reported {
    /// The id of the newest request.
    pub fn request_id(&self) -> Option<&str> {
        text(self.reboot.as_ref(), "id")
    }

    /// How far the newest request is, in the device's own word.
    pub fn status(&self) -> Option<&Value> {
        self.reboot.as_ref()?.get("status")
    }

    /// How far the newest request is, if the word is one that we know.
    pub fn known_status(&self) -> Option<RebootStatus> {
        self.status()?.as_str()?.parse().ok()
    }

    /// Why the newest request failed, for programs.
    pub fn error_code(&self) -> Option<&Value> {
        self.error()?.get("code")
    }

    /// Why the newest request failed, in one sentence for people.
    pub fn failure(&self) -> String {
        match (text(self.error(), "code"), text(self.error(), "message")) {
            (Some(code), Some(message)) => format!("the reboot failed: {code}, {message}"),
            (Some(only), None) | (None, Some(only)) => format!("the reboot failed: {only}"),
            (None, None) => "the reboot failed".into(),
        }
    }

    /// When the device granted the newest request.
    pub fn requested_at(&self) -> Option<Time> {
        text(self.reboot.as_ref(), "requestedAt")?.parse().ok()
    }

    /// When the outcome of the newest request was known.
    pub fn completed_at(&self) -> Option<Time> {
        text(self.reboot.as_ref(), "completedAt")?.parse().ok()
    }

    /// The boot that the newest request was to end.
    pub fn previous_boot_id(&self) -> Option<&str> {
        text(self.reboot.as_ref(), "previousBootId")
    }

    /// The boot that followed the newest request.
    pub fn new_boot_id(&self) -> Option<&str> {
        text(self.reboot.as_ref(), "bootId")
    }

    /// Whether the machine has booted since the newest request was accepted, as far as
    /// the device tells.
    pub fn has_booted_since_the_request(&self) -> bool {
        match (self.previous_boot_id(), self.running_boot_id()) {
            (Some(before), Some(running)) => before != running,
            _ => false,
        }
    }

    /// The id of the wish that the device took up last, whatever became of it.
    pub fn last_wish(&self) -> Option<&str> {
        text(self.agent.as_ref(), "lastWish")
    }

    /// Whether the newest request led to the boot that runs now, as far as the
    /// device tells.
    pub fn is_of_the_running_boot(&self) -> bool {
        match (text(self.boot.as_ref(), "bootId"), self.new_boot_id()) {
            (Some(running), Some(new)) => running == new,
            _ => true,
        }
    }

    /// Whether the boot that followed the newest request came without an
    /// orderly shutdown. The cause of a later boot says nothing about this one.
    pub fn came_back_unclean(&self) -> bool {
        self.is_of_the_running_boot() && self.booted_unclean()
    }

    /// Whether no orderly shutdown preceded the running boot.
    pub fn booted_unclean(&self) -> bool {
        text(self.boot.as_ref(), "cause") == Some(BootCause::Unclean.as_str())
    }

    /// The running boot.
    pub fn running_boot_id(&self) -> Option<&str> {
        text(self.boot.as_ref(), "bootId")
    }

    /// When the reboot for the newest request began.
    pub fn started_at(&self) -> Option<Time> {
        text(self.reboot.as_ref(), "startedAt")?.parse().ok()
    }

    /// `reboot.failedBefore`: the units that had failed when the newest request was
    /// accepted.
    pub fn failed_before(&self) -> Vec<String> {
        texts(self.reboot.as_ref(), "failedBefore")
    }

    /// `reboot.waitingFor`: what the machine still stops before it goes down, and how
    /// many units that are.
    pub fn waiting_for(&self) -> (Vec<String>, usize) {
        let units = texts(self.reboot.as_ref(), "waitingFor");
        let count = count(self.reboot.as_ref(), "waitingForCount").max(units.len());
        (units, count)
    }

    /// `health.bootId`: the boot that the health is about.
    pub fn health_boot_id(&self) -> Option<&str> {
        text(self.health.as_deref(), "bootId")
    }

    /// `health.state`, if the word is one that we know.
    pub fn health_state(&self) -> Option<HealthState> {
        text(self.health.as_deref(), "state")?.parse().ok()
    }

    /// `health.failedUnits`: the units that are wrong, the first of them.
    pub fn failed_units(&self) -> Vec<String> {
        texts(self.health.as_deref(), "failedUnits")
    }

    /// `health.failedCount`: how many units are wrong.
    pub fn failed_count(&self) -> usize {
        count(self.health.as_deref(), "failedCount").max(self.failed_units().len())
    }

    /// What ended the boot before the running one, in the device's own word.
    pub fn boot_cause(&self) -> Option<&Value> {
        self.boot.as_ref()?.get("cause")
    }

    /// `agent.features`: what the daemon has beyond its methods.
    pub fn features(&self) -> Vec<String> {
        texts(self.agent.as_ref(), "features")
    }

    /// `agent.version`: the daemon's version.
    pub fn agent_version(&self) -> Option<&Value> {
        self.agent.as_ref()?.get("version")
    }

    fn error(&self) -> Option<&Value> {
        self.reboot.as_ref()?.get("error")
    }
}

/// The texts of a list.
fn texts(object: Option<&Value>, key: &str) -> Vec<String> {
    let list = object.and_then(|object| object.get(key)?.as_array());
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn count(object: Option<&Value>, key: &str) -> usize {
    let count = object.and_then(|object| object.get(key)?.as_u64());
    count.and_then(|count| usize::try_from(count).ok()).unwrap_or_default()
}

fn text<'a>(object: Option<&'a Value>, key: &str) -> Option<&'a str> {
    object?.get(key)?.as_str()
}

#[cfg(test)]
pub(crate) mod tests {
    use iotdm_proto::health::{Health, HealthState};
    use iotdm_proto::need::RebootRequired;
    use iotdm_proto::report::{
        Agent, Boot, BootDetail, Clock, Reboot, RebootError, RebootErrorCode, Report, RequestedBy,
    };
    use serde_json::json;

    use super::*;

    /// The daemon's report with every key.
    pub(crate) fn full_report() -> Report {
        let at = Some(Time::from_unix_millis(0));
        Report {
            device_information: None,
            reboot_time: at,
            reboot: Some(Reboot {
                id: "r-1".into(),
                status: RebootStatus::Failed,
                reason: Some("why".into()),
                operator: Some("alice@ops".into()),
                requested_by: RequestedBy::Method,
                requested_at: Time::from_unix_millis(0),
                not_before: at,
                started_at: at,
                completed_at: at,
                previous_boot_id: "a".into(),
                boot_id: Some("b".into()),
                down_seconds: Some(1.0),
                waiting_for: vec!["docker.service".into()],
                waiting_for_count: Some(1),
                failed_before: vec!["old.service".into()],
                error: Some(RebootError { code: RebootErrorCode::UncleanBoot, message: "m".into() }),
            }),
            boot: Some(Boot {
                boot_id: "b".into(),
                boot_time: Time::from_unix_millis(0),
                cause: BootCause::Unclean,
                clock: Clock::Synchronized,
                detail: Some(BootDetail::KernelPanic),
                count: Some(2),
                unclean_count: Some(1),
            }),
            health: Some(Health {
                boot_id: "b".into(),
                state: HealthState::Degraded,
                failed_units: vec!["app.service".into()],
                failed_count: 2,
                since: Time::from_unix_millis(0),
                hub_reached_after_seconds: None,
            }),
            reboot_required: Some(RebootRequired {
                required: false,
                since: at,
                reasons: vec!["linux-image".into()],
                reason_count: 1,
                running_kernel: None,
                installed_kernel: None,
                asked_for: None,
            }),
            agent: Some(Agent {
                version: "1.0.0".into(),
                methods: Vec::new(),
                features: Vec::new(),
                damaged_record: Some("d".into()),
                wish_error: Some("w".into()),
                last_wish: Some("l".into()),
            }),
        }
    }

    #[test]
    fn every_key_that_is_read_is_one_that_the_daemon_writes() {
        let written = serde_json::to_value(full_report()).unwrap();
        let reported = Reported::from(&written);
        assert_eq!(serde_json::to_value(&reported).unwrap(), written, "nothing is left out");
        assert_eq!(reported.request_id(), Some("r-1"));
        assert_eq!(reported.status(), Some(&json!("failed")));
        assert_eq!(reported.known_status(), Some(RebootStatus::Failed));
        assert_eq!(reported.error_code(), Some(&json!("uncleanBoot")));
        assert_eq!(reported.failure(), "the reboot failed: uncleanBoot, m");
        let epoch = Some(Time::from_unix_millis(0));
        assert_eq!((reported.requested_at(), reported.completed_at()), (epoch, epoch));
        assert_eq!((reported.previous_boot_id(), reported.new_boot_id()), (Some("a"), Some("b")));
        assert!(reported.came_back_unclean());
        assert_eq!(reported.failed_before(), ["old.service"]);
        assert_eq!(reported.waiting_for(), (vec!["docker.service".into()], 1));
        let health = (reported.health_boot_id(), reported.health_state());
        assert_eq!(health, (Some("b"), Some(HealthState::Degraded)));
        assert_eq!((reported.failed_units(), reported.failed_count()), (vec!["app.service".into()], 2));
        assert_eq!(reported.last_wish(), Some("l"));
        assert_eq!(reported.boot_cause(), Some(&json!("unclean")));
        assert_eq!(reported.agent_version(), Some(&json!("1.0.0")));
    }

    #[test]
    fn what_others_write_is_kept_and_not_taken_for_ours() {
        let reported = Reported::from(&json!({
            "rebootTime": 7, "reboot": "soon", "boot": null, "agent": [1], "other": {"x": 1},
        }));
        assert_eq!(reported.reboot_time, Some(json!(7)));
        assert_eq!((reported.request_id(), reported.known_status(), reported.status()), (None, None, None));
        assert_eq!(reported.failure(), "the reboot failed");
        assert!(!reported.came_back_unclean() && reported.agent.is_some() && reported.boot.is_none());
        assert_eq!(serde_json::to_value(&reported).unwrap().get("other"), None);
        assert_eq!(Reported::from(&json!([])), Reported::default());
        let new_word = Reported::from(&json!({"reboot": {"status": "fromTheFuture"}}));
        assert_eq!((new_word.known_status(), new_word.status()), (None, Some(&json!("fromTheFuture"))));
    }
}
