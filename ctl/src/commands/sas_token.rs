//! `sas-token`: prints a token for other tools.

use std::time::SystemTime;

use anyhow::Context as _;
use iotdm_proto::{Time, sas};
use serde_json::json;

use crate::cli::{Key, SasTokenArgs};
use crate::commands::device::key;
use crate::hub::HubClient;
use crate::output::Output;

/// Prints a token of the policy, or of a device.
pub async fn run(hub: &HubClient, output: Output, args: SasTokenArgs) -> anyhow::Result<()> {
    let expiry = Time::from(SystemTime::now()).after(args.ttl);
    let token = match &args.device {
        None => hub.token(expiry.unix_seconds())?,
        Some(device) => {
            let identity = hub.device(device).await.with_context(|| device.to_string())?;
            let key = key(&identity, Key::Primary).with_context(|| device.to_string())?;
            let resource = format!("{}/{}", hub.endpoint().host, hub.identity(device).path());
            sas::sign(&resource, &key, expiry.unix_seconds(), None)
        }
    };
    if output.is_text() {
        return Ok(output.line(format_args!("{token}"))?);
    }
    Ok(output.json(&json!({"sasToken": token, "expiresAt": expiry}))?)
}
