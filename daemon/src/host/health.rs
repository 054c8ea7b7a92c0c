//! How the machine's units are, by systemd's own word.
//!
//! Nothing is asked by the clock: systemd tells on the bus when the number of
//! failed units changes, when a boot has finished, and when a unit changes that
//! has to be active; then it is asked how things are. Units that come and go, such
//! as those of a timer, are not heard of at all.
//! Source: org.freedesktop.systemd1(5); that `NFailedUnits` is signalled, and
//! `SystemState` is not, was tried with systemd 252 and 257.

use std::pin::pin;
use std::time::Duration;

use futures_util::stream::select_all;
use futures_util::{Stream, StreamExt as _};
use iotdm_core::decide::health::Observed;
use iotdm_proto::health::HealthState;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use zbus::message::Type;
use zbus::{Connection, MatchRule, MessageStream, OwnedObjectPath, proxy};

use super::boot;
use super::logind::{Logind, short};
use super::sighting::Sighting;
use crate::backoff::Backoff;

/// How long the units are left alone after a change before they are looked at: a
/// restart is no failure.
const SETTLE: Duration = Duration::from_secs(1);

/// The shortest time between two reports, but for those of a boot.
const PACE: Duration = Duration::from_secs(60);

/// How many signals may wait to be read.
const QUEUE: usize = 8;

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// What the device's own configuration makes of its health.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The units that have to be active.
    pub units: Vec<String>,
    /// The units whose failure does not matter.
    pub ignore: Vec<String>,
    /// How long a boot may take to finish.
    pub wait: Duration,
}

#[proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;
    fn load_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn list_units_filtered(&self, states: &[&str]) -> zbus::Result<Vec<Listed>>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn system_state(&self) -> zbus::Result<String>;
}

#[proxy(interface = "org.freedesktop.systemd1.Unit", default_service = "org.freedesktop.systemd1")]
trait Unit {
    #[zbus(property(emits_changed_signal = "false"))]
    fn active_state(&self) -> zbus::Result<String>;
}

/// A unit as systemd lists it.
#[derive(Debug, serde::Deserialize, zbus::zvariant::Type)]
struct Listed {
    name: String,
    _description: String,
    _load_state: String,
    _active_state: String,
    _sub_state: String,
    _following: String,
    _path: OwnedObjectPath,
    _job: u32,
    _job_type: String,
    _job_path: OwnedObjectPath,
}

/// Tells how the machine is, at once and then whenever that has changed, until
/// nobody listens. Without a bus or systemd it waits for them.
pub async fn watch(logind: Logind, wanted: Wanted, sightings: mpsc::Sender<Sighting>) {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    let mut pace = Pace::default();
    loop {
        match watch_once(&logind, &wanted, &mut pace, &sightings, &mut backoff).await {
            Ok(()) => tracing::debug!("the connection to the bus ended"),
            Err(error) => tracing::debug!("the health of the machine is not known now: {error}"),
        }
        tokio::select! {
            () = sightings.closed() => return,
            () = sleep(backoff.next(fastrand::f64())) => {}
        }
    }
}

async fn watch_once(
    logind: &Logind,
    wanted: &Wanted,
    pace: &mut Pace,
    sightings: &mpsc::Sender<Sighting>,
    backoff: &mut Backoff,
) -> zbus::Result<()> {
    let bus = logind.connect().await?;
    let manager = ManagerProxy::new(&bus).await?;
    let mut units = Vec::new();
    let mut signals = vec![
        signals(&bus, MANAGER_PATH, PROPERTIES, "PropertiesChanged", Some(MANAGER)).await?,
        signals(&bus, MANAGER_PATH, MANAGER, "StartupFinished", None).await?,
    ];
    for name in &wanted.units {
        let path = manager.load_unit(name).await?;
        signals.push(self::signals(&bus, path.as_str(), PROPERTIES, "PropertiesChanged", Some(UNIT)).await?);
        // Its values are read anew each time, so none is kept.
        let unit = UnitProxy::builder(&bus).path(path).build().await?;
        units.push((name.clone(), unit));
    }
    let mut signals = select_all(signals);
    // Without a subscriber systemd is silent.
    manager.subscribe().await?;
    loop {
        // Signals that come meanwhile are about what is then seen, or seen later.
        let looked = while_heard(&mut signals, look(&manager, &units, wanted)).await;
        let Some((seen, heard)) = looked else { return Ok(()) };
        let seen = seen?;
        backoff.reset();
        // By then, a boot takes too long.
        let boot_ends = (seen.state == HealthState::Starting)
            .then(|| Instant::now() + wanted.wait.saturating_sub(boot::uptime()));
        if let Some(sighting) = pace.saw(seen)
            && sightings.send(sighting).await.is_err()
        {
            return Ok(());
        }
        if !heard {
            let overdue = pace.overdue().into_iter().chain(boot_ends).min();
            tokio::select! {
                signal = signals.next() => if signal.is_none() { return Ok(()) },
                () = sleep_until(overdue.unwrap_or_else(Instant::now)), if overdue.is_some() => continue,
                () = sightings.closed() => return Ok(()),
            }
        }
        if while_heard(&mut signals, sleep_until(pace.next_look())).await.is_none() {
            return Ok(());
        }
    }
}

/// When to look, and which of the changes that are seen to report.
#[derive(Debug, Default)]
struct Pace {
    seen: Option<Observed>,
    /// What was reported last.
    told: Option<Observed>,
    /// Before this, no further change is reported.
    not_before: Option<Instant>,
    looked: Option<Instant>,
    /// How long to wait after a signal: ever longer while signals keep coming.
    settle: Duration,
}

impl Pace {
    /// What follows from what is `seen` now, if anything.
    fn saw(&mut self, seen: Observed) -> Option<Sighting> {
        let now = Instant::now();
        let quiet = self.looked.replace(now).is_none_or(|looked| now - looked > PACE);
        self.settle = if quiet { SETTLE } else { (self.settle * 2).clamp(SETTLE, PACE) };
        let is_new = self.seen.replace(seen.clone()).as_ref() != Some(&seen);
        let report = self.told.as_ref() != Some(&seen) && self.not_before.is_none_or(|at| at <= now);
        if report {
            // The end of a boot is reported whenever it comes, and so is the first
            // change after it.
            let of_boot = self.told.as_ref().is_none_or(|told| told.state == HealthState::Starting);
            self.not_before = (!of_boot).then(|| now + PACE);
            self.told = Some(seen.clone());
        }
        (is_new || report).then_some(Sighting::Health { observed: seen, report })
    }

    /// When to look after a signal that is heard now.
    fn next_look(&self) -> Instant {
        Instant::now() + self.settle.max(SETTLE)
    }

    /// When to look, without a signal, since what was seen could not be reported yet.
    fn overdue(&self) -> Option<Instant> {
        self.not_before.filter(|_| self.told != self.seen)
    }
}

/// The signals `member` of `interface` at `path` of systemd's, about `about` if
/// that is given.
async fn signals(
    bus: &Connection,
    path: &str,
    interface: &str,
    member: &str,
    about: Option<&str>,
) -> zbus::Result<MessageStream> {
    let rule = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender(SYSTEMD)
        .path(path)
        .interface(interface)
        .member(member);
    let rule = match about {
        Some(about) => rule.arg(0, about),
        None => rule,
    };
    MessageStream::for_match_rule(rule.build()?, bus, QUEUE.try_into().ok()).await
}

/// The outcome of `work`, and whether signals came meanwhile, which are read away:
/// one that nobody reads would hold up the answers behind it. `None` at the end of
/// the connection.
async fn while_heard<T>(
    signals: &mut (impl Stream + Unpin),
    work: impl Future<Output = T>,
) -> Option<(T, bool)> {
    let mut work = pin!(work);
    let mut heard = false;
    loop {
        tokio::select! {
            done = &mut work => return Some((done, heard)),
            signal = signals.next() => heard = signal.map(|_| true)?,
        }
    }
}

/// Asks systemd how things are.
async fn look(
    manager: &ManagerProxy<'_>,
    units: &[(String, UnitProxy<'_>)],
    wanted: &Wanted,
) -> zbus::Result<Observed> {
    let state = manager.system_state().await?;
    let listed = manager.list_units_filtered(&["failed"]).await?;
    let mut required = Vec::new();
    for (name, unit) in units {
        required.push((name.clone(), unit.active_state().await?));
    }
    let failed = listed.into_iter().map(|unit| short(&unit.name)).collect();
    judge(&state, failed, required, wanted, boot::uptime())
        .ok_or_else(|| zbus::Error::Failure(format!("systemd is {state}")))
}

/// What follows from systemd's `state`, the units that have failed, and the states
/// of the `required` ones; nothing from a word that says nothing.
fn judge(
    state: &str,
    mut failed: Vec<String>,
    required: Vec<(String, String)>,
    wanted: &Wanted,
    uptime: Duration,
) -> Option<Observed> {
    let state = match state {
        "initializing" | "starting" if uptime >= wanted.wait => HealthState::Degraded,
        "initializing" | "starting" => HealthState::Starting,
        "running" | "degraded" => HealthState::Running,
        "maintenance" => HealthState::Maintenance,
        "stopping" => HealthState::Stopping,
        _ => return None,
    };
    // Before the boot has finished, and while the machine goes down, a unit is
    // seldom where it belongs.
    let settled = !matches!(state, HealthState::Starting | HealthState::Stopping);
    let is_up = |active: &str| matches!(active, "active" | "reloading" | "refreshing");
    let is_down = |active: &str| if settled { !is_up(active) } else { active == "failed" };
    let down = required.into_iter().filter(|(_, active)| is_down(active)).map(|(name, _)| name);
    let mut down: Vec<String> = down.collect();
    down.sort_unstable();
    failed.retain(|unit| !wanted.units.contains(unit) && !wanted.ignore.contains(unit));
    failed.sort_unstable();
    let wrong = state == HealthState::Running && (!down.is_empty() || !failed.is_empty());
    let state = if wrong { HealthState::Degraded } else { state };
    Some(Observed { state, down, failed })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            units: vec!["app.service".to_owned(), "db.service".to_owned()],
            ignore: vec!["flaky.service".to_owned()],
            wait: Duration::from_secs(300),
        }
    }

    fn judged(state: &str, failed: &[&str], app: &str, uptime: u64) -> Option<(HealthState, String, String)> {
        let failed = failed.iter().map(|unit| (*unit).to_owned()).collect();
        let required = [("app.service", app), ("db.service", "active")]
            .map(|(unit, state)| (unit.to_owned(), state.to_owned()));
        let seen = judge(state, failed, required.to_vec(), &wanted(), Duration::from_secs(uptime))?;
        Some((seen.state, seen.down.join(" "), seen.failed.join(" ")))
    }

    #[test]
    fn what_is_made_of_systemds_word() {
        use HealthState::{Degraded, Maintenance, Running, Starting, Stopping};
        for (state, failed, app, uptime, expected) in [
            ("running", &[][..], "active", 10, (Running, "", "")),
            ("running", &[], "reloading", 10, (Running, "", "")),
            ("degraded", &["b.service", "a.mount"], "active", 10, (Degraded, "", "a.mount b.service")),
            // What is ignored does not count, whatever systemd says.
            ("degraded", &["flaky.service"], "active", 10, (Running, "", "")),
            ("degraded", &["flaky.service", "x.service"], "active", 10, (Degraded, "", "x.service")),
            // What has to be active, and is not, is named once.
            ("running", &[], "inactive", 10, (Degraded, "app.service", "")),
            ("running", &[], "activating", 10, (Degraded, "app.service", "")),
            ("degraded", &["app.service"], "failed", 10, (Degraded, "app.service", "")),
            // It has its time to start, unless it has failed.
            ("starting", &[], "inactive", 10, (Starting, "", "")),
            ("initializing", &["x.service"], "failed", 299, (Starting, "app.service", "x.service")),
            ("starting", &[], "activating", 300, (Degraded, "app.service", "")),
            ("stopping", &[], "deactivating", 900, (Stopping, "", "")),
            ("maintenance", &[], "inactive", 900, (Maintenance, "app.service", "")),
        ] {
            let (expected, down, names) = expected;
            let expected = Some((expected, down.to_owned(), names.to_owned()));
            assert_eq!(judged(state, failed, app, uptime), expected, "{state} {failed:?} {app} {uptime}");
        }
        assert_eq!(judged("unknown", &[], "active", 10), None);
        assert_eq!(judged("offline", &[], "active", 10), None);
    }

    fn seen(state: HealthState, failed: &str) -> Observed {
        Observed { state, down: Vec::new(), failed: vec![failed.to_owned()] }
    }

    #[tokio::test(start_paused = true)]
    async fn a_boot_and_the_first_change_are_reported_at_once_and_then_one_a_minute() {
        use HealthState::{Degraded, Running, Starting};
        let (began, mut pace) = (Instant::now(), Pace::default());
        let (up, down, other) = (seen(Running, ""), seen(Degraded, "x"), seen(Degraded, "y"));
        for (second, now, reported, overdue) in [
            (1, seen(Starting, ""), Some(true), None),
            (6, down.clone(), Some(true), None),
            (11, up.clone(), Some(true), None),
            // Known at once all the same, for a request that is accepted meanwhile.
            (16, down, Some(false), Some(71)),
            (20, other.clone(), Some(false), Some(71)),
            (30, other.clone(), None, Some(71)),
            (71, other.clone(), Some(true), None),
            (80, other, None, None),
            (140, up, Some(true), None),
        ] {
            sleep_until(began + Duration::from_secs(second)).await;
            let follows = pace.saw(now).map(|sighting| match sighting {
                Sighting::Health { report, .. } => report,
                other => panic!("{other:?}"),
            });
            assert_eq!(follows, reported, "at {second} s");
            assert_eq!(pace.overdue().map(|at| (at - began).as_secs()), overdue, "at {second} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_flaps_is_looked_at_ever_more_seldom() {
        let (mut pace, mut looks) = (Pace::default(), 0);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3600) {
            sleep_until(pace.next_look()).await;
            pace.saw(seen(HealthState::Running, ""));
            looks += 1;
        }
        assert!(looks < 80, "{looks} looks in an hour");
        // And at once again when it has been quiet.
        sleep(PACE * 2).await;
        pace.saw(seen(HealthState::Running, ""));
        assert_eq!(pace.next_look() - Instant::now(), SETTLE);
    }
}
