//! Checks the configuration, and tests the way to the hub, as the service would: root
//! can read what the service's user cannot, cannot read the encrypted credential, and
//! is kept from nothing. So root has systemd run the same in a transient unit with the
//! user, the credentials, the view of the files and the sandbox that
//! iotdm-agentd.service has, drop-ins included.

use std::path::Path;
use std::process::{Command, ExitCode};

/// The unit whose settings are taken.
const UNIT: &str = "iotdm-agentd.service";
/// Set for what runs in the transient unit, which must not make another one.
const WITHIN: &str = "IOTDM_CHECK_IN_UNIT";
/// How long the transient unit may take, if whoever waits for it has gone: more than
/// any check or test takes.
const AT_MOST: &str = "RuntimeMaxSec=2min";
/// The settings of the unit that decide what it can read and what it may do. Not its
/// runtime directory, which systemd would remove under a running daemon; and not what
/// decides which programs can be run, since it runs none but this.
const TAKEN: [&str; 54] = [
    "User",
    "Group",
    "SupplementaryGroups",
    "DynamicUser",
    "Environment",
    "EnvironmentFile",
    "LoadCredential",
    "LoadCredentialEncrypted",
    "SetCredential",
    "SetCredentialEncrypted",
    "StateDirectory",
    "StateDirectoryMode",
    "RootDirectory",
    "BindPaths",
    "BindReadOnlyPaths",
    "ReadOnlyPaths",
    "ReadWritePaths",
    "InaccessiblePaths",
    "TemporaryFileSystem",
    "ProtectSystem",
    "ProtectHome",
    "PrivateTmp",
    "PrivateDevices",
    "PrivateMounts",
    "PrivateUsers",
    "NoNewPrivileges",
    "CapabilityBoundingSet",
    "AmbientCapabilities",
    "UMask",
    "PrivateNetwork",
    "PrivateIPC",
    "ProcSubset",
    "ProtectProc",
    "ProtectClock",
    "ProtectControlGroups",
    "ProtectHostname",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "LockPersonality",
    "MemoryDenyWriteExecute",
    "RestrictAddressFamilies",
    "RestrictNamespaces",
    "RestrictRealtime",
    "RestrictSUIDSGID",
    "RestrictNetworkInterfaces",
    "SystemCallArchitectures",
    "SystemCallFilter",
    "SystemCallErrorNumber",
    "IPAddressAllow",
    "IPAddressDeny",
    "SocketBindAllow",
    "SocketBindDeny",
    "LimitCORE",
];

/// Runs this program with `arguments` in a transient unit; its exit code. Nothing where
/// that is not possible or not wanted: as another user, without systemd or without the
/// unit.
pub fn run_again(arguments: &[&str]) -> Option<ExitCode> {
    let wanted = nix::unistd::geteuid().is_root() && std::env::var_os(WITHIN).is_none();
    if !wanted || !Path::new("/run/systemd/system").exists() {
        return None;
    }
    let unit =
        Command::new("systemctl").args(["cat", UNIT]).output().ok().filter(|cat| cat.status.success())?;
    let program = std::env::current_exe().ok()?;
    let mut run = Command::new("systemd-run");
    run.args(["--quiet", "--wait", "--pipe", "--collect", "--service-type=exec"]);
    run.args(properties(&String::from_utf8_lossy(&unit.stdout))).arg(format!("--property={AT_MOST}"));
    run.arg(format!("--setenv={WITHIN}=1")).arg("--").arg(program).args(arguments);
    let ended = run.status().ok()?;
    // Ended by a signal, it has no code.
    Some(ended.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// The settings that are taken, in their order, from a unit with its drop-ins, as
/// systemctl cat(1) shows it.
fn properties(unit: &str) -> Vec<String> {
    let mut within = false;
    let mut taken = Vec::new();
    for line in unit.lines().map(str::trim) {
        if line.starts_with('[') {
            within = line == "[Service]";
        }
        if within && line.split_once('=').is_some_and(|(key, _)| TAKEN.contains(&key)) {
            taken.push(format!("--property={line}"));
        }
    }
    taken
}

/// Who judges, for the description.
pub fn judge() -> String {
    let user = nix::unistd::geteuid();
    let name = nix::unistd::User::from_uid(user).ok().flatten().map(|user| user.name);
    let name = name.unwrap_or_else(|| format!("user {user}"));
    match (std::env::var_os(WITHIN).is_some(), user.is_root()) {
        (true, _) => format!("{name}, in a unit like {UNIT}"),
        (false, true) => format!("{name}: the service may be able to read less, or other files"),
        (false, false) => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_decides_about_reading_is_taken_from_the_unit_in_its_order() {
        let unit = include_str!("../../../packaging/systemd/iotdm-agentd.service");
        let drop_in =
            "# /etc/systemd/system/x.conf\n[Unit]\nUser=no\n[Service]\nUser=other\n LoadCredential=\n";
        let taken = properties(&format!("{unit}\n{drop_in}"));
        let has = |property: &str| taken.iter().any(|taken| taken == &format!("--property={property}"));
        for property in [
            "User=iotdm",
            "LoadCredential=connection-string:/etc/iotdm/connection-string",
            r"SetCredential=connection-string:\n",
            "ProtectHome=yes",
            "CapabilityBoundingSet=",
            "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
            "SystemCallFilter=~@privileged @resources @keyring @memlock",
        ] {
            assert!(has(property), "{property} in {taken:?}");
        }
        let last: Vec<&str> = taken.iter().rev().take(2).map(String::as_str).collect();
        assert_eq!(last, ["--property=LoadCredential=", "--property=User=other"]);
        assert!(!taken.iter().any(|taken| taken.contains("ExecStart") || taken.contains("Restart")));
        assert!(!taken.iter().any(|taken| taken.contains("RuntimeDirectory") || taken.contains("ExecPaths")));
        assert!(!has("User=no"));
    }
}
