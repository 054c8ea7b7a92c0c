//! The daemon's only loop: hears what happens, has [`iotdm_core::decide`] decide,
//! and carries the effects out in order.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use iotdm_core::decide::agent::Agent;
use iotdm_core::decide::effect::{Effect, Note};
use iotdm_core::decide::event::Event;
use iotdm_core::decide::record::Record;
use iotdm_core::twin::{Action, Twin, TwinRequest};
use iotdm_proto::Time;
use iotdm_proto::report::{RebootStatus, Report};
use iotdm_proto::topic::HubTopic;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval, sleep, sleep_until};
use zbus::wire::OwnedFd;

use crate::connection::hub::{HubEvent, Link};
use crate::connection::identity::Source;
use crate::connection::outage::Outage;
use crate::host::backend::{Backend, Shutdown};
use crate::host::notice::Known;
use crate::host::notify::Notify;
use crate::host::sighting::Sighting;
use crate::host::store::Store;
use crate::host::{boot, log};

/// What the loop works with.
#[derive(Debug)]
pub struct Daemon {
    agent: Agent,
    store: Store,
    backend: Backend,
    /// The device's name at its hub, or the one that it is registered by.
    device_id: String,
    notify: Notify,
    twin: Twin,
    /// When this run began, from where the twin's time counts.
    began: Instant,
    signals: Signals,
    link: Option<Link>,
    /// What there is to say about the connection.
    connection: String,
    /// What was logged about the outage that lasts.
    logged_outage: Option<String>,
    /// The decision core's deadline.
    deadline: Option<Instant>,
    /// The record that could not be written, and when to try again.
    unsaved: Option<Box<Record>>,
    save_deadline: Option<Instant>,
    /// What is to be reported once that record is on disk: what the twin was told
    /// must not be undone by a start from an older record.
    held_report: Option<Box<Report>>,
    /// Where answers that take their time come in.
    answers: mpsc::Sender<Event>,
}

/// What the loop tells those who tell it of the hub and of the machine.
#[derive(Debug)]
pub struct Signals {
    /// Has the connection tried again without delay.
    pub hurry: watch::Sender<()>,
    /// Whether the connection is to ask for calls.
    pub listen: watch::Sender<bool>,
    /// What the people on the machine are to be told.
    pub notices: watch::Sender<Known>,
}

/// How the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEnd {
    /// The daemon was told to stop.
    Stopped,
    /// The pretended machine went down.
    WentDown,
}

/// How often a record that could not be written is tried again.
const SAVE_PATIENCE: Duration = Duration::from_secs(10);

/// For how long an orderly end of the connection is waited for.
const GOODBYE: Duration = Duration::from_secs(1);

/// How many answers may wait for the loop, which reads faster than they come but
/// for bursts.
const ANSWERS: usize = 64;

impl Daemon {
    /// A daemon that has not heard from its hub yet.
    pub fn new(
        agent: Agent,
        store: Store,
        backend: Backend,
        source: &Source,
        notify: Notify,
        signals: Signals,
    ) -> (Self, mpsc::Receiver<Event>) {
        let (answers, answered) = mpsc::channel(ANSWERS);
        let (server, device_id) = match source {
            Source::Fixed(identity) => (identity.hub.to_string(), identity.device_id.to_string()),
            Source::Provisioned(enrolment) => {
                (enrolment.endpoint.to_string(), enrolment.registration_id.clone())
            }
        };
        let daemon = Daemon {
            agent,
            store,
            backend,
            connection: format!("connecting to {server}"),
            device_id,
            notify,
            twin: Twin::new(format!("{:08x}", fastrand::u32(..))),
            began: Instant::now(),
            signals,
            link: None,
            logged_outage: None,
            deadline: None,
            unsaved: None,
            save_deadline: None,
            held_report: None,
            answers,
        };
        (daemon, answered)
    }

    /// Runs until `stop` is ready or the pretended machine goes down.
    /// `effects` are those of the start.
    pub async fn run(
        mut self,
        effects: Vec<Effect>,
        mut answered: mpsc::Receiver<Event>,
        mut hub: mpsc::Receiver<HubEvent>,
        mut machine: mpsc::Receiver<Sighting>,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> anyhow::Result<RunEnd> {
        let mut watchdog = self.notify.watchdog().map(interval);
        self.carry_out(effects);
        loop {
            let remembers = self.agent.remembers();
            self.signals.listen.send_if_modified(|listen| std::mem::replace(listen, remembers) != remembers);
            if let Some(notice) = self.agent.notice() {
                self.signals.notices.send_if_modified(|known| {
                    let notice = Some(notice);
                    let changed = *known != notice;
                    *known = notice;
                    changed
                });
            }
            // Until the twin was read, calls do not reach the device.
            let reading = if remembers || self.link.is_none() { "" } else { "reading the twin, " };
            self.notify.status(format!("{reading}{}; {}", self.connection, self.agent.status()));
            tokio::select! {
                () = &mut stop => {
                    self.notify.stopping();
                    if self.backend.shutdown().await.under_way == Some(true) {
                        self.on_event(Event::ShutdownBegan);
                    }
                    self.say_goodbye(hub).await;
                    return Ok(RunEnd::Stopped);
                }
                event = hub.recv() => self.on_hub(event.context("the connection's task has ended")?),
                Some(event) = answered.recv() => self.on_event(event),
                sighting = machine.recv() => match sighting.context("the watch of the machine has ended")? {
                    Sighting::WentDown => {
                        // What it answered when it was asked came before.
                        while let Ok(event) = answered.try_recv() {
                            self.on_event(event);
                        }
                        self.say_goodbye(hub).await;
                        return Ok(RunEnd::WentDown);
                    }
                    sighting => self.on_machine(sighting),
                },
                () = wait(self.deadline) => {
                    self.deadline = None;
                    self.on_event(Event::DeadlinePassed);
                }
                () = wait(self.twin.deadline().map(|due| self.began + due)) => {
                    let actions = self.twin.deadline_passed(self.began.elapsed());
                    self.about_twin(actions);
                }
                () = wait(self.save_deadline) => {
                    self.save_deadline = None;
                    if let Some(record) = self.unsaved.take() {
                        self.carry_out(vec![Effect::Save(record)]);
                    }
                    self.on_event(Event::StorageMayWork);
                }
                () = tick(&mut watchdog) => self.notify.alive(),
            }
        }
    }

    fn on_hub(&mut self, event: HubEvent) {
        match event {
            HubEvent::Connected { link, hub, device_id } => {
                self.connection = format!("connected to {hub} as {device_id}");
                log::connected(&hub, &device_id);
                self.logged_outage = None;
                self.device_id = device_id;
                self.link = Some(link);
            }
            HubEvent::Subscribed => {
                let actions = self.twin.connected(self.began.elapsed());
                self.about_twin(actions);
            }
            HubEvent::Message(HubTopic::MethodCall { name, rid }, payload) => {
                tracing::debug!("call {rid} of {name} with {} bytes", payload.len());
                let fresh_id = uuid::Uuid::new_v4().to_string();
                self.on_event(Event::Called { rid, name, payload, fresh_id });
            }
            HubEvent::Message(HubTopic::TwinResponse { status, rid, .. }, body) => {
                tracing::debug!("the twin answered {rid} with {status}");
                let actions = self.twin.response(&rid, status, &body, self.began.elapsed());
                self.about_twin(actions);
            }
            HubEvent::Message(HubTopic::DesiredPatch { version }, patch) => {
                tracing::debug!("the desired properties changed to version {version}");
                let actions = self.twin.desired_patch(version, &patch, self.began.elapsed());
                self.about_twin(actions);
            }
            HubEvent::Delivered { rid } => self.on_event(Event::ReplyDelivered { rid }),
            HubEvent::Disconnected { outage, retry_in } => self.on_disconnected(outage, retry_in),
        }
    }

    fn on_disconnected(&mut self, outage: Option<Outage>, retry_in: Duration) {
        self.link = None;
        self.twin.disconnected();
        let Some(outage) = outage else {
            tracing::debug!("reconnecting with a new token");
            return;
        };
        let next = Time::from(SystemTime::now() + retry_in);
        self.connection = format!("not connected: {}; next attempt at {next}", outage.message);
        // Said once, not at each attempt; the status shows that it goes on.
        if self.logged_outage.as_ref() != Some(&outage.message) {
            log::disconnected(&self.device_id, &outage.message);
            self.logged_outage = Some(outage.message);
        }
    }

    fn on_machine(&mut self, sighting: Sighting) {
        match sighting {
            Sighting::ShutdownBegan(lock) => {
                self.on_event(Event::ShutdownBegan);
                // Only now, with the record written, may the machine go on.
                drop::<Option<OwnedFd>>(lock);
            }
            Sighting::NoShutdown => self.on_event(Event::ShutdownCancelled),
            Sighting::InhibitorsChanged => self.on_event(Event::InhibitorsChanged),
            Sighting::Clock { clock, set } => {
                self.on_event(Event::ClockSet { clock, boot_time: boot::boot_time() });
                if set {
                    // Certificates and tokens may be valid now.
                    self.signals.hurry.send_replace(());
                }
            }
            // The end of the loop, which is for the loop to see.
            Sighting::WentDown => {}
        }
    }

    fn on_event(&mut self, event: Event) {
        let effects = self.agent.handle(event, Time::from(SystemTime::now()));
        self.carry_out(effects);
    }

    /// Carries `effects` out in order, and then those of the answers to them.
    fn carry_out(&mut self, effects: Vec<Effect>) {
        let mut rounds = VecDeque::from([effects]);
        while let Some(effects) = rounds.pop_front() {
            for effect in effects {
                for event in self.perform(effect) {
                    rounds.push_back(self.agent.handle(event, Time::from(SystemTime::now())));
                }
            }
        }
    }

    /// Does one thing; returns the answers to it that are known at once.
    fn perform(&mut self, effect: Effect) -> Vec<Event> {
        match effect {
            Effect::Note(note) => {
                log::note(&note);
                if let Note::Ended(reboot) = note
                    && reboot.status != RebootStatus::Completed
                {
                    let backend = self.backend.clone();
                    tokio::spawn(async move { backend.forget_reason(reboot.reason.as_deref()).await });
                }
            }
            Effect::Deadline(after) => self.deadline = after.map(|after| Instant::now() + after),
            Effect::Save(record) => {
                let saved = self.store.save(&record).map_err(|error| error.to_string());
                if let Err(error) = &saved {
                    tracing::error!("the record cannot be saved in the state directory: {error}");
                }
                // What is on disk is not what is true: the record is tried again
                // until it is, and what was refused for it may go better then.
                if saved.is_err() {
                    self.save_deadline = Some(Instant::now() + SAVE_PATIENCE);
                }
                self.unsaved = saved.is_err().then_some(record);
                let held = self.held_report.take_if(|_| saved.is_ok());
                let mut events = held.map_or_else(Vec::new, |report| self.report(&report));
                events.push(Event::Saved(saved));
                return events;
            }
            Effect::Reply { rid, status, body } => match &self.link {
                Some(link) => link.reply(&rid, status, body.to_string().into_bytes()),
                None => tracing::warn!("the hub is gone, call {rid} cannot be answered"),
            },
            Effect::Report(report) => {
                if self.unsaved.is_some() {
                    self.held_report = Some(report);
                } else {
                    self.held_report = None;
                    return self.report(&report);
                }
            }
            Effect::AskPermission => {
                let backend = self.backend.clone();
                self.answer_later(async move { Event::Permission(backend.permission().await) });
            }
            Effect::Survey { rid } => {
                let backend = self.backend.clone();
                self.answer_later(async move {
                    let permission = backend.permission().await;
                    Event::Surveyed { rid, permission, uptime: boot::uptime() }
                });
            }
            Effect::AskShutdown => {
                let backend = self.backend.clone();
                self.answer_later(async move {
                    let Shutdown { under_way, stopping } = backend.shutdown().await;
                    Event::Shutdown { under_way, stopping }
                });
            }
            Effect::Reboot { reason, ignore_inhibitors } => {
                let backend = self.backend.clone();
                self.answer_later(async move {
                    Event::RebootAsked(backend.reboot(reason.as_deref(), ignore_inhibitors).await)
                });
            }
        }
        Vec::new()
    }

    fn answer_later(&self, answer: impl Future<Output = Event> + Send + 'static) {
        let answers = self.answers.clone();
        tokio::spawn(async move {
            // Fails only when the loop has ended.
            let _ = answers.send(answer.await).await;
        });
    }

    /// Does what there is to do about the twin, and what follows from it.
    fn about_twin(&mut self, actions: Vec<Action>) {
        for action in actions {
            if let Some(event) = self.perform_about_twin(action) {
                self.on_event(event);
            }
        }
    }

    fn perform_about_twin(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Send(request) => self.send(request),
            Action::Reported => return Some(Event::Reported),
            Action::Desired { reboot, memory } => return Some(Event::Desired { reboot, memory }),
            Action::LogPostponed { status } => {
                tracing::warn!("the hub answered {status} about the twin; asking again later");
            }
            Action::LogRefused { status, body } => {
                tracing::error!("the hub does not take the reported properties: {status} {body}");
            }
            Action::LogShortened { status, body, what } => tracing::warn!(
                "the hub does not take the reported properties ({status} {body}); they are sent again without {what}"
            ),
            Action::LogMissed => {
                tracing::debug!("a change of the desired properties was missed; reading them anew later");
            }
        }
        None
    }

    /// Has the twin say this; returns the answers that are known at once.
    fn report(&mut self, report: &Report) -> Vec<Event> {
        let actions = self.twin.want(report, self.began.elapsed());
        actions.into_iter().filter_map(|action| self.perform_about_twin(action)).collect()
    }

    fn send(&self, request: TwinRequest) {
        let Some(link) = &self.link else { return };
        match request {
            TwinRequest::Get { rid } => link.get_twin(rid),
            TwinRequest::Patch { rid, patch } => {
                link.patch_reported(rid, serde_json::Value::Object(patch).to_string().into_bytes());
            }
        }
    }

    /// Leaves the hub, so that it knows at once that the device is gone.
    async fn say_goodbye(&self, mut hub: mpsc::Receiver<HubEvent>) {
        let Some(link) = &self.link else { return };
        link.disconnect();
        let gone = async {
            while let Some(event) = hub.recv().await {
                if matches!(event, HubEvent::Disconnected { .. }) {
                    break;
                }
            }
        };
        tokio::select! {
            () = gone => {}
            () = sleep(GOODBYE) => {}
        }
    }
}

/// Until `deadline`, or for ever.
async fn wait(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending::<()>().await,
    }
}

async fn tick(watchdog: &mut Option<tokio::time::Interval>) {
    match watchdog {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}
