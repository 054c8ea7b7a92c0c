//! `reboot --job`: the hub's own scheduler calls the devices, also when this
//! program is gone.

use std::collections::BTreeSet;

use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use iotdm_proto::reply::Granted;
use iotdm_proto::{DeviceId, MethodName, RequestId};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

use super::deadline::read_until;
use super::device_outcome::{DeviceOutcome, Told};
use super::outcome::Outcome;
use super::request::RunRequest;
use super::results::Results;
use super::summary;
use crate::cli::WaitArgs;
use crate::commands::job;
use crate::commands::selection::{Conditions, selected};
use crate::error::{Usage, or_interrupt};
use crate::exit::{Exit, exit_of};
use crate::hub::{HubClient, HubError, HubRefusal, MethodCall, check_length, literal};
use crate::output::{Format, arguments, cell, say};
use crate::reply::MethodReply;
use crate::values;

/// How many twins are read at once.
const AT_ONCE: usize = 32;

/// How often the device jobs of a job that is over are asked for at most.
const LOOKS: usize = 4;

/// Hands the request to the scheduler as a job and, if it is to be waited for,
/// follows the job until each device has replied. What becomes of the request
/// after that is for `iotdm-ctl status` to show.
pub(super) async fn run(
    hub: &HubClient,
    results: &Results,
    request: &RunRequest,
    devices: &[DeviceId],
    condition: Option<&str>,
    waiting: &WaitArgs,
) -> anyhow::Result<Exit> {
    let output = results.form();
    let (id, timeouts) = (request.id().as_str(), waiting.timeouts);
    let strangers = match condition {
        Some(_) => Vec::new(),
        None => strangers(hub, devices).await?,
    };
    let is_known = |device: &&DeviceId| !strangers.contains(device);
    let mut known: Vec<&DeviceId> = devices.iter().filter(is_known).collect();
    let mut refused: Vec<DeviceOutcome> =
        strangers.iter().map(|device| no_such_device(device, request)).collect();
    let mut condition = condition;
    if request.restraint_not_among(&[]).is_some() {
        let (unaware, aware) = by_features(hub, request, known).await?;
        refused.extend(unaware);
        // A device that the condition comes to hold of later is not known to be aware.
        (known, condition) = (aware, None);
    }
    for on in &refused {
        say(format_args!("iotdm-ctl: {}: {}", on.device, on.error.as_deref().unwrap_or_default()));
    }
    if known.is_empty() {
        return Ok(end(results, &refused));
    }
    let payload = Some(request.payload());
    let call = MethodCall::new(&MethodName::RebootDevice, payload, timeouts.response, timeouts.connect);
    let condition = condition.map_or_else(|| named(&known), str::to_owned);
    check_length(&condition).context("--job")?;
    let seconds = waiting.wait_timeout(false).as_secs().max(1);
    let body = job::method_job(id, &json!(call), &condition, seconds);
    let made = hub.create_job(id, &body).await.context("the hub's scheduler")?;
    say(format_args!("job {id}: {}", cell(made.get("status"))));
    if waiting.no_wait {
        if !output.is_tabular() {
            results.print(|output| output.json(&made));
        }
        return Ok(results.exit(if refused.is_empty() { Exit::Done } else { Exit::RebootFailed }));
    }
    let notice = || {
        format!(
            "interrupted: stopped waiting; the job stays in force, see iotdm-ctl job show {}, or cancel it",
            arguments([id])
        )
    };
    let followed = or_interrupt(follow(hub, id, waiting), notice).await;
    if followed.as_ref().is_err_and(|error| exit_of(error) != Exit::Interrupted) {
        say(format_args!(
            "iotdm-ctl: job {id} is followed no longer; it stays in force, see iotdm-ctl job show {}",
            arguments([id])
        ));
    }
    let Some(job) = followed? else {
        say(format_args!(
            "iotdm-ctl: job {id} has not ended in time; it stays in force, see iotdm-ctl job show {}",
            arguments([id])
        ));
        return Ok(Exit::TimedOut);
    };
    let rows = rows(hub, &job, id, waiting).await?;
    let mut outcomes: Vec<DeviceOutcome> =
        rows.iter().map(|row| outcome(hub, request, row)).collect::<Result<_, _>>()?;
    // A device that the job says nothing about was not called: it is gone, or the
    // condition did not hold of it any more.
    let told: BTreeSet<DeviceId> = outcomes.iter().map(|on| on.device.clone()).collect();
    let untold = known.into_iter().filter(|device| !told.contains(*device));
    outcomes.extend(untold.map(|device| DeviceOutcome {
        error: Some("the hub's job did not come to it".to_owned()),
        ..DeviceOutcome::not_started(device, request.id())
    }));
    outcomes.extend(refused);
    if cell(job.get("status")) == "completed" && !told.is_empty() {
        let exit = end(results, &outcomes);
        say(format_args!("their ends: iotdm-ctl status --where \"properties.reported.reboot.id = '{id}'\""));
        return Ok(exit);
    }
    end(results, &outcomes);
    let why = ["statusMessage", "failureReason"].iter().find_map(|key| job.get(*key)?.as_str());
    let status = cell(job.get("status"));
    say(format_args!(
        "iotdm-ctl: job {id} {status}, {} devices{}",
        outcomes.len(),
        why.map_or(String::new(), |why| format!(": {why}"))
    ));
    Ok(Exit::RebootFailed)
}

/// Refuses an id that a request may have and a job may not.
pub(super) fn check_id(id: Option<&RequestId>) -> Result<(), Usage> {
    let checked = id.map_or(Ok(String::new()), |id| values::job_id(id.as_str()));
    checked.map(drop).map_err(|why| Usage(format!("--job with --id: {why}")))
}

/// Prints what became of the request on each device, and returns how to exit.
fn end(results: &Results, outcomes: &[DeviceOutcome]) -> Exit {
    results.print(|output| match output.format() {
        Format::Text => summary::print(output, false, outcomes.iter().map(summary::Line::from)),
        Format::Csv => summary::print_csv(output, outcomes),
        Format::Json | Format::Jsonl | Format::Prometheus => output.array(outcomes),
    });
    results.exit(summary::exit(outcomes.iter().map(|on| on.outcome), None))
}

/// The condition that selects `devices`.
fn named(devices: &[&DeviceId]) -> String {
    let quoted: Vec<String> = devices.iter().map(|device| literal(device.as_str())).collect();
    format!("deviceId IN [{}]", quoted.join(", "))
}

/// Those of `devices` that the hub does not have. The scheduler would leave them
/// out without a word.
async fn strangers(hub: &HubClient, devices: &[DeviceId]) -> anyhow::Result<Vec<DeviceId>> {
    let condition = named(&devices.iter().collect::<Vec<_>>());
    check_length(&condition).context("--job")?;
    let found: BTreeSet<DeviceId> =
        selected(hub, Conditions { device: Some(&condition), module: None }).await?.into_iter().collect();
    let mut strangers = Vec::new();
    for device in devices.iter().filter(|device| !found.contains(*device)) {
        // A query may be behind: the registry has the last word.
        match hub.twin(device).await {
            Ok(_) => {}
            Err(error) if Exit::from(&error) == Exit::NoSuchDevice => strangers.push(device.clone()),
            Err(error) => return Err(error).with_context(|| device.to_string()),
        }
    }
    Ok(strangers)
}

/// The devices that know what restrains the reboot, and the outcomes on those that do
/// not and are not called.
async fn by_features<'a>(
    hub: &HubClient,
    request: &RunRequest,
    devices: Vec<&'a DeviceId>,
) -> anyhow::Result<(Vec<DeviceOutcome>, Vec<&'a DeviceId>)> {
    let one = |device: &'a DeviceId| async move {
        let twin = hub.twin(device).await.with_context(|| device.to_string())?;
        anyhow::Ok((device, request.restraint_not_among(&twin.reported().features())))
    };
    let looked: Vec<_> = stream::iter(devices).map(one).buffered(AT_ONCE).try_collect().await?;
    let (mut unaware, mut aware) = (Vec::new(), Vec::new());
    for (device, missing) in looked {
        match missing {
            None => aware.push(device),
            Some(key) => unaware.push(DeviceOutcome {
                outcome: Outcome::Refused,
                error: Some(format!("agent too old for {key}; nothing was sent")),
                ..DeviceOutcome::not_started(device, request.id())
            }),
        }
    }
    Ok((unaware, aware))
}

/// The outcome on a device that the hub does not have.
fn no_such_device(device: &DeviceId, request: &RunRequest) -> DeviceOutcome {
    DeviceOutcome {
        outcome: Outcome::NoSuchDevice,
        error: Some("no such device; see iotdm-ctl device list".to_owned()),
        ..DeviceOutcome::not_started(device, request.id())
    }
}

/// The hub's device jobs of `job`, which is over. They are the result of a query,
/// which may be behind the job: it is asked again until it has as many as the job
/// has counted, a few times.
async fn rows(hub: &HubClient, job: &Value, id: &str, waiting: &WaitArgs) -> anyhow::Result<Vec<Value>> {
    let count = job.pointer("/deviceJobStatistics/deviceCount").and_then(Value::as_u64);
    let mut rows = job::devices(hub, id).await?;
    for _ in 1..LOOKS {
        if count.is_none_or(|count| u64::try_from(rows.len()).is_ok_and(|found| found >= count)) {
            break;
        }
        sleep(waiting.interval).await;
        rows = job::devices(hub, id).await?;
    }
    Ok(rows)
}

/// Follows a job, and returns it once it is over; `None` if that is not so in
/// time.
async fn follow(hub: &HubClient, id: &str, waiting: &WaitArgs) -> anyhow::Result<Option<Value>> {
    let deadline = Instant::now() + waiting.wait_timeout(false);
    let (mut last, what) = (String::new(), format!("job {id}"));
    loop {
        let next = Instant::now() + waiting.interval;
        let read = async || hub.job(id).await;
        let job = read_until(deadline, waiting.interval, &what, read).await.context(what.clone())?;
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
    let is_not_needed = |reply: &MethodReply| {
        request.is_only_if_required() && reply.granted() == Some(Granted::NotNeeded.as_str())
    };
    let note = reply.as_ref().filter(|reply| is_not_needed(reply)).and_then(MethodReply::message);
    let note = note.map(str::to_owned);
    let (outcome, error) = match &reply {
        Some(reply) if reply.is_refusal() => (Outcome::Refused, Some(reply.refusal())),
        Some(reply) if is_not_needed(reply) => (Outcome::NotNeeded, None),
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
        note,
        hubs_fault: false,
        unsent: false,
    })
}
