//! Names that appear in connection strings, topics and URLs, checked once.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A DNS name or an IPv4 address, without a port: at most 253 characters, in
/// labels of 1 to 63 ASCII letters, digits, `-` and `_`, separated by dots.
///
/// Source: RFC 1035, section 2.3.4, for the lengths. The underscore is no part of
/// a host name by RFC 952, but is found in the names of containers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostName(String);

/// A host and, where one was written, the port that the host is reached on:
/// `HOST` or `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The host.
    pub host: HostName,
    /// The port, 1 to 65535, if it is not the protocol's own.
    pub port: Option<u16>,
}

/// A device's identity in the hub: case-sensitive, 1 to 128 characters of
/// ASCII letters, digits and ``- : . + % _ # * ? ! ( ) , = @ ; $ '``.
///
/// Source: the models of `azure-iot-hub` 2.7.0.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceId(String);

/// The identity of a module within its device, in the alphabet of a [`DeviceId`].
///
/// Source: the models of `azure-iot-hub` 2.7.0.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModuleId(String);

/// A text that is no such name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is not a [`HostName`].
    #[error("{0:?} is not a host name")]
    Host(String),
    /// The part after the colon is not a port from 1 to 65535.
    #[error("{0:?} does not end in a port from 1 to 65535")]
    Port(String),
    /// The text is not a [`DeviceId`].
    #[error(
        "{0:?} is not a device id: 1 to 128 characters of letters, digits and - : . + % _ # * ? ! ( ) , = @ ; $ '"
    )]
    Device(String),
    /// The text is not a [`ModuleId`].
    #[error(
        "{0:?} is not a module id: 1 to 128 characters of letters, digits and - : . + % _ # * ? ! ( ) , = @ ; $ '"
    )]
    Module(String),
}

impl HostName {
    /// The name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Endpoint {
    /// The port, or `default` when none was written.
    pub fn port_or(&self, default: u16) -> u16 {
        self.port.unwrap_or(default)
    }
}

impl DeviceId {
    /// The id as written, never percent-encoded.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ModuleId {
    /// The id as written, never percent-encoded.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether `text` is in the alphabet of ids, and not too long for one.
fn is_id(text: &str) -> bool {
    let char_ok = |b: u8| b.is_ascii_alphanumeric() || b"-:.+%_#*?!(),=@;$'".contains(&b);
    (1..=128).contains(&text.len()) && text.bytes().all(char_ok)
}

impl FromStr for HostName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let label_ok = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if text.len() <= 253 && text.split('.').all(label_ok) {
            Ok(HostName(text.to_owned()))
        } else {
            Err(NameError::Host(text.to_owned()))
        }
    }
}

impl FromStr for Endpoint {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let Some((host, port)) = text.split_once(':') else {
            return Ok(Endpoint { host: text.parse()?, port: None });
        };
        match port.parse() {
            Ok(port) if port > 0 => Ok(Endpoint { host: host.parse()?, port: Some(port) }),
            _ => Err(NameError::Port(text.to_owned())),
        }
    }
}

impl FromStr for DeviceId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if is_id(text) { Ok(DeviceId(text.to_owned())) } else { Err(NameError::Device(text.to_owned())) }
    }
}

impl FromStr for ModuleId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if is_id(text) { Ok(ModuleId(text.to_owned())) } else { Err(NameError::Module(text.to_owned())) }
    }
}

impl TryFrom<String> for DeviceId {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl TryFrom<String> for ModuleId {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<ModuleId> for String {
    fn from(id: ModuleId) -> String {
        id.0
    }
}

impl From<DeviceId> for String {
    fn from(id: DeviceId) -> String {
        id.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => write!(f, "{}", self.host),
        }
    }
}

impl fmt::Display for ModuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_with_and_without_a_port() {
        let plain: Endpoint = "myhub.azure-devices.net".parse().unwrap();
        assert_eq!(plain.port_or(443), 443);
        let with_port: Endpoint = "localhost:8443".parse().unwrap();
        assert_eq!(with_port.port_or(443), 8443);
        assert_eq!(with_port.to_string(), "localhost:8443");
    }

    #[test]
    fn bad_hosts_are_named() {
        for bad in ["", "my hub", "a..b", "https://x", "a/b", "host:", "host:0", "host:65536", ":8443"] {
            let error = bad.parse::<Endpoint>().unwrap_err().to_string();
            let host = bad.split(':').next().unwrap();
            assert!(error.contains(bad) || error.contains(host), "{bad}: {error}");
        }
    }

    #[test]
    fn ids() {
        let longest = "x".repeat(128);
        for good in ["gw1", "a:b.c+d%e", "it's", "$#*?!(),=@;", longest.as_str()] {
            assert!(good.parse::<DeviceId>().is_ok(), "{good}");
        }
        let too_long = "x".repeat(129);
        for bad in ["", "a b", "a/b", "ü", too_long.as_str()] {
            assert!(bad.parse::<DeviceId>().is_err(), "{bad}");
            assert!(bad.parse::<ModuleId>().unwrap_err().to_string().contains("is not a module id"), "{bad}");
        }
        assert_eq!("$edgeHub".parse::<ModuleId>().unwrap().as_str(), "$edgeHub");
    }
}
