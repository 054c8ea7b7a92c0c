//! The machine that the daemon runs on: what carries out a reboot, what is seen
//! of shutdowns and the clock, the record on disk, the journal and systemd.

pub mod backend;
pub mod boot;
pub mod clock;
pub mod connected;
pub mod hang;
pub mod health;
pub mod ids;
pub mod information;
mod journal;
mod lines;
pub mod log;
pub mod logind;
pub mod metrics;
pub mod notice;
pub mod notify;
pub mod preflight;
pub mod required;
pub mod sighting;
pub mod simulate;
pub mod status;
pub mod store;
pub mod traces;
