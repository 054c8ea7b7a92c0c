//! The proof that a client shows of being some device, and whether it is one.
//!
//! Source: "Control access to IoT Hub with shared access signatures" and
//! "Authenticate identities with X.509 certificates".

use iotdm_proto::Time;
use iotdm_proto::sas::{SasError, SasToken};

use crate::authentication::{Authentication, Keys};
use crate::certificates::{Authorities, ClientCertificate};
use crate::policies::{Policies, Right};
use crate::refusal::{ErrorCode, HubRefusal};
use iotdm_proto::Identity;

/// What a client shows to be let in.
#[derive(Debug)]
pub enum Proof {
    /// A token, as the CONNECT's password.
    Token(SasToken),
    /// A certificate, in the TLS handshake.
    Certificate(ClientCertificate),
}

impl Proof {
    /// When the proof ends, in seconds since the Unix epoch; `None` for a
    /// certificate, which is judged once, when the client connects.
    pub fn expiry(&self) -> Option<u64> {
        match self {
            Proof::Token(token) => Some(token.expiry()),
            Proof::Certificate(_) => None,
        }
    }
}

/// Refuses unless `proof` shows, at the time `now`, that a client is `id`, which
/// has `authentication`. `resources` are the ways in which clients write the SAS
/// resource of `id`.
pub fn check(
    id: &Identity,
    authentication: &Authentication,
    proof: &Proof,
    policies: &Policies,
    authorities: &Authorities,
    resources: &[String],
    now: Time,
) -> Result<(), HubRefusal> {
    let refuse = |why: String| Err(ErrorCode::IotHubUnauthorized.because(why));
    match (proof, authentication) {
        (Proof::Token(token), _) if token.policy().is_some() => {
            policies.check(token, Right::DeviceConnect, now.unix_seconds(), resources)
        }
        (Proof::Token(token), Authentication::Sas(keys)) => check_token(token, keys, resources, now),
        (Proof::Certificate(shown), Authentication::SelfSigned(known)) => {
            let known = [&known.primary, &known.secondary].into_iter().flatten();
            match known.into_iter().any(|thumbprint| shown.has_thumbprint(thumbprint)) {
                true => Ok(()),
                false => refuse(format!("the {shown} is none of the identity's")),
            }
        }
        (Proof::Certificate(shown), Authentication::CertificateAuthority) => {
            if let Err(why) = authorities.check(shown) {
                return refuse(format!("the {shown} does not come from a known CA: {why}"));
            }
            match shown.common_name() {
                Some(name) if name == id.to_string() => Ok(()),
                _ => refuse(format!("the {shown} is not made out to {id}")),
            }
        }
        (Proof::Token(_), other) => {
            refuse(format!("{id} authenticates by {}, not by a token of its own", other.type_name()))
        }
        (Proof::Certificate(_), other) => {
            refuse(format!("{id} authenticates by {}, not by a certificate", other.type_name()))
        }
    }
}

/// Refuses unless one of the keys has signed the token for one of `resources`.
/// Where an attempt failed by something else than its signature, the refusal
/// says by what.
fn check_token(token: &SasToken, keys: &Keys, resources: &[String], now: Time) -> Result<(), HubRefusal> {
    let mut refusal = None;
    for key in [&keys.primary, &keys.secondary] {
        for resource in resources {
            match token.verify(key, now.unix_seconds(), resource) {
                Ok(()) => return Ok(()),
                Err(SasError::Signature) if refusal.is_some() => {}
                Err(error) => refusal = Some(error),
            }
        }
    }
    let why = refusal.map_or_else(String::new, |error| error.to_string());
    Err(ErrorCode::IotHubUnauthorized.because(why))
}
