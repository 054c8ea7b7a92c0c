//! What became of a run's request on one device, as it is printed and journalled.

use iotdm_proto::report::RebootErrorCode;
use iotdm_proto::{DeviceId, RequestId};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::outcome::Outcome;
use crate::exit::Exit;
use crate::reply::MethodReply;
use crate::reported::Reported;
use crate::values;

/// What became of the request on one device.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceOutcome {
    /// The device.
    #[serde(deserialize_with = "device_id")]
    pub(super) device: DeviceId,
    /// The request's id.
    pub(super) id: RequestId,
    /// The kind of outcome.
    pub(super) outcome: Outcome,
    /// What the device said on the way.
    #[serde(flatten)]
    pub(super) told: Told,
    /// What went wrong, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    /// What else there is to know, in a clause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) note: Option<String>,
    /// Whether the hub or the way to the hub failed, so that the outcome would
    /// be the same for any other device.
    #[serde(skip)]
    pub(super) hubs_fault: bool,
    /// Whether it is certain that this run's request has not reached the device.
    #[serde(skip)]
    pub(super) unsent: bool,
}

/// What the device said, and when.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Told {
    /// The device's reply to the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reply: Option<MethodReply>,
    /// What the device reported when the outcome was seen, without `agent`.
    #[serde(flatten)]
    pub(super) reported: Reported,
    /// How long it was from the call until the outcome was seen, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) seconds: Option<f64>,
}

/// An outcome, as far as the order of the other devices depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OutcomeClass {
    /// The device did what it was asked for.
    Success,
    /// The device was left as it was, so that it is no proof of anything.
    Untouched,
    /// The device did not.
    Failure,
    /// The hub failed, as it would with any other device.
    HubFailure,
}

/// Reads a device id, which has to fit into a URL: the file it stands in may have
/// been edited.
pub(super) fn device_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DeviceId, D::Error> {
    let text = String::deserialize(deserializer)?;
    values::device_id(&text).map_err(serde::de::Error::custom)
}

impl Told {
    /// Whether the device reports another boot id than it had before. Only this
    /// shows that its kernel was started anew.
    pub(super) fn booted_anew(&self) -> bool {
        let replied = || self.reply.as_ref()?.boot_id();
        let before = self.reported.previous_boot_id().or_else(replied);
        let after = self.reported.new_boot_id();
        before.is_some() && after.is_some() && before != after
    }
}

impl DeviceOutcome {
    /// The outcome on a device that the run did not come to.
    pub(super) fn not_started(device: &DeviceId, id: &RequestId) -> Self {
        DeviceOutcome {
            device: device.clone(),
            id: id.clone(),
            outcome: Outcome::NotStarted,
            told: Told::default(),
            error: None,
            note: None,
            hubs_fault: false,
            unsent: true,
        }
    }

    /// What went wrong, or else what there is to know.
    pub(super) fn why(&self) -> Option<&str> {
        self.error.as_deref().or(self.note.as_deref())
    }

    /// Whether there is anything left to do or to learn about the device, for a
    /// later run to take up.
    pub(super) fn can_be_resumed(&self) -> bool {
        self.outcome.can_be_resumed()
    }

    /// Whether the device did not do what it was asked for and may be asked anew: it
    /// has not rebooted.
    pub(super) fn can_be_retried(&self) -> bool {
        matches!(
            self.outcome,
            Outcome::Failed | Outcome::Cancelled | Outcome::Refused | Outcome::NoSuchDevice
        )
    }

    /// Whether the device may be away or not well because of the run, or is away
    /// though it was there when the run began.
    pub(super) fn may_be_away(&self, was_offline: bool) -> bool {
        match self.outcome {
            Outcome::Offline => !was_offline || !self.unsent,
            Outcome::TimedOut | Outcome::Accepted | Outcome::Unclean | Outcome::Unhealthy => true,
            Outcome::Failed => {
                let code = self.told.reported.error_code().and_then(Value::as_str);
                code == Some(RebootErrorCode::UncleanBoot.as_str())
            }
            Outcome::Refused => self.told.reply.as_ref().is_some_and(MethodReply::says_that_it_goes_down),
            Outcome::Error | Outcome::NotAuthorized | Outcome::Throttled | Outcome::NotStarted => {
                !self.unsent
            }
            Outcome::Checked
            | Outcome::Completed
            | Outcome::Cancelled
            | Outcome::NotNeeded
            | Outcome::NoSuchDevice => false,
        }
    }

    /// The outcome, as far as the order of the other devices depends on it.
    pub(super) fn class(&self) -> OutcomeClass {
        match self.outcome.exit() {
            _ if self.outcome == Outcome::NotNeeded => OutcomeClass::Untouched,
            Exit::Done => OutcomeClass::Success,
            _ if self.hubs_fault => OutcomeClass::HubFailure,
            _ => OutcomeClass::Failure,
        }
    }

    /// The outcome without what only JSON output shows, for keeping many of them. A
    /// later run has to know which devices were going down ([`DeviceOutcome::may_be_away`]).
    pub(super) fn brief(mut self) -> Self {
        let reboot_time = self.told.reported.reboot_time;
        self.told = Told {
            reply: self.told.reply.filter(MethodReply::says_that_it_goes_down),
            reported: Reported { reboot_time, ..Reported::default() },
            seconds: self.told.seconds,
        };
        self
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, ValueEnum as _};
    use serde_json::json;

    use super::*;
    use crate::cli::Cli;
    use crate::reported::tests::full_report;

    fn on(outcome: Outcome) -> DeviceOutcome {
        let not_started = DeviceOutcome::not_started(&"gw1".parse().unwrap(), &"r-1".parse().unwrap());
        DeviceOutcome { outcome, ..not_started }
    }

    /// "boot id changed" is said only of two boot ids that are known and differ.
    #[test]
    fn only_another_boot_id_shows_that_it_booted_anew() {
        let told = |replied: Value, reported: Value| Told {
            reply: Some(MethodReply { status: 200, payload: replied }),
            reported: Reported::from(&reported),
            seconds: None,
        };
        for (replied, reported, expected) in [
            (json!({"bootId": "a"}), json!({"reboot": {"bootId": "b"}}), true),
            (json!({"bootId": "a"}), json!({"reboot": {"bootId": "a"}}), false),
            (json!({}), json!({"reboot": {"previousBootId": "a", "bootId": "b"}}), true),
            (json!({}), json!({"reboot": {"previousBootId": "a", "bootId": "a"}}), false),
            // What the device reports is newer than what it replied.
            (json!({"bootId": "b"}), json!({"reboot": {"previousBootId": "a", "bootId": "b"}}), true),
            (json!({"bootId": "a"}), json!({}), false),
            (json!({}), json!({"reboot": {"bootId": "b"}}), false),
            (json!({}), json!({"rebootTime": "2026-11-22T18:36:07.412Z"}), false),
        ] {
            assert_eq!(
                told(replied.clone(), reported.clone()).booted_anew(),
                expected,
                "{replied} {reported}"
            );
        }
        assert!(!Told::default().booted_anew());
    }

    #[test]
    fn what_a_later_run_takes_up_or_asks_anew() {
        use Outcome::*;
        let those = |of: fn(&DeviceOutcome) -> bool| -> Vec<Outcome> {
            Outcome::value_variants().iter().copied().filter(|outcome| of(&on(*outcome))).collect()
        };
        let open = [Offline, TimedOut, NotAuthorized, Throttled, Error, NotStarted];
        assert_eq!(those(DeviceOutcome::can_be_resumed), open);
        assert_eq!(those(DeviceOutcome::can_be_retried), [Failed, Cancelled, Refused, NoSuchDevice]);
    }

    /// A single device that is offline must not look like a hub that fails.
    #[test]
    fn a_failure_is_the_hubs_only_where_it_would_be_with_any_device() {
        let class = |outcome: Outcome, hubs_fault: bool| DeviceOutcome { hubs_fault, ..on(outcome) }.class();
        for outcome in [Outcome::Completed, Outcome::Accepted, Outcome::Checked] {
            assert_eq!(class(outcome, false), OutcomeClass::Success, "{outcome:?}");
        }
        assert_eq!(class(Outcome::NotNeeded, false), OutcomeClass::Untouched);
        for outcome in [Outcome::Offline, Outcome::Failed, Outcome::Refused, Outcome::Error] {
            assert_eq!(class(outcome, false), OutcomeClass::Failure, "{outcome:?}");
            assert_eq!(class(outcome, true), OutcomeClass::HubFailure, "{outcome:?}");
        }
    }

    #[test]
    fn what_went_wrong_is_said_before_what_else_there_is_to_know() {
        let said = |error: Option<&str>, note: Option<&str>| {
            let (error, note) = (error.map(str::to_owned), note.map(str::to_owned));
            DeviceOutcome { error, note, ..on(Outcome::Failed) }.why().map(str::to_owned)
        };
        assert_eq!(said(Some("e"), Some("n")).as_deref(), Some("e"));
        assert_eq!(said(None, Some("n")).as_deref(), Some("n"));
        assert_eq!(said(None, None), None);
    }

    #[test]
    fn what_is_kept_of_many_devices_still_tells_when_they_rebooted() {
        let refused = |code: &str| MethodReply { status: 409, payload: json!({"error": {"code": code}}) };
        let brief = |reply: MethodReply| {
            let reported = json!({"rebootTime": "2026-11-22T18:36:07.412Z", "reboot": {"id": "r-1"}});
            let told = Told { reply: Some(reply), reported: Reported::from(&reported), seconds: Some(21.3) };
            DeviceOutcome { told, ..on(Outcome::Refused) }.brief().told
        };
        let kept = brief(refused("rebootPending"));
        assert_eq!((kept.reply, kept.seconds), (None, Some(21.3)));
        assert_eq!(json!(kept.reported), json!({"rebootTime": "2026-11-22T18:36:07.412Z"}));
        assert!(brief(refused("shuttingDown")).reply.is_some());
    }

    #[test]
    fn a_place_is_kept_until_the_device_is_known_to_be_well() {
        let on = |outcome: Outcome, told: Told, unsent: bool| DeviceOutcome {
            outcome,
            told,
            unsent,
            ..DeviceOutcome::not_started(&"gw1".parse().unwrap(), &"r-1".parse().unwrap())
        };
        let failed = |code: &str| {
            let reported = Reported::from(&json!({"reboot": {"error": {"code": code}}}));
            on(Outcome::Failed, Told { reported, ..Told::default() }, false)
        };
        let refused = |code: &str| {
            let reply = MethodReply { status: 409, payload: json!({"error": {"code": code}}) };
            on(Outcome::Refused, Told { reply: Some(reply), ..Told::default() }, false)
        };
        let bare = |outcome: Outcome, unsent: bool| on(outcome, Told::default(), unsent);
        for (outcome, was_offline, expected) in [
            (bare(Outcome::Completed, false), false, false),
            (bare(Outcome::Unclean, false), false, true),
            (bare(Outcome::Unhealthy, false), false, true),
            (failed("uncleanBoot"), false, true),
            (failed("neverWentDown"), false, false),
            (refused("shuttingDown"), false, true),
            (refused("rebootPending"), false, false),
            (bare(Outcome::Refused, true), false, false),
            (bare(Outcome::Offline, true), true, false),
            (bare(Outcome::Offline, true), false, true),
            // Its link broke during the call.
            (bare(Outcome::Offline, false), true, true),
            // Nobody knows whether it got the request.
            (bare(Outcome::Error, false), true, true),
            (bare(Outcome::Error, true), false, false),
            (bare(Outcome::NotAuthorized, true), false, false),
            (bare(Outcome::Throttled, false), false, true),
            (bare(Outcome::TimedOut, true), false, true),
            (bare(Outcome::Accepted, true), false, true),
            (bare(Outcome::Failed, false), false, false),
            (bare(Outcome::Checked, false), false, false),
            (bare(Outcome::Cancelled, false), false, false),
            (bare(Outcome::NotNeeded, false), false, false),
            (bare(Outcome::NoSuchDevice, false), false, false),
            (bare(Outcome::NotStarted, true), false, false),
            // An earlier invocation may have asked it.
            (bare(Outcome::NotStarted, false), false, true),
        ] {
            assert_eq!(outcome.may_be_away(was_offline), expected, "{outcome:?}");
        }
    }

    #[test]
    fn the_help_names_every_key() {
        let reported = Reported::from(&json!(full_report()));
        let told = Told {
            reply: Some(MethodReply { status: 200, payload: json!(null) }),
            reported: Reported { agent: None, ..reported },
            seconds: Some(1.0),
        };
        let outcome = DeviceOutcome {
            device: "gw1".parse().unwrap(),
            id: "r-1".parse().unwrap(),
            outcome: Outcome::Failed,
            told,
            error: Some("e".into()),
            note: Some("n".into()),
            hubs_fault: true,
            unsent: true,
        };
        let printed = json!(outcome);
        let keys: Vec<&str> = printed.as_object().unwrap().keys().map(String::as_str).collect();
        let expected = [
            "device",
            "id",
            "outcome",
            "reply",
            "rebootTime",
            "reboot",
            "boot",
            "health",
            "rebootRequired",
            "seconds",
            "error",
            "note",
        ];
        assert_eq!(keys, expected);
        let mut command = Cli::command();
        let help = command.find_subcommand_mut("reboot").unwrap().render_long_help().to_string();
        let (_, named) = help.split_once("Keys: ").unwrap();
        for key in keys {
            assert!(named.contains(key), "{key}");
        }
    }
}
