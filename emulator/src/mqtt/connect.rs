//! CONNECT: who the client says it is, and whether that is so.
//!
//! User names are `{host}/{device}/?api-version=…[&model-id=…]`, also seen
//! without the query. Every refusal is CONNACK 5: the C SDK's documentation
//! says so, and clients tell nothing else apart; which code the real hub sends
//! for a disabled device is unverified.

use iotdm_proto::DeviceId;
use iotdm_proto::sas::SasToken;
use percent_encoding::percent_decode_str;
use rumqttc::mqttbytes::Protocol;
use rumqttc::mqttbytes::v4::{Connect, ConnectReturnCode};

use crate::hub::Hub;
use crate::links::Link;

/// An accepted CONNECT.
#[derive(Debug)]
pub struct Accepted {
    /// The new link.
    pub link: Link,
    /// Whether a stored session goes on.
    pub session_present: bool,
    /// When the token ends, in seconds since the Unix epoch.
    pub expiry: u64,
}

/// A refused CONNECT.
#[derive(Debug)]
pub struct Refusal {
    /// For the client.
    pub code: ConnectReturnCode,
    /// For the log.
    pub why: String,
}

/// Checks a CONNECT and registers the connection.
pub fn accept(hub: &Hub, connect: &Connect) -> Result<Accepted, Refusal> {
    if connect.protocol != Protocol::V4 {
        let why = "only MQTT 3.1.1 is spoken".to_owned();
        return Err(Refusal { code: ConnectReturnCode::RefusedProtocolVersion, why });
    }
    let login = connect.login.as_ref().ok_or_else(|| refuse("no user name and password"))?;
    let name = UserName::parse(&login.username)
        .ok_or_else(|| refuse(format!("the user name {:?} is not {{host}}/{{device}}/?…", login.username)))?;
    if !hub.is_called(name.host) {
        return Err(refuse(format!("{:?} in the user name is not this hub", name.host)));
    }
    if name.id != connect.client_id {
        return Err(refuse(format!("the client id {:?} is not the user name's device", connect.client_id)));
    }
    let id: DeviceId = name.id.parse().map_err(|error| refuse(format!("{error}")))?;
    if !id.fits_mqtt() {
        return Err(refuse(format!("the device id {id} cannot be part of MQTT topics")));
    }
    if let Some(code) = hub.faults.refused(&id) {
        return Err(Refusal { code: return_code(code), why: "a fault refuses it".to_owned() });
    }
    let token: SasToken = login.password.parse().map_err(|error| refuse(format!("{error}")))?;
    let (link, session_present) = hub
        .connect(&id, &token, connect.clean_session, name.model_id)
        .map_err(|error| refuse(error.to_string()))?;
    Ok(Accepted { link, session_present, expiry: token.expiry() })
}

fn refuse(why: impl Into<String>) -> Refusal {
    Refusal { code: ConnectReturnCode::NotAuthorized, why: why.into() }
}

fn return_code(code: u8) -> ConnectReturnCode {
    match code {
        1 => ConnectReturnCode::RefusedProtocolVersion,
        2 => ConnectReturnCode::BadClientId,
        3 => ConnectReturnCode::ServiceUnavailable,
        4 => ConnectReturnCode::BadUserNamePassword,
        _ => ConnectReturnCode::NotAuthorized,
    }
}

#[derive(Debug, PartialEq)]
struct UserName<'a> {
    host: &'a str,
    id: &'a str,
    model_id: Option<String>,
}

impl<'a> UserName<'a> {
    /// A device's user name; `None` for anything else, a module's included.
    fn parse(text: &'a str) -> Option<Self> {
        let (host, rest) = text.split_once('/')?;
        // Neither hosts nor device ids have a slash, but ids may have a '?'.
        let (id, query) = match rest.split_once('/') {
            Some((id, query)) => (id, query.strip_prefix('?').or(query.is_empty().then_some(""))?),
            None => (rest, ""),
        };
        let model_id = query.split('&').find_map(|pair| pair.strip_prefix("model-id="));
        let decode = |value| percent_decode_str(value).decode_utf8_lossy().into_owned();
        Some(UserName { host, id, model_id: model_id.map(decode) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_names_of_the_official_clients() {
        let name = |host, id, model_id: Option<&str>| {
            Some(UserName { host, id, model_id: model_id.map(str::to_owned) })
        };
        for (text, parsed) in [
            ("localhost/gw1", name("localhost", "gw1", None)),
            ("localhost/gw1/", name("localhost", "gw1", None)),
            (
                "h.azure-devices.net/gw1/?api-version=2021-04-12&DeviceClientType=py%2F2",
                name("h.azure-devices.net", "gw1", None),
            ),
            (
                "h/a?b/?model-id=dtmi%3Acom%3Aexample%3B1&api-version=2020-09-30&DeviceClientType=None",
                name("h", "a?b", Some("dtmi:com:example;1")),
            ),
            ("h/gw1/module/?api-version=2021-04-12", None),
            ("h", None),
        ] {
            assert_eq!(UserName::parse(text), parsed, "{text}");
        }
    }
}
