//! `iotdm-emulator fault`: a client of `/emulator/faults`.

use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::Method;
use serde_json::json;

use crate::cli::{Fault, FaultKind};
use crate::client::Emulator;

const FAULTS: &str = "/emulator/faults";

/// Carries out the command against the emulator that runs on the directory.
pub async fn run(fault: Fault) -> Result<()> {
    match fault {
        Fault::Set { device, fault, count, code, delay, data } => {
            let fault = match fault {
                FaultKind::WithholdPuback => "withholdPuback",
                FaultKind::WithholdTwinReply => "withholdTwinReply",
                FaultKind::RefuseConnect => "refuseConnect",
                FaultKind::DropLink => "dropLink",
                FaultKind::ExpireToken => "expireToken",
                FaultKind::DelayMethod => "delayMethod",
                FaultKind::DuplicateMethod => "duplicateMethod",
                FaultKind::ThrottleDevice => "throttleDevice",
                FaultKind::ThrottleService => "throttleService",
            };
            let delay = Duration::try_from_secs_f64(delay).context("--delay is not a number of seconds")?;
            let body = json!({
                "deviceId": device.to_string(),
                "fault": fault,
                "count": count,
                "code": code,
                "milliseconds": u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
            });
            Emulator::open(data.dir)?.request(FAULTS, Method::POST, &[], Some(body)).await?;
        }
        Fault::Throttle { count, data } => {
            let body = json!({ "fault": "throttleService", "count": count });
            Emulator::open(data.dir)?.request(FAULTS, Method::POST, &[], Some(body)).await?;
        }
        Fault::List { data } => {
            let faults = Emulator::open(data.dir)?.request(FAULTS, Method::GET, &[], None).await?;
            println!("{}", faults.text().await.context("the answer broke off")?);
        }
        Fault::Clear { device, data } => {
            let device = device.map(|device| ("deviceId", device.to_string()));
            Emulator::open(data.dir)?.request(FAULTS, Method::DELETE, device.as_slice(), None).await?;
        }
    }
    Ok(())
}
