//! How this program proves to a hub who it is: by a policy's key, by a
//! ready-made token, or by Microsoft Entra ID through the Azure CLI.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use iotdm_proto::{SecretKey, Time, sas};
use serde::Deserialize;
use tokio::process::Command;

use crate::error::Usage;

/// How long a token is valid that is signed here.
const TOKEN_TTL: Duration = Duration::from_secs(3600);
/// A token of the Azure CLI is replaced so long before its end.
const MARGIN: Duration = Duration::from_secs(120);
/// Whose tokens a hub takes.
///
/// Source: the scope `https://iothubs.azure.net/.default` of `azure-iot-hub`.
const RESOURCE: &str = "https://iothubs.azure.net";

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
    /// Tokens of the person or service that is logged in to the Azure CLI.
    AzureCli(RefCell<Option<(Token, Time)>>),
}

/// A SAS token, or one of Entra ID.
#[derive(Clone)]
pub struct Token(String);

/// No token could be had. The exit code is that of missing rights.
#[derive(Debug, Clone, thiserror::Error)]
#[error("no token from the Azure CLI: {0}; log in with az login, or give a connection string")]
pub struct NoToken(String);

/// The output of `az account get-access-token`.
#[derive(Deserialize)]
struct CliToken {
    #[serde(rename = "accessToken")]
    access_token: String,
    /// Seconds since the Unix epoch; older versions have only a local time.
    expires_on: Option<i64>,
}

impl FromStr for Token {
    type Err = String;

    /// Of a token as it stands in a file or the environment.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let bare = text.strip_prefix("Bearer ").unwrap_or(text);
        if bare.is_empty() || bare.chars().any(char::is_control) {
            return Err("expected one token: SharedAccessSignature …, or one of Entra ID".into());
        }
        Ok(Token(if bare.starts_with("SharedAccessSignature ") {
            bare.into()
        } else {
            format!("Bearer {bare}")
        }))
    }
}

impl Credential {
    /// The Azure CLI, not asked yet.
    pub fn azure_cli() -> Self {
        Credential::AzureCli(RefCell::default())
    }

    /// The value of the header `Authorization`.
    pub async fn authorization(&self, host: &str) -> Result<String, NoToken> {
        let now = Time::from(SystemTime::now());
        match self {
            Credential::Policy { policy, key } => {
                Ok(sas::sign(host, key, now.after(TOKEN_TTL).unix_seconds(), Some(policy)))
            }
            Credential::Token(token) => Ok(token.0.clone()),
            Credential::AzureCli(kept) => {
                if let Some((token, until)) = &*kept.borrow()
                    && now < *until
                {
                    return Ok(token.0.clone());
                }
                let (token, until) = ask_azure_cli(now).await?;
                *kept.borrow_mut() = Some((token.clone(), until));
                Ok(token.0)
            }
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

async fn ask_azure_cli(now: Time) -> Result<(Token, Time), NoToken> {
    let mut command = Command::new("az");
    command.args(["account", "get-access-token", "--resource", RESOURCE, "--output", "json"]);
    let output = command.kill_on_drop(true).output().await.map_err(|error| {
        NoToken(match error.kind() {
            io::ErrorKind::NotFound => "the command az is not installed".to_owned(),
            _ => format!("az: {error}"),
        })
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
        return Err(NoToken(said.trim().to_owned()));
    }
    // Not serde's error, which may show what it has read.
    let strange = || NoToken("az answered something else than a token".to_owned());
    let answer: CliToken = serde_json::from_slice(&output.stdout).map_err(|_| strange())?;
    let token: Token = answer.access_token.parse().map_err(|_| strange())?;
    let until = match answer.expires_on {
        Some(seconds) => Time::from_unix_millis(seconds.saturating_mul(1000)).before(MARGIN),
        None => now.after(MARGIN),
    };
    Ok((token, until))
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Credential::Policy { .. } => "Policy(…)",
            Credential::Token(_) => "Token(…)",
            Credential::AzureCli(_) => "AzureCli",
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
        for (text, header) in [
            ("SharedAccessSignature sr=h&sig=x&se=1\n", Some("SharedAccessSignature sr=h&sig=x&se=1")),
            ("eyJ0.x.y", Some("Bearer eyJ0.x.y")),
            ("Bearer eyJ0.x.y", Some("Bearer eyJ0.x.y")),
            (" \n", None),
            ("a\nb", None),
        ] {
            let token = text.parse::<Token>();
            assert_eq!(token.as_ref().ok().map(|token| token.0.as_str()), header, "{text:?}");
            assert!(!format!("{token:?}").contains("eyJ0"));
        }
    }
}
