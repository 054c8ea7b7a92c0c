//! systemd's login manager over D-Bus: may we reboot, do it, and learn of any
//! shutdown before it happens.
//!
//! Reboots are rare, so each question opens a connection of its own: there is
//! none that could have broken unnoticed. Only the watch keeps one.
//! Source: org.freedesktop.login1(5), org.freedesktop.timedate1(5).

use std::time::Duration;

use futures_util::StreamExt as _;
use iotdm_proto::report::Clock;
use tokio::sync::mpsc;
use zbus::wire::OwnedFd;
use zbus::{Connection, connection, proxy};

use crate::agent::{Inhibitor, Refusal};
use crate::backoff::Backoff;

/// A D-Bus call that is not answered this long is taken for failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The login manager on the bus at an address.
#[derive(Debug, Clone)]
pub struct Logind {
    address: String,
}

/// What the watch saw.
#[derive(Debug)]
pub enum Shutdown {
    /// A shutdown is under way. It waits, for a few seconds at most, until
    /// the lock is dropped.
    Began(Option<OwnedFd>),
    /// None is under way.
    None,
}

#[proxy(
    interface = "org.freedesktop.login1.Manager",
    default_service = "org.freedesktop.login1",
    default_path = "/org/freedesktop/login1"
)]
trait Manager {
    fn can_reboot(&self) -> zbus::Result<String>;
    fn reboot(&self, interactive: bool) -> zbus::Result<()>;
    fn inhibit(&self, what: &str, who: &str, why: &str, mode: &str) -> zbus::Result<OwnedFd>;
    fn list_inhibitors(&self) -> zbus::Result<Vec<(String, String, String, String, u32, u32)>>;
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

impl Logind {
    /// The login manager on the bus at this D-Bus address.
    pub fn new(address: String) -> Self {
        Logind { address }
    }

    /// Whether the machine would be rebooted if we asked now.
    pub async fn can_reboot(&self) -> Result<(), Refusal> {
        let unavailable = |error| Refusal::LogindUnavailable(explain(&error));
        let manager = self.manager().await.map_err(unavailable)?;
        let inhibitors = manager.list_inhibitors().await.map_err(unavailable)?;
        let blocking: Vec<Inhibitor> = inhibitors
            .into_iter()
            .filter(|(what, _, _, mode, ..)| {
                mode == "block" && what.split(':').any(|what| what == "shutdown")
            })
            .map(|(_, who, why, _, uid, pid)| Inhibitor { who, why, uid, pid })
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

    /// Asks for a reboot. It happens some time after this returns.
    pub async fn reboot(&self) -> Result<(), String> {
        let asked = async { self.manager().await?.reboot(false).await };
        match asked.await {
            // Asked twice, or by somebody else first: it goes down either way.
            Err(zbus::Error::MethodError(name, ..))
                if name.as_str() == "org.freedesktop.login1.OperationInProgress" =>
            {
                Ok(())
            }
            asked => asked.map_err(|error| explain(&error)),
        }
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

    /// Holds a delay lock on shutdowns and tells of each, until nobody
    /// listens. Without a bus or logind it waits for them to appear.
    pub async fn watch(self, shutdowns: mpsc::Sender<Shutdown>) {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        loop {
            match self.watch_once(&shutdowns, &mut backoff).await {
                Ok(()) => tracing::debug!("the connection to the bus ended"),
                Err(error) => tracing::debug!("shutdowns cannot be watched now: {error}"),
            }
            tokio::select! {
                () = shutdowns.closed() => return,
                () = tokio::time::sleep(backoff.next(fastrand::f64())) => {}
            }
        }
    }

    async fn watch_once(
        &self,
        shutdowns: &mpsc::Sender<Shutdown>,
        backoff: &mut Backoff,
    ) -> zbus::Result<()> {
        let manager = self.manager().await?;
        let mut signals = manager.receive_prepare_for_shutdown().await?;
        let mut lock = Some(inhibit(&manager).await?);
        backoff.reset();
        let mut under_way = manager.preparing_for_shutdown().await?;
        loop {
            let shutdown = if under_way { Shutdown::Began(lock.take()) } else { Shutdown::None };
            if shutdowns.send(shutdown).await.is_err() {
                return Ok(());
            }
            let Some(signal) = signals.next().await else { return Ok(()) };
            under_way = signal.args()?.start;
            if !under_way && lock.is_none() {
                lock = Some(inhibit(&manager).await?);
            }
        }
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

async fn inhibit(manager: &ManagerProxy<'_>) -> zbus::Result<OwnedFd> {
    manager.inhibit("shutdown", "iotdm-agentd", "records that the shutdown is an orderly one", "delay").await
}

fn explain(error: &zbus::Error) -> String {
    match error {
        zbus::Error::MethodError(name, text, _) => {
            format!("logind does not answer: {}", text.as_deref().unwrap_or(name.as_str()))
        }
        other => format!("logind cannot be asked: {other}"),
    }
}
