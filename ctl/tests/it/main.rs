//! The program against canned hubs at the wire; one binary, as each would link
//! all of the library anew.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests may fail loudly, and so may their helpers, which clippy.toml's permission does not reach"
)]

mod common;

mod again;
mod check;
mod commands;
mod configuration;
mod device;
mod errors;
mod exits;
mod fleet;
mod forms;
mod groups;
mod health;
mod history;
mod hostile;
mod hub;
mod interrupt;
mod known;
mod manual;
mod modules;
mod prometheus;
mod reboot;
mod shells;
mod token;
mod tools;
mod trouble;
mod wish;
