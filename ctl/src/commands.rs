//! The commands, one in each file.

pub mod cancel;
pub mod check;
pub mod completions;
pub mod configuration;
pub mod device;
pub mod history;
pub mod invoke;
pub mod job;
pub mod query;
pub mod reboot;
pub mod sas_token;
mod selection;
pub mod status;
pub mod twin;
