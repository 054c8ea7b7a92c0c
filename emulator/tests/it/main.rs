//! The emulator's binary from outside: what it answers to devices, services
//! and its user.

#![allow(unreachable_pub, reason = "a test program has no outside")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod bulk;
mod command_line;
mod configurations;
mod connect;
mod data_directory;
mod durability;
mod faults;
mod glass;
mod hostile;
mod hostile_text;
mod identities;
mod jobs;
mod messages;
mod methods;
mod modules;
mod mqtt_statements;
mod provisioning;
mod queries;
mod raw_bytes;
mod registration_bodies;
mod secrets;
mod sessions;
mod strangers;
mod support;
mod twins;
mod websocket;
mod x509;
