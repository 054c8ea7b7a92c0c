//! One command per file.

pub mod device;
pub mod invoke;
pub mod query;
pub mod reboot;
pub mod status;
pub mod twin;
