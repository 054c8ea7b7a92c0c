//! Microsoft Entra ID: tokens of whoever is logged in to the Azure CLI, of a
//! managed identity, or of an application with a secret.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use azure_core::credentials::{Secret, TokenCredential};
use azure_core::http::{ClientOptions, Transport};
use azure_identity::{
    ClientSecretCredential, ClientSecretCredentialOptions, ManagedIdentityCredential,
    ManagedIdentityCredentialOptions, UserAssignedId,
};
use iotdm_proto::Time;
use rustls::ClientConfig;
use serde::Deserialize;
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::{NoToken, Token};

/// A token is replaced so long before its end.
const MARGIN: Duration = Duration::from_secs(120);
/// Whose tokens a hub takes.
///
/// Source: the scope `https://iothubs.azure.net/.default` of `azure-iot-hub`.
const RESOURCE: &str = "https://iothubs.azure.net";
/// The same as azure_identity wants it.
const SCOPE: &str = "https://iothubs.azure.net/.default";
/// Where there is no managed identity, nobody answers at all, which
/// azure_identity takes more than a minute to believe.
const PATIENCE: Duration = Duration::from_secs(20);

/// Entra ID, and the newest token from it.
pub struct Entra {
    login: Login,
    /// With its end. Asked for by one at a time.
    kept: Mutex<Option<(Token, Time)>>,
}

/// As whom to log in.
#[derive(Debug, Clone)]
pub enum Login {
    /// The person or service that is logged in to the Azure CLI.
    AzureCli,
    /// The identity of the machine in Azure.
    ManagedIdentity {
        /// Of one that is assigned by the user; else it is the system's.
        client_id: Option<String>,
    },
    /// An application.
    ClientSecret {
        /// Its directory.
        tenant_id: String,
        /// Its id.
        client_id: String,
        /// Its secret.
        secret: Secret,
    },
}

/// The output of `az account get-access-token`.
#[derive(Deserialize)]
struct CliToken {
    #[serde(rename = "accessToken")]
    access_token: String,
    /// Seconds since the Unix epoch; older versions have only a local time.
    expires_on: Option<i64>,
}

impl From<Login> for Entra {
    fn from(login: Login) -> Self {
        Entra { login, kept: Mutex::default() }
    }
}

impl Entra {
    /// As whom it logs in.
    pub fn login(&self) -> &Login {
        &self.login
    }

    /// A token that is valid now.
    pub(super) async fn token(&self, now: Time, tls: &ClientConfig) -> Result<Token, NoToken> {
        let mut kept = self.kept.lock().await;
        if let Some((token, end)) = &*kept
            && now < end.before(MARGIN)
        {
            return Ok(token.clone());
        }
        match (self.log_in(now, tls).await, &*kept) {
            (Ok((token, end)), _) => {
                *kept = Some((token.clone(), end));
                Ok(token)
            }
            // It will be tried again; until its end the old one does.
            (Err(_), Some((token, end))) if now < *end => Ok(token.clone()),
            (Err(no), _) => Err(no),
        }
    }

    /// A new token, and its end.
    async fn log_in(&self, now: Time, tls: &ClientConfig) -> Result<(Token, Time), NoToken> {
        match &self.login {
            Login::AzureCli => ask_azure_cli(now).await,
            Login::ManagedIdentity { client_id } => {
                let remedy = "run this on a machine in Azure that has one, or use another way";
                let no = |why: String| NoToken(format!("no token of the managed identity: {why}; {remedy}"));
                let credential = managed_identity(client_id.clone(), tls).map_err(no)?;
                ask(credential).await.map_err(no)
            }
            Login::ClientSecret { tenant_id, client_id, secret } => {
                let remedy = "check tenant, client and secret";
                let no = |why: String| NoToken(format!("no token of client {client_id}: {why}; {remedy}"));
                let credential = client_secret(tenant_id, client_id, secret, tls).map_err(no)?;
                ask(credential).await.map_err(no)
            }
        }
    }
}

/// The service that knows the machine's identity is reached on the machine's
/// own network: by plain HTTP, and never through a proxy.
fn managed_identity(
    client_id: Option<String>,
    tls: &ClientConfig,
) -> Result<Arc<dyn TokenCredential>, String> {
    let http = reqwest::Client::builder().tls_backend_preconfigured(tls.clone()).no_proxy().build();
    let options = ManagedIdentityCredentialOptions {
        user_assigned_id: client_id.map(UserAssignedId::ClientId),
        client_options: over(http)?,
    };
    let credential = ManagedIdentityCredential::new(Some(options));
    credential.map(|it| it as Arc<dyn TokenCredential>).map_err(|error| error.to_string())
}

fn client_secret(
    tenant_id: &str,
    client_id: &str,
    secret: &Secret,
    tls: &ClientConfig,
) -> Result<Arc<dyn TokenCredential>, String> {
    let http = reqwest::Client::builder().tls_backend_preconfigured(tls.clone()).https_only(true).build();
    let options = ClientSecretCredentialOptions { client_options: over(http)? };
    let credential =
        ClientSecretCredential::new(tenant_id, client_id.to_owned(), secret.clone(), Some(options));
    credential.map(|it| it as Arc<dyn TokenCredential>).map_err(|error| error.to_string())
}

/// azure_identity over our own client, so that it trusts whom we trust.
fn over(http: reqwest::Result<reqwest::Client>) -> Result<ClientOptions, String> {
    let http = http.map_err(|error| error.to_string())?;
    Ok(ClientOptions { transport: Some(Transport::new(Arc::new(http))), ..ClientOptions::default() })
}

async fn ask(credential: Arc<dyn TokenCredential>) -> Result<(Token, Time), String> {
    let answer = timeout(PATIENCE, credential.get_token(&[SCOPE], None)).await;
    let answer = answer.map_err(|_| format!("no answer in {} s", PATIENCE.as_secs()))?;
    let answer = answer.map_err(|error| first_line(&error.to_string()).to_owned())?;
    let end = Time::from_unix_millis(answer.expires_on.unix_timestamp().saturating_mul(1000));
    Ok((answer.token.secret().parse()?, end))
}

async fn ask_azure_cli(now: Time) -> Result<(Token, Time), NoToken> {
    let no = |why: &str| {
        NoToken(format!(
            "no token from the Azure CLI: {why}; log in with az login, or give a connection string"
        ))
    };
    let mut command = Command::new("az");
    command.args(["account", "get-access-token", "--resource", RESOURCE, "--output", "json"]);
    let output = timeout(PATIENCE, command.kill_on_drop(true).output()).await;
    let output = output.map_err(|_| no("az does not answer"))?.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => no("the command az is not installed"),
        _ => no(&format!("az: {error}")),
    })?;
    if !output.status.success() {
        return Err(no(first_line(&String::from_utf8_lossy(&output.stderr))));
    }
    // Not serde's error, which may show what it has read.
    let strange = || no("az answered something else than a token");
    let answer: CliToken = serde_json::from_slice(&output.stdout).map_err(|_| strange())?;
    let token: Token = answer.access_token.parse().map_err(|_| strange())?;
    let end = match answer.expires_on {
        Some(seconds) => Time::from_unix_millis(seconds.saturating_mul(1000)),
        None => now.after(MARGIN * 2),
    };
    Ok((token, end))
}

/// What of a long text says what is wrong.
fn first_line(text: &str) -> &str {
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it says nothing")
}
