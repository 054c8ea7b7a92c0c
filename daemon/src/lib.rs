//! The device daemon: answers `rebootDevice`, has logind reboot the machine,
//! and reports on the next start what became of it.
//!
//! A request travels one road: [`connection::hub`] hears it,
//! [`iotdm_core::decide`] decides, [`run`] carries out the effects in their order
//! ([`host::store`], [`host::backend`], [`connection::hub`] again), the machine
//! goes down and comes up, and [`service`] resumes from the record.

pub mod backoff;
pub mod beat;
pub mod connection;
pub mod durable;
pub mod host;
pub mod lock;
pub mod run;
pub mod service;
pub mod settings;
pub mod way;
