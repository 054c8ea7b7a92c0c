//! What a machine says of itself, as the component `deviceInformation` of the
//! device's model tells it.
//!
//! Source: the model `dtmi:azure:DeviceManagement:DeviceInformation;1`, and "IoT Plug
//! and Play conventions" for the mark of a component.

use serde::{Deserialize, Serialize};

use crate::text::harmless;
use crate::vocabulary::vocabulary;

/// How many characters of each text are told.
const MAX_CHARS: usize = 64;

/// What a machine says of itself. Each key is absent where the machine does not tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceInformation {
    /// `__t`: that this is a component of the model.
    #[serde(rename = "__t")]
    pub mark: ComponentMark,
    /// `manufacturer`: who made the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manufacturer: Option<String>,
    /// `model`: the name of the machine's model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// `swVersion`: the running kernel's release. The model has no other place for
    /// it, and `osName` has the system's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sw_version: Option<String>,
    /// `osName`: the operating system's name with its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os_name: Option<String>,
    /// `processorArchitecture`: in the kernel's word, such as `aarch64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processor_architecture: Option<String>,
    /// `processorManufacturer`: who made the processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processor_manufacturer: Option<String>,
    /// `totalStorage`: the size of the root file system in units of 1024 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_storage: Option<u64>,
    /// `totalMemory`: the memory that the kernel has, in units of 1024 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_memory: Option<u64>,
}

impl DeviceInformation {
    /// A text of the machine as it may be told: one line, harmless, and cut to its
    /// length; `None` where nothing is left.
    pub fn text(text: &str) -> Option<String> {
        let told: String = harmless(text.trim()).chars().take(MAX_CHARS).collect();
        let told = told.trim_end();
        (!told.is_empty()).then(|| told.to_owned())
    }
}

vocabulary! {
    /// The mark that tells a component from a property. Source: IoT Plug and Play
    /// conventions.
    #[derive(Default)]
    pub enum ComponentMark {
        /// A component.
        #[default]
        Component = "c",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_machine_says_is_one_short_harmless_line() {
        let told = |text: &str| DeviceInformation::text(text);
        assert_eq!(told("Raspberry Pi 4 Model B Rev 1.4").as_deref(), Some("Raspberry Pi 4 Model B Rev 1.4"));
        assert_eq!(told(" \t\n"), None);
        assert_eq!(told("a\u{1b}[2J\nb\u{202e}").as_deref(), Some("a\u{fffd}[2J\u{fffd}b\u{fffd}"));
        assert_eq!(told(&"ü".repeat(5000)).unwrap(), "ü".repeat(64));
        assert_eq!(told(&format!("{} x", "a".repeat(63))).unwrap(), "a".repeat(63));
    }
}
