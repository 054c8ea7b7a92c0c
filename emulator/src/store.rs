//! The durable store: what has been acknowledged is in here.
//!
//! redb, because it is a single file, pure Rust (no C compiler, no server),
//! and a commit is atomic and synced to disk before it returns: after a kill
//! at any instant the file opens with the last committed state. It also locks
//! the file, which keeps a second emulator out.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use iotdm_proto::DeviceId;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::device::Device;

/// JSON by device id.
const DEVICES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("devices");
/// JSON by name: what the hub itself owns.
const HUB: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("hub");

/// An open store.
pub struct Store {
    database: Database,
}

impl Store {
    /// Opens the store in `file`, or makes one.
    pub fn open(file: &Path) -> Result<Self> {
        let name = || format!("cannot open the store {}", file.display());
        // redb would make the file readable by everybody.
        let private = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(file);
        private.with_context(name)?;
        let database = Database::create(file).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => anyhow!(
                "another emulator is using {}; stop it or choose another --data directory",
                file.display()
            ),
            error => anyhow!(error).context(name()),
        })?;
        let store = Store { database };
        store.create_tables().with_context(|| format!("cannot write the store {}", file.display()))?;
        Ok(store)
    }

    /// All devices.
    pub fn devices(&self) -> Result<Vec<(DeviceId, Device)>> {
        let transaction = self.database.begin_read()?;
        let table = transaction.open_table(DEVICES)?;
        let mut devices = Vec::new();
        for row in table.iter()? {
            let (id, json) = row?;
            let id = id.value();
            let device = serde_json::from_slice(json.value())
                .with_context(|| format!("the stored device {id:?} is unreadable"))?;
            devices.push((id.parse()?, device));
        }
        Ok(devices)
    }

    /// Writes a device; durable on return.
    pub fn put_device(&self, id: &DeviceId, device: &Device) -> Result<()> {
        self.put(DEVICES, id.as_str(), device)
    }

    /// Removes a device; durable on return.
    pub fn remove_device(&self, id: &DeviceId) -> Result<()> {
        let transaction = self.database.begin_write()?;
        transaction.open_table(DEVICES)?.remove(id.as_str())?;
        transaction.commit()?;
        Ok(())
    }

    /// Something of the hub's own, made and written at the first use.
    pub fn hub_value<T: Serialize + DeserializeOwned>(
        &self,
        name: &str,
        make: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let transaction = self.database.begin_read()?;
        if let Some(json) = transaction.open_table(HUB)?.get(name)? {
            return serde_json::from_slice(json.value())
                .with_context(|| format!("the stored {name} are unreadable"));
        }
        drop(transaction);
        let value = make()?;
        self.put(HUB, name, &value)?;
        Ok(value)
    }

    fn put(&self, table: TableDefinition<'_, &str, &[u8]>, key: &str, value: &impl Serialize) -> Result<()> {
        let json = serde_json::to_vec(value)?;
        let transaction = self.database.begin_write()?;
        transaction.open_table(table)?.insert(key, json.as_slice())?;
        transaction.commit()?;
        Ok(())
    }

    fn create_tables(&self) -> Result<()> {
        let transaction = self.database.begin_write()?;
        transaction.open_table(DEVICES)?;
        transaction.open_table(HUB)?;
        transaction.commit()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Wish, now};

    #[test]
    fn what_was_put_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("store");
        let id: DeviceId = "gw1".parse().unwrap();
        let store = Store::open(&file).unwrap();
        let device = Device::new(Wish::default(), now()).unwrap();
        store.put_device(&id, &device).unwrap();
        assert_eq!(store.hub_value("number", || Ok(7)).unwrap(), 7);
        let second = Store::open(&file).err().unwrap().to_string();
        assert!(second.contains("another emulator"), "{second}");
        drop(store);

        let store = Store::open(&file).unwrap();
        let devices = store.devices().unwrap();
        assert_eq!(devices.len(), 1);
        assert_eq!(devices[0].1.etag, device.etag);
        assert_eq!(store.hub_value("number", || Ok(8)).unwrap(), 7);
        store.remove_device(&id).unwrap();
        assert!(store.devices().unwrap().is_empty());
    }

    #[test]
    fn a_file_that_is_no_store_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("store");
        std::fs::write(&file, "not a database").unwrap();
        let error = Store::open(&file).err().unwrap().to_string();
        assert!(error.contains(&file.display().to_string()), "{error}");
    }
}
