//! Shared access policies: who may do what on the service side.
//!
//! Source: "Control access to IoT Hub with shared access signatures", the
//! policies that every hub is created with.

use std::fmt;

use iotdm_proto::SecretKey;
use iotdm_proto::sas::{SasError, SasToken};
use serde::{Deserialize, Serialize};

use crate::random::{self, NoRandom};
use crate::refusal::{ErrorCode, HubRefusal};

/// Something that a policy may allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Reading identities.
    RegistryRead,
    /// Creating, changing and deleting identities; includes reading.
    RegistryWrite,
    /// Twins, queries, methods, jobs and messages.
    ServiceConnect,
    /// Connecting as any device.
    DeviceConnect,
    /// Enrolling devices in the provisioning service, which has policies apart
    /// from the hub's.
    Enrolment,
}

use Right::{DeviceConnect, Enrolment, RegistryRead, RegistryWrite, ServiceConnect};

/// The policies of a new hub and their rights.
const POLICIES: [(&str, &[Right]); 6] = [
    (OWNER, &[RegistryRead, RegistryWrite, ServiceConnect, DeviceConnect]),
    ("service", &[ServiceConnect]),
    ("device", &[DeviceConnect]),
    ("registryRead", &[RegistryRead]),
    ("registryReadWrite", &[RegistryRead, RegistryWrite]),
    ("provisioningserviceowner", &[Enrolment]),
];

/// The policy with all rights over the hub.
pub const OWNER: &str = "iothubowner";

/// A policy's name and its key in base64, as the store keeps them.
#[derive(Serialize, Deserialize)]
pub struct StoredPolicy(String, String);

/// The hub's policies.
#[derive(Debug)]
pub struct Policies(Vec<Policy>);

/// A shared access policy.
#[derive(Debug)]
pub struct Policy {
    /// The policy's name, which is `skn` in tokens.
    pub name: String,
    /// The key that signs the policy's tokens.
    pub key: SecretKey,
}

/// A token that a policy has signed.
#[derive(Debug)]
pub struct SignedToken {
    /// The policy's name.
    pub policy: String,
    /// What the policy allows.
    pub rights: &'static [Right],
    /// The token.
    pub token: SasToken,
}

impl Policies {
    /// New policies with fresh keys, as the store keeps them.
    pub fn generate() -> Result<Vec<StoredPolicy>, NoRandom> {
        let policy = |(name, _): &(&str, _)| {
            Ok(StoredPolicy((*name).to_owned(), random::key()?.expose_base64().as_str().to_owned()))
        };
        POLICIES.iter().map(policy).collect()
    }

    /// The policies that the store has.
    pub fn load(stored: &[StoredPolicy]) -> Result<Self, iotdm_proto::key::KeyError> {
        let policy =
            |StoredPolicy(name, key): &StoredPolicy| Ok(Policy { name: name.clone(), key: key.parse()? });
        stored.iter().map(policy).collect::<Result<_, _>>().map(Policies)
    }

    /// All policies.
    pub fn iter(&self) -> impl Iterator<Item = &Policy> {
        self.0.iter()
    }

    /// Refuses unless a policy with `right` has signed `token`, for one of
    /// `resources` (which write the same resource in different ways), and the
    /// token is valid at `now`, in seconds since the Unix epoch.
    pub fn check(
        &self,
        token: &SasToken,
        right: Right,
        now: u64,
        resources: &[String],
    ) -> Result<(), HubRefusal> {
        self.signed(token.clone())?.check(right, now, resources)
    }

    /// The token as one that a policy of this hub has signed. The policies and their keys
    /// stay for as long as the hub runs, so this has to be found out once for each token;
    /// what it is good for, and until when, is still to be checked at each use.
    pub fn signed(&self, token: SasToken) -> Result<SignedToken, HubRefusal> {
        let Some(policy) = self.0.iter().find(|policy| Some(policy.name.as_str()) == token.policy()) else {
            return Err(ErrorCode::IotHubUnauthorizedAccess.because("Unauthorized: no such policy"));
        };
        token.verify_signature(&policy.key).map_err(refusal)?;
        Ok(SignedToken { policy: policy.name.clone(), rights: policy.rights(), token })
    }
}

impl SignedToken {
    /// Refuses unless the policy gives `right`, and the token is for one of `resources`
    /// and valid at `now`, as [`Policies::check`] takes them.
    pub fn check(
        &self,
        right: Right,
        now: u64,
        resources: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<(), HubRefusal> {
        self.verify_use(now, resources)?;
        if self.rights.contains(&right) {
            return Ok(());
        }
        let message = format!("Unauthorized: policy {} lacks the right {right}", self.policy);
        Err(ErrorCode::IotHubUnauthorizedAccess.because(message))
    }

    /// The same, whatever rights the policy gives.
    pub fn verify_use(
        &self,
        now: u64,
        resources: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<(), HubRefusal> {
        self.token.verify_use(now, resources).map_err(refusal)
    }
}

/// Refuses a token for what is wrong with it.
fn refusal(error: SasError) -> HubRefusal {
    let code = match error {
        SasError::Expired(_) | SasError::Scope(_) => ErrorCode::IotHubUnauthorized,
        SasError::Signature | SasError::Malformed(_) => ErrorCode::IotHubUnauthorizedAccess,
    };
    code.because(format!("Unauthorized: {error}"))
}

impl Policy {
    /// What the policy allows.
    pub fn rights(&self) -> &'static [Right] {
        rights(&self.name)
    }
}

/// What the policy of this name allows.
pub fn rights(policy: &str) -> &'static [Right] {
    POLICIES.iter().find(|(name, _)| *name == policy).map_or(&[], |(_, rights)| *rights)
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use iotdm_proto::sas;

    use super::*;

    fn check(policy: &str, right: Right) -> Result<(), HubRefusal> {
        let policies = Policies::load(&Policies::generate().unwrap()).unwrap();
        let key = &policies.iter().find(|found| found.name == policy).unwrap().key;
        let token = sas::sign("localhost:8443", key, 100, Some(policy)).parse().unwrap();
        let scopes = ["localhost/twins/a".to_owned(), "localhost:8443/twins/a".to_owned()];
        policies.check(&token, right, 50, &scopes)
    }

    #[test]
    fn each_policy_has_its_rights_and_no_others() {
        for (policy, allowed) in [
            ("iothubowner", &[RegistryRead, RegistryWrite, ServiceConnect, DeviceConnect][..]),
            ("service", &[ServiceConnect]),
            ("device", &[DeviceConnect]),
            ("registryRead", &[RegistryRead]),
            ("registryReadWrite", &[RegistryRead, RegistryWrite]),
            ("provisioningserviceowner", &[Enrolment]),
        ] {
            assert_eq!(rights(policy), allowed, "{policy}");
            for right in [RegistryRead, RegistryWrite, ServiceConnect, DeviceConnect, Enrolment] {
                let checked = check(policy, right);
                assert_eq!(checked.is_ok(), allowed.contains(&right), "{policy} {right}");
                if let Err(error) = checked {
                    assert_eq!(error.code, ErrorCode::IotHubUnauthorizedAccess);
                }
            }
        }
        assert!(rights("root").is_empty());
        assert_eq!(Policies::load(&Policies::generate().unwrap()).unwrap().iter().count(), 6);
    }

    #[test]
    fn a_signed_token_expires_all_the_same() {
        let policies = Policies::load(&Policies::generate().unwrap()).unwrap();
        let key = &policies.iter().next().unwrap().key;
        let token = sas::sign("localhost/twins", key, 100, Some(OWNER)).parse().unwrap();
        let signed = policies.signed(token).unwrap();
        let check = |now, resource| signed.check(ServiceConnect, now, [resource]).map_err(|error| error.code);
        assert_eq!(check(99, "localhost/twins/a"), Ok(()));
        assert_eq!(check(100, "localhost/twins/a"), Err(ErrorCode::IotHubUnauthorized));
        assert_eq!(check(99, "localhost/devices/a"), Err(ErrorCode::IotHubUnauthorized));
    }

    #[test]
    fn other_keys_names_times_and_hosts_are_refused() {
        let policies = Policies::load(&Policies::generate().unwrap()).unwrap();
        let key = &policies.iter().next().unwrap().key;
        let other = SecretKey::from_bytes(vec![1; 32]);
        let unauthorized = |token: String, code: ErrorCode| {
            let token = token.parse().unwrap();
            let error = policies.check(&token, ServiceConnect, 50, &["localhost/x".to_owned()]).unwrap_err();
            assert_eq!(error.code, code, "{error}");
        };
        unauthorized(sas::sign("localhost", &other, 100, Some(OWNER)), ErrorCode::IotHubUnauthorizedAccess);
        unauthorized(sas::sign("localhost", key, 100, Some("root")), ErrorCode::IotHubUnauthorizedAccess);
        unauthorized(sas::sign("localhost", key, 100, None), ErrorCode::IotHubUnauthorizedAccess);
        unauthorized(sas::sign("localhost", key, 50, Some(OWNER)), ErrorCode::IotHubUnauthorized);
        unauthorized(sas::sign("elsewhere", key, 100, Some(OWNER)), ErrorCode::IotHubUnauthorized);
    }
}
