//! One device from the call to its end.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, bail};
use iotdm_proto::DeviceId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::ending::{Ending, Seen};
use super::journal::{Journal, JournalError};
use super::request::{Request, Way};
use crate::cli::WaitArgs;
use crate::commands::query::cell;
use crate::error::{Exit, exit_of};
use crate::hub::{Hub, MethodCall, MethodReply};
use crate::hub_error::HubError;
use crate::outcome::{Outcome, RebootTimeBefore, Verdict, Watch, judge};
use crate::output::Output;
use crate::progress::{Progress, Track};

/// How long the last look may take that begins when the waiting ends.
const LAST_LOOK: Duration = Duration::from_secs(10);

/// What a device reported before the request, as far as it tells what came
/// after.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Before {
    /// Whether it reports our agent.
    pub(super) agent: bool,
    /// `rebootTime`, in whatever form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reboot_time: Option<Value>,
    /// The id of the newest request that it knew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reboot_id: Option<String>,
}

/// An outcome with the sentence about what went wrong.
type Ended = (Outcome, Option<String>);

/// What is the same for all devices of a run.
pub(super) struct Run<'a> {
    /// The hub.
    pub(super) hub: &'a Hub,
    /// Where results go.
    pub(super) output: Output,
    /// Where the rest goes.
    pub(super) progress: Progress,
    /// What is asked of them.
    pub(super) request: &'a Request,
    /// How it goes to them.
    pub(super) way: Way,
    /// How long to wait for what.
    pub(super) waiting: &'a WaitArgs,
    /// Whether to print what they reply.
    pub(super) replies: bool,
    /// What is written down.
    pub(super) journal: Option<&'a Journal>,
    /// Where a request has gone out and its end is not known.
    pub(super) in_force: RefCell<BTreeSet<DeviceId>>,
}

impl Run<'_> {
    /// One device, to its end. `sent` is what it reported before the request,
    /// if that went out in an earlier run. An error is a failure of our own
    /// output; all else is an ending.
    pub(super) async fn one(&self, device: &DeviceId, sent: Option<&Before>) -> anyhow::Result<Ending> {
        let mut seen = Seen::default();
        let track = self.progress.track(device);
        let result = self.reboot(device, sent, &track, &mut seen).await;
        self.in_force.borrow_mut().remove(device);
        let mut hubs_fault = false;
        let (outcome, error) = match result {
            Ok(ended) => ended,
            Err(error) if exit_of(&error) == Exit::Done || error.is::<JournalError>() => return Err(error),
            Err(error) => {
                hubs_fault =
                    error.chain().filter_map(|cause| cause.downcast_ref()).any(HubError::is_hubs_own);
                (Outcome::of_error(exit_of(&error)), Some(format!("{error:#}")))
            }
        };
        match (&error, seen.seconds) {
            (Some(error), _) => {
                drop(track);
                self.progress.say(format_args!("iotdm-ctl: {device}: {error}"));
            }
            (None, Some(seconds)) => {
                let proof = if seen.booted_anew() { ", boot id changed" } else { "" };
                track.end(format_args!("{} in {seconds:.0} s{proof}", outcome.words()));
            }
            (None, None) => track.end(format_args!("{}", self.without_outcome(&seen))),
        }
        let ending = Ending {
            device: device.to_string(),
            id: self.request.id.clone(),
            outcome,
            seen,
            error,
            hubs_fault,
        };
        if let Some(journal) = self.journal {
            journal.ended(&ending)?;
        }
        Ok(ending)
    }

    async fn reboot(
        &self,
        device: &DeviceId,
        sent: Option<&Before>,
        track: &Track<'_>,
        seen: &mut Seen,
    ) -> anyhow::Result<Ended> {
        let (before, ask) = match sent {
            Some(before) => (before.clone(), self.may_ask_again(device, before).await?),
            None => (self.before(device).await?, true),
        };
        // Before it is written down that the request goes out.
        let turn = match self.way {
            Way::Method if ask => Some(self.hub.turn_to_call().await),
            _ => None,
        };
        let started = Instant::now();
        if ask {
            seen.reply = self.ask(device, &before, turn, track).await?;
        } else {
            self.in_force.borrow_mut().insert(device.clone());
            track.now("sent before", ", looking for its outcome");
        }
        if let Some(reply) = &seen.reply {
            if self.output.is_text() && self.replies {
                let line =
                    || self.output.line(format_args!("{device}: reply {} {}", reply.status, reply.payload));
                self.progress.aside(line)?;
            }
            if reply.status >= 400 {
                return Ok((Outcome::Refused, Some(refusal(reply))));
            }
        }
        if self.request.check {
            return Ok((Outcome::Checked, None));
        }
        if self.waiting.no_wait {
            return Ok((Outcome::Accepted, None));
        }
        if let Some(reply) = &seen.reply {
            track.now(word(reply), "");
        }
        let watch = self.watch(track, &before, seen.reply.as_ref());
        let so_far = match (&self.way, seen.reply.is_some() || !ask) {
            (Way::Twin { .. }, _) => ", the device has not taken up the wish in its twin",
            (Way::Method, true) => ", though it was accepted",
            (Way::Method, false) => ", and no reply either: not known whether it was executed",
        };
        let (ended, twin) = self.wait(device, &watch, so_far, track).await?;
        let after = reported(&twin);
        let key = |key: &str| after.get(key).cloned();
        (seen.reboot_time, seen.reboot, seen.boot) = (key("rebootTime"), key("reboot"), key("boot"));
        if ended.0 == Outcome::TimedOut {
            return Ok(ended);
        }
        if matches!(self.way, Way::Twin { .. }) {
            self.clear_wish(device, &twin, track).await;
        }
        seen.seconds = Some((started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0);
        if self.output.is_text() && matches!(ended.0, Outcome::Completed | Outcome::Unclean) {
            let time = cell(seen.reboot_time.as_ref());
            self.progress.aside(|| self.output.line(format_args!("{device}: rebootTime {time}")))?;
        }
        Ok(ended)
    }

    /// The reported properties before the request, as far as they are needed.
    async fn before(&self, device: &DeviceId) -> anyhow::Result<Before> {
        let by_method = self.way == Way::Method;
        if by_method && self.waiting.no_wait && !self.request.check && self.journal.is_none() {
            return Ok(Before::default());
        }
        let before = Before::of(&reported(&self.hub.twin(device).await?));
        // A dry run must not reboot anything: whatever else answers
        // rebootDevice would take it for the real thing.
        if self.request.check && !before.agent {
            bail!(
                "the device reports no iotdm agent, and another rebootDevice may not know --check and reboot \
                 at once; nothing was sent"
            );
        }
        Ok(before)
    }

    /// Whether the request, which may have gone out before, may go out again:
    /// to a device that knows ids and has not been asked for something else
    /// since. Such a one carries out an id once.
    async fn may_ask_again(&self, device: &DeviceId, before: &Before) -> anyhow::Result<bool> {
        let now = Before::of(&reported(&self.hub.twin(device).await?));
        if now.reboot_id.as_ref() == Some(&self.request.id) || !before.agent {
            return Ok(false);
        }
        match now.reboot_id {
            Some(other) if before.reboot_id.as_ref() != Some(&other) => bail!(
                "not known whether request {} was executed: the device has since been asked for {other}",
                self.request.id
            ),
            _ => Ok(true),
        }
    }

    /// Sends the request. No reply is `None`, if the outcome can be waited
    /// for all the same.
    async fn ask(
        &self,
        device: &DeviceId,
        before: &Before,
        turn: Option<Instant>,
        track: &Track<'_>,
    ) -> anyhow::Result<Option<MethodReply>> {
        if !self.request.check {
            if let Some(journal) = self.journal {
                journal.sent(device, before)?;
            }
            self.in_force.borrow_mut().insert(device.clone());
        }
        if let Way::Twin { deadline } = self.way {
            if !before.agent {
                track
                    .remark(format_args!("it reports no iotdm agent, which it needs to know of such a wish"));
            }
            self.hub.patch_twin(device, &self.request.wish(deadline), None).await?;
            track.now("wished for", &format!(" in the twin, id {}", self.request.id));
            return Ok(None);
        }
        track.now("sent", &format!(" rebootDevice, id {}", self.request.id));
        let call = MethodCall {
            method_name: "rebootDevice".to_owned(),
            payload: Some(json!(self.request)),
            response_timeout_in_seconds: self.waiting.response_timeout.as_secs(),
            connect_timeout_in_seconds: self.waiting.connect_timeout.as_secs(),
        };
        let waits = !self.request.check && !self.waiting.no_wait;
        match self.hub.invoke_in_turn(device, &call, turn).await {
            Ok(reply) => Ok(Some(reply)),
            Err(error) if waits && error.may_have_been_executed() => {
                track.remark(format_args!("{error}; looking for its outcome in the twin"));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What to wait for: our id, if the reply has it. Without a reply, a
    /// device that never reported our agent may be somebody else's, too.
    fn watch(&self, track: &Track<'_>, before: &Before, reply: Option<&MethodReply>) -> Watch {
        let id = &self.request.id;
        let knows_ids = match reply {
            Some(reply) => reply.payload.get("id").and_then(Value::as_str) == Some(id),
            None => before.agent || self.way != Way::Method,
        };
        if !knows_ids && reply.is_some() {
            track.remark(format_args!("its rebootDevice knows no ids; waiting until rebootTime changes"));
        }
        let by_time = (!knows_ids).then(|| RebootTimeBefore(before.reboot_time.clone()));
        Watch { id: id.clone(), reboot_time: by_time }
    }

    /// Reads the twin until it shows the end of what is watched for, and
    /// returns that end with the twin seen last. `so_far` is how far it is if the
    /// twin says nothing.
    async fn wait(
        &self,
        device: &DeviceId,
        watch: &Watch,
        so_far: &str,
        track: &Track<'_>,
    ) -> anyhow::Result<(Ended, Value)> {
        let deadline = Instant::now() + self.request.until_due() + self.waiting.wait_timeout;
        let (mut status, mut trouble, mut last) = (None, None::<HubError>, Value::Null);
        loop {
            let next = Instant::now() + self.waiting.interval;
            match timeout_at(deadline + LAST_LOOK, self.hub.twin(device)).await {
                Ok(Ok(twin)) => {
                    trouble = None;
                    last = twin;
                    match judge(&reported(&last), watch) {
                        Verdict::Ended(outcome, error) => return Ok(((outcome, error), last)),
                        Verdict::Pending(now) if now != status => {
                            if let Some(now) = &now {
                                track.now(now, "");
                            }
                            status = now;
                        }
                        Verdict::Pending(_) => {}
                    }
                }
                Ok(Err(error)) if error.is_transient() => {
                    if trouble.is_none() {
                        track.remark(format_args!("{error}; trying again"));
                    }
                    trouble = Some(error);
                }
                Ok(Err(error)) => {
                    return Err(error).context("the reboot was asked for, but its outcome cannot be read");
                }
                Err(_) => {}
            }
            if Instant::now() >= deadline {
                let sentence = self.no_outcome(device, status, trouble, so_far);
                return Ok(((Outcome::TimedOut, Some(sentence)), last));
            }
            sleep_until(next.min(deadline)).await;
        }
    }

    /// Takes the wish out of the twin that came true or to nothing, so that a
    /// device that is set up anew does not find it. Whoever has changed the
    /// twin meanwhile is left alone.
    async fn clear_wish(&self, device: &DeviceId, twin: &Value, track: &Track<'_>) {
        if wished_id(twin) != Some(&self.request.id) {
            return;
        }
        let etag = twin.get("etag").and_then(Value::as_str);
        if let Err(error) = self.hub.patch_twin(device, &no_wish(), etag).await {
            track.remark(format_args!("the wish is left in the twin: {error}"));
        }
    }

    /// How a device is that was not waited for.
    fn without_outcome<'s>(&self, seen: &'s Seen) -> &'s str {
        match (&seen.reply, self.way) {
            (Some(reply), _) => word(reply),
            (None, Way::Twin { .. }) => "the wish waits in the twin for the device",
            (None, Way::Method) => "accepted",
        }
    }

    fn no_outcome(
        &self,
        device: &DeviceId,
        status: Option<String>,
        trouble: Option<HubError>,
        so_far: &str,
    ) -> String {
        let mut sentence =
            format!("no outcome of request {} in {:#}", self.request.id, friendly(self.waiting.wait_timeout));
        match status {
            Some(status) => sentence.push_str(&format!(", it is {status}")),
            None => sentence.push_str(so_far),
        }
        if let Some(trouble) = trouble {
            sentence.push_str(&format!("; the last look failed: {trouble}"));
        }
        sentence.push_str(&format!("; it stays in force, see iotdm-ctl status {device}"));
        sentence
    }
}

impl Before {
    fn of(reported: &Value) -> Self {
        Before {
            agent: reported.get("agent").is_some(),
            reboot_time: reported.get("rebootTime").cloned(),
            reboot_id: reported.pointer("/reboot/id").and_then(Value::as_str).map(str::to_owned),
        }
    }
}

fn reported(twin: &Value) -> Value {
    twin.pointer("/properties/reported").cloned().unwrap_or_default()
}

/// The id of the reboot that a twin wishes for.
pub fn wished_id(twin: &Value) -> Option<&str> {
    twin.pointer("/properties/desired/reboot/id")?.as_str()
}

/// The twin patch that takes such a wish back.
pub fn no_wish() -> Value {
    json!({"properties": {"desired": {"reboot": null}}})
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

/// Shown as `10m`.
fn friendly(duration: Duration) -> jiff::SignedDuration {
    duration.try_into().unwrap_or(jiff::SignedDuration::MAX)
}
