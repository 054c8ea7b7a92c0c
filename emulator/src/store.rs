//! The durable store: what has been acknowledged is in here.
//!
//! redb, because it is a single file, pure Rust (no C compiler, no server),
//! and a commit is atomic and synced to disk before it returns: after a kill
//! at any instant the file opens with the last committed state. It also locks
//! the file, which keeps a second emulator out.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A kind of things that are kept: JSON by name.
pub type Table = TableDefinition<'static, &'static str, &'static [u8]>;

/// Devices by id.
pub const DEVICES: Table = TableDefinition::new("devices");
/// Jobs by id.
pub const JOBS: Table = TableDefinition::new("jobs");
/// What jobs do to devices, by `job/device`.
pub const DEVICE_JOBS: Table = TableDefinition::new("device-jobs");
/// Messages for devices, by `device/number`.
pub const MESSAGES: Table = TableDefinition::new("messages");
/// Configurations by id.
pub const CONFIGURATIONS: Table = TableDefinition::new("configurations");
/// Who may register, by kind and id.
pub const ENROLMENTS: Table = TableDefinition::new("enrolments");
/// Who has registered, by registration id.
pub const REGISTRATIONS: Table = TableDefinition::new("registrations");
/// What the hub itself owns.
const HUB: Table = TableDefinition::new("hub");

const TABLES: [Table; 8] =
    [DEVICES, JOBS, DEVICE_JOBS, MESSAGES, CONFIGURATIONS, ENROLMENTS, REGISTRATIONS, HUB];

/// An open store. Clones share it.
#[derive(Clone)]
pub struct Store {
    database: Arc<Database>,
}

/// Changes that become durable together.
pub struct Batch(WriteTransaction);

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
        let store = Store { database: Arc::new(database) };
        store.create_tables().with_context(|| format!("cannot write the store {}", file.display()))?;
        Ok(store)
    }

    /// All that a table has.
    pub fn all<T: DeserializeOwned>(&self, table: Table) -> Result<Vec<(String, T)>> {
        let transaction = self.database.begin_read()?;
        let mut all = Vec::new();
        for row in transaction.open_table(table)?.iter()? {
            let (name, json) = row?;
            let name = name.value();
            let value = serde_json::from_slice(json.value())
                .with_context(|| format!("{name:?} among the stored {table} is unreadable"))?;
            all.push((name.to_owned(), value));
        }
        Ok(all)
    }

    /// Writes one thing; durable on return.
    pub fn put(&self, table: Table, name: &str, value: &impl Serialize) -> Result<()> {
        let mut batch = self.batch()?;
        batch.put(table, name, value)?;
        batch.commit()
    }

    /// Removes one thing; durable on return.
    pub fn remove(&self, table: Table, name: &str) -> Result<()> {
        let mut batch = self.batch()?;
        batch.remove(table, name)?;
        batch.commit()
    }

    /// Several changes at once. Other writers wait until it is committed or
    /// dropped.
    pub fn batch(&self) -> Result<Batch> {
        Ok(Batch(self.database.begin_write()?))
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

    fn create_tables(&self) -> Result<()> {
        let transaction = self.database.begin_write()?;
        for table in TABLES {
            transaction.open_table(table)?;
        }
        transaction.commit()?;
        Ok(())
    }
}

impl Batch {
    /// Writes one thing.
    pub fn put(&mut self, table: Table, name: &str, value: &impl Serialize) -> Result<()> {
        let json = serde_json::to_vec(value)?;
        self.0.open_table(table)?.insert(name, json.as_slice())?;
        Ok(())
    }

    /// Removes one thing, if it is there.
    pub fn remove(&mut self, table: Table, name: &str) -> Result<()> {
        self.0.open_table(table)?.remove(name)?;
        Ok(())
    }

    /// Makes the changes durable.
    pub fn commit(self) -> Result<()> {
        Ok(self.0.commit()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("store");
        let store = Store::open(&file).unwrap();
        store.put(DEVICES, "gw1", &"a device").unwrap();
        assert_eq!(store.hub_value("number", || Ok(7)).unwrap(), 7);
        let second = Store::open(&file).err().unwrap().to_string();
        assert!(second.contains("another emulator"), "{second}");
        drop(store);

        let store = Store::open(&file).unwrap();
        let devices = || store.all::<String>(DEVICES).unwrap();
        assert_eq!(devices(), [("gw1".to_owned(), "a device".to_owned())]);
        assert_eq!(store.hub_value("number", || Ok(8)).unwrap(), 7);
        store.remove(DEVICES, "gw1").unwrap();
        assert!(devices().is_empty());
    }

    #[test]
    fn a_batch_happens_as_a_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let batch = || {
            let mut batch = store.batch().unwrap();
            batch.put(JOBS, "a", &1).unwrap();
            batch.put(DEVICE_JOBS, "a/gw1", &2).unwrap();
            batch
        };
        drop(batch());
        assert!(store.all::<u8>(JOBS).unwrap().is_empty());
        batch().commit().unwrap();
        assert_eq!(store.all::<u8>(DEVICE_JOBS).unwrap(), [("a/gw1".to_owned(), 2)]);
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
