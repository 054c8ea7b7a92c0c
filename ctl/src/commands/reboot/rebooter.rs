//! Takes one device from the call to the outcome.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use iotdm_proto::reply::Granted;
use iotdm_proto::{DeviceId, MethodName, RequestId, Time};
use tokio::sync;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::before::Before;
use super::deadline::{Deadline, GRACE, HUB_PATIENCE, Look};
use super::device_outcome::{DeviceOutcome, Told};
use super::journal::{Journal, JournalError, Sent};
use super::outcome::Outcome;
use super::request::{RunRequest, Way};
use super::results::Results;
use super::soak::{Canary, State, left};
use super::watch::{OutcomeWithError, RebootTimeBefore, Seen, Stage, Watch};
use crate::cli::{Until, WaitArgs};
use crate::exit::{Exit, exit_of};
use crate::hub::{HubClient, HubError, MethodCall, Turn};
use crate::output::{arguments, cell};
use crate::progress::{Progress, Tone, Track};
use crate::reply::MethodReply;
use crate::reported::Reported;
use crate::twin::{Twin, without_wish};

/// How many devices a sentence names at most, so that it stays one to read.
const NAMED: usize = 5;

/// How often at least a hub that is away is tried.
const BETWEEN_TRIES: Duration = Duration::from_secs(2);

/// How often a device that has booted may say nothing of its health, though it can,
/// before its boot has to do.
const SILENT_LOOKS: usize = 3;

/// No shutdown takes longer: a device that says so has another clock.
const LONGEST_SHUTDOWN: Duration = Duration::from_secs(24 * 60 * 60);

/// What is the same for all devices of a run.
pub(super) struct Rebooter<'a> {
    /// The hub.
    pub(super) hub: &'a HubClient,
    /// Where results go.
    pub(super) results: &'a Results,
    /// Where everything else goes.
    pub(super) progress: Progress,
    /// What is asked of the devices.
    pub(super) request: &'a RunRequest,
    /// The ids of the requests to devices that are asked by other ids than the
    /// run's.
    pub(super) ids: &'a BTreeMap<DeviceId, RequestId>,
    /// Which way the request goes to the devices.
    pub(super) way: Way,
    /// How long to wait for what.
    pub(super) waiting: &'a WaitArgs,
    /// What makes a reboot complete, if that is said.
    pub(super) until: Option<Until>,
    /// For how long canaries are watched.
    pub(super) soak: Option<Duration>,
    /// Becomes true once no other device will be started, so that no canary has to be
    /// watched any more.
    pub(super) has_stopped: sync::watch::Sender<bool>,
    /// Whether to print what the devices reply.
    pub(super) prints_replies: bool,
    /// Where it is written down how far the run is, if anywhere.
    pub(super) journal: Option<&'a Journal>,
    /// The devices that the request has gone out to and of which no outcome is
    /// known yet.
    pub(super) in_force: RefCell<BTreeSet<DeviceId>>,
}

/// The request to one device.
struct Call<'a> {
    device: &'a DeviceId,
    request: RunRequest,
    /// What a query told of the device a moment ago.
    known: Option<Before>,
    /// What the device reported before.
    before: Before,
    /// When the request went out first, as far as that is known.
    sent_at: Option<Time>,
    /// How long to wait for the outcome, from the time of the reboot on.
    patience: Duration,
    track: &'a Track<'a>,
}

/// The run was stopped before the request could go out.
#[derive(Debug, thiserror::Error)]
#[error("the run stopped before its turn")]
struct Stopped;

/// What waiting for an outcome came to.
enum Waited {
    /// An outcome, with the twin that was read last.
    Outcome(OutcomeWithError, Box<Twin>),
    /// The device, which knows ids, has not heard of the request, which may have
    /// got lost when the hub went away.
    Unheard,
}

impl Call<'_> {
    /// Whether the newest request that a device reports, if any, is an earlier one than
    /// this: the same as before the call, or one that it granted before this one went out,
    /// which what was read before need not show. Should the device's clock be wrong, it is
    /// asked twice at most, and carries out each id once.
    fn is_newest_an_earlier_one(&self, reported: &Reported) -> bool {
        let newest = reported.request_id();
        let was_granted_before =
            || reported.requested_at().zip(self.sent_at).is_some_and(|(granted, sent)| granted < sent);
        newest != Some(self.request.id().as_str())
            && (newest == self.before.reboot_id.as_deref() || was_granted_before())
    }
}

impl Rebooter<'_> {
    /// Takes one device to its outcome. If the request may have gone out to it in an
    /// earlier run, `sent` tells of that; it goes out again only if `may_ask`. `known` is
    /// what a query told of the device a moment ago. A canary is then watched for as long
    /// as is asked for. The error is a failure of the program; every other failure is an
    /// outcome.
    pub(super) async fn one(
        &self,
        device: &DeviceId,
        (sent, known): (Option<&Sent>, Option<Before>),
        may_ask: bool,
        is_canary: bool,
    ) -> anyhow::Result<DeviceOutcome> {
        let mut told = Told::default();
        let mut unsent = sent.is_none();
        let track = self.progress.track(device);
        let request = match self.ids.get(device) {
            Some(id) => self.request.with_id(id.clone()),
            None => self.request.clone(),
        };
        let id = request.id().clone();
        let patience = self.waiting.wait_timeout(false);
        let (before, sent_at) = (Before::default(), sent.and_then(|sent| sent.at));
        let mut call = Call { device, request, known, before, sent_at, patience, track: &track };
        let mut result = self.reboot(&mut call, sent, may_ask, &mut told, &mut unsent).await;
        self.in_force.borrow_mut().remove(device);
        let mut is_final = true;
        if let Some(soak) = self.soak.filter(|_| is_canary)
            && let Ok(OutcomeWithError { outcome: Outcome::Completed, .. }) = &result
        {
            match self.soak(&call, &told.reported, sent, soak).await {
                Ok(is_over) => is_final = is_over,
                Err(worse) => result = worse,
            }
        }
        let mut hubs_fault = false;
        let OutcomeWithError { outcome, error, note } = match result {
            Ok(outcome) => outcome,
            Err(error) if error.is::<Stopped>() => OutcomeWithError::bare(Outcome::NotStarted),
            // Whether an earlier call reached the device is as open as it was.
            Err(error) if error.is::<JournalError>() => {
                let error = Some(format!("{error:#}"));
                OutcomeWithError { error, ..OutcomeWithError::bare(Outcome::NotStarted) }
            }
            Err(error) => {
                hubs_fault =
                    error.chain().filter_map(|cause| cause.downcast_ref()).any(HubError::is_hubs_own);
                let outcome = Outcome::of_error(exit_of(&error));
                OutcomeWithError { error: Some(format!("{error:#}")), ..OutcomeWithError::bare(outcome) }
            }
        };
        let tone = if outcome.exit() == Exit::Done { Tone::Good } else { Tone::Bad };
        let more = note.as_ref().map_or_else(String::new, |note| format!("; {note}"));
        match (&error, told.seconds) {
            (Some(error), _) => track.finish(format_args!("{error}"), tone),
            (None, Some(seconds)) => {
                let proof = if told.booted_anew() { ", boot id changed" } else { "" };
                track.finish(format_args!("{} in {seconds:.0} s{proof}{more}", outcome.words()), tone);
            }
            (None, None) => {
                track.finish(format_args!("{}{more}", self.state_unwaited(outcome, &told)), Tone::Plain)
            }
        }
        let device = device.clone();
        let outcome = DeviceOutcome { device, id, outcome, told, error, note, hubs_fault, unsent };
        // A canary that was not watched to the end is one still over --resume.
        if let Some(journal) = self.journal.filter(|_| is_final)
            && let Err(error) = journal.outcome(&outcome)
        {
            track.remark(format_args!("{error}"));
        }
        Ok(outcome)
    }

    /// What [`Rebooter::one`] does, but for the account of it. `told` and `unsent`
    /// are filled on the way, so that they are known after an error as well.
    async fn reboot(
        &self,
        call: &mut Call<'_>,
        sent: Option<&Sent>,
        may_ask: bool,
        told: &mut Told,
        unsent: &mut bool,
    ) -> anyhow::Result<OutcomeWithError> {
        let (device, track) = (call.device, call.track);
        let refused =
            |error| Ok(OutcomeWithError { error: Some(error), ..OutcomeWithError::bare(Outcome::Refused) });
        let ask = match sent {
            Some(sent) => {
                call.before = sent.before.clone();
                self.may_ask_again(call).await?
            }
            None => {
                call.before = self.before(call).await?;
                if let Some(key) = call.request.restraint_not_among(&call.before.features) {
                    return refused(format!("agent too old for {key}; nothing was sent"));
                }
                let is_asked_for = self.until.is_some_and(|until| until != Until::Booted);
                if is_asked_for && !call.before.may_tell_health() {
                    let what = "the device does not report its health (--until); nothing was sent";
                    return refused(what.to_owned());
                }
                true
            }
        };
        if ask && !may_ask {
            bail!("{}", has_stopped(call.request.id()));
        }
        let started = Instant::now();
        let until_healthy = match self.until {
            Some(until) => until != Until::Booted,
            None => call.before.may_tell_health(),
        };
        call.patience = self.waiting.wait_timeout(until_healthy);
        let mut deadline = Deadline::new(call.request.until_due() + call.patience);
        let mut was_unheard = false;
        let (outcome, twin) = loop {
            let asked = Instant::now();
            if ask {
                call.sent_at.get_or_insert_with(|| SystemTime::now().into());
                told.reply = match self.ask(call, unsent).await {
                    // It may have heard of the request all the same, and be going down.
                    Err(error) if was_unheard && is_of_the_moment(&error) => {
                        track.remark(format_args!("{error:#}; looking for its outcome in the twin"));
                        None
                    }
                    asked => asked?,
                };
            } else {
                self.in_force.borrow_mut().insert(device.clone());
                track.now("sent before", ", looking for its outcome");
            }
            if let Some(reply) = &told.reply {
                if self.prints_replies && self.results.form().is_text() {
                    self.results.print(|output| {
                        output.line(format_args!("{device}: reply {} {}", reply.status, reply.payload))
                    });
                }
                if reply.is_refusal() {
                    return refused(reply.refusal());
                }
                if call.request.is_only_if_required() && granted(reply) == Granted::NotNeeded.as_str() {
                    return Ok(OutcomeWithError::not_needed(reply.message()));
                }
            }
            if call.request.is_dry_run() {
                return Ok(OutcomeWithError::bare(Outcome::Checked));
            }
            if self.waiting.no_wait {
                return Ok(OutcomeWithError::bare(Outcome::Accepted));
            }
            if let Some(reply) = &told.reply {
                track.now(granted(reply), "");
            }
            let watch = self.watch(call, told.reply.as_ref());
            let so_far = match (&self.way, told.reply.is_some() || !ask) {
                (Way::Twin { .. }, _) => ", the device has not taken up the wish in its twin",
                (Way::Method, true) => ", though it was accepted",
                (Way::Method, false) => ", and no reply either: not known whether it was executed",
            };
            let may_be_unheard = ask && told.reply.is_none() && self.way == Way::Method && call.before.agent;
            let unheard_since = may_be_unheard.then_some(asked);
            // No machine is back so soon after it has said that it will reboot. For a single
            // one it is worth a look that somebody sees how it goes.
            if self.journal.is_some() && told.reply.is_some() {
                sleep_until(deadline.next(Instant::now() + self.waiting.interval)).await;
            }
            match self.wait(call, &watch, &mut deadline, unheard_since, so_far).await? {
                Waited::Outcome(outcome, twin) => break (outcome, twin),
                Waited::Unheard => {
                    was_unheard = true;
                    track.remark(format_args!("it has not heard of the request; asking again"));
                }
            }
        };
        told.reported = Reported { agent: None, ..twin.reported() };
        if outcome.outcome == Outcome::TimedOut {
            return Ok(outcome);
        }
        if matches!(self.way, Way::Twin { .. }) {
            self.clear_wish(call, &twin).await;
        }
        if outcome.outcome == Outcome::NotNeeded {
            return Ok(outcome);
        }
        let elapsed = match sent {
            None => Some(started.elapsed()),
            Some(sent) => since(sent.at, &told.reported, &call.request),
        };
        told.seconds = elapsed.map(|elapsed| (elapsed.as_secs_f64() * 1000.0).round() / 1000.0);
        if self.results.form().is_text() && outcome.outcome.is_after_a_boot() {
            let time = cell(told.reported.reboot_time.as_ref());
            self.results.print(|output| output.line(format_args!("{device}: rebootTime {time}")));
        }
        Ok(outcome)
    }

    /// Watches a canary whose reboot is complete, and which reports this, for as long as
    /// `soak` says, or until no other device will be started; returns whether that time
    /// is over. What it then came to, if it did not stay as it was, is the error.
    async fn soak(
        &self,
        call: &Call<'_>,
        reported: &Reported,
        sent: Option<&Sent>,
        soak: Duration,
    ) -> Result<bool, anyhow::Result<OutcomeWithError>> {
        let since = sent.and_then(|sent| sent.soaks_since);
        if let (None, Some(journal)) = (since, self.journal)
            && let Err(error) = journal.soaks(call.device).await
        {
            // The run stops for it, so that nobody has to wait for the canary.
            call.track.remark(format_args!("{error}"));
            return Ok(false);
        }
        let ends = Instant::now() + left(soak, since);
        call.track.now("completed", &format!(", watched for {:#} as a canary", friendly(left(soak, since))));
        let canary = Canary::new(&self.watch_by_id(call), reported);
        let (mut trouble_since, mut was_away) = (None::<Instant>, false);
        let mut has_stopped = self.has_stopped.subscribe();
        loop {
            let now = Instant::now();
            // Whether this look finds the canary as it was.
            let is_settled;
            let worse = match self.hub.twin(call.device).await {
                Ok(twin) => {
                    trouble_since = None;
                    let state = canary.look(&twin);
                    is_settled = state == State::Same;
                    match state {
                        State::Same => {
                            was_away = false;
                            None
                        }
                        State::Unsettled(word) => {
                            was_away = false;
                            (now >= ends + call.patience).then(|| {
                                format!(
                                    "the canary has not settled while it was watched (--soak): it is {word}"
                                )
                            })
                        }
                        State::Worse(why) => Some(why),
                        // A device that connects anew, with a new token, is no longer
                        // away at the next look.
                        State::Disconnected => {
                            let is_excused = self.hub.was_away_within(GRACE);
                            let is_away = std::mem::replace(&mut was_away, !is_excused) && !is_excused;
                            is_away
                                .then(|| "the canary has gone away while it was watched (--soak)".to_owned())
                        }
                    }
                }
                Err(error) if error.is_transient() => {
                    is_settled = false;
                    let since = *trouble_since.get_or_insert_with(|| {
                        call.track.remark(format_args!("{error}; trying again"));
                        now
                    });
                    if since.elapsed() > HUB_PATIENCE {
                        return Err(Err(error.into()));
                    }
                    None
                }
                Err(error) => return Err(Err(error.into())),
            };
            if let Some(error) = worse {
                let outcome = OutcomeWithError::bare(Outcome::Unhealthy);
                return Err(Ok(OutcomeWithError { error: Some(error), ..outcome }));
            }
            if now >= ends && is_settled {
                return Ok(true);
            }
            if *has_stopped.borrow() {
                return Ok(false);
            }
            let next = now + self.waiting.interval;
            let next = if is_settled { next.min(ends) } else { next };
            tokio::select! {
                () = sleep_until(next) => {}
                _ = has_stopped.changed() => {}
            }
        }
    }

    /// What the device reports before the request, read only if it is needed.
    async fn before(&self, call: &Call<'_>) -> anyhow::Result<Before> {
        let by_method = self.way == Way::Method;
        let is_dry_run = call.request.is_dry_run();
        let needs_features = call.request.restraint_not_among(&[]).is_some();
        if by_method && self.waiting.no_wait && !is_dry_run && self.journal.is_none() && !needs_features {
            return Ok(Before::default());
        }
        if let Some(known) = self.known(call).filter(|_| !is_dry_run && !needs_features) {
            return Ok(known.clone());
        }
        let before = Before::from(self.twin(call).await?.reported());
        // A dry run must not reboot anything, and somebody else's rebootDevice
        // would not heed `check`.
        if is_dry_run && !before.agent {
            bail!(
                "the device reports no iotdm agent, and another rebootDevice may not know --check and reboot \
                 at once; nothing was sent"
            );
        }
        Ok(before)
    }

    /// What a query told of a device, where that will do: it reports the daemon, and nothing
    /// is asked for that it may not be able to do.
    fn known<'c>(&self, call: &'c Call<'_>) -> Option<&'c Before> {
        let is_asked_for = self.until.is_some_and(|until| until != Until::Booted);
        call.known.as_ref().filter(|known| known.agent && (!is_asked_for || known.may_tell_health()))
    }

    /// Whether the request, which may have gone out before, may go out again. It
    /// may to a device that runs the daemon, which carries out each id once, and
    /// that has not been asked for something else since.
    async fn may_ask_again(&self, call: &Call<'_>) -> anyhow::Result<bool> {
        let id = call.request.id();
        let now = self.twin(call).await?.reported();
        if now.request_id() == Some(id.as_str()) || !call.before.agent {
            return Ok(false);
        }
        match now.request_id() {
            Some(other) if !call.is_newest_an_earlier_one(&now) => bail!(
                "not known whether request {id} was executed: the device has since been asked for {other}"
            ),
            _ => Ok(true),
        }
    }

    /// Reads the device's twin, also if the hub has to be waited for.
    async fn twin(&self, call: &Call<'_>) -> Result<Twin, HubError> {
        self.patiently(call.track, async || self.hub.twin(call.device).await).await
    }

    /// Does something that may be done twice until the hub, having been there
    /// before, is there again, or has been away for too long.
    async fn patiently<T>(
        &self,
        track: &Track<'_>,
        attempt: impl AsyncFn() -> Result<T, HubError>,
    ) -> Result<T, HubError> {
        let mut since = None;
        loop {
            let began = Instant::now();
            let error = match attempt().await {
                Err(error) if self.is_worth_waiting_for(&error) => error,
                result => return result,
            };
            self.wait_for_hub(error, &mut since, began, track).await?;
        }
    }

    /// Whether the hub is only away for now. A single request is better told of
    /// the hub's own failures.
    fn is_worth_waiting_for(&self, error: &HubError) -> bool {
        self.hub.has_answered()
            && (error.is_outage() || (self.journal.is_some() && error.is_server_failure()))
    }

    /// Waits before a hub is tried again that has been away since `since`, if not
    /// since the try that `began` then. Returns the error of one that has been away
    /// for too long.
    async fn wait_for_hub(
        &self,
        error: HubError,
        since: &mut Option<Instant>,
        began: Instant,
        track: &Track<'_>,
    ) -> Result<(), HubError> {
        match since {
            None => {
                track.remark(format_args!("{error}; trying again"));
                *since = Some(began);
            }
            Some(since) if since.elapsed() > HUB_PATIENCE => return Err(error),
            Some(_) => {}
        }
        sleep(self.waiting.interval.min(BETWEEN_TRIES)).await;
        Ok(())
    }

    /// Ends what would be sent next where the run has stopped meanwhile: devices that
    /// waited for their turn then are left alone.
    fn goes_on(&self, call: &Call<'_>, unsent: bool) -> anyhow::Result<()> {
        match *self.has_stopped.borrow() {
            false => Ok(()),
            true if unsent => Err(Stopped.into()),
            true => bail!("{}", has_stopped(call.request.id())),
        }
    }

    /// Waits for the turn of a request, or until the run has stopped.
    async fn turn(&self) -> Option<Turn<'_>> {
        let mut has_stopped = self.has_stopped.subscribe();
        let turn = async {
            match self.way {
                Way::Method => self.hub.turn_to_call().await,
                Way::Twin { .. } => self.hub.turn_to_change().await,
            }
        };
        tokio::select! {
            biased;
            _ = has_stopped.wait_for(|has_stopped| *has_stopped) => None,
            turn = turn => Some(turn),
        }
    }

    /// Sends the request. `None` is no reply, where the outcome can be waited for
    /// all the same. `unsent` becomes false once the request may have reached the
    /// device, and true again if it certainly has not.
    async fn ask(&self, call: &Call<'_>, unsent: &mut bool) -> anyhow::Result<Option<MethodReply>> {
        let Call { device, request, before, track, .. } = call;
        let is_dry_run = request.is_dry_run();
        // The turn comes first and then the line in the journal: a run that is
        // stopped while it waits for the turn has sent nothing.
        let mut turn = self.turn().await;
        self.goes_on(call, *unsent)?;
        if !is_dry_run {
            if let Some(journal) = self.journal {
                journal.sent(device, before).await?;
                self.goes_on(call, *unsent)?;
            }
            self.in_force.borrow_mut().insert((*device).clone());
        }
        let was_unsent = std::mem::replace(unsent, false);
        if let Way::Twin { deadline } = self.way {
            if !before.agent {
                track
                    .remark(format_args!("it reports no iotdm agent, which it needs to know of such a wish"));
            }
            let wish = request.wish(deadline);
            let turn = Cell::new(turn);
            let leave = async || self.hub.patch_twin_in_turn(device, &wish, turn.take()).await;
            self.patiently(track, leave).await?;
            track.now("wished for", &format!(" in the twin, id {}", request.id()));
            return Ok(None);
        }
        let (method, timeouts) = (MethodName::RebootDevice, self.waiting.timeouts);
        match is_dry_run {
            true => track.now("asked", &format!(" {method} what it would do (dry run), id {}", request.id())),
            false => track.now("sent", &format!(" {method}, id {}", request.id())),
        }
        let payload = Some(request.payload());
        let method = MethodCall::new(&method, payload, timeouts.response, timeouts.connect);
        let waits = !is_dry_run && !self.waiting.no_wait;
        let (mut away_since, mut gives_time) = (None, false);
        loop {
            let began = Instant::now();
            let error = match self.hub.invoke_in_turn(device, &method, turn.take()).await {
                Ok(reply) => return Ok(Some(reply)),
                Err(error) => error,
            };
            // Nothing was sent, so it may be sent again.
            if matches!(error, HubError::Unreachable { .. }) && self.hub.has_answered() {
                *unsent = was_unsent;
                self.wait_for_hub(error, &mut away_since, began, track).await?;
                self.goes_on(call, was_unsent)?;
                *unsent = false;
                continue;
            }
            if error.is_offline() && self.hub.was_away_within(GRACE) {
                if !gives_time {
                    track.remark(format_args!(
                        "{error}; the hub was away, the device is given time to connect"
                    ));
                    gives_time = true;
                }
                sleep(self.waiting.interval).await;
                if let Err(stopped) = self.goes_on(call, was_unsent) {
                    *unsent = was_unsent;
                    return Err(stopped);
                }
                continue;
            }
            let is_retried = self.journal.is_some() && before.agent && error.is_server_failure();
            if waits && (error.may_have_been_executed() || is_retried) {
                track.remark(format_args!("{error}; looking for its outcome in the twin"));
                return Ok(None);
            }
            *unsent = was_unsent && !error.may_have_been_executed() && !error.is_server_failure();
            return Err(error.into());
        }
    }

    /// What to wait for: the request's id, if the reply repeats it. Without a
    /// reply, a device that has not reported the daemon may run somebody else's
    /// program, which knows no ids.
    fn watch(&self, call: &Call<'_>, reply: Option<&MethodReply>) -> Watch {
        let id = call.request.id();
        let knows_ids = match reply {
            Some(reply) => reply.request_id() == Some(id.as_str()),
            None => call.before.agent || self.way != Way::Method,
        };
        if !knows_ids && reply.is_some() {
            call.track
                .remark(format_args!("its rebootDevice knows no ids; waiting until rebootTime changes"));
        }
        let by_time = (!knows_ids).then(|| RebootTimeBefore(call.before.reboot_time.clone()));
        Watch { reboot_time: by_time, ..self.watch_by_id(call) }
    }

    /// A watch for the request's id alone.
    fn watch_by_id(&self, call: &Call<'_>) -> Watch {
        Watch {
            id: call.request.id().clone(),
            reboot_time: None,
            until: self.until,
            may_tell_health: call.before.may_tell_health(),
        }
    }

    /// Reads the twin until it shows the outcome that is watched for. `so_far` is
    /// what is known of the request if the twin says nothing about it. With
    /// `unheard_since`, the request was sent then and got no reply.
    async fn wait(
        &self,
        call: &Call<'_>,
        watch: &Watch,
        deadline: &mut Deadline,
        unheard_since: Option<Instant>,
        so_far: &str,
    ) -> anyhow::Result<Waited> {
        let (mut stage, mut trouble, mut last) = (None::<Stage>, None::<HubError>, Twin::default());
        let (mut stage_since, mut silent_looks) = (Instant::now(), 0);
        loop {
            let next = Instant::now() + self.waiting.interval;
            let look = match timeout_at(deadline.limit(), self.hub.twin(call.device)).await {
                Ok(Ok(twin)) => {
                    trouble = None;
                    last = twin;
                    match watch.look(&last.reported()) {
                        Seen::Outcome(outcome) => return Ok(Waited::Outcome(outcome, last.into())),
                        Seen::Pending(now) => {
                            let word = |stage: &Option<Stage>| stage.as_ref().map(|stage| stage.word.clone());
                            if word(&now) != word(&stage) {
                                stage_since = Instant::now();
                            }
                            if let Some(now) = &now {
                                show(call.track, now, stage.as_ref(), &last.reported(), stage_since);
                            }
                            let is_silent = now.as_ref().is_some_and(|now| now.tells_no_health);
                            silent_looks = if is_silent { silent_looks + 1 } else { 0 };
                            stage = now;
                        }
                    }
                    if silent_looks >= SILENT_LOOKS && self.until.is_none() && !call.before.health {
                        let note = Some("it says nothing of its health".to_owned());
                        let outcome = OutcomeWithError { note, ..OutcomeWithError::bare(Outcome::Completed) };
                        return Ok(Waited::Outcome(outcome, last.into()));
                    }
                    Look::Read
                }
                Ok(Err(error)) if error.is_transient() => {
                    if trouble.is_none() {
                        call.track.remark(format_args!("{error}; trying again"));
                    }
                    let look = if self.is_worth_waiting_for(&error) { Look::Away } else { Look::Failed };
                    trouble = Some(error);
                    look
                }
                Ok(Err(error)) => {
                    return Err(error).context("the reboot was asked for, but its outcome cannot be read");
                }
                Err(_) => Look::Failed,
            };
            if deadline.is_over_after(look) {
                let error = Some(self.no_outcome(call, stage, trouble, so_far));
                let outcome = OutcomeWithError { error, ..OutcomeWithError::bare(Outcome::TimedOut) };
                return Ok(Waited::Outcome(outcome, last.into()));
            }
            // A call that reboots nothing since nothing is required leaves no trace.
            let may_be_lost = unheard_since.is_some_and(|asked| {
                let leaves_no_trace =
                    call.request.is_only_if_required() && asked.elapsed() >= self.waiting.interval;
                leaves_no_trace || self.hub.last_away() >= Some(asked)
            });
            if look == Look::Read && may_be_lost && call.is_newest_an_earlier_one(&last.reported()) {
                return Ok(Waited::Unheard);
            }
            sleep_until(deadline.next(next)).await;
        }
    }

    /// Takes the wish, of which the outcome is known, out of the twin, so that a
    /// device that is set up anew does not find it. If somebody has changed the
    /// twin meanwhile, the wish is left there.
    async fn clear_wish(&self, call: &Call<'_>, twin: &Twin) {
        if twin.wish_id() != Some(call.request.id().as_str()) {
            return;
        }
        if let Err(error) = self.hub.patch_twin(call.device, &without_wish(), twin.etag()).await {
            call.track.remark(format_args!("the wish is left in the twin: {error}"));
        }
    }

    /// How far the request is on a device of which the outcome was not waited for.
    fn state_unwaited<'t>(&self, outcome: Outcome, told: &'t Told) -> &'t str {
        match (&told.reply, self.way) {
            _ if matches!(outcome, Outcome::NotNeeded | Outcome::NotStarted) => outcome.words(),
            _ if !self.waiting.no_wait && outcome != Outcome::Checked => outcome.words(),
            (Some(reply), _) => granted(reply),
            (None, Way::Twin { .. }) => "the wish waits in the twin for the device",
            (None, Way::Method) => "accepted",
        }
    }

    /// That no outcome came in time, and how far the request is.
    fn no_outcome(
        &self,
        call: &Call<'_>,
        stage: Option<Stage>,
        trouble: Option<HubError>,
        so_far: &str,
    ) -> String {
        let mut sentence =
            format!("no outcome of request {} in {:#}", call.request.id(), friendly(call.patience));
        match stage {
            Some(Stage { word, held_up_by: Some(units), .. }) => {
                sentence.push_str(&format!(", it is {word}, held up by {units}"));
            }
            Some(Stage { word, .. }) => sentence.push_str(&format!(", it is {word}")),
            None => sentence.push_str(so_far),
        }
        if let Some(trouble) = trouble {
            sentence.push_str(&format!("; the last look failed: {trouble}"));
        }
        let status = self.status_command();
        sentence
            .push_str(&format!("; it stays in force, see {status} {}", arguments([call.device.as_str()])));
        sentence
    }

    /// The command that shows how devices are, or the modules of them that are meant.
    fn status_command(&self) -> String {
        match self.hub.module() {
            Some(module) => format!("iotdm-ctl status --module {}", arguments([module.as_str()])),
            None => "iotdm-ctl status".to_owned(),
        }
    }

    /// What is the case when Ctrl-C ends the waiting.
    pub(super) fn what_stays(&self) -> String {
        let (in_force, id) = (self.in_force.borrow(), self.request.id());
        let status = self.status_command();
        // The twin that has the report is the module's where one is meant.
        let condition = if self.hub.module().is_some() { "--where-module" } else { "--where" };
        let mut sentence = match in_force.len() {
            0 => "interrupted: stopped waiting; no request is in force".to_owned(),
            several if several > NAMED => format!(
                "interrupted: stopped waiting; the request {id} stays in force on {several} devices, see \
                 {status} {condition} \"properties.reported.reboot.id = '{id}'\""
            ),
            _ => format!(
                "interrupted: stopped waiting; the request {id} stays in force, see {status} {}",
                arguments(in_force.iter().map(DeviceId::as_str))
            ),
        };
        if let Some(journal) = self.journal {
            sentence.push_str(&format!("; to go on: {}", journal.how_to_resume()));
        }
        sentence
    }
}

/// Shows how far the request is on a device: a new stage, or more of the one before.
fn show(track: &Track<'_>, now: &Stage, before: Option<&Stage>, reported: &Reported, since: Instant) {
    let is_new_word = before.is_none_or(|before| before.word != now.word);
    let is_news = before.is_none_or(|before| before.held_up_by != now.held_up_by);
    let state = match &now.held_up_by {
        // By the device's own account, as far as that can be.
        Some(units) => {
            let begun = reported.started_at().map(|begun| Time::from(SystemTime::now()).since(begun));
            let held = begun.filter(|held| (since.elapsed()..LONGEST_SHUTDOWN).contains(held));
            format!("{}, held up by {units} ({} s)", now.word, held.unwrap_or(since.elapsed()).as_secs())
        }
        None => now.word.clone(),
    };
    match is_new_word {
        true => track.now(&state, ""),
        false => track.still(&state, is_news),
    }
}

/// How long it was from a call that an earlier invocation made until the outcome:
/// by the device's account of when the outcome was known, as far as that can be, or
/// until now. Without the time of the call, the device's own account has to do.
fn since(called: Option<Time>, reported: &Reported, request: &RunRequest) -> Option<Duration> {
    let is_ours = reported.request_id() == Some(request.id().as_str());
    let (begun, ended) =
        (reported.requested_at().filter(|_| is_ours), reported.completed_at().filter(|_| is_ours));
    let now = Time::from(SystemTime::now());
    match called {
        Some(called) => {
            let ended = ended.filter(|ended| (called..=now).contains(ended)).unwrap_or(now);
            Some(ended.since(called))
        }
        None => {
            begun.zip(ended).filter(|(begun, ended)| begun <= ended).map(|(begun, ended)| ended.since(begun))
        }
    }
}

/// That a request which may have gone out before is not sent again.
fn has_stopped(id: &RequestId) -> String {
    format!("not known whether request {id} was executed, and the run has stopped")
}

/// Whether another try may end otherwise: the device is offline, or the hub has trouble.
fn is_of_the_moment(error: &anyhow::Error) -> bool {
    let is_of_now = |error: &HubError| error.is_offline() || error.is_transient();
    error.downcast_ref().is_some_and(is_of_now)
}

/// What the device grants, in its own word if it has one.
fn granted(reply: &MethodReply) -> &str {
    reply.granted().unwrap_or(Granted::Accepted.as_str())
}

/// A duration that is shown as `10m`.
fn friendly(duration: Duration) -> jiff::SignedDuration {
    duration.try_into().unwrap_or(jiff::SignedDuration::MAX)
}
