//! What would end a shutdown that hangs, so that the machine comes back without
//! somebody who switches it off and on.
//!
//! As long as systemd stops units, the job of reboot.target may have a time limit,
//! after which the reboot is forced. Once nothing but systemd's last process runs,
//! only a hardware watchdog is left. Which of the two there are is systemd's word;
//! asking for it holds up no shutdown.
//! Source: systemd.unit(5), `JobTimeoutSec=`; systemd-system.conf(5),
//! `RebootWatchdogSec=`; org.freedesktop.systemd1(5).

use std::fs;
use std::path::Path;
use std::time::Duration;

use iotdm_proto::reply::IfItHangs;
use tokio::time::timeout;
use zbus::proxy;

use super::logind::Logind;

/// The kernel's watchdogs, below the root directory.
const DEVICES: &str = "sys/class/watchdog";
/// A bus that does not answer this long tells nothing.
const PATIENCE: Duration = Duration::from_secs(5);
/// systemd's word for no limit, and for a watchdog that keeps the time that it has.
const INFINITY: u64 = u64::MAX;
/// What systemd may do at the end of the time that makes a machine reboot which
/// hangs. Others queue the same job again, or leave the machine off.
const FORCING: [&str; 2] = ["reboot-force", "reboot-immediate"];

#[proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Manager {
    #[zbus(property(emits_changed_signal = "false"), name = "RebootWatchdogUSec")]
    fn reboot_watchdog_usec(&self) -> zbus::Result<u64>;
}

#[proxy(
    interface = "org.freedesktop.systemd1.Unit",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1/unit/reboot_2etarget"
)]
trait RebootTarget {
    #[zbus(property(emits_changed_signal = "false"), name = "JobTimeoutUSec")]
    fn job_timeout_usec(&self) -> zbus::Result<u64>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn job_timeout_action(&self) -> zbus::Result<String>;
}

/// What would end a hanging shutdown of the machine whose files are below `root`; an
/// error where systemd does not say.
pub async fn look(logind: &Logind, root: &Path) -> Result<IfItHangs, String> {
    let asked = async {
        let bus = logind.connect().await?;
        let watchdog = match stands(root) {
            true => ManagerProxy::new(&bus).await?.reboot_watchdog_usec().await?,
            false => 0,
        };
        let target = RebootTargetProxy::new(&bus).await?;
        let limit = (target.job_timeout_usec().await?, target.job_timeout_action().await?);
        zbus::Result::Ok((watchdog, limit))
    };
    let (watchdog, (limit, action)) = match timeout(PATIENCE, asked).await {
        Ok(asked) => asked.map_err(|error| error.to_string())?,
        Err(_) => return Err("the bus does not answer".to_owned()),
    };
    Ok(IfItHangs {
        watchdog: match watchdog {
            0 => None,
            INFINITY => own_time(root),
            limit => Some(in_seconds(limit)),
        },
        forced_after_seconds: forced(limit, &action),
    })
}

/// Whether the machine has a watchdog.
pub fn stands(root: &Path) -> bool {
    fs::read_dir(root.join(DEVICES)).is_ok_and(|mut devices| devices.next().is_some())
}

/// What an administrator should know of a machine that nothing would bring back, a
/// sentence to a danger.
pub fn dangers(found: IfItHangs, root: &Path) -> Vec<String> {
    let mut dangers = Vec::new();
    if found.watchdog.is_none() {
        let why = match stands(root) {
            true => "RebootWatchdogSec= is off in systemd-system.conf(5)",
            false => "no device stands under /sys/class/watchdog",
        };
        dangers.push(format!(
            "no hardware watchdog would end a reboot that hangs, and bring the machine back: {why}"
        ));
    }
    if found.forced_after_seconds.is_none() {
        dangers.push(
            "a unit that does not stop can hold up a reboot for ever, as reboot.target has no JobTimeoutSec= with \
             JobTimeoutAction=reboot-force: see /usr/share/doc/iotdm-agentd/examples/reboot.target.d"
                .to_owned(),
        );
    }
    dangers
}

/// The time that the first watchdog has by itself.
fn own_time(root: &Path) -> Option<u64> {
    let mut devices: Vec<_> =
        fs::read_dir(root.join(DEVICES)).ok()?.flatten().map(|dir| dir.path()).collect();
    devices.sort();
    fs::read_to_string(devices.first()?.join("timeout")).ok()?.trim().parse().ok()
}

/// After how long a reboot is forced whose job may take `limit` microseconds, and at
/// whose end systemd does this `action`.
fn forced(limit: u64, action: &str) -> Option<u64> {
    // 0 is no limit either, which systemd itself turns into infinity.
    let is_limit = limit != 0 && limit != INFINITY;
    (is_limit && FORCING.contains(&action)).then(|| in_seconds(limit))
}

/// Rounded up.
fn in_seconds(microseconds: u64) -> u64 {
    microseconds.div_ceil(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_limit_that_ends_in_a_reboot_counts() {
        for (limit, action, expected) in [
            (1_800_000_000, "reboot-force", Some(1800)),
            (1_800_000_000, "reboot-immediate", Some(1800)),
            (90_500_000, "reboot-force", Some(91)),
            (INFINITY, "reboot-force", None),
            (0, "reboot-force", None),
            // The same job once more, nothing at all, and machines that stay off.
            (1_800_000_000, "reboot", None),
            (1_800_000_000, "none", None),
            (1_800_000_000, "", None),
            (1_800_000_000, "poweroff-force", None),
            (1_800_000_000, "halt-immediate", None),
            (1_800_000_000, "soft-reboot-force", None),
        ] {
            assert_eq!(forced(limit, action), expected, "{limit} {action}");
        }
    }

    #[test]
    fn what_would_bring_nobody_back_is_said_with_its_remedy() {
        let root = tempfile::tempdir().unwrap();
        let none = IfItHangs { watchdog: None, forced_after_seconds: None };
        let said = dangers(none, root.path());
        assert!(said[0].ends_with("no device stands under /sys/class/watchdog"), "{said:?}");
        assert!(said[1].contains("examples/reboot.target.d"), "{said:?}");
        let device = root.path().join(DEVICES).join("watchdog0");
        fs::create_dir_all(&device).unwrap();
        assert!(dangers(none, root.path())[0].contains("RebootWatchdogSec= is off"));
        let both = IfItHangs { watchdog: Some(600), forced_after_seconds: Some(1800) };
        assert_eq!(dangers(both, root.path()), Vec::<String>::new());
        assert_eq!(own_time(root.path()), None);
        fs::write(device.join("timeout"), "30\n").unwrap();
        assert_eq!(own_time(root.path()), Some(30));
    }
}
