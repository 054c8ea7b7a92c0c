//! Writes files that hold secrets and that only their owner can read.

use std::io::Write as _;
use std::path::Path;
use std::{fs, io};

use anyhow::Context as _;

/// Writes `text` and a line feed to the file at `path`. The file is replaced as
/// a whole, so that a key never stands in a file that is half written or that
/// others can read.
pub fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    replace(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Whether a file could be written at `path`; an error says why not. To be called
/// before a secret is made, which would be lost if it could not be written.
pub fn check(path: &Path) -> anyhow::Result<()> {
    let tried = tempfile::NamedTempFile::new_in(folder(path)).map(drop);
    let target = if fs::metadata(path).is_ok_and(|found| found.is_dir()) {
        Err(io::Error::from(io::ErrorKind::IsADirectory))
    } else {
        tried
    };
    target.with_context(|| format!("cannot write {}", path.display()))
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(folder(path))?;
    writeln!(file, "{text}")?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// The folder that the file at `path` is in.
fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_readable_file_is_replaced_by_a_private_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        write(&path, "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(check(&path).is_ok() && check(&directory.path().join("gone/x")).is_err());
        assert!(check(directory.path()).is_err());
    }
}
