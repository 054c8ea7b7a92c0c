//! The hub: its parts, and the operations that touch several of them.
//!
//! Two operations have files of their own: `call`, of a direct method, and
//! `register`, with the provisioning service. All front doors (MQTT, REST,
//! the runner of jobs) stand above the hub and go through it.

mod call;
mod register;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use iotdm_proto::sas::SasToken;
use iotdm_proto::twin::Object;
use iotdm_proto::{DeviceId, Identity, ModuleId};
use serde_json::{Value, json};

use crate::address::Address;
use crate::api_version::ApiVersion;
use crate::certificates::Authorities;
use crate::changes::Changes;
use crate::clock::now;
use crate::configurations::Configurations;
use crate::connection_strings::ConnectionStrings;
use crate::data_dir::DataDir;
use crate::device::{Device, DevicePatch, DeviceStatus, IdentityChange, extend};
use crate::etag::IfMatch;
use crate::faults::Faults;
use crate::jobs::Jobs;
use crate::link::{Closed, Link, Presence};
use crate::links::Links;
use crate::messages::Messages;
use crate::notifications::{About, Notifications};
use crate::policies::{OWNER, Policies, Right, SignedToken};
use crate::proof::{self, Proof};
use crate::provisioning::Provisioning;
use crate::recent::Recent;
use crate::refusal::{ErrorCode, HubRefusal};
use crate::registry::Registry;
use crate::store::Store;
use crate::subscriptions::Subscriptions;
use crate::telemetry::Telemetry;
use crate::throttle::Throttle;
use crate::twin::{Notification, TwinChange};
use crate::visits::{Grant, VISIT_LIFE, Visits};

/// The name in the store of the address that the devices' files were last
/// written for.
const FILES_FOR: &str = "files-for";

/// The modules that each IoT Edge device has: its agent and its own hub.
const EDGE_MODULES: [&str; 2] = ["$edgeAgent", "$edgeHub"];

/// A running hub's state. Every operation is complete in itself, and no device
/// or client that is slow holds another one's operation up.
pub struct Hub {
    /// The devices and modules.
    pub registry: Registry,
    /// The devices' connections.
    pub links: Links,
    /// The scheduled jobs, each for many devices.
    pub jobs: Arc<Jobs>,
    /// The cloud-to-device messages that wait for devices.
    pub messages: Messages,
    /// The telemetry that devices send.
    pub telemetry: Telemetry,
    /// How operators want fleets to be configured.
    pub configurations: Configurations,
    /// What has changed that configurations may depend on.
    pub changes: Arc<Changes>,
    /// What the hub tells of devices, to whoever looks on.
    pub notifications: Notifications,
    /// The last events of both kinds.
    pub recent: Arc<Recent>,
    /// Who looks at the hub in a browser.
    pub visits: Visits,
    /// Who may become a device of this hub, and who has.
    pub provisioning: Provisioning,
    /// How much may still be asked of the hub, by its tier.
    pub throttle: Throttle,
    /// What the hub shall do wrong, for tests.
    pub faults: Faults,
    /// The hub's name and ports.
    pub address: Address,
    policies: Policies,
    authorities: Authorities,
    files: ConnectionStrings,
}

impl Hub {
    /// A hub over its store. Writes the connection strings for `address` into
    /// `dir`; clients' certificates may come from `authorities`.
    pub fn open(
        store: Store,
        dir: DataDir,
        address: Address,
        authorities: Authorities,
        throttle: Throttle,
    ) -> Result<Self> {
        let stored = store.hub_value("policies", || Ok(Policies::generate()?))?;
        let policies = Policies::load(&stored).context("the stored policies are unreadable")?;
        let jobs = Arc::new(Jobs::open(store.clone())?);
        let provisioning = Provisioning::open(store.clone())?;
        let messages = Messages::open(store.clone())?;
        let configurations = Configurations::open(store.clone())?;
        let changes = Arc::<Changes>::default();
        let recent = Arc::<Recent>::default();
        let registry = Registry::open(store.clone(), changes.clone())?;
        let hub = Hub {
            registry,
            links: Links::new(changes.clone()),
            jobs,
            messages,
            telemetry: Telemetry::new(recent.clone()),
            configurations,
            changes,
            notifications: Notifications::new(recent.clone()),
            recent,
            visits: Visits::default(),
            provisioning,
            throttle,
            faults: Faults::default(),
            files: ConnectionStrings::new(dir, address.clone()),
            address,
            policies,
            authorities,
        };
        hub.write_files(&store)?;
        // Keys and the id scope are in files now, so they must not be lost.
        store.sync()?;
        Ok(hub)
    }

    /// Mends the devices' files, and the modules of IoT Edge devices, where a kill came
    /// between a change of a device and what goes with it. Goes through them one after the other,
    /// since nobody waits for them. Fails when a stored device is unreadable.
    pub async fn mend_files(&self) -> Result<()> {
        self.registry.parse_all().await?;
        let mut edge = Vec::new();
        self.registry.devices(None, |id, device| {
            if device.iot_edge {
                edge.push(id.device.clone());
            }
            ControlFlow::Continue(())
        });
        for device in edge {
            if let Err(error) = self.add_edge_modules(&device).await {
                tracing::error!(%device, %error, "an IoT Edge device lacks modules");
            }
        }
        for id in self.registry.ids() {
            let mend = |device: &Arc<Device>, ()| self.files.write_device(&id, device);
            let unchanged = |_: &Device, _| Ok((DevicePatch::default(), ()));
            // A device that was deleted meanwhile is refused, and needs no file.
            if let Ok(Err(error)) = self.registry.patch(&id, unchanged, mend).await {
                tracing::error!("{error:#}");
            }
        }
        Ok(())
    }

    /// A service's `token` as one that this hub's policies have signed.
    pub fn signed(&self, token: SasToken) -> Result<SignedToken, HubRefusal> {
        self.policies.signed(token)
    }

    /// Whether a service's `token` gives `right` over the resource `path`
    /// (`/twins/gw1`).
    pub fn authorize(&self, token: &SignedToken, right: Right, path: &str) -> Result<(), HubRefusal> {
        token.check(right, now().unix_seconds(), self.address.each_resource(path))
    }

    /// What a service's `token` gives over the resource `path`, for as long as the token
    /// is valid.
    pub fn grant(&self, token: &SignedToken, path: &str) -> Result<Grant, HubRefusal> {
        let now = now().unix_seconds();
        token.verify_use(now, self.address.each_resource(path))?;
        let left = Duration::from_secs(token.token.expiry().saturating_sub(now)).min(VISIT_LIFE);
        Ok(Grant { policy: token.policy.clone(), rights: token.rights, until: Instant::now() + left })
    }

    /// The address that lets one browser in, once, with all rights.
    pub fn owners_ticket_url(&self) -> Result<String, HubRefusal> {
        let rights = crate::policies::rights(OWNER);
        let now = Instant::now();
        let until = now + crate::visits::TICKET_LIFE + VISIT_LIFE;
        self.ticket_url(Grant { policy: OWNER.to_owned(), rights, until })
    }

    /// The address that lets one browser in, once.
    pub fn ticket_url(&self, grant: Grant) -> Result<String, HubRefusal> {
        let ticket = self.visits.issue(grant, Instant::now())?;
        Ok(format!("https://{}/?ticket={ticket}", self.address.for_services()))
    }

    /// Creates a device or module, its twin and its connection-string file, and
    /// returns it.
    pub async fn create_device(
        &self,
        id: &Identity,
        identity: IdentityChange,
        twin: &TwinChange,
    ) -> Result<Arc<Device>, HubRefusal> {
        let mut device = Device::new(identity, twin, now())?;
        if id.module.is_some() && *twin == TwinChange::default() {
            device.twin.unwritten();
        }
        let iot_edge = device.iot_edge && id.module.is_none();
        let created = self.registry.insert(id, device, |device| {
            let shown = self.note_device(id, device);
            let operation = if id.module.is_some() { "createModuleIdentity" } else { "createDeviceIdentity" };
            self.note(About::Identity, id, operation, || {
                device.twin_json(id, &self.presence(id), &ApiVersion::latest())
            });
            shown
        });
        let created = created.await?;
        if iot_edge {
            self.add_edge_modules(&id.device).await?;
        }
        Ok(created)
    }

    /// Gives an IoT Edge device the modules that each such device has, as far as they
    /// are missing.
    pub async fn add_edge_modules(&self, device: &DeviceId) -> Result<(), HubRefusal> {
        for name in EDGE_MODULES {
            let module: ModuleId = name.parse().map_err(HubRefusal::internal)?;
            let id = Identity { device: device.clone(), module: Some(module) };
            // Boxed, since a module is created as its device is.
            let twin = TwinChange::default();
            match Box::pin(self.create_device(&id, IdentityChange::default(), &twin)).await {
                Err(refusal) if refusal.code != ErrorCode::ModuleAlreadyExistsOnDevice => {
                    return Err(refusal);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Tells whoever looks on of an `operation` on a device or module.
    pub fn note(&self, about: About, id: &Identity, operation: &str, body: impl FnOnce() -> Value) {
        self.notifications.note(&self.address.host, about, id, operation, body());
    }

    /// Tells the device, and whoever looks on, that services have changed a twin: its
    /// `tags`, if they were changed, and its desired properties.
    pub fn note_twin_change(
        &self,
        id: &Identity,
        device: &Device,
        operation: &str,
        tags: Option<&Object>,
        notification: Notification,
    ) {
        self.note(About::Twin, id, operation, || {
            let mut body = json!({ "version": device.twin.version });
            if let Some(tags) = tags {
                extend(&mut body, json!({ "tags": tags }));
            }
            if let Some((patch, version)) = &notification {
                let mut desired = patch.clone();
                desired.insert("$version".into(), (*version).into());
                extend(&mut body, json!({ "properties": { "desired": desired } }));
            }
            body
        });
        if let Some((patch, version)) = notification {
            self.links.notify(id, patch, version);
        }
    }

    /// Creates or changes a configuration, which is applied at once.
    pub fn put_configuration(&self, id: &str, body: &Value, if_match: &IfMatch) -> Result<Value, HubRefusal> {
        let put = self.configurations.put(id, body, if_match)?;
        self.changes.note_all();
        Ok(put)
    }

    /// Removes a configuration, which is withdrawn at once.
    pub fn remove_configuration(&self, id: &str, if_match: &IfMatch) -> Result<(), HubRefusal> {
        self.configurations.remove(id, if_match)?;
        self.changes.note_all();
        Ok(())
    }

    /// Changes a device or module; a device that is disabled loses its
    /// connection, and its modules lose theirs. Returns it.
    pub async fn update_device(
        &self,
        id: &Identity,
        identity: IdentityChange,
        if_match: &IfMatch,
    ) -> Result<Arc<Device>, HubRefusal> {
        let change = |device: &mut Device| {
            if_match.check_numbered(&device.etag)?;
            device.update(identity, now())
        };
        let tell = |device: &Arc<Device>, ()| {
            // Only devices have a status; their modules go by it.
            if device.status == DeviceStatus::Disabled && id.module.is_none() {
                self.links.close_device(&id.device, Closed::Refused);
            }
            (self.note_device(id, device), device.iot_edge && id.module.is_none())
        };
        let (shown, iot_edge) = self.registry.update(id, change, tell).await?;
        if iot_edge {
            self.add_edge_modules(&id.device).await?;
        }
        Ok(shown)
    }

    /// Gives a device or module new keys, in place of those that are named, and
    /// returns it. Its connection stays, as after any change of keys.
    pub async fn renew_keys(
        &self,
        id: &Identity,
        primary: bool,
        secondary: bool,
    ) -> Result<Arc<Device>, HubRefusal> {
        let renew = |device: &mut Device| device.renew_keys(primary, secondary);
        self.registry.update(id, renew, |device, ()| self.note_device(id, device)).await
    }

    /// Deletes a device with its modules, or a module, and with each its
    /// connection, its messages and its file.
    pub async fn delete_device(&self, id: &Identity, if_match: &IfMatch) -> Result<(), HubRefusal> {
        let check = |device: &Device| if_match.check_numbered(&device.etag);
        let tell = |id: &Identity| {
            self.links.close(id, Closed::Refused);
            let operation = if id.module.is_some() { "deleteModuleIdentity" } else { "deleteDeviceIdentity" };
            self.note(About::Identity, id, operation, || json!({}));
            if let Err(error) = self.messages.purge(id) {
                tracing::error!(%error, "a deleted device's messages stay");
            }
            if let Err(error) = self.files.remove_device(id) {
                tracing::error!("{error:#}");
            }
        };
        self.registry.remove(id, check, tell).await
    }

    /// Changes a twin's tags and desired properties, by replacing them or else
    /// by merging, and tells the device. Returns the device with its new twin.
    pub async fn change_twin(
        &self,
        id: &Identity,
        change: &TwinChange,
        replace: bool,
        if_match: &IfMatch,
    ) -> Result<Arc<Device>, HubRefusal> {
        let tell = |device: &Arc<Device>, notification| {
            let operation = if replace { "replaceTwin" } else { "updateTwin" };
            self.note_twin_change(id, device, operation, change.tags.values(), notification);
            device.clone()
        };
        if replace || !change.only_merges() {
            let apply = |device: &mut Device| {
                if_match.check_twin(&device.twin.etag)?;
                let twin = &mut device.twin;
                if replace { twin.replace(change, now()) } else { twin.patch(change, now()) }
            };
            return self.registry.update(id, apply, tell).await;
        }
        let merge = |device: &Device, _| {
            if_match.check_twin(&device.twin.etag)?;
            let twin = device.twin.patched(change, now())?;
            let notification = twin.notification();
            Ok((DevicePatch { twin: Some(twin), ..DevicePatch::default() }, notification))
        };
        self.registry.patch(id, merge, tell).await
    }

    /// Lets a client in whose `proof` shows that it is `id`: returns its link,
    /// and whether the client continues a stored session. `admit` may still refuse
    /// a client that has proved who it is.
    pub async fn connect(
        &self,
        id: &Identity,
        proof: &Proof,
        clean_session: bool,
        model_id: Option<String>,
        admit: impl FnOnce() -> Result<(), HubRefusal>,
    ) -> Result<(Link, bool), HubRefusal> {
        let prepare = |device: &Device, status: DeviceStatus| {
            if proof.expiry().is_some_and(|expiry| self.faults.is_expired(id, expiry)) {
                return Err(ErrorCode::IotHubUnauthorized.because("the token expired, as a fault has it"));
            }
            if status == DeviceStatus::Disabled {
                return Err(ErrorCode::IotHubUnauthorizedAccess.because("the device is disabled"));
            }
            let (resources, now) = (self.address.resources(&format!("/{}", id.path())), now());
            let (policies, authorities) = (&self.policies, &self.authorities);
            proof::check(id, &device.authentication, proof, policies, authorities, &resources, now)?;
            admit()?;
            let stored = device.session.filter(|_| !clean_session);
            let session = (!clean_session).then(|| stored.unwrap_or_default());
            let patch = DevicePatch {
                session: Some(session).filter(|session| *session != device.session),
                // A connection without a model says nothing of it: the last one stays.
                model_id: model_id.filter(|model_id| *model_id != device.twin.model_id),
                twin: None,
            };
            Ok((patch, stored))
        };
        let attach = |_: &Arc<Device>, stored: Option<Subscriptions>| {
            // A clean session starts without the messages that waited before, and
            // any new session without what was sent in the one before it.
            let begun = match (clean_session, stored) {
                (true, _) => self.messages.purge(id).map(drop),
                (false, None) => self.messages.begin_session(id),
                (false, Some(_)) => Ok(()),
            };
            if let Err(error) = begun {
                tracing::error!(%error, "messages stay as they were in an earlier session");
            }
            (self.links.attach(id, stored.unwrap_or_default(), proof.expiry()), stored.is_some())
        };
        self.registry.patch(id, prepare, attach).await
    }

    /// Takes on a message for a device and sends it if the device listens.
    pub fn send_message(&self, id: &Identity, message: &Value) -> Result<(), HubRefusal> {
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

    /// What is known of a device beside what the registry keeps.
    pub fn presence(&self, id: &Identity) -> Presence {
        let mut presence = self.links.presence(id);
        presence.messages = self.messages.count(id);
        presence
    }

    /// Makes the token that a device is connected with count as expired, and
    /// every one that ends no later, and closes the connection.
    pub fn expire_token(&self, id: &Identity) -> Result<(), HubRefusal> {
        match self.links.token_expiry(id) {
            Some(expiry) => {
                self.faults.expire(id.clone(), expiry);
                self.links.close(id, Closed::Expired);
                Ok(())
            }
            None => Err(ErrorCode::DeviceNotOnline.because(format!("{id} is not connected by a token"))),
        }
    }

    /// Changes what a session is subscribed to, and keeps it where the session
    /// is `persistent`, which outlives its connection. Without effect once a
    /// newer connection has taken the place of the link's.
    pub async fn subscribe(
        &self,
        link: &Link,
        persistent: bool,
        change: impl FnOnce(&mut Subscriptions),
    ) -> Result<(), HubRefusal> {
        if !persistent {
            self.links.subscribe(&link.device, link.number, change);
            return Ok(());
        }
        let keep = |device: &Device, _| {
            let session = self.links.subscribe(&link.device, link.number, change).map(Some);
            let session = session.filter(|session| *session != device.session);
            Ok((DevicePatch { session, ..DevicePatch::default() }, ()))
        };
        self.registry.patch(&link.device, keep, |_, ()| ()).await
    }

    /// Writes the device's file and returns the device. A file that cannot be
    /// written is logged: the device exists all the same.
    fn note_device(&self, id: &Identity, device: &Arc<Device>) -> Arc<Device> {
        if let Err(error) = self.files.write_device(id, device) {
            tracing::error!("{error:#}");
        }
        device.clone()
    }

    /// Writes all files; those of devices only where they are for another
    /// address, since there may be thousands and somebody waits for the start.
    fn write_files(&self, store: &Store) -> Result<()> {
        self.files.sweep(self.registry.ids().iter())?;
        let wanted = self.files.devices_depend_on();
        if store.hub_value(FILES_FOR, || Ok(wanted.clone()))? != wanted {
            // Emptied first, so that a kill halfway has them all written again.
            store.set_hub_value(FILES_FOR, &"")?;
            for id in self.registry.ids() {
                let write = |device: &Device| self.files.write_device(&id, device);
                self.registry.read(&id, write).map_err(|refusal| anyhow!("{refusal}"))??;
            }
            store.set_hub_value(FILES_FOR, &wanted)?;
        }
        self.files.write_id_scope(&self.provisioning.id_scope)?;
        self.files.write_policies(&self.policies)
    }
}
