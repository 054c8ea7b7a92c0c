//! The thread that writes the store's file: it makes durable what waits, all of it by
//! one sync, and writes the file anew when most of it is of the past.
//!
//! Writing anew goes on beside the thread, from a file that does not change where it
//! is read. When it is done, what was appended meanwhile is copied over, the new file
//! is sealed and synced, and takes the old one's name: until then the old one counts, and from
//! then on the new one, with the same values.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use nix::sys::statvfs::statvfs;
use tempfile::TempPath;
use tracing::warn;

use super::frames::Frame;
use super::image::{Image, Raw};
use super::table::{DEVICES, Row, Table};
use crate::data_dir::open_private;
use crate::device;

/// The file that is being written anew is called so until it is whole.
const ANEW: &str = ".writing-store";

/// How much a file may grow beyond twice of what it had when it was last written
/// anew, in bytes. Each start reads all of the past, some thousand changes in each
/// megabyte, and takes longer by that; writing a file of a megabyte anew takes some
/// milliseconds, of a thread that nobody waits for.
const SLACK: u64 = 1 << 20;

/// How much is written before it is needed, in bytes: at least and at most, and in
/// between a quarter of the file.
const ROOM: (u64, u64) = (64 << 10, 1 << 20);

/// What waits to be written, and who.
#[derive(Default)]
pub(super) struct Queue {
    inner: Mutex<Waiting>,
    /// Tells the thread that something waits, or that nothing will any more.
    changed: Condvar,
}

/// What a writer has to be told: that its rows are durable, or why they are not.
type Told = Box<dyn FnOnce(Result<(), String>) + Send>;

#[derive(Default)]
struct Waiting {
    rows: Vec<Row>,
    told: Vec<Told>,
    closed: bool,
}

/// The file, where new frames go.
pub(super) struct Writer {
    path: PathBuf,
    file: File,
    /// Where the next frame goes.
    end: u64,
    /// How far there is room that was written before.
    room: u64,
    /// How long the file was when it was last written anew, or would have been.
    anew: u64,
    /// How long the file has to be before it is written anew, after that has failed.
    not_before: u64,
    /// Whether a frame that failed may still stand behind the end.
    untidy: bool,
    /// Whether the file's name may not be durable yet.
    unnamed: bool,
}

/// A file that is being written anew, from the first bytes of the old one.
struct Rewriting {
    from: u64,
    written: JoinHandle<Result<Anew>>,
}

/// A file that holds what an older one holds, and has not taken its name yet. It is
/// removed where it does not come to that.
pub(super) struct Anew {
    path: TempPath,
    file: File,
    length: u64,
}

impl Queue {
    /// Adds rows, which are written together; `told` hears when they are durable, or
    /// why they could not be written.
    pub(super) fn push(&self, rows: Vec<Row>, told: impl FnOnce(Result<(), String>) + Send + 'static) {
        let mut inner = self.lock();
        inner.rows.extend(rows);
        inner.told.push(Box::new(told));
        drop(inner);
        self.changed.notify_one();
    }

    /// Adds rows that nobody waits for: they are written with the next ones.
    pub(super) fn push_for_later(&self, row: Row) {
        self.lock().rows.push(row);
    }

    /// Ends the thread, once all that waits is written.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// What waits; `None` when nothing will any more.
    fn take(&self) -> Option<Waiting> {
        let is_idle = |waiting: &mut Waiting| waiting.told.is_empty() && !waiting.closed;
        let waiting = self.changed.wait_while(self.lock(), is_idle);
        let mut waiting = waiting.unwrap_or_else(PoisonError::into_inner);
        let taken = std::mem::take(&mut *waiting);
        waiting.closed = taken.closed;
        (!taken.told.is_empty()).then_some(taken)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Appends to `file` at `path`, whose last whole frame ends at `end`.
    pub(super) fn new(path: &Path, file: File, end: u64) -> Self {
        // Whoever made the file may have been killed before its name was durable.
        let (path, unnamed) = (path.to_owned(), true);
        Writer { path, file, end, room: 0, anew: end, not_before: 0, untidy: false, unnamed }
    }

    /// The same for a file of which no more than `size` bytes are needed.
    pub(super) fn needing(self, size: u64) -> Self {
        Writer { anew: size, ..self }
    }

    /// Writes what waits in `queue` until that is closed. `image`, while there is
    /// one, takes in what has been written; only when `may_rewrite` says so is the
    /// file written anew.
    pub(super) fn run(mut self, queue: &Queue, image: &Mutex<Option<Image>>, may_rewrite: &AtomicBool) {
        let mut rewriting: Option<Rewriting> = None;
        while let Some(Waiting { rows, told, .. }) = queue.take() {
            let outcome = self.append(&rows).map_err(|error| format!("{error:#}"));
            if let (Ok(()), Some(image)) = (&outcome, &mut *lock(image)) {
                for row in rows {
                    if let Err(error) = image.apply(row) {
                        warn!("{error:#}");
                    }
                }
            }
            told.into_iter().for_each(|told| told(outcome.clone()));
            if may_rewrite.load(Ordering::Relaxed) {
                rewriting = self.step(rewriting);
            }
        }
        if let Some(Rewriting { written, .. }) = rewriting {
            // The new file is removed, and nothing is lost with it.
            drop(written.join());
        }
    }

    /// Begins to write the file anew where most of it is of the past, or puts the one
    /// in its place that is written; what is under way after that.
    fn step(&mut self, rewriting: Option<Rewriting>) -> Option<Rewriting> {
        let is_of_the_past = self.end > self.not_before.max(2 * self.anew + SLACK);
        let step = match rewriting {
            Some(done) if done.written.is_finished() => self.replace(done).map(|()| None),
            None if is_of_the_past => self.rewrite().map(Some),
            under_way => Ok(under_way),
        };
        step.unwrap_or_else(|error| {
            warn!("the store is not written anew: {error:#}");
            // What was in the way will hardly be gone at once.
            self.not_before = self.end + self.end / 2;
            None
        })
    }

    /// Writes rows as one frame; durable on return. After an error nothing of them is
    /// left, and the next frame goes where this one would have gone.
    pub(super) fn append(&mut self, rows: &[Row]) -> Result<()> {
        self.append_synced_by(rows, File::sync_data)
    }

    fn append_synced_by(&mut self, rows: &[Row], sync: fn(&File) -> io::Result<()>) -> Result<()> {
        self.sync_name()?;
        if self.untidy {
            self.take_back().with_context(|| format!("cannot write {}", self.path.display()))?;
        }
        let mut frame = Frame::new();
        for row in rows {
            frame.push(row)?;
        }
        let frame = frame.finish()?;
        let end = self.end + u64::try_from(frame.len())?;
        let write = || -> io::Result<u64> {
            self.file.write_all_at(&frame, self.end)?;
            if end <= self.room {
                return Ok(self.room);
            }
            let room = (end / 4).clamp(ROOM.0, ROOM.1);
            let zeros = vec![0; usize::try_from(room).unwrap_or_default()];
            // A full disk may have room for the frame all the same.
            Ok(if self.file.write_all_at(&zeros, end).is_ok() { end + room } else { end })
        };
        let written = write().with_context(|| format!("cannot write {}", self.path.display()));
        let synced = written.and_then(|room| {
            sync(&self.file).with_context(|| format!("cannot sync {}", self.path.display()))?;
            Ok(room)
        });
        match synced {
            Ok(room) => (self.room, self.end) = (room, end),
            Err(error) => {
                self.untidy = true;
                // If this fails as well, it is done before the next frame.
                let _ = self.take_back();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Cuts off what stands behind the end: a frame of which somebody was told that it
    /// is not written must not be there after a restart.
    fn take_back(&mut self) -> io::Result<()> {
        self.room = 0;
        self.file.set_len(self.end)?;
        self.untidy = false;
        Ok(())
    }

    /// Begins to write the file anew.
    fn rewrite(&self) -> Result<Rewriting> {
        let (old, path, from) = (self.file.try_clone()?, self.path.clone(), self.end);
        let write = move || {
            let mut bytes = vec![0; usize::try_from(from)?];
            old.read_exact_at(&mut bytes, 0)?;
            let (image, end) = Image::read(&bytes.into())?;
            if u64::try_from(end)? != from {
                bail!("only {end} of the {from} bytes of {} can be read", path.display());
            }
            check_room(&path, image.size())?;
            Anew::write(&path, &image)
        };
        Ok(Rewriting { from, written: thread::Builder::new().name("rewriting".into()).spawn(write)? })
    }

    /// Puts the file that was written anew in the place of the old one, with what was
    /// appended to that since.
    fn replace(&mut self, Rewriting { from, written }: Rewriting) -> Result<()> {
        let mut anew = written.join().map_err(|_| anyhow!("its thread has ended"))??;
        anew.append(&self.file, from, self.end)?;
        let (file, length) = anew.take_name(&self.path)?;
        // From here on the old file has no name any more, so nothing may go there.
        *self = Writer::new(&self.path, file, length);
        self.sync_name()
    }

    /// Makes durable which file has the store's name: before that, a crash could bring
    /// the old file back, which has nothing of what is written from now on.
    fn sync_name(&mut self) -> Result<()> {
        if self.unnamed {
            sync_directory(&self.path)?;
            self.unnamed = false;
        }
        Ok(())
    }
}

/// Makes durable which files have which names beside `file`.
pub(super) fn sync_directory(file: &Path) -> Result<()> {
    let directory = file.parent().context("the store is in no directory")?;
    File::open(directory).and_then(|directory| directory.sync_all()).context("cannot sync the directory")
}

/// Fails where the disk has too little room for another file of about `size` bytes
/// beside `store`, with some left for what is appended meanwhile.
fn check_room(store: &Path, size: usize) -> Result<()> {
    let directory = store.parent().context("the store is in no directory")?;
    let found = statvfs(directory).with_context(|| format!("cannot look at {}", directory.display()))?;
    let free = u128::from(found.blocks_available()) * u128::from(found.fragment_size());
    // Changes may come to a little more than is known before they are put together.
    let wanted = u128::try_from(size)? * 3 / 2 + u128::from(SLACK);
    if free < wanted {
        bail!("it takes {wanted} bytes, and {} has {free} left: make room there", directory.display());
    }
    Ok(())
}

impl Anew {
    /// Writes `image` into a file beside `store`; durable on return, but for its end.
    pub(super) fn write(store: &Path, image: &Image) -> Result<Self> {
        // What a crash has left of an earlier one.
        let _ = std::fs::remove_file(store.with_file_name(ANEW));
        let path = TempPath::try_from_path(store.with_file_name(ANEW))?;
        let name = || format!("cannot write {}", path.display());
        let mut file = open_private(&path).with_context(name)?;
        let mut length = 0;
        image.write(fold, |bytes| {
            length += u64::try_from(bytes.len())?;
            file.write_all(bytes).with_context(name)
        })?;
        // Here and not when it takes its name, since nobody waits here.
        file.sync_data().with_context(name)?;
        Ok(Anew { path, file, length })
    }

    /// Copies what the older file has between two places to the end.
    fn append(&mut self, older: &File, from: u64, to: u64) -> Result<()> {
        let mut bytes = vec![0; usize::try_from(to - from)?];
        older.read_exact_at(&mut bytes, from)?;
        self.file.write_all_at(&bytes, self.length)?;
        self.length += to - from;
        Ok(())
    }

    /// Seals and syncs the file, and gives it the name of the store, whose place it
    /// takes: from then on it is the one that is locked. The name is not durable on
    /// return. Returns the file and its length.
    pub(super) fn take_name(self, store: &Path) -> Result<(File, u64)> {
        let name = || format!("cannot write {}", self.path.display());
        let seal = Frame::seal()?;
        self.file.write_all_at(&seal, self.length).and_then(|()| self.file.sync_all()).with_context(name)?;
        self.file.try_lock()?;
        self.path.persist(store)?;
        Ok((self.file, self.length + u64::try_from(seal.len())?))
    }
}

/// The one value that a device's changes come to, where they have become longer than
/// the device itself.
fn fold(table: Table, raw: &Raw) -> Result<Option<Vec<u8>>> {
    let changes: usize = raw.patches.iter().map(Bytes::len).sum();
    if table != DEVICES || changes <= raw.json.len() {
        return Ok(None);
    }
    Ok(Some(serde_json::to_vec(&device::read(&raw.json, &raw.patches)?)?))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread of a writer, and what it shares with those who hand it what to write.
pub(super) struct Thread {
    pub(super) queue: Arc<Queue>,
    handle: Option<JoinHandle<()>>,
}

impl Thread {
    /// Begins to write.
    pub(super) fn start(
        writer: Writer,
        image: Arc<Mutex<Option<Image>>>,
        may_rewrite: Arc<AtomicBool>,
    ) -> Result<Self> {
        let queue = Arc::<Queue>::default();
        let run = {
            let queue = queue.clone();
            move || writer.run(&queue, &image, &may_rewrite)
        };
        let handle = thread::Builder::new().name("store".into()).spawn(run)?;
        Ok(Thread { queue, handle: Some(handle) })
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(handle) = self.handle.take() {
            // The thread has no panic of its own.
            let _ = handle.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use iotdm_proto::Time;
    use serde_json::{Value, json};

    use super::super::frames::HEAD;
    use super::super::table::{Change, MESSAGES};
    use super::*;
    use crate::device::{Device, DevicePatch, IdentityChange};
    use crate::twin::TwinChange;

    fn writer(dir: &tempfile::TempDir) -> Writer {
        let path = dir.path().join("store");
        std::fs::write(&path, HEAD).unwrap();
        let file = open_private(&path).unwrap();
        file.try_lock().unwrap();
        Writer::new(&path, file, HEAD.len() as u64)
    }

    fn put(table: Table, name: &str, json: impl Into<Bytes>) -> Row {
        Row { table, name: name.to_owned().into(), change: Change::Put(json.into()) }
    }

    fn report(name: &str, device: &mut Device, n: usize) -> Row {
        let Value::Object(reported) = json!({ "n": n }) else { panic!() };
        let (twin, _) = device.twin.reported(reported, None, Time::from_unix_millis(7)).unwrap();
        let patch = DevicePatch { twin: Some(twin.clone()), ..DevicePatch::default() };
        device.twin.apply(twin);
        let change = Change::Patch(serde_json::to_vec(&patch).unwrap().into());
        Row { table: DEVICES, name: name.to_owned().into(), change }
    }

    /// The devices in a file, and how many messages it has.
    fn content(path: &Path) -> (Vec<(String, Device)>, usize) {
        let image = Image::read(&std::fs::read(path).unwrap().into()).unwrap().0;
        let read = |(name, raw): (String, Raw)| (name, device::read(&raw.json, &raw.patches).unwrap());
        let devices = image.all(DEVICES).unwrap().into_iter().map(read).collect();
        (devices, image.all(MESSAGES).unwrap().len())
    }

    #[test]
    fn all_that_waits_is_written_by_one_sync() {
        let dir = tempfile::tempdir().unwrap();
        let (queue, (told, outcomes)) = (Queue::default(), mpsc::channel());
        queue.push_for_later(put(MESSAGES, "later", "0"));
        for n in 0..300 {
            let told = told.clone();
            queue
                .push(vec![put(MESSAGES, &format!("d{n}"), "1")], move |outcome| told.send(outcome).unwrap());
        }
        queue.close();
        writer(&dir).run(&queue, &Mutex::default(), &AtomicBool::new(false));
        assert_eq!(outcomes.try_iter().filter(Result::is_ok).count(), 300);
        let path = dir.path().join("store");
        assert_eq!(content(&path).1, 301);
        let mut bytes = std::fs::read(&path).unwrap();
        // The last byte of JSON, without which the only frame is torn.
        let last = bytes.iter().rposition(|byte| *byte == b'1').unwrap();
        bytes[last] = b'2';
        std::fs::write(&path, bytes).unwrap();
        let error = format!("{:#}", Image::read(&std::fs::read(&path).unwrap().into()).err().unwrap());
        assert!(error.contains("damaged at byte 16,"), "one frame: {error}");
    }

    #[test]
    fn a_write_that_fails_is_said_and_spoils_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(&dir);
        writer.append(&[put(MESSAGES, "a", "1")]).unwrap();
        let path = dir.path().join("store");
        let ours = std::mem::replace(&mut writer.file, File::open(&path).unwrap());
        let error = format!("{:#}", writer.append(&[put(MESSAGES, "b", "1")]).unwrap_err());
        assert!(error.contains("cannot write") && error.contains("store"), "{error}");
        writer.file = ours;
        writer.append(&[put(MESSAGES, "c", "1")]).unwrap();
        assert_eq!(content(&path).1, 2);
        // Nor is it there after a restart.
        let failing = |_: &File| Err(io::Error::from(io::ErrorKind::StorageFull));
        let rows = [put(MESSAGES, "d", json!("x".repeat(5000)).to_string())];
        let error = format!("{:#}", writer.append_synced_by(&rows, failing).unwrap_err());
        assert!(error.contains("cannot sync"), "{error}");
        assert_eq!((content(&path).1, path.metadata().unwrap().len()), (2, writer.end));
        writer.append(&[put(MESSAGES, "e", "1")]).unwrap();
        assert_eq!(content(&path).1, 3);
    }

    #[test]
    fn a_name_is_durable_before_anything_is_confirmed() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(&dir);
        assert!(writer.unnamed, "whoever made it may have been killed at once");
        writer.append(&[put(MESSAGES, "a", "1")]).unwrap();
        assert!(!writer.unnamed);
    }

    #[test]
    fn writing_anew_that_fails_leaves_nothing_and_is_not_tried_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, beside) = (writer(&dir), dir.path().join(ANEW));
        let large = Bytes::from(json!("x".repeat(SLACK as usize)).to_string());
        writer.append(&[put(MESSAGES, "a", large.clone())]).unwrap();
        writer.append(&[put(DEVICES, "d", "{}"), put(MESSAGES, "a", large)]).unwrap();
        let no_patch = Change::Patch(r#"{"twin":7}"#.into());
        writer.append(&[Row { table: DEVICES, name: "d".into(), change: no_patch }]).unwrap();
        let image = Image::read(&std::fs::read(&writer.path).unwrap().into()).unwrap().0;
        assert!(Anew::write(&writer.path, &image).is_err());
        assert!(!beside.exists(), "after what was written already");

        writer.anew = 0;
        let rewriting = writer.step(None).unwrap();
        while !rewriting.written.is_finished() {
            std::thread::yield_now();
        }
        assert!(writer.step(Some(rewriting)).is_none() && !beside.exists());
        // Only when the file has grown by half, which is served on.
        let third = Bytes::from(json!("x".repeat(writer.end as usize / 3)).to_string());
        writer.append(&[put(MESSAGES, "b", third.clone())]).unwrap();
        assert!(writer.step(None).is_none());
        writer.append(&[put(MESSAGES, "b", third)]).unwrap();
        assert!(writer.step(None).is_some());
    }

    #[test]
    fn of_the_past_a_start_reads_little() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(&dir);
        let value = Bytes::from(json!("x".repeat(10_000)).to_string());
        writer.append(&[put(MESSAGES, "a", value.clone())]).unwrap();
        writer.anew = writer.end;
        let needed = writer.end;
        let rewriting = loop {
            writer.append(&[put(MESSAGES, "a", value.clone())]).unwrap();
            if let Some(rewriting) = writer.step(None) {
                break rewriting;
            }
        };
        assert!(writer.end < 2 * needed + (1 << 20) + 20_000, "{}", writer.end);
        writer.replace(rewriting).unwrap();
        assert!(writer.end < needed + 1000, "{}", writer.end);
    }

    #[test]
    fn a_disk_without_room_is_not_filled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let error = format!("{:#}", check_room(&path, usize::MAX / 2).unwrap_err());
        assert!(error.contains("make room") && error.contains(dir.path().to_str().unwrap()), "{error}");
        check_room(&path, 0).unwrap();
    }

    #[test]
    fn writing_anew_loses_nothing_wherever_it_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let (path, beside) = (dir.path().join("store"), dir.path().join(ANEW));
        let mut writer = writer(&dir);
        let new =
            || Device::new(IdentityChange::default(), &TwinChange::default(), Time::from_unix_millis(1));
        let mut all: Vec<(String, Device)> = (0..3).map(|n| (format!("d{n}"), new().unwrap())).collect();
        for (name, device) in &all {
            writer.append(&[put(DEVICES, name, serde_json::to_vec(device).unwrap())]).unwrap();
        }
        writer.append(&[put(MESSAGES, "gone", "1"), put(MESSAGES, "kept", "1")]).unwrap();
        let gone = Row { table: MESSAGES, name: "gone".into(), change: Change::Remove };
        writer.append(&[gone]).unwrap();
        // The first has more changes than it is long, the second fewer, the third none.
        for n in 0..20 {
            let (name, device) = &mut all[0];
            writer.append(&[report(name, device, n)]).unwrap();
        }
        let (name, device) = &mut all[1];
        writer.append(&[report(name, device, 0)]).unwrap();
        assert!(content(&path) == (all.clone(), 1));

        let old = std::fs::read(&path).unwrap();
        let rewriting = writer.rewrite().unwrap();
        while !rewriting.written.is_finished() {
            std::thread::yield_now();
        }
        assert!(std::fs::read(&path).unwrap() == old, "the old file counts until the new one has its name");
        let written = std::fs::read(&beside).unwrap();
        assert!(written.len() < old.len() - 10 * 60, "{} after {}", written.len(), old.len());
        // A change that comes meanwhile.
        let (name, device) = &mut all[2];
        writer.append(&[report(name, device, 1)]).unwrap();
        assert!(content(&path) == (all.clone(), 1));
        let (from, to) = (rewriting.from, writer.end);
        let mut anew = rewriting.written.join().unwrap().unwrap();
        anew.append(&writer.file, from, to).unwrap();
        let unsealed = Image::read(&std::fs::read(&beside).unwrap().into());
        assert!(unsealed.is_err(), "it is sealed when it gets the name");
        assert!(content(&path) == (all.clone(), 1), "as is the old one");
        let again = Rewriting { from, written: thread::spawn(|| Ok(anew)) };
        // Once more what was appended; replaying it changes nothing here.
        writer.replace(again).unwrap();
        assert!(!beside.exists() && !writer.unnamed);
        assert!(open_private(&path).unwrap().try_lock().is_err(), "the new file is locked");
        assert!(content(&path) == (all.clone(), 1));
        let bytes = std::fs::read(&path).unwrap();
        for place in HEAD.len()..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 1;
            assert!(Image::read(&damaged.into()).is_err(), "byte {place}");
        }
        let (name, device) = &mut all[1];
        writer.append(&[report(name, device, 5)]).unwrap();
        assert!(content(&path).0[1] == all[1]);
    }

    #[test]
    fn how_much_is_needed_is_told_without_writing_it() {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, path) = (writer(&dir), dir.path().join("store"));
        let device =
            || Device::new(IdentityChange::default(), &TwinChange::default(), Time::from_unix_millis(1));
        let (mut device, none) = (device().unwrap(), Vec::new());
        writer.append(&[put(DEVICES, "d", serde_json::to_vec(&device).unwrap())]).unwrap();
        for n in 0..100 {
            writer.append(&[report("d", &mut device, n)]).unwrap();
        }
        let image = Image::read(&std::fs::read(&path).unwrap().into()).unwrap().0;
        let mut written = none;
        image
            .write(fold, |bytes| {
                written.extend_from_slice(bytes);
                Ok(())
            })
            .unwrap();
        let told = image.size();
        assert!((written.len() / 2..written.len() * 2).contains(&told), "{told} for {}", written.len());
    }

    #[test]
    fn a_file_of_the_past_is_written_anew_while_others_are_served() {
        let dir = tempfile::tempdir().unwrap();
        let (path, beside) = (dir.path().join("store"), dir.path().join(ANEW));
        let large = Bytes::from(json!("x".repeat(1 << 20)).to_string());
        let (writer, image) = (writer(&dir), Arc::new(Mutex::new(None)));
        let thread = Thread::start(writer, image, Arc::new(AtomicBool::new(true))).unwrap();
        let (mut last, mut count) = (0, 1);
        // Until the file is shorter than it was.
        while last <= path.metadata().unwrap().len() {
            last = path.metadata().unwrap().len();
            let (told, outcome) = mpsc::channel();
            let rows = vec![put(MESSAGES, "same", large.clone()), put(MESSAGES, &format!("n{count}"), "1")];
            thread.queue.push(rows, move |outcome| told.send(outcome).unwrap());
            outcome.recv().unwrap().unwrap();
            count += 1;
            assert_eq!(content(&path).1, count, "nothing is lost on the way");
        }
        drop(thread);
        assert_eq!(content(&path).1, count);
        assert!(!beside.exists());
    }
}
