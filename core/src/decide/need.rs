//! Whether the machine needs a reboot.

use iotdm_proto::Time;
use iotdm_proto::need::RebootRequired;

/// What is found on the machine that asks for a reboot, or would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// Who asks for one, sorted; nobody does where there are none.
    pub reasons: Vec<String>,
    /// The running kernel's release, where it can be read.
    pub running_kernel: Option<String>,
    /// The newest kernel of the same flavour that is installed, if any is.
    pub installed_kernel: Option<String>,
}

impl Need {
    /// Whether somebody asks for a reboot.
    pub fn is_required(&self) -> bool {
        !self.reasons.is_empty()
    }

    /// The need as it is reported, where it was `told` before and is seen `now`.
    pub(super) fn tell(&self, told: Option<&RebootRequired>, now: Time) -> RebootRequired {
        let required = self.is_required();
        let since = told.filter(|told| told.required).and_then(|told| told.since).unwrap_or(now);
        RebootRequired {
            required,
            since: required.then_some(since),
            reasons: self.reasons.iter().take(RebootRequired::MAX_REASONS).cloned().collect(),
            reason_count: u32::try_from(self.reasons.len()).unwrap_or(u32::MAX),
            running_kernel: self.running_kernel.clone(),
            installed_kernel: self.installed_kernel.clone(),
        }
    }
}
