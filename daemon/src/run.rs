//! The daemon's only loop: hears what happens, has [`iotdm_core::decide`] decide,
//! and carries the effects out in order.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use iotdm_core::decide::agent::Agent;
use iotdm_core::decide::effect::{Effect, Note};
use iotdm_core::decide::event::Event;
use iotdm_core::decide::outlook::Outlook;
use iotdm_core::decide::record::Record;
use iotdm_core::decide::refusal::Refusal;
use iotdm_core::decide::spread;
use iotdm_core::twin::{Action, Twin, TwinRequest};
use iotdm_proto::report::{RebootStatus, Report};
use iotdm_proto::topic::HubTopic;
use iotdm_proto::{MethodName, Time};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until};
use zbus::wire::OwnedFd;

use crate::beat::Beat;
use crate::connection::hub::{HubEvent, Link};
use crate::connection::identity::Source;
use crate::connection::outage::Outage;
use crate::host::backend::{Backend, Shutdown};
use crate::host::ids::Ids;
use crate::host::metrics::Metrics;
use crate::host::notice::Known;
use crate::host::notify::Notify;
use crate::host::sighting::Sighting;
use crate::host::status::{Connection, Status, StatusFile, Whom};
use crate::host::store::Store;
use crate::host::{boot, information, log};

/// What the loop works with.
#[derive(Debug)]
pub struct Daemon {
    agent: Agent,
    store: Store,
    /// The file of granted requests, which is there if something was read from it or
    /// written to it.
    ids: Ids,
    ids_there: bool,
    backend: Backend,
    notify: Notify,
    /// The beats at which systemd hears of the daemon, where that has a watchdog.
    beat: Option<Beat>,
    /// The machine has booted anew, which the hub has not acknowledged yet.
    news: bool,
    twin: Twin,
    /// The start of this loop, from which the durations are counted that `twin`
    /// is given and gives.
    began: Instant,
    signals: Signals,
    /// Why a reboot would be refused now, whoever asked for it.
    obstacle: watch::Sender<Option<String>>,
    link: Option<Link>,
    /// The hub has answered in this run.
    hub_reached: bool,
    /// Whether the hub is connected and, if not, why.
    connection: Connection,
    /// What is connected to first.
    server: String,
    /// How the daemon is, for this machine.
    status_file: StatusFile,
    /// The same in numbers, for monitoring.
    metrics: Metrics,
    /// The message that was logged about the outage that lasts, so that the same
    /// message is not logged at each attempt.
    logged_outage: Option<String>,
    /// When the decision core wants to be told that its deadline has passed.
    deadline: Option<Instant>,
    /// The record that could not be written, and why not.
    unsaved: Option<(Box<Record>, String)>,
    /// When to try again to write `unsaved`.
    save_deadline: Option<Instant>,
    /// What is to be reported once that record is on disk: what the twin was told
    /// must not be undone by a start from an older record.
    held_report: Option<Box<Report>>,
    /// Where the tasks of [`Daemon::answer_later`] send what they found out.
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
    /// Tells the connection of each beat.
    pub beats: watch::Sender<Option<Duration>>,
}

/// How the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEnd {
    /// The daemon was told to stop.
    Stopped,
    /// The pretended machine went down.
    WentDown,
}

/// The pause before a record that could not be written is tried again: short for
/// whoever waits for the disk to be freed, long for a card that fails.
const SAVE_PATIENCE: Duration = Duration::from_secs(10);

/// How long the disk may take for a record before the status says that it is slow.
const SLOW_SAVE: Duration = Duration::from_secs(3);

/// How long to wait until the connection has ended in good order: well below the
/// 10 s after which systemd kills what does not stop.
const GOODBYE: Duration = Duration::from_secs(1);

/// How many answers of [`Daemon::answer_later`] may wait for the loop. A task that
/// has a further one waits until there is room.
const ANSWERS: usize = 64;

impl Daemon {
    /// A daemon that has not heard from its hub yet.
    pub fn new(
        agent: Agent,
        (store, ids): (Store, Ids),
        backend: Backend,
        source: &Source,
        (notify, beat): (Notify, Option<Beat>),
        (status_file, metrics): (StatusFile, Metrics),
        signals: Signals,
    ) -> (Self, mpsc::Receiver<Event>) {
        let (answers, answered) = mpsc::channel(ANSWERS);
        let (server, hub, whom) = match source {
            Source::Fixed(login) => {
                let hub = login.hub.to_string();
                (hub.clone(), Some(hub), login.id.clone().into())
            }
            Source::Provisioned(enrolment) => {
                let whom = Whom { device_id: enrolment.registration_id.clone(), module_id: None };
                (enrolment.endpoint.to_string(), None, whom)
            }
        };
        let daemon = Daemon {
            agent,
            store,
            ids_there: ids.exists(),
            ids,
            backend,
            connection: Connection::new(hub, whom, Time::from(SystemTime::now())),
            server,
            status_file,
            metrics,
            beat,
            news: false,
            notify,
            twin: Twin::new(format!("{:08x}", fastrand::u32(..))),
            began: Instant::now(),
            signals,
            obstacle: watch::Sender::new(None),
            link: None,
            hub_reached: false,
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
        let mut obstacle_heard = self.obstacle.subscribe();
        self.look_for_obstacles();
        self.carry_out(effects).await;
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
            self.tell_status();
            tokio::select! {
                () = &mut stop => {
                    self.notify.stopping();
                    if self.backend.shutdown().await.under_way == Some(true) {
                        self.on_event(Event::ShutdownBegan).await;
                    }
                    self.say_goodbye(hub).await;
                    return Ok(RunEnd::Stopped);
                }
                event = hub.recv() => self.on_hub(event.context("the connection's task has ended")?).await,
                Some(event) = answered.recv() => self.on_event(event).await,
                // Shows in the status.
                Ok(()) = obstacle_heard.changed() => {}
                sighting = machine.recv() => match sighting.context("the watch of the machine has ended")? {
                    Sighting::WentDown => {
                        // The machine's answer to the request to reboot came before it
                        // went down, so that answer is heard first.
                        while let Ok(event) = answered.try_recv() {
                            self.on_event(event).await;
                        }
                        self.say_goodbye(hub).await;
                        return Ok(RunEnd::WentDown);
                    }
                    sighting => self.on_machine(sighting).await,
                },
                () = wait(self.deadline) => {
                    self.deadline = None;
                    self.on_event(Event::DeadlinePassed).await;
                }
                () = wait(self.twin.deadline().map(|due| self.began + due)) => {
                    let actions = self.twin.deadline_passed(self.began.elapsed());
                    self.about_twin(actions).await;
                }
                () = wait(self.save_deadline) => {
                    self.save_deadline = None;
                    if let Some((record, _)) = self.unsaved.take() {
                        self.carry_out(vec![Effect::Save(record)]).await;
                    }
                    self.on_event(Event::StorageMayWork).await;
                }
                // What has changed is told above.
                () = wait(self.metrics.due()) => {}
                () = next(&mut self.beat) => self.beats(),
            }
        }
    }

    /// The loop goes round: so systemd is told, and the connection, which may do what is
    /// due with it.
    fn beats(&mut self) {
        self.notify.alive();
        self.signals.beats.send_modify(|_| {});
    }

    /// Tells systemd, and this machine, how things are.
    fn tell_status(&mut self) {
        let status = self.status();
        if self.metrics.is_there() || self.status_file.is_there() {
            let told = Status {
                pid: std::process::id(),
                boot_id: self.agent.boot_id().to_owned(),
                status: status.clone(),
                connection: self.connection.clone(),
                report: self.agent.told(),
            };
            self.metrics.tell(&told, self.agent.boot_counts());
            self.status_file.tell(told);
        }
        self.notify.status(status);
    }

    /// How things are, in one sentence.
    fn status(&self) -> String {
        // Until the twin was read, calls do not reach the device.
        let reading = if self.agent.remembers() || self.link.is_none() { "" } else { "reading the twin, " };
        let Connection { connected, hub, whom, outage, next_attempt, .. } = &self.connection;
        let connection = match (connected, hub, outage, next_attempt) {
            (true, Some(hub), ..) => format!("connected to {hub} as {whom}"),
            (_, _, Some(outage), Some(next)) => format!("not connected: {outage}; next attempt at {next}"),
            _ => format!("connecting to {}", self.server),
        };
        let mut parts = vec![format!("{reading}{connection}"), self.agent.status()];
        parts.extend(self.unsaved.as_ref().map(|(_, error)| {
            format!("a reboot would be refused: the record cannot be saved in the state directory: {error}")
        }));
        parts.extend(self.obstacle.borrow().as_ref().map(|why| format!("a reboot would be refused: {why}")));
        parts.join("; ")
    }

    /// Finds out whether logind or polkit would refuse a reboot, so that the status says
    /// it before somebody needs one. Asked for when something has changed, not by the
    /// clock.
    fn look_for_obstacles(&self) {
        tokio::spawn(permission(self.backend.clone(), self.obstacle.clone()));
    }

    /// Finds out whether what the machine says of itself has changed. An upgrade of
    /// the system tells nobody; a connection is made often enough to notice.
    fn look_at_machine(&self) {
        let answers = self.answers.clone();
        tokio::spawn(async move {
            if let Ok(information) = spawn_blocking(|| information::look(Path::new("/"))).await {
                // Sending fails only when the loop, which receives, has ended.
                let _ = answers.send(Event::Information(Box::new(information))).await;
            }
        });
    }

    async fn on_hub(&mut self, event: HubEvent) {
        match event {
            HubEvent::Connected { link, hub, id } => {
                log::connected(&hub, &id);
                self.agent.is_number(spread::number(&hub, &id));
                self.logged_outage = None;
                self.connection.begin(hub, id.into(), Time::from(SystemTime::now()));
                self.link = Some(link);
                self.look_for_obstacles();
                self.look_at_machine();
            }
            HubEvent::Subscribed => {
                let actions = self.twin.connected(self.began.elapsed());
                // What a boot has changed is certainly not in the twin, so that it need
                // not be read first. Sent before the twin is asked for, it is in the
                // answer.
                if self.news
                    && let Some(request) = self.twin.news()
                {
                    self.send(request);
                }
                self.about_twin(actions).await;
            }
            HubEvent::Message(HubTopic::MethodCall { name, rid }, payload) => {
                tracing::debug!("call {rid} of {name} with {} bytes", payload.len());
                // The kernel is asked for it, so not for a call that needs none.
                let needs_id = name.parse() == Ok(MethodName::RebootDevice);
                let fresh_id = if needs_id { uuid::Uuid::new_v4().to_string() } else { String::new() };
                self.on_event(Event::Called { rid, name, payload, fresh_id }).await;
            }
            HubEvent::Message(HubTopic::TwinResponse { status, rid, .. }, body) => {
                tracing::debug!("the twin answered {rid} with {status}");
                if (200..300).contains(&status) {
                    self.acknowledged();
                }
                if !std::mem::replace(&mut self.hub_reached, true) {
                    self.on_event(Event::HubReached { uptime: boot::uptime() }).await;
                }
                let actions = self.twin.response(&rid, status, &body, self.began.elapsed());
                self.about_twin(actions).await;
            }
            HubEvent::Message(HubTopic::DesiredPatch { version }, patch) => {
                tracing::debug!("the desired properties changed to version {version}");
                let actions = self.twin.desired_patch(version, &patch, self.began.elapsed());
                self.about_twin(actions).await;
            }
            HubEvent::Delivered { rid } => {
                self.acknowledged();
                self.on_event(Event::ReplyDelivered { rid }).await;
            }
            HubEvent::Disconnected { outage, retry_in } => self.on_disconnected(outage, retry_in),
        }
    }

    /// The hub has said that it has something of ours.
    fn acknowledged(&mut self) {
        self.connection.last_acknowledgement = Some(Time::from(SystemTime::now()));
    }

    fn on_disconnected(&mut self, outage: Option<Outage>, retry_in: Duration) {
        self.link = None;
        self.twin.disconnected();
        let Some(outage) = outage else {
            tracing::debug!("reconnecting with a new token");
            return;
        };
        let now = SystemTime::now();
        self.connection.end(&outage.message, Time::from(now + retry_in), Time::from(now));
        // An outage is logged once, not at each attempt; that it goes on is seen in
        // the status.
        if self.logged_outage.as_ref() != Some(&outage.message) {
            log::disconnected(&self.connection.whom, &outage.message);
            self.logged_outage = Some(outage.message);
        }
    }

    async fn on_machine(&mut self, sighting: Sighting) {
        match sighting {
            Sighting::ShutdownBegan(lock) => {
                self.on_event(Event::ShutdownBegan).await;
                // Only now that the record is written is the delay lock let go, and
                // with it the shutdown.
                drop::<Option<OwnedFd>>(lock);
            }
            // Also what is heard first of a logind that has come, or come back.
            Sighting::NoShutdown => {
                self.look_for_obstacles();
                self.on_event(Event::ShutdownCancelled).await;
            }
            Sighting::InhibitorsChanged => self.on_event(Event::InhibitorsChanged).await,
            Sighting::Clock { clock, set } => {
                self.on_event(Event::ClockSet { clock, boot_time: boot::boot_time() }).await;
                if set {
                    // Certificates and tokens may be valid now.
                    self.signals.hurry.send_replace(());
                }
            }
            Sighting::Health { observed, report } => {
                log::health(&observed);
                self.on_event(Event::Health { observed, report }).await;
            }
            Sighting::Need(need) => {
                log::need(need.as_ref());
                self.on_event(Event::Need(need)).await;
            }
            // Ends the loop, so the loop has dealt with it.
            Sighting::WentDown => {}
        }
    }

    async fn on_event(&mut self, event: Event) {
        let effects = self.decide(event);
        self.carry_out(effects).await;
    }

    fn decide(&mut self, event: Event) -> Vec<Effect> {
        self.agent.count(boot::uptime());
        self.agent.handle(event, Time::from(SystemTime::now()))
    }

    /// Carries `effects` out in order, and then those of the answers to them.
    async fn carry_out(&mut self, effects: Vec<Effect>) {
        let mut rounds = VecDeque::from([effects]);
        while let Some(effects) = rounds.pop_front() {
            for effect in effects {
                for event in self.perform(effect).await {
                    rounds.push_back(self.decide(event));
                }
            }
        }
    }

    /// Performs one effect; returns those answers to it that are known at once.
    async fn perform(&mut self, effect: Effect) -> Vec<Event> {
        match effect {
            Effect::Note(note) => {
                log::note(&note);
                self.news |= matches!(note, Note::Booted(_));
                if let Note::Refused { code, .. } = &note {
                    self.metrics.refused(*code);
                }
                if let Note::Ended(reboot) = note
                    && reboot.status != RebootStatus::Completed
                {
                    let backend = self.backend.clone();
                    tokio::spawn(async move { backend.forget_words(reboot.words().as_deref()).await });
                }
            }
            Effect::Deadline(after) => self.deadline = after.map(|after| Instant::now() + after),
            Effect::Save(record) => {
                let (record, saved) = self.save(record).await;
                if let Err(error) = &saved {
                    tracing::error!("the record cannot be saved in the state directory: {error}");
                }
                // As long as the record on disk is an older one, writing the new one
                // is tried again; and what was refused because the record could not be
                // written may be possible when that has succeeded.
                if saved.is_err() {
                    self.save_deadline = Some(Instant::now() + SAVE_PATIENCE);
                }
                self.unsaved = saved.as_ref().err().map(|error| (record, error.clone()));
                let held = self.held_report.take_if(|_| saved.is_ok());
                let mut events = held.map_or_else(Vec::new, |report| self.report(&report));
                events.push(Event::Saved(saved));
                if self.ids_there && !self.ids.exists() {
                    self.ids_there = false;
                    events.push(Event::KeptIsGone);
                }
                return events;
            }
            Effect::Keep { requests, whole } => {
                let ids = self.ids.clone();
                let written = self.write(move || ids.write(&requests, whole)).await;
                if let Err(error) = &written {
                    tracing::error!(
                        "the ids of earlier requests cannot be saved in the state directory: {error}"
                    );
                }
                self.ids_there |= written.is_ok();
                return vec![Event::Kept { written: written.is_ok() }];
            }
            Effect::Reply { rid, status, body } => match &self.link {
                Some(link) => link.reply(&rid, status, body.to_string().into_bytes()),
                None => tracing::warn!("the hub is gone, call {rid} cannot be answered"),
            },
            Effect::Report(report) => {
                // A disk that takes nothing more, but holds no request either, can
                // undo nothing that is told.
                if self.unsaved.is_some() && self.store.holds_pending() {
                    self.held_report = Some(report);
                } else {
                    self.held_report = None;
                    return self.report(&report);
                }
            }
            // What is told is on disk, also in haste.
            Effect::ReportNow(report) if self.unsaved.is_some() && self.store.holds_pending() => {
                self.held_report = Some(report);
            }
            Effect::ReportNow(report) => {
                self.held_report = None;
                if let Some(request) = self.twin.send_now(&report, self.began.elapsed()) {
                    self.send(request);
                }
            }
            Effect::AskPermission { preflight } => {
                let outlook = outlook(self.backend.clone(), self.obstacle.clone(), preflight);
                self.answer_later(async { Event::Permission(outlook.await) });
            }
            Effect::Survey { rid, preflight } => {
                let outlook = outlook(self.backend.clone(), self.obstacle.clone(), preflight);
                let (backend, uptime) = (self.backend.clone(), self.backend.uptime());
                self.answer_later(async move {
                    let (outlook, if_it_hangs) = tokio::join!(outlook, backend.if_it_hangs());
                    Event::Surveyed { rid, outlook, uptime, if_it_hangs }
                });
            }
            Effect::AskShutdown => {
                let backend = self.backend.clone();
                self.answer_later(async move {
                    let Shutdown { under_way, stopping } = backend.shutdown().await;
                    Event::Shutdown { under_way, stopping }
                });
            }
            Effect::Reboot { words, ignore_inhibitors } => {
                let backend = self.backend.clone();
                self.answer_later(async move {
                    Event::RebootAsked(backend.reboot(words.as_deref(), ignore_inhibitors).await)
                });
            }
        }
        Vec::new()
    }

    async fn save(&mut self, record: Box<Record>) -> (Box<Record>, Result<(), String>) {
        let (mut store, writing) = (self.store.clone(), record.clone());
        let written = self.write(move || {
            let saved = store.save(&writing);
            Ok((store, saved))
        });
        let saved = match written.await {
            Ok((store, saved)) => {
                self.store = store;
                saved
            }
            Err(error) => Err(error),
        };
        (record, saved.map_err(|error| error.to_string()))
    }

    /// Writes to the disk on a thread of its own: a card may stall for many seconds,
    /// and neither the connection nor the watchdog may wait for it. What happens
    /// meanwhile is decided once it is known what is on disk.
    async fn write<T: Send + 'static>(
        &mut self,
        write: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let mut written = spawn_blocking(write);
        let mut slow = Some(Instant::now() + SLOW_SAVE);
        loop {
            tokio::select! {
                written = &mut written => return written.map_err(io::Error::other).flatten(),
                () = wait(slow) => {
                    slow = None;
                    tracing::warn!("the disk is slow to take the record");
                    self.notify.status(format!("{}; waiting for the disk to take the record", self.status()));
                }
                () = next(&mut self.beat) => self.beats(),
            }
        }
    }

    fn answer_later(&self, answer: impl Future<Output = Event> + Send + 'static) {
        let answers = self.answers.clone();
        tokio::spawn(async move {
            // Sending fails only when the loop, which receives, has ended.
            let _ = answers.send(answer.await).await;
        });
    }

    /// Performs what the twin wants done, and what the decision core wants done
    /// upon each event that comes of it.
    async fn about_twin(&mut self, actions: Vec<Action>) {
        for action in actions {
            if let Some(event) = self.perform_about_twin(action) {
                self.on_event(event).await;
            }
        }
    }

    fn perform_about_twin(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Send(request) => self.send(request),
            Action::Reported => {
                self.news = false;
                return Some(Event::Reported);
            }
            Action::Desired { reboot, memory } => return Some(Event::Desired { reboot, memory }),
            Action::LogPostponed { status } => {
                tracing::warn!("the hub answered {status} about the twin; asking again later");
            }
            Action::LogRefused { status, body } => {
                tracing::error!(
                    "the hub does not take the reported properties: {status} {body}; {}",
                    self.agent.status()
                );
                return Some(Event::ReportRefused);
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

/// What the backend says about a reboot now and, if they are asked, the preflight
/// checks.
async fn outlook(backend: Backend, obstacle: watch::Sender<Option<String>>, preflight: bool) -> Outlook {
    let checks = async { if preflight { backend.preflight().await } else { Vec::new() } };
    let (permission, preflight) = tokio::join!(permission(backend.clone(), obstacle), checks);
    Outlook { permission, preflight }
}

/// What the backend says about a reboot now, which `obstacle` is told as far as it
/// does not depend on the request. An inhibitor may be waited for or passed over.
async fn permission(backend: Backend, obstacle: watch::Sender<Option<String>>) -> Result<(), Refusal> {
    let permission = backend.permission().await;
    let why = match &permission {
        Err(Refusal::LogindUnavailable(why) | Refusal::NotAuthorized(why)) => Some(why.clone()),
        _ => None,
    };
    obstacle.send_if_modified(|known| {
        let changed = *known != why;
        *known = why;
        changed
    });
    permission
}

/// Waits until `deadline`; without one, for ever.
async fn wait(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending::<()>().await,
    }
}

/// Waits for the next beat; without any, for ever.
async fn next(beat: &mut Option<Beat>) {
    match beat {
        Some(beat) => beat.next().await,
        None => std::future::pending().await,
    }
}
