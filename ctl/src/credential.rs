//! How this program proves to a hub who it is: by a policy's key, by a
//! ready-made token, or by Microsoft Entra ID.

mod entra;

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use iotdm_proto::sas::SasToken;
use iotdm_proto::{SecretKey, Time, sas};
use rustls::ClientConfig;

pub use self::entra::{Entra, Login};
use crate::error::Usage;

/// How long a token is valid that is signed here.
const TOKEN_TTL: Duration = Duration::from_secs(3600);

/// What proves who we are.
pub enum Credential {
    /// A shared access policy, with whose key each request's token is signed.
    Policy {
        /// Its name.
        policy: String,
        /// Its key.
        key: SecretKey,
    },
    /// A ready-made token.
    Token(Token),
    /// Microsoft Entra ID, which is asked for tokens.
    Entra(Entra),
}

/// A SAS token, or one of Entra ID.
#[derive(Clone)]
pub struct Token {
    header: String,
    /// Of a SAS token; what one of Entra ID is made of is not for its bearer.
    expiry: Option<Time>,
}

/// No token could be had. The exit code is that of missing rights.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct NoToken(String);

impl FromStr for Token {
    type Err = String;

    /// Of a token as it stands in a file or the environment.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let bare = text.strip_prefix("Bearer ").unwrap_or(text);
        if bare.is_empty() || bare.chars().any(char::is_control) {
            return Err("expected one token: SharedAccessSignature …, or one of Entra ID".into());
        }
        if !bare.starts_with("SharedAccessSignature ") {
            return Ok(Token { header: format!("Bearer {bare}"), expiry: None });
        }
        let sas: SasToken = bare.parse().map_err(|error| format!("not a SAS token: {error}"))?;
        let seconds = i64::try_from(sas.expiry()).unwrap_or(i64::MAX);
        let expiry = Some(Time::from_unix_millis(seconds.saturating_mul(1000)));
        Ok(Token { header: bare.to_owned(), expiry })
    }
}

impl Credential {
    /// Entra ID, not asked yet.
    pub fn of(login: Login) -> Self {
        Credential::Entra(login.into())
    }

    /// The value of the header `Authorization`. `tls` is for asking others.
    pub async fn authorization(&self, host: &str, tls: &ClientConfig) -> Result<String, NoToken> {
        let now = Time::from(SystemTime::now());
        match self {
            Credential::Policy { policy, key } => {
                Ok(sas::sign(host, key, now.after(TOKEN_TTL).unix_seconds(), Some(policy)))
            }
            Credential::Token(Token { expiry: Some(expiry), .. }) if *expiry <= now => {
                Err(NoToken(format!("the token has expired, at {expiry}; get a new one")))
            }
            Credential::Token(token) => Ok(token.header.clone()),
            Credential::Entra(entra) => Ok(entra.token(now, tls).await?.header),
        }
    }

    /// A token of the policy that is valid until `expiry`, in seconds since
    /// the Unix epoch.
    pub fn sign(&self, host: &str, expiry: u64) -> Result<String, Usage> {
        match self {
            Credential::Policy { policy, key } => Ok(sas::sign(host, key, expiry, Some(policy))),
            _ => Err(Usage("sas-token needs a connection string with a policy's key to sign with".into())),
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Credential::Policy { .. } => "Policy(…)",
            Credential::Token(_) => "Token(…)",
            Credential::Entra(_) => "Entra(…)",
        })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_both_kinds() {
        for (text, header, expiry) in [
            (
                "SharedAccessSignature sr=h&sig=eA%3D%3D&se=1\n",
                Some("SharedAccessSignature sr=h&sig=eA%3D%3D&se=1"),
                Some(1),
            ),
            ("eyJ0.x.y", Some("Bearer eyJ0.x.y"), None),
            ("Bearer eyJ0.x.y", Some("Bearer eyJ0.x.y"), None),
            (" \n", None, None),
            ("a\nb", None, None),
            ("SharedAccessSignature sr=h", None, None),
        ] {
            let token = text.parse::<Token>();
            let found = token.as_ref().ok();
            assert_eq!(found.map(|token| token.header.as_str()), header, "{text:?}");
            let seconds = found.and_then(|token| token.expiry).map(|expiry| expiry.unix_seconds());
            assert_eq!(seconds, expiry, "{text:?}");
            assert!(!format!("{token:?}").contains("eyJ0"));
        }
    }
}
