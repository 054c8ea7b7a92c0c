//! The daemon's only loop: hears what happens, has [`crate::agent`] decide,
//! and carries the effects out in order.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use iotdm_proto::Time;
use iotdm_proto::topic::HubTopic;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval, sleep, sleep_until};
use zbus::wire::OwnedFd;

use crate::agent::Agent;
use crate::backend::Backend;
use crate::boot;
use crate::credentials::Source;
use crate::desired::{Desired, Update};
use crate::effect::{Effect, Notice};
use crate::event::Event;
use crate::hub::{HubEvent, Link};
use crate::log;
use crate::logind::Sighting;
use crate::notify::Notify;
use crate::outage::Outage;
use crate::record::Record;
use crate::reporter::{Next, Reporter, Request};
use crate::store::Store;

/// What the loop works with.
#[derive(Debug)]
pub struct Daemon {
    agent: Agent,
    store: Store,
    backend: Backend,
    /// The device's name at its hub, or the one that it is registered by.
    device_id: String,
    notify: Notify,
    reporter: Reporter,
    desired: Desired,
    /// Has the connection tried again without delay.
    hurry: watch::Sender<()>,
    /// What the people on the machine are to be told.
    notices: watch::Sender<Option<Notice>>,
    link: Option<Link>,
    /// What there is to say about the connection.
    connection: String,
    deadline: Option<Instant>,
    /// When an answer of the twin is overdue, or asking again is due.
    twin_deadline: Option<Instant>,
    /// When to read a twin again that was behind what it had told.
    twin_anew: Option<Instant>,
    /// The record that could not be written, and when to try again.
    unsaved: Option<Box<Record>>,
    save_deadline: Option<Instant>,
    /// Where answers that take their time come in.
    answers: mpsc::Sender<Event>,
    /// The pretended machine is going down.
    simulated_down: bool,
}

/// How the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to stop.
    Stopped,
    /// The pretended machine went down.
    SimulatedDown,
}

/// An answer about the twin that takes longer than this is asked for again.
const TWIN_PATIENCE: Duration = Duration::from_secs(30);

/// A hub whose answer lags behind its notifications is given this long.
const TWIN_ANEW: Duration = Duration::from_secs(2);

/// How often a record that could not be written is tried again.
const SAVE_PATIENCE: Duration = Duration::from_secs(10);

/// For how long an orderly end of the connection is waited for.
const GOODBYE: Duration = Duration::from_secs(1);

/// Nobody reads a queue faster than the loop; this is for bursts.
const EVENTS: usize = 64;

impl Daemon {
    /// A daemon that has not heard from its hub yet.
    pub fn new(
        agent: Agent,
        store: Store,
        backend: Backend,
        source: &Source,
        notify: Notify,
        hurry: watch::Sender<()>,
        notices: watch::Sender<Option<Notice>>,
    ) -> (Self, mpsc::Receiver<Event>) {
        let (answers, answered) = mpsc::channel(EVENTS);
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
            reporter: Reporter::new(format!("{:08x}", fastrand::u32(..))),
            desired: Desired::default(),
            hurry,
            notices,
            link: None,
            deadline: None,
            twin_deadline: None,
            twin_anew: None,
            unsaved: None,
            save_deadline: None,
            answers,
            simulated_down: false,
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
    ) -> anyhow::Result<Ended> {
        let mut watchdog = self.notify.watchdog().map(interval);
        self.carry_out(effects);
        loop {
            if let Some(notice) = self.agent.notice() {
                self.notices.send_if_modified(|told| {
                    let changed = *told != notice;
                    *told = notice;
                    changed
                });
            }
            self.notify.status(format!("{}; {}", self.connection, self.agent.status()));
            if self.simulated_down {
                self.say_goodbye(hub).await;
                return Ok(Ended::SimulatedDown);
            }
            tokio::select! {
                () = &mut stop => {
                    self.notify.stopping();
                    if self.backend.is_going_down().await {
                        self.on_event(Event::ShutdownBegan);
                    }
                    self.say_goodbye(hub).await;
                    return Ok(Ended::Stopped);
                }
                event = hub.recv() => self.on_hub(event.context("the connection's task has ended")?),
                Some(event) = answered.recv() => self.on_event(event),
                sighting = machine.recv() => {
                    self.on_machine(sighting.context("the watch of the machine has ended")?);
                }
                () = wait(self.deadline) => {
                    self.deadline = None;
                    self.on_event(Event::DeadlinePassed);
                }
                () = wait(self.twin_deadline) => {
                    self.twin_deadline = None;
                    if let Some(request) = self.reporter.retry() {
                        self.send(request);
                    }
                }
                () = wait(self.twin_anew) => {
                    self.twin_anew = None;
                    if self.link.is_some() {
                        let request = self.reporter.connected();
                        self.send(request);
                    }
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
                self.device_id = device_id;
                self.link = Some(link);
            }
            HubEvent::Subscribed => {
                let request = self.reporter.connected();
                self.send(request);
            }
            HubEvent::Message(HubTopic::MethodCall { name, rid }, payload) => {
                tracing::debug!("call {rid} of {name} with {} bytes", payload.len());
                let fresh_id = uuid::Uuid::new_v4().to_string();
                self.on_event(Event::Called { rid, name, payload, fresh_id });
            }
            HubEvent::Message(HubTopic::TwinResponse { status, rid, .. }, body) => {
                tracing::debug!("the twin answered {rid} with {status}");
                let is_twin = status == 200 && self.reporter.is_reading(&rid);
                let next = self.reporter.response(&rid, status, &body);
                // Unless it answered something else.
                if !self.reporter.is_waiting() {
                    self.twin_deadline = None;
                }
                if let Some(event) = self.follow(next) {
                    self.on_event(event);
                }
                if is_twin {
                    let update = self.desired.read(&body);
                    self.on_desired(update);
                }
            }
            HubEvent::Message(HubTopic::DesiredPatch { version }, patch) => {
                tracing::debug!("the desired properties changed to version {version}");
                let update = self.desired.patched(version, &patch);
                self.on_desired(update);
            }
            HubEvent::Delivered { rid } => self.on_event(Event::ReplyDelivered { rid }),
            HubEvent::Disconnected { outage, retry_in } => self.on_disconnected(outage, retry_in),
        }
    }

    fn on_desired(&mut self, update: Update) {
        match update {
            Update::Reboot { desired, reported } => {
                self.on_event(Event::Desired { reboot: desired, reported });
            }
            Update::Nothing => {}
            Update::Missed => {
                tracing::debug!("a change of the desired properties was missed; reading them anew later");
                self.twin_anew = Some(Instant::now() + TWIN_ANEW);
            }
        }
    }

    fn on_disconnected(&mut self, outage: Option<Outage>, retry_in: Duration) {
        self.link = None;
        self.reporter.disconnected();
        self.desired.disconnected();
        (self.twin_deadline, self.twin_anew) = (None, None);
        let Some(outage) = outage else {
            tracing::debug!("reconnecting with a new token");
            return;
        };
        // Said once, not at each attempt; the status shows that it goes on.
        if !self.connection.contains(&outage.message) {
            log::disconnected(&self.device_id, &outage.message);
        }
        let next = Time::from(SystemTime::now() + retry_in);
        self.connection = format!("not connected: {}; next attempt at {next}", outage.message);
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
                    self.hurry.send_replace(());
                }
            }
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
                if let Some(event) = self.perform(effect) {
                    rounds.push_back(self.agent.handle(event, Time::from(SystemTime::now())));
                }
            }
        }
    }

    /// Does one thing; returns its answer if that is known at once.
    fn perform(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Note(note) => log::note(&note),
            Effect::Deadline(after) => self.deadline = after.map(|after| Instant::now() + after),
            Effect::Save(record) => {
                let saved = self.store.save(&record).map_err(|error| error.to_string());
                if let Err(error) = &saved {
                    tracing::error!("the record cannot be saved in the state directory: {error}");
                }
                // What is on disk is not what is true: try again until it is.
                // And what was refused for it may go better then.
                if saved.is_err() {
                    self.save_deadline = Some(Instant::now() + SAVE_PATIENCE);
                }
                self.unsaved = saved.is_err().then_some(record);
                return Some(Event::Saved(saved));
            }
            Effect::Reply { rid, status, body } => match &self.link {
                Some(link) => link.reply(&rid, status, body.to_string().into_bytes()),
                None => tracing::warn!("the hub is gone, call {rid} cannot be answered"),
            },
            Effect::Report(report) => {
                let next = self.reporter.want(&report);
                return self.follow(next);
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
            Effect::Reboot { reason, ignore_inhibitors } => match &self.backend {
                Backend::Simulate(simulation) => {
                    let asked = simulation.reboot().map_err(|error| format!("{error:#}"));
                    self.simulated_down = asked.is_ok();
                    return Some(Event::RebootAsked(asked));
                }
                Backend::Logind(logind) => {
                    let logind = logind.clone();
                    self.answer_later(async move {
                        Event::RebootAsked(logind.reboot(reason.as_deref(), ignore_inhibitors).await)
                    });
                }
            },
        }
        None
    }

    fn answer_later(&self, answer: impl Future<Output = Event> + Send + 'static) {
        let answers = self.answers.clone();
        tokio::spawn(async move {
            // Fails only when the loop has ended.
            let _ = answers.send(answer.await).await;
        });
    }

    /// Does what keeps the twin up to date.
    fn follow(&mut self, next: Next) -> Option<Event> {
        match next {
            Next::Wait => {}
            Next::InSync => return Some(Event::Reported),
            Next::Send(request) => self.send(request),
            Next::Later { status } => {
                tracing::warn!("the hub answered {status} about the twin; asking again later");
                self.twin_deadline = Some(Instant::now() + TWIN_PATIENCE);
            }
            Next::Refused { status, body } => {
                tracing::error!("the hub does not take the reported properties: {status} {body}");
            }
        }
        None
    }

    fn send(&mut self, request: Request) {
        let Some(link) = &self.link else { return };
        match request {
            Request::Get { rid } => link.get_twin(rid),
            Request::Patch { rid, patch } => {
                link.patch_reported(rid, serde_json::Value::Object(patch).to_string().into_bytes());
            }
        }
        self.twin_deadline = Some(Instant::now() + TWIN_PATIENCE);
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
