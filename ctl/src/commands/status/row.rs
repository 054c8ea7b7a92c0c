//! What is shown of one device, as JSON and as a row of a table.

use iotdm_proto::report::RebootStatus;
use serde::Serialize;
use serde_json::Value;

use crate::output::{Cell, Column, cell};
use crate::reported::Reported;
use crate::times;
use crate::twin::Twin;

/// The columns of the table. The first one to go on a narrow terminal has the
/// greatest number.
pub(super) const COLUMNS: [Column; 8] = [
    Column { name: "DEVICE", rank: 0, is_optional: false },
    Column { name: "CONNECTION", rank: 2, is_optional: false },
    Column { name: "LAST REBOOT", rank: 4, is_optional: false },
    Column { name: "OUTCOME", rank: 1, is_optional: false },
    Column { name: "CAUSE", rank: 5, is_optional: false },
    Column { name: "AGENT", rank: 7, is_optional: false },
    Column { name: "HEALTH", rank: 3, is_optional: true },
    Column { name: "NEEDS REBOOT", rank: 6, is_optional: true },
];

/// How many units that are wrong are named in a row.
const NAMED: usize = 2;

/// What is shown of one device, in the form of the JSON output.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    device_id: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    module_id: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection_state: Option<Value>,
    /// The wish for a reboot in the desired properties, if its outcome is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    wish: Option<Value>,
    #[serde(flatten)]
    pub(super) reported: Reported,
}

/// How instants are shown to people: in full, and as how long ago they are.
pub(super) struct Times {
    long: Box<dyn Fn(&str) -> String>,
    short: Box<dyn Fn(&str) -> String>,
}

impl Times {
    /// As they are shown now.
    pub(super) fn now() -> Self {
        Times { long: Box::new(times::local()), short: Box::new(times::ago()) }
    }
}

/// What became of the newest request, or will.
struct OutcomeCell {
    /// The outcome in words.
    words: String,
    /// What stands between the outcome and its time, such as `for`.
    link: &'static str,
    /// When that was or will be, as the device or the hub wrote it.
    at: Option<String>,
}

impl DeviceStatus {
    pub(super) fn of(twin: &Twin) -> Self {
        DeviceStatus {
            device_id: twin.get("deviceId").cloned(),
            module_id: twin.get("moduleId").filter(|module| !module.is_null()).cloned(),
            connection_state: twin.get("connectionState").cloned(),
            wish: twin.open_wish().cloned(),
            reported: twin.reported(),
        }
    }

    /// The device's id, as far as the hub says it.
    pub(super) fn device(&self) -> &str {
        self.device_id.as_ref().and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether the hub says that the device is connected.
    pub(super) fn is_connected(&self) -> bool {
        self.connection_state.as_ref().and_then(Value::as_str) == Some("Connected")
    }

    /// Whether there is a wish that the device has not taken up.
    pub(super) fn is_wished_for(&self) -> bool {
        let id = self.wish.as_ref().and_then(|wish| wish.get("id")).and_then(Value::as_str);
        id.is_some() && id != self.reported.request_id()
    }

    /// systemd's word for how the device is.
    pub(super) fn health(&self) -> Option<&str> {
        self.reported.health.as_ref()?.get("state")?.as_str()
    }

    /// Whether the device says that it needs a reboot.
    pub(super) fn needs_reboot(&self) -> bool {
        self.required() == Some(&Value::Bool(true))
    }

    /// Whether the device says that it needs a reboot, as it wrote that.
    pub(super) fn required(&self) -> Option<&Value> {
        self.reported.reboot_required.as_ref()?.get("required")
    }

    /// systemd's word for how the device is, and the units that are wrong: `degraded
    /// (app.service and 2 more)`.
    pub(super) fn health_in_words(&self) -> String {
        let state = cell(self.reported.health.as_ref().and_then(|health| health.get("state")));
        let (units, count) = (self.reported.failed_units(), self.reported.failed_count());
        let named = units.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>();
        match (named.len(), count - named.len()) {
            (0, 0) => state,
            (0, more) => format!("{state} ({more} units)"),
            (_, 0) => format!("{state} ({})", named.join(", ")),
            (_, more) => format!("{state} ({} and {more} more)", named.join(", ")),
        }
    }

    /// The row of a table for people below [`COLUMNS`].
    pub(super) fn cells(&self, times: &Times) -> Vec<Cell> {
        let Times { long, short } = times;
        let same = |text: String| Cell { short: text.clone(), long: text };
        let timed = |text: String| Cell { long: long(&text), short: short(&text) };
        let outcome = self.outcome();
        let outcome = match &outcome.at {
            None => same(outcome.words),
            Some(at) => {
                let (words, link) = (outcome.words, outcome.link);
                Cell { long: format!("{words}{link} {}", long(at)), short: format!("{words} {}", short(at)) }
            }
        };
        let mut cells: Vec<Cell> = self.plain().map(same).into();
        let health = same(self.health_in_words());
        for (index, cell) in [(2, timed(cell(self.reported.reboot_time.as_ref()))), (3, outcome), (6, health)]
        {
            if let Some(place) = cells.get_mut(index) {
                *place = cell;
            }
        }
        cells
    }

    /// The row of a table for programs: below [`COLUMNS`], and the time of the
    /// outcome, which is its own and not that of the last reboot.
    pub(super) fn record(&self) -> Vec<String> {
        let at = self.time_of_outcome().unwrap_or_else(|| "-".to_owned());
        self.plain().into_iter().chain([at]).collect()
    }

    /// The cells below [`COLUMNS`] with instants as they came.
    fn plain(&self) -> [String; 8] {
        let reported = &self.reported;
        [
            cell(self.device_id.as_ref()),
            cell(self.connection_state.as_ref()),
            cell(reported.reboot_time.as_ref()),
            self.outcome().words,
            cell(reported.boot_cause()),
            cell(reported.agent_version()),
            cell(self.reported.health.as_ref().and_then(|health| health.get("state"))),
            match self.required() {
                Some(Value::Bool(true)) => "yes".to_owned(),
                Some(Value::Bool(false)) => "no".to_owned(),
                other => cell(other),
            },
        ]
    }

    /// What became of the newest request. Its time is left out where that is the
    /// time of the last reboot, which stands beside it.
    fn outcome(&self) -> OutcomeCell {
        let reported = &self.reported;
        if self.is_wished_for() {
            let later = self.wish.as_ref().and_then(|wish| wish.get("notBefore")).is_some();
            let link = if later { ", not before" } else { "" };
            return OutcomeCell { words: "wished for".to_owned(), link, at: self.time_of_outcome() };
        }
        let status = cell(reported.status());
        let words = match reported.error_code() {
            Some(code) => format!("{status} ({})", cell(Some(code))),
            None => status,
        };
        let known = reported.known_status();
        let link = match known {
            Some(RebootStatus::Scheduled) => " for",
            Some(RebootStatus::Waiting | RebootStatus::Rebooting) => " since",
            _ => "",
        };
        let is_last_reboot = known == Some(RebootStatus::Completed) && reported.is_of_the_running_boot();
        let at = self.time_of_outcome().filter(|_| !is_last_reboot);
        OutcomeCell { words, link, at }
    }

    /// When the newest request came to what is shown of it, or when it will.
    fn time_of_outcome(&self) -> Option<String> {
        if self.is_wished_for() {
            return Some(self.wish.as_ref()?.get("notBefore")?.as_str()?.to_owned());
        }
        let keys: &[&str] = match self.reported.known_status() {
            Some(RebootStatus::Scheduled) => &["notBefore"],
            Some(RebootStatus::Waiting) => &["requestedAt"],
            Some(RebootStatus::Rebooting) => &["startedAt", "requestedAt"],
            _ => &["completedAt", "startedAt", "requestedAt"],
        };
        let at = |key: &&str| Some(self.reported.reboot.as_ref()?.get(*key)?.as_str()?.to_owned());
        keys.iter().find_map(at)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub(in crate::commands::status) fn status(twin: Value) -> DeviceStatus {
        DeviceStatus::of(&Twin::from(twin))
    }

    /// A device that reports this.
    pub(in crate::commands::status) fn reporting(reported: Value) -> DeviceStatus {
        status(
            json!({"deviceId": "gw1", "connectionState": "Connected", "properties": {"reported": reported}}),
        )
    }

    #[test]
    fn a_row_shows_what_is_reported_and_dashes_for_the_rest() {
        let full = status(json!({
            "deviceId": "gw1", "connectionState": "Connected", "etag": "x",
            "properties": {"desired": {"reboot": {"id": "w"}}, "reported": {
                "rebootTime": "T",
                "reboot": {"status": "failed", "error": {"code": "neverWentDown"}, "completedAt": "C"},
                "boot": {"cause": "local"}, "agent": {"version": "1.0.0", "lastWish": "w"}, "other": 1,
                "health": {"state": "degraded"}, "rebootRequired": {"required": true},
            }},
        }));
        let expected =
            ["gw1", "Connected", "T", "failed (neverWentDown)", "local", "1.0.0", "degraded", "yes", "C"];
        assert_eq!(full.record(), expected);
        let keys = [
            "deviceId",
            "connectionState",
            "rebootTime",
            "reboot",
            "boot",
            "health",
            "rebootRequired",
            "agent",
        ];
        assert!(json!(full).as_object().unwrap().keys().eq(keys), "{full:?}");
        let bare = status(json!({"deviceId": "gw2", "connectionState": "Disconnected"}));
        assert_eq!(bare.record(), ["gw2", "Disconnected", "-", "-", "-", "-", "-", "-", "-"]);
    }

    #[test]
    fn the_units_that_are_wrong_are_named() {
        let health =
            |health: Value| reporting(json!({ "health": health })).cells(&Times::now())[6].short.clone();
        assert_eq!(health(json!({"state": "running", "failedCount": 0})), "running");
        let one = json!({"state": "degraded", "failedUnits": ["gateway-app.service"], "failedCount": 1});
        assert_eq!(health(one.clone()), "degraded (gateway-app.service)");
        assert_eq!(reporting(json!({ "health": one })).record()[6], "degraded", "a word for programs");
        let many = json!({"state": "degraded", "failedUnits": ["a", "b", "c"], "failedCount": 12});
        assert_eq!(health(many), "degraded (a, b and 10 more)");
        assert_eq!(health(json!({"state": "degraded", "failedCount": 2})), "degraded (2 units)");
        assert_eq!(health(Value::Null), "-");
    }

    #[test]
    fn the_time_beside_an_outcome_is_its_own() {
        let reboot =
            |reboot: Value| reporting(json!({"rebootTime": "T", "boot": {"bootId": "b"}, "reboot": reboot}));
        let long = |status: &DeviceStatus| status.cells(&Times::now())[3].long.clone();
        let times = json!({"requestedAt": "R", "startedAt": "S", "completedAt": "C", "notBefore": "N"});
        let with = |more: Value| {
            let mut reboot = times.clone();
            reboot.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            reboot
        };
        for (more, shown, at) in [
            (json!({"status": "completed", "bootId": "b"}), "completed", "C"),
            (json!({"status": "completed", "bootId": "earlier"}), "completed C", "C"),
            (json!({"status": "failed", "error": {"code": "expired"}}), "failed (expired) C", "C"),
            (json!({"status": "cancelled"}), "cancelled C", "C"),
            (json!({"status": "scheduled"}), "scheduled for N", "N"),
            (json!({"status": "waiting"}), "waiting since R", "R"),
            (json!({"status": "rebooting"}), "rebooting since S", "S"),
        ] {
            let status = reboot(with(more));
            assert_eq!(long(&status), shown);
            assert_eq!((&*status.record()[2], &*status.record()[8]), ("T", at), "{shown}");
        }
    }

    #[test]
    fn a_wish_that_waits_for_its_device_is_shown() {
        let wishing = |wish: Value, reported: Value| {
            status(
                json!({"deviceId": "gw1", "properties": {"desired": {"reboot": wish}, "reported": reported}}),
            )
        };
        let done = json!({"reboot": {"id": "r", "status": "completed"}});
        let left = wishing(json!({"id": "w"}), done.clone());
        assert_eq!(left.record()[3], "wished for");
        assert_eq!(json!(left)["wish"], json!({"id": "w"}));
        let later = wishing(json!({"id": "w", "notBefore": "N"}), done);
        assert_eq!(later.cells(&Times::now())[3].long, "wished for, not before N");
        let taken_up = wishing(
            json!({"id": "w"}),
            json!({"reboot": {"id": "w", "status": "scheduled", "notBefore": "N"}}),
        );
        assert_eq!(taken_up.cells(&Times::now())[3].long, "scheduled for N");
        for over in [
            json!({"reboot": {"id": "w", "status": "completed"}}),
            json!({"reboot": {"id": "m", "status": "completed"}, "agent": {"lastWish": "w"}}),
        ] {
            let over = wishing(json!({"id": "w"}), over);
            assert_eq!((over.record()[3].as_str(), json!(over).get("wish")), ("completed", None));
        }
    }
}
