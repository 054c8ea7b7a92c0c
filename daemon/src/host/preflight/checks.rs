//! Which checks there are.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Where checks are: those that come with packages, and the administrator's.
pub const DIRECTORIES: [&str; 2] = ["/usr/lib/iotdm/preflight.d", "/etc/iotdm/preflight.d"];

/// Endings of what package managers and editors leave beside a file.
const LEFTOVERS: [&str; 7] = [".dpkg-old", ".dpkg-new", ".dpkg-dist", ".dpkg-tmp", ".bak", ".swp", "~"];

/// The executables in the directories, in the order of their names. One of a later
/// directory takes the place of one of the same name; a link to `/dev/null`
/// switches one off. Hidden files and what is left beside a file are no checks.
pub fn find(directories: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = BTreeMap::new();
    for entry in directories.iter().filter_map(|directory| fs::read_dir(directory).ok()).flatten().flatten() {
        let name = entry.file_name();
        let readable = name.to_string_lossy();
        if readable.starts_with('.') || LEFTOVERS.iter().any(|ending| readable.ends_with(ending)) {
            continue;
        }
        match runs(&entry.path()) {
            Some(true) => _ = found.insert(name, entry.path()),
            Some(false) => _ = found.remove(&name),
            None => {}
        }
    }
    found.into_values().collect()
}

/// Whether a file is to be run, or is what switches a check off; `None` for what is
/// neither, as a text that explains the directory.
fn runs(file: &Path) -> Option<bool> {
    let metadata = fs::metadata(file).ok()?;
    if metadata.file_type().is_char_device() {
        return Some(false);
    }
    (metadata.is_file() && metadata.permissions().mode() & 0o111 != 0).then_some(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_administrators_come_first_and_can_switch_one_off() {
        let dir = tempfile::tempdir().unwrap();
        let directories = ["usr", "etc", "missing"].map(|name| dir.path().join(name));
        let write = |name: &str, mode: u32| {
            let file = dir.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, "").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        };
        for name in ["usr/root-ro", "usr/dpkg", "usr/fstab", "etc/fstab", "etc/database"] {
            write(name, 0o755);
        }
        for name in ["etc/.hidden", "etc/dpkg.dpkg-dist", "etc/fstab~"] {
            write(name, 0o755);
        }
        write("etc/README", 0o644);
        symlink("/dev/null", dir.path().join("etc/root-ro")).unwrap();
        symlink("nowhere", dir.path().join("etc/dangling")).unwrap();
        fs::create_dir(dir.path().join("etc/directory")).unwrap();
        let names = ["etc/database", "usr/dpkg", "etc/fstab"].map(|name| dir.path().join(name));
        assert_eq!(find(&directories), names);
    }
}
