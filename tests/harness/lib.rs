//! Runs the programs as users do, with fakes only at the wire: an emulator as
//! the hub, and a login manager on a private bus.
//!
//! Nothing here sleeps: every wait ends with the line that is waited for, or
//! fails with everything that was said until then.

// The harness fails loudly, as the tests do that use it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::missing_panics_doc)]

mod bus;
mod daemon;
mod disk;
mod hub;
mod proxy;
mod ran;
mod relay;
mod server;
mod systemd;
mod transcript;

pub use bus::{Bus, Inhibitor, Logind};
pub use daemon::{Daemon, wait_until};
pub use disk::Disk;
pub use hub::{Hub, StoppedHub};
pub use nix::sys::signal::Signal;
pub use proxy::{Proxy, proxy};
pub use ran::Ran;
pub use relay::relay;
pub use server::{Client, Server};
pub use systemd::Systemd;
pub use transcript::Transcript;

use std::path::PathBuf;

/// A program of this workspace, built beside the running test.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(|deps| deps.parent()).unwrap().join(name);
    assert!(path.exists(), "{} is missing: run cargo build --workspace first", path.display());
    path
}
