//! Whether a client is who it says it is.

use iotdm_proto::Time;
use iotdm_proto::sas::{SasError, SasToken};

use crate::certificates::{Authorities, ClientCertificate};
use crate::credentials::{Credentials, Keys};
use crate::error::{Code, HubError};
use crate::identity::Identity;
use crate::policies::{Policies, Right};

/// What a client shows.
#[derive(Debug)]
pub enum Proof {
    /// A token, as the CONNECT's password.
    Token(SasToken),
    /// A certificate, in the TLS handshake.
    Certificate(ClientCertificate),
}

impl Proof {
    /// When it ends, in seconds since the Unix epoch; a connection by
    /// certificate does not.
    pub fn expiry(&self) -> Option<u64> {
        match self {
            Proof::Token(token) => Some(token.expiry()),
            Proof::Certificate(_) => None,
        }
    }
}

/// Whether `proof` shows that a client is `id`, which has `credentials`.
/// `scopes` spell its SAS resource in the ways in which clients do.
pub fn check(
    id: &Identity,
    credentials: &Credentials,
    proof: &Proof,
    policies: &Policies,
    authorities: &Authorities,
    scopes: &[String],
    now: Time,
) -> Result<(), HubError> {
    let refuse = |why: String| Err(Code::IotHubUnauthorized.because(why));
    match (proof, credentials) {
        (Proof::Token(token), _) if token.policy().is_some() => {
            policies.check(token, Right::DeviceConnect, now.unix_seconds(), scopes)
        }
        (Proof::Token(token), Credentials::Sas(keys)) => check_token(token, keys, scopes, now),
        (Proof::Certificate(shown), Credentials::SelfSigned(known)) => {
            let known = [&known.primary, &known.secondary].into_iter().flatten();
            match known.into_iter().any(|thumbprint| shown.has_thumbprint(thumbprint)) {
                true => Ok(()),
                false => refuse(format!("the {shown} is none of the identity's")),
            }
        }
        (Proof::Certificate(shown), Credentials::CertificateAuthority) => {
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

fn check_token(token: &SasToken, keys: &Keys, scopes: &[String], now: Time) -> Result<(), HubError> {
    let mut refusal = None;
    for key in [&keys.primary, &keys.secondary] {
        for scope in scopes {
            match token.verify(key, now.unix_seconds(), scope) {
                Ok(()) => return Ok(()),
                Err(SasError::Signature) if refusal.is_some() => {}
                Err(error) => refusal = Some(error),
            }
        }
    }
    let why = refusal.map_or_else(String::new, |error| error.to_string());
    Err(Code::IotHubUnauthorized.because(why))
}
