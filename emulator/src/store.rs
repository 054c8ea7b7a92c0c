//! The durable store: everything that the hub has acknowledged is in here.
//!
//! It is one file to which changes are appended, each as short as what changed, and
//! many of them by one sync ([`frames`] says how they stand there). At a start it is
//! read from its beginning to its end, up to where a crash has torn it, and what was
//! torn is kept beside it; when most of it is of the past, [`writer`] writes it anew. Values stay unparsed until somebody
//! asks for them. The file is locked, which keeps a second emulator out.
//!
//! It is called `store.redb` since earlier versions had a redb database there, which
//! becomes such a file when it is opened ([`older`]). The name has stayed: so an
//! earlier version refuses the file, rather than begin with an empty hub beside it.

mod frames;
mod image;
mod older;
mod table;
mod writer;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use anyhow::{Context, Result, anyhow, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tracing::warn;

use crate::data_dir::{open_private, sign_of_a_hub};
use crate::device::{self, DevicePatch};
use frames::{HEAD, Kind};
use image::Image;
pub use image::Raw;
use older::Older;
pub use table::{CONFIGURATIONS, DEVICE_JOBS, DEVICES, ENROLMENTS, JOBS, MESSAGES, REGISTRATIONS, Table};
use table::{Change, HUB, Row};
use writer::{Anew, Thread, Writer};

/// An open store. Clones share it.
#[derive(Clone)]
pub struct Store(Arc<Shared>);

struct Shared {
    file: PathBuf,
    /// All that is in the file, while the hub starts.
    image: Arc<Mutex<Option<Image>>>,
    /// Whether the hub has started, and its files have been swept.
    started: Arc<AtomicBool>,
    /// Whether something waits for the next sync.
    unsynced: AtomicBool,
    thread: Thread,
}

/// Changes that become durable together.
#[derive(Default)]
pub struct Batch(Vec<Row>);

impl Store {
    /// Opens the store in `file`, or makes one where there was no hub yet.
    pub fn open(file: &Path) -> Result<Self> {
        let name =
            || format!("cannot open the store {}; choose another directory with --data", file.display());
        let mut opened = open_locked(file, name)?;
        let mut bytes = Vec::with_capacity(usize::try_from(opened.metadata().with_context(name)?.len())?);
        opened.read_to_end(&mut bytes).with_context(name)?;
        let (mut unsynced, mut image) = (false, Image::default());
        let writer = match frames::kind(&bytes) {
            Kind::Frames => {
                let bytes = bytes.into();
                let (found, end) = Image::read(&bytes).with_context(name)?;
                if end == HEAD.len() {
                    check_first_start(file).with_context(name)?;
                }
                keep_torn(file, &bytes, end).with_context(name)?;
                image = found;
                let needed = u64::try_from(image.size())?;
                let end = u64::try_from(end)?;
                // Also the zeros go, so that nothing stands behind what is appended. What a
                // killed emulator wrote and did not sync is seen from now on, so it must stay.
                opened.set_len(end).and_then(|()| opened.sync_data()).with_context(name)?;
                Writer::new(file, opened, end).needing(needed)
            }
            Kind::New => {
                unsynced = true;
                check_first_start(file).with_context(name)?;
                let begin = opened.set_len(0).and_then(|()| opened.write_all_at(HEAD, 0));
                begin.with_context(|| format!("cannot write the store {}", file.display()))?;
                Writer::new(file, opened, u64::try_from(HEAD.len())?)
            }
            Kind::Database => {
                unsynced = true;
                let older = Older::read(opened).with_context(name)?;
                let why = || format!("cannot take over {}, which stays as it was", file.display());
                let anew = Anew::write(file, &older.image).with_context(why)?;
                // While the database is locked, nobody else can do the same.
                let (opened, end) = anew.take_name(file).with_context(why)?;
                image = older.into_image();
                Writer::new(file, opened, end)
            }
            Kind::Later => return Err(anyhow!("a later version has written it").context(name())),
            Kind::Other => return Err(anyhow!("it is no store of an emulator").context(name())),
        };
        let (image, started) = (Arc::new(Mutex::new(Some(image))), Arc::default());
        let thread = Thread::start(writer, Arc::clone(&image), Arc::clone(&started))?;
        let (file, unsynced) = (file.to_owned(), AtomicBool::new(unsynced));
        Ok(Store(Arc::new(Shared { file, image, started, unsynced, thread })))
    }

    /// All values of a table, each with its name.
    pub fn all<T: DeserializeOwned>(&self, table: Table) -> Result<Vec<(String, T)>> {
        let parse = |(name, raw): (String, Raw)| {
            let value = parse(table, &raw);
            let value =
                value.with_context(|| format!("{name:?} among the stored {} is unreadable", table.name()))?;
            Ok((name, value))
        };
        self.all_raw(table)?.into_iter().map(parse).collect()
    }

    /// All values of a table as they are stored, each with its name.
    pub fn all_raw(&self, table: Table) -> Result<Vec<(String, Raw)>> {
        self.read(|image| image.all(table))
    }

    /// Writes a value; durable on return.
    pub fn put(&self, table: Table, name: &str, value: &impl Serialize) -> Result<()> {
        let mut batch = Batch::default();
        batch.put(table, name, value)?;
        self.write(batch)
    }

    /// Removes a value, if it is there; durable on return.
    pub fn remove(&self, table: Table, name: &str) -> Result<()> {
        let mut batch = Batch::default();
        batch.remove(table, name);
        self.write(batch)
    }

    /// Writes a batch; durable on return.
    pub fn write(&self, batch: Batch) -> Result<()> {
        let (told, outcome) = mpsc::channel();
        // An error only means that the receiver is gone, which it is not.
        self.0.thread.queue.push(batch.0, move |outcome| drop(told.send(outcome)));
        outcome.recv()?.map_err(|why| anyhow!(why))
    }

    /// Writes a batch by one sync with all others that want to be written by then:
    /// syncing the disk takes longest, and takes as long for one batch as for a
    /// thousand. When the future is dropped, the batch is written all the same.
    pub async fn write_along(&self, batch: Batch) -> Result<()> {
        let (told, outcome) = oneshot::channel();
        // An error only means that this future was dropped.
        self.0.thread.queue.push(batch.0, move |outcome| drop(told.send(outcome)));
        outcome.await?.map_err(|why| anyhow!(why))
    }

    /// A value that belongs to the hub itself, made at its first use. A new value
    /// is durable only after the next write or [`Store::sync`]: each sync would take
    /// time at a start.
    pub fn hub_value<T: Serialize + DeserializeOwned>(
        &self,
        name: &str,
        make: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        if let Some(raw) = self.read(|image| Ok(image.get(HUB, name).cloned()))? {
            return parse(HUB, &raw).with_context(|| format!("the stored {name} are unreadable"));
        }
        let value = make()?;
        let mut batch = Batch::default();
        batch.put(HUB, name, &value)?;
        for row in batch.0 {
            if let Some(image) = &mut *self.image() {
                image.apply(row.clone())?;
            }
            self.0.thread.queue.push_for_later(row);
        }
        self.0.unsynced.store(true, Ordering::Relaxed);
        Ok(value)
    }

    /// Makes the values durable that the start has made. The hub has started: what it
    /// has not read by now it does not need.
    pub fn sync(&self) -> Result<()> {
        if self.0.unsynced.swap(false, Ordering::Relaxed) {
            self.write(Batch::default())?;
        }
        self.0.started.store(true, Ordering::Relaxed);
        *self.image() = None;
        Ok(())
    }

    /// Changes a value that belongs to the hub itself; durable on return.
    pub fn set_hub_value(&self, name: &str, value: &impl Serialize) -> Result<()> {
        self.put(HUB, name, value)
    }

    /// Looks at what is in the file.
    fn read<R>(&self, look: impl FnOnce(&Image) -> Result<R>) -> Result<R> {
        if let Some(image) = &*self.image() {
            return look(image);
        }
        look(&Image::read(&std::fs::read(&self.0.file)?.into())?.0)
    }

    fn image(&self) -> MutexGuard<'_, Option<Image>> {
        self.0.image.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Batch {
    /// Writes a value.
    pub fn put(&mut self, table: Table, name: &str, value: &impl Serialize) -> Result<()> {
        let json = serde_json::to_vec(value)?.into();
        self.0.push(Row { table, name: name.to_owned().into(), change: Change::Put(json) });
        Ok(())
    }

    /// Writes how a device changes; the device is in the store already.
    pub fn patch_device(&mut self, id: &str, patch: &DevicePatch) -> Result<()> {
        let json = serde_json::to_vec(patch)?.into();
        self.0.push(Row { table: DEVICES, name: id.to_owned().into(), change: Change::Patch(json) });
        Ok(())
    }

    /// Removes a value, if it is there.
    pub fn remove(&mut self, table: Table, name: &str) {
        self.0.push(Row { table, name: name.to_owned().into(), change: Change::Remove });
    }
}

/// Opens the file, and keeps others from doing so.
fn open_locked(file: &Path, name: impl Fn() -> String + Copy) -> Result<File> {
    loop {
        let opened = open_private(file).with_context(name)?;
        match opened.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(
                "another emulator is using {}; stop it or choose another --data directory",
                file.display()
            ),
            Err(TryLockError::Error(error)) => return Err(error).with_context(name),
        }
        // Another emulator, which has ended since, may have put a new file in its place
        // between the two steps.
        let named = file.symlink_metadata().map(|named| (named.dev(), named.ino()));
        let ours = opened.metadata().with_context(name)?;
        if named.is_ok_and(|named| named == (ours.dev(), ours.ino())) {
            return Ok(opened);
        }
    }
}

/// Fails where a hub was served from the directory of the store `file`, in which nothing
/// is: what it has confirmed is lost then, and the files that are made from it go as well
/// once another hub has begun.
fn check_first_start(file: &Path) -> Result<()> {
    if let Some(sign) = sign_of_a_hub(file)? {
        bail!(
            "nothing is in it, but {} shows that a hub was; put a copy of the directory back, or remove it to begin \
             afresh",
            sign.display()
        );
    }
    Ok(())
}

/// Keeps what stands behind the last whole frame of the store `file`, at `end` of its
/// `bytes`, in a file of its own, and warns of it. Nothing or zeros are not kept.
fn keep_torn(file: &Path, bytes: &[u8], end: usize) -> Result<()> {
    let rest = bytes.get(end..).unwrap_or_default();
    let Some(last) = rest.iter().rposition(|byte| *byte != 0) else { return Ok(()) };
    let torn = rest.get(..=last).unwrap_or_default();
    let mut number = 0;
    let (path, mut kept) = loop {
        let mut path = file.as_os_str().to_owned();
        path.push(format!(".torn-{number}"));
        let path = PathBuf::from(path);
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
            made => break (path.clone(), made.with_context(|| format!("cannot make {}", path.display()))?),
        }
    };
    let written = kept.write_all(torn).and_then(|()| kept.sync_all());
    if let Err(error) = written {
        // The store still has it.
        let _ = std::fs::remove_file(&path);
        return Err(error).with_context(|| format!("cannot write {}", path.display()));
    }
    warn!(
        "the last change in {} was torn by a crash and is not there: its {} bytes from byte {end} on are kept in {}",
        file.display(),
        torn.len(),
        path.display()
    );
    Ok(())
}

/// The value as it is after its changes.
fn parse<T: DeserializeOwned>(table: Table, raw: &Raw) -> serde_json::Result<T> {
    if table == DEVICES && !raw.patches.is_empty() {
        return serde_json::from_slice(&serde_json::to_vec(&device::read(&raw.json, &raw.patches)?)?);
    }
    serde_json::from_slice(&raw.json)
}

#[cfg(test)]
mod tests {
    use redb::{Database, TableDefinition};
    use serde_json::{Value, json};

    use super::*;

    fn devices(store: &Store) -> Vec<(String, Value)> {
        store.all(DEVICES).unwrap()
    }

    #[test]
    fn what_was_put_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("store");
        let store = Store::open(&file).unwrap();
        store.put(DEVICES, "gw1", &"a device").unwrap();
        assert_eq!(store.hub_value("number", || Ok(7)).unwrap(), 7);
        store.sync().unwrap();
        assert_eq!(store.hub_value("number", || Ok(8)).unwrap(), 7, "also when the start is over");
        let second = Store::open(&file).err().unwrap().to_string();
        assert!(second.contains("another emulator"), "{second}");
        drop(store);

        let store = Store::open(&file).unwrap();
        assert_eq!(devices(&store), [("gw1".to_owned(), json!("a device"))]);
        assert_eq!(store.hub_value("number", || Ok(8)).unwrap(), 7);
        store.remove(DEVICES, "gw1").unwrap();
        assert!(devices(&store).is_empty());
    }

    #[test]
    fn a_batch_is_written_in_its_order() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let mut batch = Batch::default();
        batch.put(JOBS, "a", &1).unwrap();
        batch.put(DEVICE_JOBS, "a/gw1", &2).unwrap();
        batch.put(JOBS, "b", &3).unwrap();
        batch.remove(JOBS, "a");
        store.write(batch).unwrap();
        assert_eq!(store.all::<u8>(DEVICE_JOBS).unwrap(), [("a/gw1".to_owned(), 2)]);
        assert_eq!(store.all::<u8>(JOBS).unwrap(), [("b".to_owned(), 3)], "in the order of the changes");
    }

    #[test]
    fn a_torn_end_is_not_there_and_what_is_written_next_is() {
        let dir = tempfile::tempdir().unwrap();
        let (whole, torn) = (dir.path().join("whole"), dir.path().join("torn"));
        let store = Store::open(&whole).unwrap();
        store.sync().unwrap();
        let end = |store: &Store| {
            let bytes = std::fs::read(&store.0.file).unwrap().into();
            Image::read(&bytes).unwrap().1
        };
        let mut ends = vec![end(&store)];
        for n in 0..3 {
            store.put(DEVICES, &format!("d{n}"), &json!({ "n": n })).unwrap();
            ends.push(end(&store));
        }
        drop(store);
        let bytes = std::fs::read(&whole).unwrap();
        for cut in HEAD.len()..=ends[3] {
            // A power cut leaves what was not synced out, or zeros in its place.
            let mut left = bytes[..cut].to_vec();
            left.extend(vec![0; if cut % 2 == 0 { 0 } else { 100 }]);
            std::fs::write(&torn, left).unwrap();
            let store = Store::open(&torn).unwrap();
            let confirmed = ends.iter().filter(|end| **end <= cut).count().saturating_sub(1);
            assert_eq!(devices(&store).len(), confirmed, "cut at {cut}");
            store.put(DEVICES, "next", &json!({})).unwrap();
            drop(store);
            let names = devices(&Store::open(&torn).unwrap()).into_iter().map(|(name, _)| name);
            let expected = (0..confirmed).map(|n| format!("d{n}")).chain(["next".to_owned()]);
            assert!(names.eq(expected), "cut at {cut}");
        }
        // A byte that changes where more was confirmed after it is no crash's work.
        let mut damaged = bytes;
        damaged[ends[1] + 20] ^= 1;
        std::fs::write(&torn, &damaged).unwrap();
        let error = format!("{:#}", Store::open(&torn).err().unwrap());
        assert!(error.contains("damaged at byte") && error.contains("torn"), "{error}");
        assert_eq!(std::fs::read(&torn).unwrap(), damaged, "left as it was");
        // Nor is one in what was confirmed last.
        damaged[ends[1] + 20] ^= 1;
        damaged[ends[2] + 20] ^= 1;
        std::fs::write(&torn, &damaged).unwrap();
        let error = format!("{:#}", Store::open(&torn).err().unwrap());
        assert!(error.contains(&format!("damaged at byte {}", ends[2])), "{error}");
        assert!(error.contains("put a copy"), "no remedy: {error}");
        assert_eq!(std::fs::read(&torn).unwrap(), damaged, "left as it was");
    }

    #[test]
    fn what_was_torn_is_kept_for_the_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("store");
        let store = Store::open(&file).unwrap();
        store.put(DEVICES, "gw1", &json!({})).unwrap();
        drop(store);
        let whole = std::fs::read(&file).unwrap();
        let end = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        let torn = &whole[HEAD.len()..end - 1];
        for n in 0..2 {
            std::fs::write(&file, [&whole[..end], torn, &[0; 3000]].concat()).unwrap();
            assert_eq!(devices(&Store::open(&file).unwrap()).len(), 1);
            let kept = dir.path().join(format!("store.torn-{n}"));
            assert_eq!(std::fs::read(&kept).unwrap(), torn);
            assert_eq!(kept.metadata().unwrap().mode() & 0o777, 0o600);
            assert_eq!(file.metadata().unwrap().len(), u64::try_from(end).unwrap());
        }
        drop(Store::open(&file).unwrap());
        assert_eq!(dir.path().read_dir().unwrap().count(), 3, "nothing is kept of a whole one");
    }

    #[test]
    fn an_empty_store_is_a_first_start_only_where_no_hub_was() {
        let dir = tempfile::tempdir().unwrap();
        let (file, devices) = (dir.path().join("store"), dir.path().join("devices"));
        std::fs::create_dir(&devices).unwrap();
        std::fs::write(devices.join("photo"), "x").unwrap();
        let torn = [&HEAD[..], b"\xf5fr\xff\x09", &[0; 900]].concat();
        for sign in [dir.path().join("ca.pem"), devices.join("gw1")] {
            for left in [&b""[..], &HEAD[..7], HEAD, &[0; 69632], &torn] {
                std::fs::write(&file, left).unwrap();
                std::fs::write(&sign, "HostName=localhost;DeviceId=gw1\n").unwrap();
                let error = format!("{:#}", Store::open(&file).err().unwrap());
                for named in [&file, &sign] {
                    assert!(error.contains(named.to_str().unwrap()), "{error}");
                }
                assert!(error.contains("put a copy"), "no remedy: {error}");
                assert_eq!(std::fs::read(&file).unwrap(), left, "left as it was");
                std::fs::remove_file(&sign).unwrap();
                Store::open(&file).unwrap();
            }
        }
    }

    #[test]
    fn a_changed_bit_after_a_migration_is_noticed_wherever_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("store");
        of_earlier_version(&file);
        drop(Store::open(&file).unwrap());
        let whole = std::fs::read(&file).unwrap();
        for place in 0..whole.len() {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[place] ^= 1 << bit;
                std::fs::write(&file, &damaged).unwrap();
                assert!(Store::open(&file).is_err(), "byte {place}, bit {bit}");
                assert!(std::fs::read(&file).unwrap() == damaged, "left as it was");
            }
        }
        std::fs::write(&file, &whole).unwrap();
        assert_eq!(devices(&Store::open(&file).unwrap()).len(), 2);
    }

    #[test]
    fn a_migration_that_fails_leaves_the_earlier_store() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("store");
        of_earlier_version(&file);
        // Nothing can be written there.
        let beside = dir.path().join(".writing-store");
        std::fs::create_dir(&beside).unwrap();
        let error = format!("{:#}", Store::open(&file).err().unwrap());
        assert!(error.contains("stays as it was") && error.contains(beside.to_str().unwrap()), "{error}");
        std::fs::remove_dir(&beside).unwrap();
        assert_eq!(devices(&Store::open(&file).unwrap()).len(), 2);
    }

    #[test]
    fn a_first_start_that_was_killed_can_be_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("store");
        for left in [&b""[..], &HEAD[..7], &[0; 4096]] {
            std::fs::write(&file, left).unwrap();
            let store = Store::open(&file).unwrap();
            store.put(DEVICES, "gw1", &json!({})).unwrap();
            drop(store);
            assert_eq!(devices(&Store::open(&file).unwrap()).len(), 1);
        }
    }

    /// A store as the versions before this one wrote it.
    fn of_earlier_version(file: &Path) {
        let database = Database::create(file).unwrap();
        let transaction = database.begin_write().unwrap();
        for (table, name, json) in [
            ("devices", "gw1", r#"{"a":1}"#),
            ("devices", "gw1/m", "{}"),
            ("messages", "gw1/00000000000000000001", "[]"),
            ("hub", "policies", "7"),
        ] {
            let table = TableDefinition::<&str, &[u8]>::new(table);
            transaction.open_table(table).unwrap().insert(name, json.as_bytes()).unwrap();
        }
        transaction.commit().unwrap();
    }

    #[test]
    fn a_store_of_an_earlier_version_is_taken_over_whole() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("store");
        of_earlier_version(&file);
        // What a crash in the middle of an earlier attempt leaves.
        std::fs::write(dir.path().join(".writing-store"), b"iotdm-sto").unwrap();
        for _ in 0..2 {
            let store = Store::open(&file).unwrap();
            let expected = [("gw1".to_owned(), json!({"a": 1})), ("gw1/m".to_owned(), json!({}))];
            assert_eq!(devices(&store), expected);
            assert_eq!(store.all::<Value>(MESSAGES).unwrap().len(), 1);
            assert_eq!(store.hub_value("policies", || Ok(0)).unwrap(), 7);
            let second = Store::open(&file).err().unwrap().to_string();
            assert!(second.contains("another emulator"), "{second}");
        }
        assert!(std::fs::read(&file).unwrap().starts_with(HEAD));
        assert_eq!(dir.path().read_dir().unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn a_file_that_is_no_store_is_named_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("store");
        for (text, why) in [("not a database", "no store"), ("iotdm-store 2\n\0\0and more", "later version")]
        {
            std::fs::write(&file, text).unwrap();
            let error = format!("{:#}", Store::open(&file).err().unwrap());
            assert!(error.contains(&file.display().to_string()) && error.contains(why), "{error}");
            assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
        }
    }
}
