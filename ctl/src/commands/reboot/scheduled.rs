//! `reboot --job`: the hub's own scheduler calls the devices, also when this
//! program is gone.

use anyhow::Context as _;
use iotdm_proto::DeviceId;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::device::refusal;
use super::ending::{Ending, Seen};
use super::request::Request;
use super::summary;
use crate::cli::WaitArgs;
use crate::commands::job;
use crate::commands::query::cell;
use crate::error::{Exit, or_interrupt};
use crate::hub::{Hub, MethodCall, MethodReply, check_length, literal};
use crate::outcome::Outcome;
use crate::output::{Format, Output, say};
use crate::refusal::Refusal;

/// Hands the request to the scheduler and, if it is to be waited for, follows
/// the job until each device has replied. What comes after that is for
/// `status` to show.
pub(super) async fn run(
    hub: &Hub,
    output: Output,
    request: &Request,
    devices: &[DeviceId],
    condition: Option<&str>,
    waiting: &WaitArgs,
) -> anyhow::Result<Exit> {
    let id = &request.id;
    let call = MethodCall {
        method_name: "rebootDevice".to_owned(),
        payload: Some(json!(request)),
        response_timeout_in_seconds: waiting.response_timeout.as_secs(),
        connect_timeout_in_seconds: waiting.connect_timeout.as_secs(),
    };
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
            "interrupted: stopped waiting; the job stays in force, see iotdm-ctl job show {id}, or cancel it"
        )
    };
    let Some(job) = or_interrupt(ended(hub, id, waiting), notice).await? else {
        say(format_args!(
            "iotdm-ctl: job {id} has not ended in time; it stays in force, see iotdm-ctl job show {id}"
        ));
        return Ok(Exit::TimedOut);
    };
    let endings: Vec<Ending> = job::devices(hub, id).await?.iter().map(|row| ending(hub, id, row)).collect();
    match output.format() {
        Format::Text | Format::Csv => summary::print(output, &endings)?,
        Format::Json | Format::Jsonl => output.array(&endings)?,
    }
    if cell(job.get("status")) == "completed" && !endings.is_empty() {
        say(format_args!("their ends: iotdm-ctl status --where \"properties.reported.reboot.id = '{id}'\""));
        return Ok(summary::exit(&endings, None));
    }
    let why = ["statusMessage", "failureReason"].iter().find_map(|key| job.get(*key)?.as_str());
    let status = cell(job.get("status"));
    say(format_args!(
        "iotdm-ctl: job {id} {status}, {} devices{}",
        endings.len(),
        why.map_or(String::new(), |why| format!(": {why}"))
    ));
    Ok(Exit::RebootFailed)
}

/// The job once it has ended, if it has in time.
async fn ended(hub: &Hub, id: &str, waiting: &WaitArgs) -> anyhow::Result<Option<Value>> {
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

/// How it went for one device, from its row of `devices.jobs`.
fn ending(hub: &Hub, id: &str, row: &Value) -> Ending {
    let reply: Option<MethodReply> = row
        .pointer("/outcome/deviceMethodResponse")
        .and_then(|reply| serde_json::from_value(reply.clone()).ok());
    let text = |pointer: &str| row.pointer(pointer).and_then(Value::as_str);
    let (outcome, error) = match &reply {
        Some(reply) if reply.status >= 400 => (Outcome::Refused, Some(refusal(reply))),
        Some(_) => (Outcome::Accepted, None),
        None => {
            let code = text("/error/code");
            // Such as 404103-DeviceNotOnline.
            let name = code.map(|code| code.split_once('-').map_or(code, |(_, name)| name));
            let refusal = Refusal::parse(&hub.endpoint().to_string(), 0, name, "");
            let words = text("/error/description").or(code).or(text("/status")).unwrap_or("no outcome");
            (Outcome::of_error(refusal.kind().exit()), Some(words.to_owned()))
        }
    };
    Ending {
        device: text("/deviceId").unwrap_or_default().to_owned(),
        id: id.to_owned(),
        outcome,
        seen: Seen { reply, ..Seen::default() },
        error,
        hubs_fault: false,
    }
}
