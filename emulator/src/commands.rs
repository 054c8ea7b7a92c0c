//! The small commands beside `serve` and `fault`.

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::Method;
use serde_json::json;

use crate::advice;
use crate::cli::{Environment, Events, Send};
use crate::client::{Emulator, directory};
use crate::data_dir::DataDir;

/// A device may be silent for long.
const SILENCE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Prints lines for a shell.
pub fn environment(options: Environment) -> Result<()> {
    let dir = existing(options.data.dir)?;
    if let Some(device) = &options.device {
        let file = dir.device(device);
        if !file.exists() {
            bail!("{} is missing; is {device} a device of this emulator?", file.display());
        }
    }
    println!("{}", advice::environment(&dir, options.device.as_ref()));
    Ok(())
}

/// Prints how to trust the CA.
pub fn trust(dir: Option<PathBuf>) -> Result<()> {
    println!("{}", advice::trust(&existing(dir)?));
    Ok(())
}

/// Prints what devices send.
pub async fn events(options: Events) -> Result<()> {
    let emulator = Emulator::open_for(options.data.dir, SILENCE)?;
    let whose = options.device.map(|device| ("deviceId", device.to_string()));
    let mut answer = emulator.request("/emulator/events", Method::GET, whose.as_slice(), None).await?;
    eprintln!("waiting for what devices send");
    let (mut left, mut stdout) = (options.count.unwrap_or(u64::MAX), std::io::stdout().lock());
    let mut pending = Vec::new();
    while left > 0 {
        let Some(part) = answer.chunk().await.context("the emulator has stopped")? else { break };
        pending.extend_from_slice(&part);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n').filter(|_| left > 0) {
            let line: Vec<u8> = pending.drain(..=end).collect();
            stdout
                .write_all(&line)
                .and_then(|()| stdout.flush())
                .context("cannot write to standard output")?;
            left -= 1;
        }
    }
    Ok(())
}

/// Sends a message to a device.
pub async fn send(options: Send) -> Result<()> {
    let properties: HashMap<String, String> = options.property.into_iter().collect();
    let body = json!({ "body": options.text, "properties": properties });
    let path = format!(
        "/emulator/messages/{}",
        percent_encoding::utf8_percent_encode(options.device.as_str(), percent_encoding::NON_ALPHANUMERIC,)
    );
    Emulator::open(options.data.dir)?.request(&path, Method::POST, &[], Some(body)).await.map(drop)
}

fn existing(dir: Option<PathBuf>) -> Result<DataDir> {
    let dir = directory(dir)?;
    if !dir.ca().exists() {
        bail!("{} is missing; start an emulator, or name its directory with --data", dir.ca().display());
    }
    Ok(dir)
}
