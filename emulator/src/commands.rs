//! The small commands beside `serve` and `fault`: `env` and `trust` print what a
//! user needs, `events`, `send` and `enrol` ask a running emulator.

use iotdm_proto::text::line;
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::advice;
use crate::cli::{Browse, Enrol, Environment, Events, Send};
use crate::client::{Emulator, directory};
use crate::data_dir::DataDir;
use crate::output::print_line;
use crate::pki::Reach;
use crate::visits::VISIT_LIFE;

/// How long `events` waits for the next message, a week: devices may be silent
/// for long.
const SILENCE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Prints the lines that a shell evaluates to find and trust the emulator.
pub fn environment(options: Environment) -> Result<()> {
    let dir = existing(options.data.dir)?;
    if let Some(device) = &options.device {
        let file = dir.device(device);
        if !file.exists() {
            bail!("{} is missing; is {device} a device of this emulator?", file.display());
        }
    }
    print_line(&advice::environment(&dir, options.device.as_ref())).map(drop)
}

/// Prints how other programs come to trust the emulator's CA.
pub fn trust(dir: Option<PathBuf>) -> Result<()> {
    let dir = existing(dir)?;
    let pem = std::fs::read(dir.ca()).with_context(|| format!("cannot read {}", dir.ca().display()))?;
    let reach = Reach::read(&pem).with_context(|| format!("{} is damaged", dir.ca().display()))?;
    print_line(&advice::trust(&dir, &reach)).map(drop)
}

/// Prints what devices send from now on, until the emulator stops or the asked
/// number of messages is printed.
pub async fn events(options: Events) -> Result<()> {
    let emulator = Emulator::open_for(options.data.dir, SILENCE)?;
    let mut query: Vec<(&str, String)> = Vec::new();
    query.extend(options.device.map(|device| ("deviceId", device.to_string())));
    for (name, wanted) in [("twinChanges", options.twin_changes), ("lifecycle", options.lifecycle)] {
        query.extend(wanted.then(|| (name, true.to_string())));
    }
    let mut response = emulator.request("/emulator/events", Method::GET, &query, None).await?;
    eprintln!("waiting for what devices send");
    let (mut left, mut pending) = (options.count.unwrap_or(u64::MAX), Vec::new());
    while left > 0 {
        let Some(part) = response.chunk().await.context("the emulator has stopped")? else { break };
        pending.extend_from_slice(&part);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n').filter(|_| left > 0) {
            let event: Vec<u8> = pending.drain(..=end).take(end).collect();
            if !print_line(&line(&String::from_utf8_lossy(&event)))? {
                return Ok(());
            }
            left -= 1;
        }
    }
    Ok(())
}

/// Prints a link that lets a browser in, with the rights of a policy.
pub async fn browse(options: Browse) -> Result<()> {
    let emulator = Emulator::open_as(&existing(options.data.dir)?, &options.policy, VISIT_LIFE)?;
    let answer: Value = emulator.request("/emulator/tickets", Method::POST, &[], None).await?.json().await?;
    let url = answer.get("url").and_then(Value::as_str).context("the emulator gave no link")?;
    print_line(&line(url)).map(drop)
}

/// Sends a cloud-to-device message.
pub async fn send(options: Send) -> Result<()> {
    let properties: HashMap<String, String> = options.property.into_iter().collect();
    let body = json!({ "body": options.text, "properties": properties });
    let path = format!(
        "/emulator/messages/{}",
        percent_encoding::utf8_percent_encode(options.device.as_str(), percent_encoding::NON_ALPHANUMERIC,)
    );
    Emulator::open(options.data.dir)?.request(&path, Method::POST, &[], Some(body)).await.map(drop)
}

/// Lets a device or a group of devices register, writes the key that the
/// emulator made to a file, and prints the id scope.
pub async fn enrol(options: Enrol) -> Result<()> {
    let dir = existing(options.data.dir)?;
    options.out.as_deref().map_or(Ok(()), check_out)?;
    let attestation = match &options.certificate {
        None => json!({ "type": "symmetricKey" }),
        Some(file) => {
            let der = CertificateDer::from_pem_file(file)
                .with_context(|| format!("cannot read a certificate in {}", file.display()))?;
            let whose = if options.group { "signingCertificates" } else { "clientCertificates" };
            let certificate = json!({ "primary": { "certificate": STANDARD.encode(der) } });
            json!({ "type": "x509", "x509": { whose: certificate } })
        }
    };
    let id = options.id.as_str();
    let (collection, name) = if options.group {
        ("enrollmentGroups", "enrollmentGroupId")
    } else {
        ("enrollments", "registrationId")
    };
    let path = format!(
        "/{collection}/{}",
        percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC)
    );
    let body = json!({ name: id, "attestation": attestation });
    let emulator = Emulator::open_provisioning(&dir)?;
    let enrolment: Value = emulator.request(&path, Method::PUT, &[], Some(body)).await?.json().await?;
    if let Some(file) = &options.out {
        let key = enrolment.pointer("/attestation/symmetricKey/primaryKey").and_then(Value::as_str);
        let key = key.context("the emulator gave no key")?;
        let write = || -> std::io::Result<()> {
            let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
            // A temporary file is readable by its owner only, and is put in
            // place whole or not at all.
            let mut temporary = tempfile::NamedTempFile::new_in(parent.unwrap_or(Path::new(".")))?;
            temporary.write_all(key.as_bytes())?;
            temporary.persist(file)?;
            Ok(())
        };
        write().with_context(|| format!("cannot write {}", file.display()))?;
    }
    let scope = std::fs::read_to_string(dir.id_scope()).context("cannot read the id scope")?;
    print_line(scope.trim_end()).map(drop)
}

/// Refuses a name for a key's file where something else than a file would be
/// replaced, before there is a key.
fn check_out(file: &Path) -> Result<()> {
    let shown = file.display();
    if file.as_os_str() == "-" {
        bail!("--out -: the key is written to a file only; name one (a file of that name is ./-)");
    }
    if file.symlink_metadata().is_ok_and(|found| !found.is_file()) {
        bail!(
            "--out {shown}: this is a link, a device or something else that is no regular file; choose another name"
        );
    }
    Ok(())
}

/// The directory of an emulator that has run.
fn existing(dir: Option<PathBuf>) -> Result<DataDir> {
    let dir = directory(dir)?;
    if !dir.ca().exists() {
        bail!("{} is missing; start an emulator, or name its directory with --data", dir.ca().display());
    }
    Ok(dir)
}
