//! The MQTT topics of device twins, direct methods and telemetry, in both
//! directions: `Display` writes them, `parse` reads them.
//!
//! `$rid` names a request or a call: whoever answers repeats it unchanged. It
//! stands first after `?`. Source: "Communicate with an IoT hub using the MQTT
//! protocol" and captures of the official clients.

use std::fmt;

/// Subscription for replies to twin requests.
pub const TWIN_RESPONSES: &str = "$iothub/twin/res/#";
/// Subscription for changes of desired properties.
pub const DESIRED_PATCHES: &str = "$iothub/twin/PATCH/properties/desired/#";
/// Subscription for direct method calls.
pub const METHOD_CALLS: &str = "$iothub/methods/POST/#";

const TWIN_GET: &str = "$iothub/twin/GET/";
const TWIN_PATCH: &str = "$iothub/twin/PATCH/properties/reported/";
const TWIN_RESPONSE: &str = "$iothub/twin/res/";
const DESIRED_PATCH: &str = "$iothub/twin/PATCH/properties/desired/";
const METHOD_CALL: &str = "$iothub/methods/POST/";
const METHOD_RESPONSE: &str = "$iothub/methods/res/";

/// What a device publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceTopic {
    /// A request for the twin; the body is empty.
    TwinGet {
        /// Names the request in the response to it.
        rid: String,
    },
    /// A change of the reported properties; the body is a merge patch.
    ReportedPatch {
        /// Names the request in the response to it.
        rid: String,
        /// The version of the reported properties that the patch is made for; the
        /// hub refuses the patch at any other. `None` is for any version.
        version: Option<u64>,
    },
    /// The reply to a call of a direct method; the body is its payload.
    MethodResponse {
        /// The method's status, which is the device's to choose.
        status: i64,
        /// The `rid` of the call.
        rid: String,
    },
    /// A device-to-cloud message.
    Telemetry {
        /// The device that publishes the message.
        device_id: String,
        /// The message's properties, still encoded: `key=value&key=value`.
        bag: String,
    },
}

/// What the hub publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HubTopic {
    /// The response to a request about the twin; the body is the twin, or what
    /// is wrong.
    TwinResponse {
        /// 200 for a twin, 204 for a patch that was taken, 400 and more for an
        /// error.
        status: u16,
        /// The `rid` of the request.
        rid: String,
        /// With 204, the version of the reported properties that the patch led
        /// to.
        version: Option<u64>,
    },
    /// A change of the desired properties; the body is the patch.
    DesiredPatch {
        /// The version of the desired properties that the change led to.
        version: u64,
    },
    /// A call of a direct method; the body is its payload.
    MethodCall {
        /// The method.
        name: String,
        /// Names the call in the reply to it.
        rid: String,
    },
}

impl DeviceTopic {
    /// Reads a topic as the hub receives it; `None` for a topic that no device
    /// may publish to.
    pub fn parse(topic: &str) -> Option<Self> {
        if let Some(rest) = topic.strip_prefix(TWIN_GET) {
            let rid = query_value(rest, "$rid")?;
            return Some(DeviceTopic::TwinGet { rid });
        }
        if let Some(rest) = topic.strip_prefix(TWIN_PATCH) {
            let version = match query_value(rest, "$version") {
                Some(version) => Some(version.parse().ok()?),
                None => None,
            };
            return Some(DeviceTopic::ReportedPatch { rid: query_value(rest, "$rid")?, version });
        }
        if let Some(rest) = topic.strip_prefix(METHOD_RESPONSE) {
            let (status, query) = rest.split_once('/')?;
            return Some(DeviceTopic::MethodResponse {
                status: status.parse().ok()?,
                rid: query_value(query, "$rid")?,
            });
        }
        let (device_id, rest) = topic.strip_prefix("devices/")?.split_once('/')?;
        let bag = rest.strip_prefix("messages/events")?;
        let bag = if bag.is_empty() { bag } else { bag.strip_prefix('/')? };
        Some(DeviceTopic::Telemetry { device_id: device_id.to_owned(), bag: bag.to_owned() })
    }
}

impl fmt::Display for DeviceTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceTopic::TwinGet { rid } => write!(f, "{TWIN_GET}?$rid={rid}"),
            DeviceTopic::ReportedPatch { rid, version: None } => write!(f, "{TWIN_PATCH}?$rid={rid}"),
            DeviceTopic::ReportedPatch { rid, version: Some(version) } => {
                write!(f, "{TWIN_PATCH}?$rid={rid}&$version={version}")
            }
            DeviceTopic::MethodResponse { status, rid } => write!(f, "{METHOD_RESPONSE}{status}/?$rid={rid}"),
            DeviceTopic::Telemetry { device_id, bag } => {
                write!(f, "devices/{device_id}/messages/events/{bag}")
            }
        }
    }
}

impl HubTopic {
    /// Reads a topic as a device receives it; `None` for a topic that is not
    /// about twins or methods.
    pub fn parse(topic: &str) -> Option<Self> {
        if let Some(rest) = topic.strip_prefix(METHOD_CALL) {
            let (name, query) = rest.split_once('/')?;
            return Some(HubTopic::MethodCall { name: name.to_owned(), rid: query_value(query, "$rid")? });
        }
        if let Some(rest) = topic.strip_prefix(TWIN_RESPONSE) {
            let (status, query) = rest.split_once('/')?;
            return Some(HubTopic::TwinResponse {
                status: status.parse().ok()?,
                rid: query_value(query, "$rid")?,
                version: query_value(query, "$version").and_then(|version| version.parse().ok()),
            });
        }
        let version = query_value(topic.strip_prefix(DESIRED_PATCH)?, "$version")?;
        Some(HubTopic::DesiredPatch { version: version.parse().ok()? })
    }
}

impl fmt::Display for HubTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HubTopic::TwinResponse { status, rid, version: None } => {
                write!(f, "{TWIN_RESPONSE}{status}/?$rid={rid}")
            }
            HubTopic::TwinResponse { status, rid, version: Some(version) } => {
                write!(f, "{TWIN_RESPONSE}{status}/?$rid={rid}&$version={version}")
            }
            HubTopic::DesiredPatch { version } => write!(f, "{DESIRED_PATCH}?$version={version}"),
            HubTopic::MethodCall { name, rid } => write!(f, "{METHOD_CALL}{name}/?$rid={rid}"),
        }
    }
}

/// The value of `key` in `?key=value&key=value`.
fn query_value(query: &str, key: &str) -> Option<String> {
    let pairs = query.strip_prefix('?')?.split('&');
    let mut values = pairs.filter_map(|pair| pair.split_once('='));
    values.find(|(found, _)| *found == key).map(|(_, value)| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    // The spellings are those of captured official clients.
    #[test]
    fn device_topics_both_ways() {
        let rid = || "2b8cbdd4-aa2b-4d7e-a44c-5ab1d0a0a6a9".to_owned();
        for (text, topic) in [
            (
                "$iothub/twin/GET/?$rid=2b8cbdd4-aa2b-4d7e-a44c-5ab1d0a0a6a9",
                DeviceTopic::TwinGet { rid: rid() },
            ),
            (
                "$iothub/twin/PATCH/properties/reported/?$rid=2b8cbdd4-aa2b-4d7e-a44c-5ab1d0a0a6a9",
                DeviceTopic::ReportedPatch { rid: rid(), version: None },
            ),
            (
                "$iothub/twin/PATCH/properties/reported/?$rid=2b8cbdd4-aa2b-4d7e-a44c-5ab1d0a0a6a9&$version=7",
                DeviceTopic::ReportedPatch { rid: rid(), version: Some(7) },
            ),
            ("$iothub/methods/res/-1/?$rid=a", DeviceTopic::MethodResponse { status: -1, rid: "a".into() }),
            (
                "devices/gw1/messages/events/%24.mid=1&a=b",
                DeviceTopic::Telemetry { device_id: "gw1".into(), bag: "%24.mid=1&a=b".into() },
            ),
        ] {
            assert_eq!(DeviceTopic::parse(text).as_ref(), Some(&topic));
            assert_eq!(topic.to_string(), text);
        }
        assert!(DeviceTopic::parse("devices/gw1/messages/events").is_some());
    }

    #[test]
    fn hub_topics_both_ways() {
        for (text, topic) in [
            (
                "$iothub/twin/res/200/?$rid=1",
                HubTopic::TwinResponse { status: 200, rid: "1".into(), version: None },
            ),
            (
                "$iothub/twin/res/204/?$rid=1&$version=6",
                HubTopic::TwinResponse { status: 204, rid: "1".into(), version: Some(6) },
            ),
            ("$iothub/twin/PATCH/properties/desired/?$version=3", HubTopic::DesiredPatch { version: 3 }),
            (
                "$iothub/methods/POST/rebootDevice/?$rid=1f",
                HubTopic::MethodCall { name: "rebootDevice".into(), rid: "1f".into() },
            ),
        ] {
            assert_eq!(HubTopic::parse(text).as_ref(), Some(&topic));
            assert_eq!(topic.to_string(), text);
        }
    }

    #[test]
    fn anything_else_is_nobodys_topic() {
        for text in [
            "",
            "foo",
            "$iothub/twin/GET/",
            "$iothub/twin/GET/?rid=1",
            "$iothub/twin/PATCH/properties/reported/?$rid=1&$version=x",
            "$iothub/methods/res/ok/?$rid=1",
            "$iothub/methods/res/200",
            "devices/gw1/messages/eventsx",
            "devices/gw1/messages/devicebound/",
        ] {
            assert_eq!(DeviceTopic::parse(text), None, "{text}");
            assert_eq!(HubTopic::parse(text), None, "{text}");
        }
    }
}
