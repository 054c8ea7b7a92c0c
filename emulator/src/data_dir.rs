//! The emulator's directory: readable by its owner only, with files that are
//! written whole or not at all.
//!
//! All files but the store are derived from the store and mended at each start,
//! so that a changed port or a kill between two writes does no harm.

use std::collections::HashSet;
use std::fs::{DirBuilder, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::identity::Identity;

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

    /// Makes the directory, or takes an existing one, and closes it to other
    /// users.
    pub fn create(path: &Path) -> Result<Self> {
        let make = |path: &Path| -> std::io::Result<()> {
            DirBuilder::new().recursive(true).mode(0o700).create(path)?;
            std::fs::set_permissions(path, Permissions::from_mode(0o700))
        };
        for dir in [path, &path.join("devices"), &path.join("policies")] {
            make(dir).with_context(|| {
                format!("cannot use the data directory {}; choose another with --data", dir.display())
            })?;
        }
        let path = std::path::absolute(path).with_context(|| format!("cannot resolve {}", path.display()))?;
        Ok(DataDir(path))
    }

    /// Takes a directory that an emulator has made.
    pub fn existing(path: &Path) -> Self {
        DataDir(path.to_owned())
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

    /// The file with the id scope of the provisioning service.
    pub fn id_scope(&self) -> PathBuf {
        self.0.join("id-scope")
    }

    /// The file with the connection string of one shared access policy.
    pub fn policy(&self, name: &str) -> PathBuf {
        self.0.join("policies").join(name)
    }

    /// The file with the connection string of a device, or of a module
    /// (`device~module`). No id leads out of the directory: ids have no `/`, and
    /// the ids `.` and `..`, which name directories, get a `~`, which no id has.
    pub fn device(&self, id: &Identity) -> PathBuf {
        let devices = self.0.join("devices");
        match (id.device.as_str(), &id.module) {
            (name, Some(module)) => devices.join(format!("{name}~{module}")),
            (name @ ("." | ".."), None) => devices.join(format!("{name}~")),
            (name, None) => devices.join(name),
        }
    }

    /// Writes a file for the owner only (0600), whole or not at all; a file that
    /// has this text already is left alone.
    pub fn write(&self, file: &Path, text: &str) -> Result<()> {
        if std::fs::read(file).is_ok_and(|old| old == text.as_bytes()) {
            return Ok(());
        }
        let write = || -> std::io::Result<()> {
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
    /// connection strings of all devices but `kept`. Only the process that holds
    /// the store may do so, since others may be writing.
    pub fn sweep<'a>(&self, kept: impl Iterator<Item = &'a Identity>) -> Result<()> {
        let kept: HashSet<PathBuf> = kept.map(|id| self.device(id)).collect();
        for file in files(&self.0.join("devices"))? {
            if !kept.contains(&file) {
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

/// All that is in a directory.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let read = || dir.read_dir()?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>();
    read().with_context(|| format!("cannot read {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_id_escapes_or_clashes() {
        let dir = DataDir::existing(Path::new("/data"));
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
            dir.write(&dir.device(id), "text").unwrap();
        }
        assert_eq!(mode(&dir.device(&kept)), 0o600);
        std::fs::write(dir.path().join(".writing-x"), "").unwrap();
        dir.sweep([&kept].into_iter()).unwrap();
        assert!(dir.device(&kept).exists() && !dir.device(&gone).exists());
        dir.remove(&dir.device(&gone)).unwrap();
        assert_eq!(dir.path().read_dir().unwrap().count(), 2, "no temporary file stays");
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
