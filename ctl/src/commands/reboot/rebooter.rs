//! Takes one device from the call to the outcome.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, bail};
use iotdm_proto::reply::Granted;
use iotdm_proto::{DeviceId, MethodName};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::before::Before;
use super::device_outcome::{DeviceOutcome, Told};
use super::journal::{Journal, JournalError};
use super::outcome::Outcome;
use super::request::{RunRequest, Way};
use super::watch::{OutcomeWithError, RebootTimeBefore, Seen, Watch};
use crate::cli::WaitArgs;
use crate::exit::{Exit, exit_of};
use crate::hub::{HubClient, HubError, MethodCall};
use crate::output::{Output, arguments, cell};
use crate::progress::{Progress, Track};
use crate::reply::MethodReply;
use crate::reported::Reported;
use crate::twin::{Twin, without_wish};

/// How many devices a sentence names at most, so that it stays one to read.
const NAMED: usize = 5;

/// How long reading the twin for the last time may take, beyond the time that the
/// user wants to wait: long enough for a hub that answers at all.
const LAST_LOOK: Duration = Duration::from_secs(10);

/// What is the same for all devices of a run.
pub(super) struct Rebooter<'a> {
    /// The hub.
    pub(super) hub: &'a HubClient,
    /// Where results go.
    pub(super) output: Output,
    /// Where everything else goes.
    pub(super) progress: Progress,
    /// What is asked of the devices.
    pub(super) request: &'a RunRequest,
    /// Which way the request goes to the devices.
    pub(super) way: Way,
    /// How long to wait for what.
    pub(super) waiting: &'a WaitArgs,
    /// Whether to print what the devices reply.
    pub(super) prints_replies: bool,
    /// Where it is written down how far the run is, if anywhere.
    pub(super) journal: Option<&'a Journal>,
    /// The devices that the request has gone out to and of which no outcome is
    /// known yet.
    pub(super) in_force: RefCell<BTreeSet<DeviceId>>,
}

impl Rebooter<'_> {
    /// Takes one device to its outcome. If the request has gone out to it in an
    /// earlier run, `sent` is what the device reported before. The error is a
    /// failure of our own output or journal; every other failure is an outcome.
    pub(super) async fn one(
        &self,
        device: &DeviceId,
        sent: Option<&Before>,
    ) -> anyhow::Result<DeviceOutcome> {
        let mut told = Told::default();
        let track = self.progress.track(device);
        let result = self.reboot(device, sent, &track, &mut told).await;
        self.in_force.borrow_mut().remove(device);
        let mut hubs_fault = false;
        let OutcomeWithError { outcome, error } = match result {
            Ok(outcome) => outcome,
            Err(error) if exit_of(&error) == Exit::Done || error.is::<JournalError>() => return Err(error),
            Err(error) => {
                hubs_fault =
                    error.chain().filter_map(|cause| cause.downcast_ref()).any(HubError::is_hubs_own);
                let outcome = Outcome::of_error(exit_of(&error));
                OutcomeWithError { outcome, error: Some(format!("{error:#}")) }
            }
        };
        match (&error, told.seconds) {
            (Some(error), _) => {
                drop(track);
                self.progress.say(format_args!("iotdm-ctl: {device}: {error}"));
            }
            (None, Some(seconds)) => {
                let proof = if told.booted_anew() { ", boot id changed" } else { "" };
                track.finish(format_args!("{} in {seconds:.0} s{proof}", outcome.words()));
            }
            (None, None) => track.finish(format_args!("{}", self.state_unwaited(&told))),
        }
        let id = self.request.id().clone();
        let outcome = DeviceOutcome { device: device.clone(), id, outcome, told, error, hubs_fault };
        if let Some(journal) = self.journal {
            journal.outcome(&outcome)?;
        }
        Ok(outcome)
    }

    /// What [`Rebooter::one`] does, but for the account of it. `told` is filled on
    /// the way, so that it is known after an error as well.
    async fn reboot(
        &self,
        device: &DeviceId,
        sent: Option<&Before>,
        track: &Track<'_>,
        told: &mut Told,
    ) -> anyhow::Result<OutcomeWithError> {
        let without_error = |outcome| Ok(OutcomeWithError { outcome, error: None });
        let (before, ask) = match sent {
            Some(before) => (before.clone(), self.may_ask_again(device, before).await?),
            None => (self.before(device).await?, true),
        };
        // The turn comes first and then the line in the journal: a run that is
        // stopped while it waits for the turn has sent nothing.
        let turn = match self.way {
            Way::Method if ask => Some(self.hub.turn_to_call().await),
            _ => None,
        };
        let started = Instant::now();
        if ask {
            told.reply = self.ask(device, &before, turn, track).await?;
        } else {
            self.in_force.borrow_mut().insert(device.clone());
            track.now("sent before", ", looking for its outcome");
        }
        if let Some(reply) = &told.reply {
            if self.output.is_text() && self.prints_replies {
                let line =
                    || self.output.line(format_args!("{device}: reply {} {}", reply.status, reply.payload));
                self.progress.aside(line)?;
            }
            if reply.is_refusal() {
                return Ok(OutcomeWithError { outcome: Outcome::Refused, error: Some(reply.refusal()) });
            }
        }
        if self.request.is_dry_run() {
            return without_error(Outcome::Checked);
        }
        if self.waiting.no_wait {
            return without_error(Outcome::Accepted);
        }
        if let Some(reply) = &told.reply {
            track.now(granted(reply), "");
        }
        let watch = self.watch(track, &before, told.reply.as_ref());
        let so_far = match (&self.way, told.reply.is_some() || !ask) {
            (Way::Twin { .. }, _) => ", the device has not taken up the wish in its twin",
            (Way::Method, true) => ", though it was accepted",
            (Way::Method, false) => ", and no reply either: not known whether it was executed",
        };
        let (outcome, twin) = self.wait(device, &watch, so_far, track).await?;
        told.reported = Reported { agent: None, ..twin.reported() };
        if outcome.outcome == Outcome::TimedOut {
            return Ok(outcome);
        }
        if matches!(self.way, Way::Twin { .. }) {
            self.clear_wish(device, &twin, track).await;
        }
        told.seconds = Some((started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0);
        if self.output.is_text() && matches!(outcome.outcome, Outcome::Completed | Outcome::Unclean) {
            let time = cell(told.reported.reboot_time.as_ref());
            self.progress.aside(|| self.output.line(format_args!("{device}: rebootTime {time}")))?;
        }
        Ok(outcome)
    }

    /// What the device reports before the request, read only if it is needed.
    async fn before(&self, device: &DeviceId) -> anyhow::Result<Before> {
        let by_method = self.way == Way::Method;
        if by_method && self.waiting.no_wait && !self.request.is_dry_run() && self.journal.is_none() {
            return Ok(Before::default());
        }
        let before = Before::from(self.hub.twin(device).await?.reported());
        // A dry run must not reboot anything, and somebody else's rebootDevice
        // would not heed `check`.
        if self.request.is_dry_run() && !before.agent {
            bail!(
                "the device reports no iotdm agent, and another rebootDevice may not know --check and reboot \
                 at once; nothing was sent"
            );
        }
        Ok(before)
    }

    /// Whether the request, which may have gone out before, may go out again. It
    /// may to a device that runs the daemon, which carries out each id once, and
    /// that has not been asked for something else since.
    async fn may_ask_again(&self, device: &DeviceId, before: &Before) -> anyhow::Result<bool> {
        let now = Before::from(self.hub.twin(device).await?.reported());
        let id = self.request.id();
        if now.reboot_id.as_deref() == Some(id.as_str()) || !before.agent {
            return Ok(false);
        }
        match now.reboot_id {
            Some(other) if before.reboot_id.as_ref() != Some(&other) => bail!(
                "not known whether request {id} was executed: the device has since been asked for {other}"
            ),
            _ => Ok(true),
        }
    }

    /// Sends the request, in the turn `turn` if one has been waited for. `None` is
    /// no reply, where the outcome can be waited for all the same.
    async fn ask(
        &self,
        device: &DeviceId,
        before: &Before,
        turn: Option<Instant>,
        track: &Track<'_>,
    ) -> anyhow::Result<Option<MethodReply>> {
        if !self.request.is_dry_run() {
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
            track.now("wished for", &format!(" in the twin, id {}", self.request.id()));
            return Ok(None);
        }
        let (method, timeouts) = (MethodName::RebootDevice, self.waiting.timeouts);
        track.now("sent", &format!(" {method}, id {}", self.request.id()));
        let payload = Some(self.request.payload());
        let call = MethodCall::new(&method, payload, timeouts.response, timeouts.connect);
        let waits = !self.request.is_dry_run() && !self.waiting.no_wait;
        match self.hub.invoke_in_turn(device, &call, turn).await {
            Ok(reply) => Ok(Some(reply)),
            Err(error) if waits && error.may_have_been_executed() => {
                track.remark(format_args!("{error}; looking for its outcome in the twin"));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What to wait for: the request's id, if the reply repeats it. Without a
    /// reply, a device that has not reported the daemon may run somebody else's
    /// program, which knows no ids.
    fn watch(&self, track: &Track<'_>, before: &Before, reply: Option<&MethodReply>) -> Watch {
        let id = self.request.id();
        let knows_ids = match reply {
            Some(reply) => reply.request_id() == Some(id.as_str()),
            None => before.agent || self.way != Way::Method,
        };
        if !knows_ids && reply.is_some() {
            track.remark(format_args!("its rebootDevice knows no ids; waiting until rebootTime changes"));
        }
        let by_time = (!knows_ids).then(|| RebootTimeBefore(before.reboot_time.clone()));
        Watch { id: id.clone(), reboot_time: by_time }
    }

    /// Reads the twin until it shows the outcome that is watched for, and returns
    /// the outcome with the twin that was read last. `so_far` is what is known of
    /// the request if the twin says nothing about it.
    async fn wait(
        &self,
        device: &DeviceId,
        watch: &Watch,
        so_far: &str,
        track: &Track<'_>,
    ) -> anyhow::Result<(OutcomeWithError, Twin)> {
        let deadline = Instant::now() + self.request.until_due() + self.waiting.wait_timeout;
        let (mut status, mut trouble, mut last) = (None, None::<HubError>, Twin::default());
        loop {
            let next = Instant::now() + self.waiting.interval;
            match timeout_at(deadline + LAST_LOOK, self.hub.twin(device)).await {
                Ok(Ok(twin)) => {
                    trouble = None;
                    last = twin;
                    match watch.look(&last.reported()) {
                        Seen::Outcome(outcome) => return Ok((outcome, last)),
                        Seen::Pending(now) if now != status => {
                            if let Some(now) = &now {
                                track.now(now, "");
                            }
                            status = now;
                        }
                        Seen::Pending(_) => {}
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
                let error = Some(self.no_outcome(device, status, trouble, so_far));
                return Ok((OutcomeWithError { outcome: Outcome::TimedOut, error }, last));
            }
            sleep_until(next.min(deadline)).await;
        }
    }

    /// Takes the wish, of which the outcome is known, out of the twin, so that a
    /// device that is set up anew does not find it. If somebody has changed the
    /// twin meanwhile, the wish is left there.
    async fn clear_wish(&self, device: &DeviceId, twin: &Twin, track: &Track<'_>) {
        if twin.wish_id() != Some(self.request.id().as_str()) {
            return;
        }
        if let Err(error) = self.hub.patch_twin(device, &without_wish(), twin.etag()).await {
            track.remark(format_args!("the wish is left in the twin: {error}"));
        }
    }

    /// How far the request is on a device of which the outcome was not waited for.
    fn state_unwaited<'t>(&self, told: &'t Told) -> &'t str {
        match (&told.reply, self.way) {
            (Some(reply), _) => granted(reply),
            (None, Way::Twin { .. }) => "the wish waits in the twin for the device",
            (None, Way::Method) => "accepted",
        }
    }

    /// That no outcome came in time, and how far the request is.
    fn no_outcome(
        &self,
        device: &DeviceId,
        status: Option<String>,
        trouble: Option<HubError>,
        so_far: &str,
    ) -> String {
        let mut sentence = format!(
            "no outcome of request {} in {:#}",
            self.request.id(),
            friendly(self.waiting.wait_timeout)
        );
        match status {
            Some(status) => sentence.push_str(&format!(", it is {status}")),
            None => sentence.push_str(so_far),
        }
        if let Some(trouble) = trouble {
            sentence.push_str(&format!("; the last look failed: {trouble}"));
        }
        sentence
            .push_str(&format!("; it stays in force, see iotdm-ctl status {}", arguments([device.as_str()])));
        sentence
    }

    /// What is the case when Ctrl-C ends the waiting.
    pub(super) fn what_stays(&self) -> String {
        let (in_force, id) = (self.in_force.borrow(), self.request.id());
        let mut sentence = match in_force.len() {
            0 => "interrupted: stopped waiting; no request is in force".to_owned(),
            several if several > NAMED => format!(
                "interrupted: stopped waiting; the request {id} stays in force on {several} devices, see iotdm-ctl \
                 status --where \"properties.reported.reboot.id = '{id}'\""
            ),
            _ => format!(
                "interrupted: stopped waiting; the request {id} stays in force, see iotdm-ctl status {}",
                arguments(in_force.iter().map(DeviceId::as_str))
            ),
        };
        if let Some(journal) = self.journal {
            sentence.push_str(&format!("; to go on: {}", journal.how_to_resume()));
        }
        sentence
    }
}

/// What the device grants, in its own word if it has one.
fn granted(reply: &MethodReply) -> &str {
    reply.granted().unwrap_or(Granted::Accepted.as_str())
}

/// A duration that is shown as `10m`.
fn friendly(duration: Duration) -> jiff::SignedDuration {
    duration.try_into().unwrap_or(jiff::SignedDuration::MAX)
}
