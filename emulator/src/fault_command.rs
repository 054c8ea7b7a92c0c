//! `iotdm-emulator fault`: sets, lists and clears the faults of a running
//! emulator, by its REST interface.

use iotdm_proto::text::line;
use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::Method;
use serde_json::json;

use crate::cli::FaultCommand;
use crate::client::Emulator;
use crate::faults::FaultKind;
use crate::output::print_line;

/// The path of the faults, which `http` has a route for.
const FAULTS: &str = "/emulator/faults";

/// Carries out the command against the emulator that runs on the data
/// directory.
pub async fn run(command: FaultCommand) -> Result<()> {
    match command {
        FaultCommand::Set { device, fault, count, code, delay, data } => {
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
        FaultCommand::Throttle { count, data } => {
            let body = json!({ "fault": FaultKind::ThrottleService, "count": count });
            Emulator::open(data.dir)?.request(FAULTS, Method::POST, &[], Some(body)).await?;
        }
        FaultCommand::List { data } => {
            let faults = Emulator::open(data.dir)?.request(FAULTS, Method::GET, &[], None).await?;
            print_line(&line(&faults.text().await.context("the answer broke off")?))?;
        }
        FaultCommand::Clear { device, data } => {
            let device = device.map(|device| ("deviceId", device.to_string()));
            Emulator::open(data.dir)?.request(FAULTS, Method::DELETE, device.as_slice(), None).await?;
        }
    }
    Ok(())
}
