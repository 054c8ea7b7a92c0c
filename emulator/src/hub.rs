//! The hub: its parts, and the operations that touch several of them.

use anyhow::{Context, Result};
use iotdm_proto::sas::SasToken;
use serde_json::Value;

use crate::authentication::{self, Proof};
use crate::certificates::Authorities;
use crate::configurations::Configurations;
use crate::credentials::Credentials;
use crate::data_dir::DataDir;
use crate::device::{Device, Status, Wish, now};
use crate::error::{Code, HubError};
use crate::events::Events;
use crate::faults::Faults;
use crate::identity::Identity;
use crate::jobs::Jobs;
use crate::link::{Closed, Link, Presence};
use crate::links::Links;
use crate::messages::Messages;
use crate::policies::{Policies, Right};
use crate::provisioning::Provisioning;
use crate::registry::Registry;
use crate::store::Store;
use crate::subscriptions::Subscriptions;
use crate::throttle::Throttle;
use crate::twin::Change;

/// The standard MQTT port, which needs no mention in connection strings.
const MQTT_PORT: u16 = 8883;
/// Which address the devices' files are for, in the store.
const FILES: &str = "files-for";
/// The standard HTTPS port.
const HTTPS_PORT: u16 = 443;

/// A running hub's state. Every operation is complete in itself; none is held
/// up by a device or client.
pub struct Hub {
    /// The devices.
    pub registry: Registry,
    /// Their connections.
    pub links: Links,
    /// What is done to many devices.
    pub jobs: Jobs,
    /// Messages that wait for devices.
    pub messages: Messages,
    /// What devices send.
    pub events: Events,
    /// What operators want fleets to be configured like.
    pub configurations: Configurations,
    /// Who may become a device.
    pub provisioning: Provisioning,
    /// How much may still be asked of it.
    pub throttle: Throttle,
    /// What shall go wrong.
    pub faults: Faults,
    policies: Policies,
    authorities: Authorities,
    address: Address,
    dir: DataDir,
}

/// What the hub is called and where it listens.
#[derive(Debug, Clone)]
pub struct Address {
    /// Its host name, as it stands in connection strings.
    pub host: String,
    /// The port of MQTT over TLS.
    pub mqtt_port: u16,
    /// The port of the REST interface and MQTT over WebSocket.
    pub https_port: u16,
}

/// What `If-Match` demands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IfMatch {
    /// Nothing: no such header.
    Absent,
    /// Any state.
    Any,
    /// This state.
    Etag(String),
}

impl IfMatch {
    /// Whether `etag` fits.
    pub fn check(&self, etag: &str) -> Result<(), HubError> {
        match self {
            IfMatch::Etag(wanted) if wanted != etag => {
                Err(Code::PreconditionFailed.because("the etag does not match; read the current one again"))
            }
            _ => Ok(()),
        }
    }
}

impl Hub {
    /// A hub over its store. Writes the connection strings for `address`.
    pub fn open(
        store: Store,
        dir: DataDir,
        address: Address,
        authorities: Authorities,
        throttle: Throttle,
    ) -> Result<Self> {
        let stored = store.hub_value("policies", || Ok(Policies::generate()?))?;
        let policies = Policies::load(&stored).context("the stored policies are unreadable")?;
        let jobs = Jobs::open(store.clone())?;
        let provisioning = Provisioning::open(store.clone())?;
        let messages = Messages::open(store.clone())?;
        let configurations = Configurations::open(store.clone())?;
        let registry = Registry::open(store.clone())?;
        let hub = Hub {
            registry,
            links: Links::default(),
            jobs,
            messages,
            events: Events::default(),
            configurations,
            provisioning,
            throttle,
            faults: Faults::default(),
            policies,
            authorities,
            address,
            dir,
        };
        hub.write_files(&store)?;
        // Before anybody is told of it.
        store.sync()?;
        Ok(hub)
    }

    /// Mends the devices' files where a kill came between a change and its
    /// file. One after the other: nobody waits for it.
    pub async fn mend_files(&self) {
        let mut ids = Vec::new();
        self.registry.all(|id, _| ids.push(id.clone()));
        for id in ids {
            let mend = |device: &Device, ()| self.write_device_file(&id, device);
            // It may be gone by now.
            if let Ok(Err(error)) = self.registry.update(&id, |_| Ok(()), mend).await {
                tracing::error!("{error:#}");
            }
        }
    }

    /// Whether a service's `token` gives `right` over the resource `path`
    /// (`/twins/gw1`).
    pub fn authorize(&self, token: &SasToken, right: Right, path: &str) -> Result<(), HubError> {
        self.policies.check(token, right, now().unix_seconds(), &self.scopes(path))
    }

    /// Creates a device or module, its twin and its connection-string file.
    pub async fn create_device(&self, id: &Identity, wish: Wish, twin: &Change) -> Result<Value, HubError> {
        let mut device = Device::new(wish, now())?;
        if twin.has_values() {
            device.twin.patch(twin, now())?;
        }
        self.registry.insert(id, device, |device| self.note_device(id, device)).await
    }

    /// Changes a device or module; a disabled device loses its connection and
    /// those of its modules.
    pub async fn update_device(
        &self,
        id: &Identity,
        wish: Wish,
        if_match: &IfMatch,
    ) -> Result<Value, HubError> {
        let change = |device: &mut Device| {
            if_match.check(&device.etag)?;
            device.update(wish, now())
        };
        let tell = |device: &Device, ()| {
            // A module's status means nothing.
            if device.status == Status::Disabled && id.module.is_none() {
                self.links.close_device(&id.device, Closed::Refused);
            }
            self.note_device(id, device)
        };
        self.registry.update(id, change, tell).await
    }

    /// Deletes a device with its modules, or a module: connections and files
    /// as well.
    pub async fn delete_device(&self, id: &Identity, if_match: &IfMatch) -> Result<(), HubError> {
        let check = |device: &Device| if_match.check(&device.etag);
        let tell = |id: &Identity| {
            self.links.close(id, Closed::Refused);
            if let Err(error) = self.messages.purge(id) {
                tracing::error!(%error, "a deleted device's messages stay");
            }
            if let Err(error) = self.dir.remove(&self.dir.device(id)) {
                tracing::error!("{error:#}");
            }
        };
        self.registry.remove(id, check, tell).await
    }

    /// Changes a twin's tags and desired properties, merging or replacing,
    /// and tells the device.
    pub async fn change_twin(
        &self,
        id: &Identity,
        change: &Change,
        replace: bool,
        if_match: &IfMatch,
    ) -> Result<Value, HubError> {
        let apply = |device: &mut Device| {
            if_match.check(&device.twin.etag)?;
            let twin = &mut device.twin;
            if replace { twin.replace(change, now()) } else { twin.patch(change, now()) }
        };
        let tell = |device: &Device, notification| {
            if let Some((patch, version)) = notification {
                self.links.notify(id, patch, version);
            }
            device.twin_json(id, &self.presence(id))
        };
        self.registry.update(id, apply, tell).await
    }

    /// Lets a client in whose `proof` shows that it is `id`; also says whether
    /// it continues a stored session.
    pub async fn connect(
        &self,
        id: &Identity,
        proof: &Proof,
        clean_session: bool,
        model_id: Option<String>,
    ) -> Result<(Link, bool), HubError> {
        let prepare = |device: &mut Device, status: Status| {
            if proof.expiry().is_some_and(|expiry| self.faults.is_expired(id, expiry)) {
                return Err(Code::IotHubUnauthorized.because("the token expired, as a fault has it"));
            }
            if status == Status::Disabled {
                return Err(Code::IotHubUnauthorizedAccess.because("the device is disabled"));
            }
            let (scopes, now) = (self.scopes(&format!("/{}", id.path())), now());
            let (policies, authorities) = (&self.policies, &self.authorities);
            authentication::check(id, &device.credentials, proof, policies, authorities, &scopes, now)?;
            let stored = device.session.filter(|_| !clean_session);
            device.session = (!clean_session).then(|| stored.unwrap_or_default());
            device.twin.model_id = model_id.unwrap_or_default();
            Ok(stored)
        };
        let attach = |_: &Device, stored: Option<Subscriptions>| {
            // Whoever starts afresh does not want what waited before.
            if clean_session && let Err(error) = self.messages.purge(id) {
                tracing::error!(%error, "messages stay for a clean session");
            }
            (self.links.attach(id, stored.unwrap_or_default(), proof.expiry()), stored.is_some())
        };
        self.registry.update_with_status(id, prepare, attach).await
    }

    /// Takes on a message for a device and sends it if the device listens.
    pub fn send_message(&self, id: &Identity, message: &Value) -> Result<(), HubError> {
        self.registry.read(id, |_| ())?;
        let message = self.messages.add(id, message)?;
        self.links.deliver(id, message);
        Ok(())
    }

    /// Sends a device all messages that wait for it, if it listens.
    pub fn deliver_pending(&self, id: &Identity) {
        for message in self.messages.pending(id) {
            if !self.links.deliver(id, message) {
                return;
            }
        }
    }

    /// What is known of a device beside its record.
    pub fn presence(&self, id: &Identity) -> Presence {
        let mut presence = self.links.presence(id);
        presence.messages = self.messages.count(id);
        presence
    }

    /// Makes the token that a device is connected with count as expired, and
    /// every older one.
    pub fn expire_token(&self, id: &Identity) -> Result<(), HubError> {
        match self.links.token_expiry(id) {
            Some(expiry) => {
                self.faults.expire(id.clone(), expiry);
                self.links.close(id, Closed::Expired);
                Ok(())
            }
            None => Err(Code::DeviceNotOnline.because(format!("{id} is not connected by a token"))),
        }
    }

    /// Changes what a connection is subscribed to; durable for a session that
    /// outlives its connection. Without effect when the connection is no
    /// longer the device's.
    pub async fn subscribe(
        &self,
        link: &Link,
        persistent: bool,
        change: impl FnOnce(&mut Subscriptions),
    ) -> Result<(), HubError> {
        if !persistent {
            self.links.subscribe(&link.device, link.number, change);
            return Ok(());
        }
        let keep = |device: &mut Device| {
            device.session = self.links.subscribe(&link.device, link.number, change).or(device.session);
            Ok(())
        };
        self.registry.update(&link.device, keep, |_, ()| ()).await
    }

    /// Where devices connect: the host, with the port unless it is the
    /// standard one. Those that came over a WebSocket find theirs there.
    pub fn device_endpoint(&self, over_websocket: bool) -> String {
        let Address { host, mqtt_port, https_port } = &self.address;
        let (port, standard) =
            if over_websocket { (*https_port, HTTPS_PORT) } else { (*mqtt_port, MQTT_PORT) };
        if port == standard { host.clone() } else { format!("{host}:{port}") }
    }

    /// Whether `host`, with or without a port, names this hub.
    pub fn is_called(&self, host: &str) -> bool {
        self.scopes("").iter().any(|name| name.eq_ignore_ascii_case(host))
    }

    /// The ways in which clients write a resource of this hub.
    fn scopes(&self, path: &str) -> [String; 3] {
        let Address { host, mqtt_port, https_port } = &self.address;
        [format!("{host}{path}"), format!("{host}:{https_port}{path}"), format!("{host}:{mqtt_port}{path}")]
    }

    /// Writes the device's file and returns its JSON. A file that cannot be
    /// written is logged: the device exists all the same.
    fn note_device(&self, id: &Identity, device: &Device) -> Value {
        if let Err(error) = self.write_device_file(id, device) {
            tracing::error!("{error:#}");
        }
        device.identity_json(id, &self.presence(id))
    }

    /// Those of devices only where they are for another address: there may be
    /// thousands, and somebody waits for the start.
    fn write_files(&self, store: &Store) -> Result<()> {
        let Address { host, https_port, mqtt_port } = &self.address;
        let mut devices = Vec::new();
        self.registry.all(|id, device| devices.push((id.clone(), device.clone())));
        self.dir.sweep(devices.iter().map(|(id, _)| id))?;
        let address = format!("{host}:{mqtt_port}");
        if store.hub_value(FILES, || Ok(address.clone()))? != address {
            store.set_hub_value(FILES, &"")?;
            for (id, device) in &devices {
                self.write_device_file(id, device)?;
            }
            store.set_hub_value(FILES, &address)?;
        }
        self.dir.write(&self.dir.id_scope(), &format!("{}\n", self.provisioning.id_scope))?;
        let host = if *https_port == HTTPS_PORT { host.clone() } else { format!("{host}:{https_port}") };
        for policy in self.policies.iter() {
            let (name, key) = (&policy.name, policy.key.expose_base64());
            let text =
                format!("HostName={host};SharedAccessKeyName={name};SharedAccessKey={}\n", key.as_str());
            self.dir.write(&self.dir.policy(name), &text)?;
            if name == crate::policies::OWNER {
                self.dir.write(&self.dir.service_connection_string(), &text)?;
            }
        }
        Ok(())
    }

    fn write_device_file(&self, id: &Identity, device: &Device) -> Result<()> {
        let Address { host, mqtt_port, .. } = &self.address;
        let mut text = format!("HostName={host};DeviceId={}", id.device);
        if let Some(module) = &id.module {
            text.push_str(&format!(";ModuleId={module}"));
        }
        match &device.credentials {
            Credentials::Sas(keys) => {
                text.push_str(&format!(";SharedAccessKey={}", keys.primary.expose_base64().as_str()));
            }
            Credentials::SelfSigned(_) | Credentials::CertificateAuthority => text.push_str(";x509=true"),
            // There is no string that it could connect with.
            Credentials::None => return self.dir.remove(&self.dir.device(id)),
        }
        if *mqtt_port != MQTT_PORT {
            text.push_str(&format!(";GatewayHostName={host}:{mqtt_port}"));
        }
        text.push('\n');
        self.dir.write(&self.dir.device(id), &text)
    }
}
