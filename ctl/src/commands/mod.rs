//! One command per file.

pub mod cancel;
pub mod device;
pub mod invoke;
pub mod query;
pub mod reboot;
pub mod status;
pub mod twin;
