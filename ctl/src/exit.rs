//! The program's exit codes, and which of them an error leads to.

use std::io;
use std::process::ExitCode;

use clap::ValueEnum;

use crate::error::{Interrupted, Usage};
use crate::hub::{HubError, RefusalKind};

/// How the program ends. The numbers are fixed: scripts rely on them.
///
/// `ValueEnum` gives the full list of the codes, against which tests hold the
/// help text and the runs that end with each code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Exit {
    /// All that was asked for is done.
    Done = 0,
    /// The network, the hub or something in this program failed.
    Failure = 1,
    /// The command line, or a file that it names, is wrong.
    Usage = 2,
    /// The device refused: the status of its reply is 400 or more.
    Refused = 3,
    /// The device is offline.
    Offline = 4,
    /// The hub has no such device.
    NoSuchDevice = 5,
    /// No reply, or no outcome, in time.
    TimedOut = 6,
    /// The reboot failed, or the devices' outcomes differ.
    RebootFailed = 7,
    /// The hub does not accept who we are, or what we may do.
    NotAuthorized = 8,
    /// The hub still throttles after the retries.
    Throttled = 9,
    /// Ctrl-C ended the program: 128 and SIGINT's number 2, as shells have it.
    Interrupted = 130,
}

impl Exit {
    /// The number that the shell sees.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The code's meaning, in the words of `--help` and of the manual page.
    pub fn meaning(self) -> &'static str {
        match self {
            Exit::Done => "done",
            Exit::Failure => "network, hub or internal",
            Exit::Usage => "usage",
            Exit::Refused => "the device refused",
            Exit::Offline => "the device is offline",
            Exit::NoSuchDevice => "no such device",
            Exit::TimedOut => "timed out: no reply, or no outcome",
            Exit::RebootFailed => "the reboot failed, or the devices ended mixed",
            Exit::NotAuthorized => "not authorised",
            Exit::Throttled => "throttled after retries",
            Exit::Interrupted => "Ctrl-C",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

/// The exit code of what a hub refused.
impl From<RefusalKind> for Exit {
    fn from(kind: RefusalKind) -> Self {
        match kind {
            RefusalKind::NoSuchDevice => Exit::NoSuchDevice,
            RefusalKind::Offline | RefusalKind::ConnectionLost => Exit::Offline,
            RefusalKind::NoReply => Exit::TimedOut,
            RefusalKind::NotAuthorized => Exit::NotAuthorized,
            RefusalKind::Throttled => Exit::Throttled,
            RefusalKind::Exists
            | RefusalKind::Changed
            | RefusalKind::Quota
            | RefusalKind::Server
            | RefusalKind::NotInTier
            | RefusalKind::Other => Exit::Failure,
        }
    }
}

/// The exit code of a request to the hub that did not succeed.
impl From<&HubError> for Exit {
    fn from(error: &HubError) -> Self {
        match error {
            HubError::Refused(refusal) => refusal.kind().into(),
            HubError::NoAnswer { method: true, .. } => Exit::TimedOut,
            HubError::NoToken(_) => Exit::NotAuthorized,
            HubError::NoAnswer { method: false, .. }
            | HubError::Unreachable { .. }
            | HubError::Lost { .. }
            | HubError::TooMuch { .. }
            | HubError::NotAHub { .. } => Exit::Failure,
        }
    }
}

/// The exit code that `error` leads to: that of the first cause that has one.
/// Output that nobody reads any more (`iotdm-ctl … | head -1`) is no failure.
pub fn exit_of(error: &anyhow::Error) -> Exit {
    for cause in error.chain() {
        if let Some(error) = cause.downcast_ref::<HubError>() {
            return error.into();
        }
        if cause.is::<Usage>() {
            return Exit::Usage;
        }
        if cause.is::<Interrupted>() {
            return Exit::Interrupted;
        }
        if cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            return Exit::Done;
        }
    }
    Exit::Failure
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;
    use serde_json::json;

    use super::*;
    use crate::hub::HubRefusal;

    #[test]
    fn the_cause_decides_under_any_context() {
        let cases: [(anyhow::Error, Exit); 5] = [
            (Usage("--top".into()).into(), Exit::Usage),
            (Interrupted("stopped".into()).into(), Exit::Interrupted),
            (io::Error::from(io::ErrorKind::BrokenPipe).into(), Exit::Done),
            (io::Error::from(io::ErrorKind::NotFound).into(), Exit::Failure),
            (anyhow::anyhow!("else"), Exit::Failure),
        ];
        for (error, exit) in cases {
            let wrapped = Err::<(), _>(error).context("outer").context("outermost").unwrap_err();
            assert_eq!(exit_of(&wrapped), exit, "{wrapped:#}");
        }
    }

    #[test]
    fn the_hubs_refusals() {
        let body = |number: u32| {
            let nested = json!({"errorCode": number, "message": "m"}).to_string();
            json!({"Message": nested, "ExceptionMessage": ""}).to_string()
        };
        for (status, header, body, exit) in [
            (404, Some("DeviceNotFound"), String::new(), Exit::NoSuchDevice),
            (404, None, body(404_001), Exit::NoSuchDevice),
            (404, None, body(404_103), Exit::Offline),
            (404, None, body(404_104), Exit::Offline),
            (400, Some("ConnectionForcefullyClosedOnNewConnection"), body(400_027), Exit::Offline),
            (504, Some("GatewayTimeout"), body(504_101), Exit::TimedOut),
            (504, None, "<html>".into(), Exit::Failure),
            (401, Some("IotHubUnauthorizedAccess"), String::new(), Exit::NotAuthorized),
            (403, None, String::new(), Exit::NotAuthorized),
            (403, Some("IotHubQuotaExceeded"), String::new(), Exit::Failure),
            (429, Some("ThrottlingException"), body(429_001), Exit::Throttled),
            (409, Some("DeviceAlreadyExists"), String::new(), Exit::Failure),
            (412, None, String::new(), Exit::Failure),
            (400, Some("ArgumentInvalid"), body(400_004), Exit::Failure),
            (404, None, "not json".into(), Exit::Failure),
            (500, None, String::new(), Exit::Failure),
            (503, None, String::new(), Exit::Failure),
        ] {
            let refusal = HubRefusal::parse("h", status, header, &body);
            assert_eq!(Exit::from(refusal.kind()), exit, "{status} {header:?} {body}");
        }
    }
}
