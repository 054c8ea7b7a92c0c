//! What became of a reboot, judged from the device's reported properties.

use iotdm_proto::report::RebootStatus;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Exit;

/// The end of a reboot command for one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// Accepted, and not waited for.
    Accepted,
    /// A dry run went well.
    Checked,
    /// The machine has booted since.
    Completed,
    /// The machine has booted since, but without an orderly shutdown.
    Unclean,
    /// It did not come to the reboot.
    Failed,
    /// Withdrawn before it began.
    Cancelled,
    /// The device refused.
    Refused,
    /// The device is offline.
    Offline,
    /// The hub has no such device.
    NoSuchDevice,
    /// No reply, or no outcome, in time.
    TimedOut,
    /// The hub does not let us.
    NotAuthorized,
    /// The hub throttles.
    Throttled,
    /// The network, the hub or something here failed.
    Error,
    /// It did not come to this device.
    NotStarted,
}

impl Outcome {
    /// The exit code of a run for this device alone.
    pub fn exit(self) -> Exit {
        match self {
            Outcome::Accepted | Outcome::Checked | Outcome::Completed => Exit::Done,
            Outcome::Unclean | Outcome::Failed | Outcome::Cancelled | Outcome::NotStarted => {
                Exit::RebootFailed
            }
            Outcome::Refused => Exit::Refused,
            Outcome::Offline => Exit::Offline,
            Outcome::NoSuchDevice => Exit::NoSuchDevice,
            Outcome::TimedOut => Exit::TimedOut,
            Outcome::NotAuthorized => Exit::NotAuthorized,
            Outcome::Throttled => Exit::Throttled,
            Outcome::Error => Exit::Failure,
        }
    }

    /// It for people.
    pub fn words(self) -> &'static str {
        match self {
            Outcome::Accepted => "accepted",
            Outcome::Checked => "checked",
            Outcome::Completed => "completed",
            Outcome::Unclean => "came back unclean",
            Outcome::Failed => "failed",
            Outcome::Cancelled => "cancelled",
            Outcome::Refused => "refused",
            Outcome::Offline => "offline",
            Outcome::NoSuchDevice => "no such device",
            Outcome::TimedOut => "timed out",
            Outcome::NotAuthorized => "not authorised",
            Outcome::Throttled => "throttled",
            Outcome::Error => "error",
            Outcome::NotStarted => "not started",
        }
    }

    /// The outcome that an error with this exit code amounts to.
    pub fn of_error(exit: Exit) -> Self {
        match exit {
            Exit::Refused => Outcome::Refused,
            Exit::Offline => Outcome::Offline,
            Exit::NoSuchDevice => Outcome::NoSuchDevice,
            Exit::TimedOut => Outcome::TimedOut,
            Exit::NotAuthorized => Outcome::NotAuthorized,
            Exit::Throttled => Outcome::Throttled,
            _ => Outcome::Error,
        }
    }
}

/// The exit code for several devices: theirs if they agree, else "mixed".
pub fn exit_of_all(outcomes: impl IntoIterator<Item = Outcome>) -> Exit {
    let mut exits = outcomes.into_iter().map(Outcome::exit);
    let first = exits.next().unwrap_or(Exit::Done);
    if exits.all(|exit| exit == first) { first } else { Exit::RebootFailed }
}

/// By which sign the end of a reboot is recognised.
#[derive(Debug, Clone, PartialEq)]
pub struct Watch {
    /// The request's id, as our daemon reports it.
    pub id: String,
    /// Beside the id, whether a change of `rebootTime` counts, which is all
    /// that somebody else's `rebootDevice` reports.
    pub reboot_time: Option<RebootTimeBefore>,
}

/// `rebootTime` before the request; whatever was there is compared as it is,
/// since other devices write it in forms of their own.
#[derive(Debug, Clone, PartialEq)]
pub struct RebootTimeBefore(pub Option<Value>);

/// How far the reboot is.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Not at its end; with the reported status once there is one.
    Pending(Option<String>),
    /// At its end; with what the device says of a failure.
    Ended(Outcome, Option<String>),
}

/// Judges a device's reported properties. Unknown values are taken as "not at
/// its end", so that a newer device does not look finished.
pub fn judge(reported: &Value, watch: &Watch) -> Verdict {
    let reboot = reported.get("reboot");
    let status = reboot.and_then(|reboot| reboot.get("status"));
    if text(reboot, "id") == Some(&watch.id) {
        let known = status.and_then(|status| serde_json::from_value(status.clone()).ok());
        return match known {
            Some(RebootStatus::Completed) if came_back_unclean(reported) => Verdict::Ended(
                Outcome::Unclean,
                Some("the device came back without an orderly shutdown".into()),
            ),
            Some(RebootStatus::Completed) => Verdict::Ended(Outcome::Completed, None),
            Some(RebootStatus::Failed) => Verdict::Ended(Outcome::Failed, Some(failure(reboot))),
            Some(RebootStatus::Cancelled) => {
                Verdict::Ended(Outcome::Cancelled, Some("the reboot was cancelled".into()))
            }
            _ => Verdict::Pending(status.and_then(Value::as_str).map(str::to_owned)),
        };
    }
    match &watch.reboot_time {
        Some(RebootTimeBefore(before)) if reported.get("rebootTime") != before.as_ref() => {
            Verdict::Ended(Outcome::Completed, None)
        }
        _ => Verdict::Pending(None),
    }
}

/// Whether the boot that ended this reboot followed no orderly shutdown. A
/// later boot's cause says nothing about this one.
fn came_back_unclean(reported: &Value) -> bool {
    let (boot, reboot) = (reported.get("boot"), reported.get("reboot"));
    let same_boot = match (text(boot, "bootId"), text(reboot, "bootId")) {
        (Some(running), Some(reported)) => running == reported,
        _ => true,
    };
    same_boot && text(boot, "cause") == Some("unclean")
}

fn failure(reboot: Option<&Value>) -> String {
    let error = reboot.and_then(|reboot| reboot.get("error"));
    match (text(error, "code"), text(error, "message")) {
        (Some(code), Some(message)) => format!("the reboot failed: {code}, {message}"),
        (Some(only), None) | (None, Some(only)) => format!("the reboot failed: {only}"),
        (None, None) => "the reboot failed".into(),
    }
}

fn text<'a>(object: Option<&'a Value>, key: &str) -> Option<&'a str> {
    object?.get(key)?.as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn by_id() -> Watch {
        Watch { id: "r-1".into(), reboot_time: None }
    }

    fn by_time(before: Value) -> Watch {
        let before = (!before.is_null()).then_some(before);
        Watch { id: "r-1".into(), reboot_time: Some(RebootTimeBefore(before)) }
    }

    #[test]
    fn by_our_id() {
        let pending = |status: &str| Verdict::Pending(Some(status.to_owned()));
        let boots = |cause: &str, running: &str| {
            json!({
                "reboot": {"id": "r-1", "status": "completed", "bootId": "b"},
                "boot": {"bootId": running, "cause": cause},
            })
        };
        let unclean = Some("the device came back without an orderly shutdown".to_owned());
        for (reported, verdict) in [
            (json!({}), Verdict::Pending(None)),
            (json!({"reboot": null}), Verdict::Pending(None)),
            (json!({"reboot": {"id": "other", "status": "completed"}}), Verdict::Pending(None)),
            (json!({"rebootTime": "new"}), Verdict::Pending(None)),
            (json!({"reboot": {"id": "r-1", "status": "rebooting"}}), pending("rebooting")),
            (json!({"reboot": {"id": "r-1", "status": "fromTheFuture"}}), pending("fromTheFuture")),
            (json!({"reboot": {"id": "r-1"}}), Verdict::Pending(None)),
            (boots("requested", "b"), Verdict::Ended(Outcome::Completed, None)),
            (boots("unclean", "b"), Verdict::Ended(Outcome::Unclean, unclean)),
            (boots("unclean", "later"), Verdict::Ended(Outcome::Completed, None)),
            (
                json!({"reboot": {"id": "r-1", "status": "failed",
                    "error": {"code": "neverWentDown", "message": "it stayed up"}}}),
                Verdict::Ended(
                    Outcome::Failed,
                    Some("the reboot failed: neverWentDown, it stayed up".into()),
                ),
            ),
            (
                json!({"reboot": {"id": "r-1", "status": "cancelled"}}),
                Verdict::Ended(Outcome::Cancelled, Some("the reboot was cancelled".into())),
            ),
        ] {
            assert_eq!(judge(&reported, &by_id()), verdict, "{reported}");
        }
    }

    #[test]
    fn by_a_changed_reboot_time_of_any_form() {
        let done = Verdict::Ended(Outcome::Completed, None);
        for (before, reported, verdict) in [
            (json!(null), json!({}), Verdict::Pending(None)),
            (json!(null), json!({"rebootTime": "2026"}), done.clone()),
            (json!("2025"), json!({"rebootTime": "2025"}), Verdict::Pending(None)),
            (json!("2025"), json!({"rebootTime": "2026"}), done.clone()),
            (json!(1), json!({"rebootTime": 2}), done.clone()),
            (
                json!("2025"),
                json!({"rebootTime": "2026", "reboot": {"id": "r-1", "status": "rebooting"}}),
                Verdict::Pending(Some("rebooting".into())),
            ),
        ] {
            assert_eq!(judge(&reported, &by_time(before)), verdict, "{reported}");
        }
    }

    #[test]
    fn several_devices_agree_or_are_mixed() {
        use Outcome::*;
        for (outcomes, exit) in [
            (vec![Completed, Completed], Exit::Done),
            (vec![Completed, Accepted], Exit::Done),
            (vec![Offline, Offline], Exit::Offline),
            (vec![Completed, Offline], Exit::RebootFailed),
            (vec![Refused, TimedOut], Exit::RebootFailed),
            (vec![Throttled], Exit::Throttled),
        ] {
            assert_eq!(exit_of_all(outcomes.clone()), exit, "{outcomes:?}");
        }
    }
}
