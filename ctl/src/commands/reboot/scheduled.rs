//! `reboot --job`: the hub's own scheduler calls the devices, also when this
//! program is gone.

use anyhow::Context as _;
use iotdm_proto::{DeviceId, MethodName};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::device_outcome::{DeviceOutcome, Told};
use super::outcome::Outcome;
use super::request::RunRequest;
use super::summary;
use crate::cli::WaitArgs;
use crate::commands::job;
use crate::error::or_interrupt;
use crate::exit::Exit;
use crate::hub::{HubClient, HubError, HubRefusal, MethodCall, check_length, literal};
use crate::output::{Format, Output, arguments, cell, say};
use crate::reply::MethodReply;
use crate::values;

/// Hands the request to the scheduler as a job and, if it is to be waited for,
/// follows the job until each device has replied. What becomes of the request
/// after that is for `iotdm-ctl status` to show.
pub(super) async fn run(
    hub: &HubClient,
    output: Output,
    request: &RunRequest,
    devices: &[DeviceId],
    condition: Option<&str>,
    waiting: &WaitArgs,
) -> anyhow::Result<Exit> {
    let (id, timeouts) = (request.id().as_str(), waiting.timeouts);
    let payload = Some(request.payload());
    let call = MethodCall::new(&MethodName::RebootDevice, payload, timeouts.response, timeouts.connect);
    let named = || {
        let quoted: Vec<String> = devices.iter().map(|device| literal(device.as_str())).collect();
        format!("deviceId IN [{}]", quoted.join(", "))
    };
    let condition = condition.map_or_else(named, str::to_owned);
    check_length(&condition).context("--job")?;
    let seconds = waiting.wait_timeout.as_secs().max(1);
    let body = job::method_job(id, &json!(call), &condition, seconds);
    let made = hub.create_job(id, &body).await.context("the hub's scheduler")?;
    say(format_args!("job {id}: {}", cell(made.get("status"))));
    if waiting.no_wait {
        return if output.is_text() {
            Ok(Exit::Done)
        } else {
            Ok(output.json(&made).map(|()| Exit::Done)?)
        };
    }
    let notice = || {
        format!(
            "interrupted: stopped waiting; the job stays in force, see iotdm-ctl job show {}, or cancel it",
            arguments([id])
        )
    };
    let Some(job) = or_interrupt(follow(hub, id, waiting), notice).await? else {
        say(format_args!(
            "iotdm-ctl: job {id} has not ended in time; it stays in force, see iotdm-ctl job show {}",
            arguments([id])
        ));
        return Ok(Exit::TimedOut);
    };
    let rows = job::devices(hub, id).await?;
    let outcomes: Vec<DeviceOutcome> =
        rows.iter().map(|row| outcome(hub, request, row)).collect::<Result<_, _>>()?;
    match output.format() {
        Format::Text | Format::Csv => summary::print(output, &outcomes)?,
        Format::Json | Format::Jsonl => output.array(&outcomes)?,
    }
    if cell(job.get("status")) == "completed" && !outcomes.is_empty() {
        say(format_args!("their ends: iotdm-ctl status --where \"properties.reported.reboot.id = '{id}'\""));
        return Ok(summary::exit(&outcomes, None));
    }
    let why = ["statusMessage", "failureReason"].iter().find_map(|key| job.get(*key)?.as_str());
    let status = cell(job.get("status"));
    say(format_args!(
        "iotdm-ctl: job {id} {status}, {} devices{}",
        outcomes.len(),
        why.map_or(String::new(), |why| format!(": {why}"))
    ));
    Ok(Exit::RebootFailed)
}

/// Follows a job, and returns it once it is over; `None` if that is not so in
/// time.
async fn follow(hub: &HubClient, id: &str, waiting: &WaitArgs) -> anyhow::Result<Option<Value>> {
    let deadline = Instant::now() + waiting.wait_timeout;
    let mut last = String::new();
    loop {
        let next = Instant::now() + waiting.interval;
        let job = hub.job(id).await.with_context(|| format!("job {id}"))?;
        let (status, counts) = (cell(job.get("status")), job.get("deviceJobStatistics"));
        let of = |key: &str| cell(counts.and_then(|counts| counts.get(key)));
        let now = format!(
            "{status}, {} devices, {} done, {} failed",
            of("deviceCount"),
            of("succeededCount"),
            of("failedCount")
        );
        if now != last {
            say(format_args!("job {id}: {now}"));
            last = now;
        }
        if matches!(status.as_str(), "completed" | "failed" | "cancelled") {
            return Ok(Some(job));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        sleep_until(next.min(deadline)).await;
    }
}

/// What became of the request on one device, by its row of `devices.jobs`.
fn outcome(hub: &HubClient, request: &RunRequest, row: &Value) -> Result<DeviceOutcome, HubError> {
    let host = hub.endpoint().to_string();
    let reply: Option<MethodReply> = row
        .pointer("/outcome/deviceMethodResponse")
        .and_then(|reply| serde_json::from_value(reply.clone()).ok());
    let text = |pointer: &str| row.pointer(pointer).and_then(Value::as_str);
    let (outcome, error) = match &reply {
        Some(reply) if reply.is_refusal() => (Outcome::Refused, Some(reply.refusal())),
        Some(_) => (Outcome::Accepted, None),
        None => {
            let code = text("/error/code");
            // The code is a number and a name, such as 404103-DeviceNotOnline.
            let name = code.map(|code| code.split_once('-').map_or(code, |(_, name)| name));
            let refusal = HubRefusal::parse(&host, 0, name, "");
            let words = text("/error/description").or(code).or(text("/status")).unwrap_or("no outcome");
            (Outcome::of_error(refusal.kind().into()), Some(words.to_owned()))
        }
    };
    Ok(DeviceOutcome {
        device: values::device_id(text("/deviceId").unwrap_or_default())
            .map_err(|cause| HubError::NotAHub { host, cause })?,
        id: request.id().clone(),
        outcome,
        told: Told { reply, ..Told::default() },
        error,
        hubs_fault: false,
    })
}
