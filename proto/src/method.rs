//! The names of the daemon's direct methods, and the codes of its refusals.

use crate::vocabulary::vocabulary;

vocabulary! {
    /// A direct method that the daemon answers.
    pub enum MethodName {
        /// Reboots the machine; its payload is a [`crate::RebootRequest`].
        RebootDevice = "rebootDevice",
        /// Calls off the pending reboot; its payload is a
        /// [`crate::request::CancelRequest`].
        CancelReboot = "cancelReboot",
        /// Tells how things are now, by a [`crate::reply::StatusReply`]. The
        /// payload of the call is not read.
        GetRebootStatus = "getRebootStatus",
        /// Tells the last boots, by a [`crate::reply::BootHistoryReply`]. The
        /// payload of the call is not read.
        GetBootHistory = "getBootHistory",
    }
}

vocabulary! {
    /// `error.code` of a refused call, for programs; `message` beside the code is
    /// for people. Further keys that [`crate::reply::CallError`] has with a code
    /// are named there.
    pub enum ErrorCode {
        /// The payload cannot be understood. The message names the key.
        InvalidPayload = "invalidPayload",
        /// The device's own configuration says no.
        Forbidden = "forbidden",
        /// The device has no such method. `methods` lists those that the device
        /// has.
        UnknownMethod = "unknownMethod",
        /// There is no reboot to call off, or another one than was named; then
        /// `id` names the one that is pending.
        NothingPending = "nothingPending",
        /// The machine is going down already, whoever asked for that.
        ShuttingDown = "shuttingDown",
        /// A request with another id is pending. `id` names that request.
        RebootPending = "rebootPending",
        /// The reboot has begun and cannot be called off. `id` names its request.
        TooLate = "tooLate",
        /// Block inhibitors for shutdown are held. `inhibitors` lists who holds
        /// them.
        BlockedByInhibitor = "blockedByInhibitor",
        /// A preflight check objects: the machine may not come back. `preflight`
        /// lists the checks that object.
        PreflightFailed = "preflightFailed",
        /// Too many reboots within an hour, or too soon after the last boot.
        /// `retryAfterSeconds` says when the call would be granted.
        RateLimited = "rateLimited",
        /// The request could not be recorded durably, so nothing was done.
        StorageFailed = "storageFailed",
        /// The daemon cannot judge the call now, so nothing was done; the message
        /// says why. The same call may go well later.
        Internal = "internal",
        /// There is no logind on the bus, or it cannot reboot this machine.
        LogindUnavailable = "logindUnavailable",
        /// polkit does not let the daemon reboot the machine.
        NotAuthorized = "notAuthorized",
    }
}

impl ErrorCode {
    /// The method status of the reply that carries the code: 400 to 599, in
    /// HTTP's sense.
    pub const fn status(self) -> u16 {
        match self {
            ErrorCode::InvalidPayload => 400,
            ErrorCode::Forbidden => 403,
            ErrorCode::UnknownMethod | ErrorCode::NothingPending => 404,
            ErrorCode::RebootPending | ErrorCode::ShuttingDown | ErrorCode::TooLate => 409,
            ErrorCode::BlockedByInhibitor | ErrorCode::PreflightFailed => 423,
            ErrorCode::RateLimited => 429,
            ErrorCode::StorageFailed | ErrorCode::Internal => 500,
            ErrorCode::LogindUnavailable | ErrorCode::NotAuthorized => 503,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contracts_statuses() {
        let told: Vec<String> =
            ErrorCode::ALL.iter().map(|code| format!("{} {code}", code.status())).collect();
        assert_eq!(
            told,
            [
                "400 invalidPayload",
                "403 forbidden",
                "404 unknownMethod",
                "404 nothingPending",
                "409 shuttingDown",
                "409 rebootPending",
                "409 tooLate",
                "423 blockedByInhibitor",
                "423 preflightFailed",
                "429 rateLimited",
                "500 storageFailed",
                "500 internal",
                "503 logindUnavailable",
                "503 notAuthorized",
            ]
        );
    }

    #[test]
    fn a_word_is_read_as_it_is_written_and_no_other() {
        for method in MethodName::ALL {
            assert_eq!(method.as_str().parse(), Ok(*method));
            let json = serde_json::to_string(method).unwrap();
            assert_eq!(serde_json::from_str::<MethodName>(&json).unwrap(), *method);
        }
        let error = "RebootDevice".parse::<MethodName>().unwrap_err().to_string();
        assert_eq!(
            error,
            "\"RebootDevice\" is none of rebootDevice, cancelReboot, getRebootStatus, getBootHistory"
        );
    }
}
