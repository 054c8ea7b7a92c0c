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
use iotdm_proto::reply::Inhibitor;
use iotdm_proto::report::Clock;
use iotdm_proto::text::harmless;
use tokio::sync::{mpsc, watch};
use zbus::wire::OwnedFd;
use zbus::{Connection, Message, MessageStream, connection, fdo, message, proxy};

use super::notice;
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

/// What logind's wall message began with where an earlier version of this daemon
/// had a reboot in logind's schedule, to have it announced.
const OLD_NOTICE: &str = "scheduled by iotdm-agentd: ";

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
    fn set_wall_message(&self, message: &str, enable: bool) -> zbus::Result<()>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn wall_message(&self) -> zbus::Result<String>;
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

/// Whether an inhibitor that logind lists keeps the machine from being rebooted. `what` it
/// inhibits are words with colons between them.
fn holds_up_reboots(what: &str, mode: &str) -> bool {
    BLOCKING.contains(&mode) && what.split(':').any(|what| what == "shutdown")
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

    /// Who holds up reboots at present, and what logind says about whether it would
    /// reboot the machine if we asked now: "yes", or another word.
    pub async fn ask(&self) -> Result<(Vec<Inhibitor>, String), String> {
        let explain = |error| explain(&error);
        let manager = self.manager().await.map_err(explain)?;
        let inhibitors = manager.list_inhibitors().await.map_err(explain)?;
        let blocking: Vec<Inhibitor> = inhibitors
            .into_iter()
            .filter(|(what, _, _, mode, ..)| holds_up_reboots(what, mode))
            .map(|(_, who, why, _, uid, pid)| Inhibitor { who: short(&who), why: short(&why), uid, pid })
            .take(MAX_INHIBITORS)
            .collect();
        Ok((blocking, manager.can_reboot().await.map_err(explain)?))
    }

    /// Whether the machine would be rebooted if we asked now.
    pub async fn permission(&self) -> Result<(), Refusal> {
        let (blocking, answer) = self.ask().await.map_err(Refusal::LogindUnavailable)?;
        if !blocking.is_empty() {
            return Err(Refusal::Blocked(blocking));
        }
        match answer.as_str() {
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

    /// Asks for a reboot, telling people who are logged in these words. It happens
    /// some time after this returns.
    pub async fn reboot(&self, words: Option<&str>, ignore_inhibitors: bool) -> Result<(), String> {
        // Without words as well: logind would else show those of an earlier
        // request. It shows them as they are.
        let shown = words.map(harmless).unwrap_or_default();
        if let Err(error) = self.set_wall_message(&shown).await {
            tracing::debug!("nobody who is logged in is told the reason: {error}");
        }
        let asked = self.ask_to_reboot(ignore_inhibitors).await;
        if asked.is_err() {
            self.forget_words(words).await;
        }
        asked
    }

    async fn ask_to_reboot(&self, ignore_inhibitors: bool) -> Result<(), String> {
        let connection = self.connect().await.map_err(|error| explain(&error))?;
        let asked = match ignore_inhibitors {
            true => match call(&connection, "RebootWithFlags", &SKIP_INHIBITORS).await {
                // Before systemd 257 it is polkit's right alone that counts.
                Err(Unanswered::Refused(error)) if is_invalid(&error) => {
                    call(&connection, "Reboot", &false).await
                }
                asked => asked,
            },
            false => call(&connection, "Reboot", &false).await,
        };
        match asked {
            Ok(()) => Ok(()),
            // The call may have been taken, and the answer lost in the shutdown:
            // asked again, logind might reboot the machine twice.
            Err(Unanswered::Silent) => Ok(()),
            // Asked twice, or by somebody else first: it goes down either way.
            Err(Unanswered::Refused(zbus::Error::MethodError(name, ..)))
                if name.as_str() == "org.freedesktop.login1.OperationInProgress" =>
            {
                Ok(())
            }
            Err(Unanswered::Refused(error)) => Err(explain(&error)),
            Err(Unanswered::NotSent(error)) => Err(format!("logind could not be asked: {error}")),
        }
    }

    /// Has logind forget these words about a reboot that does not come, which it
    /// would show, and log, with the next one. What somebody else has it show is
    /// left alone.
    pub async fn forget_words(&self, words: Option<&str>) {
        let Some(words) = words.map(harmless) else { return };
        let forgotten = async {
            if self.manager().await?.wall_message().await? == words {
                self.set_wall_message("").await?;
            }
            zbus::Result::Ok(())
        };
        if let Err(error) = forgotten.await {
            tracing::debug!("logind may still show the reason of a reboot that does not come: {error}");
        }
    }

    /// On a connection of its own, which the bus may close for what is in the
    /// message.
    async fn set_wall_message(&self, words: &str) -> zbus::Result<()> {
        self.manager().await?.set_wall_message(words, true).await
    }

    /// Earlier versions of this daemon announced a reboot by a dry run in
    /// logind's schedule, which a logind that is started anew takes for a real
    /// one. One that is still there is taken off, and with it /run/nologin; a
    /// shutdown that somebody else has scheduled stays.
    async fn take_back_old_notice(manager: &ManagerProxy<'_>, known: notice::Known) -> zbus::Result<()> {
        // The time is that of the request to the microsecond, whatever a logind that
        // was started anew has kept of the words.
        let of_request = match known.flatten() {
            Some(Notice { at, .. }) => {
                let (_, scheduled) = manager.scheduled_shutdown().await?;
                i64::try_from(scheduled)
                    .is_ok_and(|scheduled| scheduled == at.unix_millis().saturating_mul(1000))
            }
            None => false,
        };
        if of_request || is_old_notice(&manager.wall_message().await?) {
            manager.cancel_scheduled_shutdown().await?;
            manager.set_wall_message("", true).await?;
            tracing::info!("took back a notice that an earlier version had put into logind's schedule");
        }
        Ok(())
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

    /// Holds a delay lock on shutdowns, whose reason says which reboot is to come,
    /// and tells what happens to the machine, until nobody listens. Without a bus
    /// or logind it waits for them.
    pub async fn watch(self, mut notices: watch::Receiver<notice::Known>, sightings: mpsc::Sender<Sighting>) {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        loop {
            match self.watch_once(&mut notices, &sightings, &mut backoff).await {
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
        notices: &mut watch::Receiver<notice::Known>,
        sightings: &mpsc::Sender<Sighting>,
        backoff: &mut Backoff,
    ) -> zbus::Result<()> {
        let manager = self.manager().await?;
        let mut shutdowns = manager.receive_prepare_for_shutdown().await?;
        let mut inhibitors = manager.receive_block_inhibited_changed().await;
        let mut weak_inhibitors = manager.receive_block_weak_inhibited_changed().await;
        // Fails, so that it is tried again later, where there is no logind.
        let under_way = manager.preparing_for_shutdown().await?;
        let mut lock = inhibit(&manager, notices).await;
        let known = notices.borrow().clone();
        if let Err(error) = Self::take_back_old_notice(&manager, known).await {
            tracing::warn!(
                "whether logind's schedule has a notice of an earlier version is not known: {error}"
            );
        }
        backoff.reset();
        let sighting = match under_way {
            true => Sighting::ShutdownBegan(lock.take()),
            false => Sighting::NoShutdown,
        };
        let mut next = Some(sighting);
        loop {
            if let Some(sighting) = next.take()
                && sightings.send(sighting).await.is_err()
            {
                return Ok(());
            }
            next = tokio::select! {
                Ok(()) = notices.changed() => {
                    // Not while the machine goes down: then no lock is given any
                    // more. The old one is let go once the new one is held.
                    if lock.is_some() {
                        lock = inhibit(&manager, notices).await.or(lock);
                    }
                    continue;
                }
                signal = shutdowns.next() => match signal {
                    Some(signal) if signal.args()?.start => Some(Sighting::ShutdownBegan(lock.take())),
                    Some(_) => {
                        if lock.is_none() {
                            lock = inhibit(&manager, notices).await;
                        }
                        Some(Sighting::NoShutdown)
                    }
                    None => return Ok(()),
                },
                Some(_) = inhibitors.next() => Some(Sighting::InhibitorsChanged),
                Some(_) = weak_inhibitors.next() => Some(Sighting::InhibitorsChanged),
                else => return Ok(()),
            };
        }
    }

    async fn manager(&self) -> zbus::Result<ManagerProxy<'static>> {
        ManagerProxy::new(&self.connect().await?).await
    }

    /// A connection to the bus.
    pub(super) async fn connect(&self) -> zbus::Result<Connection> {
        let builder = connection::Builder::address(self.address.as_str());
        // A bus that accepts and says nothing must not hold anybody up.
        let connecting = builder.method_timeout(CALL_TIMEOUT).build();
        match tokio::time::timeout(CALL_TIMEOUT, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(zbus::Error::Failure("the bus does not answer".to_owned())),
        }
    }
}

/// Takes the delay lock, which `systemd-inhibit --list` shows with its reason:
/// the reboot to come, if there is one. Without the lock shutdowns are still seen,
/// but may be over before they are noted.
async fn inhibit(
    manager: &ManagerProxy<'_>,
    notices: &mut watch::Receiver<notice::Known>,
) -> Option<OwnedFd> {
    let known = notices.borrow_and_update().clone();
    let why = match known.flatten() {
        Some(Notice { at, reason, .. }) => notice::sentence(at, reason.as_deref()),
        None => "records that the shutdown is an orderly one".to_owned(),
    };
    match manager.inhibit("shutdown", "iotdm-agentd", &why, "delay").await {
        Ok(lock) => Some(lock),
        Err(error) => {
            tracing::warn!("a shutdown may be over before it is noted, as logind gives no lock: {error}");
            None
        }
    }
}

/// Why there is no answer of logind that it agrees.
#[derive(Debug)]
enum Unanswered {
    /// The call never left: logind cannot have taken it.
    NotSent(zbus::Error),
    /// The call was sent, and nothing came back.
    Silent,
    /// logind, or the bus in its place, said no.
    Refused(zbus::Error),
}

/// Calls a method of the login manager whose answer is empty. A proxy would not
/// tell a call that could not be sent from one that was not answered.
async fn call<B>(connection: &Connection, method: &'static str, body: &B) -> Result<(), Unanswered>
where
    B: serde::Serialize + zbus::DynamicType,
{
    let call = Message::method_call("/org/freedesktop/login1", method)
        .destination("org.freedesktop.login1")
        .interface("org.freedesktop.login1.Manager")
        .build(body)
        .map_err(Unanswered::NotSent)?;
    let serial = call.primary_header().serial_num();
    let mut incoming = MessageStream::from(connection);
    connection.send(&call).await.map_err(Unanswered::NotSent)?;
    let reply = async {
        while let Some(Ok(message)) = incoming.next().await {
            if message.header().reply_serial() == Some(serial) {
                return Some(message);
            }
        }
        None
    };
    match tokio::time::timeout(CALL_TIMEOUT, reply).await {
        Ok(Some(reply)) if reply.message_type() == message::Type::Error => {
            let error = zbus::Error::from(reply);
            Err(if is_silence(&error) { Unanswered::Silent } else { Unanswered::Refused(error) })
        }
        Ok(Some(_)) => Ok(()),
        Ok(None) | Err(_) => Err(Unanswered::Silent),
    }
}

pub(super) fn short(text: &str) -> String {
    harmless(text).chars().take(MAX_INHIBITOR_TEXT).collect()
}

/// Whether the bus says that the callee, which has got the call, does not answer:
/// it has gone, or has taken too long.
fn is_silence(error: &zbus::Error) -> bool {
    let zbus::Error::FDO(error) = error else { return false };
    matches!(
        **error,
        fdo::Error::NoReply(_)
            | fdo::Error::Timeout(_)
            | fdo::Error::TimedOut(_)
            | fdo::Error::Disconnected(_)
    )
}

/// Whether the callee does not know what it was asked for.
fn is_invalid(error: &zbus::Error) -> bool {
    matches!(error, zbus::Error::FDO(error) if matches!(**error, fdo::Error::InvalidArgs(_)))
}

fn explain(error: &zbus::Error) -> String {
    match error {
        zbus::Error::MethodError(name, text, _) => {
            format!("logind refuses: {}", text.as_deref().unwrap_or(name.as_str()))
        }
        zbus::Error::FDO(error) => format!("logind does not do it: {error}"),
        other => format!("logind cannot be asked: {other}"),
    }
}

/// Whether these words of logind's announce a reboot as earlier versions did.
/// systemd 257 writes each space of them as `\x20`, and reads that back as `x20`
/// when logind is started anew.
fn is_old_notice(wall_message: &str) -> bool {
    wall_message.replace("x20", " ").starts_with(OLD_NOTICE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_blocks_shutdowns_holds_up_reboots() {
        for what in ["shutdown", "shutdown:sleep", "sleep:shutdown:idle"] {
            assert!(holds_up_reboots(what, "block") && holds_up_reboots(what, "block-weak"), "{what}");
            assert!(!holds_up_reboots(what, "delay"), "{what}");
        }
        for what in ["", "sleep", "sleep:idle:handle-power-key"] {
            assert!(!holds_up_reboots(what, "block"), "{what}");
        }
    }

    #[test]
    fn an_old_notice_is_known_by_what_logind_makes_of_it() {
        for words in ["scheduled by iotdm-agentd: kernel", "scheduledx20byx20iotdm-agentd:x20kernel"] {
            assert!(is_old_notice(words), "{words}");
        }
        for words in ["", "kernel", "scheduled by somebody", "an iotdm-agentd: kernel"] {
            assert!(!is_old_notice(words), "{words}");
        }
    }

    /// A connection, and who is at its other end.
    async fn pair() -> (Connection, Connection) {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let theirs = connection::Builder::unix_stream(theirs).server(zbus::Guid::generate()).p2p();
        let ours = connection::Builder::unix_stream(ours).p2p();
        tokio::try_join!(ours.build(), theirs.build()).unwrap()
    }

    #[tokio::test]
    async fn a_call_that_never_left_is_no_silence() {
        let (ours, theirs) = pair().await;
        theirs.close().await.unwrap();
        let answer = call(&ours, "Reboot", &false).await;
        assert!(matches!(answer, Err(Unanswered::NotSent(_))), "{answer:?}");
    }

    #[tokio::test]
    async fn a_call_that_was_heard_and_not_answered_is() {
        let (ours, theirs) = pair().await;
        let mut calls = MessageStream::from(&theirs);
        let heard = async {
            let heard = calls.next().await.unwrap().unwrap();
            theirs.close().await.unwrap();
            heard
        };
        let (answer, heard) = tokio::join!(call(&ours, "Reboot", &false), heard);
        assert_eq!(heard.header().member().unwrap(), "Reboot");
        assert!(matches!(answer, Err(Unanswered::Silent)), "{answer:?}");
    }

    #[tokio::test]
    async fn a_refusal_is_one_and_a_bus_that_lost_the_callee_is_silence() {
        for (name, silent) in [
            ("org.freedesktop.systemd1.UnitMasked", false),
            ("org.freedesktop.DBus.Error.AccessDenied", false),
            ("org.freedesktop.DBus.Error.ServiceUnknown", false),
            ("org.freedesktop.DBus.Error.NoReply", true),
        ] {
            let (ours, theirs) = pair().await;
            let mut calls = MessageStream::from(&theirs);
            let refusing = async {
                let heard = calls.next().await.unwrap().unwrap();
                theirs.reply_error(&heard.header(), name, &"the words").await.unwrap();
            };
            let (answer, ()) = tokio::join!(call(&ours, "Reboot", &false), refusing);
            match answer {
                Err(Unanswered::Silent) => assert!(silent, "{name}"),
                Err(Unanswered::Refused(error)) => {
                    assert!(!silent && explain(&error).contains("the words"), "{name}: {}", explain(&error));
                }
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}
