//! systemd's login manager over D-Bus: may we reboot, do it, and learn of any
//! shutdown before it happens.
//!
//! Reboots are rare, so each question opens a connection of its own: there is
//! none that could have broken unnoticed. Only the watch keeps one.
//! Source: org.freedesktop.login1(5), org.freedesktop.timedate1(5).

use std::time::Duration;

use futures_util::StreamExt as _;
use iotdm_core::decide::effect::Notice;
use iotdm_core::decide::refusal::Refusal;
use iotdm_proto::Time;
use iotdm_proto::reply::Inhibitor;
use iotdm_proto::report::Clock;
use tokio::sync::{mpsc, watch};
use zbus::wire::OwnedFd;
use zbus::{Connection, connection, fdo, proxy};

use super::sighting::Sighting;
use crate::backoff::Backoff;

/// A D-Bus call that is not answered this long is taken for failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// `SD_LOGIND_SKIP_INHIBITORS`, known to logind since systemd 257.
const SKIP_INHIBITORS: u64 = 1 << 4;

/// The modes of an inhibitor that binds a caller without privileges. The second
/// is since systemd 257 what the first was before: it does not bind root.
const BLOCKING: [&str; 2] = ["block", "block-weak"];

/// How long a bus may take to answer when the daemon itself is to stop.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How many inhibitors are told, and how many characters of each text: the hub
/// takes 128 KiB of a reply, and others choose what stands in an inhibitor.
const MAX_INHIBITORS: usize = 16;
const MAX_INHIBITOR_TEXT: usize = 200;

/// The login manager on the bus at an address.
#[derive(Debug, Clone)]
pub struct Logind {
    address: String,
}

#[proxy(
    interface = "org.freedesktop.login1.Manager",
    default_service = "org.freedesktop.login1",
    default_path = "/org/freedesktop/login1"
)]
trait Manager {
    fn can_reboot(&self) -> zbus::Result<String>;
    fn reboot(&self, interactive: bool) -> zbus::Result<()>;
    fn reboot_with_flags(&self, flags: u64) -> zbus::Result<()>;
    fn set_wall_message(&self, message: &str, enable: bool) -> zbus::Result<()>;
    fn schedule_shutdown(&self, kind: &str, usec: u64) -> zbus::Result<()>;
    fn cancel_scheduled_shutdown(&self) -> zbus::Result<bool>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn scheduled_shutdown(&self) -> zbus::Result<(String, u64)>;
    fn inhibit(&self, what: &str, who: &str, why: &str, mode: &str) -> zbus::Result<OwnedFd>;
    fn list_inhibitors(&self) -> zbus::Result<Vec<(String, String, String, String, u32, u32)>>;
    #[zbus(property)]
    fn block_inhibited(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn block_weak_inhibited(&self) -> zbus::Result<String>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn preparing_for_shutdown(&self) -> zbus::Result<bool>;
    #[zbus(signal)]
    fn prepare_for_shutdown(&self, start: bool) -> zbus::Result<()>;
}

#[proxy(
    interface = "org.freedesktop.timedate1",
    default_service = "org.freedesktop.timedate1",
    default_path = "/org/freedesktop/timedate1"
)]
trait TimeDate {
    #[zbus(property(emits_changed_signal = "false"), name = "NTPSynchronized")]
    fn ntp_synchronized(&self) -> zbus::Result<bool>;
}

#[proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Systemd {
    #[zbus(property(emits_changed_signal = "false"))]
    fn system_state(&self) -> zbus::Result<String>;
    fn list_jobs(&self) -> zbus::Result<Vec<Job>>;
}

/// A job of systemd's. Source: org.freedesktop.systemd1(5), `ListJobs()`.
#[derive(Debug, serde::Deserialize, zbus::zvariant::Type)]
struct Job {
    _id: u32,
    unit: String,
    kind: String,
    state: String,
    _path: zbus::OwnedObjectPath,
    _unit_path: zbus::OwnedObjectPath,
}

/// Whether the machine is going down, and what holds that up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shutdown {
    /// Whether logind prepares for a shutdown, systemd is stopping, or a job of
    /// shutdown.target waits or runs; `None` where nobody can tell.
    pub under_way: Option<bool>,
    /// The units whose stop jobs run.
    pub stopping: Vec<String>,
}

impl Logind {
    /// The login manager on the bus at this D-Bus address.
    pub fn new(address: String) -> Self {
        Logind { address }
    }

    /// Whether the machine would be rebooted if we asked now.
    pub async fn permission(&self) -> Result<(), Refusal> {
        let unavailable = |error| Refusal::LogindUnavailable(explain(&error));
        let manager = self.manager().await.map_err(unavailable)?;
        let inhibitors = manager.list_inhibitors().await.map_err(unavailable)?;
        let blocking: Vec<Inhibitor> = inhibitors
            .into_iter()
            .filter(|(what, _, _, mode, ..)| {
                BLOCKING.contains(&mode.as_str()) && what.split(':').any(|what| what == "shutdown")
            })
            .map(|(_, who, why, _, uid, pid)| Inhibitor { who: short(&who), why: short(&why), uid, pid })
            .take(MAX_INHIBITORS)
            .collect();
        if !blocking.is_empty() {
            return Err(Refusal::Blocked(blocking));
        }
        match manager.can_reboot().await.map_err(unavailable)?.as_str() {
            "yes" => Ok(()),
            "na" => {
                Err(Refusal::LogindUnavailable("logind says that this machine cannot be rebooted".to_owned()))
            }
            answer => Err(Refusal::NotAuthorized(format!(
                "polkit does not let this daemon reboot the machine (logind answered {answer:?}): \
                 check the rule that the package installs in /usr/share/polkit-1/rules.d"
            ))),
        }
    }

    /// Asks for a reboot, telling people who are logged in why. It happens
    /// some time after this returns.
    pub async fn reboot(&self, reason: Option<&str>, ignore_inhibitors: bool) -> Result<(), String> {
        let manager = self.manager().await.map_err(|error| explain(&error))?;
        if let Some(reason) = reason
            && let Err(error) = manager.set_wall_message(reason, true).await
        {
            tracing::debug!("nobody who is logged in is told the reason: {error}");
        }
        let asked = async {
            if ignore_inhibitors {
                match manager.reboot_with_flags(SKIP_INHIBITORS).await {
                    // Before systemd 257 it is polkit's right alone that counts.
                    Err(zbus::Error::FDO(error)) if matches!(*error, fdo::Error::InvalidArgs(_)) => {}
                    asked => return asked,
                }
            }
            manager.reboot(false).await
        };
        match asked.await {
            // Asked twice, or by somebody else first: it goes down either way.
            Err(zbus::Error::MethodError(name, ..))
                if name.as_str() == "org.freedesktop.login1.OperationInProgress" =>
            {
                Ok(())
            }
            Err(error) if is_silence(&error) => Ok(()),
            asked => asked.map_err(|error| explain(&error)),
        }
    }

    /// Keeps the people who are logged in told of the reboot that `notices`
    /// has, until nobody gives notice any more.
    pub async fn announce(self, mut notices: watch::Receiver<Option<Notice>>) {
        let mut told = None;
        while notices.changed().await.is_ok() {
            let notice = notices.borrow_and_update().clone();
            match self.announce_once(notice.as_ref(), told).await {
                Ok(ours) => told = notice.filter(|_| ours).map(|notice| microseconds(notice.at)),
                Err(error) => tracing::info!(
                    "people who are logged in are not told of the scheduled reboot: {}",
                    explain(&error)
                ),
            }
        }
    }

    /// A shutdown that logind has in its schedule as a dry run is announced as
    /// any other (`shutdown --show`, wall messages, no logins shortly before),
    /// but carried out by nobody: that is for the daemon to do. Tells whether
    /// ours is in the schedule now. Source: shutdown(8),
    /// org.freedesktop.login1(5).
    async fn announce_once(&self, notice: Option<&Notice>, told: Option<u64>) -> zbus::Result<bool> {
        let manager = self.manager().await?;
        let (_, scheduled) = manager.scheduled_shutdown().await?;
        let free = scheduled == 0 || scheduled == u64::MAX;
        let ours =
            told == Some(scheduled) || notice.is_some_and(|notice| microseconds(notice.at) == scheduled);
        // A shutdown that somebody else has scheduled is left alone.
        if !free && !ours {
            return Ok(false);
        }
        if let Some(notice) = notice {
            let why = notice.reason.as_deref().unwrap_or(&notice.id);
            manager.set_wall_message(&format!("scheduled by iotdm-agentd: {why}"), true).await?;
            manager.schedule_shutdown("dry-reboot", microseconds(notice.at)).await?;
        } else if ours {
            manager.cancel_scheduled_shutdown().await?;
        }
        Ok(notice.is_some())
    }

    /// Whether the machine is going down, also where nobody asked logind, as with
    /// Ctrl-Alt-Del, and which units systemd is still stopping.
    pub async fn shutdown(&self) -> Shutdown {
        let asked = tokio::time::timeout(LAST_WORDS, self.ask_about_shutdown()).await;
        asked.ok().and_then(Result::ok).unwrap_or_default()
    }

    async fn ask_about_shutdown(&self) -> zbus::Result<Shutdown> {
        let bus = self.connect().await?;
        // logind may be gone already when systemd is stopping.
        let prepares = ManagerProxy::new(&bus).await?.preparing_for_shutdown().await.unwrap_or(false);
        let systemd = SystemdProxy::new(&bus).await?;
        let stops = systemd.system_state().await? == "stopping";
        let jobs = systemd.list_jobs().await?;
        let to_shutdown = jobs.iter().any(|job| job.unit == "shutdown.target" && job.kind == "start");
        let running = jobs.into_iter().filter(|job| job.kind == "stop" && job.state == "running");
        let under_way = prepares || stops || to_shutdown;
        let stopping = running.map(|job| short(&job.unit)).filter(|_| under_way).collect();
        Ok(Shutdown { under_way: Some(under_way), stopping })
    }

    /// Whether the system clock is synchronised, as far as anybody can tell.
    pub async fn clock(&self) -> Clock {
        let synchronized =
            async { TimeDateProxy::new(&self.connect().await?).await?.ntp_synchronized().await };
        match synchronized.await {
            Ok(true) => Clock::Synchronized,
            Ok(false) => Clock::Unsynchronized,
            Err(error) => {
                tracing::debug!("systemd-timedated does not say whether the clock is synchronised: {error}");
                Clock::Unsynchronized
            }
        }
    }

    /// Holds a delay lock on shutdowns and tells what happens to the machine,
    /// until nobody listens. Without a bus or logind it waits for them.
    pub async fn watch(self, sightings: mpsc::Sender<Sighting>) {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        loop {
            match self.watch_once(&sightings, &mut backoff).await {
                Ok(()) => tracing::debug!("the connection to the bus ended"),
                Err(error) => tracing::debug!("the machine cannot be watched now: {error}"),
            }
            tokio::select! {
                () = sightings.closed() => return,
                () = tokio::time::sleep(backoff.next(fastrand::f64())) => {}
            }
        }
    }

    async fn watch_once(
        &self,
        sightings: &mpsc::Sender<Sighting>,
        backoff: &mut Backoff,
    ) -> zbus::Result<()> {
        let manager = self.manager().await?;
        let mut shutdowns = manager.receive_prepare_for_shutdown().await?;
        let mut inhibitors = manager.receive_block_inhibited_changed().await;
        let mut weak_inhibitors = manager.receive_block_weak_inhibited_changed().await;
        // Fails, so that it is tried again later, where there is no logind.
        let under_way = manager.preparing_for_shutdown().await?;
        let mut lock = inhibit(&manager).await;
        backoff.reset();
        let sighting = match under_way {
            true => Sighting::ShutdownBegan(lock.take()),
            false => Sighting::NoShutdown,
        };
        let mut next = Some(sighting);
        while let Some(sighting) = next {
            if sightings.send(sighting).await.is_err() {
                return Ok(());
            }
            next = tokio::select! {
                signal = shutdowns.next() => match signal {
                    Some(signal) if signal.args()?.start => Some(Sighting::ShutdownBegan(lock.take())),
                    Some(_) => {
                        if lock.is_none() {
                            lock = inhibit(&manager).await;
                        }
                        Some(Sighting::NoShutdown)
                    }
                    None => None,
                },
                changed = inhibitors.next() => changed.map(|_| Sighting::InhibitorsChanged),
                changed = weak_inhibitors.next() => changed.map(|_| Sighting::InhibitorsChanged),
            };
        }
        Ok(())
    }

    async fn manager(&self) -> zbus::Result<ManagerProxy<'static>> {
        ManagerProxy::new(&self.connect().await?).await
    }

    async fn connect(&self) -> zbus::Result<Connection> {
        let builder = connection::Builder::address(self.address.as_str());
        // A bus that accepts and says nothing must not hold anybody up.
        let connecting = builder.method_timeout(CALL_TIMEOUT).build();
        match tokio::time::timeout(CALL_TIMEOUT, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(zbus::Error::Failure("the bus does not answer".to_owned())),
        }
    }
}

/// Takes the delay lock. Without it shutdowns are still seen, but may be over
/// before they are noted.
async fn inhibit(manager: &ManagerProxy<'_>) -> Option<OwnedFd> {
    let why = "records that the shutdown is an orderly one";
    match manager.inhibit("shutdown", "iotdm-agentd", why, "delay").await {
        Ok(lock) => Some(lock),
        Err(error) => {
            tracing::warn!("a shutdown may be over before it is noted, as logind gives no lock: {error}");
            None
        }
    }
}

fn microseconds(at: Time) -> u64 {
    u64::try_from(at.unix_millis()).unwrap_or(0) * 1000
}

fn short(text: &str) -> String {
    text.chars().take(MAX_INHIBITOR_TEXT).collect()
}

/// Whether a call that was sent was left without an answer. That is no refusal:
/// it may have been taken, and the answer lost in the shutdown.
fn is_silence(error: &zbus::Error) -> bool {
    match error {
        zbus::Error::InputOutput(_) => true,
        zbus::Error::FDO(error) => matches!(
            **error,
            fdo::Error::NoReply(_)
                | fdo::Error::Timeout(_)
                | fdo::Error::TimedOut(_)
                | fdo::Error::Disconnected(_)
        ),
        _ => false,
    }
}

fn explain(error: &zbus::Error) -> String {
    match error {
        zbus::Error::MethodError(name, text, _) => {
            format!("logind does not answer: {}", text.as_deref().unwrap_or(name.as_str()))
        }
        other => format!("logind cannot be asked: {other}"),
    }
}
