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

/// Refuses unless one of the keys has signed the token, and for one of `resources`.
fn check_token(token: &SasToken, keys: &Keys, resources: &[String], now: Time) -> Result<(), HubRefusal> {
    let is_signed = [&keys.primary, &keys.secondary].iter().any(|key| token.verify_signature(key).is_ok());
    let checked =
        if is_signed { token.verify_use(now.unix_seconds(), resources) } else { Err(SasError::Signature) };
    checked.map_err(|error| ErrorCode::IotHubUnauthorized.because(error.to_string()))
}

#[cfg(test)]
mod tests {
    use iotdm_proto::sas;

    use super::*;

    #[test]
    fn a_token_is_good_by_either_key_and_its_refusal_says_what_is_wrong() {
        let keys =
            Keys { primary: "cHJpbWFyeQ==".parse().unwrap(), secondary: "c2Vjb25kYXJ5".parse().unwrap() };
        let stranger = "c3RyYW5nZXI=".parse().unwrap();
        let resources = ["h/devices/gw1".to_owned(), "other/devices/gw1".to_owned()];
        let now = Time::from_unix_millis(1_000_000);
        for (resource, key, expiry, why) in [
            ("h/devices/gw1", &keys.primary, 1001, None),
            ("h/devices/gw1", &keys.secondary, 1001, None),
            ("other/devices/gw1", &keys.secondary, 1001, None),
            ("h/devices/gw1", &keys.primary, 990, Some("the token expired 10 seconds ago")),
            ("h/devices/gw1", &keys.secondary, 990, Some("the token expired 10 seconds ago")),
            ("h/devices/gw1", &stranger, 1001, Some("the signature does not match")),
            ("h/devices/gw1", &stranger, 990, Some("the signature does not match")),
            ("h/devices/gw2", &keys.primary, 1001, Some("the token is for \"h/devices/gw2\"")),
        ] {
            let token: SasToken = sas::sign(resource, key, expiry, None).parse().unwrap();
            let refused = check_token(&token, &keys, &resources, now).map_err(|refusal| refusal.message);
            let expected = why.map_or(Ok(()), |why| Err(why.to_owned()));
            assert_eq!(refused, expected, "{resource} until {expiry}");
        }
    }
}
