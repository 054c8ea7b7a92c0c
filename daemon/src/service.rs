//! From the settings to the running daemon: reads the record, starts what tells
//! of the machine and of the hub, and hands all of it to the loop.

use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::time::SystemTime;

use anyhow::Context as _;
use iotdm_core::decide::agent::{self, Agent};
use iotdm_core::decide::event::Start;
use iotdm_core::decide::guard::Guards;
use iotdm_core::decide::spread;
use iotdm_core::decide::windows::Turn;
use iotdm_proto::Time;
use jiff::tz::TimeZone;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::beat::{self, Beat};
use crate::connection::dial::Road;
use crate::connection::hub;
use crate::connection::identity::Source;
use crate::connection::observe::Observer;
use crate::connection::provisioning;
use crate::connection::tls::Tls;
use crate::host::backend::Backend;
use crate::host::health::{self, Wanted};
use crate::host::ids::Ids;
use crate::host::information;
use crate::host::logind::Logind;
use crate::host::metrics::Metrics;
use crate::host::notify::Notify;
use crate::host::preflight::Preflight;
use crate::host::required;
use crate::host::simulate::Simulation;
use crate::host::status::StatusFile;
use crate::host::store::{Loaded, Store};
use crate::lock;
use crate::run::{Daemon, RunEnd, Signals};
use crate::settings::Settings;
use crate::settings::config::{
    BackendKind, HealthConfig, HubConfig, MetricsConfig, RebootConfig, WhenRequired,
};

/// The file in the state directory that keeps the provisioning service's answer.
const ASSIGNMENT: &str = "assignment.json";
/// How many events of the hub, and how many of the machine, may wait for the
/// loop. Whoever has a further one waits until there is room, so that a small
/// number bounds the memory and loses nothing.
const QUEUE: usize = 32;

/// Runs the daemon until it is told to stop. logind is looked for on the bus at
/// the D-Bus address `bus`.
pub async fn serve(settings: &Settings, bus: String) -> anyhow::Result<()> {
    let _lock = lock::take(&settings.state_dir)?;
    let mut stop = pin!(stop_signal()?);
    for warning in &settings.credentials.warnings {
        tracing::warn!("{warning}");
    }
    let backend = match settings.config.reboot.backend {
        BackendKind::Logind => {
            let preflight =
                Preflight::new(settings.runtime_dir.as_deref(), settings.config.preflight.timeout);
            Backend::Logind(Logind::new(bus), preflight)
        }
        BackendKind::Simulate => {
            let duration = settings.config.reboot.simulate_duration;
            Backend::Simulate(Simulation::new(&settings.state_dir, duration))
        }
    };
    while let RunEnd::WentDown = life(settings, &backend, stop.as_mut()).await? {
        tokio::select! {
            () = &mut stop => return Ok(()),
            () = backend.comes_up() => {}
        }
    }
    Ok(())
}

/// Runs from a start until the daemon is told to stop or, where the machine is a
/// pretended one, until that machine goes down.
async fn life(
    settings: &Settings,
    backend: &Backend,
    mut stop: Pin<&mut impl Future<Output = ()>>,
) -> anyhow::Result<RunEnd> {
    let state_dir = &settings.state_dir;
    let store = Store::open(state_dir, backend.record_name());
    let mut store =
        store.with_context(|| format!("cannot use the state directory {}", state_dir.display()))?;
    let (record, damaged) = match store.load() {
        Loaded::Nothing => (None, None),
        Loaded::Record(record) => (Some(*record), None),
        Loaded::Damaged { file, why } => {
            let file = file.display().to_string();
            tracing::error!("the record of earlier reboots was damaged ({why}); it is now {file}");
            (None, Some(file))
        }
    };
    let ids = Ids::new(state_dir, backend.ids_name());
    let known = ids.load();
    let damaged_ids = known.damaged.map(|(file, why)| {
        let file = file.display().to_string();
        tracing::error!(
            "the file of the ids of earlier requests was damaged ({why}); what was whole is still known, and the \
             rest is now {file}"
        );
        file
    });
    let damaged = damaged.or(damaged_ids);

    // The backend asks the bus about the clock, so that READY=1 means that the bus
    // was asked. Nothing about the hub is begun before.
    let start = tokio::select! {
        start = backend.start(Path::new("/"), state_dir) => {
            let information = Some(information::look(Path::new("/")));
            Start { granted: known.requests, information, ..start? }
        }
        () = &mut stop => return Ok(RunEnd::Stopped),
    };
    let mut notify = Notify::default();
    notify.ready();

    // Dropping this set at the end of the function ends every task in it.
    let mut tasks = JoinSet::new();
    let (sightings, machine) = mpsc::channel(QUEUE);
    let (notices, noticed) = watch::channel(None);
    if let Backend::Logind(logind, _) = backend {
        let HealthConfig { units, ignore_units: ignore, wait } = settings.config.health.clone();
        tasks.spawn(required::watch(Path::new("/").to_owned(), start.need.clone(), sightings.clone()));
        tasks.spawn(health::watch(logind.clone(), Wanted { units, ignore, wait }, sightings.clone()));
    }
    backend.watch(start.clock, settings.runtime_dir.as_deref(), noticed, sightings, &mut tasks);
    let (hub_sender, hub_events) = mpsc::channel(QUEUE);
    let (hurry, hurried) = watch::channel(());
    let now = Time::from(SystemTime::now());
    let (agent, effects) = Agent::resume(record, damaged, start, agent_settings(settings), now);
    let (listen, listened) = watch::channel(agent.remembers());
    let options = hub_options(settings);
    let period = notify.watchdog().map(|watchdog| beat::period(watchdog, options.keep_alive));
    let beat = period.map(Beat::new).transpose().context("cannot make a timer")?;
    let (beats, beaten) = watch::channel(period);
    tasks.spawn(hub::run(options, hurried, listened, beaten, hub_sender));
    let source = &settings.credentials.source;
    let signals = Signals { hurry, listen, notices, beats };
    let runtime_dir = settings.runtime_dir.as_deref();
    let MetricsConfig { textfile } = settings.config.metrics;
    let told = (StatusFile::new(runtime_dir), Metrics::new(runtime_dir.filter(|_| textfile)));
    let (daemon, answered) =
        Daemon::new(agent, (store, ids), backend.clone(), source, (notify, beat), told, signals);
    daemon.run(effects, answered, hub_events, machine, stop).await
}

/// How the hub is reached by these settings.
pub fn hub_options(settings: &Settings) -> hub::Options {
    let source = &settings.credentials.source;
    let HubConfig { transport, proxy, keep_alive, sas_ttl, model_id, .. } = settings.config.hub.clone();
    hub::Options {
        source: source.clone(),
        assignment_file: assignment_file(settings),
        road: Road { transport, proxy, observer: Observer::default() },
        tls: Tls::new(settings.config.hub.ca_file.clone(), source.proof().certificate().cloned()),
        keep_alive,
        sas_ttl,
        model_id,
    }
}

fn agent_settings(settings: &Settings) -> agent::Settings {
    let RebootConfig {
        ack_timeout,
        down_timeout,
        allow_inhibitor_override,
        allow_preflight_override,
        max_per_hour,
        min_uptime,
        windows,
        window_reserve,
        window_spread,
        when_required,
        backend,
        simulate_duration: _,
    } = settings.config.reboot.clone();
    agent::Settings {
        ack_timeout,
        down_timeout,
        allow_inhibitor_override,
        allow_preflight_override,
        guards: Guards {
            max_per_hour,
            min_uptime,
            windows,
            turn: Turn { reserve: window_reserve, spread: window_spread, number: number(settings) },
            zone: TimeZone::system,
        },
        when_required: when_required == WhenRequired::Window,
        health: backend == BackendKind::Logind,
    }
}

/// Which of many machines this one is, as far as that is known before it is connected:
/// a device that has never been assigned to a hub has none yet.
fn number(settings: &Settings) -> u64 {
    let known = match &settings.credentials.source {
        Source::Fixed(login) => Some((login.hub.to_string(), login.id.clone())),
        Source::Provisioned(enrolment) => provisioning::assigned(enrolment, &assignment_file(settings)),
    };
    known.map_or(0, |(hub, id)| spread::number(&hub, &id))
}

fn assignment_file(settings: &Settings) -> PathBuf {
    settings.state_dir.join(ASSIGNMENT)
}

/// Ready when the service manager (SIGTERM) or a terminal (SIGINT) asks for an end.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
