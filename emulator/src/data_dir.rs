//! The emulator's directory: its owner's alone, with files that are written
//! whole or not at all.
//!
//! A directory is taken only if it is empty or has an emulator's store, belongs to
//! the user, and can be written to by nobody else; nothing in it may be a symbolic
//! link. No directory's mode is changed, and no file is removed that the emulator
//! has not written.
//!
//! All files but the store are derived from the store and mended at each start,
//! so that a changed port or a kill between two writes does no harm.

use iotdm_proto::text::is_unseen;
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{DirBuilder, DirEntry, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
use nix::unistd::geteuid;

use iotdm_proto::Identity;

/// How every connection string begins, and so every file in `devices`.
pub const CONNECTION_STRING: &str = "HostName=";

/// How the names of files begin that are not written whole yet.
const TEMPORARY: &str = ".writing-";

/// The emulator's directory, and where in it each file is.
#[derive(Debug, Clone)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// `$XDG_STATE_HOME/iotdm-emulator`, else `~/.local/state/iotdm-emulator`.
    pub fn default_path() -> Result<PathBuf> {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
        match state {
            Some(state) => Ok(state.join("iotdm-emulator")),
            None => bail!("neither XDG_STATE_HOME nor HOME is set; name a directory with --data"),
        }
    }

    /// Makes the directory, or takes an existing one that is empty or an
    /// emulator's. The error names what is in the way, and the remedy.
    pub fn create(path: &Path) -> Result<Self> {
        let name = || format!("cannot use the data directory {}", path.display());
        let dir = DataDir::named(path)?;
        match dir.take() {
            Ok(()) => Ok(dir),
            Err(error) => Err(error.context(name())),
        }
    }

    /// Names the directory of an emulator; whether there is one is not looked at.
    pub fn named(path: &Path) -> Result<Self> {
        let shown = path.to_str().filter(|path| !path.contains(is_unseen));
        if shown.is_none() {
            // The name gets into the lines of `env` and of `serve`.
            bail!(
                "cannot use the data directory {path:?}: its name has control characters or is no UTF-8; \
                 choose another directory with --data"
            );
        }
        let path = std::path::absolute(path).with_context(|| format!("cannot resolve {}", path.display()))?;
        Ok(DataDir(path))
    }

    /// Makes the directory and what is in it, as far as that is missing.
    fn take(&self) -> Result<()> {
        if let Some(parent) = self.0.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(parent);
            made.with_context(|| refuse(parent, "cannot be made", "choose"))?;
        }
        self.make(&self.0)?;
        let entries = entries(&self.0)?;
        refuse_links(&entries)?;
        let store = self.store();
        match store.symlink_metadata() {
            Ok(found) if found.is_file() => check_owner(&store, &found)?,
            Ok(_) => bail!(refuse(&store, "is no file", "remove it, or choose")),
            // The store comes first, so that what a kill leaves is an emulator's.
            Err(_) if entries.is_empty() => {
                drop(open_private(&store).with_context(|| refuse(&store, "cannot be made", "choose"))?)
            }
            Err(_) => bail!(refuse(
                &self.0,
                "has files, but none of an emulator (store.redb)",
                "name an empty directory, or choose"
            )),
        }
        for dir in [self.0.join("devices"), self.0.join("policies")] {
            self.make(&dir)?;
            refuse_links(&self::entries(&dir)?)?;
        }
        Ok(())
    }

    /// Makes one directory, or takes the one that is there.
    fn make(&self, dir: &Path) -> Result<()> {
        match DirBuilder::new().mode(0o700).create(dir) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| refuse(dir, "cannot be made", "choose")),
        }
        let found = dir.symlink_metadata().with_context(|| refuse(dir, "cannot be looked at", "choose"))?;
        if found.is_symlink() {
            bail!(refuse(dir, "is a symbolic link", "name the directory that it leads to, or choose"));
        }
        if !found.is_dir() {
            bail!(refuse(dir, "is no directory", "choose"));
        }
        check_owner(dir, &found)?;
        if found.mode() & 0o022 != 0 {
            let remedy = "close it with chmod go-w, or choose";
            bail!(refuse(
                dir,
                &format!("can be written to by others (mode {:o})", found.mode() & 0o7777),
                remedy
            ));
        }
        Ok(())
    }

    /// Where the directory is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The store's file.
    pub fn store(&self) -> PathBuf {
        self.0.join("store.redb")
    }

    /// The file with the CA certificate that clients have to trust.
    pub fn ca(&self) -> PathBuf {
        self.0.join("ca.pem")
    }

    /// The file with the connection string that has all rights.
    pub fn service_connection_string(&self) -> PathBuf {
        self.0.join("service-connection-string")
    }

    /// The file that says where the emulator listens.
    pub fn listening(&self) -> PathBuf {
        self.0.join("listening")
    }

    /// The file with the id scope of the provisioning service.
    pub fn id_scope(&self) -> PathBuf {
        self.0.join("id-scope")
    }

    /// The file with the connection string of one shared access policy.
    pub fn policy(&self, name: &str) -> PathBuf {
        self.0.join("policies").join(name)
    }

    /// The file with the connection string of a device, or of a module.
    pub fn device(&self, id: &Identity) -> PathBuf {
        self.0.join("devices").join(name_of(id))
    }

    /// Writes a file for the owner only (0600), whole or not at all; a file that
    /// has this text already is left alone, and a link is replaced, not followed.
    pub fn write(&self, file: &Path, text: &str) -> Result<()> {
        if read(file).is_ok_and(|old| old == text.as_bytes()) {
            return Ok(());
        }
        let write = || -> io::Result<()> {
            // In the directory itself, not among the files of devices, whose
            // names anybody may choose.
            let mut temporary = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(&self.0)?;
            temporary.write_all(text.as_bytes())?;
            temporary.persist(file)?;
            Ok(())
        };
        write().with_context(|| format!("cannot write {}", file.display()))
    }

    /// Removes a file, if it exists.
    pub fn remove(&self, file: &Path) -> Result<()> {
        match std::fs::remove_file(file) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", file.display()))
            }
            _ => Ok(()),
        }
    }

    /// Removes what a killed emulator left behind: half-written files, and the
    /// connection strings of all devices but `kept`. What is no connection string
    /// stays. Only the process that holds the store may do so, since others may be
    /// writing.
    pub fn sweep<'a>(&self, kept: impl Iterator<Item = &'a Identity>) -> Result<()> {
        let kept: HashSet<OsString> = kept.map(|id| name_of(id).into()).collect();
        let others =
            entries(&self.0.join("devices"))?.into_iter().filter(|entry| !kept.contains(&entry.file_name()));
        for file in others.filter(is_file).map(|entry| entry.path()) {
            if is_connection_string(&file) {
                self.remove(&file)?;
            }
        }
        for file in files(&self.0)? {
            let name = file.file_name().unwrap_or_default();
            if name.as_encoded_bytes().starts_with(TEMPORARY.as_bytes()) {
                self.remove(&file)?;
            }
        }
        Ok(())
    }
}

/// A file beside the store `store` that shows that a hub was served from it: these files
/// are written only when what they are made from is durable.
pub fn sign_of_a_hub(store: &Path) -> Result<Option<PathBuf>> {
    let dir = DataDir(store.parent().context("the store is in no directory")?.to_owned());
    if dir.ca().symlink_metadata().is_ok() {
        return Ok(Some(dir.ca()));
    }
    let devices = dir.0.join("devices");
    if !devices.exists() {
        return Ok(None);
    }
    Ok(files(&devices)?.into_iter().find(|file| is_connection_string(file)))
}

fn is_connection_string(file: &Path) -> bool {
    read(file).is_ok_and(|text| text.starts_with(CONNECTION_STRING.as_bytes()))
}

/// Opens a file for reading and writing, of which a new one is readable by its
/// owner only; a symbolic link is refused.
pub fn open_private(file: &Path) -> io::Result<std::fs::File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(O_NOFOLLOW);
    options.open(file)
}

/// Why a directory is not taken, and what to do about it.
fn refuse(path: &Path, why: &str, remedy: &str) -> String {
    format!("{} {why}; {remedy} another directory with --data", path.display())
}

fn check_owner(path: &Path, found: &Metadata) -> Result<()> {
    if found.uid() == geteuid().as_raw() {
        return Ok(());
    }
    let why = format!("belongs to another user ({})", found.uid());
    Err(anyhow!(refuse(path, &why, "run as that user, or choose")))
}

fn refuse_links(entries: &[DirEntry]) -> Result<()> {
    let is_link = |entry: &&DirEntry| entry.file_type().is_ok_and(|kind| kind.is_symlink());
    match entries.iter().find(is_link) {
        Some(link) => Err(anyhow!(refuse(&link.path(), "is a symbolic link", "remove it, or choose"))),
        None => Ok(()),
    }
}

/// What is in a regular file; anything else is an error, and not waited for.
fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut file = OpenOptions::new().read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(file)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::from(ErrorKind::InvalidInput));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The name of the file of a device, or of a module (`device~module`). No id leads out
/// of the directory: ids have no `/`, and the ids `.` and `..`, which name directories,
/// get a `~`, which no id has.
fn name_of(id: &Identity) -> String {
    match (id.device.as_str(), &id.module) {
        (name, Some(module)) => format!("{name}~{module}"),
        (name @ ("." | ".."), None) => format!("{name}~"),
        (name, None) => name.to_owned(),
    }
}

fn is_file(entry: &DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_file())
}

/// All regular files in a directory.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    Ok(entries(dir)?.into_iter().filter(is_file).map(|entry| entry.path()).collect())
}

/// All that is in a directory.
fn entries(dir: &Path) -> Result<Vec<DirEntry>> {
    let read = || dir.read_dir()?.collect::<io::Result<_>>();
    read().with_context(|| format!("cannot read {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn no_id_escapes_or_clashes() {
        let dir = DataDir::named(Path::new("/data")).unwrap();
        let ids = [".", "..", "...", "*", "$", "..%2f", "..=", "'", "a:b", "./.", "../..", "a/b", ".~"];
        let files: Vec<PathBuf> =
            ids.iter().filter_map(|id| id.parse::<Identity>().ok()).map(|id| dir.device(&id)).collect();
        assert_eq!(files.len(), ids.len() - 1, "the last one is no id");
        for (index, file) in files.iter().enumerate() {
            assert_eq!(file.parent(), Some(Path::new("/data/devices")), "{file:?}");
            assert!(file.file_name().is_some(), "{file:?}");
            assert!(!files[..index].contains(file), "{file:?}");
        }
    }

    #[test]
    fn closed_to_others_and_cleaned_of_strangers() {
        let parent = tempfile::tempdir().unwrap();
        let dir = DataDir::create(&parent.path().join("a/b")).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(dir.path()), 0o700);
        let (kept, gone) = ("kept".parse().unwrap(), "gone".parse().unwrap());
        for id in [&kept, &gone] {
            dir.write(&dir.device(id), "HostName=x").unwrap();
        }
        assert_eq!(mode(&dir.device(&kept)), 0o600);
        let others = dir.path().join("devices/photo");
        std::fs::write(&others, "x").unwrap();
        std::fs::write(dir.path().join(".writing-x"), "").unwrap();
        dir.sweep([&kept].into_iter()).unwrap();
        assert!(dir.device(&kept).exists() && !dir.device(&gone).exists() && others.exists());
        dir.remove(&dir.device(&gone)).unwrap();
        assert_eq!(dir.path().read_dir().unwrap().count(), 3, "no temporary file stays");
    }

    #[test]
    fn a_link_or_a_pipe_in_the_place_of_a_file_is_replaced() {
        let parent = tempfile::tempdir().unwrap();
        let dir = DataDir::create(&parent.path().join("hub")).unwrap();
        let target = parent.path().join("target");
        std::fs::write(&target, "text").unwrap();
        std::os::unix::fs::symlink(&target, dir.ca()).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(dir.id_scope()).status().unwrap().success());
        for file in [dir.ca(), dir.id_scope()] {
            dir.write(&file, "text").unwrap();
            assert!(file.symlink_metadata().unwrap().is_file());
        }
        assert_eq!(std::fs::read_to_string(target).unwrap(), "text");
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("file");
        std::fs::write(&path, "").unwrap();
        let error = format!("{:#}", DataDir::create(&path).unwrap_err());
        assert!(error.contains(&path.display().to_string()) && error.contains("--data"), "{error}");
    }
}
