//! The hub says no: its error response, read once and then branched upon.
//!
//! IoT Hub writes errors in several forms: the classic
//! `{"Message":"ErrorCode:DeviceNotFound;text"}`, and a nested one whose
//! `Message` is itself JSON text with a numeric `errorCode`. Some answers are that
//! JSON itself, without anything around it. The header `iothub-errorcode` names the
//! error, where there is one. Source: captures of the
//! service's answers in public issues, and IoT Hub's documentation,
//! "Troubleshooting Azure IoT Hub error codes".

use std::fmt;

use serde_json::Value;

/// An error response of the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubRefusal {
    /// The hub's host and port.
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

/// What a refusal of the hub means to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// The registry has no device of that id.
    NoSuchDevice,
    /// The device is not connected, or takes no methods.
    Offline,
    /// The device's connection broke during the call.
    ConnectionLost,
    /// The device did not reply in time.
    NoReply,
    /// A bad key, a bad token, or a policy without the right.
    NotAuthorized,
    /// Too many requests.
    Throttled,
    /// Something of this name exists already.
    Exists,
    /// What was to be changed has another etag than the given one.
    Changed,
    /// The hub's messages of the day are used up.
    Quota,
    /// The hub's own failure.
    Server,
    /// The hub's tier does not have what was asked for.
    NotInTier,
    /// Anything else.
    Other,
}

/// How far a clock may be from the hub's before the hub refuses tokens, in
/// seconds.
///
/// Source: IoT Hub developer guide, "Control access using shared access
/// signatures".
pub const CLOCK_TOLERANCE: i64 = 300;

impl HubRefusal {
    /// Reads an error response: its HTTP status, the value of its header
    /// `iothub-errorcode`, and its body.
    pub fn parse(host: &str, status: u16, header: Option<&str>, body: &str) -> Self {
        let mut refusal = HubRefusal {
            host: host.to_owned(),
            status,
            number: None,
            name: header.map(str::to_owned),
            message: String::new(),
            clock_ahead: None,
        };
        let outer: Value = serde_json::from_str(body).unwrap_or_default();
        let text =
            ["Message", "message"].iter().find_map(|key| outer.get(*key)?.as_str()).unwrap_or_default();
        let nested = serde_json::from_str(text).ok().filter(Value::is_object);
        if let Some(coded) =
            nested.as_ref().or(Some(&outer)).filter(|object| object.get("errorCode").is_some())
        {
            refusal.take_code(coded.get("errorCode"));
            let message = ["message", "Message"].iter().find_map(|key| coded.get(*key)?.as_str());
            refusal.message = message.unwrap_or_default().to_owned();
        } else if let Some(nested) = nested {
            refusal.message = nested.get("message").and_then(Value::as_str).unwrap_or_default().to_owned();
        } else if let Some((name, message)) =
            text.strip_prefix("ErrorCode:").and_then(|rest| rest.split_once(';'))
        {
            refusal.name.get_or_insert_with(|| name.to_owned());
            refusal.message = message.to_owned();
        } else {
            refusal.message = text.to_owned();
        }
        refusal
    }

    /// Reads one of the errors of the registry's account of bulk changes.
    pub fn of_bulk(host: &str, error: &Value) -> Self {
        let message = error.get("errorStatus").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut refusal = HubRefusal { message, ..HubRefusal::parse(host, 400, None, "") };
        refusal.take_code(error.get("errorCode"));
        refusal
    }

    /// Takes the error's number, or the name that some bodies have in its place.
    fn take_code(&mut self, code: Option<&Value>) {
        match code {
            Some(Value::String(text)) => match text.parse() {
                Ok(number) => self.number = Some(number),
                Err(_) => drop(self.name.get_or_insert_with(|| text.clone())),
            },
            Some(code) => self.number = code.as_u64().and_then(|number| u32::try_from(number).ok()),
            None => {}
        }
    }

    /// What the refusal means to us. The error's name decides, then its number,
    /// then the HTTP status.
    pub fn kind(&self) -> RefusalKind {
        let by_name = match self.name.as_deref() {
            Some("DeviceNotFound" | "ModuleNotFound") => Some(RefusalKind::NoSuchDevice),
            Some("DeviceNotOnline") => Some(RefusalKind::Offline),
            Some("DeviceConnectionClosedRemotely" | "ConnectionForcefullyClosedOnNewConnection") => {
                Some(RefusalKind::ConnectionLost)
            }
            Some("GatewayTimeout") => Some(RefusalKind::NoReply),
            Some("ThrottlingException" | "ThrottlingBacklogTimeout") => Some(RefusalKind::Throttled),
            Some("DeviceAlreadyExists" | "ModuleAlreadyExistsOnDevice") => Some(RefusalKind::Exists),
            Some("PreconditionFailed") => Some(RefusalKind::Changed),
            // The HTTP status is 403 here, but it is not a matter of rights.
            Some("IotHubQuotaExceeded") => Some(RefusalKind::Quota),
            Some("OperationNotAvailableInCurrentTier") => Some(RefusalKind::NotInTier),
            Some(
                "IotHubSuspended"
                | "JobQuotaExceeded"
                | "DeviceMaximumQueueDepthExceeded"
                | "DeviceDisabled"
                | "DeviceMaximumInflightMethodExceeded",
            ) => Some(RefusalKind::Other),
            _ => None,
        };
        let by_number = || match self.number? {
            404_001 | 404_010 => Some(RefusalKind::NoSuchDevice),
            404_102 | 404_103 => Some(RefusalKind::Offline),
            404_104 | 400_027 => Some(RefusalKind::ConnectionLost),
            429_000..=429_999 => Some(RefusalKind::Throttled),
            500_000..=500_999 | 503_000..=503_999 => Some(RefusalKind::Server),
            504_000..=504_999 => Some(RefusalKind::NoReply),
            409_001 | 409_301 => Some(RefusalKind::Exists),
            412_001 => Some(RefusalKind::Changed),
            403_002 => Some(RefusalKind::Quota),
            403_010 => Some(RefusalKind::NotInTier),
            403_001..=403_999 => Some(RefusalKind::Other),
            _ => None,
        };
        by_name.or_else(by_number).unwrap_or(match self.status {
            401 | 403 => RefusalKind::NotAuthorized,
            409 => RefusalKind::Exists,
            412 => RefusalKind::Changed,
            429 => RefusalKind::Throttled,
            500.. => RefusalKind::Server,
            _ => RefusalKind::Other,
        })
    }

    /// Whether it is a module that the hub does not have.
    fn is_about_a_module(&self) -> bool {
        matches!(self.name.as_deref(), Some("ModuleNotFound")) || self.number == Some(404_010)
    }

    /// What to do: nothing, or a clause that begins with `; `.
    fn remedy(&self) -> &'static str {
        match self.kind() {
            RefusalKind::NoSuchDevice if self.is_about_a_module() => {
                "; see iotdm-ctl device list --module NAME, and device create --module"
            }
            RefusalKind::NoSuchDevice => "; see iotdm-ctl device list",
            RefusalKind::Offline => {
                "; start the device's agent, or let the hub wait for it with --connect-timeout SECONDS"
            }
            RefusalKind::ConnectionLost | RefusalKind::NoReply => {
                "; it is not known whether the device has carried it out"
            }
            RefusalKind::NotAuthorized => {
                "; check the connection string's key, or the token, and that it has the right"
            }
            RefusalKind::Throttled => "; try again later, or with fewer devices at a time",
            RefusalKind::Changed => "; read it again and give its new --etag, or none",
            RefusalKind::Quota => "; add units to the hub, or wait until its day ends, at midnight UTC",
            RefusalKind::NotInTier => "; a hub of a standard tier, or the free one, has it",
            RefusalKind::Other if self.name.as_deref() == Some("JobNotFound") => "; see iotdm-ctl job list",
            RefusalKind::Other if self.name.as_deref() == Some("ConfigurationNotFound") => {
                "; see iotdm-ctl configuration list"
            }
            RefusalKind::Exists | RefusalKind::Server | RefusalKind::Other => "",
        }
    }
}

impl RefusalKind {
    /// The kind in words.
    fn sentence(self) -> &'static str {
        match self {
            RefusalKind::NoSuchDevice => "no such device",
            RefusalKind::Offline => "the device is offline",
            RefusalKind::ConnectionLost => "the device's connection broke during the call",
            RefusalKind::NoReply => "the device did not reply in time",
            RefusalKind::NotAuthorized => "not authorised",
            RefusalKind::Throttled => "throttled",
            RefusalKind::Exists => "it exists already",
            RefusalKind::Changed => "it was changed meanwhile",
            RefusalKind::Server => "the hub failed",
            RefusalKind::Quota => "the hub's quota is used up",
            RefusalKind::NotInTier => "the hub's tier does not have this",
            RefusalKind::Other => "the hub refused",
        }
    }
}

impl fmt::Display for HubRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sentence = if self.is_about_a_module() { "no such module" } else { self.kind().sentence() };
        write!(f, "{sentence} (hub {}: {}", self.host, self.status)?;
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
            Some(ahead) if self.kind() == RefusalKind::NotAuthorized && ahead.abs() > CLOCK_TOLERANCE => {
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
        let nested = HubRefusal::parse("h", 404, Some("DeviceNotOnline"), NESTED);
        assert_eq!((nested.number, nested.name.as_deref()), (Some(404_103), Some("DeviceNotOnline")));
        assert_eq!(nested.message, "Timed out waiting for device to connect.");
        assert_eq!(nested.kind(), RefusalKind::Offline);

        let classic = HubRefusal::parse("h", 404, None, CLASSIC);
        assert_eq!((classic.name.as_deref(), classic.message.as_str()), (Some("DeviceNotFound"), "gw1"));
        assert_eq!(classic.kind(), RefusalKind::NoSuchDevice);

        for flat in [
            r#"{"errorCode":404103,"trackingId":"0","message":"Timed out waiting for device to subscribe.","info":{}}"#,
            r#"{"errorCode":"404103","Message":"Timed out waiting for device to subscribe."}"#,
            r#"{"errorCode":"DeviceNotOnline","message":"Timed out waiting for device to subscribe."}"#,
        ] {
            let flat = HubRefusal::parse("h", 404, None, flat);
            assert_eq!(flat.kind(), RefusalKind::Offline, "{flat}");
            assert_eq!(flat.message, "Timed out waiting for device to subscribe.");
        }

        let contradicting = HubRefusal::parse("h", 404, Some("DeviceNotOnline"), CLASSIC);
        assert_eq!(contradicting.kind(), RefusalKind::Offline);
    }

    /// By the name alone, with a status that would say otherwise; by the number alone; by
    /// the status alone. Each is one that the service is known to send.
    #[test]
    fn each_name_number_and_status_means_something() {
        use RefusalKind::*;
        for (name, kind) in [
            ("DeviceNotFound", NoSuchDevice),
            ("ModuleNotFound", NoSuchDevice),
            ("DeviceNotOnline", Offline),
            ("DeviceConnectionClosedRemotely", ConnectionLost),
            ("ConnectionForcefullyClosedOnNewConnection", ConnectionLost),
            ("GatewayTimeout", NoReply),
            ("ThrottlingException", Throttled),
            ("ThrottlingBacklogTimeout", Throttled),
            ("DeviceAlreadyExists", Exists),
            ("ModuleAlreadyExistsOnDevice", Exists),
            ("PreconditionFailed", Changed),
            ("IotHubQuotaExceeded", Quota),
            ("OperationNotAvailableInCurrentTier", NotInTier),
            ("IotHubSuspended", Other),
            ("JobQuotaExceeded", Other),
            ("DeviceMaximumQueueDepthExceeded", Other),
            ("DeviceDisabled", Other),
            ("DeviceMaximumInflightMethodExceeded", Other),
        ] {
            assert_eq!(HubRefusal::parse("h", 403, Some(name), "").kind(), kind, "{name}");
        }
        for (number, kind) in [
            (404_001, NoSuchDevice),
            (404_010, NoSuchDevice),
            (404_102, Offline),
            (404_103, Offline),
            (404_104, ConnectionLost),
            (400_027, ConnectionLost),
            (429_001, Throttled),
            (500_001, Server),
            (503_003, Server),
            (504_101, NoReply),
            (409_001, Exists),
            (409_301, Exists),
            (412_001, Changed),
            (403_002, Quota),
            (403_010, NotInTier),
            (403_006, Other),
        ] {
            let body = format!(r#"{{"errorCode":{number},"message":"m"}}"#);
            // A status that means none of these.
            assert_eq!(HubRefusal::parse("h", 401, None, &body).kind(), kind, "{number}");
        }
        for (status, kind) in [
            (400, Other),
            (401, NotAuthorized),
            (403, NotAuthorized),
            (404, Other),
            (409, Exists),
            (412, Changed),
            (429, Throttled),
            (499, Other),
            (500, Server),
            (503, Server),
        ] {
            assert_eq!(HubRefusal::parse("h", status, None, "").kind(), kind, "{status}");
        }
    }

    #[test]
    fn an_error_of_a_bulk_change_is_read_like_any_other() {
        let error = serde_json::json!({"deviceId": "gw1", "errorCode": "DeviceAlreadyExists", "errorStatus": "It is there."});
        let refusal = HubRefusal::of_bulk("h", &error);
        assert_eq!((refusal.kind(), refusal.message.as_str()), (RefusalKind::Exists, "It is there."));
        let error = serde_json::json!({"errorCode": 404_001, "errorStatus": ""});
        assert_eq!(HubRefusal::of_bulk("h", &error).kind(), RefusalKind::NoSuchDevice);
    }

    /// What an operator is to do; nothing where there is nothing to do.
    #[test]
    fn each_refusal_says_what_and_the_remedy() {
        for (status, name, sentence, remedy) in [
            (404, "DeviceNotFound", "no such device", "see iotdm-ctl device list"),
            (404, "ModuleNotFound", "no such module", "device create --module"),
            (404, "DeviceNotOnline", "the device is offline", "--connect-timeout"),
            (404, "DeviceConnectionClosedRemotely", "connection broke", "not known whether"),
            (504, "GatewayTimeout", "did not reply in time", "not known whether"),
            (403, "x", "not authorised", "check the connection string's key"),
            (429, "x", "throttled", "fewer devices at a time"),
            (412, "x", "changed meanwhile", "--etag"),
            (403, "IotHubQuotaExceeded", "quota is used up", "midnight UTC"),
            (403, "OperationNotAvailableInCurrentTier", "tier does not have this", "standard tier"),
            (404, "JobNotFound", "the hub refused", "see iotdm-ctl job list"),
            (404, "ConfigurationNotFound", "the hub refused", "see iotdm-ctl configuration list"),
            (409, "x", "exists already", ""),
            (500, "x", "the hub failed", ""),
            (404, "x", "the hub refused", ""),
        ] {
            let text = HubRefusal::parse("h", status, Some(name), "").to_string();
            let (said, told) = text.split_once(')').unwrap();
            assert!(said.contains(sentence) && told.contains(remedy), "{text}");
            assert_eq!(told.is_empty(), remedy.is_empty(), "{text}");
        }
    }

    #[test]
    fn the_hubs_words_are_quoted_where_there_are_any() {
        let silent = HubRefusal::parse("h", 404, Some("DeviceNotFound"), "");
        let expected = "no such device (hub h: 404 DeviceNotFound); see iotdm-ctl device list";
        assert_eq!(silent.to_string(), expected);
        let expected = "no such device (hub h: 404 DeviceNotFound, \"gw1\"); see iotdm-ctl device list";
        assert_eq!(HubRefusal::parse("h", 404, None, CLASSIC).to_string(), expected);
    }

    #[test]
    fn a_module_that_is_not_there_is_told_from_a_device() {
        let body = r#"{"errorCode":404010,"message":"Module m is not there."}"#;
        let refusal = HubRefusal::parse("h", 404, None, body);
        assert_eq!(refusal.kind(), RefusalKind::NoSuchDevice);
        let text = refusal.to_string();
        assert!(text.starts_with("no such module (") && text.contains("device create --module"), "{text}");
        let again = HubRefusal::parse("h", 409, Some("ModuleAlreadyExistsOnDevice"), "");
        assert_eq!(again.kind(), RefusalKind::Exists);
    }

    #[test]
    fn names_the_hub_the_code_and_the_remedy_and_a_wrong_clock() {
        let mut refusal = HubRefusal::parse(
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
        assert!(refusal.to_string().contains("301 s behind the hub's"), "{refusal}");
        refusal.clock_ahead = Some(301);
        assert!(refusal.to_string().contains("301 s ahead of the hub's"), "{refusal}");
        // What is refused for another reason has nothing to do with the clock.
        refusal.status = 500;
        assert!(!refusal.to_string().contains("clock"), "{refusal}");
    }
}
