//! A daemon that runs beside a test. The hub keeps one connection for each device and
//! ends the older one when another comes: where a daemon has the connection, a test
//! must not log in, and asks that daemon instead.

use std::io::ErrorKind;
use std::path::Path;

use iotdm_proto::text::harmless;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::report::{Finding, Step};
use crate::connection::identity::Login;
use crate::host::status::{self, Status, Whom};
use crate::lock;

/// Where the packaged unit's daemon says how it is.
const RUNTIME_DIR: &str = "/run/iotdm";

/// Who has the connection.
#[derive(Debug)]
pub(super) enum Neighbour {
    /// No daemon: the test may log in.
    Nobody,
    /// A daemon that says how it is.
    Says(Box<Status>),
    /// A daemon that does not say how it is with this hub.
    Silent,
    /// Whether there is a daemon cannot be found out, why, and what helps.
    Unknown(String),
}

impl Neighbour {
    /// The one that has the state directory, or that is this device.
    pub(super) fn find(state_dir: &Path, runtime_dir: Option<&Path>, login: &Login) -> Self {
        let said = status::read(runtime_dir.unwrap_or(Path::new(RUNTIME_DIR))).ok();
        let said = said.filter(|said| is_alive(said.pid) && is_of(said, login));
        match (said, lock::is_held(state_dir)) {
            (Some(said), _) => Neighbour::Says(Box::new(said)),
            (None, Ok(true)) => Neighbour::Silent,
            (None, Ok(false)) => Neighbour::Nobody,
            (None, Err(error)) => {
                let remedy = match error.kind() {
                    ErrorKind::PermissionDenied => "run this as root, or as the daemon's user",
                    _ => {
                        "see systemctl status iotdm-agentd; where no daemon runs, have the test use another directory \
                         (--state-dir)"
                    }
                };
                Neighbour::Unknown(format!(
                    "whether a daemon runs, whose connection this test would take, cannot be seen in the state \
                     directory {}: {error}: {remedy}",
                    state_dir.display()
                ))
            }
        }
    }

    /// Whether there is a daemon, where that is known.
    pub(super) fn runs(&self) -> Option<bool> {
        match self {
            Neighbour::Nobody => Some(false),
            Neighbour::Says(_) | Neighbour::Silent => Some(true),
            Neighbour::Unknown(_) => None,
        }
    }

    /// What the daemon has found out about the hub, in place of a test's own CONNACK
    /// and twin; nothing where the test may find that out itself.
    pub(super) fn answers(&self) -> Option<[Finding; 2]> {
        let untold = |why: &str| Some([Step::Connack, Step::Twin].map(|step| Finding::skipped(step, why)));
        let said = match self {
            Neighbour::Nobody => return None,
            Neighbour::Says(said) => said,
            Neighbour::Silent => {
                return untold(
                    "a daemon runs with this state directory, whose connection this test would take, and it does not \
                     say how it is with this hub: see systemctl status iotdm-agentd, and restart it if the settings \
                     have changed",
                );
            }
            Neighbour::Unknown(why) => {
                return untold(why);
            }
        };
        let (process, since) = (said.pid, said.connection.since);
        let daemon = format!("the running daemon (process {process})");
        if said.connection.connected {
            let hub = said.connection.hub.as_deref().unwrap_or_default();
            let device = &said.connection.whom;
            let detail = format!(
                "{daemon} is connected to {hub} as {device} since {since}; this test leaves it that connection"
            );
            let connack = Finding::ok(Step::Connack, detail);
            let twin = match said.connection.last_acknowledgement {
                Some(at) => Finding::ok(Step::Twin, format!("the hub last acknowledged the daemon at {at}")),
                None => Finding::warning(
                    Step::Twin,
                    format!("the hub has not acknowledged anything since {daemon} runs"),
                    "wait some seconds and try again; then see journalctl -u iotdm-agentd",
                ),
            };
            return Some([connack, twin]);
        }
        let next = said.connection.next_attempt.map(|next| format!("it tries again at {next} at the latest"));
        let connack = match &said.connection.outage {
            Some(outage) => Finding::failed(
                Step::Connack,
                format!("{daemon} is not connected: {}", harmless(outage)),
                next.unwrap_or_else(|| "see systemctl status iotdm-agentd".to_owned()),
            ),
            None => Finding::warning(
                Step::Connack,
                format!("{daemon} has been connecting since {since}"),
                "try again in a minute",
            ),
        };
        Some([connack, Finding::skipped(Step::Twin, "the running daemon is not connected")])
    }
}

/// Whether the process is there: the file of a daemon that was killed may be left.
fn is_alive(pid: u32) -> bool {
    let Ok(pid) = i32::try_from(pid) else { return false };
    // Of another user's process, one may know no more than that it is there.
    pid > 0 && !matches!(kill(Pid::from_raw(pid), None), Err(nix::errno::Errno::ESRCH))
}

/// Whether the daemon is this device, of this hub.
fn is_of(said: &Status, login: &Login) -> bool {
    let hub = said.connection.hub.as_deref();
    said.connection.whom == Whom::from(login.id.clone())
        && hub.is_some_and(|hub| hub.eq_ignore_ascii_case(&login.hub.to_string()))
}
