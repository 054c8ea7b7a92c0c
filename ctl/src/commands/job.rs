//! `job …`: shows and cancels the jobs of the hub's own scheduler.

use std::cmp::Reverse;

use anyhow::Context as _;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cli::{JobArgs, JobListArgs};
use crate::hub::{HubClient, literal};
use crate::output::{Output, cell};
use crate::times;

/// Lists the hub's jobs, the newest first. The hub has them in no order of time, so
/// that all of them are read.
pub async fn list(hub: &HubClient, output: Output, args: JobListArgs) -> anyhow::Result<()> {
    let mut jobs = hub.jobs().all().await.context("the jobs")?;
    let is = |job: &Value, key: &str, wanted: &Option<String>| {
        let word = job.get(key).and_then(Value::as_str).unwrap_or_default();
        wanted.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(word))
    };
    jobs.retain(|job| is(job, "status", &args.status) && is(job, "type", &args.kind));
    jobs.sort_by_cached_key(|job| Reverse(made(job)));
    jobs.truncate(args.top.unwrap_or(usize::MAX));
    if !output.is_tabular() {
        return Ok(output.array(&jobs)?);
    }
    let local = times::local();
    let local = |text: &str| if output.is_text() { local(text) } else { text.to_owned() };
    let row = |job: &Value| {
        let at = |pointer: &str| local(&cell(job.pointer(pointer)));
        let of = |count: &str| at(&format!("/deviceJobStatistics/{count}"));
        vec![
            at("/jobId"),
            at("/type"),
            at("/status"),
            at("/startTime"),
            of("deviceCount"),
            of("succeededCount"),
            of("failedCount"),
        ]
    };
    let header = ["JOB", "TYPE", "STATUS", "START", "DEVICES", "SUCCEEDED", "FAILED"];
    Ok(output.table(&header, &jobs.iter().map(row).collect::<Vec<_>>())?)
}

/// When a job was made, or is to start where the hub does not say when it was made.
fn made(job: &Value) -> Option<Timestamp> {
    let at = |key: &str| job.get(key)?.as_str()?.parse().ok();
    ["createdTime", "createdDateTimeUtc", "startTime", "startTimeUtc"].into_iter().find_map(at)
}

/// Shows a job with its devices.
pub async fn show(hub: &HubClient, output: Output, args: JobArgs) -> anyhow::Result<()> {
    let mut job = hub.job(&args.job).await.with_context(|| format!("job {}", args.job))?;
    let devices = devices(hub, &args.job).await?;
    if !output.is_text() {
        if let Some(job) = job.as_object_mut() {
            job.insert("devices".into(), devices.into());
        }
        return Ok(output.json(&job)?);
    }
    let keys =
        ["jobId", "type", "status", "statusMessage", "queryCondition", "createdTime", "startTime", "endTime"];
    let rows = keys.into_iter().filter(|key| job.get(*key).is_some());
    let local = times::local();
    let rows: Vec<_> = rows.map(|key| vec![key.to_owned(), local(&cell(job.get(key)))]).collect();
    output.table(&[], &rows)?;
    if devices.is_empty() { Ok(()) } else { print_devices(output, &devices) }
}

/// Cancels a job.
pub async fn cancel(hub: &HubClient, output: Output, args: JobArgs) -> anyhow::Result<()> {
    let job = hub.cancel_job(&args.job).await.with_context(|| format!("job {}", args.job))?;
    if !output.is_text() {
        return Ok(output.json(&job)?);
    }
    Ok(output.line(format_args!("{}: {}", args.job, cell(job.get("status"))))?)
}

/// The hub's device jobs of a job: how it went for each device.
pub(crate) async fn devices(hub: &HubClient, job: &str) -> anyhow::Result<Vec<Value>> {
    let sql = format!("SELECT * FROM devices.jobs WHERE devices.jobs.jobId = {}", literal(job));
    hub.query(&sql, None).all().await.with_context(|| format!("the query \"{sql}\" failed"))
}

/// Prints a table of device jobs.
fn print_devices(output: Output, devices: &[Value]) -> anyhow::Result<()> {
    let row = |device: &Value| {
        let reply = device.pointer("/outcome/deviceMethodResponse/status");
        vec![cell(device.get("deviceId")), cell(device.get("status")), cell(reply), why(device)]
    };
    let rows: Vec<_> = devices.iter().map(row).collect();
    Ok(output.table(&["DEVICE", "STATUS", "REPLY", "WHY"], &rows)?)
}

/// What went wrong with a device, in the words of the hub or of the device.
fn why(device: &Value) -> String {
    let texts = ["/error/description", "/error/code", "/outcome/deviceMethodResponse/payload/error/message"];
    texts.iter().find_map(|at| device.pointer(at)).map_or_else(String::new, |text| cell(Some(text)))
}

/// A job, as the hub takes it, that makes `call` to each device of which
/// `condition` holds, and ends after `seconds` at the latest.
pub(crate) fn method_job(id: &str, call: &Value, condition: &str, seconds: u64) -> Value {
    json!({
        "jobId": id,
        "type": "scheduleDeviceMethod",
        "cloudToDeviceMethod": call,
        "queryCondition": condition,
        "startTime": iotdm_proto::Time::from(std::time::SystemTime::now()),
        "maxExecutionTimeInSeconds": seconds,
    })
}
