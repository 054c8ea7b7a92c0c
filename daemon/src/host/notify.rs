//! What systemd is told: readiness, one sentence of status, signs of life.
//!
//! Telling it never waits: the socket is non-blocking, and what it does not take
//! is kept and tried again with the next thing to say. (`sd_notify::notify`
//! would block on a service manager that does not read.)

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use iotdm_proto::text::harmless;
use sd_notify::NotifyState;

/// In characters; more than any sentence of ours.
const MAX_STATUS: usize = 800;

/// The way to the service manager; without one everything is a no-op.
#[derive(Debug)]
pub struct Notify {
    manager: Option<(UnixDatagram, SocketAddr)>,
    /// What was said last, or is to be.
    status: String,
    /// The same as it was handed in.
    raw: String,
    unsent: Unsent,
}

/// What the service manager has not taken yet.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Unsent {
    ready: bool,
    status: bool,
    alive: bool,
    stopping: bool,
}

impl Default for Notify {
    /// The way that `$NOTIFY_SOCKET` names.
    fn default() -> Self {
        let manager = env::var_os("NOTIFY_SOCKET").and_then(|name| match socket(&name) {
            Ok(manager) => Some(manager),
            Err(error) => {
                tracing::warn!("systemd cannot be notified: {error}");
                None
            }
        });
        Notify { manager, status: String::new(), raw: String::new(), unsent: Unsent::default() }
    }
}

impl Notify {
    /// The service has started.
    pub fn ready(&mut self) {
        self.unsent.ready = true;
        self.send();
    }

    /// What `systemctl status` shows; sent only when it changed.
    pub fn status(&mut self, status: String) {
        if status == self.raw {
            return;
        }
        self.raw.clone_from(&status);
        // One line: systemd takes the next for another assignment, and part of
        // this may be what a server said.
        let status: String = harmless(&status).chars().take(MAX_STATUS).collect();
        if status != self.status {
            self.status = status;
            self.unsent.status = true;
            self.send();
        }
    }

    /// The loop that does the work goes round.
    pub fn alive(&mut self) {
        self.unsent.alive = true;
        self.send();
    }

    /// The service is about to stop.
    pub fn stopping(&mut self) {
        self.unsent.stopping = true;
        self.send();
    }

    /// How often [`Notify::alive`] is expected at least: half of the unit's
    /// `WatchdogSec=`.
    pub fn watchdog(&self) -> Option<Duration> {
        sd_notify::watchdog_enabled().map(|limit| limit / 2)
    }

    /// Says, in one datagram, all that has not been said yet.
    fn send(&mut self) {
        let Some((socket, manager)) = &self.manager else { return };
        let Unsent { ready, status, alive, stopping } = self.unsent;
        let states = [
            ready.then_some(NotifyState::Ready),
            status.then_some(NotifyState::Status(&self.status)),
            alive.then_some(NotifyState::Watchdog),
            stopping.then_some(NotifyState::Stopping),
        ];
        let words: String = states.into_iter().flatten().map(|state| format!("{state}\n")).collect();
        match socket.send_to_addr(words.as_bytes(), manager) {
            Ok(_) => self.unsent = Unsent::default(),
            Err(error) => tracing::debug!("systemd was not notified: {error}"),
        }
    }
}

/// A socket, and the address that systemd gave: a path, or `@` and an abstract
/// name. Source: sd_notify(3).
fn socket(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let manager = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, manager))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_that_does_not_read_holds_up_nobody_and_hears_the_last_word_of_each_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_nonblocking(true).unwrap();
        let mut notify = Notify {
            manager: Some(socket(path.as_os_str()).unwrap()),
            status: String::new(),
            raw: String::new(),
            unsent: Unsent::default(),
        };
        // Until the manager's queue is full, however long that is here.
        let mut sent = 0;
        while notify.unsent == Unsent::default() {
            sent += 1;
            assert!(sent < 100_000);
            notify.status(format!("status {sent}"));
        }
        notify.ready();
        notify.status("two\nlines".to_owned());
        let mut buffer = [0; 2048];
        while manager.recv(&mut buffer).is_ok() {}
        notify.alive();
        let length = manager.recv(&mut buffer).unwrap();
        assert_eq!(
            str::from_utf8(&buffer[..length]).unwrap(),
            "READY=1\nSTATUS=two\u{fffd}lines\nWATCHDOG=1\n"
        );
        assert_eq!(notify.unsent, Unsent::default());
    }
}
