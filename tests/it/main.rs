//! Scenarios that cross the programs: the daemon, the operator's tool and the
//! emulator as users run them. One binary, as each would be linked anew.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests may fail loudly, and so may their helpers, which clippy.toml's permission does not reach"
)]

mod azure;
mod configurations;
mod connection;
mod credentials;
mod fleet;
mod guards;
mod health;
mod mended;
mod model;
mod modules;
mod notice;
mod once;
mod operators;
mod reboot;
mod record;
mod remember;
mod servers;
mod slow_disk;
mod status;
mod way;
mod wishes;
