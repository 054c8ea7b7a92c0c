//! Whether the machine needs a reboot, and which need that is.

use iotdm_proto::Time;
use iotdm_proto::need::RebootRequired;
use sha2::{Digest as _, Sha256};

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

    /// Which need this is, if it is one: the first 16 bytes of the SHA-256 of the reasons,
    /// sorted, with a line end after each, and of the installed kernel, in hexadecimal
    /// digits.
    pub(super) fn digest(&self) -> Option<String> {
        let mut reasons: Vec<&str> = self.reasons.iter().map(String::as_str).collect();
        reasons.sort_unstable();
        let mut hash = Sha256::new();
        for part in
            reasons.into_iter().flat_map(|reason| [reason, "\n"]).chain(self.installed_kernel.as_deref())
        {
            hash.update(part);
        }
        let digits = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        self.is_required().then_some(digits)
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
            asked_for: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_need_is_told_from_others_and_is_the_same_in_each_version() {
        let digest = |reasons: &[&str], kernel: Option<&str>| {
            let reasons = reasons.iter().map(|reason| (*reason).to_owned()).collect();
            Need { reasons, running_kernel: None, installed_kernel: kernel.map(str::to_owned) }.digest()
        };
        // printf 'dbus\nlibc6\n6.1.0-49-amd64' | sha256sum | cut -c-32
        assert_eq!(
            digest(&["libc6", "dbus"], Some("6.1.0-49-amd64")).as_deref(),
            Some("bdebef78592af998350a0347039ee6ad")
        );
        assert_eq!(
            digest(&["dbus", "libc6"], Some("6.1.0-49-amd64")),
            digest(&["libc6", "dbus"], Some("6.1.0-49-amd64"))
        );
        let others = [
            digest(&["dbus"], Some("6.1.0-49-amd64")),
            digest(&["dbus", "libc6"], None),
            digest(&["dbuslibc6"], None),
        ];
        assert!(
            others
                .iter()
                .all(|other| other.is_some() && *other != digest(&["dbus", "libc6"], Some("6.1.0-49-amd64")))
        );
        assert_eq!(digest(&[], Some("6.1.0-49-amd64")), None);
    }
}
