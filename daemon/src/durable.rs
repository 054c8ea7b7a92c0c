//! The daemon's own files: whole after a power cut at any instant, and never
//! somebody else's. A daemon that root runs in a directory of another user must
//! not write, or read, what that user has put there a link to.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use rustix::fs::OFlags;

/// The longest file that is read, in bytes: many times what is ever written.
const MAX_LENGTH: u64 = 4 * 1024 * 1024;

/// Makes `dir`, for its owner alone, if it is missing. One that is another
/// user's, or that others may write to, is an error: whatever is in it may be
/// replaced under the daemon's hands.
pub fn own_directory(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    check_directory(dir)
}

/// Whether `dir` is one that [`own_directory`] takes.
pub fn check_directory(dir: &Path) -> io::Result<()> {
    let metadata = fs::metadata(dir)?;
    let us = geteuid().as_raw();
    if metadata.uid() != us {
        return Err(refused(format!(
            "it is the directory of the user with the number {}, and this daemon runs as {us}: run it as that user, \
             or give it another directory",
            metadata.uid()
        )));
    }
    if metadata.mode() & 0o002 != 0 {
        return Err(refused("every user may write to it: chmod o-w it".to_owned()));
    }
    Ok(())
}

/// Replaces `file` in `dir` as a whole, for nobody else to read, and syncs
/// both. A link in its place is replaced, not followed.
pub fn replace(dir: &Path, file: &Path, bytes: &[u8]) -> io::Result<()> {
    write(file, bytes, Readers::None, true)?;
    File::open(dir)?.sync_all()
}

/// As [`replace`], in a directory that does not outlive the boot, so that nothing
/// is synced: whoever calls it waits for no disk.
pub fn replace_for_now(file: &Path, bytes: &[u8], readers: Readers) -> io::Result<()> {
    write(file, bytes, readers, false)
}

/// Who may read a file besides its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Nobody.
    None,
    /// Everybody.
    All,
}

fn write(file: &Path, bytes: &[u8], readers: Readers, sync: bool) -> io::Result<()> {
    let mode = match readers {
        Readers::None => 0o600,
        Readers::All => 0o644,
    };
    let new = file.with_extension("new");
    // One that a power cut has left, or somebody has put there; `create_new`
    // follows no link.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut written = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    written.write_all(bytes)?;
    // Whatever the umask leaves of the mode.
    written.set_permissions(Permissions::from_mode(mode))?;
    if sync {
        written.sync_all()?;
    }
    fs::rename(&new, file)
}

/// Writes `bytes` to the end of `file`, which has to be there, and syncs it.
pub fn append(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut opened = OpenOptions::new().append(true).custom_flags(flags.bits().cast_signed()).open(file)?;
    let metadata = opened.metadata()?;
    if !metadata.is_file() || metadata.nlink() != 1 {
        return Err(refused("it is no ordinary file of the daemon's own".to_owned()));
    }
    opened.write_all(bytes)?;
    opened.sync_all()
}

/// A name beside `file` for what is set aside of it.
pub fn unused_name(file: &Path) -> PathBuf {
    let mut number = 0;
    loop {
        let aside = file.with_extension(format!("damaged-{number}"));
        // A full directory of them would be a stranger's doing; then the last one is
        // overwritten.
        if !aside.exists() || number == 99 {
            return aside;
        }
        number += 1;
    }
}

/// Reads a file that the daemon, or a unit of its package, has written. A link,
/// a pipe, a device, a file with a second name or one of many megabytes is none
/// of these, and an error.
pub fn read(file: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(file)?;
    let metadata = opened.metadata()?;
    if !metadata.is_file() || metadata.nlink() != 1 {
        return Err(refused("it is no ordinary file of the daemon's own".to_owned()));
    }
    if metadata.len() > MAX_LENGTH {
        return Err(refused(format!("it has {} bytes; the daemon writes no such file", metadata.len())));
    }
    let mut bytes = Vec::new();
    opened.take(MAX_LENGTH).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn refused(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::process::Command;

    use super::*;

    /// Stands before the C library's functions in [`what_is_promised_to_last_is_synced`],
    /// and writes down in what order they are called.
    const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void note(const char *what, const char *path) {
    FILE *calls = fopen(getenv("CALLS"), "a");
    fprintf(calls, "%s %s\n", what, path);
    fclose(calls);
}

int fsync(int file) {
    char link[64], path[4096] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    if (readlink(link, path, sizeof path - 1) < 0) return -1;
    note("sync", path);
    return ((int (*)(int)) dlsym(RTLD_NEXT, "fsync"))(file);
}

int rename(const char *from, const char *to) {
    note("rename to", to);
    return ((int (*)(const char *, const char *)) dlsym(RTLD_NEXT, "rename"))(from, to);
}
"#;

    /// After a power cut there is the old file or the new one, and what was appended: each
    /// is on the disk before its name is, and its name before anybody relies on it.
    #[test]
    fn what_is_promised_to_last_is_synced() {
        const NAME: &str = "what_is_promised_to_last_is_synced";
        if let Some(dir) = env::var_os("WRITES_IN") {
            let dir = PathBuf::from(dir);
            let file = dir.join("state.json");
            replace(&dir, &file, b"ours").unwrap();
            append(&file, b" and more").unwrap();
            let status = dir.join("status.json");
            replace_for_now(&status, b"for now", Readers::All).unwrap();
            assert_eq!(read(&status).unwrap(), b"for now");
            assert_eq!(fs::metadata(&status).unwrap().mode() & 0o777, 0o644);
            return;
        }
        // The same test once more, with the shim.
        let made = tempfile::tempdir().unwrap();
        let dir = fs::canonicalize(made.path()).unwrap();
        let [source, shim, calls] = ["shim.c", "shim.so", "calls"].map(|name| dir.join(name));
        fs::write(&source, SHIM).unwrap();
        let built =
            Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&shim, &source]).status().unwrap();
        assert!(built.success());
        let (_, module) = module_path!().split_once("::").unwrap();
        let run = Command::new(env::current_exe().unwrap())
            .args(["--exact", &format!("{module}::{NAME}")])
            .envs([("LD_PRELOAD", &shim), ("CALLS", &calls), ("WRITES_IN", &dir)])
            .output()
            .unwrap();
        assert!(run.status.success(), "{run:?}");
        let dir = dir.to_str().unwrap();
        let called = fs::read_to_string(&calls).unwrap().replace(&format!("{dir}/"), "").replace(dir, ".");
        assert_eq!(
            called.lines().collect::<Vec<_>>(),
            [
                "sync state.new",
                "rename to state.json",
                "sync .",
                "sync state.json",
                // No disk is waited for where nothing outlives the boot.
                "rename to status.json",
            ]
        );
    }

    #[test]
    fn no_link_is_followed_where_something_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let (file, theirs) = (dir.path().join("state.json"), dir.path().join("theirs"));
        for link in ["state.new", "state.json"] {
            fs::write(&theirs, "precious").unwrap();
            symlink(&theirs, dir.path().join(link)).unwrap();
            replace(dir.path(), &file, b"ours").unwrap();
            assert_eq!(fs::read_to_string(&theirs).unwrap(), "precious", "{link}");
            assert_eq!(read(&file).unwrap(), b"ours");
            assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
            fs::remove_file(&file).unwrap();
        }
    }

    #[test]
    fn nothing_is_appended_to_what_is_no_file_of_our_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("theirs"), "precious").unwrap();
        symlink(path("theirs"), path("link")).unwrap();
        // Whoever opens one to write waits until somebody reads.
        nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for name in ["link", "pipe", "missing"] {
            assert!(append(&path(name), b" and more").is_err(), "{name}");
        }
        append(&path("theirs"), b" and more").unwrap();
        assert_eq!(read(&path("theirs")).unwrap(), b"precious and more");
        fs::hard_link(path("theirs"), path("second")).unwrap();
        assert!(append(&path("theirs"), b"?").is_err());
        assert_eq!(fs::read(path("second")).unwrap(), b"precious and more");
    }

    #[test]
    fn what_is_no_file_of_our_own_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("secret"), "root's").unwrap();
        symlink(path("secret"), path("link")).unwrap();
        nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        File::create(path("endless")).unwrap().set_len(MAX_LENGTH + 1).unwrap();
        for name in ["link", "pipe", "endless"] {
            assert!(read(&path(name)).is_err(), "{name}");
        }
        assert_eq!(read(&path("secret")).unwrap(), b"root's");
        File::create(path("longest")).unwrap().set_len(4 * 1024 * 1024).unwrap();
        assert_eq!(read(&path("longest")).unwrap().len(), 4 * 1024 * 1024);
        fs::hard_link(path("secret"), path("second")).unwrap();
        assert!(read(&path("secret")).is_err());
        assert_eq!(read(&path("missing")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_is_set_aside_takes_the_place_of_nothing_up_to_the_hundredth() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("state.json");
        for number in (0..100).chain([99]) {
            let aside = unused_name(&file);
            assert_eq!(aside, dir.path().join(format!("state.damaged-{number}")));
            fs::write(aside, "").unwrap();
        }
    }

    #[test]
    fn a_directory_that_is_not_ours_alone_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let ours = dir.path().join("a/b");
        own_directory(&ours).unwrap();
        assert_eq!(fs::metadata(&ours).unwrap().mode() & 0o777, 0o700);
        own_directory(&ours).unwrap();
        fs::set_permissions(&ours, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(own_directory(&ours).unwrap_err().to_string().contains("chmod o-w"));
        // Root's for everybody else, and for root itself given away.
        let theirs = if geteuid().is_root() {
            nix::unistd::chown(dir.path(), Some(nix::unistd::Uid::from_raw(1)), None).unwrap();
            dir.path()
        } else {
            Path::new("/")
        };
        assert!(own_directory(theirs).unwrap_err().to_string().contains("run it as that user"));
    }
}
