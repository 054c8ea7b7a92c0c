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

use super::token::{NoToken, Token};

/// How long before its end a token is replaced: 2 min, so that no token expires
/// on its way to the hub, also where clocks differ a little.
const MARGIN: Duration = Duration::from_secs(120);
/// The resource for which a token has to be, so that a hub takes it.
///
/// Source: the scope `https://iothubs.azure.net/.default` of `azure-iot-hub`.
const RESOURCE: &str = "https://iothubs.azure.net";
/// The same resource in the form of azure_identity.
const SCOPE: &str = "https://iothubs.azure.net/.default";
/// How long a token may take to come. On a machine without a managed identity
/// nobody answers at all, and azure_identity would ask again for more than a
/// minute.
const PATIENCE: Duration = Duration::from_secs(20);

/// Tokens of Entra ID, of which the newest is kept.
pub struct Entra {
    login: Login,
    /// The newest token and its end. The lock lets one request at a time log in,
    /// while the others wait for its token.
    kept: Mutex<Option<(Token, Time)>>,
}

/// As whom to log in to Entra ID.
#[derive(Debug, Clone)]
pub enum Login {
    /// The person or service that is logged in to the Azure CLI.
    AzureCli,
    /// The managed identity of the machine in Azure that this runs on.
    ManagedIdentity {
        /// The id of a user-assigned identity; `None` for the system-assigned
        /// one.
        client_id: Option<String>,
    },
    /// An application with a secret.
    ClientSecret {
        /// The directory in which the application is registered.
        tenant_id: String,
        /// The application's id.
        client_id: String,
        /// The application's secret.
        secret: Secret,
    },
}

/// The output of `az account get-access-token`.
#[derive(Deserialize)]
struct CliToken {
    #[serde(rename = "accessToken")]
    access_token: String,
    /// The token's end, in seconds since the Unix epoch. Older versions of the
    /// Azure CLI give the end only as a local time.
    expires_on: Option<i64>,
}

impl From<Login> for Entra {
    fn from(login: Login) -> Self {
        Entra { login, kept: Mutex::default() }
    }
}

impl Entra {
    /// As whom we log in.
    pub fn login(&self) -> &Login {
        &self.login
    }

    /// A token that is valid at the instant `now`: the kept one, or a new one.
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
            // The next request tries to log in again; until its end the kept
            // token does.
            (Err(_), Some((token, end))) if now < *end => Ok(token.clone()),
            (Err(no), _) => Err(no),
        }
    }

    /// Asks for a new token, and returns it with its end.
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

/// Asks for the machine's own identity. The service that knows it is reached on
/// the machine's own network: by plain HTTP, and never through a proxy.
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

/// Asks for an application's token by its secret.
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

/// Options that let azure_identity use the HTTP client `http`, so that it trusts
/// whom we trust.
fn over(http: reqwest::Result<reqwest::Client>) -> Result<ClientOptions, String> {
    let http = http.map_err(|error| error.to_string())?;
    Ok(ClientOptions { transport: Some(Transport::new(Arc::new(http))), ..ClientOptions::default() })
}

/// Asks by azure_identity, and returns the token with its end.
async fn ask(credential: Arc<dyn TokenCredential>) -> Result<(Token, Time), String> {
    let answer = timeout(PATIENCE, credential.get_token(&[SCOPE], None)).await;
    let answer = answer.map_err(|_| format!("no answer in {} s", PATIENCE.as_secs()))?;
    let answer = answer.map_err(|error| first_line(&error.to_string()).to_owned())?;
    let end = Time::from_unix_millis(answer.expires_on.unix_timestamp().saturating_mul(1000));
    Ok((answer.token.secret().parse()?, end))
}

/// Asks the Azure CLI, and returns the token with its end.
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
    // serde's own error is not shown, since it may repeat what it has read.
    let strange = || no("az answered something else than a token");
    let answer: CliToken = serde_json::from_slice(&output.stdout).map_err(|_| strange())?;
    let token: Token = answer.access_token.parse().map_err(|_| strange())?;
    let end = match answer.expires_on {
        Some(seconds) => Time::from_unix_millis(seconds.saturating_mul(1000)),
        // A token whose end is not known is taken to be good for two margins. It
        // is then used for one of them before the Azure CLI is asked again.
        None => now.after(MARGIN * 2),
    };
    Ok((token, end))
}

/// The first line of a long error that says anything.
fn first_line(text: &str) -> &str {
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it says nothing")
}
