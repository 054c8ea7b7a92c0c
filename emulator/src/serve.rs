//! `iotdm-emulator serve`: from the command line to a running hub.

use std::future::pending;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use iotdm_proto::HostName;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use crate::address::Address;
use crate::certificates::Authorities;
use crate::cli::Serve;
use crate::data_dir::DataDir;
use crate::device::IdentityChange;
use crate::hub::Hub;
use crate::output::print_line;
use crate::pki::Authority;
use crate::refusal::ErrorCode;
use crate::server;
use crate::store::Store;
use crate::throttle::Throttle;
use crate::twin::TwinChange;

/// Serves until SIGTERM or SIGINT.
pub async fn run(options: Serve) -> Result<()> {
    // Before anything else, so that no signal is missed while the hub starts.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let path = match options.data {
        Some(path) => path,
        None => DataDir::default_path()?,
    };
    allow_many_connections();
    let dir = DataDir::create(&path)?;
    let store = Store::open(&dir.store())?;
    let mut hosts: Vec<String> = options.host.iter().map(HostName::to_string).collect();
    let authority = Authority::of(&store, &hosts, options.bind)?;
    let authorities = Authorities::read(&options.x509_ca)?;
    let tls = authority.server_config(&hosts, options.bind)?;

    if !options.bind.is_loopback() {
        warn!("other machines can reach this hub, since --bind {} says so", options.bind);
    }
    let mqtt = listen(options.bind, options.mqtt_port, "--mqtt-port").await?;
    let https = listen(options.bind, options.https_port, "--https-port").await?;
    let (mqtt_address, https_address) = (mqtt.local_addr()?, https.local_addr()?);
    let listening = format!("mqtts={mqtt_address} https={https_address}");
    let others = hosts.split_off(1.min(hosts.len()));
    let address = Address {
        host: hosts.pop().context("--host names no host")?,
        others,
        mqtt_port: mqtt_address.port(),
        https_port: https_address.port(),
    };
    let hub = Arc::new(Hub::open(store, dir.clone(), address, authorities, Throttle::new(options.tier))?);
    // The store is durable by now; before that, this file would say of an empty one that it
    // has lost something.
    dir.write(&dir.ca(), &authority.certificate_pem)?;
    for id in &options.device {
        match hub.create_device(&id.clone().into(), IdentityChange::default(), &TwinChange::default()).await {
            Err(error) if error.code != ErrorCode::DeviceAlreadyExists => {
                return Err(error).with_context(|| format!("cannot create the device {id}"));
            }
            _ => {}
        }
    }

    let mended = tokio::spawn({
        let hub = hub.clone();
        async move { hub.mend_files().await }
    });
    dir.write(&dir.listening(), &format!("{listening}\n"))?;
    print_line(&format!("ready {listening} data={}", dir.path().display()))?;
    // To the log, since standard output has the one line that programs wait for.
    info!("the hub in a browser, by this link once: {}", hub.owners_ticket_url()?);
    let shutdown = async {
        tokio::select! {
            _ = terminate.recv() => info!("stopping on SIGTERM"),
            _ = interrupt.recv() => info!("stopping on SIGINT"),
        }
    };
    let damaged = async {
        match mended.await {
            Ok(Err(error)) => error,
            // Mended, or at its end with the runtime.
            _ => pending().await,
        }
    };
    tokio::select! {
        end = server::run(hub, mqtt, https, Arc::new(tls), shutdown) => end,
        error = damaged => Err(error),
    }
}

/// Raises the limit of open files as far as it goes: each connection takes one,
/// and the usual limit of 1024 is meant to be raised by programs that can do
/// with more.
fn allow_many_connections() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        warn!(%error, "cannot raise the limit of open files; connections may run out");
    }
}

/// Listens on a port; `option` is the one that names another.
async fn listen(bind: IpAddr, port: u16, option: &str) -> Result<TcpListener> {
    let address = SocketAddr::new(bind, port);
    TcpListener::bind(address).await.map_err(|error| {
        let remedy = match error.kind() {
            ErrorKind::PermissionDenied => {
                format!("; allow it with: sudo sysctl net.ipv4.ip_unprivileged_port_start={port}; or")
            }
            _ => ";".to_owned(),
        };
        let advice =
            format!("cannot listen on {address}{remedy} choose another port with {option} (0: a free one)");
        anyhow::Error::new(error).context(advice)
    })
}
