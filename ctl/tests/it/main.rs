//! The program against canned hubs at the wire; one binary, as each would link
//! all of the library anew.

// clippy.toml's permission for tests does not reach their helpers.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

mod check;
mod commands;
mod device;
mod errors;
mod exits;
mod fleet;
mod forms;
mod hub;
mod interrupt;
mod reboot;
mod token;
mod tools;
mod wish;
