//! The devices and modules, durably: every change is in the store before
//! anybody learns of it.
//!
//! The lock is held from reading the old state to telling the links, so that
//! devices hear of changes in the order of their versions, and no connection
//! is let in while its device is being disabled. Lock order: registry, then
//! links.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use tokio::task::block_in_place;

use crate::device::{Device, Status};
use crate::error::{Code, HubError};
use crate::identity::Identity;
use crate::store::{DEVICES, Store};

/// All devices and modules.
pub struct Registry(Mutex<Inner>);

struct Inner {
    store: Store,
    devices: BTreeMap<Identity, Device>,
}

impl Registry {
    /// What the store has.
    pub fn open(store: Store) -> Result<Self> {
        let stored = store.all::<Device>(DEVICES)?.into_iter();
        let devices = stored.map(|(id, device)| Ok((id.parse()?, device)));
        let devices = devices.collect::<Result<_>>().context("a stored device has no device's id")?;
        Ok(Registry(Mutex::new(Inner { store, devices })))
    }

    /// Looks at a device or module.
    pub fn read<R>(&self, id: &Identity, look: impl FnOnce(&Device) -> R) -> Result<R, HubError> {
        self.lock().find(id).map(look)
    }

    /// Looks at the devices after `after`, in the order of their ids, until
    /// `look` breaks.
    pub fn devices(
        &self,
        after: Option<&Identity>,
        mut look: impl FnMut(&Identity, &Device) -> ControlFlow<()>,
    ) {
        self.scan(
            after,
            |id, device| {
                if id.module.is_none() { look(id, device) } else { ControlFlow::Continue(()) }
            },
        );
    }

    /// The same for modules, of all devices.
    pub fn modules(
        &self,
        after: Option<&Identity>,
        mut look: impl FnMut(&Identity, &Device) -> ControlFlow<()>,
    ) {
        self.scan(
            after,
            |id, device| {
                if id.module.is_some() { look(id, device) } else { ControlFlow::Continue(()) }
            },
        );
    }

    fn scan(&self, after: Option<&Identity>, mut look: impl FnMut(&Identity, &Device) -> ControlFlow<()>) {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let inner = self.lock();
        let mut range = inner.devices.range::<Identity, _>((start, Bound::Unbounded));
        let _ = range.try_for_each(|(id, device)| look(id, device));
    }

    /// Adds a device, or a module to its device; `then` runs once it is
    /// durable.
    pub fn insert<R>(
        &self,
        id: &Identity,
        device: Device,
        then: impl FnOnce(&Device) -> R,
    ) -> Result<R, HubError> {
        let mut inner = self.lock();
        if id.module.is_some() {
            inner.find(&id.of_device())?;
        }
        if inner.devices.contains_key(id) {
            let code = match id.module {
                None => Code::DeviceAlreadyExists,
                Some(_) => Code::ModuleAlreadyExistsOnDevice,
            };
            return Err(code.because(format!("{id} is already registered")));
        }
        inner.put(id, device, |device| then(device))
    }

    /// Changes a device or module; `then` runs once the change is durable,
    /// with what `change` returned. When `change` fails, nothing happens.
    pub fn update<T, R>(
        &self,
        id: &Identity,
        change: impl FnOnce(&mut Device) -> Result<T, HubError>,
        then: impl FnOnce(&Device, T) -> R,
    ) -> Result<R, HubError> {
        self.update_with_status(id, |device, _| change(device), then)
    }

    /// The same; `change` also learns the status of the device, or of the
    /// module's device.
    pub fn update_with_status<T, R>(
        &self,
        id: &Identity,
        change: impl FnOnce(&mut Device, Status) -> Result<T, HubError>,
        then: impl FnOnce(&Device, T) -> R,
    ) -> Result<R, HubError> {
        let mut inner = self.lock();
        let mut device = inner.find(id)?.clone();
        let status = inner.find(&id.of_device())?.status;
        let outcome = change(&mut device, status)?;
        inner.put(id, device, |device| then(device, outcome))
    }

    /// Removes a device that passes `check` together with its modules, or a
    /// module; `then` runs for each of them once they are gone for good.
    pub fn remove(
        &self,
        id: &Identity,
        check: impl FnOnce(&Device) -> Result<(), HubError>,
        then: impl FnMut(&Identity),
    ) -> Result<(), HubError> {
        let mut inner = self.lock();
        check(inner.find(id)?)?;
        let gone = match id.module {
            Some(_) => vec![id.clone()],
            None => inner.with_modules(id),
        };
        let remove = || -> Result<()> {
            let mut batch = inner.store.batch()?;
            for id in &gone {
                batch.remove(DEVICES, &id.to_string())?;
            }
            batch.commit()
        };
        block_in_place(remove).map_err(HubError::internal)?;
        for id in &gone {
            inner.devices.remove(id);
        }
        gone.iter().for_each(then);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn find(&self, id: &Identity) -> Result<&Device, HubError> {
        let code = match id.module {
            Some(_) if self.devices.contains_key(&id.of_device()) => Code::ModuleNotFound,
            _ => Code::DeviceNotFound,
        };
        self.devices.get(id).ok_or_else(|| code.because(format!("{id} is not registered")))
    }

    fn with_modules(&self, device: &Identity) -> Vec<Identity> {
        let range = self.devices.range(device..).map(|(id, _)| id);
        range.take_while(|id| id.device == device.device).cloned().collect()
    }

    fn put<R>(
        &mut self,
        id: &Identity,
        device: Device,
        then: impl FnOnce(&Device) -> R,
    ) -> Result<R, HubError> {
        block_in_place(|| self.store.put(DEVICES, &id.to_string(), &device)).map_err(HubError::internal)?;
        let outcome = then(&device);
        self.devices.insert(id.clone(), device);
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Wish, now};

    fn id(text: &str) -> Identity {
        text.parse().unwrap()
    }

    fn device() -> Device {
        Device::new(Wish::default(), now()).unwrap()
    }

    fn registry(dir: &tempfile::TempDir) -> Registry {
        Registry::open(Store::open(&dir.path().join("store")).unwrap()).unwrap()
    }

    #[test]
    fn a_change_that_fails_leaves_no_trace() {
        let dir = tempfile::tempdir().unwrap();
        let registry = registry(&dir);
        let id = id("gw1");
        registry.insert(&id, device(), |_| ()).unwrap();
        let again = registry.insert(&id, device(), |_| ()).unwrap_err();
        assert_eq!(again.code, Code::DeviceAlreadyExists);
        let refused = registry.update(
            &id,
            |device| {
                device.status = Status::Disabled;
                Err::<(), _>(Code::ArgumentInvalid.because("no"))
            },
            |_, ()| panic!("not durable"),
        );
        assert_eq!(refused.unwrap_err().code, Code::ArgumentInvalid);
        assert_eq!(registry.read(&id, |device| device.status).unwrap(), Status::Enabled);
        registry.remove(&id, |_| Ok(()), |_| ()).unwrap();
        let gone = registry.remove(&id, |_| Ok(()), |_| ()).unwrap_err();
        assert_eq!(gone.code, Code::DeviceNotFound);
    }

    #[test]
    fn modules_come_and_go_with_their_device() {
        let dir = tempfile::tempdir().unwrap();
        let registry = registry(&dir);
        let orphan = registry.insert(&id("a/m"), device(), |_| ()).unwrap_err();
        assert_eq!(orphan.code, Code::DeviceNotFound);
        for text in ["a", "a/m", "a/n", "a-b", "a-b/m"] {
            registry.insert(&id(text), device(), |_| ()).unwrap();
        }
        let again = registry.insert(&id("a/m"), device(), |_| ()).unwrap_err();
        assert_eq!(again.code, Code::ModuleAlreadyExistsOnDevice);
        assert_eq!(registry.read(&id("a/x"), |_| ()).unwrap_err().code, Code::ModuleNotFound);
        let mut gone = Vec::new();
        registry.remove(&id("a"), |_| Ok(()), |id| gone.push(id.to_string())).unwrap();
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

    #[test]
    fn scanning_goes_on_after_an_id_and_keeps_devices_and_modules_apart() {
        let dir = tempfile::tempdir().unwrap();
        let registry = registry(&dir);
        for text in ["c", "a", "b", "a/m"] {
            registry.insert(&id(text), device(), |_| ()).unwrap();
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
