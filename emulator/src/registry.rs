//! The devices, durably: every change is in the store before anybody learns
//! of it.
//!
//! The lock is held from reading the old state to telling the links, so that
//! devices hear of changes in the order of their versions, and no connection
//! is let in while its device is being disabled. Lock order: registry, then
//! links.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use iotdm_proto::DeviceId;
use tokio::task::block_in_place;

use crate::device::Device;
use crate::error::{Code, HubError};
use crate::store::{DEVICES, Store};

/// All devices.
pub struct Registry(Mutex<Inner>);

struct Inner {
    store: Store,
    devices: BTreeMap<DeviceId, Device>,
}

impl Registry {
    /// The devices in the store.
    pub fn open(store: Store) -> Result<Self> {
        let stored = store.all::<Device>(DEVICES)?.into_iter();
        let devices = stored.map(|(id, device)| Ok((id.parse()?, device)));
        let devices = devices.collect::<Result<_>>().context("a stored device has no device's id")?;
        Ok(Registry(Mutex::new(Inner { store, devices })))
    }

    /// Looks at a device.
    pub fn read<R>(&self, id: &DeviceId, look: impl FnOnce(&Device) -> R) -> Result<R, HubError> {
        self.lock().devices.get(id).map(look).ok_or_else(|| not_found(id))
    }

    /// Looks at the devices after `after`, in the order of their ids, until
    /// `look` breaks.
    pub fn scan(
        &self,
        after: Option<&DeviceId>,
        mut look: impl FnMut(&DeviceId, &Device) -> ControlFlow<()>,
    ) {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let inner = self.lock();
        let range = inner.devices.range::<DeviceId, _>((start, Bound::Unbounded));
        let _ = range.into_iter().try_for_each(|(id, device)| look(id, device));
    }

    /// Adds a device; `then` runs once it is durable.
    pub fn insert<R>(
        &self,
        id: &DeviceId,
        device: Device,
        then: impl FnOnce(&Device) -> R,
    ) -> Result<R, HubError> {
        let mut inner = self.lock();
        if inner.devices.contains_key(id) {
            let message = format!("a device with id {id} is already registered");
            return Err(Code::DeviceAlreadyExists.because(message));
        }
        inner.put(id, device, |device| then(device))
    }

    /// Changes a device; `then` runs once the change is durable, with what
    /// `change` returned. When `change` fails, nothing happens.
    pub fn update<T, R>(
        &self,
        id: &DeviceId,
        change: impl FnOnce(&mut Device) -> Result<T, HubError>,
        then: impl FnOnce(&Device, T) -> R,
    ) -> Result<R, HubError> {
        let mut inner = self.lock();
        let mut device = inner.devices.get(id).ok_or_else(|| not_found(id))?.clone();
        let outcome = change(&mut device)?;
        inner.put(id, device, |device| then(device, outcome))
    }

    /// Removes a device that passes `check`; `then` runs once it is gone for
    /// good.
    pub fn remove(
        &self,
        id: &DeviceId,
        check: impl FnOnce(&Device) -> Result<(), HubError>,
        then: impl FnOnce(),
    ) -> Result<(), HubError> {
        let mut inner = self.lock();
        check(inner.devices.get(id).ok_or_else(|| not_found(id))?)?;
        block_in_place(|| inner.store.remove(DEVICES, id.as_str())).map_err(HubError::internal)?;
        inner.devices.remove(id);
        then();
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn put<R>(
        &mut self,
        id: &DeviceId,
        device: Device,
        then: impl FnOnce(&Device) -> R,
    ) -> Result<R, HubError> {
        block_in_place(|| self.store.put(DEVICES, id.as_str(), &device)).map_err(HubError::internal)?;
        let outcome = then(&device);
        self.devices.insert(id.clone(), device);
        Ok(outcome)
    }
}

fn not_found(id: &DeviceId) -> HubError {
    Code::DeviceNotFound.because(format!("{id}: no such device is registered"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Status, Wish, now};

    #[test]
    fn a_change_that_fails_leaves_no_trace() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("store");
        let id: DeviceId = "gw1".parse().unwrap();
        let registry = Registry::open(Store::open(&file).unwrap()).unwrap();
        let device = || Device::new(Wish::default(), now()).unwrap();
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
        registry.remove(&id, |_| Ok(()), || ()).unwrap();
        let gone = registry.remove(&id, |_| Ok(()), || ()).unwrap_err();
        assert_eq!(gone.code, Code::DeviceNotFound);
    }

    #[test]
    fn scanning_goes_on_after_an_id() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::open(Store::open(&dir.path().join("store")).unwrap()).unwrap();
        for id in ["c", "a", "b"] {
            let device = Device::new(Wish::default(), now()).unwrap();
            registry.insert(&id.parse().unwrap(), device, |_| ()).unwrap();
        }
        let seen = |after: Option<&str>, limit| {
            let mut seen = Vec::new();
            registry.scan(after.map(|id| id.parse().unwrap()).as_ref(), |id, _| {
                seen.push(id.to_string());
                if seen.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            seen
        };
        assert_eq!(seen(None, 9), ["a", "b", "c"]);
        assert_eq!(seen(Some("a"), 9), ["b", "c"]);
        assert_eq!(seen(None, 1), ["a"]);
    }
}
