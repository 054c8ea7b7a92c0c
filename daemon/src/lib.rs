//! The device daemon: answers `rebootDevice`, has logind reboot the machine,
//! and reports on the next start what became of it.
//!
//! A request travels one road: [`hub`] hears it, [`agent`] decides, [`run`]
//! carries out the effects in order ([`store`], [`backend`], [`hub`] again),
//! the machine goes down and comes up, and [`agent`] resumes from the record.

pub mod agent;
pub mod answer;
pub mod backend;
pub mod backoff;
pub mod boot;
pub mod cli;
pub mod clock;
pub mod config;
pub mod credentials;
pub mod desired;
pub mod dial;
pub mod effect;
pub mod event;
pub mod guard;
pub mod hub;
pub mod log;
pub mod logind;
pub mod mqtt;
pub mod network;
pub mod notify;
pub mod outage;
pub mod pace;
pub mod provisioning;
pub mod proxy;
pub mod record;
pub mod reporter;
pub mod request;
pub mod run;
pub mod simulate;
pub mod store;
pub mod tls;
pub mod windows;
