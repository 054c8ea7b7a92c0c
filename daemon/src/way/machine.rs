//! What a reboot takes on this machine: logind, polkit, a state directory that keeps
//! what was promised, and something that ends a shutdown that hangs.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use iotdm_proto::reply::{IfItHangs, Inhibitor};
use nix::unistd::geteuid;
use rustix::fs::{Access, FsWord, access, statfs, statvfs};
use serde_json::json;

use super::report::{Finding, Report, Step};
use crate::durable;
use crate::host::hang;
use crate::host::logind::Logind;

/// Free space below which it is warned, in bytes: several times what the record and
/// the ids of all remembered requests take when they are written anew.
const LITTLE: u64 = 4 * 1024 * 1024;
/// A file system that is gone after a reboot. Source: `linux/magic.h`, `TMPFS_MAGIC`.
const TMPFS: FsWord = 0x0102_1994;
/// What helps where there is no watchdog.
const DRIVER: &str = "if the board has one, have its driver loaded (on a Raspberry Pi dtparam=watchdog=on); else a \
                      machine that hangs has to be switched off and on";
/// A file that is written into the state directory, and removed again.
const PROBE: &str = "test";

/// Asks logind, where there is one to ask.
pub(super) async fn ask_logind(logind: Option<&Logind>, report: &mut Report) {
    let Some(logind) = logind else {
        return report
            .skip(&[Step::Logind, Step::Polkit], "reboot.backend is \"simulate\": nothing is rebooted");
    };
    match logind.ask().await {
        Err(why) => {
            let remedy = "see systemctl status dbus systemd-logind (packages dbus and systemd)";
            report.add(Finding::failed(Step::Logind, why, remedy));
            report.skip(&[Step::Polkit], "logind, which asks it, cannot be asked");
        }
        Ok((inhibitors, answer)) => {
            judge_logind(&inhibitors, &answer).into_iter().for_each(|finding| {
                report.add(finding);
            });
        }
    }
}

/// What logind's answer to `CanReboot` says of itself and of polkit.
fn judge_logind(inhibitors: &[Inhibitor], answer: &str) -> [Finding; 2] {
    let says = format!("CanReboot says {answer:?}");
    if answer == "na" {
        let remedy = "a container or a machine without power management cannot be rebooted this way";
        let logind = Finding::failed(Step::Logind, says, remedy);
        return [logind, Finding::skipped(Step::Polkit, "logind does not ask it")];
    }
    let holders: Vec<String> =
        inhibitors.iter().map(|Inhibitor { who, why, .. }| format!("{who} ({why})")).collect();
    let logind = match holders.is_empty() {
        true => Finding::ok(Step::Logind, says.clone()),
        false => Finding::warning(
            Step::Logind,
            format!("{says}; at present a reboot is held up by {}", holders.join(", ")),
            "see systemd-inhibit --list; operators can wait for that (--on-inhibitor wait)",
        ),
    };
    let polkit = match answer {
        "yes" => Finding::ok(Step::Polkit, format!("{} may reboot the machine", us())),
        // With an inhibitor in the way, logind asks polkit for another right.
        _ if !holders.is_empty() => Finding::skipped(Step::Polkit, "not seen while a reboot is held up"),
        _ => Finding::failed(
            Step::Polkit,
            format!("it does not let {} reboot the machine: {says}", us()),
            "check that polkitd runs (0.106 or newer), and its rule /usr/share/polkit-1/rules.d/50-iotdm.rules, which \
             the package installs",
        ),
    };
    [logind, polkit.with("canReboot", json!(answer))]
}

/// Whether the daemon can keep its record in `dir`.
pub(super) fn judge_state_directory(dir: &Path) -> Finding {
    let dir = &std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let (step, shown) = (Step::StateDirectory, dir.display());
    let failed = |why: String, remedy: &str| Finding::failed(step, format!("{shown}: {why}"), remedy);
    if let Err(error) = durable::check_directory(dir) {
        return match error.kind() {
            ErrorKind::NotFound => match dir.ancestors().skip(1).find(|above| above.exists()) {
                Some(above) if access(above, Access::WRITE_OK | Access::EXEC_OK).is_ok() => {
                    Finding::ok(step, format!("{shown} is not there yet; the daemon makes it"))
                }
                _ => failed(
                    format!("it is not there, and {} may not make it", us()),
                    "make it, with mode 0700 and the daemon's user as its owner, or name another one by --state-dir",
                ),
            },
            ErrorKind::PermissionDenied => {
                let owner = fs::metadata(dir).map(|found| found.uid());
                failed(error.to_string(), as_whom(owner.ok(), geteuid().as_raw()))
            }
            _ => failed(error.to_string(), "give the daemon a directory of its own"),
        };
    }
    let probe = dir.join(PROBE);
    let written = durable::replace(dir, &probe, b"").and_then(|()| fs::remove_file(&probe));
    if let Err(error) = written {
        let remedy = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room there",
            ErrorKind::ReadOnlyFilesystem => {
                "have it mounted to be written, or state kept on another file system"
            }
            ErrorKind::PermissionDenied => "give it to the daemon's user: chown iotdm, chmod 0700",
            _ => "see what the kernel says of the disk (dmesg)",
        };
        let why = format!("it cannot be written ({error}), and requests are refused with storageFailed");
        return failed(why, remedy);
    }
    let free = statvfs(dir).map(|found| found.f_bavail.saturating_mul(found.f_frsize)).ok();
    let told = free.map_or_else(String::new, |free| format!(", {} MiB free", free / 1024 / 1024));
    let detail = format!("{shown} is {}'s and can be written{told}", us());
    let is_volatile = statfs(dir).is_ok_and(|found| found.f_type == TMPFS);
    let finding = if free.is_some_and(|free| free < LITTLE) {
        Finding::warning(step, detail, "make room: where a request cannot be recorded it is refused")
    } else if is_volatile {
        Finding::warning(
            step,
            format!("{detail}, but in memory, so that it does not outlive a reboot"),
            "keep it on a disk: else only the last request and the last wish are remembered, by the twin",
        )
    } else {
        Finding::ok(step, detail)
    };
    finding.with("freeBytes", json!(free))
}

/// What helps the user `us` with a state directory of `owner` that is refused. Root has
/// the test run as the daemon's user, but not where files are named.
fn as_whom(owner: Option<u32>, us: u32) -> &'static str {
    match us {
        _ if owner == Some(us) => "chmod 0700 it, and see who could have written to it",
        0 => {
            "run this as the daemon's user (runuser -u iotdm -- iotdm-agentd --test …), or without --config and \
             --state-dir"
        }
        _ => "run this as root, or as the daemon's user",
    }
}

/// What would end a reboot that hangs on the machine whose files are below `root`, as
/// `found`, if systemd was asked.
pub(super) fn judge_watchdog(found: Option<Result<IfItHangs, String>>, root: &Path) -> Finding {
    let found = match found {
        Some(Ok(found)) => found,
        Some(Err(why)) => {
            let detail = format!("what would end a reboot that hangs is not known: {why}");
            return Finding::warning(Step::Watchdog, detail, "see systemctl status dbus");
        }
        None if hang::stands(root) => return Finding::ok(Step::Watchdog, "there is one"),
        None => {
            let detail = "no device stands under /sys/class/watchdog";
            return Finding::warning(Step::Watchdog, detail, DRIVER);
        }
    };
    let dangers = hang::dangers(found, root);
    let IfItHangs { watchdog, forced_after_seconds } = found;
    let finding = match (dangers.is_empty(), watchdog, forced_after_seconds) {
        (true, Some(watchdog), Some(forced)) => Finding::ok(
            Step::Watchdog,
            format!(
                "systemd forces a reboot that hangs after {forced} s, and the watchdog bites after {watchdog} s"
            ),
        ),
        _ => {
            let remedy = match hang::stands(root) {
                true => {
                    "set RebootWatchdogSec= in /etc/systemd/system.conf.d, and a limit as in that example"
                }
                false => DRIVER,
            };
            Finding::warning(Step::Watchdog, dangers.join("; "), remedy)
        }
    };
    finding.with("watchdogSeconds", json!(watchdog)).with("forcedAfterSeconds", json!(forced_after_seconds))
}

/// The user that runs this.
fn us() -> String {
    let user = geteuid();
    let name = nix::unistd::User::from_uid(user).ok().flatten().map(|user| user.name);
    name.unwrap_or_else(|| format!("user {user}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_bring_nobody_back_is_warned_of() {
        let root = tempfile::tempdir().unwrap();
        let judge = |found| json!(judge_watchdog(found, root.path()));
        let found = |watchdog, forced_after_seconds| Some(Ok(IfItHangs { watchdog, forced_after_seconds }));
        assert_eq!(judge(None)["result"], "warning");
        let none = judge(found(None, None));
        assert_eq!((&none["result"], &none["watchdogSeconds"]), (&json!("warning"), &json!(null)));
        assert!(none["remedy"].as_str().unwrap().contains("driver"), "{none}");
        fs::create_dir_all(root.path().join("sys/class/watchdog/watchdog0")).unwrap();
        assert_eq!(judge(None)["result"], "ok");
        let off = judge(found(None, Some(1800)));
        assert!(off["remedy"].as_str().unwrap().contains("RebootWatchdogSec="), "{off}");
        assert_eq!((&off["result"], &off["forcedAfterSeconds"]), (&json!("warning"), &json!(1800)));
        assert_eq!(judge(found(Some(60), None))["result"], "warning");
        assert_eq!(judge(found(Some(60), Some(1800)))["result"], "ok");
        assert_eq!(judge(Some(Err("no bus".to_owned())))["result"], "warning");
    }

    #[test]
    fn whoever_may_not_use_the_state_directory_is_told_who_may() {
        for (owner, us, remedy) in [
            (Some(998), 0, "runuser -u iotdm"),
            (Some(998), 1000, "run this as root"),
            (None, 1000, "run this as root"),
            (Some(0), 0, "chmod 0700"),
            (Some(1000), 1000, "chmod 0700"),
        ] {
            assert!(as_whom(owner, us).contains(remedy), "{owner:?} {us}");
        }
    }

    #[test]
    fn what_is_gone_after_a_reboot_and_what_is_not_there_yet_is_told() {
        let shm = tempfile::tempdir_in("/dev/shm").unwrap();
        let found = json!(judge_state_directory(shm.path()));
        assert_eq!(found["result"], "warning", "{found}");
        assert!(found["detail"].as_str().unwrap().contains("does not outlive a reboot"), "{found}");
        assert_eq!(fs::read_dir(shm.path()).unwrap().count(), 0, "nothing is left behind");
        let missing = json!(judge_state_directory(&shm.path().join("a/b")));
        assert_eq!(missing["result"], "ok", "{missing}");
        fs::write(shm.path().join("file"), "").unwrap();
        let nowhere = json!(judge_state_directory(&shm.path().join("file/state")));
        assert_eq!(nowhere["result"], "failed", "{nowhere}");
    }
}
