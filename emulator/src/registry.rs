//! The devices and modules, durably: every change is in the store before
//! anybody learns of it.
//!
//! A device and its modules are changed by one writer at a time, from reading
//! the old state to telling the links: so devices hear of changes in the order
//! of their versions, and no connection is let in while its device is being
//! disabled. Writers of different devices share commits. A writer's future must
//! not be dropped halfway, since its change would be in the store alone:
//! whatever may be dropped at any time (the request of a client that goes away)
//! runs in a task of its own.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, anyhow};
use tokio::sync;
use tokio::task::yield_now;

use crate::changes::Changes;
use crate::device::{self, Device, DevicePatch, DeviceStatus};
use crate::refusal::{ErrorCode, HubRefusal};
use crate::store::{Batch, DEVICES, Raw, Store};
use iotdm_proto::Identity;

/// How many devices can be changed at the same time: so many that two devices
/// seldom share a turn, and if they do, they only wait for each other.
const TURNS: usize = 1024;

/// All devices and modules.
pub struct Registry {
    store: Store,
    devices: Mutex<Devices>,
    /// Held by whoever changes one of the devices that share the turn.
    turns: Vec<sync::Mutex<()>>,
    /// Says which turn a device has.
    hasher: RandomState,
    /// Who wants to know of changes.
    changes: Arc<Changes>,
}

#[derive(Default)]
struct Devices {
    all: BTreeMap<Identity, Slot>,
    /// Whether some of them may not have been parsed yet.
    some_stored: bool,
}

/// A device in the registry.
enum Slot {
    /// As the store has it: parsing ten thousand of them takes longer than all else of
    /// a start, so each is parsed when somebody first asks for it.
    Stored(Raw),
    Parsed(Arc<Device>),
}

impl Registry {
    /// The devices and modules in the store; `changes` is told what changes.
    pub fn open(store: Store, changes: Arc<Changes>) -> Result<Self> {
        let stored = store.all_raw(DEVICES)?.into_iter();
        let all = stored.map(|(id, raw)| Ok((id.parse()?, Slot::Stored(raw))));
        let all = all.collect::<Result<_>>().context("a stored device has no device's id")?;
        let devices = Devices { all, some_stored: true };
        let turns = (0..TURNS).map(|_| sync::Mutex::default()).collect();
        Ok(Registry { store, devices: Mutex::new(devices), turns, hasher: RandomState::new(), changes })
    }

    /// Looks at a device or module.
    pub fn read<R>(&self, id: &Identity, look: impl FnOnce(&Device) -> R) -> Result<R, HubRefusal> {
        self.find(id).map(|device| look(&device))
    }

    /// Looks at the devices after `after`, in the order of their ids, until
    /// `look` breaks.
    pub fn devices(&self, after: Option<&Identity>, look: impl FnMut(&Identity, &Device) -> ControlFlow<()>) {
        self.scan_those(|id| id.module.is_none(), after, look);
    }

    /// Looks at the modules of all devices after `after`, in the order of their
    /// ids, until `look` breaks.
    pub fn modules(&self, after: Option<&Identity>, look: impl FnMut(&Identity, &Device) -> ControlFlow<()>) {
        self.scan_those(|id| id.module.is_some(), after, look);
    }

    fn scan_those(
        &self,
        wanted: impl Fn(&Identity) -> bool,
        after: Option<&Identity>,
        mut look: impl FnMut(&Identity, &Device) -> ControlFlow<()>,
    ) {
        self.scan(after, |id, device| if wanted(id) { look(id, device) } else { ControlFlow::Continue(()) });
    }

    /// Looks at every device and module.
    pub fn all(&self, mut look: impl FnMut(&Identity, &Device)) {
        self.scan(None, |id, device| {
            look(id, device);
            ControlFlow::Continue(())
        });
    }

    /// The ids of all devices and modules.
    pub fn ids(&self) -> Vec<Identity> {
        self.lock().all.keys().cloned().collect()
    }

    /// Parses the devices that nobody has asked for yet, so that nobody has to wait for
    /// many of them later. Fails on the first one that cannot be parsed.
    pub async fn parse_all(&self) -> Result<()> {
        if self.lock().some_stored {
            for id in self.ids() {
                // A device that was deleted meanwhile needs no parsing.
                self.parsed(&id).transpose()?;
                yield_now().await;
            }
            self.lock().some_stored = false;
        }
        Ok(())
    }

    /// Looks at the devices and modules after `after` until `look` breaks.
    fn scan(&self, after: Option<&Identity>, mut look: impl FnMut(&Identity, &Device) -> ControlFlow<()>) {
        // Soon after the start nothing is left to parse.
        if self.lock().some_stored {
            for error in self.ids().iter().filter_map(|id| self.parsed(id)?.err()) {
                tracing::error!("{error:#}");
            }
        }
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let devices = self.lock();
        let mut range = devices.all.range::<Identity, _>((start, Bound::Unbounded));
        let _ = range.try_for_each(|(id, slot)| match slot {
            Slot::Parsed(device) => look(id, device),
            // It could not be parsed, which was logged.
            Slot::Stored(_) => ControlFlow::Continue(()),
        });
    }

    /// Adds a device, or a module to its device; `then` runs once the addition is
    /// durable, and its result is returned.
    pub async fn insert<R>(
        &self,
        id: &Identity,
        device: Device,
        then: impl FnOnce(&Arc<Device>) -> R,
    ) -> Result<R, HubRefusal> {
        let _turn = self.turn(id).await;
        if id.module.is_some() {
            self.find(&id.of_device())?;
        }
        if self.find(id).is_ok() {
            return Err(match &id.module {
                None => ErrorCode::DeviceAlreadyExists
                    .because(format!("A device with ID '{}' is already registered.", id.device)),
                Some(module) => ErrorCode::ModuleAlreadyExistsOnDevice
                    .because(format!("Device {} already contains Module {module}.", id.device)),
            });
        }
        let device = self.put(id, device).await?;
        Ok(then(&device))
    }

    /// Changes a device or module; `then` runs once the change is durable, with
    /// what `change` returned. When `change` fails, nothing happens. A `change`
    /// that changes nothing is not written: most connections are such.
    pub async fn update<T, R>(
        &self,
        id: &Identity,
        change: impl FnOnce(&mut Device) -> Result<T, HubRefusal>,
        then: impl FnOnce(&Arc<Device>, T) -> R,
    ) -> Result<R, HubRefusal> {
        let _turn = self.turn(id).await;
        let old = self.find(id)?;
        let mut device = Device::clone(&old);
        let outcome = change(&mut device)?;
        let device = if device == *old { old } else { self.put(id, device).await? };
        Ok(then(&device, outcome))
    }

    /// Changes a device or module by the patch that `change` returns with something for
    /// `then`, which runs once the patch is durable; `change` also learns the status of
    /// the device, or of the module's device. A patch is written as it is, and so in less
    /// time than the whole device; an empty one is not written.
    pub async fn patch<T, R>(
        &self,
        id: &Identity,
        change: impl FnOnce(&Device, DeviceStatus) -> Result<(DevicePatch, T), HubRefusal>,
        then: impl FnOnce(&Arc<Device>, T) -> R,
    ) -> Result<R, HubRefusal> {
        let _turn = self.turn(id).await;
        let (patch, outcome) = {
            let device = self.find(id)?;
            let status = if id.module.is_none() { device.status } else { self.find(&id.of_device())?.status };
            change(&device, status)?
        };
        if patch == DevicePatch::default() {
            return Ok(then(&self.find(id)?, outcome));
        }
        let mut batch = Batch::default();
        batch.patch_device(&id.to_string(), &patch).map_err(HubRefusal::internal)?;
        self.store.write_along(batch).await.map_err(HubRefusal::internal)?;
        let device = match self.lock().all.get_mut(id) {
            Some(Slot::Parsed(device)) => {
                // Copies the device only where somebody is looking at it right now.
                Arc::make_mut(device).apply(patch);
                device.clone()
            }
            _ => return Err(HubRefusal::internal("a device has gone while it was somebody's turn")),
        };
        self.changes.note(id);
        Ok(then(&device, outcome))
    }

    /// Removes a device that passes `check` together with its modules, or a
    /// module; `then` runs for each removed identity once the removal is durable.
    pub async fn remove(
        &self,
        id: &Identity,
        check: impl FnOnce(&Device) -> Result<(), HubRefusal>,
        then: impl FnMut(&Identity),
    ) -> Result<(), HubRefusal> {
        let _turn = self.turn(id).await;
        check(&*self.find(id)?)?;
        let gone = match id.module {
            Some(_) => vec![id.clone()],
            None => self.with_modules(id),
        };
        let mut batch = Batch::default();
        for id in &gone {
            batch.remove(DEVICES, &id.to_string());
        }
        self.store.write_along(batch).await.map_err(HubRefusal::internal)?;
        let mut devices = self.lock();
        gone.iter().for_each(|id| drop(devices.all.remove(id)));
        drop(devices);
        gone.iter().for_each(|id| self.changes.note(id));
        gone.iter().for_each(then);
        Ok(())
    }

    /// Writes a device and shows it once it is durable.
    async fn put(&self, id: &Identity, device: Device) -> Result<Arc<Device>, HubRefusal> {
        let mut batch = Batch::default();
        batch.put(DEVICES, &id.to_string(), &device).map_err(HubRefusal::internal)?;
        self.store.write_along(batch).await.map_err(HubRefusal::internal)?;
        let device = Arc::new(device);
        self.lock().all.insert(id.clone(), Slot::Parsed(device.clone()));
        self.changes.note(id);
        Ok(device)
    }

    /// Waits for the turn to change a device or one of its modules.
    async fn turn(&self, id: &Identity) -> Option<sync::MutexGuard<'_, ()>> {
        let index = usize::try_from(self.hasher.hash_one(&id.device)).unwrap_or_default() % TURNS;
        Some(self.turns.get(index)?.lock().await)
    }

    fn find(&self, id: &Identity) -> Result<Arc<Device>, HubRefusal> {
        if let Some(device) = self.parsed(id) {
            return device.map_err(HubRefusal::internal);
        }
        Err(match &id.module {
            Some(module) if self.lock().all.contains_key(&id.of_device()) => ErrorCode::ModuleNotFound
                .because(format!("Module {module} in Device {} not found.", id.device)),
            // The whole message of the service is the id.
            _ => ErrorCode::DeviceNotFound.because(id.device.as_str()),
        })
    }

    /// The device, which is parsed if nobody has asked for it before; `None` if there
    /// is none.
    fn parsed(&self, id: &Identity) -> Option<Result<Arc<Device>>> {
        let raw = match self.lock().all.get(id)? {
            Slot::Parsed(device) => return Some(Ok(device.clone())),
            Slot::Stored(raw) => raw.clone(),
        };
        // Not under the lock, so that nobody else has to wait.
        let device = match device::read(&raw.json, &raw.patches) {
            Ok(device) => Arc::new(device),
            Err(error) => return Some(Err(anyhow!("the stored device {id} is unreadable: {error}"))),
        };
        match self.lock().all.get_mut(id)? {
            // Somebody else was faster, and may have changed it since.
            Slot::Parsed(device) => Some(Ok(device.clone())),
            slot => {
                *slot = Slot::Parsed(device.clone());
                Some(Ok(device))
            }
        }
    }

    /// The device and its modules.
    pub fn with_modules(&self, device: &Identity) -> Vec<Identity> {
        let devices = self.lock();
        let range = devices.all.range(device..).map(|(id, _)| id);
        range.take_while(|id| id.device == device.device).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Devices> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::now;
    use crate::device::IdentityChange;
    use crate::twin::TwinChange;

    fn id(text: &str) -> Identity {
        text.parse().unwrap()
    }

    fn device() -> Device {
        Device::new(IdentityChange::default(), &TwinChange::default(), now()).unwrap()
    }

    fn registry(dir: &tempfile::TempDir) -> Registry {
        Registry::open(Store::open(&dir.path().join("store")).unwrap(), Arc::default()).unwrap()
    }

    #[tokio::test]
    async fn a_change_that_fails_leaves_no_trace() {
        let dir = tempfile::tempdir().unwrap();
        let registry = registry(&dir);
        let id = id("gw1");
        registry.insert(&id, device(), |_| ()).await.unwrap();
        let again = registry.insert(&id, device(), |_| ()).await.unwrap_err();
        assert_eq!(again.code, ErrorCode::DeviceAlreadyExists);
        let refused = registry.update(
            &id,
            |device| {
                device.status = DeviceStatus::Disabled;
                Err::<(), _>(ErrorCode::ArgumentInvalid.because("no"))
            },
            |_, ()| panic!("not durable"),
        );
        assert_eq!(refused.await.unwrap_err().code, ErrorCode::ArgumentInvalid);
        assert_eq!(registry.read(&id, |device| device.status).unwrap(), DeviceStatus::Enabled);
        registry.remove(&id, |_| Ok(()), |_| ()).await.unwrap();
        let gone = registry.remove(&id, |_| Ok(()), |_| ()).await.unwrap_err();
        assert_eq!(gone.code, ErrorCode::DeviceNotFound);
    }

    #[tokio::test]
    async fn modules_come_and_go_with_their_device() {
        let dir = tempfile::tempdir().unwrap();
        let registry = registry(&dir);
        let orphan = registry.insert(&id("a/m"), device(), |_| ()).await.unwrap_err();
        assert_eq!(orphan.code, ErrorCode::DeviceNotFound);
        for text in ["a", "a/m", "a/n", "a-b", "a-b/m"] {
            registry.insert(&id(text), device(), |_| ()).await.unwrap();
        }
        let again = registry.insert(&id("a/m"), device(), |_| ()).await.unwrap_err();
        assert_eq!(again.code, ErrorCode::ModuleAlreadyExistsOnDevice);
        assert_eq!(registry.read(&id("a/x"), |_| ()).unwrap_err().code, ErrorCode::ModuleNotFound);
        let mut gone = Vec::new();
        registry.remove(&id("a"), |_| Ok(()), |id| gone.push(id.to_string())).await.unwrap();
        assert_eq!(gone, ["a", "a/m", "a/n"]);
        drop(registry);

        let registry = self::registry(&dir);
        let mut left = Vec::new();
        registry.scan(None, |id, _| {
            left.push(id.to_string());
            ControlFlow::Continue(())
        });
        assert_eq!(left, ["a-b", "a-b/m"]);
    }

    #[tokio::test]
    async fn scanning_goes_on_after_an_id_and_keeps_devices_and_modules_apart() {
        let dir = tempfile::tempdir().unwrap();
        let registry = registry(&dir);
        for text in ["c", "a", "b", "a/m"] {
            registry.insert(&id(text), device(), |_| ()).await.unwrap();
        }
        let seen = |after: Option<&str>, limit| {
            let mut seen = Vec::new();
            registry.devices(after.map(id).as_ref(), |id, _| {
                seen.push(id.to_string());
                if seen.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            seen
        };
        assert_eq!(seen(None, 9), ["a", "b", "c"]);
        assert_eq!(seen(Some("a"), 9), ["b", "c"]);
        assert_eq!(seen(None, 1), ["a"]);
        let mut modules = 0;
        registry.modules(None, |id, _| {
            assert_eq!(id.to_string(), "a/m");
            modules += 1;
            ControlFlow::Continue(())
        });
        assert_eq!(modules, 1);
    }
}
