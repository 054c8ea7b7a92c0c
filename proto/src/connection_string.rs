//! Connection strings as the Azure portal shows them: `Key=Value;Key=Value`.
//!
//! Keys are exact in case. A trailing `;` and white space around the string
//! (a file's last newline) are tolerated; unknown and repeated keys are errors,
//! since a mistyped key would otherwise silently change what is connected to.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::identity::Identity;
use crate::key::{KeyError, SecretKey};
use crate::names::{Endpoint, NameError};

/// Where a device, or a module of one, connects and as whom.
#[derive(Debug, Clone)]
pub struct DeviceConnectionString {
    /// `HostName=`: the hub, as it stands in user names and SAS resources.
    pub host_name: Endpoint,
    /// `DeviceId=`: the device; with `ModuleId=`, that module of the device.
    pub id: Identity,
    /// `GatewayHostName=`, if given: the host that is connected to instead of
    /// the hub. Only TCP and TLS use this name; user names and SAS resources keep
    /// the hub's.
    pub gateway: Option<Endpoint>,
    /// The one of three keys by which the device proves who it is.
    pub auth: DeviceAuth,
}

/// How a device proves who it is.
#[derive(Clone)]
pub enum DeviceAuth {
    /// `SharedAccessKey=`: a key that tokens are signed with.
    Key(SecretKey),
    /// `SharedAccessSignature=`: a ready-made token.
    Token(String),
    /// `x509=true`: a certificate, which the string does not hold.
    X509,
}

/// Where an operator's tool connects and by which policy.
#[derive(Debug, Clone)]
pub struct ServiceConnectionString {
    /// `HostName=`: the hub. A port is that of the REST interface.
    pub host_name: Endpoint,
    /// `SharedAccessKeyName=`: the shared access policy, such as `iothubowner`.
    pub policy: String,
    /// `SharedAccessKey=`: the policy's key.
    pub key: SecretKey,
}

/// What is wrong with a connection string. No message repeats a value that
/// may be secret.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionStringError {
    /// The string is nothing but white space.
    #[error("the connection string is empty")]
    Empty,
    /// A byte order mark before the string.
    #[error(
        "a byte order mark stands before the connection string, as some editors write it: save the text as UTF-8 \
         without one"
    )]
    ByteOrderMark,
    /// Quotes around the string.
    #[error("quotes stand around the connection string: leave them out")]
    Quotes,
    /// A part without `=`; parts are counted from 1.
    #[error("part {0} of the connection string has no '='; expected Key=Value;Key=Value")]
    NotAPair(usize),
    /// A part, counted from 1, whose key no connection string has. The key is
    /// not repeated in the message: it may be a secret that was put in place of
    /// the whole string.
    #[error("part {0} of the connection string has an unknown key; the keys are {keys}", keys = KEYS.join(", "))]
    UnknownKey(usize),
    /// A key that only a device's connection string has.
    #[error("a service connection string has no {0}")]
    NotForService(&'static str),
    /// A key given twice.
    #[error("the connection string gives {0} twice")]
    Duplicate(&'static str),
    /// A key that has to be there and is not.
    #[error("the connection string lacks {0}")]
    Missing(&'static str),
    /// A device string where a service string belongs.
    #[error(
        "this is a device's connection string (it has DeviceId); expected a service one with SharedAccessKeyName"
    )]
    IsDevice,
    /// A service string where a device string belongs.
    #[error(
        "this is a service connection string (it has SharedAccessKeyName); expected a device's one with DeviceId"
    )]
    IsService,
    /// None, or more than one, of the three ways to authenticate.
    #[error("give exactly one of SharedAccessKey, SharedAccessSignature and x509=true")]
    Auth,
    /// `x509=` with anything but `true`.
    #[error("x509 must be true where it is given")]
    X509,
    /// A host name or a device id that cannot be one.
    // Neither this nor the next has a source: their messages say it, and a chain of
    // errors would say it again.
    #[error("{key}: {why}")]
    Name {
        /// The key.
        key: &'static str,
        /// What is wrong with the key's value.
        why: NameError,
    },
    /// The value of `SharedAccessKey` is not a key.
    #[error("SharedAccessKey: {0}")]
    Key(KeyError),
}

use ConnectionStringError as Error;

const HOST_NAME: &str = "HostName";
const DEVICE_ID: &str = "DeviceId";
const MODULE_ID: &str = "ModuleId";
const GATEWAY: &str = "GatewayHostName";
const POLICY: &str = "SharedAccessKeyName";
const KEY: &str = "SharedAccessKey";
const SIGNATURE: &str = "SharedAccessSignature";
const X509: &str = "x509";
const KEYS: [&str; 8] = [HOST_NAME, DEVICE_ID, MODULE_ID, GATEWAY, POLICY, KEY, SIGNATURE, X509];

/// The quotes of shells, JSON and word processors. No key begins with one.
const QUOTES: [char; 6] = ['"', '\'', '`', '“', '„', '‘'];

type Parts<'a> = BTreeMap<&'static str, &'a str>;

impl From<KeyError> for Error {
    fn from(why: KeyError) -> Self {
        Error::Key(why)
    }
}

impl FromStr for DeviceConnectionString {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parts = split(text)?;
        if parts.contains_key(POLICY) {
            return Err(Error::IsService);
        }
        let auth = match (parts.get(KEY), parts.get(SIGNATURE), parts.get(X509)) {
            (Some(key), None, None) => DeviceAuth::Key(key.parse()?),
            (None, Some(token), None) => DeviceAuth::Token((*token).to_owned()),
            (None, None, Some(&"true")) => DeviceAuth::X509,
            (None, None, Some(_)) => return Err(Error::X509),
            _ => return Err(Error::Auth),
        };
        Ok(DeviceConnectionString {
            host_name: name(&parts, HOST_NAME)?,
            id: Identity { device: name(&parts, DEVICE_ID)?, module: optional(&parts, MODULE_ID)? },
            gateway: optional(&parts, GATEWAY)?,
            auth,
        })
    }
}

impl FromStr for ServiceConnectionString {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parts = split(text)?;
        if parts.contains_key(DEVICE_ID) {
            return Err(Error::IsDevice);
        }
        for extra in [GATEWAY, SIGNATURE, X509, MODULE_ID] {
            if parts.contains_key(extra) {
                return Err(Error::NotForService(extra));
            }
        }
        Ok(ServiceConnectionString {
            host_name: name(&parts, HOST_NAME)?,
            policy: (*parts.get(POLICY).ok_or(Error::Missing(POLICY))?).to_owned(),
            key: parts.get(KEY).ok_or(Error::Missing(KEY))?.parse()?,
        })
    }
}

impl fmt::Debug for DeviceAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DeviceAuth::Key(_) => "Key(…)",
            DeviceAuth::Token(_) => "Token(…)",
            DeviceAuth::X509 => "X509",
        })
    }
}

/// The parts of a connection string: split on `;`, and each on its first `=`, so
/// that the padding of base64 stays in the value.
fn split(text: &str) -> Result<Parts<'_>, Error> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Error::Empty);
    }
    if text.starts_with('\u{feff}') {
        return Err(Error::ByteOrderMark);
    }
    if text.starts_with(QUOTES) {
        return Err(Error::Quotes);
    }
    let mut parts = Parts::new();
    for (index, part) in text.trim_end_matches(';').split(';').enumerate() {
        let (key, value) = part.split_once('=').ok_or(Error::NotAPair(index + 1))?;
        let known = KEYS.iter().find(|known| **known == key);
        let key = known.ok_or(Error::UnknownKey(index + 1))?;
        if parts.insert(key, value).is_some() {
            return Err(Error::Duplicate(key));
        }
    }
    Ok(parts)
}

fn name<T: FromStr<Err = NameError>>(parts: &Parts<'_>, key: &'static str) -> Result<T, Error> {
    let value = parts.get(key).ok_or(Error::Missing(key))?;
    value.parse().map_err(|why| Error::Name { key, why })
}

fn optional<T: FromStr<Err = NameError>>(parts: &Parts<'_>, key: &'static str) -> Result<Option<T>, Error> {
    parts.contains_key(key).then(|| name(parts, key)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: &str = "HostName=myhub.azure-devices.net;DeviceId=gw1;SharedAccessKey=c2VjcmV0a2V5PQ==";

    fn device(text: &str) -> Result<DeviceConnectionString, Error> {
        text.parse()
    }

    fn service(text: &str) -> Result<ServiceConnectionString, Error> {
        text.parse()
    }

    #[test]
    fn a_device_string_with_padding_trailing_semicolon_and_newline() {
        let parsed = device(&format!("{DEVICE};\n")).unwrap();
        assert_eq!(parsed.host_name.to_string(), "myhub.azure-devices.net");
        assert_eq!(parsed.id.to_string(), "gw1");
        assert_eq!(parsed.gateway, None);
        let DeviceAuth::Key(key) = parsed.auth else { panic!("not a key") };
        assert_eq!(key.expose(), b"secretkey=");
    }

    #[test]
    fn a_modules_string_names_the_module_of_the_device() {
        let text = DEVICE.replace("DeviceId=gw1", "DeviceId=gw1;ModuleId=iotdm");
        let parsed = device(&format!("{text};GatewayHostName=edge.example")).unwrap();
        assert_eq!(parsed.id.to_string(), "gw1/iotdm");
        assert_eq!(parsed.gateway.unwrap().to_string(), "edge.example");
        let error = device(&text.replace("iotdm", "a/b")).unwrap_err().to_string();
        assert!(error.starts_with("ModuleId: \"a/b\" is not a module id: "), "{error}");
        // Without the device, a module is nobody.
        let error = device(&text.replace("DeviceId=gw1;", "")).unwrap_err();
        assert_eq!(error, Error::Missing("DeviceId"));
        assert!(matches!(
            device("HostName=h;DeviceId=d;ModuleId=m;x509=true").unwrap().auth,
            DeviceAuth::X509
        ));
    }

    #[test]
    fn a_gateway_changes_only_the_target() {
        let parsed = device(&format!("{DEVICE};GatewayHostName=localhost:18883")).unwrap();
        assert_eq!(parsed.host_name.to_string(), "myhub.azure-devices.net");
        assert_eq!(parsed.gateway.unwrap().to_string(), "localhost:18883");
    }

    #[test]
    fn the_other_ways_to_authenticate() {
        let x509 = device("HostName=h;DeviceId=d;x509=true").unwrap();
        assert!(matches!(x509.auth, DeviceAuth::X509));
        let token =
            device("HostName=h;DeviceId=d;SharedAccessSignature=SharedAccessSignature sr=h&sig=x%3D&se=1");
        let DeviceAuth::Token(token) = token.unwrap().auth else { panic!("not a token") };
        assert_eq!(token, "SharedAccessSignature sr=h&sig=x%3D&se=1");
    }

    #[test]
    fn a_service_string_with_a_port() {
        let parsed =
            service("HostName=localhost:8443;SharedAccessKeyName=iothubowner;SharedAccessKey=c2VjcmV0");
        let parsed = parsed.unwrap();
        assert_eq!(parsed.host_name.port_or(443), 8443);
        assert_eq!(parsed.policy, "iothubowner");
    }

    #[test]
    fn each_mistake_has_its_error() {
        let cases: [(&str, Error); 16] = [
            (" \n", Error::Empty),
            ("\u{feff}HostName=h;DeviceId=d;SharedAccessKey=c2VjcmV0", Error::ByteOrderMark),
            ("\"HostName=h;DeviceId=d;SharedAccessKey=c2VjcmV0\"\n", Error::Quotes),
            ("'HostName=h;DeviceId=d;SharedAccessKey=c2VjcmV0'", Error::Quotes),
            ("“HostName=h;DeviceId=d;SharedAccessKey=c2VjcmV0”", Error::Quotes),
            ("HostName=h;;DeviceId=d", Error::NotAPair(2)),
            ("DeviceId=d;hostname=h", Error::UnknownKey(2)),
            ("HostName=h;HostName=h", Error::Duplicate("HostName")),
            ("HostName=h;SharedAccessKey=c2VjcmV0", Error::Missing("DeviceId")),
            ("DeviceId=d;SharedAccessKey=c2VjcmV0", Error::Missing("HostName")),
            ("HostName=h;DeviceId=d", Error::Auth),
            ("HostName=h;DeviceId=d;x509=yes", Error::X509),
            ("HostName=h;DeviceId=d;x509=true;SharedAccessKey=c2VjcmV0", Error::Auth),
            ("HostName=h;DeviceId=d;SharedAccessKey=?", Error::Key(KeyError::NotBase64)),
            ("HostName=h;ModuleId=m;SharedAccessKey=c2VjcmV0", Error::Missing("DeviceId")),
            ("HostName=h;SharedAccessKeyName=p;SharedAccessKey=c2VjcmV0", Error::IsService),
        ];
        for (text, expected) in cases {
            assert_eq!(device(text).unwrap_err(), expected, "{text}");
        }
        assert_eq!(service(DEVICE).unwrap_err(), Error::IsDevice);
        let policy = "HostName=h;SharedAccessKeyName=p";
        assert_eq!(service(policy).unwrap_err(), Error::Missing("SharedAccessKey"));
        let nobody = service("HostName=h;SharedAccessKey=c2VjcmV0").unwrap_err();
        assert_eq!(nobody, Error::Missing("SharedAccessKeyName"));
        let gateway = "HostName=h;SharedAccessKeyName=p;SharedAccessKey=c2VjcmV0;GatewayHostName=g";
        assert_eq!(service(gateway).unwrap_err(), Error::NotForService("GatewayHostName"));
    }

    #[test]
    fn neither_debug_nor_errors_show_a_secret() {
        let secrets = ["c2VjcmV0a2V5PQ==", "secretkey"];
        let shown = format!("{:?}", device(DEVICE).unwrap());
        let error = device(&DEVICE.replace("==", "=!")).unwrap_err().to_string();
        // A key pasted in place of the string, and one with the wrong separator.
        for text in ["c2VjcmV0a2V5PQ==", "HostName=h;SharedAccessKey:c2VjcmV0a2V5PQ=="] {
            let error = device(text).unwrap_err().to_string();
            assert!(!error.contains("c2Vj") && error.contains("SharedAccessKey"), "{error}");
        }
        for secret in secrets {
            assert!(!shown.contains(secret), "{shown}");
            assert!(!error.contains(secret), "{error}");
        }
    }
}
