//! How this program proves to a hub who it is: by a policy's key, by a
//! ready-made token, or by Microsoft Entra ID.

mod entra;
mod policy;
mod token;
mod token_file;

use std::fmt;
use std::time::SystemTime;

use iotdm_proto::Time;
use rustls::ClientConfig;

pub use self::entra::{Entra, Login};
pub use self::policy::Policy;
pub use self::token::{NoToken, Token};
pub use self::token_file::TokenFile;
use crate::error::Usage;

/// What proves to the hub who we are.
pub enum Credential {
    /// A shared access policy, with whose key tokens are signed.
    Policy(Policy),
    /// A ready-made token.
    Token(Token),
    /// A token in a file that something else renews.
    TokenFile(TokenFile),
    /// Microsoft Entra ID, which is asked for tokens.
    Entra(Entra),
}

impl Credential {
    /// Tokens of Entra ID for whom `login` says. Entra ID is not asked yet.
    pub fn of(login: Login) -> Self {
        Credential::Entra(login.into())
    }

    /// The value of the header `Authorization` for the hub `host`. `tls` is how
    /// Entra ID is asked, where it has to be.
    pub async fn authorization(&self, host: &str, tls: &ClientConfig) -> Result<String, NoToken> {
        let now = Time::from(SystemTime::now());
        match self {
            Credential::Policy(policy) => Ok(policy.token(host, now)),
            Credential::Token(Token { expiry: Some(expiry), .. }) if *expiry <= now => {
                Err(NoToken(format!("the token has expired, at {expiry}; get a new one")))
            }
            Credential::Token(token) => Ok(token.header.clone()),
            Credential::TokenFile(file) => Ok(file.token(now)?.header),
            Credential::Entra(entra) => Ok(entra.token(now, tls).await?.header),
        }
    }

    /// Whether something else may have renewed the token since `authorization` was
    /// made, so that who was refused with it may try once more.
    pub fn may_be_newer_than(&self, authorization: &str) -> bool {
        let now = Time::from(SystemTime::now());
        match self {
            Credential::TokenFile(file) => file.token(now).is_ok_and(|newest| newest.header != authorization),
            Credential::Policy(_) | Credential::Token(_) | Credential::Entra(_) => false,
        }
    }

    /// A token of the policy for the hub `host`, valid until `expiry`, in
    /// seconds since the Unix epoch. It is an error where there is no policy's
    /// key.
    pub fn sign(&self, host: &str, expiry: u64) -> Result<String, Usage> {
        match self {
            Credential::Policy(policy) => Ok(policy.sign(host, expiry)),
            _ => Err(Usage("sas-token needs a connection string with a policy's key to sign with".into())),
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Credential::Policy(_) => "Policy(…)",
            Credential::Token(_) => "Token(…)",
            Credential::TokenFile(_) => "TokenFile(…)",
            Credential::Entra(_) => "Entra(…)",
        })
    }
}
