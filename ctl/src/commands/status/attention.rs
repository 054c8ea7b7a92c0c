//! Which devices need somebody's attention most.

use iotdm_proto::report::RebootStatus;

use super::row::DeviceStatus;

/// How a device is, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Attention {
    /// Its reboot failed, it came back without an orderly shutdown, or systemd says
    /// that it is not well.
    Trouble,
    /// It is on its way down or up, or waits for something.
    OnTheWay,
    /// It is not connected.
    Disconnected,
    /// A reboot is scheduled or wished for.
    Ahead,
    /// It says that it needs a reboot.
    Needed,
    /// Nothing is the matter.
    None,
}

impl Attention {
    /// All kinds, the worst first.
    pub(super) const ALL: [Attention; 6] = [
        Attention::Trouble,
        Attention::OnTheWay,
        Attention::Disconnected,
        Attention::Ahead,
        Attention::Needed,
        Attention::None,
    ];

    pub(super) fn of(status: &DeviceStatus) -> Self {
        let reported = &status.reported;
        let known = reported.known_status();
        let is = |wanted: &[RebootStatus]| known.is_some_and(|known| wanted.contains(&known));
        let unclean = reported.boot_cause().and_then(|cause| cause.as_str()) == Some("unclean");
        match status.health() {
            Some("degraded" | "maintenance") => return Attention::Trouble,
            _ if unclean || is(&[RebootStatus::Failed]) => return Attention::Trouble,
            Some("starting" | "stopping") => return Attention::OnTheWay,
            _ => {}
        }
        match () {
            () if is(&[RebootStatus::Rebooting, RebootStatus::Waiting]) => Attention::OnTheWay,
            () if !status.is_connected() => Attention::Disconnected,
            () if status.is_wished_for() || is(&[RebootStatus::Scheduled]) => Attention::Ahead,
            () if status.needs_reboot() => Attention::Needed,
            () => Attention::None,
        }
    }

    /// The kind in words, for a count of devices.
    pub(super) fn words(self) -> &'static str {
        match self {
            Attention::Trouble => "in trouble",
            Attention::OnTheWay => "on the way",
            Attention::Disconnected => "disconnected",
            Attention::Ahead => "with a reboot ahead",
            Attention::Needed => "in need of a reboot",
            Attention::None => "fine",
        }
    }
}

/// How many devices are how, in one line: `3 devices: 1 in trouble, 2 fine`.
pub(super) fn counts(statuses: &[DeviceStatus]) -> String {
    let count = |kind: Attention| statuses.iter().filter(|status| Attention::of(status) == kind).count();
    let counts = Attention::ALL.into_iter().map(|kind| (kind, count(kind))).filter(|(_, count)| *count > 0);
    let counts: Vec<String> = counts.map(|(kind, count)| format!("{count} {}", kind.words())).collect();
    let noun = if statuses.len() == 1 { "device" } else { "devices" };
    match counts.is_empty() {
        true => format!("no {noun}"),
        false => format!("{} {noun}: {}", statuses.len(), counts.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::row::tests::{reporting, status};
    use super::*;

    #[test]
    fn the_worst_comes_first() {
        let reboot = |status: &str| reporting(json!({"reboot": {"id": "r", "status": status}}));
        let away = |reported: Value| {
            status(
                json!({"deviceId": "gw1", "connectionState": "Disconnected", "properties": {"reported": reported}}),
            )
        };
        let wished = status(json!({"deviceId": "gw1", "connectionState": "Connected",
            "properties": {"desired": {"reboot": {"id": "w"}}}}));
        for (status, attention) in [
            (reboot("failed"), Attention::Trouble),
            (reporting(json!({"boot": {"cause": "unclean"}})), Attention::Trouble),
            (
                reporting(json!({"health": {"state": "degraded"}, "reboot": {"status": "completed"}})),
                Attention::Trouble,
            ),
            (away(json!({"reboot": {"status": "failed"}})), Attention::Trouble),
            (reboot("rebooting"), Attention::OnTheWay),
            (reboot("waiting"), Attention::OnTheWay),
            (reporting(json!({"health": {"state": "starting"}})), Attention::OnTheWay),
            (away(json!({"reboot": {"status": "rebooting"}})), Attention::OnTheWay),
            (away(json!({})), Attention::Disconnected),
            (away(json!({"reboot": {"status": "scheduled"}})), Attention::Disconnected),
            (reboot("scheduled"), Attention::Ahead),
            (wished, Attention::Ahead),
            (reporting(json!({"rebootRequired": {"required": true}})), Attention::Needed),
            (reboot("completed"), Attention::None),
            (
                reporting(json!({"health": {"state": "running"}, "rebootRequired": {"required": false}})),
                Attention::None,
            ),
        ] {
            assert_eq!(Attention::of(&status), attention, "{status:?}");
        }
        assert_eq!(
            counts(&[reboot("completed"), reboot("failed"), away(json!({}))]),
            "3 devices: 1 in trouble, 1 disconnected, 1 fine"
        );
        assert!(Attention::ALL.is_sorted());
    }
}
