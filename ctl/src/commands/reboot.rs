//! `reboot`: calls `rebootDevice` and waits for what becomes of that very
//! request.
//!
//! The request's id is made here, so the outcome can be found in the twin even
//! if the reply got lost.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use futures_util::StreamExt as _;
use iotdm_proto::{DeviceId, Time};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout_at};
use uuid::Uuid;

use crate::cli::{OnInhibitor, RebootArgs};
use crate::commands::query::cell;
use crate::error::{Exit, exit_of, or_interrupt};
use crate::hub::{Hub, MethodCall, MethodReply};
use crate::hub_error::HubError;
use crate::outcome::{Outcome, RebootTimeBefore, Verdict, Watch, exit_of_all, judge};
use crate::output::{Format, Output, say};

/// How many devices are worked on at a time, as documented at [`run`].
const IN_FLIGHT: usize = 10;
/// How long the last look may take that begins when the waiting ends.
const LAST_LOOK: Duration = Duration::from_secs(10);

/// What became of the command for one device; with `-o json` it is printed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Ending {
    device: String,
    id: String,
    outcome: Outcome,
    #[serde(flatten)]
    seen: Seen,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// What was learnt from the device.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Seen {
    #[serde(skip_serializing_if = "Option::is_none")]
    reply: Option<MethodReply>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reboot_time: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reboot: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    boot: Option<Value>,
    /// From the call to the outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
}

/// The argument of `rebootDevice`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Payload<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_inhibitor: Option<OnInhibitor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wait_seconds: Option<u64>,
    #[serde(skip_serializing_if = "is_false")]
    check: bool,
}

/// An outcome with the sentence about what went wrong.
type Ended = (Outcome, Option<String>);

struct Run<'a> {
    hub: &'a Hub,
    output: Output,
    args: &'a RebootArgs,
    id: String,
    /// Where a request has gone out and its end is not known.
    in_force: RefCell<BTreeSet<&'a DeviceId>>,
}

/// Reboots the devices, at most ten at a time.
pub async fn run(hub: &Hub, output: Output, args: RebootArgs) -> anyhow::Result<Exit> {
    let id = args.id.clone().unwrap_or_else(|| Uuid::new_v4().to_string());
    let run = Run { hub, output, args: &args, id, in_force: RefCell::default() };
    or_interrupt(run.all(), || run.what_stays()).await
}

impl<'a> Run<'a> {
    async fn all(&self) -> anyhow::Result<Exit> {
        let mut running =
            futures_util::stream::iter(&self.args.devices).map(|device| self.one(device)).buffered(IN_FLIGHT);
        let mut endings = Vec::new();
        while let Some(ending) = running.next().await {
            let ending = ending?;
            if self.output.format() == Format::Jsonl {
                self.output.json(&ending)?;
            }
            endings.push(ending);
        }
        if self.output.format() == Format::Json {
            match endings.as_slice() {
                [only] => self.output.json(only)?,
                several => self.output.array(several)?,
            }
        }
        Ok(exit_of_all(endings.iter().map(|ending| ending.outcome)))
    }

    /// One device, to its end. An error is a failure of our own output; all
    /// else is an ending.
    async fn one(&self, device: &'a DeviceId) -> anyhow::Result<Ending> {
        let mut seen = Seen::default();
        let result = self.reboot(device, &mut seen).await;
        self.in_force.borrow_mut().remove(device);
        let (outcome, error) = match result {
            Ok(ended) => ended,
            Err(error) if exit_of(&error) == Exit::Done => return Err(error),
            Err(error) => (Outcome::of_error(exit_of(&error)), Some(format!("{error:#}"))),
        };
        if let Some(error) = &error {
            say(format_args!("iotdm-ctl: {device}: {error}"));
        }
        Ok(Ending { device: device.to_string(), id: self.id.clone(), outcome, seen, error })
    }

    async fn reboot(&self, device: &'a DeviceId, seen: &mut Seen) -> anyhow::Result<Ended> {
        let before = self.before(device).await?;
        let started = Instant::now();
        seen.reply = self.ask(device).await?;
        if let Some(reply) = &seen.reply {
            if self.output.is_text() {
                self.output.line(format_args!("{device}: reply {} {}", reply.status, reply.payload))?;
            }
            if reply.status >= 400 {
                return Ok((Outcome::Refused, Some(refusal(reply))));
            }
            say(format_args!("{device}: {}", word(reply)));
        }
        if self.args.check {
            return Ok((Outcome::Checked, None));
        }
        if self.args.no_wait {
            return Ok((Outcome::Accepted, None));
        }
        let watch = self.watch(device, &before, seen.reply.as_ref());
        let (ended, after) = self.wait(device, &watch, seen.reply.is_some()).await?;
        let key = |key: &str| after.get(key).cloned();
        (seen.reboot_time, seen.reboot, seen.boot) = (key("rebootTime"), key("reboot"), key("boot"));
        if ended.0 == Outcome::TimedOut {
            return Ok(ended);
        }
        let seconds = started.elapsed().as_secs_f64();
        seen.seconds = Some((seconds * 1000.0).round() / 1000.0);
        say(format_args!("{device}: {} in {seconds:.0} s", name(ended.0)));
        if self.output.is_text() && matches!(ended.0, Outcome::Completed | Outcome::Unclean) {
            self.output.line(format_args!("{device}: rebootTime {}", cell(seen.reboot_time.as_ref())))?;
        }
        Ok(ended)
    }

    /// The reported properties before the request, as far as they are needed.
    async fn before(&self, device: &DeviceId) -> anyhow::Result<Value> {
        if self.args.no_wait && !self.args.check {
            return Ok(Value::Null);
        }
        let before = reported(&self.hub.twin(device).await?);
        // A dry run must not reboot anything: whatever else answers
        // rebootDevice would take it for the real thing.
        if self.args.check && before.get("agent").is_none() {
            bail!(
                "the device reports no iotdm agent, and another rebootDevice may not know --check and reboot \
                 at once; nothing was sent"
            );
        }
        Ok(before)
    }

    /// Sends the request. No reply is `None`, if the outcome can be waited
    /// for all the same.
    async fn ask(&self, device: &'a DeviceId) -> anyhow::Result<Option<MethodReply>> {
        say(format_args!("{device}: sent rebootDevice, id {}", self.id));
        if !self.args.check {
            self.in_force.borrow_mut().insert(device);
        }
        let waits = !self.args.check && !self.args.no_wait;
        match self.hub.invoke(device, &self.call()).await {
            Ok(reply) => Ok(Some(reply)),
            Err(error) if waits && error.may_have_been_executed() => {
                say(format_args!("{device}: {error}; looking for its outcome in the twin"));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn call(&self) -> MethodCall {
        let payload = Payload {
            id: &self.id,
            reason: self.args.reason.as_deref(),
            delay_seconds: self.args.delay.map(|delay| delay.as_secs()),
            at: self.args.at,
            on_inhibitor: self.args.on_inhibitor,
            wait_seconds: self.args.wait_seconds,
            check: self.args.check,
        };
        MethodCall {
            method_name: "rebootDevice".to_owned(),
            payload: Some(json!(payload)),
            response_timeout_in_seconds: self.args.response_timeout.as_secs(),
            connect_timeout_in_seconds: self.args.connect_timeout.as_secs(),
        }
    }

    /// What to wait for: our id, if the reply has it. Without a reply, a
    /// device that never reported our agent may be somebody else's, too.
    fn watch(&self, device: &DeviceId, before: &Value, reply: Option<&MethodReply>) -> Watch {
        let knows_ids = match reply {
            Some(reply) => reply.payload.get("id").and_then(Value::as_str) == Some(&self.id),
            None => before.get("agent").is_some(),
        };
        if !knows_ids && reply.is_some() {
            say(format_args!("{device}: its rebootDevice knows no ids; waiting until rebootTime changes"));
        }
        let by_time = (!knows_ids).then(|| RebootTimeBefore(before.get("rebootTime").cloned()));
        Watch { id: self.id.clone(), reboot_time: by_time }
    }

    /// Reads the twin until it shows the end of what is watched for, and
    /// returns that end with the reported properties seen last.
    async fn wait(&self, device: &DeviceId, watch: &Watch, replied: bool) -> anyhow::Result<(Ended, Value)> {
        let deadline = Instant::now() + self.until_due() + self.args.wait_timeout;
        let (mut status, mut trouble, mut last) = (None, None::<HubError>, Value::Null);
        loop {
            let next = Instant::now() + self.args.interval;
            match timeout_at(deadline + LAST_LOOK, self.hub.twin(device)).await {
                Ok(Ok(twin)) => {
                    trouble = None;
                    last = reported(&twin);
                    match judge(&last, watch) {
                        Verdict::Ended(outcome, error) => return Ok(((outcome, error), last)),
                        Verdict::Pending(now) if now != status => {
                            if let Some(now) = &now {
                                say(format_args!("{device}: {now}"));
                            }
                            status = now;
                        }
                        Verdict::Pending(_) => {}
                    }
                }
                Ok(Err(error)) if error.is_transient() => {
                    if trouble.is_none() {
                        say(format_args!("{device}: {error}; trying again"));
                    }
                    trouble = Some(error);
                }
                Ok(Err(error)) => {
                    return Err(error).context("the reboot was asked for, but its outcome cannot be read");
                }
                Err(_) => {}
            }
            if Instant::now() >= deadline {
                let sentence = self.no_outcome(device, status, trouble, replied);
                return Ok(((Outcome::TimedOut, Some(sentence)), last));
            }
            sleep_until(next.min(deadline)).await;
        }
    }

    /// How long it is until the reboot may begin.
    fn until_due(&self) -> Duration {
        let until = |at: Time| at.since(Time::from(SystemTime::now()));
        self.args.delay.or(self.args.at.map(until)).unwrap_or_default()
    }

    fn no_outcome(
        &self,
        device: &DeviceId,
        status: Option<String>,
        trouble: Option<HubError>,
        replied: bool,
    ) -> String {
        let mut sentence =
            format!("no outcome of request {} in {:#}", self.id, friendly(self.args.wait_timeout));
        match (status, replied) {
            (Some(status), _) => sentence.push_str(&format!(", it is {status}")),
            (None, true) => sentence.push_str(", though it was accepted"),
            (None, false) => sentence.push_str(", and no reply either: not known whether it was executed"),
        }
        if let Some(trouble) = trouble {
            sentence.push_str(&format!("; the last look failed: {trouble}"));
        }
        sentence.push_str(&format!("; it stays in force, see iotdm-ctl status {device}"));
        sentence
    }

    fn what_stays(&self) -> String {
        let in_force = self.in_force.borrow();
        if in_force.is_empty() {
            return "interrupted: stopped waiting; no request is in force".into();
        }
        let devices = in_force.iter().map(|device| device.as_str()).collect::<Vec<_>>().join(" ");
        format!(
            "interrupted: stopped waiting; the request {} stays in force, see iotdm-ctl status {devices}",
            self.id
        )
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

fn reported(twin: &Value) -> Value {
    twin.pointer("/properties/reported").cloned().unwrap_or_default()
}

/// What the device says about why it refused.
pub fn refusal(reply: &MethodReply) -> String {
    let text = |pointer: &str| reply.payload.pointer(pointer).and_then(Value::as_str);
    match (text("/error/code"), text("/error/message")) {
        (Some(code), Some(message)) => {
            format!("the device refused with status {}: {code}, {message}", reply.status)
        }
        _ => format!("the device refused with status {}: {}", reply.status, reply.payload),
    }
}

/// What the device calls the state of the request.
fn word(reply: &MethodReply) -> &str {
    reply.payload.get("status").and_then(Value::as_str).unwrap_or("accepted")
}

fn name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Completed => "completed",
        Outcome::Unclean => "came back",
        Outcome::Cancelled => "cancelled",
        _ => "failed",
    }
}

/// Shown as `10m`.
fn friendly(duration: Duration) -> jiff::SignedDuration {
    duration.try_into().unwrap_or(jiff::SignedDuration::MAX)
}
