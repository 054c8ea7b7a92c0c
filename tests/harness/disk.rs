//! A disk that takes its time: a program that is run with it waits in each
//! `fsync` and `fdatasync` for as long as the disk is held.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::path::PathBuf;
use std::process::Command;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

/// Stands before the C library's `fsync` and `fdatasync`, in the programs that are run
/// with [`Disk::environment`].
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static int wait_and(const char *name, int file) {
    /* Opening a pipe lasts until somebody opens its other end. */
    int held = open(getenv("HELD_DISK"), O_RDONLY | O_CLOEXEC);
    if (held >= 0) close(held);
    return ((int (*)(int)) dlsym(RTLD_NEXT, name))(file);
}

int fsync(int file) { return wait_and("fsync", file); }
int fdatasync(int file) { return wait_and("fdatasync", file); }
"#;

/// A disk that can be held.
#[derive(Debug)]
pub struct Disk {
    dir: TempDir,
}

impl Disk {
    /// A disk that is not held.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (source, shim) = (dir.path().join("shim.c"), dir.path().join("shim.so"));
        fs::write(&source, SHIM).unwrap();
        let built =
            Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(shim).arg(source).status().unwrap();
        assert!(built.success());
        Disk { dir }
    }

    /// What a program needs in its environment to use this disk.
    pub fn environment(&self) -> [(&'static str, OsString); 2] {
        [("LD_PRELOAD", self.dir.path().join("shim.so").into()), ("HELD_DISK", self.pipe().into())]
    }

    /// From now on nothing is written for good.
    pub fn hold(&self) {
        mkfifo(&self.pipe(), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    }

    /// Lets all go on that waits, and that comes later.
    pub fn release(&self) {
        // Open for both, which waits for nobody.
        let pipe: File = OpenOptions::new().read(true).write(true).open(self.pipe()).unwrap();
        fs::remove_file(self.pipe()).unwrap();
        drop(pipe);
    }

    fn pipe(&self) -> PathBuf {
        self.dir.path().join("held")
    }
}

impl Default for Disk {
    fn default() -> Self {
        Self::new()
    }
}
