//! Whether a machine needs a reboot, as its reported properties tell it.

use serde::{Deserialize, Serialize};

use crate::time::Time;

/// Whether the machine needs a reboot, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RebootRequired {
    /// `required`: whether it does.
    pub required: bool,
    /// `since`: when the daemon first saw that it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// `reasons`: the packages that ask for it, the first
    /// [`RebootRequired::MAX_REASONS`] by name; among them that of a newer kernel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// `reasonCount`: how many there are.
    pub reason_count: u32,
    /// `runningKernel`: the running kernel's release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_kernel: Option<String>,
    /// `installedKernel`: the newest kernel of the same flavour that is installed.
    /// Absent where none is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installed_kernel: Option<String>,
    /// `askedFor`: the reasons and the installed kernel for which the device has asked
    /// itself for a reboot, as 32 hexadecimal digits. For the same ones it asks no
    /// second time, whatever became of that reboot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_for: Option<String>,
}

impl RebootRequired {
    /// How many reasons are told.
    pub const MAX_REASONS: usize = 10;
}
