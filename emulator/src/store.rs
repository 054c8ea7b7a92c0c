//! The durable store: everything that the hub has acknowledged is in here.
//!
//! It is a redb database, because that is a single file and pure Rust (no C
//! compiler, no server), and a commit is atomic and synced to disk before it
//! returns: after a kill at any instant the file opens with the last committed
//! state. redb also locks the file, which keeps a second emulator out.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, anyhow};
use redb::backends::FileBackend;
use redb::{Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use crate::data_dir::open_private;

/// A table: JSON by name.
pub type Table = TableDefinition<'static, &'static str, &'static [u8]>;

/// Devices by id.
pub const DEVICES: Table = TableDefinition::new("devices");
/// Jobs by id.
pub const JOBS: Table = TableDefinition::new("jobs");
/// The devices' parts of jobs, by `job/device`.
pub const DEVICE_JOBS: Table = TableDefinition::new("device-jobs");
/// Cloud-to-device messages, by `device/number`.
pub const MESSAGES: Table = TableDefinition::new("messages");
/// Configurations by id.
pub const CONFIGURATIONS: Table = TableDefinition::new("configurations");
/// Enrolments, by kind and id.
pub const ENROLMENTS: Table = TableDefinition::new("enrolments");
/// Registrations, by registration id.
pub const REGISTRATIONS: Table = TableDefinition::new("registrations");
/// What belongs to the hub itself, such as its policies.
const HUB: Table = TableDefinition::new("hub");

/// Every table, for a new file to have them all.
const TABLES: [Table; 8] =
    [DEVICES, JOBS, DEVICE_JOBS, MESSAGES, CONFIGURATIONS, ENROLMENTS, REGISTRATIONS, HUB];

/// An open store. Clones share it.
#[derive(Clone)]
pub struct Store(Arc<Shared>);

struct Shared {
    database: Database,
    /// The batches that the next commit takes along.
    waiting: Mutex<Vec<Waiting>>,
    /// Held by the writer that commits for all that wait.
    committing: Arc<tokio::sync::Mutex<()>>,
    /// Whether a commit is not synced to disk yet.
    unsynced: AtomicBool,
}

/// A batch and its writer, who waits for it to be durable.
struct Waiting {
    batch: Batch,
    written: oneshot::Sender<Result<(), String>>,
}

/// Changes that become durable together.
#[derive(Default)]
pub struct Batch(Vec<Row>);

/// A named value's new JSON; `None` removes the value.
struct Row {
    table: Table,
    name: String,
    json: Option<Vec<u8>>,
}

impl Store {
    /// Opens the store in `file`, or makes one.
    pub fn open(file: &Path) -> Result<Self> {
        let name =
            || format!("cannot open the store {}; choose another directory with --data", file.display());
        // redb would follow a link, and make the file readable by everybody.
        let private = open_private(file).with_context(name)?;
        let database =
            FileBackend::new(private).and_then(|file| Database::builder().create_with_backend(file));
        let database = database.map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => anyhow!(
                "another emulator is using {}; stop it or choose another --data directory",
                file.display()
            ),
            error => anyhow!(error).context(name()),
        })?;
        let (waiting, committing, unsynced) = Default::default();
        let store = Store(Arc::new(Shared { database, waiting, committing, unsynced }));
        store.create_tables().with_context(|| format!("cannot write the store {}", file.display()))?;
        Ok(store)
    }

    /// All values of a table, each with its name.
    pub fn all<T: DeserializeOwned>(&self, table: Table) -> Result<Vec<(String, T)>> {
        let transaction = self.0.database.begin_read()?;
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

    /// Writes a value; durable on return.
    pub fn put(&self, table: Table, name: &str, value: &impl Serialize) -> Result<()> {
        let mut batch = Batch::default();
        batch.put(table, name, value)?;
        self.write(&batch)
    }

    /// Removes a value, if it is there; durable on return.
    pub fn remove(&self, table: Table, name: &str) -> Result<()> {
        let mut batch = Batch::default();
        batch.remove(table, name);
        self.write(&batch)
    }

    /// Writes a batch in one commit; durable on return.
    pub fn write(&self, batch: &Batch) -> Result<()> {
        self.write_all([batch])
    }

    /// Writes a batch in one commit with all others that want to be written by
    /// then: syncing the disk takes longest, and takes as long for one batch as
    /// for a thousand. When the future is dropped, the batch may be written or
    /// not.
    pub async fn write_along(&self, batch: Batch) -> Result<()> {
        let (written, mut outcome) = oneshot::channel();
        self.waiting().push(Waiting { batch, written });
        tokio::select! {
            biased;
            outcome = &mut outcome => return said(outcome),
            turn = self.0.committing.clone().lock_owned() => {
                let group = std::mem::take(&mut *self.waiting());
                let store = self.clone();
                let commit = move || {
                    let outcome = store.write_all(group.iter().map(|waiting| &waiting.batch));
                    let outcome = outcome.map_err(|error| format!("{error:#}"));
                    for Waiting { written, .. } in group {
                        // An error only means that this writer's future was dropped.
                        let _ = written.send(outcome.clone());
                    }
                    // Only now, also when nobody waits here any more: the next
                    // group must not overtake this one.
                    drop(turn);
                };
                spawn_blocking(commit).await?;
            }
        }
        // The batch was in this group, or in one before it.
        said(outcome.await)
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes batches in one commit.
    fn write_all<'a>(&self, batches: impl IntoIterator<Item = &'a Batch>) -> Result<()> {
        let transaction = self.0.database.begin_write()?;
        for Row { table, name, json } in batches.into_iter().flat_map(|batch| &batch.0) {
            let mut table = transaction.open_table(*table)?;
            match json {
                Some(json) => table.insert(name.as_str(), json.as_slice())?,
                None => table.remove(name.as_str())?,
            };
        }
        Ok(transaction.commit()?)
    }

    /// A value that belongs to the hub itself, made at its first use. A new value
    /// is durable only after the next commit or [`Store::sync`]: each commit would
    /// take time at a start.
    pub fn hub_value<T: Serialize + DeserializeOwned>(
        &self,
        name: &str,
        make: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let transaction = self.0.database.begin_read()?;
        if let Some(json) = transaction.open_table(HUB)?.get(name)? {
            return serde_json::from_slice(json.value())
                .with_context(|| format!("the stored {name} are unreadable"));
        }
        drop(transaction);
        let value = make()?;
        let mut transaction = self.0.database.begin_write()?;
        transaction.set_durability(Durability::None)?;
        transaction.open_table(HUB)?.insert(name, serde_json::to_vec(&value)?.as_slice())?;
        transaction.commit()?;
        self.0.unsynced.store(true, Ordering::Relaxed);
        Ok(value)
    }

    /// Makes the values durable that the start has made.
    pub fn sync(&self) -> Result<()> {
        if self.0.unsynced.swap(false, Ordering::Relaxed) {
            self.write(&Batch::default())?;
        }
        Ok(())
    }

    /// Changes a value that belongs to the hub itself; durable on return.
    pub fn set_hub_value(&self, name: &str, value: &impl Serialize) -> Result<()> {
        self.put(HUB, name, value)
    }

    fn create_tables(&self) -> Result<()> {
        let transaction = self.0.database.begin_read()?;
        // Most often all tables are there, and a commit takes time.
        if TABLES.into_iter().all(|table| transaction.open_table(table).is_ok()) {
            return Ok(());
        }
        drop(transaction);
        let mut transaction = self.0.database.begin_write()?;
        transaction.set_durability(Durability::None)?;
        for table in TABLES {
            transaction.open_table(table)?;
        }
        transaction.commit()?;
        self.0.unsynced.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Batch {
    /// Writes a value.
    pub fn put(&mut self, table: Table, name: &str, value: &impl Serialize) -> Result<()> {
        let json = serde_json::to_vec(value)?;
        self.0.push(Row { table, name: name.to_owned(), json: Some(json) });
        Ok(())
    }

    /// Removes a value, if it is there.
    pub fn remove(&mut self, table: Table, name: &str) {
        self.0.push(Row { table, name: name.to_owned(), json: None });
    }
}

/// What the writer of a group said of this batch.
fn said(outcome: Result<Result<(), String>, oneshot::error::RecvError>) -> Result<()> {
    outcome?.map_err(|why| anyhow!(why))
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    #[test]
    fn what_was_put_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("store");
        let store = Store::open(&file).unwrap();
        store.put(DEVICES, "gw1", &"a device").unwrap();
        assert_eq!(store.hub_value("number", || Ok(7)).unwrap(), 7);
        store.sync().unwrap();
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
    fn a_batch_is_written_in_its_order() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let mut batch = Batch::default();
        batch.put(JOBS, "a", &1).unwrap();
        batch.put(DEVICE_JOBS, "a/gw1", &2).unwrap();
        store.write(&batch).unwrap();
        assert_eq!(store.all::<u8>(DEVICE_JOBS).unwrap(), [("a/gw1".to_owned(), 2)]);
        batch.remove(JOBS, "a");
        store.write(&batch).unwrap();
        assert!(store.all::<u8>(JOBS).unwrap().is_empty(), "in the order of the changes");
    }

    #[tokio::test]
    async fn many_writers_share_commits_and_all_are_durable() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("store");
        let store = Store::open(&file).unwrap();
        let write = async |n: u32| {
            let mut batch = Batch::default();
            batch.put(DEVICES, &format!("d{n:03}"), &n).unwrap();
            store.write_along(batch).await.unwrap();
            store.all::<u32>(DEVICES).unwrap().len()
        };
        let seen = join_all((0..300).map(write)).await;
        // The first writer commits for itself alone or for all, the second for
        // all that are left.
        assert!(seen.iter().filter(|seen| **seen == 300).count() >= 299, "{seen:?}");
        drop(store);
        assert_eq!(Store::open(&file).unwrap().all::<u32>(DEVICES).unwrap().len(), 300);
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
