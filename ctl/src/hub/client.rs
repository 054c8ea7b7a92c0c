//! The handle by which commands speak to a hub.

use std::cell::Cell;
use std::time::Duration;

use anyhow::Context as _;
use iotdm_proto::{DeviceId, Endpoint, Identity, ModuleId};
use rustls::ClientConfig;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::proxy::Proxy;
use super::reach::Reach;
use super::throttle::Paces;
use crate::credential::Credential;
use crate::error::Usage;
use crate::target::Target;
use crate::tls;

/// How long TCP and TLS together may take: several lost packets' worth, so that
/// a hub that is reached at all is reached, and the user does not wait minutes
/// for one that is not.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
/// How many HTTP requests are under way at once, each of which has a connection of
/// its own: a run over thousands of devices must not open thousands of
/// connections. Method calls are not counted, since a call lasts as long as the
/// device takes to reply; how many are under way is for `--max-in-flight`, and how many
/// have just begun is limited apart from that.
const CONNECTIONS: usize = 64;

/// An operator's access to a hub.
pub struct HubClient {
    pub(super) http: reqwest::Client,
    pub(super) endpoint: Endpoint,
    /// The hub's host with its port, as URLs and tokens have it.
    pub(super) host: String,
    pub(super) credential: Credential,
    /// The module of each device that is meant, if not the device itself.
    module: Option<ModuleId>,
    pub(super) tls: ClientConfig,
    /// The proxy that the environment names for the hub.
    pub(super) proxy: Option<Proxy>,
    /// How many HTTP requests the hub has throttled.
    pub(super) throttled: Cell<usize>,
    /// When it was last said that the hub throttles.
    pub(super) said_throttled: Cell<Option<Instant>>,
    pub(super) has_sent_changes: Cell<bool>,
    pub(super) reach: Reach,
    pub(super) paces: Paces,
    /// One permit for each connection that may be open at once.
    pub(super) connections: Semaphore,
    /// One permit for each call that may just have begun.
    pub(super) calls: Semaphore,
}

impl HubClient {
    /// Prepares HTTP requests to `target`; nothing is sent yet. Fails where the
    /// CA file cannot be used.
    pub fn new(target: Target) -> anyhow::Result<Self> {
        let tls = tls::client_config(target.ca_file.as_deref())?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.clone())
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_LIMIT)
            .user_agent(concat!("iotdm-ctl/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("the HTTPS client cannot be set up")?;
        Ok(HubClient {
            http,
            host: target.endpoint.to_string(),
            proxy: Proxy::of(&target.endpoint),
            endpoint: target.endpoint,
            credential: target.credential,
            module: target.module,
            tls,
            throttled: Cell::default(),
            said_throttled: Cell::default(),
            has_sent_changes: Cell::default(),
            reach: Reach::default(),
            paces: Paces::default(),
            connections: Semaphore::new(CONNECTIONS),
            calls: Semaphore::new(CONNECTIONS),
        })
    }

    /// From now on, makes at most `calls_per_second` method calls in a second
    /// (at least 1), and two and a half times as many other HTTP requests. The
    /// factor is that of the smallest paid tier, of which one unit takes 40
    /// calls a second and the hub 100 reads of twins.
    ///
    /// Source: IoT Hub developer guide, "Reference - IoT Hub quotas and
    /// throttling".
    pub fn no_faster_than(&self, calls_per_second: u32) {
        self.paces.no_faster_than(Duration::from_secs(1) / calls_per_second);
    }

    /// The hub's host and port.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The module of each device that twins, calls and identities are of; `None` for the
    /// devices themselves.
    pub fn module(&self) -> Option<&ModuleId> {
        self.module.as_ref()
    }

    /// Whom requests about `device` are for: the device, or the module of it that is meant.
    pub fn identity(&self, device: &DeviceId) -> Identity {
        Identity { device: device.clone(), module: self.module.clone() }
    }

    /// How many HTTP requests of this process the hub has throttled.
    pub fn throttled(&self) -> usize {
        self.throttled.get()
    }

    /// Whether any HTTP request went out that may change something.
    pub fn has_sent_changes(&self) -> bool {
        self.has_sent_changes.get()
    }

    /// Whether the hub has answered anything yet.
    pub fn has_answered(&self) -> bool {
        self.reach.has_answered()
    }

    /// When the hub, having been there before, was last seen not to answer.
    pub fn last_away(&self) -> Option<Instant> {
        self.reach.last_away()
    }

    /// Whether that was within the last `time`.
    pub fn was_away_within(&self, time: Duration) -> bool {
        self.reach.was_away_within(time)
    }

    /// How TLS is spoken to the hub.
    pub fn tls(&self) -> &ClientConfig {
        &self.tls
    }

    /// The proxy through which the hub is reached, if any.
    pub fn proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref()
    }

    /// A token of the shared access policy, valid until `expiry`, in seconds
    /// since the Unix epoch. Only a connection string has a key to sign with.
    pub fn token(&self, expiry: u64) -> Result<String, Usage> {
        self.credential.sign(&self.host, expiry)
    }
}
