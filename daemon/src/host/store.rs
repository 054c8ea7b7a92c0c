//! The record's file: replaced whole and synced, so that after a power cut
//! there is either the old record or the new one.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use iotdm_core::decide::record::Record;
use sha2::{Digest as _, Sha256};

use crate::{durable, lock};

/// The place of one record.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
    file: PathBuf,
    /// The directory's device and inode: that one is locked.
    locked: (u64, u64),
    holds_pending: bool,
}

/// What was found at the start.
#[derive(Debug, PartialEq)]
pub enum Loaded {
    /// No record: the first start ever.
    Nothing,
    /// The record as it was saved.
    Record(Box<Record>),
    /// A file that is no record, moved aside, if that was possible, so that it
    /// can be looked at.
    Damaged {
        /// Where it is now.
        file: PathBuf,
        /// What was wrong with it.
        why: String,
    },
}

impl Store {
    /// The record `name` in the state directory `dir`, which is made, with
    /// mode 0700, if it is missing, and has to be the daemon's own. The directory is
    /// locked already.
    pub fn open(dir: &Path, name: &str) -> io::Result<Self> {
        durable::own_directory(dir)?;
        let locked = identity(dir)?;
        Ok(Store { dir: dir.to_owned(), file: dir.join(name), locked, holds_pending: false })
    }

    /// Reads the record. One that cannot be read or understood is set aside:
    /// nothing about it stops the daemon.
    pub fn load(&mut self) -> Loaded {
        let read = match durable::read(&self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Loaded::Nothing,
            read => read.context("it cannot be read"),
        };
        let why = match read.and_then(|bytes| parse(&bytes)) {
            Ok(record) => {
                self.holds_pending = record.pending().is_some();
                return Loaded::Record(Box::new(record));
            }
            Err(why) => why,
        };
        let aside = durable::unused_name(&self.file);
        match fs::rename(&self.file, &aside) {
            Ok(()) => Loaded::Damaged { file: aside, why: format!("{why:#}") },
            Err(error) => {
                let why = format!("{why:#}; it cannot be set aside either: {error}");
                Loaded::Damaged { file: self.file.clone(), why }
            }
        }
    }

    /// Replaces the record. When it returns, file and directory are synced;
    /// after an error either record may be found at the next start.
    pub fn save(&mut self, record: &Record) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(record)?;
        let checksum = checksum(&bytes);
        bytes.push(b'\n');
        bytes.extend(checksum.into_bytes());
        bytes.push(b'\n');
        self.hold_directory()?;
        durable::replace(&self.dir, &self.file, &bytes)?;
        self.holds_pending = record.pending().is_some();
        Ok(())
    }

    /// Makes the directory again if somebody has removed it while the daemon runs, and
    /// locks it if it is another one than before. As a service the daemon may not make
    /// it, since the directory above is root's.
    fn hold_directory(&mut self) -> io::Result<()> {
        if identity(&self.dir).is_ok_and(|found| found == self.locked) {
            return Ok(());
        }
        let made = durable::own_directory(&self.dir).map_err(|error| {
            let message = format!(
                "the state directory {} is gone and cannot be made again ({error}): restart the daemon (systemctl \
                 restart iotdm-agentd), which makes it",
                self.dir.display()
            );
            io::Error::new(error.kind(), message)
        });
        made?;
        let lock = lock::take(&self.dir).map_err(|error| io::Error::other(format!("{error:#}")))?;
        // It is this directory's for as long as the process runs, like that of the one
        // before.
        std::mem::forget(lock);
        self.locked = identity(&self.dir)?;
        tracing::warn!("the state directory {} was gone; this is a new one", self.dir.display());
        Ok(())
    }

    /// Whether the record on disk, as far as it is known, has a request that a
    /// start from it would go on with.
    pub fn holds_pending(&self) -> bool {
        self.holds_pending
    }
}

/// The device and the inode of the directory `dir`.
fn identity(dir: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::metadata(dir)?;
    if !metadata.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok((metadata.dev(), metadata.ino()))
}

/// Reads a line of JSON and one with its checksum: a bit that flipped in an id
/// or an instant would else go unnoticed.
fn parse(bytes: &[u8]) -> anyhow::Result<Record> {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (json, sum) = bytes.split_at(end);
    let value: serde_json::Value = serde_json::from_slice(json)?;
    match value.get("version").and_then(serde_json::Value::as_u64) {
        Some(1) => {}
        Some(version) if version == u64::from(Record::VERSION) => {
            ensure!(sum.trim_ascii() == checksum(json).as_bytes(), "its checksum does not match");
        }
        Some(version) => bail!("it has version {version}; this agent knows up to {}", Record::VERSION),
        None => bail!("it has no version"),
    }
    let record: Record = serde_json::from_value(value)?;
    Ok(Record { version: Record::VERSION, ..record })
}

fn checksum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use iotdm_proto::Time;
    use iotdm_proto::report::{Boot, BootCause, Clock};

    use super::*;

    fn record() -> Record {
        let mut record = Record::new(Boot {
            boot_id: "b".into(),
            boot_time: Time::from_unix_millis(1000),
            cause: BootCause::Unknown,
            clock: Clock::Synchronized,
            detail: None,
            count: None,
            unclean_count: None,
        });
        let granted = serde_json::json!({"id": "a", "body": {"id": "a"}, "begun": true, "at": 7});
        record.granted.push(serde_json::from_value(granted).unwrap());
        record
    }

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state"), "state.json").unwrap();
        (dir, store)
    }

    #[test]
    fn what_is_saved_is_loaded_and_nobody_else_may_read_it() {
        let (_dir, mut store) = store();
        assert_eq!(store.load(), Loaded::Nothing);
        store.save(&record()).unwrap();
        assert_eq!(store.load(), Loaded::Record(Box::new(record())));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&store.dir), mode(&store.file)), (0o700, 0o600));
    }

    #[test]
    fn every_truncation_and_a_newer_version_are_set_aside() {
        let (_dir, mut store) = store();
        store.save(&record()).unwrap();
        let whole = fs::read(&store.file).unwrap();
        let newer = String::from_utf8(whole.clone()).unwrap().replace("\"version\":2", "\"version\":3");
        // Without its last line break it is still whole.
        let truncated = (0..whole.len() - 1).map(|length| whole[..length].to_vec());
        for bytes in truncated.chain([newer.into_bytes(), b"{}".to_vec(), vec![0xff; 64]]) {
            fs::write(&store.file, &bytes).unwrap();
            let Loaded::Damaged { file, why } = store.load() else { panic!("{bytes:?} was taken") };
            assert!(!why.is_empty());
            assert_eq!(fs::read(file).unwrap(), bytes);
            assert_eq!(store.load(), Loaded::Nothing);
        }
    }

    #[test]
    fn a_record_of_another_version_is_what_it_says() {
        let (_dir, mut store) = store();
        let with_sum = |json: &str| format!("{json}\n{}\n", checksum(json.as_bytes()));
        store.save(&record()).unwrap();
        let json = fs::read_to_string(&store.file).unwrap().lines().next().unwrap().to_owned();
        assert!(json.contains("\"version\":2"));
        // A later one, whole, is none that this agent could go on with.
        for version in ["0", "3", "4294967298"] {
            let other = json.replace("\"version\":2", &format!("\"version\":{version}"));
            let why = parse(with_sum(&other).as_bytes()).unwrap_err().to_string();
            assert!(why.contains(&format!("it has version {version}; this agent knows up to 2")), "{why}");
        }
        // An older one has no checksum, and has one when it is saved again.
        let old = json.replace("\"version\":2", "\"version\":1");
        let read = parse(old.as_bytes()).unwrap();
        assert_eq!(read, record());
        store.save(&read).unwrap();
        let saved = fs::read_to_string(&store.file).unwrap();
        assert!(saved.contains("\"version\":2"), "{saved}");
        let flipped = saved.replace("\"id\":\"a\"", "\"id\":\"b\"");
        assert!(parse(flipped.as_bytes()).unwrap_err().to_string().contains("checksum"), "{flipped}");
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let (_dir, mut store) = store();
        store.save(&record()).unwrap();
        let whole = fs::read(&store.file).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&flipped).is_err(), "bit {bit} of {}", String::from_utf8_lossy(&flipped));
        }
    }

    /// As it was written, byte for byte, before version 2.
    #[test]
    fn a_pending_reboot_in_a_record_of_version_1_is_gone_on_with() {
        let (_dir, mut store) = store();
        let old = r#"{"version":1,"boot":{"bootId":"b","bootTime":"2026-11-22T18:36:07.412Z","cause":"unknown","clock":"synchronized"},"reboot":{"id":"r","status":"scheduled","requestedBy":"method","requestedAt":"2026-11-22T18:40:00.000Z","notBefore":"2026-11-22T19:40:00.000Z","previousBootId":"b"},"plan":{"onInhibitor":"wait","waitSeconds":3600},"answers":[{"id":"r","body":{"id":"r","status":"scheduled"}}]}"#;
        fs::write(&store.file, old).unwrap();
        let Loaded::Record(record) = store.load() else { panic!("not taken") };
        assert_eq!(record.pending().unwrap().id, "r");
        assert_eq!(record.plan.as_ref().unwrap().wait_seconds, 3600);
        store.save(&record).unwrap();
        assert_eq!(store.load(), Loaded::Record(record));
    }

    #[test]
    fn it_is_known_whether_the_disk_holds_a_pending_request() {
        let (_dir, mut store) = store();
        store.load();
        assert!(!store.holds_pending());
        let mut pending = record();
        pending.reboot = serde_json::from_value(serde_json::json!({
            "id": "r", "status": "scheduled", "requestedBy": "method", "previousBootId": "b",
            "requestedAt": "2026-11-22T18:40:00.000Z",
        }))
        .unwrap();
        store.save(&pending).unwrap();
        assert!(store.holds_pending());
        // What cannot be written changes nothing.
        fs::create_dir(store.file.with_extension("new")).unwrap();
        assert!(store.save(&record()).is_err() && store.holds_pending());
        let mut next = Store::open(&store.dir, "state.json").unwrap();
        next.load();
        assert!(next.holds_pending());
        fs::remove_dir(store.file.with_extension("new")).unwrap();
        store.save(&record()).unwrap();
        assert!(!store.holds_pending());
    }

    #[test]
    fn a_directory_that_somebody_removed_is_made_again_or_named_with_the_remedy() {
        let (dir, mut store) = store();
        store.save(&record()).unwrap();
        fs::remove_dir_all(&store.dir).unwrap();
        store.save(&record()).unwrap();
        assert_eq!(store.load(), Loaded::Record(Box::new(record())));
        assert_eq!(fs::metadata(&store.dir).unwrap().permissions().mode() & 0o777, 0o700);
        // It has one daemon, as before; and so has one that somebody else has made.
        assert!(lock::take(&store.dir).unwrap_err().to_string().contains("runs already"));
        fs::rename(&store.dir, dir.path().join("old")).unwrap();
        fs::create_dir(&store.dir).unwrap();
        fs::create_dir(store.file.with_extension("new")).unwrap();
        assert!(store.save(&record()).is_err(), "in a directory that takes nothing");
        fs::remove_dir(store.file.with_extension("new")).unwrap();
        store.save(&record()).unwrap();
        assert!(lock::take(&store.dir).unwrap_err().to_string().contains("runs already"));
        fs::remove_dir_all(dir.path()).unwrap();
        fs::write(dir.path(), "in the way").unwrap();
        let error = store.save(&record()).unwrap_err().to_string();
        assert!(error.contains("is gone and cannot be made again") && error.contains("restart"), "{error}");
        fs::remove_file(dir.path()).unwrap();
        fs::create_dir(dir.path()).unwrap();
    }

    #[test]
    fn a_half_written_successor_leaves_the_record_alone() {
        let (_dir, mut store) = store();
        store.save(&record()).unwrap();
        fs::write(store.file.with_extension("new"), b"{\"vers").unwrap();
        assert_eq!(store.load(), Loaded::Record(Box::new(record())));
        // Nothing of it is left in the next one, however long it was.
        for length in [6, 100_000] {
            fs::write(store.file.with_extension("new"), vec![b'x'; length]).unwrap();
            store.save(&record()).unwrap();
            assert_eq!(store.load(), Loaded::Record(Box::new(record())), "{length}");
        }
    }

    #[test]
    fn a_directory_in_the_way_stops_nothing() {
        let (_dir, mut store) = store();
        fs::create_dir(store.file.with_extension("new")).unwrap();
        assert!(store.save(&record()).is_err());
        fs::create_dir(&store.file).unwrap();
        let Loaded::Damaged { file, .. } = store.load() else { panic!("a directory was taken") };
        assert!(file.is_dir());
        assert_eq!(store.load(), Loaded::Nothing);
    }
}
