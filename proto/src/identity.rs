//! Who can connect: a device, or a module of one.

use std::fmt;
use std::str::FromStr;

use crate::names::{DeviceId, ModuleId, NameError};

/// A device or a module of one. They are ordered by device; each device stands
/// before its modules.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// The device.
    pub device: DeviceId,
    /// The module, unless the device itself is meant.
    pub module: Option<ModuleId>,
}

impl Identity {
    /// The device itself: of a module, the device that it is a module of.
    pub fn of_device(&self) -> Identity {
        self.device.clone().into()
    }

    /// Whether the identity can be part of MQTT topics. One with `#` or `+`, which are
    /// wildcards there, cannot connect over MQTT.
    pub fn fits_mqtt(&self) -> bool {
        let module = self.module.as_ref().map_or("", ModuleId::as_str);
        ![self.device.as_str(), module].iter().any(|id| id.contains(['#', '+']))
    }

    /// The identity's part of topics and SAS resources, never percent-encoded.
    pub fn path(&self) -> String {
        match &self.module {
            None => format!("devices/{}", self.device),
            Some(module) => format!("devices/{}/modules/{module}", self.device),
        }
    }
}

impl From<DeviceId> for Identity {
    fn from(device: DeviceId) -> Self {
        Identity { device, module: None }
    }
}

impl FromStr for Identity {
    type Err = NameError;

    /// Reads `device` or `device/module`, which is also the MQTT client id.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let (device, module) = match text.split_once('/') {
            Some((device, module)) => (device, Some(module.parse()?)),
            None => (text, None),
        };
        Ok(Identity { device: device.parse()?, module })
    }
}

/// The MQTT client id.
///
/// Source: "Communicate with an IoT hub using the MQTT protocol".
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.module {
            None => write!(f, "{}", self.device),
            Some(module) => write!(f, "{}/{module}", self.device),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_and_modules_both_ways() {
        for (text, path) in [("gw1", "devices/gw1"), ("gw1/m", "devices/gw1/modules/m")] {
            let identity: Identity = text.parse().unwrap();
            assert_eq!(identity.to_string(), text);
            assert_eq!(identity.path(), path);
            assert_eq!(identity.of_device().to_string(), "gw1");
        }
        for bad in ["", "/", "gw1/", "/m", "gw1/m/x", "a b"] {
            assert!(bad.parse::<Identity>().is_err(), "{bad}");
        }
        for (text, fits) in
            [("a+b", false), ("a#", false), ("gw1/a+b", false), ("gw1/a.b", true), ("a.b", true)]
        {
            assert_eq!(text.parse::<Identity>().unwrap().fits_mqtt(), fits, "{text}");
        }
    }

    #[test]
    fn a_device_stands_before_its_modules_and_they_before_the_next_device() {
        let mut sorted: Vec<Identity> =
            ["b", "a/z", "a", "a-b", "a/a"].iter().map(|text| text.parse().unwrap()).collect();
        sorted.sort();
        let sorted: Vec<String> = sorted.iter().map(Identity::to_string).collect();
        assert_eq!(sorted, ["a", "a/a", "a/z", "a-b", "b"]);
    }
}
