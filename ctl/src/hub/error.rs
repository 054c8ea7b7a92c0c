//! What can go wrong between this program and the hub.

use std::error::Error as StdError;
use std::{io, iter};

use rustls::CertificateError;

use super::proxy::Proxy;
use super::refusal::{HubRefusal, RefusalKind};
use crate::credential::NoToken;

/// Why an HTTP request to the hub did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The hub answered with an error.
    #[error("{0}")]
    Refused(Box<HubRefusal>),
    /// No connection came about, so nothing was sent.
    #[error("cannot reach hub {host}: {cause}{remedy}")]
    Unreachable {
        /// The hub.
        host: String,
        /// The innermost cause.
        cause: String,
        /// What to do: nothing, or a clause that begins with `; `.
        remedy: &'static str,
    },
    /// The connection broke after the request may have been sent.
    #[error("lost the connection to hub {host} before its answer: {cause}")]
    Lost {
        /// The hub.
        host: String,
        /// The innermost cause.
        cause: String,
    },
    /// The hub did not answer in time.
    #[error("hub {host} did not answer in {seconds} s")]
    NoAnswer {
        /// The hub.
        host: String,
        /// How long we waited, in seconds.
        seconds: u64,
        /// Whether a device's reply was waited for.
        method: bool,
    },
    /// The hub sends more than can be kept, or goes on for ever.
    #[error("hub {host} sends too much: {what}")]
    TooMuch {
        /// The hub.
        host: String,
        /// What it sends, and what to do.
        what: &'static str,
    },
    /// There is no token to authenticate with.
    #[error(transparent)]
    NoToken(#[from] NoToken),
    /// Something answered that does not speak like a hub.
    #[error("the answer of {host} is not IoT Hub's ({cause}); is it a hub?")]
    NotAHub {
        /// What was taken for the hub.
        host: String,
        /// What is wrong with the answer.
        cause: String,
    },
}

impl HubError {
    /// Whether reading the same thing again later may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            HubError::Refused(refusal) => {
                matches!(refusal.kind(), RefusalKind::Throttled | RefusalKind::Server | RefusalKind::NoReply)
            }
            HubError::Unreachable { .. } | HubError::Lost { .. } | HubError::NoAnswer { .. } => true,
            HubError::NotAHub { .. } | HubError::TooMuch { .. } | HubError::NoToken(_) => false,
        }
    }

    /// Whether the hub itself is away: it cannot be reached, broke the connection or
    /// did not answer.
    pub fn is_outage(&self) -> bool {
        matches!(self, HubError::Unreachable { .. } | HubError::Lost { .. } | HubError::NoAnswer { .. })
    }

    /// Whether the hub answered that it cannot serve.
    pub fn is_server_failure(&self) -> bool {
        matches!(self, HubError::Refused(refusal) if refusal.kind() == RefusalKind::Server)
    }

    /// Whether the hub says that the device is not connected.
    pub fn is_offline(&self) -> bool {
        matches!(self, HubError::Refused(refusal) if refusal.kind() == RefusalKind::Offline)
    }

    /// Whether the hub or the way to the hub failed, so that the same request
    /// would have failed for any other device.
    pub fn is_hubs_own(&self) -> bool {
        match self {
            HubError::Refused(refusal) => {
                matches!(refusal.kind(), RefusalKind::NotAuthorized | RefusalKind::Throttled)
            }
            HubError::Unreachable { .. } | HubError::NotAHub { .. } | HubError::NoToken(_) => true,
            HubError::Lost { .. } | HubError::NoAnswer { .. } | HubError::TooMuch { .. } => false,
        }
    }

    /// Whether a method call that ended with this error may have been carried out
    /// all the same: a call is delivered at most once, but its reply can get
    /// lost.
    pub fn may_have_been_executed(&self) -> bool {
        match self {
            HubError::Refused(refusal) => {
                matches!(refusal.kind(), RefusalKind::NoReply | RefusalKind::ConnectionLost)
            }
            HubError::Lost { .. } | HubError::NoAnswer { .. } | HubError::TooMuch { .. } => true,
            HubError::Unreachable { .. } | HubError::NotAHub { .. } | HubError::NoToken(_) => false,
        }
    }

    /// The error that one of reqwest's amounts to, on the way through `proxy` if
    /// there is one. `seconds` is the time limit that the HTTP request had.
    pub(crate) fn of_transport(
        host: &str,
        proxy: Option<&Proxy>,
        error: &reqwest::Error,
        seconds: u64,
    ) -> Self {
        let host = proxy.map_or_else(|| host.to_owned(), |proxy| format!("{host} through the proxy {proxy}"));
        let cause = innermost(error);
        if error.is_connect() || error.is_builder() {
            let remedy = certificate_remedy(error).unwrap_or(match proxy {
                None => "; check HostName in the connection string and the network",
                Some(_) => {
                    "; check the proxy, HTTPS_PROXY and NO_PROXY, as iotdm-ctl check does step by step"
                }
            });
            return HubError::Unreachable { host, cause, remedy };
        }
        if error.is_timeout() {
            return HubError::NoAnswer { host, seconds, method: false };
        }
        HubError::Lost { host, cause }
    }
}

/// The text of the last error in the chain of causes, which is the error that
/// says what happened ("Connection refused", "invalid peer certificate: …").
fn innermost(error: &reqwest::Error) -> String {
    causes(error).last().map_or_else(|| error.to_string(), ToString::to_string)
}

/// What to do about the hub's certificate, if the certificate is what is wrong:
/// a clause that begins with `; `.
pub(crate) fn certificate_remedy(error: &(dyn StdError + 'static)) -> Option<&'static str> {
    let wrong = causes(error).find_map(|cause| match cause.downcast_ref() {
        Some(rustls::Error::InvalidCertificate(error)) => Some(error),
        _ => None,
    })?;
    Some(match wrong {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "; check HostName in the connection string"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "; the hub's certificate needs renewal, unless this machine's clock is wrong"
        }
        _ => "; if the hub's certificate is from a private CA, name that CA with --ca-file",
    })
}

/// An error and its causes. An [`io::Error`] that wraps another error does not
/// give that error as its source, but as what it holds.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| {
        let error = *error;
        let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        match held {
            Some(held) => Some(held),
            None => error.source(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, name: &str) -> HubError {
        HubError::Refused(Box::new(HubRefusal::parse("h", status, Some(name), "")))
    }

    /// Each kind of error, with what follows from it: to read again, to wait for the hub,
    /// the hub's own failure, the device's absence, a failure with any other device.
    #[test]
    fn what_follows_from_each_error() {
        let (host, cause) = ("h".to_owned(), "c".to_owned());
        let unreachable = HubError::Unreachable { host: host.clone(), cause: cause.clone(), remedy: "" };
        let silent = HubError::NoAnswer { host: host.clone(), seconds: 1, method: true };
        for (error, again, outage, server, offline, hubs_own) in [
            (unreachable, true, true, false, false, true),
            (HubError::Lost { host: host.clone(), cause: cause.clone() }, true, true, false, false, false),
            (silent, true, true, false, false, false),
            (HubError::TooMuch { host: host.clone(), what: "w" }, false, false, false, false, false),
            (HubError::NotAHub { host, cause }, false, false, false, false, true),
            (refused(500, "ServerError"), true, false, true, false, false),
            (refused(429, "ThrottlingException"), true, false, false, false, true),
            (refused(504, "GatewayTimeout"), true, false, false, false, false),
            (refused(401, "IotHubUnauthorizedAccess"), false, false, false, false, true),
            (refused(404, "DeviceNotOnline"), false, false, false, true, false),
            (refused(404, "DeviceNotFound"), false, false, false, false, false),
        ] {
            let follows = (
                error.is_transient(),
                error.is_outage(),
                error.is_server_failure(),
                error.is_offline(),
                error.is_hubs_own(),
            );
            assert_eq!(follows, (again, outage, server, offline, hubs_own), "{error:?}");
        }
    }

    #[test]
    fn a_wrong_certificate_has_a_remedy_of_its_own() {
        let remedy = |error: CertificateError| {
            let held = io::Error::other(rustls::Error::InvalidCertificate(error));
            certificate_remedy(&io::Error::other(held)).unwrap()
        };
        assert!(remedy(CertificateError::NotValidForName).contains("check HostName"));
        assert!(remedy(CertificateError::Expired).contains("needs renewal"));
        assert!(remedy(CertificateError::UnknownIssuer).contains("--ca-file"));
        let other = io::Error::other(rustls::Error::HandshakeNotComplete);
        assert_eq!(certificate_remedy(&other), None);
    }

    #[test]
    fn only_a_lost_reply_leaves_open_whether_it_was_executed() {
        assert!(refused(504, "GatewayTimeout").may_have_been_executed());
        assert!(refused(404, "DeviceConnectionClosedRemotely").may_have_been_executed());
        assert!(!refused(404, "DeviceNotOnline").may_have_been_executed());
        assert!(!refused(429, "ThrottlingException").may_have_been_executed());
        assert!(HubError::Lost { host: "h".into(), cause: "c".into() }.may_have_been_executed());
        assert!(
            !HubError::Unreachable { host: "h".into(), cause: "c".into(), remedy: "" }
                .may_have_been_executed()
        );
    }
}
