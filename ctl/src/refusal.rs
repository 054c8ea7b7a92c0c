//! An error answer of the hub, read once and then branched upon.
//!
//! IoT Hub writes errors in two forms: the classic
//! `{"Message":"ErrorCode:DeviceNotFound;text"}`, and a nested one whose
//! `Message` is itself JSON text with a numeric `errorCode`. The header
//! `iothub-errorcode` names the error in both. Source: captures of the
//! service's answers in public issues, and IoT Hub's documentation,
//! "Troubleshooting Azure IoT Hub error codes".

use std::fmt;

use serde_json::Value;

use crate::error::Exit;

/// An error answer of the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The hub.
    pub host: String,
    /// The HTTP status.
    pub status: u16,
    /// The hub's number for the error, such as 404103.
    pub number: Option<u32>,
    /// The hub's name for the error, such as `DeviceNotOnline`.
    pub name: Option<String>,
    /// The hub's sentence.
    pub message: String,
    /// How far our clock is ahead of the hub's, in seconds.
    pub clock_ahead: Option<i64>,
}

/// What a refusal means to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No identity of that name.
    NoSuchDevice,
    /// The device is not connected, or takes no methods.
    Offline,
    /// The device's connection broke during the call.
    ConnectionLost,
    /// The device did not reply in time.
    NoReply,
    /// Bad key, bad token, or a policy without the right.
    NotAuthorized,
    /// Too many requests.
    Throttled,
    /// Something of this name is there already.
    Exists,
    /// It changed since the given etag.
    Changed,
    /// The hub's messages of the day are used up.
    Quota,
    /// The hub's own failure.
    Server,
    /// The hub's tier does not have it.
    NotInTier,
    /// Anything else.
    Other,
}

/// Clock differences from which the hub refuses tokens, in seconds.
///
/// Source: IoT Hub developer guide, "Control access using shared access
/// signatures".
pub const SKEW_LIMIT: i64 = 300;

impl Refusal {
    /// Reads an error answer. `header` is `iothub-errorcode`'s value.
    pub fn parse(host: &str, status: u16, header: Option<&str>, body: &str) -> Self {
        let mut refusal = Refusal {
            host: host.to_owned(),
            status,
            number: None,
            name: header.map(str::to_owned),
            message: String::new(),
            clock_ahead: None,
        };
        let text = match serde_json::from_str::<Value>(body) {
            Ok(Value::Object(object)) => ["Message", "message"]
                .iter()
                .find_map(|key| object.get(*key)?.as_str().map(str::to_owned))
                .unwrap_or_default(),
            _ => String::new(),
        };
        if let Ok(Value::Object(nested)) = serde_json::from_str::<Value>(&text) {
            let number = nested.get("errorCode").and_then(Value::as_u64);
            refusal.number = number.and_then(|number| u32::try_from(number).ok());
            refusal.message = nested.get("message").and_then(Value::as_str).unwrap_or_default().to_owned();
        } else if let Some((name, message)) =
            text.strip_prefix("ErrorCode:").and_then(|rest| rest.split_once(';'))
        {
            refusal.name.get_or_insert_with(|| name.to_owned());
            refusal.message = message.to_owned();
        } else {
            refusal.message = text;
        }
        refusal
    }

    /// What it means to us. The header's name decides, then the number, then
    /// the HTTP status.
    pub fn kind(&self) -> Kind {
        let by_name = match self.name.as_deref() {
            Some("DeviceNotFound") => Some(Kind::NoSuchDevice),
            Some("DeviceNotOnline") => Some(Kind::Offline),
            Some("DeviceConnectionClosedRemotely" | "ConnectionForcefullyClosedOnNewConnection") => {
                Some(Kind::ConnectionLost)
            }
            Some("GatewayTimeout") => Some(Kind::NoReply),
            Some("DeviceAlreadyExists") => Some(Kind::Exists),
            Some("PreconditionFailed") => Some(Kind::Changed),
            // Forbidden, but not a matter of rights.
            Some("IotHubQuotaExceeded") => Some(Kind::Quota),
            Some("OperationNotAvailableInCurrentTier") => Some(Kind::NotInTier),
            Some(
                "IotHubSuspended"
                | "JobQuotaExceeded"
                | "DeviceMaximumQueueDepthExceeded"
                | "DeviceDisabled"
                | "DeviceMaximumInflightMethodExceeded",
            ) => Some(Kind::Other),
            _ => None,
        };
        let by_number = || match self.number? {
            404_001 => Some(Kind::NoSuchDevice),
            404_102 | 404_103 => Some(Kind::Offline),
            404_104 | 400_027 => Some(Kind::ConnectionLost),
            504_101 => Some(Kind::NoReply),
            409_001 => Some(Kind::Exists),
            412_001 => Some(Kind::Changed),
            403_002 => Some(Kind::Quota),
            403_010 => Some(Kind::NotInTier),
            403_001..=403_999 => Some(Kind::Other),
            _ => None,
        };
        by_name.or_else(by_number).unwrap_or(match self.status {
            401 | 403 => Kind::NotAuthorized,
            409 => Kind::Exists,
            412 => Kind::Changed,
            429 => Kind::Throttled,
            500.. => Kind::Server,
            _ => Kind::Other,
        })
    }

    fn remedy(&self) -> &'static str {
        match self.kind() {
            Kind::NoSuchDevice => "; see iotdm-ctl device list",
            Kind::Offline => {
                "; start the device's agent, or let the hub wait for it with --connect-timeout SECONDS"
            }
            Kind::ConnectionLost | Kind::NoReply => "; it is not known whether the device has carried it out",
            Kind::NotAuthorized => {
                "; check the connection string's key, or the token, and that it has the right"
            }
            Kind::Throttled => "; try again later, or with fewer devices at a time",
            Kind::Changed => "; read it again and give its new --etag, or none",
            Kind::Quota => "; add units to the hub, or wait until its day ends, at midnight UTC",
            Kind::NotInTier => "; a hub of a standard tier, or the free one, has it",
            Kind::Other if self.name.as_deref() == Some("JobNotFound") => "; see iotdm-ctl job list",
            Kind::Exists | Kind::Server | Kind::Other => "",
        }
    }
}

impl Kind {
    /// The exit code it leads to.
    pub fn exit(self) -> Exit {
        match self {
            Kind::NoSuchDevice => Exit::NoSuchDevice,
            Kind::Offline | Kind::ConnectionLost => Exit::Offline,
            Kind::NoReply => Exit::TimedOut,
            Kind::NotAuthorized => Exit::NotAuthorized,
            Kind::Throttled => Exit::Throttled,
            Kind::Exists | Kind::Changed | Kind::Quota | Kind::Server | Kind::NotInTier | Kind::Other => {
                Exit::Failure
            }
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Kind::NoSuchDevice => "no such device",
            Kind::Offline => "the device is offline",
            Kind::ConnectionLost => "the device's connection broke during the call",
            Kind::NoReply => "the device did not reply in time",
            Kind::NotAuthorized => "not authorised",
            Kind::Throttled => "throttled",
            Kind::Exists => "it exists already",
            Kind::Changed => "it was changed meanwhile",
            Kind::Server => "the hub failed",
            Kind::Quota => "the hub's quota is used up",
            Kind::NotInTier => "the hub's tier does not have this",
            Kind::Other => "the hub refused",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (hub {}: {}", self.kind().sentence(), self.host, self.status)?;
        if let Some(number) = self.number {
            write!(f, " {number}")?;
        }
        if let Some(name) = &self.name {
            write!(f, " {name}")?;
        }
        if !self.message.is_empty() {
            // On one line, whatever the hub has put into it.
            write!(f, ", \"{}\"", self.message.split_whitespace().collect::<Vec<_>>().join(" "))?;
        }
        write!(f, "){}", self.remedy())?;
        match self.clock_ahead {
            Some(ahead) if self.kind() == Kind::NotAuthorized && ahead.abs() > SKEW_LIMIT => {
                let side = if ahead > 0 { "ahead of" } else { "behind" };
                write!(f, "; this machine's clock is {} s {side} the hub's, set it right", ahead.abs())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NESTED: &str = r#"{"Message":"{\"errorCode\":404103,\"trackingId\":\"0-TimeStamp:11/22/2026 18:00:00\",\"message\":\"Timed out waiting for device to connect.\",\"info\":{\"timeout\":\"00:00:00\"},\"timestampUtc\":\"2026-11-22T18:00:00Z\"}","ExceptionMessage":""}"#;
    const CLASSIC: &str = r#"{"Message":"ErrorCode:DeviceNotFound;gw1","ExceptionMessage":"Tracking ID:0-G:0-TimeStamp:11/22/2026 18:00:00"}"#;

    #[test]
    fn reads_both_forms_and_prefers_the_header() {
        let nested = Refusal::parse("h", 404, Some("DeviceNotOnline"), NESTED);
        assert_eq!((nested.number, nested.name.as_deref()), (Some(404_103), Some("DeviceNotOnline")));
        assert_eq!(nested.message, "Timed out waiting for device to connect.");
        assert_eq!(nested.kind(), Kind::Offline);

        let classic = Refusal::parse("h", 404, None, CLASSIC);
        assert_eq!((classic.name.as_deref(), classic.message.as_str()), (Some("DeviceNotFound"), "gw1"));
        assert_eq!(classic.kind(), Kind::NoSuchDevice);

        let contradicting = Refusal::parse("h", 404, Some("DeviceNotOnline"), CLASSIC);
        assert_eq!(contradicting.kind(), Kind::Offline);
    }

    #[test]
    fn every_kind_has_its_exit_code() {
        let body = |number: u32| {
            let nested = serde_json::json!({"errorCode": number, "message": "m"}).to_string();
            serde_json::json!({"Message": nested, "ExceptionMessage": ""}).to_string()
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
            (409, Some("DeviceAlreadyExists"), CLASSIC.into(), Exit::Failure),
            (412, None, String::new(), Exit::Failure),
            (400, Some("ArgumentInvalid"), body(400_004), Exit::Failure),
            (404, None, "not json".into(), Exit::Failure),
            (500, None, String::new(), Exit::Failure),
            (503, None, String::new(), Exit::Failure),
        ] {
            let refusal = Refusal::parse("h", status, header, &body);
            assert_eq!(refusal.kind().exit(), exit, "{status} {header:?} {body}");
        }
    }

    #[test]
    fn names_the_hub_the_code_and_the_remedy_and_a_wrong_clock() {
        let mut refusal = Refusal::parse(
            "hub:8443",
            401,
            None,
            r#"{"Message":"ErrorCode:IotHubUnauthorizedAccess;Unauthorized"}"#,
        );
        let plain = refusal.to_string();
        for part in ["hub:8443", "401", "IotHubUnauthorizedAccess", "connection string"] {
            assert!(plain.contains(part), "{plain}");
        }
        refusal.clock_ahead = Some(300);
        assert_eq!(refusal.to_string(), plain);
        refusal.clock_ahead = Some(-301);
        assert!(refusal.to_string().contains("301 s behind"), "{refusal}");
    }
}
