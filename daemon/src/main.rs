//! The program: arguments in, exit code out. Only here is the real system
//! touched: its bus, its `/proc`, its signals.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context as _;
use clap::Parser as _;
use iotdm_agentd::agent::{Agent, Settings};
use iotdm_agentd::backend::Backend;
use iotdm_agentd::cli::Arguments;
use iotdm_agentd::config::{self, Config};
use iotdm_agentd::credentials::{self, Credentials, Proof, Source};
use iotdm_agentd::dial::{Road, Transport};
use iotdm_agentd::guard::Guards;
use iotdm_agentd::logind::Logind;
use iotdm_agentd::notify::Notify;
use iotdm_agentd::proxy::Proxy;
use iotdm_agentd::run::{Daemon, Ended};
use iotdm_agentd::simulate::Simulation;
use iotdm_agentd::store::{Loaded, Store};
use iotdm_agentd::tls::{self, CertificateFiles, Tls};
use iotdm_agentd::windows::Window;
use iotdm_agentd::{clock, hub, log};
use iotdm_proto::Time;
use jiff::tz::TimeZone;
use rustls::pki_types::CertificateDer;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

const DEFAULT_CONFIG: &str = "/etc/iotdm/agentd.toml";
const PACKAGED_CONNECTION_STRING: &str = "/etc/iotdm/connection-string";
const DEFAULT_STATE_DIR: &str = "/var/lib/iotdm";
/// In the state directory: what the provisioning service answered.
const ASSIGNMENT: &str = "assignment.json";
const DEFAULT_SYSTEM_BUS: &str = "unix:path=/run/dbus/system_bus_socket";
/// sysexits.h: EX_CONFIG.
const EXIT_CONFIG: u8 = 78;
/// Events of the hub and of logind that wait for the loop.
const QUEUE: usize = 32;

/// Everything that the configuration leads to.
struct Setup {
    config: Config,
    credentials: Credentials,
    extra_cas: Vec<CertificateDer<'static>>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // From here on there are keys in memory: no core file, also where a program
    // collects them that heeds no limit, and no look from the user's other
    // processes.
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        eprintln!("iotdm-agentd: cannot keep the keys out of core files: {error}");
        return ExitCode::FAILURE;
    }
    let setup = match set_up(&arguments) {
        Ok(setup) => setup,
        Err(error) => {
            eprintln!("iotdm-agentd: {error:#}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let state_dir = state_dir(&arguments);
    if arguments.check_config {
        // Not at a start: a pair that is half renewed is used as soon as it is
        // whole.
        if let Some(Err(error)) = setup.credentials.source.proof().certificate().map(CertificateFiles::check)
        {
            eprintln!("iotdm-agentd: {error:#}");
            return ExitCode::from(EXIT_CONFIG);
        }
        print!("{}", describe(&setup, &state_dir));
        return ExitCode::SUCCESS;
    }
    log::init(setup.config.log.level);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let served = runtime.context("cannot start").and_then(|runtime| {
        let served = runtime.block_on(serve(setup, &state_dir));
        // A name server that does not answer must not hold up the end.
        runtime.shutdown_background();
        served
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn set_up(arguments: &Arguments) -> anyhow::Result<Setup> {
    let file = arguments.config.as_deref();
    let config = Config::load(file.unwrap_or(Path::new(DEFAULT_CONFIG)), file.is_some())?;
    let credentials_dir = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let mut credentials =
        credentials::load(&config, credentials_dir.as_deref(), Path::new(PACKAGED_CONNECTION_STRING))?;
    if config.hub.proxy.as_ref().is_some_and(Proxy::has_credentials) {
        let file = config.proxy_file.iter().filter(|file| credentials::is_world_readable(file));
        credentials.warnings.extend(file.map(|file| {
            format!(
                "{} can be read by every user of this machine, and hub.proxy has a password: write that into a \
                 drop-in of its own, chgrp iotdm and chmod 0640 it",
                file.display()
            )
        }));
    }
    let extra_cas = config.hub.ca_file.as_deref().map(tls::read_ca_file).transpose()?.unwrap_or_default();
    Ok(Setup { config, credentials, extra_cas })
}

fn state_dir(arguments: &Arguments) -> PathBuf {
    // systemd separates several directories by colons; ours is one.
    let of_systemd = || std::env::var("STATE_DIRECTORY").ok()?.split(':').next().map(PathBuf::from);
    arguments.state_dir.clone().or_else(of_systemd).unwrap_or_else(|| PathBuf::from(DEFAULT_STATE_DIR))
}

fn describe(setup: &Setup, state_dir: &Path) -> String {
    let Setup { config, credentials, extra_cas } = setup;
    let (who, where_to) = match &credentials.source {
        Source::Fixed(identity) => {
            let gateway = identity.gateway.as_ref().map(|gateway| format!(" through {gateway}"));
            (identity.device_id.to_string(), format!("{}{}", identity.hub, gateway.unwrap_or_default()))
        }
        Source::Provisioned(enrolment) => (
            format!("registered as {}", enrolment.registration_id),
            format!("as {} assigns for {}", enrolment.endpoint, enrolment.id_scope),
        ),
    };
    let proof = match credentials.source.proof() {
        Proof::Key { file, .. } => format!("shared access key (hidden) from {}", file.display()),
        Proof::Certificate(files) => {
            format!(
                "certificate {}, key (hidden) from {}",
                files.certificate.display(),
                files.private_key.display()
            )
        }
    };
    let transport = match config.hub.transport {
        Transport::Mqtt => "MQTT over TLS",
        Transport::WebSocket => "MQTT over WebSocket",
    };
    let proxy = config.hub.proxy.as_ref();
    let proxy = proxy.map_or_else(String::new, |proxy| {
        let hidden = if proxy.has_credentials() { " (with user and password, hidden)" } else { "" };
        format!(" through the proxy {proxy}{hidden}")
    });
    let model = config.hub.model_id.as_deref().unwrap_or("none");
    let backend = match config.reboot.backend {
        config::Backend::Logind => "logind".to_owned(),
        config::Backend::Simulate => format!("simulate, {:?}", config.reboot.simulate_duration),
    };
    let windows: Vec<String> = config.reboot.windows.iter().map(Window::to_string).collect();
    let windows = if windows.is_empty() { "always".to_owned() } else { windows.join("; ") };
    let warnings: String =
        credentials.warnings.iter().map(|warning| format!("warning          {warning}\n")).collect();
    format!(
        "hub              {where_to}\n\
         device           {who}\n\
         authentication   {proof}\n\
         transport        {transport}{proxy}\n\
         trusted CAs      the system's, and {} of ca_file\n\
         keep_alive       {:?}\n\
         sas_ttl          {:?}\n\
         model            {model}\n\
         backend          {backend}\n\
         overrides        {}\n\
         max_per_hour     {}\n\
         min_uptime       {:?}\n\
         windows          {windows}\n\
         ack_timeout      {:?}\n\
         down_timeout     {:?}\n\
         log level        {:?}\n\
         state directory  {}\n{warnings}",
        extra_cas.len(),
        config.hub.keep_alive,
        config.hub.sas_ttl,
        if config.reboot.allow_inhibitor_override { "allowed" } else { "not allowed" },
        config.reboot.max_per_hour,
        config.reboot.min_uptime,
        config.reboot.ack_timeout,
        config.reboot.down_timeout,
        config.log.level,
        state_dir.display(),
    )
}

async fn serve(setup: Setup, state_dir: &Path) -> anyhow::Result<()> {
    let mut stop = pin!(stop_signal()?);
    for warning in &setup.credentials.warnings {
        tracing::warn!("{warning}");
    }
    let backend = match setup.config.reboot.backend {
        config::Backend::Logind => {
            let bus =
                std::env::var("DBUS_SYSTEM_BUS_ADDRESS").unwrap_or_else(|_| DEFAULT_SYSTEM_BUS.to_owned());
            Backend::Logind(Logind::new(bus))
        }
        config::Backend::Simulate => {
            Backend::Simulate(Simulation::new(state_dir, setup.config.reboot.simulate_duration))
        }
    };
    while let Ended::SimulatedDown = life(&setup, state_dir, &backend, stop.as_mut()).await? {
        let duration = setup.config.reboot.simulate_duration;
        tracing::info!("the simulated machine is down for {duration:?}");
        tokio::select! {
            () = &mut stop => return Ok(()),
            () = tokio::time::sleep(duration) => {}
        }
    }
    Ok(())
}

/// From a start to a stop; or, simulated, to going down.
async fn life(
    setup: &Setup,
    state_dir: &Path,
    backend: &Backend,
    mut stop: std::pin::Pin<&mut impl Future<Output = ()>>,
) -> anyhow::Result<Ended> {
    let store = Store::open(state_dir, backend.record_name());
    let store = store.with_context(|| format!("cannot make the state directory {}", state_dir.display()))?;
    let (record, damaged) = match store.load() {
        Loaded::Nothing => (None, None),
        Loaded::Record(record) => (Some(*record), None),
        Loaded::Damaged { file, why } => {
            let file = file.display().to_string();
            tracing::error!("the record of earlier reboots was damaged ({why}); it is now {file}");
            (None, Some(file))
        }
    };

    // Asks the bus, so that readiness means that it was asked. What the hub
    // needs can wait until then.
    let start = tokio::select! {
        start = backend.start(Path::new("/"), state_dir) => start?,
        () = &mut stop => return Ok(Ended::Stopped),
    };
    let notify = Notify::default();
    notify.ready();

    let mut tasks = tokio::task::JoinSet::new();
    let (sightings, machine) = mpsc::channel(QUEUE);
    let (notices, noticed) = watch::channel(None);
    if let Backend::Logind(logind) = backend {
        tasks.spawn(logind.clone().announce(noticed));
        tasks.spawn(clock::watch(logind.clone(), start.clock, sightings.clone()));
        tasks.spawn(logind.clone().watch(sightings));
    }
    let source = &setup.credentials.source;
    let config::Hub { transport, proxy, keep_alive, sas_ttl, model_id, .. } = setup.config.hub.clone();
    let options = hub::Options {
        source: source.clone(),
        assignment_file: state_dir.join(ASSIGNMENT),
        road: Road { transport, proxy },
        tls: Tls::new(&setup.extra_cas, source.proof().certificate().cloned()),
        keep_alive,
        sas_ttl,
        model_id,
    };
    let (hub_sender, hub_events) = mpsc::channel(QUEUE);
    let (hurry, hurried) = watch::channel(());
    tasks.spawn(hub::run(options, hurried, hub_sender));

    let reboot = &setup.config.reboot;
    let settings = Settings {
        ack_timeout: reboot.ack_timeout,
        down_timeout: reboot.down_timeout,
        allow_inhibitor_override: reboot.allow_inhibitor_override,
        guards: Guards {
            max_per_hour: reboot.max_per_hour,
            min_uptime: reboot.min_uptime,
            windows: reboot.windows.clone(),
            zone: TimeZone::system,
        },
    };
    let (agent, effects) = Agent::resume(record, damaged, start, settings, Time::from(SystemTime::now()));
    let (daemon, answered) = Daemon::new(agent, store, backend.clone(), source, notify, hurry, notices);
    let ended = daemon.run(effects, answered, hub_events, machine, stop).await;
    tasks.abort_all();
    ended
}

/// Ready when the service manager or a terminal asks for an end.
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
