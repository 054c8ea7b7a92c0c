//! CONNECT: who the client says it is, and whether that is true.
//!
//! User names are `{host}/{client id}/?api-version=…[&model-id=…]`, also seen
//! without the query and without the question mark; the client id is `{device}` or `{device}/{module}`. The
//! password is a token, and absent where a certificate takes its place.
//!
//! Every refusal is CONNACK 5, except that throttling is 3. Source: the C SDK's
//! documentation; clients tell no other codes apart. Which code the real hub
//! sends for a disabled device is unverified, and so is what the real hub makes
//! of a Will with another topic than telemetry's.

use percent_encoding::percent_decode_str;
use rumqttc::mqttbytes::v4::{Connect, ConnectReturnCode};

use super::will::Will;
use crate::certificates::ClientCertificate;
use crate::hub::Hub;
use crate::link::Link;
use crate::proof::Proof;
use crate::refusal::ErrorCode;
use crate::throttle::Operation;
use iotdm_proto::Identity;

/// What an accepted CONNECT opens.
#[derive(Debug)]
pub struct Accepted {
    /// The link of the new session.
    pub link: Link,
    /// Whether a stored session goes on, as CONNACK tells the client.
    pub session_present: bool,
    /// When the token ends, in seconds since the Unix epoch; `None` for a
    /// certificate.
    pub expiry: Option<u64>,
    /// The message to send when the connection ends without DISCONNECT.
    pub will: Option<Will>,
}

/// The hub says no to a CONNECT.
#[derive(Debug)]
pub struct ConnectRefusal {
    /// The return code in the CONNACK.
    pub code: ConnectReturnCode,
    /// What is wrong, for the log alone: MQTT 3.1.1 cannot tell the client.
    pub why: String,
}

/// Checks a CONNECT and, if nothing is wrong with it, attaches a link to the
/// hub. `certificate` is what the client showed in the TLS handshake.
pub async fn accept(
    hub: &Hub,
    connect: &Connect,
    certificate: Option<&ClientCertificate>,
) -> Result<Accepted, ConnectRefusal> {
    let login = connect.login.as_ref().ok_or_else(|| refuse("no user name"))?;
    let name = UserName::parse(&login.username, &connect.client_id).ok_or_else(|| {
        let (name, id) = (&login.username, &connect.client_id);
        refuse(format!("the user name {name:?} is not {{host}}/{id}/?…, as the client id has it"))
    })?;
    if !hub.address.is(name.host) {
        return Err(refuse(format!("{:?} in the user name is not this hub", name.host)));
    }
    let id: Identity = connect.client_id.parse().map_err(|error| refuse(format!("{error}")))?;
    if !id.fits_mqtt() {
        return Err(refuse(format!("the id {id} cannot be part of MQTT topics")));
    }
    let will = connect.last_will.as_ref().map(|will| {
        let why = || format!("the Will's topic {:?} is not that of the client's telemetry", will.topic);
        Will::new(&id, will).ok_or_else(|| refuse(why()))
    });
    let will = will.transpose()?;
    let proof = match certificate {
        Some(certificate) if login.password.is_empty() => Proof::Certificate(certificate.clone()),
        _ => Proof::Token(login.password.parse().map_err(|error| refuse(format!("{error}")))?),
    };
    // Only a client that has proved who it is can use up a fault or an allowance.
    let mut fault = None;
    let admit = || {
        fault = hub.faults.refused(&id);
        match fault {
            Some(_) => Err(ErrorCode::IotHubUnauthorized.because("a fault refuses it")),
            None => hub.throttle.take(Operation::Connection),
        }
    };
    let connected = hub.connect(&id, &proof, connect.clean_session, name.model_id, admit).await;
    let (link, session_present) = connected.map_err(|refusal| {
        let code = match (fault, refusal.code) {
            (Some(code), _) => return_code(code),
            (None, ErrorCode::ThrottlingException) => ConnectReturnCode::ServiceUnavailable,
            (None, _) => ConnectReturnCode::NotAuthorized,
        };
        ConnectRefusal { code, why: refusal.to_string() }
    })?;
    Ok(Accepted { link, session_present, expiry: proof.expiry(), will })
}

/// A refusal by the code that the hub uses for all that clients may not do.
fn refuse(why: impl Into<String>) -> ConnectRefusal {
    ConnectRefusal { code: ConnectReturnCode::NotAuthorized, why: why.into() }
}

/// The return code of MQTT 3.1.1 with this number.
fn return_code(code: u8) -> ConnectReturnCode {
    match code {
        1 => ConnectReturnCode::RefusedProtocolVersion,
        2 => ConnectReturnCode::BadClientId,
        3 => ConnectReturnCode::ServiceUnavailable,
        4 => ConnectReturnCode::BadUserNamePassword,
        _ => ConnectReturnCode::NotAuthorized,
    }
}

/// The parts of a user name that mean something here.
#[derive(Debug, PartialEq)]
struct UserName<'a> {
    host: &'a str,
    model_id: Option<String>,
}

impl<'a> UserName<'a> {
    /// Reads the user name of the client `client_id`; `None` when the
    /// name is another client's, or not in the form that the head of this file
    /// describes.
    fn parse(text: &'a str, client_id: &str) -> Option<Self> {
        // A client id may contain a slash, but a host never does.
        let (host, rest) = text.split_once('/')?;
        let query = match rest.strip_prefix(client_id)? {
            "" | "/" => "",
            // Some clients leave the question mark out.
            rest => {
                let query = rest.strip_prefix('/')?;
                query.strip_prefix('?').or_else(|| query.starts_with("api-version=").then_some(query))?
            }
        };
        let model_id = query.split('&').find_map(|pair| pair.strip_prefix("model-id="));
        let decode = |value| percent_decode_str(value).decode_utf8_lossy().into_owned();
        Some(UserName { host, model_id: model_id.map(decode) })
    }
}

#[cfg(test)]
mod tests {
    use iotdm_proto::{DeviceAuth, DeviceConnectionString, SecretKey, sas};

    use super::*;
    use crate::address::Address;
    use crate::certificates::Authorities;
    use crate::clock::now;
    use crate::data_dir::DataDir;
    use crate::device::IdentityChange;
    use crate::faults::{Fault, FaultKind};
    use crate::store::Store;
    use crate::throttle::{Throttle, Tier};
    use crate::twin::TwinChange;

    #[test]
    fn user_names_of_the_official_clients() {
        let name =
            |host, model_id: Option<&str>| Some(UserName { host, model_id: model_id.map(str::to_owned) });
        for (text, id, parsed) in [
            ("localhost/gw1", "gw1", name("localhost", None)),
            ("localhost/gw1/", "gw1", name("localhost", None)),
            (
                "h.azure-devices.net/gw1/?api-version=2021-04-12&DeviceClientType=py%2F2",
                "gw1",
                name("h.azure-devices.net", None),
            ),
            (
                "h/a?b/?model-id=dtmi%3Acom%3Aexample%3B1&api-version=2020-09-30&DeviceClientType=None",
                "a?b",
                name("h", Some("dtmi:com:example;1")),
            ),
            ("h/gw1/m/?api-version=2021-04-12", "gw1/m", name("h", None)),
            ("h/gw1/api-version=2021-04-12&model-id=dtmi%3Aa%3B1", "gw1", name("h", Some("dtmi:a;1"))),
            ("h/gw1/m/api-version=2018-06-30", "gw1/m", name("h", None)),
            ("h/gw1/m/api-version=2018-06-30", "gw1", None),
            ("h/gw1/m/?api-version=2021-04-12", "gw1", None),
            ("h/gw1/?api-version=2021-04-12", "gw1/m", None),
            ("h/gw1/?api-version=2021-04-12", "gw", None),
            ("h/gw1/?api-version=2021-04-12", "gw2", None),
            ("h", "h", None),
        ] {
            assert_eq!(UserName::parse(text, id), parsed, "{text}");
        }
    }

    /// A CONNECT of `gw1` with this password.
    fn hello(password: &str) -> Connect {
        let mut connect = Connect::new("gw1");
        connect.set_login("localhost/gw1/?api-version=2021-04-12", password);
        connect.clean_session = false;
        connect
    }

    #[tokio::test]
    async fn whoever_has_not_proved_who_it_is_uses_up_no_allowance_and_no_fault() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(&dir.path().join("hub")).unwrap();
        let store = Store::open(&data.store()).unwrap();
        let address = Address { host: "localhost".into(), others: vec![], mqtt_port: 8883, https_port: 8443 };
        let throttle = Throttle::new(Some(Tier::F1));
        let hub = Hub::open(store, data.clone(), address, Authorities::default(), throttle).unwrap();
        let id: Identity = "gw1".parse().unwrap();
        hub.create_device(&id, IdentityChange::default(), &TwinChange::default()).await.unwrap();
        let text = std::fs::read_to_string(data.device(&id)).unwrap();
        let DeviceAuth::Key(key) = text.parse::<DeviceConnectionString>().unwrap().auth else {
            panic!("no key in {text}")
        };
        let code = async |connect: &Connect| match accept(&hub, connect, None).await {
            Ok(_) => ConnectReturnCode::Success,
            Err(refusal) => refusal.code,
        };

        let fault = Fault::new(FaultKind::RefuseConnect, 1);
        hub.faults.add(Some(id), fault);
        let sign =
            |key: &SecretKey| sas::sign("localhost/devices/gw1", key, now().unix_seconds() + 600, None);
        let forged = hello(&sign(&SecretKey::from_bytes(vec![1; 32])));
        // More than the tier allows in a second, in far less.
        for _ in 0..1000 {
            assert_eq!(code(&forged).await, ConnectReturnCode::NotAuthorized);
        }
        assert_eq!(hub.faults.list().len(), 1);
        hub.faults.clear(None);
        let mut codes = Vec::new();
        while codes.last() != Some(&ConnectReturnCode::ServiceUnavailable) && codes.len() < 100_000 {
            codes.push(code(&hello(&sign(&key))).await);
        }
        let accepted = codes.iter().filter(|code| **code == ConnectReturnCode::Success).count();
        assert_eq!(accepted + 1, codes.len(), "accepted until throttled");
        assert!(accepted >= 100, "the whole allowance was left, {accepted}");
    }
}
